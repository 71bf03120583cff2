"""Prompts for steering: translations by example, and beginnings of sentences."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.parallel import parallel_rows
from xlingjax.errors import InputError

STOP = "\n"  # where an answer of a few-shot prompt ends
NAMES = dict(pair.split(":") for pair in (
    "afr:Afrikaans amh:Amharic ara:Arabic arb:Arabic ben:Bengali bul:Bulgarian cat:Catalan ces:Czech cmn:Chinese "
    "dan:Danish deu:German ell:Greek eng:English est:Estonian eus:Basque fas:Persian fin:Finnish fra:French "
    "hau:Hausa heb:Hebrew hin:Hindi hrv:Croatian hun:Hungarian hye:Armenian ibo:Igbo ind:Indonesian isl:Icelandic "
    "ita:Italian jpn:Japanese kan:Kannada kat:Georgian kaz:Kazakh kin:Kinyarwanda kor:Korean lit:Lithuanian "
    "lvs:Latvian mar:Marathi nld:Dutch nor:Norwegian nob:Norwegian pes:Persian pol:Polish por:Portuguese "
    "ron:Romanian rus:Russian slk:Slovak slv:Slovenian spa:Spanish sqi:Albanian srp:Serbian swa:Swahili swe:Swedish "
    "swh:Swahili tam:Tamil tel:Telugu tha:Thai tur:Turkish ukr:Ukrainian urd:Urdu uzb:Uzbek vie:Vietnamese "
    "wol:Wolof xho:Xhosa yor:Yoruba zho:Chinese zul:Zulu").split())


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts:
    """n prompts.

    Attributes:
        texts: what a model goes on from.
        references: how the corpus goes on.
        rows: of the corpus, the sentence that is asked for (continued, or the translation that is wanted).
        shots: rows of the examples, the wanted language's; no column without examples.
        languages, documents: of `rows`.
    """

    texts: tuple[str, ...]
    references: tuple[str, ...]
    rows: Int[np.ndarray, "n"]
    shots: Int[np.ndarray, "n shots"]
    languages: Shaped[np.ndarray, "n"]
    documents: Shaped[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.texts)


def few_shot(
    corpus: Corpus, source: str, target: str, shots: int = 4, count: int = 50, seed: int = 0,
    asked: Collection[str] | None = None, names: Mapping[str, str] | None = None,
) -> Prompts:
    """Translation by examples: "English: ...\\nSpanish: ...\\n\\n" for each example, then "English: ...\\nSpanish:".

    The examples of a prompt come from documents other than the one that is asked of, as far as there are enough each
    from another. Prompt i depends on the corpus, the seed and i alone.

    Args:
        corpus: with parallel ids, as PUD, SIB-200 and `mini_world` have.
        shots: examples of a prompt. count: prompts, at most.
        asked: documents whose sentences may be asked; default all.
        names: of languages in prompts, where `NAMES` lacks them.

    Raises:
        InputError: a language is missing or has no name, too few translations, or no documents for examples.

    >>> from xlingjax.corpora import mini_world
    >>> prompts = few_shot(mini_world(languages=("eng", "spa"), sentences=40), "eng", "spa", shots=1, count=5)
    >>> print(prompts.texts[0])
    English: today the small girl sold the bad letter
    Spanish: hoy la chica pequeña vendió la carta mala
    <BLANKLINE>
    English: yesterday the artists found the new guitars in the house
    Spanish:
    """
    if shots < 1 or count < 1:
        raise InputError(f"{shots} examples in {count} prompts; give 1 or more of each")
    labels = [language_name(language, names) for language in (source, target)]
    pair = corpus.language(source, target)
    homes = np.flatnonzero(np.isin(corpus.languages, (source, target)))
    found = homes[parallel_rows(pair, shots + 1)]
    sides = dict(zip(pair.language_names, found))
    both = np.stack([sides[source], sides[target]], 1)  # rows of the corpus, [pairs, 2]
    block = np.unique(corpus.documents[both[:, 1]], return_inverse=True)[1]
    order = np.random.default_rng([seed, 53]).permutation(len(both))
    if asked is not None:
        order = order[np.isin(corpus.documents[both[order, 1]], list(asked))]
    order = order[:count]
    if not len(order):
        raise InputError(f"no sentence of the documents that may be asked has a translation from {source} to {target}")
    line = lambda side, row: f"{labels[side]}: {' '.join(corpus.texts[row].split())}"
    texts, examples = [], []
    for number, item in enumerate(order):
        others = np.flatnonzero(block != block[item])
        if len(others) < shots:
            raise InputError(f"only {len(others)} translations lie outside the document of a prompt, and {shots} "
                             "examples are wanted; ask for fewer, or give more documents")
        chosen = _apart(others, block, shots, np.random.default_rng([seed, 59, number]))
        shown = [f"{line(0, both[one, 0])}\n{line(1, both[one, 1])}\n\n" for one in chosen]
        texts.append("".join(shown) + f"{line(0, both[item, 0])}\n{labels[1]}:")
        examples.append(both[chosen, 1])
    rows = both[order, 1]
    return Prompts(tuple(texts), tuple(corpus.texts[row] for row in rows), rows, np.stack(examples),
                   corpus.languages[rows], corpus.documents[rows])


def _apart(
    rows: Int[np.ndarray, "m"], block: Int[np.ndarray, "n"], count: int, rng: np.random.Generator,
) -> Int[np.ndarray, "count"]:
    """Random rows, each of another block as far as there are enough."""
    mixed = rng.permutation(rows)
    _, first = np.unique(block[mixed], return_index=True)
    again = np.ones(len(mixed), bool)
    again[first] = False
    return mixed[np.argsort(again, kind="stable")][:count]


def continuations(
    corpus: Corpus, words: int = 4, count: int = 50, seed: int = 0, asked: Collection[str] | None = None,
) -> Prompts:
    """The first words of sentences, `count` of each language at most, without what follows.

    Where sentences are translations, the same ones are taken in every language. Words are what blanks divide.

    Args:
        words: of a prompt; a sentence must have at least two more.
        asked: documents whose sentences may be asked; default all.

    Raises:
        InputError: a language has no sentence that is long enough.

    >>> from xlingjax.corpora import mini_world
    >>> prompts = continuations(mini_world(languages=("eng", "fin"), sentences=40), words=3, count=2)
    >>> list(zip(prompts.texts, prompts.references))[0]
    ('during the night', ' the merchant sees the bad bread')
    """
    if words < 1 or count < 1:
        raise InputError(f"{words} words in {count} prompts; give 1 or more of each")
    allowed = np.ones(len(corpus), bool) if asked is None else np.isin(corpus.documents, list(asked))
    items = np.array([parallel or f"{language}/{row}" for row, (parallel, language) in enumerate(
        zip(corpus.parallel.tolist(), corpus.languages.tolist()))])
    long = np.array([len(text.split()) >= words + 2 for text in corpus.texts], bool)
    rng = np.random.default_rng([seed, 61])
    place = {item: at for at, item in enumerate(rng.permutation(list(dict.fromkeys(items.tolist()))).tolist())}
    rank = np.array([place[item] for item in items.tolist()])
    chosen: list[int] = []
    for language in corpus.language_names:
        rows = np.flatnonzero((corpus.languages == language) & allowed & long)
        if not len(rows):
            raise InputError(f"language {language!r} has no sentence of {words + 2} words divided by blanks that may "
                             "be asked; ask for fewer words or leave the language out")
        chosen += rows[np.argsort(rank[rows], kind="stable")][:count].tolist()
    at = np.array(chosen)
    begun = [" ".join(corpus.texts[row].split()[:words]) for row in chosen]
    rest = [" " + " ".join(corpus.texts[row].split()[words:]) for row in chosen]
    return Prompts(tuple(begun), tuple(rest), at, np.zeros((len(at), 0), np.int64), corpus.languages[at],
                   corpus.documents[at])


def language_name(code: str, names: Mapping[str, str] | None = None) -> str:
    """What a language is called in English.

    >>> language_name("spa_Latn"), language_name("tlh", {"tlh": "Klingon"})
    ('Spanish', 'Klingon')

    Raises:
        InputError: the name is not known.
    """
    known = {**NAMES, **(names or {})}
    for key in (code, code.split("_")[0]):
        if key in known:
            return known[key]
    raise InputError(f"language {code!r} has no name here; give names={{{code!r}: ...}}")


def require_room(prompts: Prompts, tokenizer: Any, context: int | None, new_tokens: int) -> int:
    """The longest prompt in tokens; `InputError` where a prompt and what is to be written after it exceed the context.

    Args:
        context: of the model, in tokens; None = no limit.
        new_tokens: to be written.
    """
    lengths = [len(ids) for ids in tokenizer(list(prompts.texts))["input_ids"]]
    longest = max(lengths, default=0)
    if context is not None and longest + new_tokens > context:
        over = sum(length + new_tokens > context for length in lengths)
        raise InputError(f"{over} of {len(prompts)} prompts, the longest of {longest} tokens, leave no room for "
                         f"{new_tokens} new ones in a context of {context}; ask for fewer examples or new tokens")
    return longest
