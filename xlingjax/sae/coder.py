"""From activations to sparse latents and back: every kind of dictionary, as functions of its parameters.

    x_hat = f @ decoder.kernel + decoder.bias (+ x @ skip)        rows of a decoder trained here have norm 1

The latents f of x, with z = (x - decoder.bias) @ encoder.kernel + encoder.bias (without the subtraction
where the config is not `centred`):

    relu         max(z, 0)
    gated        [z > 0] max(exp(log_scale) * (z - encoder.bias) + magnitude_bias, 0)
    topk         the k largest of max(z, 0) of each token, others 0
    batch_topk   max(z, 0) where above `threshold`; while training, the k * n largest of n tokens
    matryoshka   as batch_topk; while training every prefix of latents has to reconstruct x
    jumprelu     z where above `threshold` of the latent and above 0
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from xlingjax.errors import InputError
from xlingjax.precision import full_precision
from xlingjax.sae.config import THRESHOLD_KINDS, DictionaryConfig
from xlingjax.sae.selecting import largest

Params = Mapping[str, Any]
JUMP = 0.001  # first thresholds of "jumprelu" (its paper, appendix I)


class Linear(nnx.Module):
    """A kernel [in, out] and a bias [out]."""

    def __init__(self, kernel: Array, bias: Array):
        self.kernel, self.bias = nnx.Param(kernel), nnx.Param(bias)


class Coder(nnx.Module):
    """The parameters of one dictionary and what they do."""

    def __init__(self, config: DictionaryConfig, rngs: nnx.Rngs):
        m = config.latents
        self.config = config
        rows = unit_rows(jax.random.normal(rngs.params(), (m, config.out)))
        # The encoder starts as the decoder's transpose, so that a latent reads what it writes.
        columns = rows.T if config.out == config.inputs else unit_rows(
            jax.random.normal(rngs.params(), (m, config.inputs))).T
        self.encoder = Linear(columns, jnp.zeros(m))
        self.decoder = Linear(rows, jnp.zeros(config.out))
        if config.kind == "gated":
            self.log_scale, self.magnitude_bias = nnx.Param(jnp.zeros(m)), nnx.Param(jnp.zeros(m))
        if config.kind == "jumprelu":
            self.threshold = nnx.Param(jnp.full(m, JUMP))
        if config.kind in THRESHOLD_KINDS:
            self.threshold = nnx.Param(jnp.float32(0))
        if config.skip:
            self.skip = nnx.Param(jnp.zeros((config.inputs, config.out)))

    def read(self, x: Float[Array, "... D"]) -> Float[Array, "... M"]:
        """What reaches the latents, before their bias."""
        return (x - self.decoder.bias[...] if self.config.centred else x) @ self.encoder.kernel[...]

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... M"]:
        """The latents."""
        read, kind = self.read(x), self.config.kind
        z = read + self.encoder.bias[...]
        if kind == "gated":
            return jnp.where(z > 0, self.magnitudes(read), 0)
        positive = jnp.maximum(z, 0)
        if kind == "topk":
            return largest(positive, self.config.k)
        if kind in THRESHOLD_KINDS or kind == "jumprelu":
            return jnp.where(z > self.threshold[...], positive, 0)
        return positive

    def magnitudes(self, read: Float[Array, "... M"]) -> Float[Array, "... M"]:
        """How strong a latent of a gated dictionary is where its gate is open."""
        return jnp.maximum(jnp.exp(self.log_scale[...]) * read + self.magnitude_bias[...], 0)

    def decode(self, f: Float[Array, "... M"], x: Float[Array, "... D"] | None = None) -> Float[Array, "... E"]:
        """The reconstruction; `x` is needed where the dictionary has a skip path."""
        out = f @ self.decoder.kernel[...] + self.decoder.bias[...]
        if not self.config.skip:
            return out
        if x is None:
            raise InputError("this dictionary has a skip path, so its reconstruction needs its input; give x")
        return out + x @ self.skip[...]


def unit_rows(x: Float[Array, "M D"]) -> Float[Array, "M D"]:
    """Rows of norm 1; a row of zeros stays."""
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1)


@functools.lru_cache(maxsize=64)
def skeleton(config: DictionaryConfig) -> nnx.GraphDef:
    """The structure of a dictionary without its parameters."""
    return nnx.split(nnx.eval_shape(lambda: Coder(config, nnx.Rngs(0))))[0]


def coder(params: Params, config: DictionaryConfig) -> Coder:
    """The module with these parameters; for use inside `jit`, `grad` and `vmap`."""
    return nnx.merge(skeleton(config), params)


def init_dictionary(config: DictionaryConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Random parameters: decoder rows uniform on the sphere, encoder their transpose, biases 0.

    >>> init_dictionary(DictionaryConfig("relu", 8, 32), jax.random.key(0))["decoder"]["kernel"].shape
    (32, 8)
    """
    return nnx.to_pure_dict(nnx.state(Coder(config, nnx.Rngs(key))))


@full_precision
def encode(params: Params, config: DictionaryConfig, x: Float[Array, "... D"]) -> Float[Array, "... M"]:
    """The latents of activations, as the finished dictionary has them.

    >>> config = DictionaryConfig("topk", 8, 32, k=3)
    >>> f = encode(init_dictionary(config, jax.random.key(0)), config, jax.random.normal(jax.random.key(1), (5, 8)))
    >>> (f > 0).sum(-1).tolist()
    [3, 3, 3, 3, 3]
    """
    return coder(params, config)(x)


@full_precision
def decode(
    params: Params, config: DictionaryConfig, f: Float[Array, "... M"], x: Float[Array, "... D"] | None = None,
) -> Float[Array, "... E"]:
    """The reconstruction from latents; `x` is needed where the dictionary has a skip path."""
    return coder(params, config).decode(f, x)


@full_precision
def reconstruct(params: Params, config: DictionaryConfig, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
    """What the dictionary makes of activations."""
    both = coder(params, config)
    return both.decode(both(x), x)


class LatentEdit(NamedTuple):
    """What is done to latents: f' = where(mask, value, f * scale), each broadcast from [B|1, T|1, M|1]."""

    scale: Any = None
    mask: Any = None
    value: Any = None

    def __call__(self, f: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
        new = f if self.scale is None else f * self.scale
        return new if self.value is None else jnp.where(True if self.mask is None else self.mask, self.value, new)


@dataclasses.dataclass(frozen=True)
class EditLatents:
    """A `Splice` function: latents changed, and what the dictionary does not explain left as it is.

        h' = h + (f' - f) @ decoder.kernel

    `params` of the splice are the dictionary's; `rows` a `LatentEdit`, whose arrays lead with [B|1].

    >>> from xlingjax.models.taps import Splice
    >>> config = DictionaryConfig("relu", 8, 32)
    >>> params = init_dictionary(config, jax.random.key(0))
    >>> silent = Splice(EditLatents(config), params, layer=3, rows=LatentEdit(scale=jnp.zeros((1, 1, 32))))
    """

    config: DictionaryConfig

    def __call__(self, h: Float[Array, "B T D"], params: Params, rows: LatentEdit) -> Float[Array, "B T D"]:
        f = encode(params, self.config, h)
        return h + (rows(f) - f) @ params["decoder"]["kernel"]


@dataclasses.dataclass(frozen=True)
class Replace:
    """A `Splice` function: the site holds what the dictionary makes of it."""

    config: DictionaryConfig

    def __call__(self, h: Float[Array, "B T D"], params: Params, rows: None) -> Float[Array, "B T D"]:
        return reconstruct(params, self.config, h)

