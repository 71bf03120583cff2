"""What a transfer is made of: running text by language, a task in all of them, and what was taken out of the text."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xlingjax.analyses.lexical_transfer.settings import LexicalSettings
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.running_text import read_text
from xlingjax.errors import InputError
from xlingjax.judging.languages import LIBRARY, LibraryLanguages, fit_languages
from xlingjax.tasks.task import Example, Task, select
from xlingjax.training.languages import hold_out
from xlingjax.training.streams import Held, Stream, TokenText, held_rows, token_texts
from xlingjax.training.tokenizer import BYTES, SPECIAL, train_tokenizer

Pairs = Sequence[tuple[str, str]]
SHARES = {"train": 7, "test": 3}  # of a task's documents, where they are drawn


def text_beside(paths: Sequence[str], languages: Sequence[str], task_texts: Iterable[str]) -> Corpus:
    """Running text from files, without what stands in a task's texts."""
    texts, tested = read_text(list(paths), languages=list(languages)), set(task_texts)
    return texts.rows(np.array([text not in tested for text in texts.texts]))


@dataclasses.dataclass(frozen=True, eq=False)
class TransferData:
    """One experiment's text and task.

    Attributes:
        texts: running text; its languages are `first` and the others.
        first: the language that the body is trained on, L1.
        task: what is fine-tuned and scored.
        examples: with split "train" in `first`, and "test" in every language.
        dictionaries: other language -> pairs (word of `first`, word of it); {} where there is none.
        concepts: labelled sentences in all languages, for the experts; None where there are none.
    """

    texts: Corpus
    first: str
    task: Task
    examples: tuple[Example, ...]
    dictionaries: Mapping[str, Pairs] = dataclasses.field(default_factory=dict)
    concepts: Corpus | None = None

    def __post_init__(self) -> None:
        if self.first not in self.texts.language_names:
            raise InputError(f"language {self.first!r}, on which the body is to be trained, has no text in corpus "
                             f"{self.texts.name!r}; it has {', '.join(self.texts.language_names)}")
        if not self.others:
            raise InputError(f"corpus {self.texts.name!r} has no language but {self.first!r}; transfer needs another")
        train = {e.document for e in select(self.examples, [self.first], "train")}
        for language in (self.first, *self.others):
            both = train & {e.document for e in select(self.examples, [language], "test")}
            if both:
                raise InputError(f"document {sorted(both)[0]!r} is in the training examples and in the test of "
                                 f"{language!r}; draw the splits by documents (tasks.split_by_documents)")
        tested = {text for e in self.examples if e.split == "test" for text in e.texts}
        seen = tested & set(self.texts.texts)
        if seen:
            raise InputError(f"{len(seen)} test texts stand in the running text, among them {sorted(seen)[0][:60]!r}; "
                             "take them out")

    @property
    def others(self) -> tuple[str, ...]:
        """The languages that the body never sees, L2."""
        return tuple(name for name in self.texts.language_names if name != self.first)


@dataclasses.dataclass(frozen=True, eq=False)
class Language:
    """A vocabulary and the text it reads: of one language, or of several with one tokenizer.

    Attributes:
        name: of the bank.
        tokenizer: trained on the text.
        texts: language -> its tokens.
        vocabulary: rows of a bank for it.
        held: held-out rows.
    """

    name: str
    tokenizer: Any
    vocabulary: int
    texts: Mapping[str, TokenText]
    held: Held

    def stream(self, settings: LexicalSettings, seed: int) -> Stream:
        """Training batches; several languages are drawn alike."""
        return Stream(dict(self.texts), settings.rows, settings.length, self.tokenizer.bos_token_id, 0.0, seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Cleaned:
    """Training and held-out text of every language, and what was taken out.

    Attributes:
        train, held: disjoint documents.
        lines, removed: language -> lines before, and lines taken out because they are in the first language.
        tokens: language -> tokens that training has, filled as tokenizers are made.
    """

    train: Corpus
    held: Corpus
    lines: dict[str, int]
    removed: dict[str, int]
    tokens: dict[str, int] = dataclasses.field(default_factory=dict)


def clean(data: TransferData, settings: LexicalSettings) -> Cleaned:
    """The text without lines of the first language in the others', and its held-out documents.

    A line is in the first language where it stands in that language's text word by word, or where a judge of the two
    languages says so (py3langid; n-grams of the text itself for languages that it does not know).
    """
    texts = data.texts
    keep = np.array([bool(text.strip()) for text in texts.texts])
    own = {texts.texts[row] for row in np.flatnonzero(texts.languages == data.first)}
    lines, removed = {}, dict.fromkeys(texts.language_names, 0)
    for language in texts.language_names:
        rows = np.flatnonzero((texts.languages == language) & keep)
        lines[language] = len(rows)
        if language == data.first or not settings.clean:
            continue
        said = _judge(data, language).verdicts([texts.texts[row] for row in rows])
        foreign = np.array([verdict == data.first or texts.texts[row] in own for row, verdict in zip(rows, said)])
        keep[rows[foreign]] = False
        removed[language] = int(foreign.sum())
        if foreign.all():
            raise InputError(f"all {len(rows)} lines of {language!r} are taken for {data.first!r}; give other text, or "
                             "clean=False")
    train, held = hold_out(texts.rows(keep), settings.held_out, 0)
    return Cleaned(train, held, lines, removed)


def _judge(data: TransferData, language: str) -> Any:
    names = (data.first, language)
    if all(name.split("_")[0] in LIBRARY for name in names):
        return LibraryLanguages(names)
    return fit_languages(data.texts.language(*names))[0]


def read_languages(data: TransferData, cleaned: Cleaned, settings: LexicalSettings) -> dict[str, Language]:
    """Each language with a tokenizer of its own; the others' texts have equally many tokens.

    Raises:
        InputError: a text smaller than a batch.
    """
    names = data.texts.language_names
    made = {name: _language(name, (name,), cleaned, settings, settings.vocabulary) for name in names}
    least = min(made[name].texts[name].real for name in data.others)
    for name in data.others:
        made[name] = dataclasses.replace(made[name], texts={name: first_tokens(made[name].texts[name], least)})
    for name, one in made.items():
        cleaned.tokens[name] = one.texts[name].real
        if cleaned.tokens[name] < settings.rows * settings.length:
            raise InputError(
                f"the text of {name!r} has {cleaned.tokens[name]} tokens (the shortest of the others decides for "
                f"all), fewer than a batch of {settings.rows} x {settings.length}; give more text or a smaller batch")
    return made


def read_jointly(names: Sequence[str], cleaned: Cleaned, settings: LexicalSettings) -> Language:
    """Several languages with one tokenizer, each with the tokens it has when it stands alone or fewer.

    The vocabulary has as many pieces for each as one alone has; special tokens and bytes are there once.
    """
    vocabulary = len(names) * settings.vocabulary - (len(names) - 1) * (len(SPECIAL) + len(BYTES))
    made = _language("+".join(names), names, cleaned, settings, vocabulary)
    return dataclasses.replace(made, texts={
        name: first_tokens(text, cleaned.tokens[name]) for name, text in made.texts.items()})


def read_apart(first: Language, other: Language, settings: LexicalSettings) -> tuple[Language, np.ndarray, np.ndarray]:
    """Two languages under one vocabulary in which they share nothing but the special tokens.

    Returns:
        The language, whose tokenizer is the first one's, and the rows of each of the two in the joint vocabulary of
        2 V - specials, int[V].
    """
    specials, size = len(SPECIAL), settings.vocabulary
    rows = np.concatenate([np.arange(specials), size + np.arange(size - specials)])
    (name, text), = other.texts.items()
    moved = dataclasses.replace(text, tokens=rows[text.tokens].astype(np.int32))
    (own, _), = first.texts.items()
    texts = {own: first.texts[own], name: moved}
    joined = Language(f"{own}|{name}", first.tokenizer, 2 * size - specials, texts, first.held)
    return joined, np.arange(size), rows


def first_tokens(text: TokenText, count: int) -> TokenText:
    """The beginning of a text, about `count` of its tokens that are text.

    >>> text = TokenText(np.arange(10, dtype=np.int32), np.array([0, 4, 8]), 40, 10)
    >>> cut = first_tokens(text, 5)
    >>> cut.tokens.tolist(), cut.starts.tolist(), cut.real, cut.characters
    ([0, 1, 2, 3, 4], [0, 4], 5, 20)
    """
    if count >= text.real:
        return text
    length = max(1, round(len(text.tokens) * count / text.real))
    return TokenText(text.tokens[:length], text.starts[text.starts < length],
                     round(text.characters * count / text.real), count)


def _language(
    name: str, names: Sequence[str], cleaned: Cleaned, settings: LexicalSettings, vocabulary: int,
) -> Language:
    for one in names:
        if one not in cleaned.train.language_names:
            raise InputError(f"no text of {one!r} is left to train on; give more documents")
    corpus = cleaned.train.language(*names)
    tokenizer = train_tokenizer(corpus, vocabulary, objective="masked")
    held = [one for one in names if one in cleaned.held.language_names]
    if not held:
        raise InputError(f"no document of {name!r} is held out; give more than one, or raise held_out")
    rows = held_rows(
        token_texts(cleaned.held.language(*held), tokenizer, settings.length), settings.rows, settings.length,
        tokenizer.bos_token_id, tokenizer.pad_token_id, 4096)
    return Language(name, tokenizer, vocabulary, token_texts(corpus, tokenizer, settings.length), rows)
