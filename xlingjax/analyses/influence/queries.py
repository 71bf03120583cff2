"""What is asked: prompts with completions, in one language or, as translations, in several."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import table
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.files import canonical
from xlingjax.models import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Queries:
    """Q questions of the form: how did this completion become likely after this prompt?

    Attributes:
        prompts, completions: Q texts each; they are read as one text, with a blank between them.
        languages: str[Q]. parallel: str[Q], shared by translations. documents: str[Q], that they come from.
    """

    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    languages: np.ndarray
    parallel: np.ndarray
    documents: np.ndarray

    def __post_init__(self) -> None:
        for number, (prompt, completion) in enumerate(zip(self.prompts, self.completions)):
            for name, text in (("prompt", prompt), ("completion", completion)):
                if not text.strip():
                    raise InputError(f"query {number} ({self.languages[number]}) has no {name}; give it one")

    def __len__(self) -> int:
        return len(self.prompts)

    @functools.cached_property
    def language_names(self) -> tuple[str, ...]:
        """Languages in order of first appearance."""
        return tuple(dict.fromkeys(self.languages.tolist()))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal queries have equal ones."""
        return canonical([self.prompts, self.completions, *(
            one.tolist() for one in (self.languages, self.parallel, self.documents))])

    def rows(self, index: np.ndarray) -> "Queries":
        """Some of the queries, in that order."""
        index = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index)
        return Queries(tuple(self.prompts[i] for i in index), tuple(self.completions[i] for i in index),
                       self.languages[index], self.parallel[index], self.documents[index])

    @property
    def aligned(self) -> bool:
        """Whether they are the same questions in every language, language after language in one order."""
        ids = [self.parallel[self.languages == name].tolist() for name in self.language_names]
        grouped = [name for name in self.language_names for _ in range((self.languages == name).sum())]
        return len(ids) > 1 and all(one == ids[0] for one in ids) and grouped == self.languages.tolist()

    @property
    def texts(self) -> list[str]:
        """Each query as one text."""
        return [f"{prompt} {completion}" for prompt, completion in zip(self.prompts, self.completions)]

    @property
    def flipped(self) -> list[str]:
        """The same words, the completion before the prompt."""
        return [f"{completion} {prompt}" for prompt, completion in zip(self.prompts, self.completions)]

    def tokens(self, model: Model, length: int) -> tuple[Tokens, list[Bool[np.ndarray, "t"]]]:
        """Tokens of each query, and which of them are its completion.

        A token that writes the end of the prompt and the beginning of the completion belongs to the completion.

        Raises:
            InputError: a query is longer than `length`, or its completion has no token.
        """
        whole = tokenise(model.tokenizer, self.texts, length)
        if whole.truncated:
            raise InputError(f"{whole.truncated} queries are longer than {length} tokens; shorten them or raise length")
        begun = tokenise(model.tokenizer, list(self.prompts), length)
        scored = []
        for number, (ids, special, prompt) in enumerate(zip(whole.ids, whole.special, begun.ids)):
            same = ids[:len(prompt)] == prompt[:len(ids)]
            start = len(same) if same.all() else int(np.argmin(same))
            chosen = (np.arange(len(ids)) >= max(start, 1)) & ~special
            if not chosen.any():
                raise InputError(f"the tokenizer of {model.name} makes no token of the completion "
                                 f"{self.completions[number]!r} of query {number}; give another one")
            scored.append(chosen)
        return whole, scored


def read_queries(path: str | Path) -> Queries:
    """A table of queries: tab-separated columns language, prompt, completion; `id` is shared by translations.

    Raises:
        InputError: a column is missing, or a row has no prompt or completion.
    """
    rows = list(table(path, ("language", "prompt", "completion")))
    if not rows:
        raise InputError(f"{path} holds no query; give one a row")
    names = np.array([row.get("id") or str(number) for number, row in enumerate(rows)])
    return Queries(tuple(row["prompt"] for row in rows), tuple(row["completion"] for row in rows),
                   np.array([row["language"] for row in rows]), names, names)


def halved(corpus: Corpus, rows: Sequence[int] | np.ndarray) -> Queries:
    """Sentences as queries: the first half of the words, rounded down, is the prompt.

    Text without blanks is cut in the middle of its characters.

    Raises:
        InputError: a sentence is a single character.

    >>> from xlingjax.corpora import mini_world
    >>> corpus = mini_world(languages=("eng",))
    >>> made = halved(corpus, [0])
    >>> f"{made.prompts[0]} {made.completions[0]}" == corpus.texts[0]
    True
    """
    prompts, completions = [], []
    for row in rows:
        words = corpus.texts[row].split()
        words = list("".join(words)) if len(words) == 1 else words
        if len(words) < 2:
            raise InputError(f"sentence {row} of corpus {corpus.name!r}, {corpus.texts[row]!r}, is too short to be cut "
                             "into a prompt and a completion; leave it out")
        joint = "" if len(corpus.texts[row].split()) == 1 else " "
        prompts.append(joint.join(words[:len(words) // 2]))
        completions.append(joint.join(words[len(words) // 2:]))
    return Queries(tuple(prompts), tuple(completions), corpus.languages[rows], corpus.parallel[rows],
                   corpus.documents[rows])
