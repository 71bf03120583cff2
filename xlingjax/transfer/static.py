"""Static embeddings of tokens: skip-gram with negative sampling (Mikolov et al. 2013, arXiv 1310.4546).

Negatives are drawn once a step and shared by its pairs, so that their part is one matrix product: the expected loss is
that of a draw for every pair. Steps are Adagrad's, on the rows of the step only; ids of rare tokens learn as fast as
those of frequent ones.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from xlingjax.errors import InputError, require_least
from xlingjax.precision import full_precision
from xlingjax.progress import progress

BLOCK = 1 << 19  # tokens whose pairs are in memory at once
STEPS = 32  # steps of one call
SMOOTHING = 0.75  # exponent of the negatives' frequencies
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclasses.dataclass(frozen=True)
class StaticSettings:
    """How static embeddings are learned.

    Attributes:
        width: units.
        window: the most tokens between a token and its context; each token draws its own from 1 to this.
        negatives: the weight of negatives against the one right context.
        drawn: negatives drawn a step.
        subsample: a token of relative frequency f is kept with probability min(1, sqrt(s/f) + s/f); 0: always.
        epochs: times the text is read.
        batch: pairs of a step.
        learning_rate: of Adagrad.
        seed: of weights, windows, subsampling, order and negatives.
    """

    width: int = 100
    window: int = 5
    negatives: float = 5.0
    drawn: int = 128
    subsample: float = 1e-3
    epochs: int = 5
    batch: int = 2048
    learning_rate: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, dict.fromkeys(("width", "window", "drawn", "epochs", "batch"), 1))
        require_least(self, dict.fromkeys(("negatives", "subsample", "learning_rate"), 0.0))


def word_ids(
    texts: Sequence[str], most: int = 20_000, minimum: int = 1,
) -> tuple[tuple[str, ...], list[Int[np.ndarray, "t"]]]:
    """Words of texts, in lower case and most frequent first, and each text as numbers of them.

    Words are runs of letters and digits, so a text without blanks between words is one word; take a tokenizer's tokens
    there. Words beyond `most`, and those that occur less than `minimum` times, are left out of the sequences.

    >>> words, ids = word_ids(["The cat, the dog", "the cats' cat"])
    >>> words, [row.tolist() for row in ids]
    (('the', 'cat', 'cats', 'dog'), [[0, 1, 0, 3], [0, 2, 1]])
    """
    split = [_WORD.findall(text.lower()) for text in texts]
    count = collections.Counter(word for words in split for word in words)
    kept = sorted((word for word in count if count[word] >= minimum), key=lambda word: (-count[word], word))[:most]
    number = {word: i for i, word in enumerate(kept)}
    return tuple(kept), [np.array([number[word] for word in words if word in number], np.int32) for words in split]


def train_static(
    sequences: Sequence[Int[np.ndarray, "t"]], vocabulary: int, settings: StaticSettings | None = None, *,
    show: bool | None = None,
) -> Float[np.ndarray, "V E"]:
    """Embeddings of V tokens from sequences of their ids; equal seeds give equal bytes on a CPU.

    Args:
        sequences: texts as ids from 0 to V - 1; a window does not reach over the end of one.
        vocabulary: V.
        settings: default `StaticSettings()`.
        show: the progress bar, as `progress` has it.

    Returns:
        float32[V, E], not normalised; a token that does not occur is a row of zeros.

    Raises:
        InputError: ids outside the vocabulary, no two tokens beside each other, or embeddings that are not finite.

    >>> texts = [np.array(ids) for ids in ((0, 2), (1, 2), (3, 4))] * 100
    >>> table = train_static(texts, 6, StaticSettings(width=8, subsample=0, epochs=20, batch=64, drawn=16))
    >>> bool(table[0] @ table[1] > table[0] @ table[3]), bool((table[5] == 0).all())
    (True, True)
    """
    settings = settings or StaticSettings()
    sequences = [np.asarray(sequence) for sequence in sequences if len(sequence) > 1]
    ids = np.concatenate(sequences) if sequences else np.zeros(0, np.int32)
    if not len(ids):
        raise InputError("no text of two tokens; static embeddings are learned from tokens beside each other")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise InputError(f"token ids lie between {ids.min()} and {ids.max()}, not in a vocabulary of {vocabulary}")
    count = np.bincount(ids, minlength=vocabulary)
    program = _steps(vocabulary, settings)
    state = _initial(vocabulary, settings)
    noise = jnp.asarray(np.cumsum(count ** SMOOTHING / (count ** SMOOTHING).sum()), jnp.float32)
    key, call = jax.random.key(settings.seed), 0
    with progress(total=settings.epochs * len(ids), label="static embeddings", unit="tokens", show=show) as bar:
        for tokens, pairs in _blocks(sequences, count, settings):
            for part in _calls(pairs, settings.batch):
                state, loss = program(state, noise, *part, jax.random.fold_in(key, call))
                call += 1
                bar.set_postfix_str(f"loss {float(loss):.3f}", refresh=False)
            bar.update(tokens)
    table = np.asarray(state["in"])
    if not np.isfinite(table).all():
        raise InputError(f"static embeddings diverged; lower learning_rate {settings.learning_rate:g}")
    return np.where(count[:, None] > 0, table, np.float32(0))


def pair_losses(
    centre: Float[Array, "B E"], context: Float[Array, "B E"], drawn: Float[Array, "N E"], negatives: float,
) -> Float[Array, "B"]:
    """-log sigma(u v) - k mean over drawn n of log sigma(-u n), nats, of each pair (u, v)."""
    right = jax.nn.log_sigmoid((centre * context).sum(-1))
    wrong = jax.nn.log_sigmoid(-(centre @ drawn.T)).mean(-1)
    return -right - negatives * wrong


def _initial(vocabulary: int, settings: StaticSettings) -> dict[str, Array]:
    shape = (vocabulary, settings.width)
    uniform = jax.random.uniform(jax.random.key(settings.seed + (1 << 20)), shape, jnp.float32, -0.5, 0.5)
    rows = jnp.full((2, *shape), 1e-3, jnp.float32)  # Adagrad's sums, from a little above 0
    return {"in": uniform / settings.width, "out": jnp.zeros(shape, jnp.float32), "sums": rows}


@functools.lru_cache(maxsize=8)
def _steps(vocabulary: int, settings: StaticSettings) -> Any:
    """`STEPS` steps in one program: (state, noise, centres, contexts, weights [STEPS, B], key) -> (state, loss)."""

    def step(state: dict, given: tuple) -> tuple[dict, tuple]:
        (centres, contexts, weights, key), noise = given[:4], given[4]
        drawn = jnp.searchsorted(noise, jax.random.uniform(key, (settings.drawn,))).clip(0, vocabulary - 1)

        def total(u: Array, v: Array, n: Array) -> Array:
            return (weights * pair_losses(u, v, n, settings.negatives)).sum()

        rows = (state["in"][centres], state["out"][contexts], state["out"][drawn])
        loss, (du, dv, dn) = jax.value_and_grad(total, (0, 1, 2))(*rows)
        zero = jnp.zeros_like(state["in"])
        gradient = jnp.stack([zero.at[centres].add(du), zero.at[contexts].add(dv).at[drawn].add(dn)])
        sums = state["sums"] + gradient * gradient
        moved = settings.learning_rate * gradient * jax.lax.rsqrt(sums)
        return {"in": state["in"] - moved[0], "out": state["out"] - moved[1], "sums": sums}, (loss, weights.sum())

    def run(
        state: dict, noise: Float[Array, "V"], centres: Array, contexts: Array, weights: Array, key: Key[Array, ""],
    ) -> tuple[dict, Array]:
        keys = jax.random.split(key, STEPS)
        state, (losses, counts) = jax.lax.scan(
            lambda state, given: step(state, (*given, noise)), state, (centres, contexts, weights, keys))
        return state, losses.sum() / jnp.maximum(counts.sum(), 1)

    return jax.jit(full_precision(run), donate_argnums=0)


def _blocks(
    sequences: Sequence[np.ndarray], count: np.ndarray, settings: StaticSettings,
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """(tokens read, the pairs of a block of texts in random order), epoch after epoch."""
    sizes = np.array([len(sequence) for sequence in sequences])
    share = count / count.sum()
    kept = np.ones(len(count))
    if settings.subsample:
        ratio = settings.subsample / np.maximum(share, 1e-12)
        kept = np.minimum(np.sqrt(ratio) + ratio, 1)
    for epoch in range(settings.epochs):
        rng = np.random.default_rng([settings.seed, 61, epoch])
        order = rng.permutation(len(sequences))
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes[order]) // BLOCK)) + 1
        for part in np.split(order, cuts):
            ids = np.concatenate([sequences[i] for i in part])
            owner = np.repeat(np.arange(len(part)), sizes[part])
            left = rng.random(len(ids)) < kept[ids]
            yield len(ids), _pairs(ids[left], owner[left], settings.window, rng)


def _pairs(
    ids: np.ndarray, owner: np.ndarray, window: int, rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Centres and contexts within windows of 1 to `window` tokens, in random order."""
    reach = rng.integers(1, window + 1, len(ids))
    centres, contexts = [], []
    for distance in range(1, window + 1):
        left, right = np.arange(len(ids) - distance), np.arange(distance, len(ids))
        together = owner[left] == owner[right] if len(left) else np.zeros(0, bool)
        left, right = left[together], right[together]
        for centre, context in ((left, right), (right, left)):
            near = reach[centre] >= distance
            centres.append(ids[centre[near]])
            contexts.append(ids[context[near]])
    order = rng.permutation(sum(map(len, centres)))
    return np.concatenate(centres)[order], np.concatenate(contexts)[order]


def _calls(pairs: tuple[np.ndarray, np.ndarray], batch: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Centres, contexts and weights [STEPS, B]; what is missing at the end has weight 0."""
    for start in range(0, len(pairs[0]), STEPS * batch):
        centres, contexts = (column[start:start + STEPS * batch] for column in pairs)
        filled = np.zeros((3, STEPS * batch))
        for row, column in zip(filled, (centres, contexts, np.ones(len(centres)))):
            row[:len(column)] = column
        shaped = filled.reshape(3, STEPS, batch)
        yield shaped[0].astype(np.int32), shaped[1].astype(np.int32), shaped[2].astype(np.float32)
