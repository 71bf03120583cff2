"""Shuffled batches of activations that any step can be asked for, by a buffer at a time.

A stream is an endless sequence of tokens, cut into buffers of K; a buffer is shuffled by a key of its own and
served in batches. What a buffer holds depends on its number alone, so a run that goes on at step n reads what an
unbroken one would have read. Here is what all streams share, and the stream of arrays in memory; `activations.py`
computes buffers with a model, `blocks.py` reads them from disk.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from xlingjax.errors import InputError
from xlingjax.models.weights import fingerprint_params

Place = tuple[str, int]  # site, layer
Buffer = tuple[Any, Any]  # float32[A, K, D], and [A, K, E] or None; on the host or the device
BUFFER_BYTES = 2**29


class Stream:
    """Batches of activations; subclasses say what a buffer holds.

    Attributes:
        places: A (site, layer) pairs of one width.
        targets: A (site, layer) pairs that transcoders write, of one width; None = what is read.
        width, out: D and E.
        batch_tokens: tokens of a batch.
        buffer_tokens: K, a multiple of it.
        tokens: tokens before the stream repeats itself in another order.
        seed: of the order.
        model, fingerprint: whose activations these are; "" = unknown.
    """

    model, fingerprint = "", ""

    def __init__(
        self, places: Sequence[Place], targets: Sequence[Place] | None, width: int, out: int, batch_tokens: int,
        buffer_tokens: int, tokens: int, seed: int,
    ) -> None:
        if batch_tokens < 1 or tokens < batch_tokens:
            raise InputError(f"a batch of {batch_tokens} tokens cannot be filled from {tokens} counted tokens without "
                             "repeating some; give a smaller batch or more text")
        self.places, self.targets = tuple(places), None if targets is None else tuple(targets)
        self.width, self.out, self.batch_tokens, self.tokens, self.seed = width, out, batch_tokens, tokens, seed
        most = min(max(buffer_tokens, batch_tokens), tokens)
        self.buffer_tokens = most // batch_tokens * batch_tokens
        self._held: tuple[int, Buffer, np.ndarray] | None = None

    @property
    def token_bytes(self) -> int:
        """Bytes of all activations of one token."""
        return token_bytes(len(self.places), self.width, self.out if self.targets else 0)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffer."""
        return self.buffer_tokens * self.token_bytes

    def identity(self) -> Mapping[str, Any]:
        """JSON values of what decides the bytes of every batch."""
        return {"places": [list(place) for place in self.places],
                "targets": None if self.targets is None else [list(place) for place in self.targets],
                "batch_tokens": self.batch_tokens, "buffer_tokens": self.buffer_tokens, "tokens": self.tokens,
                "seed": self.seed}

    def buffer(self, number: int) -> Buffer:
        """The activations of buffer 0, 1, ..., in the order of the stream."""
        raise NotImplementedError

    def order(self, number: int) -> Int[np.ndarray, "K"]:
        """The order in which a buffer is served."""
        return np.random.default_rng([self.seed, 1, number]).permutation(self.buffer_tokens)

    def batch(self, step: int) -> Buffer:
        """Activations [A, b, D] of step 0, 1, ..., and the targets [A, b, E] or None.

        Raises:
            InputError: an activation is not finite; its site and layer are named.
        """
        number, place = divmod(step, self.buffer_tokens // self.batch_tokens)
        if self._held is None or self._held[0] != number:
            self._held = None  # first let the old one go: there is room for one
            self._held = (number, self.buffer(number), self.order(number))
        _, (x, y), order = self._held
        rows = order[place * self.batch_tokens:(place + 1) * self.batch_tokens]
        return _taken(x, rows), None if y is None else _taken(y, rows)

    def check_finite(self, bad: Sequence[int] | np.ndarray, targets: bool = False) -> None:
        """`InputError` where an activation has values that are not finite; `bad` counts them for each."""
        for (site, layer), count in zip(self.targets if targets and self.targets else self.places, bad):
            if count:
                raise InputError(
                    f"{int(count)} activations at {site}, layer {layer}"
                    f"{f', of {self.model}' if self.model else ''} are not finite; leave that layer out or use a model "
                    "and a type in which it is finite")


class ArrayStream(Stream):
    """A stream of activations that are in memory; every pass over them has another order.

    Args:
        x: float[A, n, D]. y: float[A, n, E], what transcoders write, or None.
        places, targets: names of the A activations; by default site "" and layers 0, 1, ...

    >>> stream = ArrayStream(np.zeros((1, 10, 4), np.float32), batch_tokens=5)
    >>> stream.batch(7)[0].shape
    (1, 5, 4)
    """

    def __init__(
        self, x: Any, y: Any = None, *, batch_tokens: int = 4096, seed: int = 0, places: Sequence[Place] | None = None,
        targets: Sequence[Place] | None = None,
    ) -> None:
        self.x, self.y = np.asarray(x, np.float32), None if y is None else np.asarray(y, np.float32)
        if self.x.ndim != 3 or (self.y is not None and self.y.shape[:2] != self.x.shape[:2]):
            raise InputError(f"activations are of shape {self.x.shape}" + (
                "" if self.y is None else f" and targets of {self.y.shape}") + "; give [A, n, D] and [A, n, E]")
        named = [("", number) for number in range(len(self.x))]
        super().__init__(places or named, None if y is None else targets or named, self.x.shape[2],
                         self.x.shape[2] if self.y is None else self.y.shape[2], batch_tokens, self.x.shape[1],
                         self.x.shape[1], seed)
        for array, written in ((self.x, False), (self.y, True)):
            if array is not None:
                self.check_finite([int(np.count_nonzero(~np.isfinite(one))) for one in array], written)

    def identity(self) -> Mapping[str, Any]:
        """See `Stream`."""
        return {**super().identity(), "data": fingerprint_params({"x": self.x, "y": self.y})}

    def buffer(self, number: int) -> Buffer:
        """See `Stream`."""
        return self.x, self.y

    def order(self, number: int) -> Int[np.ndarray, "K"]:
        """See `Stream`: the last tokens of a pass, too few for a batch, are others each time."""
        return np.random.default_rng([self.seed, 1, number]).permutation(self.tokens)[:self.buffer_tokens]


def token_bytes(places: int, width: int, out: int) -> int:
    """Bytes of the activations of one token."""
    return 4 * places * (width + out)


def _taken(of: Any, rows: np.ndarray) -> Array:
    return _take(of, rows) if isinstance(of, jax.Array) else jnp.asarray(of[:, rows])


_take = jax.jit(lambda of, rows: jnp.take(of, rows, axis=1))
