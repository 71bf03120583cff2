"""The k largest of a row, and of a whole batch, exactly and at a tie the first ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def largest(x: Float[Array, "... M"], k: int | Int[Array, ""], most: int | None = None) -> Float[Array, "... M"]:
    """The k largest of each row, at a tie the first ones, others 0.

    Args:
        x: not negative. k: at least 1; may be data, then `most` bounds it.

    >>> largest(jnp.array([[3.0, 1.0, 2.0, 2.0]]), 2)
    Array([[3., 0., 2., 0.]], dtype=float32)
    """
    values, at = ranked(x, int(k) if most is None else most)
    last = jnp.broadcast_to(jnp.asarray(k - 1, jnp.int32), (*x.shape[:-1], 1))
    bound, place = (jnp.take_along_axis(of, last, axis=-1) for of in (values, at))
    # A row is masked and not scattered into: that is one pass, on every core.
    kept = (x > bound) | ((x == bound) & (jnp.arange(x.shape[-1]) <= place))
    return jnp.where(kept, x, 0)


def ranked(x: Float[Array, "... M"], most: int) -> tuple[Float[Array, "... K"], Int[Array, "... K"]]:
    """Values and places of the `most` largest of each row, best first; no gradient."""
    # Without the barrier the compiler merges what follows into the sort, and no longer sees that it
    # needs the first few only: forty times slower on a CPU.
    return jax.lax.optimization_barrier(jax.lax.top_k(jax.lax.stop_gradient(x), most))


def largest_of_all(x: Float[Array, "n M"], count: int | Int[Array, ""]) -> Float[Array, "n M"]:
    """The `count` largest of all entries, at a tie the first ones row by row, others 0.

    Args:
        x: not negative. count: may be data; 1 or more.

    >>> largest_of_all(jnp.array([[3.0, 1.0], [2.0, 2.0]]), 2)
    Array([[3., 0.],
           [2., 0.]], dtype=float32)
    """
    # Floats that are not negative are ordered as their bits are, so the bound is searched among whole numbers:
    # at least `count` entries reach `low`, fewer reach `high`.
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.int32)
    count = jnp.asarray(count, jnp.int32)
    low, reach = jnp.int32(0), jnp.int32(x.size)
    high, above = bits.max() + 1, jnp.int32(0)

    def unsettled(state: tuple) -> Bool[Array, ""]:
        low, reach, high, above, _ = state
        return (high - low > 1) & (reach != count)

    def narrow(state: tuple) -> tuple:
        low, reach, high, above, turn = state
        guess = jnp.where(turn % 3 == 2, low + (high - low) // 2, _between(low, reach, high, above, count))
        guess = jnp.clip(guess, low + 1, high - 1)
        found = (bits >= guess).sum(dtype=jnp.int32)
        up = found >= count
        return (jnp.where(up, guess, low), jnp.where(up, found, reach), jnp.where(up, high, guess),
                jnp.where(up, above, found), turn + 1)

    low, reach, high, above, _ = jax.lax.while_loop(unsettled, narrow, (low, reach, high, above, jnp.int32(0)))
    # Where more reach the bound than are wanted, they are all equal to it: the first of them count.
    tied = bits == low
    exact = reach == count
    wanted = count - above
    first, last = jnp.int32(-1), jnp.int32(x.size - 1)
    place = jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape)

    def search(state: tuple) -> tuple:
        first, last = state
        middle = first + (last - first) // 2
        enough = (tied & (place <= middle)).sum(dtype=jnp.int32) >= wanted
        return jnp.where(enough, first, middle), jnp.where(enough, middle, last)

    # Entries of 0 are 0 whether they count or not.
    _, last = jax.lax.while_loop(
        lambda state: ~exact & (low > 0) & (state[1] - state[0] > 1), search, (first, last))
    kept = jnp.where(exact, bits >= low, (bits > low) | (tied & (place <= last)))
    return jnp.where(kept, x, 0)


def _between(low: Array, reach: Array, high: Array, above: Array, count: Array) -> Int[Array, ""]:
    """Where `count` is expected if the logarithm of the number of entries falls evenly in the value."""
    values = [jax.lax.bitcast_convert_type(bound, jnp.float32) for bound in (low, high)]
    logs = [jnp.log(number.astype(jnp.float32) + 0.5) for number in (reach, above, count)]
    share = (logs[0] - logs[2]) / (logs[0] - logs[1])
    return jax.lax.bitcast_convert_type(values[0] + share * (values[1] - values[0]), jnp.int32)
