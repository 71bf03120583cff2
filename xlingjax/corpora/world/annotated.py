"""The embedded corpus as a treebank: every word of every sentence with what it is and what it shows."""

from collections.abc import Sequence

import numpy as np

from xlingjax.corpora.words import ORDER, Treebank
from xlingjax.corpora.world.grammars import text_of
from xlingjax.corpora.world.word import Word, head, shown
from xlingjax.corpora.world.world import tell
from xlingjax.errors import InputError

FEATURES = ("Number", "Gender", "NounClass", "Tense", "Case", "Person", "Definite")
ORDERS = ("nsubj", "obj", "amod", "det", "nummod", "case")
TASKS = ("upos", *FEATURES, "order:nsubj", "order:obj")


def mini_world_words(
    split: str = "probe", dose: float = 0.15, seed: int = 0, languages: Sequence[str] | None = None,
    sentences: int | None = None, topics: str = "matched", tasks: Sequence[str] = TASKS,
) -> Treebank:
    """The words of `mini_world` with a label for each task, as `read_words` gives those of treebanks.

    A word has a value of a feature where the word itself shows it (`world.word`): another value, all else equal, would
    be written otherwise. So English nouns have no Gender, "sheep" no Number, German articles no Gender in the plural,
    and Russian "врача" no Case, which may be accusative or genitive; Gender and NounClass of nouns belong to the word.
    Values are those that treebanks of each language use: the oblique of Hindi is Case=Acc, its perfective Tense=Past.
    Person is always 3, Definite always Def, and no sentence is negated. Swahili's classes 1 to 11 are NounClass=Bantu1
    and so on. Phrases of place and time are annotated too. A word written as one is one word: Spanish "al" is an ADP
    with the features of its article.

    Args:
        split, dose, seed, languages, sentences, topics: as of `mini_world`.
        tasks: "upos", a feature, or "order:" and nsubj, obj, amod, det, nummod or case, which says "before" or "after"
            its head; subjects and objects depend on the verb, the others on their noun.

    Raises:
        InputError: as `mini_world`, or a task applies to no word.

    >>> bank = mini_world_words(sentences=12, dose=0, languages=("deu",), tasks=("upos", "Number", "order:nsubj"))
    >>> bank.texts[4]
    'am Abend schicken die Mädchen die neue Fahrkarte'
    >>> words = bank.row == 4
    >>> bank.labels["upos"][words].tolist()
    ['ADP', 'NOUN', 'VERB', 'DET', 'NOUN', 'DET', 'ADJ', 'NOUN']
    >>> bank.labels["Number"][words].tolist()
    ['Sing', 'Sing', 'Plur', 'Plur', '', '', 'Sing', 'Sing']
    """
    texts: list[str] = []
    places: list[tuple[str, str]] = []
    row: list[int] = []
    span: list[tuple[int, int]] = []
    form: list[str] = []
    labels: dict[str, list[str]] = {task: [] for task in tasks}
    spoken: list[str] = []
    for part in tell(split, dose, seed, languages, sentences, topics):
        spoken.append(part.language)
        for words, document in zip(part.sentences(), part.documents, strict=True):
            at = 0
            for index, word in enumerate(words):
                row.append(len(texts))
                span.append((at, at + len(word.form)))
                at += len(word.form) + 1
                form.append(word.form.lower())
                values = shown(word)
                for task in tasks:
                    labels[task].append(_label(words, index, values, task))
            texts.append(text_of(words))
            places.append((part.language, document))
    for task, found in labels.items():
        if not any(found):
            raise InputError(
                f"task {task!r} applies to no word of {', '.join(spoken)} in mini_world; it knows upos, "
                f"{', '.join(FEATURES)}, and {ORDER} with {', '.join(ORDERS)}")
    return Treebank(tuple(texts), np.array([g for g, _ in places], str), np.array([d for _, d in places], str),
                    np.array(row, np.int64), np.array(span, np.int64).reshape(-1, 2), np.array(form, str),
                    {task: np.array(found, str) for task, found in labels.items()})


def _label(words: list[Word], index: int, values: dict[str, str], task: str) -> str:
    if task == "upos":
        return words[index].upos
    if not task.startswith(ORDER):
        return values.get(task, "")
    relation = words[index].relation
    if relation != task.removeprefix(ORDER) or relation not in ORDERS:
        return ""
    noun_or_verb = head(words, index)
    return "" if noun_or_verb is None else "before" if index < noun_or_verb else "after"
