"""Answers that are spans of a context: windows with stride, a head for start and end, n-best decoding, F1 and EM."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from xlingjax.errors import InputError, require_least
from xlingjax.tasks.answers import MEASURES, best, check
from xlingjax.tasks.classification import SPREAD
from xlingjax.tasks.encoding import joined, padded, read_marks, read_pieces
from xlingjax.tasks.task import Encoded, Example, Head, Scores, Targets

NEVER = -1e30  # a score that no span has


class Candidate(NamedTuple):
    """A possible answer."""

    text: str
    start: int  # character of the context
    score: float  # log-probability of its start plus that of its end


@dataclasses.dataclass(frozen=True)
class SpanAnswers:
    """Extractive question answering, scored by F1 and exact match.

    The row is `first question between window between`. A window in which the answer does not stand whole has the
    token that sums up the row for its answer, as BERT does it: that is not an answer that can be given, but windows
    compete by probabilities, and what it takes is missing from theirs.

    Attributes:
        name: of the task.
        stride: tokens from the start of one window to that of the next.
        longest_question: tokens of a question; more are cut.
        longest_answer: tokens of an answer that is given.
        candidates: answers kept of each window.
        rules: "squad" or "mlqa"; see `tasks.answers`.
        reads: the token that sums up a row, "first" (encoders) or "last" (decoders).
    """

    name: str = "squad"
    stride: int = 128
    longest_question: int = 64
    longest_answer: int = 30
    candidates: int = 20
    rules: str = "squad"
    reads: str = "first"
    measures: tuple[str, ...] = tuple(MEASURES)

    def __post_init__(self) -> None:
        require_least(self, dict.fromkeys(("stride", "longest_question", "longest_answer", "candidates"), 1))
        check(self.rules, [])
        if self.reads not in ("first", "last"):
            raise InputError(f"reads is {self.reads!r}; choose 'first' or 'last'")

    def encode(self, examples: Sequence[Example], tokenizer: Any, length: int) -> Encoded:
        """A row for every window.

        Targets: `start`, `end` int32[n], tokens of the first answer; `context` bool[n, T], tokens that may be answers;
        `none` int32[n], the token that says that none is here; `answered` bool[n].
        Counts: `cut` questions, `windows` beyond the first, `unreachable` answers (in no window whole), `longer`
        answers (than may be given), `inexact` answers (their tokens write more than them).

        Raises:
            InputError: an example without answer, a language that the rules do not define, or too short a row.
        """
        check(self.rules, sorted({e.language for e in examples}))
        for e in examples:
            if not e.answers or len(e.texts) != 2:
                raise InputError(f"example {e.name!r} is no question: it needs a context and an answer")
        marks = read_marks(tokenizer)
        fewest = len(marks.first) + 2 + self.longest_question + 1
        if length < fewest or (self.reads == "first" and not marks.first):
            raise InputError(
                f"rows of {length} tokens hold no context beside a question of {self.longest_question} and the marks; "
                f"give {fewest} or more, or a smaller longest_question" if marks.first or self.reads == "last" else
                f"task {self.name!r} reads the first token, and the tokenizer marks no beginning; take reads='last'")
        counts = dict.fromkeys(("cut", "windows", "unreachable", "longer", "inexact"), 0)
        contexts = list(dict.fromkeys(e.texts[1] for e in examples))
        pieces_of = dict(zip(contexts, read_pieces(tokenizer, contexts), strict=True))
        questions = read_pieces(tokenizer, [e.texts[0] for e in examples])
        rows, owner, windows = [], [], []
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            asked, pieces = question.ids[:self.longest_question], pieces_of[example.texts[1]]
            room = length - len(marks.first) - 2 - len(asked)
            answer = _tokens_of(pieces.spans, example, counts)
            reached = False
            for at in _window_starts(len(pieces.ids), room, min(self.stride, room)):
                row = joined(marks, [asked, pieces.ids[at:at + room]])
                window = _Window.of(pieces.spans[at:at + room], at, len(marks.first) + len(asked) + 1, answer,
                                    0 if self.reads == "first" else len(row) - 1, length)
                rows.append(row)
                owner.append(number)
                windows.append(window)
                counts["windows"] += at > 0
                reached |= window.answered
            counts["cut"] += len(question.ids) > len(asked)
            counts["unreachable"] += not reached
            counts["longer"] += answer is not None and answer[1] - answer[0] >= self.longest_answer
        tokens, mask = padded(rows, length)
        column = lambda name, dtype: np.array([getattr(window, name) for window in windows], dtype)
        targets = {"start": column("start", np.int32), "end": column("end", np.int32), "none": column("none", np.int32),
                   "answered": column("answered", bool), "context": column("context", bool).reshape(-1, length),
                   "weight": np.ones(len(rows), np.float32)}
        return Encoded(tuple(examples), tokens, mask, np.array(owner, np.int64), targets,
                       column("spans", np.int32).reshape(-1, length, 2), counts)

    def init_head(self, key: Key[Array, ""], width: int) -> Head:
        """`out`: two logits a token, start and end."""
        kernel = SPREAD * jax.random.normal(key, (width, 2), jnp.float32)
        return {"out": {"kernel": kernel, "bias": jnp.zeros(2, jnp.float32)}}

    def log_probabilities(
        self, head: Head, hidden: Float[Array, "B T D"], targets: Targets,
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Of every token as start and as end, over the window's tokens and the one that says that none is here."""
        place = jnp.arange(hidden.shape[1])[None, :]
        allowed = jnp.asarray(targets["context"]) | (place == jnp.asarray(targets["none"])[:, None])
        shown = jnp.where(allowed[..., None], hidden, 0).astype(jnp.float32)
        logits = shown @ head["out"]["kernel"] + head["out"]["bias"]
        logs = jax.nn.log_softmax(jnp.where(allowed[..., None], logits, NEVER), axis=1)
        return logs[..., 0], logs[..., 1]

    def loss(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> tuple[Array, Array]:
        """Cross-entropy, the mean of that of the start and that of the end."""
        starts, ends = self.log_probabilities(head, hidden, targets)
        chosen = lambda logs, name: jnp.take_along_axis(logs, jnp.asarray(targets[name])[:, None], axis=1)[:, 0]
        weight = jnp.asarray(targets["weight"])
        return -(weight * (chosen(starts, "start") + chosen(ends, "end"))).sum() / 2, weight.sum()

    def outputs(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> dict[str, Array]:
        """The best spans of every window: `score`, `start`, `end` [B, candidates]; `NEVER` where there are fewer."""
        starts, ends = self.log_probabilities(head, hidden, targets)
        return best_spans(starts, ends, jnp.asarray(targets["context"]), self.longest_answer, self.candidates)

    def answers(self, outputs: Mapping[str, np.ndarray], encoded: Encoded) -> tuple[tuple[Candidate, ...], ...]:
        """The n best answers to each question over all its windows, best first; a text that several spans give once."""
        assert encoded.spans is not None
        found: list[dict[tuple[int, int], float]] = [{} for _ in encoded.examples]
        for row, owner in enumerate(encoded.rows.tolist()):
            starts = encoded.spans[row, outputs["start"][row], 0].tolist()
            ends = encoded.spans[row, outputs["end"][row], 1].tolist()
            for score, start, end in zip(outputs["score"][row].tolist(), starts, ends, strict=True):
                if score > NEVER / 2 and start < end:
                    found[owner][start, end] = max(score, found[owner].get((start, end), NEVER))
        return tuple(_ranked(example.texts[1], spans, self.candidates)
                     for example, spans in zip(encoded.examples, found, strict=True))

    def score(self, outputs: Mapping[str, np.ndarray], encoded: Encoded) -> Scores:
        """F1 and exact match; chance is a span drawn at random, ceiling what the answer's own tokens write."""
        said = [found[0].text if found else "" for found in self.answers(outputs, encoded)]
        drawn, written = self._drawn(encoded), self._written(encoded)
        shape = len(encoded.examples)
        values, chance, ceiling = ({name: np.zeros(shape) for name in self.measures} for _ in range(3))
        for i, example in enumerate(encoded.examples):
            right = [answer.text for answer in example.answers]
            got = best([said[i], written[i], *drawn[i]], right, self.rules, example.language)
            for name, value in got.items():
                values[name][i], ceiling[name][i], chance[name][i] = value[0], value[1], np.mean(value[2:])
        return Scores(encoded.examples, tuple(said), values, chance, ceiling)

    def _drawn(self, encoded: Encoded, draws: int = 8) -> list[list[str]]:
        """Answers of somebody who has not read: for each question, spans of the length that may be given."""
        assert encoded.spans is not None
        rng = np.random.default_rng(71)
        found: list[list[str]] = [[""] for _ in encoded.examples]
        for row, owner in enumerate(encoded.rows.tolist()):
            places = np.flatnonzero(encoded.targets["context"][row])
            if found[owner] != [""] or not len(places):  # the first window stands for the context
                continue
            first = rng.integers(0, len(places), draws)
            last = np.minimum(first + rng.integers(0, self.longest_answer, draws), len(places) - 1)
            spans, text = encoded.spans[row], encoded.examples[owner].texts[1]
            found[owner] = [text[spans[places[a], 0]:spans[places[b], 1]] for a, b in zip(first, last, strict=True)]
        return found

    def _written(self, encoded: Encoded) -> list[str]:
        """For each question, what the tokens of its answer write, as far as they may be given."""
        assert encoded.spans is not None
        found = [""] * len(encoded.examples)
        for row in np.flatnonzero(encoded.targets["answered"]).tolist():
            start = int(encoded.targets["start"][row])
            end = min(int(encoded.targets["end"][row]), start + self.longest_answer - 1)
            owner, spans = int(encoded.rows[row]), encoded.spans[row]
            found[owner] = encoded.examples[owner].texts[1][spans[start, 0]:spans[end, 1]]
        return found


def best_spans(
    starts: Float[Array, "B T"], ends: Float[Array, "B T"], context: Array, longest: int, count: int,
) -> dict[str, Array]:
    """The `count` best (start, end) of each row, exactly: all of at most `longest` tokens are compared.

    Args:
        starts, ends: the score of every token as the first and as the last one.
        context: bool[B, T], tokens that a span may begin or end with; they stand side by side.
        longest: tokens of a span.
        count: spans kept.

    Returns:
        `score` float[B, count], best first, `start`, `end` int[B, count]; at equal scores the earlier start, then the
        shorter span.
    """
    rows, length = starts.shape
    widths = min(longest, length)
    place = jnp.arange(length)[:, None] + jnp.arange(widths)[None, :]  # [T, W], the last token
    inside = place < length
    place = jnp.where(inside, place, 0)
    allowed = context[:, :, None] & context[:, place] & inside
    scores = jnp.where(allowed, starts[:, :, None] + ends[:, place], NEVER).reshape(rows, -1)
    kept = min(count, scores.shape[1])
    score, at = jax.lax.top_k(scores, kept)
    start = at // widths
    found = {"score": score, "start": start, "end": jnp.minimum(start + at % widths, length - 1)}
    return {name: jnp.pad(value, ((0, 0), (0, count - kept)), constant_values=NEVER if name == "score" else 0)
            for name, value in found.items()}


def _ranked(context: str, spans: Mapping[tuple[int, int], float], count: int) -> tuple[Candidate, ...]:
    order = sorted(spans, key=lambda span: (-spans[span], span))
    found: dict[str, Candidate] = {}
    for start, end in order:
        text = context[start:end]
        found.setdefault(text, Candidate(text, start, spans[start, end]))
    return tuple(found.values())[:count]


class _Window(NamedTuple):
    """What a row of `SpanAnswers.encode` has beside its tokens."""

    start: int
    end: int
    none: int
    answered: bool
    context: np.ndarray
    spans: np.ndarray

    @classmethod
    def of(
        cls, spans: np.ndarray, at: int, offset: int, answer: tuple[int, int] | None, none: int, length: int,
    ) -> "_Window":
        """Of the context's tokens from `at` on, which stand from `offset` on in the row."""
        answered = answer is not None and at <= answer[0] and answer[1] < at + len(spans)
        start, end = (answer[0] - at + offset, answer[1] - at + offset) if answer and answered else (none, none)
        context, laid = np.zeros(length, bool), np.full((length, 2), -1, np.int32)
        context[offset:offset + len(spans)] = True
        laid[offset:offset + len(spans)] = spans
        return cls(start, end, none, answered, context, laid)


def _window_starts(tokens: int, room: int, stride: int) -> range:
    """First tokens of windows until one holds the last token.

    >>> list(_window_starts(10, 6, 3)), list(_window_starts(6, 6, 3)), list(_window_starts(0, 6, 3))
    ([0, 3, 6], [0], [0])
    """
    return range(0, max(tokens - room, 0) + stride, stride)


def _tokens_of(spans: Int[np.ndarray, "t 2"], example: Example, counts: dict[str, int]) -> tuple[int, int] | None:
    """First and last token of the first answer; None where no token writes it."""
    text, start = example.answers[0]
    begin, stop = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
    inside = np.flatnonzero((spans[:, 0] < stop) & (spans[:, 1] > begin) & (spans[:, 1] > spans[:, 0]))
    if not len(inside):
        return None
    first, last = int(inside[0]), int(inside[-1])
    counts["inexact"] += (spans[first, 0], spans[last, 1]) != (begin, stop)
    return first, last
