"""Streams of activations computed with a model, one buffer at a time."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.corpora.batching import BatchPlan, bucket_lengths, counted, make_batch
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.taps import site_shapes
from xlingjax.models.transformer import forward
from xlingjax.responses.jobs import (
    BATCH_TOKENS,
    model_identity,
    read_sites,
    read_tokens,
    tokens_fingerprint,
)
from xlingjax.responses.stepping import run
from xlingjax.sae.stream import BUFFER_BYTES, Buffer, Place, Stream, token_bytes
from xlingjax.sharding import batch_sharding, batch_shards, mesh_of

NOWHERE = np.iinfo(np.int32).max  # beyond every buffer, where nothing is written


class ActivationStream(Stream):
    """A stream of a model's activations on a corpus, computed as training goes.

    Sentences are permuted anew every epoch; their counted tokens, one after the other, are the stream. A buffer
    takes the next K of them, whatever sentence that ends in.

    Args:
        model: an `xlingjax.Model`.
        corpus: S sentences, or their tokens.
        places: A (site, layer) pairs of one width.
        targets: A (site, layer) pairs that transcoders write, one for each of `places`.
        batch_tokens: tokens of a training batch.
        buffer_bytes: most bytes of a buffer; it never holds more than an epoch.
        seed: of both orders.
        model_tokens: tokens, with padding, that the model reads at once.
        first: False leaves out the first token of each sentence that counts (the attention sink).
        on_device: keep the buffer on the model's device; False, or on a mesh: in the host's memory.
        max_length: see `collect`.

    Raises:
        InputError: sites or layers that the model has not, of unequal widths; too few tokens.
    """

    def __init__(
        self, model: Any, corpus: Corpus | Tokens, places: Sequence[Place], targets: Sequence[Place] | None = None, *,
        batch_tokens: int = 4096, buffer_bytes: int = BUFFER_BYTES, seed: int = 0, model_tokens: int = BATCH_TOKENS,
        first: bool = True, on_device: bool = True, max_length: int | None = None,
    ) -> None:
        width, out = _width(model, places), _width(model, targets) if targets is not None else 0
        if targets is not None and len(targets) != len(places):
            raise InputError(f"{len(targets)} targets are given for {len(places)} activations; give one for each")
        self._model, self._first, self._model_tokens = model, first, model_tokens
        self._tokens, self._max_length = read_tokens(model, corpus, max_length)
        self._where = counted(self._tokens, first=first)
        self._counts = np.array([np.count_nonzero(row) for row in self._where], np.int64)
        self._data = corpus.fingerprint if isinstance(corpus, Corpus) else "tokens"
        self.model, self.fingerprint = model.name, model.fingerprint
        self._on_device = on_device and mesh_of(model.params) is None
        super().__init__(places, targets, width, out or width, batch_tokens,
                         buffer_bytes // token_bytes(len(places), width, out), int(self._counts.sum()), seed)
        self._shapes = self._bucket_shapes()

    def identity(self) -> Mapping[str, Any]:
        """See `Stream`."""
        return {**super().identity(), "first": self._first, "max_length": self._max_length,
                "model_tokens": self._model_tokens, "model": model_identity(self._model), "corpus": self._data,
                "text": tokens_fingerprint(self._tokens)}

    def sentences(self, number: int) -> list[tuple[int, int, int]]:
        """(sentence, from, to) of each piece of a buffer, in order: which of its counted tokens are in the buffer."""
        start, pieces = number * self.buffer_tokens, []
        epoch, offset = divmod(start, self.tokens)
        left = self.buffer_tokens
        while left:
            order = self._epoch(epoch)
            ends = np.cumsum(self._counts[order])
            place = int(np.searchsorted(ends, offset, side="right"))
            while left and place < len(order):
                sentence = int(order[place])
                begin = offset - int(ends[place] - self._counts[sentence])
                end = min(begin + left, int(self._counts[sentence]))
                if end > begin:
                    pieces.append((sentence, begin, end))
                left, offset, place = left - (end - begin), offset + end - begin, place + 1
            epoch, offset = epoch + 1, 0
        return pieces

    def buffer(self, number: int) -> Buffer:
        """See `Stream`."""
        both = [*self.places, *(self.targets or ())]
        parts = [self.places] + ([self.targets] if self.targets else [])
        widths = [self.width, self.out][:len(parts)]
        bad = np.zeros(len(both), np.int64)
        inputs = self._inputs(number)
        step = functools.partial(_values_step, self._model.params, self._model.config, tuple(parts))
        if self._on_device:
            home = batch_sharding(self._model.params)
            filled = [jax.device_put(jnp.zeros((len(part), self.buffer_tokens, width), jnp.float32), home)
                      for part, width in zip(parts, widths)]
            faults = []
            for tokens, mask, to in inputs:
                filled, fault = _fill_step(self._model.params, self._model.config, tuple(parts), filled,
                                           *jax.device_put((tokens, mask, to), home))
                faults.append(fault)
            bad += np.sum([np.concatenate(fault) for fault in jax.device_get(faults)], axis=0, dtype=np.int64)
        else:
            held = [np.zeros((len(part), self.buffer_tokens, width), np.float32)
                    for part, width in zip(parts, widths)]
            places: list[np.ndarray] = []  # of the batches under way

            def noted() -> Iterator[tuple[np.ndarray, ...]]:
                for tokens, mask, to in inputs:
                    places.append(to)
                    yield tokens, mask, to

            for values, fault in run(step, noted(), batch_sharding(self._model.params)):
                to = places.pop(0).reshape(-1)
                real = to < NOWHERE
                for out, value in zip(held, values):
                    out[:, to[real]] = value[:, real]
                bad += np.concatenate(fault)
            filled = held
        self.check_finite(bad[:len(self.places)])
        self.check_finite(bad[len(self.places):], targets=True)
        return filled[0], filled[1] if self.targets else None

    def _inputs(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """tokens and mask [B, T] of each batch of a buffer, and the places in it where tokens go (or NOWHERE)."""
        pieces = self.sentences(number)
        starts = np.cumsum([0] + [end - begin for _, begin, end in pieces])
        lengths = np.array([self._tokens.lengths[sentence] for sentence, _, _ in pieces])
        for length in sorted(self._shapes, reverse=True):
            rows = self._shapes[length]
            members = np.flatnonzero(self._buckets(lengths) == length)
            for batch in range(0, len(members), rows):
                chosen = np.full(rows, -1)
                some = members[batch:batch + rows]
                chosen[:len(some)] = [pieces[member][0] for member in some]
                made = make_batch(self._tokens, BatchPlan(length, chosen), self._where)
                to = np.full(made.mask.shape, NOWHERE, np.int32)
                for row, member in enumerate(some):
                    _, begin, end = pieces[member]
                    to[row, np.flatnonzero(made.where[row])[begin:end]] = starts[member] + np.arange(end - begin)
                yield made.tokens, made.mask, to

    def _epoch(self, epoch: int) -> Int[np.ndarray, "S"]:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._counts))

    def _buckets(self, lengths: np.ndarray) -> np.ndarray:
        ladder = np.array(bucket_lengths(int(self._tokens.lengths.max())))
        return ladder[np.searchsorted(ladder, lengths)]

    def _bucket_shapes(self) -> dict[int, int]:
        """Length T -> rows B of every batch of that length: one shape each, however the buffers fall."""
        parts = batch_shards(self._model.params)
        used = self._counts > 0
        buckets = self._buckets(self._tokens.lengths)
        share = self.buffer_tokens / self.tokens
        shapes = {}
        for length in np.unique(buckets[used]).tolist():
            most = self._model_tokens // length // parts * parts
            if most == 0:
                raise InputError(f"model_tokens={self._model_tokens} holds no batch of {parts} x {length} tokens; give "
                                 f"at least {parts * length}, or cut sentences with a smaller max_length")
            expected = int(np.ceil(share * np.count_nonzero(used & (buckets == length)) / parts)) * parts
            shapes[length] = min(most, max(expected, parts))
        return shapes


def _width(model: Any, places: Sequence[Place]) -> int:
    """The common width of activations, which the model has to have."""
    if not places:
        raise InputError("no activation is named; give at least one (site, layer)")
    shapes = site_shapes(model.config)
    widths = {}
    for site, layer in places:
        read_sites(model, (site,))
        if not 0 <= layer < shapes[site][0]:
            raise InputError(f"layer {layer} of {site!r} is not in {model.name}; it has {shapes[site][0]}, from 0 on")
        widths[site] = shapes[site][1]
    if len(set(widths.values())) > 1:
        raise InputError(f"activations have unequal widths ({', '.join(f'{s}: {w}' for s, w in widths.items())}); make "
                         "a stream for each width")
    return next(iter(widths.values()))


def _values(
    params: Any, config: TransformerConfig, parts: tuple[tuple[Place, ...], ...], tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"], to: Int[Array, "B T"],
) -> tuple[list[Float[Array, "A n D"]], list[Int[Array, "A"]]]:
    """Activations of every token, n = B T, and how many of the wanted ones are not finite."""
    _, captured = forward(params, config, tokens, mask, capture=tuple({site for part in parts for site, _ in part}))
    values = [jnp.stack([captured[site][layer] for site, layer in part]).astype(jnp.float32) for part in parts]
    bad = [(~jnp.isfinite(value) & (to < NOWHERE)[None, ..., None]).sum(axis=(1, 2, 3), dtype=jnp.int32)
           for value in values]
    return [value.reshape(len(value), -1, value.shape[-1]) for value in values], bad


@functools.partial(jax.jit, static_argnums=(1, 2))
def _values_step(params: Any, config: TransformerConfig, parts: tuple, tokens: Array, mask: Array, to: Array) -> Any:
    return _values(params, config, parts, tokens, mask, to)


@functools.partial(jax.jit, static_argnums=(1, 2), donate_argnums=3)
def _fill_step(
    params: Any, config: TransformerConfig, parts: tuple, filled: list, tokens: Array, mask: Array, to: Array,
) -> Any:
    """The buffer with the activations of one batch at their places."""
    values, bad = _values(params, config, parts, tokens, mask, to)
    return [old.at[:, to.reshape(-1)].set(new, mode="drop") for old, new in zip(filled, values)], bad
