"""One step of several dictionaries at once: gradients, Adam, the decoder's norm, and what counts as dead."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from xlingjax.precision import full_precision
from xlingjax.sae.coder import unit_rows
from xlingjax.sae.config import THRESHOLD_KINDS
from xlingjax.sae.objectives import Program, Run, latents, loss, reconstruction, tiers
from xlingjax.sae.packing import map_named, over_latents

State = Mapping[str, Any]  # params, adam, quiet int32[M], averaged bool; each leads with the runs R
METRICS = ("loss", "fvu", "l0", "dead")
LONG = 2**30  # tokens; a latent that was quiet for longer has this


def first_state(params: Any, program: Program) -> dict[str, Any]:
    """The state before the first step of runs with these parameters [R, ...]."""
    runs, m = params["encoder"]["bias"].shape
    return {"params": params, "adam": jax.vmap(_adam(program).init)(params),
            "quiet": jnp.zeros((runs, m), jnp.int32), "averaged": jnp.zeros(runs, bool)}


@functools.partial(jax.jit, static_argnames="program", donate_argnums=1)
@full_precision
def update(
    program: Program, state: State, runs: Run, x: Float[Array, "A b D"], y: Float[Array, "A b E"] | None,
    rate: Float[Array, ""], penalty: Float[Array, ""], averaging: Array,
) -> tuple[State, Float[Array, "R 4"]]:
    """One step of every run; the `METRICS` of each run are of the parameters before it.

    Args:
        state, runs: every leaf leads with R.
        x, y: raw activations, and what is to be reconstructed; None = the same.
        rate, penalty: factors of the schedules. averaging: whether the threshold is averaged already.
    """
    tokens, m = x.shape[1], state["quiet"].shape[1]
    dead = (state["quiet"] + tokens >= program.dead_after) & (jnp.arange(m) < runs.width[:, None])
    most = dead.sum(axis=1, dtype=jnp.int32).max()
    revival = sum(((most > bound).astype(jnp.int32) for bound in (0, *tiers(program.aux_k, m)[:-1])), jnp.int32(0))
    one = functools.partial(_update_one, program, rate=rate, penalty=penalty, averaging=averaging, revival=revival)
    return _over_runs(program, lambda state, run: one(state, run, x, y), state, runs)


def _over_runs(program: Program, one: Callable[..., Any], state: State, runs: Run) -> Any:
    """one(state, run) of every run, each leaf [R, ...]."""
    return jax.lax.map(lambda pair: one(*pair), (state, runs)) if program.in_turn else jax.vmap(one)(state, runs)


def _update_one(
    program: Program, state: State, run: Run, x: Array, y: Array | None, *, rate: Array, penalty: Array,
    averaging: Array, revival: Array,
) -> tuple[State, Array]:
    inputs, targets = scaled(run, x, y)
    params, quiet = state["params"], state["quiet"]
    (value, seen), slope = jax.value_and_grad(loss, has_aux=True)(
        params, program, run, inputs, targets, quiet, penalty, revival)
    slope["decoder"]["kernel"] = across(slope["decoder"]["kernel"], params["decoder"]["kernel"])
    if program.clip:
        norm = optax.tree.norm(slope)
        slope = jax.tree.map(lambda g: g * jnp.minimum(1, program.clip / (norm + 1e-6)), slope)
    moved, adam = _adam(program).update(slope, state["adam"], params)
    params = jax.tree.map(lambda p, u: p - run.rate * rate * u, params, moved)
    params["decoder"]["kernel"] = unit_rows(params["decoder"]["kernel"])
    averaged = state["averaged"]
    if program.kind == "jumprelu":
        params["threshold"] = jnp.maximum(params["threshold"], 0)
    if program.kind in THRESHOLD_KINDS:
        smallest = jnp.where(jnp.isfinite(seen.smallest), seen.smallest, 0)
        mean = program.threshold_decay * params["threshold"] + (1 - program.threshold_decay) * smallest
        params["threshold"] = jnp.where(averaging, jnp.where(averaged, mean, smallest), params["threshold"])
        averaged = averaged | averaging
    quiet = jnp.where(seen.counts > 0, 0, jnp.minimum(quiet, LONG) + x.shape[1])
    real = jnp.arange(quiet.shape[0]) < run.width
    variance = jnp.square(targets - targets.mean(axis=0)).sum(axis=-1).mean()
    metrics = jnp.stack([value, seen.error / variance, seen.counts.sum() / x.shape[1],
                         ((quiet >= program.dead_after) & real).sum() / run.width])
    return {"params": params, "adam": adam, "quiet": quiet, "averaged": averaged}, metrics


@functools.partial(jax.jit, static_argnames="program", donate_argnums=1)
@full_precision
def resample(
    program: Program, state: State, runs: Run, x: Float[Array, "A b D"], y: Float[Array, "A b E"] | None,
    step: Int[Array, ""],
) -> State:
    """Dead latents start anew from inputs that are badly explained (Bricken et al. 2023, "neuron resampling").

    An input is drawn by the square of its loss. The latent writes its direction; it reads that direction too, with a
    fifth of the mean norm of the living, so that it does not disturb them. Adam forgets what it knew of it.
    """
    return _over_runs(program, lambda state, run: _resample_one(program, state, run, x, y, step), state, runs)


def _resample_one(program: Program, state: State, run: Run, x: Array, y: Array | None, step: Array) -> State:
    inputs, targets = scaled(run, x, y)
    params, quiet = state["params"], state["quiet"]
    real = jnp.arange(quiet.shape[0]) < run.width
    dead = (quiet >= program.dead_after) & real
    _, f, _ = latents(params, program, run, inputs, real)
    _, _, residual = reconstruction(params, program, f, inputs, targets)
    # The inverse of the cumulative weights at one uniform number a latent.
    sums = jnp.cumsum(jnp.square(jnp.square(residual).sum(axis=-1)))
    key = jax.random.fold_in(jax.random.key(run.seed), step)
    drawn = jnp.searchsorted(sums, jax.random.uniform(key, quiet.shape) * sums[-1], side="right")
    drawn = jnp.minimum(drawn, x.shape[1] - 1)
    bias = params["decoder"]["bias"]
    reads = unit_rows(inputs - bias if program.centred else inputs)[drawn]
    writes = unit_rows(targets - bias)[drawn]
    norms = jnp.linalg.norm(params["encoder"]["kernel"], axis=0)
    alive = real & ~dead
    level = jnp.where(alive, norms, 0).sum() / jnp.maximum(alive.sum(), 1)
    fresh = {"encoder/kernel": 0.2 * level * reads.T, "decoder/kernel": writes}

    def renew(name: str, old: Array) -> Array:
        where = over_latents(dead, name, program.kind)
        if where is None or name == "threshold":
            return old
        return jnp.where(where, fresh.get(name, 0), old)  # biases and scales start at 0

    def forget(name: str, old: Array) -> Array:
        where = over_latents(dead, name, program.kind)
        return old if where is None else jnp.where(where, 0, old)

    adam = state["adam"]
    return {"params": map_named(renew, params),
            "adam": adam._replace(mu=map_named(forget, adam.mu), nu=map_named(forget, adam.nu)),
            "quiet": jnp.where(dead, 0, quiet), "averaged": state["averaged"]}


def scaled(run: Run, x: Array, y: Array | None) -> tuple[Array, Array]:
    """What one run reads and what it reconstructs, [b, D] and [b, E], both of mean squared norm D and E."""
    inputs = x[run.which] / run.scale_in
    return inputs, inputs if y is None else y[run.which] / run.scale_out


def across(slope: Float[Array, "M E"], rows: Float[Array, "M E"]) -> Float[Array, "M E"]:
    """The part of a slope that is orthogonal to its row: what changes the direction and not the norm."""
    unit = unit_rows(rows)
    return slope - (slope * unit).sum(axis=-1, keepdims=True) * unit


def _adam(program: Program) -> optax.GradientTransformation:
    return optax.scale_by_adam(program.beta_1, program.beta_2)
