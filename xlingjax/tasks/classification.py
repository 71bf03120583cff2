"""Classes of sentences, of pairs of sentences, and of words in them, by a head on few hidden states."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from xlingjax.errors import InputError
from xlingjax.tasks.encoding import Marks, Pieces, cut_to, joined, padded, read_marks, read_pieces, starts_of
from xlingjax.tasks.task import Encoded, Example, Head, Scores, Targets

PLACES = {"first": 1, "last": 1, "word": 1, "words": 2}  # hidden states read
SPREAD = 0.02  # standard deviation of initial weights, BERT's


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class for each example; accuracy, beside the share of the most frequent class.

    Attributes:
        name: of the task.
        labels: the classes.
        reads: the hidden state of the "first" token (encoders), of the "last" one (decoders), the mean over the tokens
            of one "word", or those of a word in each of two texts ("words": u, v, |u - v| and u v).
        linear: the head is one linear map; else, as BERT's, a layer with tanh stands before it.

    >>> import jax
    >>> task = Classification("toy", ("no", "yes"))
    >>> {name: sorted(part) for name, part in task.init_head(jax.random.key(0), 8).items()}
    {'dense': ['bias', 'kernel'], 'out': ['bias', 'kernel']}
    """

    name: str
    labels: tuple[str, ...]
    reads: str = "first"
    linear: bool = False
    measures: tuple[str, ...] = ("accuracy",)

    def __post_init__(self) -> None:
        if self.reads not in PLACES:
            raise InputError(f"reads is {self.reads!r}; choose one of {', '.join(PLACES)}")
        if len(set(self.labels)) < 2 or len(set(self.labels)) != len(self.labels):
            raise InputError(f"task {self.name!r} has the classes {self.labels}; give two or more, each once")

    def encode(self, examples: Sequence[Example], tokenizer: Any, length: int) -> Encoded:
        """A row for every example with a class.

        Targets: `label` int32[n]; `read` float32[n, P, T], the weights of the tokens whose mean is read.
        Counts: `unlabelled` (left out altogether), `cut` (texts that lost tokens at their end), `lost` (the word was
        among them: no row, scored as wrong), `empty` (no token of its own).

        Raises:
            InputError: a class the task does not have, texts of different number, a word that is not in its text, or
                `length` leaves no room.
        """
        kept = [e for e in examples if e.label]
        self._check(kept)
        marks, parts = read_marks(tokenizer), len(kept[0].texts) if kept else 1
        room = length - len(marks.first) - parts
        if room < parts or (self.reads == "first" and not marks.first):
            raise InputError(
                f"task {self.name!r} cannot make rows of {length} tokens: {len(marks.first)} marks before and {parts} "
                f"after the texts leave room for {room}; give a longer row" + (
                    "" if marks.first else ", and reads='last', since the tokenizer marks no beginning"))
        counts = dict.fromkeys(("unlabelled", "cut", "lost", "empty"), 0)
        counts["unlabelled"] = len(examples) - len(kept)
        pieces = iter(read_pieces(tokenizer, [text for e in kept for text in e.texts]))
        rows, read, owner = [], [], []
        for number, example in enumerate(kept):
            texts = [next(pieces) for _ in example.texts]
            lengths = cut_to([len(text.ids) for text in texts], room)
            cut = [Pieces(text.ids[:n], text.spans[:n]) for text, n in zip(texts, lengths, strict=True)]
            row = joined(marks, [text.ids for text in cut])
            weights = self._read(example, cut, marks, len(row), length)
            counts["cut"] += sum(len(text.ids) > n for text, n in zip(texts, lengths, strict=True))
            counts["empty"] += not sum(lengths)
            if weights is None:
                counts["lost"] += 1
                continue
            rows.append(row)
            read.append(weights)
            owner.append(number)
        tokens, mask = padded(rows, length)
        label = np.array([self.labels.index(kept[i].label) for i in owner], np.int32)
        weights = np.array(read, np.float32).reshape(-1, PLACES[self.reads], length)
        targets = {"label": label, "read": weights, "weight": np.ones(len(rows), np.float32)}
        return Encoded(tuple(kept), tokens, mask, np.array(owner, np.int64), targets, counts=counts)

    def _check(self, examples: Sequence[Example]) -> None:
        words = PLACES[self.reads] if self.reads.startswith("word") else 0
        for e in examples:
            if e.label not in self.labels:
                raise InputError(
                    f"example {e.name!r} has the class {e.label!r}; task {self.name!r} has {', '.join(self.labels)}")
            if len(e.texts) != len(examples[0].texts) or (words == 2 and len(e.texts) != 2):
                raise InputError(f"example {e.name!r} has {len(e.texts)} texts, others of task {self.name!r} do not")
            good = [0 <= start < end <= len(text) for (start, end), text in zip(e.spans, e.texts)]
            if words and (len(e.spans) != words or not all(good)):
                raise InputError(
                    f"example {e.name!r}: spans {e.spans} are not {words} word(s) in its texts; give their characters")

    def _read(
        self, example: Example, texts: Sequence[Pieces], marks: Marks, used: int, length: int,
    ) -> np.ndarray | None:
        """Weights [P, T] of the tokens to read; None where a word has none in the row."""
        weights = np.zeros((PLACES[self.reads], length), np.float32)
        if not self.reads.startswith("word"):
            weights[0, 0 if self.reads == "first" else used - 1] = 1
            return weights
        starts = starts_of(marks, [text.ids for text in texts])
        for place, ((start, end), text, at) in enumerate(zip(example.spans, texts, starts)):
            inside = np.flatnonzero((text.spans[:, 0] < end) & (text.spans[:, 1] > start))
            if not len(inside) or text.spans[inside[-1], 1] < end:
                return None
            weights[place, at + inside] = 1 / len(inside)
        return weights

    def init_head(self, key: Key[Array, ""], width: int) -> Head:
        """`out`, and before it `dense`, which is as wide as the body."""
        inputs, head = width * (1 if PLACES[self.reads] == 1 else 4), {}
        inner, outer = jax.random.split(key)
        if not self.linear:
            head["dense"] = _linear(inner, inputs, width)
            inputs = width
        return {**head, "out": _linear(outer, inputs, len(self.labels))}

    def logits(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> Float[Array, "B classes"]:
        """Of the classes."""
        read = jnp.asarray(targets["read"]).astype(hidden.dtype)
        shown = jnp.where(read.any(1)[..., None], hidden, 0)  # what is not read may be anything, also NaN
        state = jnp.einsum("bpt,btd->bpd", read, shown)
        if PLACES[self.reads] == 2:
            one, other = state[:, 0], state[:, 1]
            x = jnp.concatenate([one, other, jnp.abs(one - other), one * other], axis=-1)
        else:
            x = state[:, 0]
        x = x.astype(jnp.float32)
        if not self.linear:
            x = jnp.tanh(x @ head["dense"]["kernel"] + head["dense"]["bias"])
        return x @ head["out"]["kernel"] + head["out"]["bias"]

    def loss(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> tuple[Array, Array]:
        """Cross-entropy."""
        logs = jax.nn.log_softmax(self.logits(head, hidden, targets))
        chosen = jnp.take_along_axis(logs, jnp.asarray(targets["label"])[:, None], axis=-1)[:, 0]
        weight = jnp.asarray(targets["weight"])
        return -(weight * chosen).sum(), weight.sum()

    def outputs(self, head: Head, hidden: Float[Array, "B T D"], targets: Targets) -> dict[str, Array]:
        """`logits` [B, classes]."""
        return {"logits": self.logits(head, hidden, targets)}

    def score(self, outputs: Mapping[str, np.ndarray], encoded: Encoded) -> Scores:
        """Accuracy; chance is the most frequent class of the language's scored examples."""
        right, kept = np.zeros(len(encoded.examples)), np.zeros(len(encoded.examples))
        said = [""] * len(encoded.examples)
        for row, best in zip(encoded.rows.tolist(), outputs["logits"].argmax(-1).tolist(), strict=True):
            said[row] = self.labels[best]
            right[row], kept[row] = said[row] == encoded.examples[row].label, 1
        common: dict[str, collections.Counter[str]] = {}
        for e in encoded.examples:
            common.setdefault(e.language, collections.Counter())[e.label] += 1
        most = {code: min(self.labels, key=lambda label: -count[label]) for code, count in common.items()}
        chance = np.array([float(e.label == most[e.language]) for e in encoded.examples])
        return Scores(encoded.examples, tuple(said), {"accuracy": right}, {"accuracy": chance}, {"accuracy": kept})


def _linear(key: Key[Array, ""], inputs: int, outputs: int) -> dict[str, Array]:
    kernel = SPREAD * jax.random.normal(key, (inputs, outputs), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(outputs, jnp.float32)}


XNLI = Classification("xnli", ("entailment", "neutral", "contradiction"))
PAWSX = Classification("paws-x", ("0", "1"))
