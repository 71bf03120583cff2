"""One batch through the model: the compiled step, and batches run one ahead of their copies."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from xlingjax import hosts
from xlingjax.models.config import TransformerConfig
from xlingjax.models.transformer import forward

Capture = tuple[tuple[str, str], ...]  # (site, pool), hashable


@functools.partial(jax.jit, static_argnums=(1, 2))
def pooled_step(
    params: Any,
    config: TransformerConfig,
    capture: Capture,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    where: Bool[Array, "B T"],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Site -> pooled responses [L, B, F], and site -> how many of them are not finite, [L, B].

    Responses are float32, or int32 for "argmax".

    Rows without a counted token are NaN by definition and count as finite.
    """
    _, captured = forward(params, config, tokens, mask, capture=dict(capture), where=where)
    counts = where.any(axis=1)[None, :]
    values, nonfinite = {}, {}
    for site, how in capture:
        h = captured[site]
        nonfinite[site] = jnp.where(counts, (~jnp.isfinite(h)).sum(axis=-1, dtype=jnp.int32), 0)
        values[site] = h.astype(jnp.int32 if how == "argmax" else jnp.float32)
    return values, nonfinite


@functools.partial(jax.jit, static_argnums=(1, 2))
def states_step(
    params: Any,
    config: TransformerConfig,
    sites: tuple[str, ...],
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    positions: Int[Array, "B P"],
) -> dict[str, Array]:
    """Site -> its values [L, B, P, F] at chosen positions of each row, float32."""
    _, captured = forward(params, config, tokens, mask, capture=dict.fromkeys(sites, positions))
    return {site: captured[site].astype(jnp.float32) for site in sites}


def run(
    step: Callable[..., Any], inputs: Iterable[tuple[np.ndarray, ...]], where: jax.sharding.Sharding
) -> Iterator[Any]:
    """Results on the host, in order; the device works on the next batch meanwhile.

    Args:
        step: arrays on the device -> pytree of arrays on the device.
        inputs: the arrays of each batch, on the host.
        where: where they are put. On several hosts each has the same inputs and gets all results.
    """
    ahead = None
    for arrays in inputs:
        result = step(*hosts.to_devices(arrays, where))
        if where.is_fully_addressable:
            for leaf in jax.tree.leaves(result):
                leaf.copy_to_host_async()
        if ahead is not None:
            yield hosts.to_host(ahead)
        ahead = result
    if ahead is not None:
        yield hosts.to_host(ahead)
