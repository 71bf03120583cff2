"""What a downstream task is: examples, their rows of tokens, a head on hidden states, a score for every example.

A task knows no model. What reads the tokens is a function, the body, `(params, tokens, mask) -> hidden`, whose
parameters are data: a bank of another language compiles nothing anew. All rows of a task have one length, all batches
one shape.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, Key

from xlingjax.errors import InputError
from xlingjax.kernels.resampling import document_bootstrap, document_parts
from xlingjax.precision import full_precision
from xlingjax.progress import progress

Head = dict[str, Any]
Targets = Mapping[str, Any]  # arrays, each with the rows of a batch first
Body = Callable[[Any, Int[Array, "B T"], Bool[Array, "B T"]], Float[Array, "B T D"]]
SHARES = {"train": 6, "dev": 1, "test": 3}


class Answer(NamedTuple):
    """An answer as it stands in a context, from the character `start` on."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class Example:
    """One thing to be judged.

    Attributes:
        name: its id in the data set; translations may share it.
        texts: one text or a pair; of a question, (question, context).
        language: its code, as the source has it.
        document: the unit of independence, shared by translations.
        split: "train", "dev", "test", or "" where it has none.
        label: the class, "" where the task has none.
        answers: the right answers, all as good (span tasks).
        spans: the characters of the word in question in each text (tasks about words).
    """

    name: str
    texts: tuple[str, ...]
    language: str
    document: str
    split: str = ""
    label: str = ""
    answers: tuple[Answer, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


def select(
    examples: Sequence[Example], languages: Sequence[str] | None = None, split: str | None = None,
) -> tuple[Example, ...]:
    """The examples of some languages and of one split.

    Raises:
        InputError: none is left.
    """
    found = tuple(e for e in examples if (languages is None or e.language in languages) and split in (None, e.split))
    if not found:
        held = sorted({(e.language, e.split) for e in examples})[:20]
        raise InputError(
            f"no example in languages {languages} and split {split!r}; there are (language, split) {held}")
    return found


def split_by_documents(
    examples: Sequence[Example], shares: Mapping[str, int] | None = None, seed: int = 0,
) -> tuple[Example, ...]:
    """The examples with a split drawn anew; a document lies in one split in all its languages.

    Args:
        examples: whose own splits are dropped.
        shares: of each split, in whole numbers; by default `SHARES`.
        seed: of the draw.

    Raises:
        InputError: fewer documents than splits.

    >>> both = [Example(str(i), (str(i),), code, f"d{i // 2}") for code in ("eng", "deu") for i in range(8)]
    >>> split = split_by_documents(both, {"train": 1, "test": 1})
    >>> homes = {e.document: e.split for e in split}
    >>> all(homes[e.document] == e.split for e in split), sorted(set(homes.values()))
    (True, ['test', 'train'])
    """
    shares = SHARES if shares is None else shares
    _, blocks = np.unique([e.document for e in examples], return_inverse=True)
    parts = document_parts(blocks, np.array([e.language for e in examples]), tuple(shares.values()), seed)
    names = tuple(shares)
    return tuple(dataclasses.replace(e, split=names[part]) for e, part in zip(examples, parts.tolist(), strict=True))


class Batch(NamedTuple):
    """What the body and the head read."""

    tokens: Int[np.ndarray, "B T"]  # int32, 0 under the mask
    mask: Bool[np.ndarray, "B T"]  # True = a token, special ones included
    targets: dict[str, np.ndarray]
    rows: Int[np.ndarray, "B"]  # row of the encoded examples, -1 = filler (no token, all targets 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """e examples as n rows of tokens, all of length T; an example has one row, several windows, or none.

    Attributes:
        examples: what was encoded.
        tokens, mask: of the rows.
        rows: example of each row.
        targets: what the head is trained and read with; `weight` float32[n] is what a row counts in the loss.
        spans: characters of each token in the text that answers are cut from, -1 elsewhere; span tasks only.
        counts: what did not fit, by name, and how often; every task says which names it has.
    """

    examples: tuple[Example, ...]
    tokens: Int[np.ndarray, "n T"]
    mask: Bool[np.ndarray, "n T"]
    rows: Int[np.ndarray, "n"]
    targets: dict[str, np.ndarray]
    spans: Int[np.ndarray, "n T 2"] | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def steps(self, size: int) -> int:
        """Batches of `size` rows that hold every row once."""
        return -(-len(self) // size)

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """The training batch of a step, from 0: always full, every epoch in an order of its own.

        Any step can be asked for at any time, so that a run resumes where it was.
        """
        if not len(self):
            raise InputError("no example has a row of tokens; there is nothing to train on")
        place = np.arange(step * size, (step + 1) * size)
        order = {epoch: np.random.default_rng([seed, 41, epoch]).permutation(len(self))
                 for epoch in np.unique(place // len(self)).tolist()}
        return self._batch(np.array([order[at // len(self)][at % len(self)] for at in place.tolist()]))

    def batches(self, size: int) -> Iterator[Batch]:
        """Every row once and in order; the last batch is filled up."""
        rows = np.full(self.steps(size) * size, -1)
        rows[:len(self)] = np.arange(len(self))
        return (self._batch(part) for part in rows.reshape(-1, size))

    def _batch(self, rows: np.ndarray) -> Batch:
        real = rows >= 0
        taken = lambda of: np.where(real.reshape(-1, *[1] * (of.ndim - 1)), of[rows], np.zeros((), of.dtype))
        targets = {name: taken(value) for name, value in self.targets.items()}
        return Batch(taken(self.tokens), taken(self.mask), targets, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What e examples score.

    Attributes:
        examples: those scored.
        predictions: what was answered: a class, or a span of text.
        values: measure -> float[e]; between 0 and 1, more is better.
        chance: measure -> float[e], what the task's own baseline that has read no hidden state gets at each.
        ceiling: measure -> float[e], the most that the tokens given allow (1 where nothing was lost).
    """

    examples: tuple[Example, ...]
    predictions: tuple[str, ...]
    values: dict[str, Float[np.ndarray, "e"]]
    chance: dict[str, Float[np.ndarray, "e"]]
    ceiling: dict[str, Float[np.ndarray, "e"]]

    def means(self) -> dict[str, float]:
        """Measure -> mean over all examples."""
        return {name: float(value.mean()) for name, value in self.values.items()}

    def table(self, draws: int = 1000, seed: int = 0, level: float = 0.95) -> xr.Dataset:
        """Means of every language and measure, with chance, ceiling, and intervals by documents.

        Args:
            draws: bootstrap samples of documents; `low` and `high` are percentiles of their means.
            seed: of the draws, the same documents for every language that has them all.
            level: of the interval.

        Returns:
            [language, measure]: `score`, `chance`, `ceiling`, `low`, `high`; [language]: `examples`, `documents`.
        """
        codes = [e.language for e in self.examples]
        languages, measures = list(dict.fromkeys(codes)), list(self.values)
        shape = (len(languages), len(measures))
        found = {name: np.zeros(shape) for name in ("score", "chance", "ceiling", "low", "high")}
        count, documents = np.zeros((2, len(languages)), int)
        for g, language in enumerate(languages):
            at = np.array([i for i, code in enumerate(codes) if code == language])
            _, block = np.unique([self.examples[i].document for i in at], return_inverse=True)
            count[g], documents[g] = len(at), block.max() + 1
            weight = np.stack([document_bootstrap(block, draw + (seed << 20)) for draw in range(draws)])
            for m, measure in enumerate(measures):
                value = self.values[measure][at]
                means = weight @ value / np.maximum(weight.sum(1), 1)
                found["score"][g, m] = value.mean()
                found["chance"][g, m] = self.chance[measure][at].mean()
                found["ceiling"][g, m] = self.ceiling[measure][at].mean()
                found["low"][g, m], found["high"][g, m] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        axes = ("language", "measure")
        return xr.Dataset(
            {name: (axes, value) for name, value in found.items()}
            | {"examples": ("language", count), "documents": ("language", documents)},
            {"language": languages, "measure": measures},
            {"level": level, "draws": draws, "seed": seed})


class Task(Protocol):
    """A downstream task. A frozen dataclass: equal tasks share their compiled programs."""

    def __hash__(self) -> int:
        """As of a frozen dataclass."""

    @property
    def name(self) -> str:
        """Of the task, for reports."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what is scored, the main one first."""

    def encode(self, examples: Sequence[Example], tokenizer: Any, length: int) -> Encoded:
        """Rows of `length` tokens; `InputError` names an example that cannot be one of this task."""

    def init_head(self, key: Key[Array, ""], width: int) -> Head:
        """Parameters of the head on hidden states of `width` units, float32."""

    def loss(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> tuple[Array, Array]:
        """(summed loss in nats, summed weight) of a batch; the loss of a batch is sum / weight."""

    def outputs(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> dict[str, Array]:
        """What a prediction is made from, small and rows first; no target that gives the answer away is read."""

    def score(self, outputs: Mapping[str, np.ndarray], encoded: Encoded) -> Scores:
        """Scores of every example from the outputs of all rows."""


def predict(
    task: Task, body: Body, params: Any, head: Head, encoded: Encoded, size: int = 32, *, show: bool | None = None,
) -> dict[str, np.ndarray]:
    """The outputs of all n rows, compiled once for a task, a body and a shape.

    Args:
        task: what reads the hidden states.
        body: `(params, tokens, mask) -> hidden`; the same function object shares the program.
        params: the body's.
        head: the task's.
        encoded: the rows.
        size: rows of a batch.
        show: the progress bar, as `progress` has it.
    """
    program, parts = _program(task, body), []
    batches = progress(encoded.batches(size), total=encoded.steps(size), label=task.name, unit="batches", show=show)
    for batch in batches:
        outputs = program(params, head, batch.tokens, batch.mask, batch.targets)
        parts.append({name: np.asarray(value)[batch.rows >= 0] for name, value in outputs.items()})
    if not parts:
        raise InputError(f"{task.name}: no example has a row of tokens; there is nothing to predict")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def evaluate(
    task: Task, body: Body, params: Any, head: Head, encoded: Encoded, size: int = 32, *, show: bool | None = None,
) -> Scores:
    """The task's scores of a body and a head; arguments as of `predict`."""
    return task.score(predict(task, body, params, head, encoded, size, show=show), encoded)


def mean_loss(task: Task, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> Float[Array, ""]:
    """The loss of a batch, nats a unit of weight: what fine-tuning differentiates."""
    total, weight = task.loss(head, hidden, targets)
    return total / jnp.maximum(weight, 1)


@functools.lru_cache(maxsize=16)
def _program(task: Task, body: Body) -> Callable:
    def outputs(params: Any, head: Head, tokens: Array, mask: Array, targets: Targets) -> dict[str, Array]:
        return task.outputs(head, body(params, tokens, mask), targets)

    return jax.jit(full_precision(outputs))
