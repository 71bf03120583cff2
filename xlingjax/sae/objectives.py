"""What training minimises, for every kind of dictionary.

    loss = mean over tokens of |x - x_hat|^2 + penalty

Squares are summed over units. The penalty, with the gate z and the latents f of `coder.py`:

    relu         sparsity |f|_1                                          (Bricken et al. 2023; decoder rows have norm 1)
    gated        sparsity |max(z, 0)|_1 + |x - x_hat(max(z, 0))|^2       the decoder of the second term held fixed
                                                                         (arXiv 2404.16014, section 3.2)
    topk, batch_topk, matryoshka   aux_weight |e - e_hat|^2 / |e - mean e|^2, e = x - x_hat held fixed, e_hat from the
                                   aux_k largest dead latents            (arXiv 2406.04093, appendix A.2)
    matryoshka   the reconstruction is the mean over prefixes of latents (arXiv 2503.17547)
    jumprelu     sparsity L0, or sparsity (L0 / target_l0 - 1)^2         (arXiv 2407.14435, section 3)

One run is one function of its own parameters; `updating.py` maps it over runs.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xlingjax.sae.coder import Params
from xlingjax.sae.config import K_KINDS
from xlingjax.sae.selecting import largest, largest_of_all
from xlingjax.sae.sparse import choose, decode_chosen


@dataclasses.dataclass(frozen=True)
class Program:
    """All of a run that shapes what is compiled.

    Attributes:
        kind: of the dictionary; skip, centred, groups: see `DictionaryConfig`.
        most: k of any run is at most this.
        aux_k, aux_weight, bandwidth, dead_after, threshold_decay, beta_1, beta_2, clip: see `TrainSettings`.
        sparse: "topk" computes with the chosen latents only, where that is faster (see `sparse.py`).
        in_turn: runs are computed one after the other within the step; a CPU is busy with one of them, and slower
            with products of several at once.
    """

    kind: str
    skip: bool
    centred: bool
    groups: tuple[int, ...]
    most: int
    aux_k: int
    aux_weight: float
    bandwidth: float
    dead_after: int
    threshold_decay: float
    beta_1: float
    beta_2: float
    clip: float
    sparse: bool = False
    in_turn: bool = False


class Run(NamedTuple):
    """What differs between runs of one program; data.

    Attributes:
        which: the activation it reads. seed: of what is resampled. k, sparsity, rate, target_l0: see `DictionarySpec`.
        width: latents of its own; those beyond pad.
        scale_in, scale_out: by which activations are divided.
    """

    which: Any
    seed: Any
    k: Any
    sparsity: Any
    rate: Any
    target_l0: Any
    width: Any
    scale_in: Any
    scale_out: Any


class Seen(NamedTuple):
    """What a loss tells beside its value.

    Attributes:
        error: mean over tokens of |x - x_hat|^2.
        counts: tokens in which each latent is active.
        smallest: the smallest active value; infinite where none is.
    """

    error: Float[Array, ""]
    counts: Int[Array, "M"]
    smallest: Float[Array, ""]


def loss(
    params: Params, program: Program, run: Run, x: Float[Array, "b D"], y: Float[Array, "b E"], quiet: Int[Array, "M"],
    penalty: Float[Array, ""], revival: Int[Array, ""],
) -> tuple[Float[Array, ""], Seen]:
    """The loss of one run on one batch.

    Args:
        x, y: what is read and what is to be reconstructed, scaled.
        quiet: tokens since each latent was active, before this batch.
        penalty: the factor of the sparsity warm-up.
        revival: 0, no latent can be dead; n, at most the n-th of `tiers` are. Not batched over runs, so that nothing
            is computed in vain.
    """
    real = jnp.arange(quiet.shape[0]) < run.width
    if program.sparse:
        values, places = choose(params, program.most, run.k, x, real)
        out = decode_chosen(values, places, params["decoder"]["kernel"]) + params["decoder"]["bias"]
        error = _squares(y - out)
        counts = jnp.zeros(real.shape, jnp.int32).at[places].add((values > 0).astype(jnp.int32))
        smallest = jnp.where(values > 0, values, jnp.inf).min()
        total = error
        residual = y - out
    else:
        z, f, extra = latents(params, program, run, x, real)
        error, total, residual = reconstruction(params, program, f, x, y)
        active = jax.lax.stop_gradient(f) > 0
        counts = active.sum(axis=0, dtype=jnp.int32)
        thresholded = program.kind in ("batch_topk", "matryoshka")
        smallest = jnp.where(active, f, jnp.inf).min() if thresholded else jnp.float32(jnp.inf)
        if program.kind == "relu":
            total += run.sparsity * penalty * f.sum(axis=-1).mean()
        if program.kind == "gated":
            total += run.sparsity * penalty * extra.sum(axis=-1).mean()
            held = jax.lax.stop_gradient(params["decoder"])
            total += _squares(y - extra @ held["kernel"] - held["bias"] - _skipped(params, program, x, held=True))
        if program.kind == "jumprelu":
            # The number of active latents has no gradient of its own; the step function has a stand-in.
            active_share = step(z, params["threshold"], program.bandwidth)
            l0 = jnp.where(real, active_share, 0).sum(axis=-1).mean()
            aimed = (l0 / jnp.where(run.target_l0 > 0, run.target_l0, 1) - 1) ** 2
            total += run.sparsity * penalty * jnp.where(run.target_l0 > 0, aimed, l0)
    if program.kind in K_KINDS and program.aux_weight:
        since = jnp.where(counts > 0, 0, quiet + x.shape[0])
        dead = (since >= program.dead_after) & real
        aux = functools.partial(_explained_by_dead, program=program)
        # Checkpointed, or the branches not taken would fill arrays of their size with zeros.
        branches = [lambda *_: jnp.zeros(())] + [
            jax.checkpoint(functools.partial(aux, among=among)) for among in tiers(program.aux_k, len(dead))]
        total += program.aux_weight * jax.lax.switch(
            revival, branches, dict(params), x, jax.lax.stop_gradient(residual), dead)
    return total, Seen(error, counts, smallest)


def latents(
    params: Params, program: Program, run: Run, x: Float[Array, "b D"], real: Array,
) -> tuple[Float[Array, "b M"], Float[Array, "b M"], Any]:
    """(z, f, max(z, 0) of a gated dictionary): `coder.encode` as training sees it. Latents beyond `real` are 0."""
    pre = read(params, program.centred, x)
    z = jnp.where(real, pre + params["encoder"]["bias"], -jnp.inf)
    positive = jnp.where(z > 0, z, 0)
    if program.kind == "gated":
        strength = jnp.exp(params["log_scale"]) * pre + params["magnitude_bias"]
        return z, jnp.where((z > 0) & (strength > 0), strength, 0), positive
    if program.kind == "topk":
        return z, largest(positive, run.k, program.most), None
    if program.kind in ("batch_topk", "matryoshka"):
        return z, largest_of_all(positive, run.k * x.shape[0]), None
    if program.kind == "jumprelu":
        return positive, jump(positive, params["threshold"], program.bandwidth), None
    return z, positive, None


def reconstruction(
    params: Params, program: Program, f: Float[Array, "b M"], x: Float[Array, "b D"], y: Float[Array, "b E"],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "b E"]]:
    """(error, the term of the loss, residual); the two first differ where prefixes reconstruct as well."""
    kernel, base = params["decoder"]["kernel"], params["decoder"]["bias"] + _skipped(params, program, x)
    if program.kind != "matryoshka":
        residual = y - (f @ kernel + base)
        error = _squares(residual)
        return error, error, residual
    residual, errors = y - base, []
    for start, end in zip((0, *program.groups), program.groups):
        residual = residual - f[:, start:end] @ kernel[start:end]
        errors.append(_squares(residual))
    return errors[-1], sum(errors, jnp.zeros(())) / len(errors), residual


def read(params: Params, centred: bool, x: Float[Array, "b D"]) -> Float[Array, "b M"]:
    """What reaches the latents, before their bias."""
    kernel = params["encoder"]["kernel"]
    return centred_product(x, params["decoder"]["bias"], kernel) if centred else x @ kernel


@jax.custom_vjp
def centred_product(
    x: Float[Array, "b D"], bias: Float[Array, "D"], kernel: Float[Array, "D M"],
) -> Float[Array, "b M"]:
    """(x - bias) @ kernel; nobody asks for the slope in x, so the bias's costs no product over the batch."""
    return (x - bias) @ kernel


def _centred_backward(kept: tuple, g: Float[Array, "b M"]) -> tuple:
    x, bias, kernel = kept
    return jnp.zeros_like(x), -(kernel @ g.sum(axis=0)), (x - bias).T @ g


centred_product.defvjp(lambda x, bias, kernel: ((x - bias) @ kernel, (x, bias, kernel)), _centred_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jump(z: Float[Array, "b M"], threshold: Float[Array, "M"], bandwidth: float) -> Float[Array, "b M"]:
    """z where above the threshold; its slope in the threshold is a rectangle's (arXiv 2407.14435, section 3)."""
    return jnp.where(z > threshold, z, 0)


def _jump_backward(bandwidth: float, kept: tuple, g: Array) -> tuple:
    z, threshold = kept
    return jnp.where(z > threshold, g, 0), -threshold / bandwidth * _near(z, threshold, bandwidth, g)


jump.defvjp(lambda z, threshold, bandwidth: (jump(z, threshold, bandwidth), (z, threshold)), _jump_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def step(z: Float[Array, "b M"], threshold: Float[Array, "M"], bandwidth: float) -> Float[Array, "b M"]:
    """1 where above the threshold; its slope in the threshold is a rectangle's (ibid.), in z it has none."""
    return (z > threshold).astype(z.dtype)


def _step_backward(bandwidth: float, kept: tuple, g: Array) -> tuple:
    z, threshold = kept
    return jnp.zeros_like(z), -1 / bandwidth * _near(z, threshold, bandwidth, g)


step.defvjp(lambda z, threshold, bandwidth: (step(z, threshold, bandwidth), (z, threshold)), _step_backward)


def _near(z: Array, threshold: Array, bandwidth: float, g: Array) -> Float[Array, "M"]:
    return jnp.where(jnp.abs(z - threshold) < bandwidth / 2, g, 0).sum(axis=0)


def _skipped(params: Params, program: Program, x: Array, held: bool = False) -> Any:
    if not program.skip:
        return 0.0
    return x @ (jax.lax.stop_gradient(params["skip"]) if held else params["skip"])


def tiers(aux_k: int, latents: int) -> tuple[int, ...]:
    """For how many dead latents the products with them are compiled: few cost little.

    >>> tiers(256, 4096), tiers(4, 4)
    ((256, 1024, 4096), (4,))
    """
    return tuple(sorted({min(many, latents) for many in (aux_k, 4 * aux_k, latents)}))


def _explained_by_dead(
    params: Params, x: Array, residual: Array, dead: Array, *, program: Program, among: int,
) -> Float[Array, ""]:
    """Share of the residual's variance that the dead latents leave, of which there are at most `among`."""
    encoder, kernel = params["encoder"], params["decoder"]["kernel"]
    if among < len(dead):
        first = jnp.argsort(~dead)[:among]  # the dead ones, in order
        encoder = {"kernel": encoder["kernel"][:, first], "bias": encoder["bias"][first]}
        kernel, dead = kernel[first], dead[first]
    z = read({"encoder": encoder, "decoder": params["decoder"]}, program.centred, x) + encoder["bias"]
    f = jnp.where(dead & (z > 0), z, 0)
    if among > program.aux_k:
        f = largest(f, program.aux_k)
    variance = _squares(residual - residual.mean(axis=0))
    left = _squares(residual - f @ kernel)
    return jnp.where(dead.any() & (variance > 0), left / jnp.where(variance > 0, variance, 1), 0)


def _squares(x: Float[Array, "b E"]) -> Float[Array, ""]:
    return jnp.square(x).sum(axis=-1).mean()
