"""What each latent does for a measure behind further layers, by gradients, by integrated gradients, and exactly.

With `h(a) = h + (a - 1) f D`, the site with all latents scaled by a and the error term kept, and m the measure,

    gradient               effect_f = sum_t f_t (d_f . dm/dh_t)  at a = 1           (attribution patching, Nanda 2023)
    integrated gradients   the same with dm/dh averaged over a from 0 to 1         (Sundararajan et al. 2017)
    exact                  m minus m with latent f set to zero

A latent enters the site linearly, so its derivative is that of the site along d_f: one backward pass serves all
latents. Effects by integrated gradients add up to m - m(no latent) as the steps grow.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models import Model, Splice
from xlingjax.models.taps import Capture
from xlingjax.models.transformer import forward, unembed
from xlingjax.precision import full_precision
from xlingjax.sae import Dictionary, EditLatents, LatentEdit, encode


class Attributed(NamedTuple):
    """Effects of all latents on each row's measure; the measure as it is, and without any latent."""

    effects: Float[Array, "B M"]
    whole: Float[Array, "B"]
    silent: Float[Array, "B"]


class Measure(Protocol):
    """One number a row; a frozen dataclass. `data` holds arrays that lead with [B]."""

    def capture(self, data: Any) -> Capture:
        """What has to be captured for it."""

    def __call__(self, params: Any, config: Any, hidden: Array, captured: dict[str, Any], data: Any) -> Array:
        """float[B] of hidden states after the final norm [B, T, D] and what was captured."""


@dataclasses.dataclass(frozen=True)
class WordLogit:
    """A probe's logit of one word a row.

    `data`: `average` [B, T], weights of the word's tokens; `w` [B, D], `bias` [B]; `layer` int [B], of `resid`.

    Attributes:
        final: the probe reads what follows the last norm; then `layer` plays no part.
    """

    final: bool = False

    def capture(self, data: Any) -> Capture:
        return {} if self.final else {"resid": lambda h, _: jnp.einsum("bt,btd->bd", data["average"], h)}

    def __call__(self, params: Any, config: Any, hidden: Array, captured: dict[str, Any], data: Any) -> Array:
        if self.final:
            word = jnp.einsum("bt,btd->bd", data["average"], hidden)
        else:
            word = jnp.take(captured["resid"], data["layer"][0], axis=0)
        return (word * data["w"]).sum(-1) + data["bias"]


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Nats of a row's next tokens, summed. `data`: `tokens` [B, T], `counted` bool [B, T], the tokens predicted."""

    def capture(self, data: Any) -> Capture:
        return {}

    def __call__(self, params: Any, config: Any, hidden: Array, captured: dict[str, Any], data: Any) -> Array:
        log_p = jax.nn.log_softmax(unembed(params, config, hidden[:, :-1]).astype(jnp.float32))
        chosen = jnp.take_along_axis(log_p, data["tokens"][:, 1:, None], -1)[..., 0]
        return -jnp.where(data["counted"][:, 1:], chosen, 0).sum(1)


@dataclasses.dataclass(frozen=True)
class LogOdds:
    """log p(good) - log p(bad) of two next tokens, as of a minimal pair that differs in one token.

    `data`: `position` int [B], the token before it; `good`, `bad` int [B].
    """

    def capture(self, data: Any) -> Capture:
        return {}

    def __call__(self, params: Any, config: Any, hidden: Array, captured: dict[str, Any], data: Any) -> Array:
        at = jnp.take_along_axis(hidden, data["position"][:, None, None], 1)[:, 0]
        logits = unembed(params, config, at)
        of = lambda token: jnp.take_along_axis(logits, token[:, None], 1)[:, 0]
        return of(data["good"]) - of(data["bad"])


@dataclasses.dataclass(frozen=True)
class AlongPath:
    """A `Splice` function: all latents scaled by `share` [B|1, 1, 1], the error kept, and `shift` [B, T, D] added."""

    config: Any

    def __call__(self, h: Float[Array, "B T D"], params: Any, rows: dict[str, Array]) -> Float[Array, "B T D"]:
        return h + (rows["share"] - 1) * (encode(params, self.config, h) @ params["decoder"]["kernel"]) + rows["shift"]


def attribute(
    model: Model, dictionary: Dictionary, tokens: Int[Any, "B T"], mask: Bool[Any, "B T"], measure: Measure, data: Any,
    where: Bool[Any, "B T"] | None = None, steps: int = 0,
) -> Attributed:
    """The effect of every latent on a measure, estimated by gradients.

    Args:
        measure, data: see `WordLogit`, `CrossEntropy`, `LogOdds`.
        where: positions whose latents are asked about; every real token by default.
        steps: of integrated gradients, at the middles of equal parts; 0 = the gradient where all latents are whole.

    Raises:
        InputError: the dictionary does not fit the model or writes another site, or steps is negative.
    """
    _check(model, dictionary)
    if steps < 0:
        raise InputError(f"steps is {steps}; give 0 for the plain gradient or a number of steps")
    shares = jnp.ones(1) if steps == 0 else (jnp.arange(steps) + 0.5) / steps
    return _attribute(
        model.params, model.config, dictionary.params, dictionary.config, (dictionary.site, dictionary.layer), measure,
        *_inputs(tokens, mask, where), data, shares)


def exact_effects(
    model: Model, dictionary: Dictionary, tokens: Int[Any, "B T"], mask: Bool[Any, "B T"], measure: Measure, data: Any,
    latents: Int[Any, "*B J"], where: Bool[Any, "B T"] | None = None,
) -> Float[Array, "J B"]:
    """The measure minus the measure without each of some latents, one forward pass each.

    Args:
        latents: the same J for all rows, or J of each row; -1 = none.

    Raises:
        InputError: the dictionary does not fit the model or writes another site.
    """
    _check(model, dictionary)
    return _exact(
        model.params, model.config, dictionary.params, dictionary.config, (dictionary.site, dictionary.layer), measure,
        *_inputs(tokens, mask, where), data, jnp.broadcast_to(latents, (len(tokens), np.shape(latents)[-1])))


def _check(model: Model, dictionary: Dictionary) -> None:
    dictionary.require(model)
    if dictionary.target is not None:
        raise InputError("a transcoder's latents do not add up to the site it reads; give a dictionary of one site")


def _inputs(tokens: Any, mask: Any, where: Any) -> tuple[Array, Array, Array]:
    mask = jnp.asarray(mask)
    return jnp.asarray(tokens), mask, mask if where is None else mask & jnp.asarray(where)


@functools.partial(jax.jit, static_argnums=(1, 3, 4, 5))
@full_precision
def _attribute(
    params: Any, config: Any, coder: Any, coder_config: Any, place: tuple[str, int], measure: Measure, tokens: Array,
    mask: Array, where: Array, data: Any, shares: Float[Array, "P"],
) -> Attributed:
    site, layer = place

    def value(shift: Array, share: Array) -> Array:
        rows = {"share": share.reshape(1, 1, 1), "shift": shift}
        edits = {site: Splice(AlongPath(coder_config), coder, layer, rows, where)}
        hidden, captured = forward(params, config, tokens, mask, capture=measure.capture(data), edits=edits)
        return measure(params, config, hidden, captured, data)

    def add(total: Array, share: Array) -> tuple[Array, None]:
        return total + jax.grad(lambda shift: value(shift, share).sum())(zero), None

    _, captured = forward(params, config, tokens, mask, capture={site: None})
    h = captured[site][layer]
    zero = jnp.zeros_like(h)
    total, _ = jax.lax.scan(add, zero, shares)
    slope = jnp.where(where[..., None], total / len(shares), 0)
    f = encode(coder, coder_config, h)
    along = slope @ coder["decoder"]["kernel"].T
    return Attributed((f * along).sum(1), value(zero, jnp.ones(())), value(zero, jnp.zeros(())))


@functools.partial(jax.jit, static_argnums=(1, 3, 4, 5))
@full_precision
def _exact(
    params: Any, config: Any, coder: Any, coder_config: Any, place: tuple[str, int], measure: Measure, tokens: Array,
    mask: Array, where: Array, data: Any, latents: Int[Array, "B J"],
) -> Float[Array, "J B"]:
    def without(latent: Int[Array, "B"]) -> Array:
        rows = LatentEdit(scale=1 - jax.nn.one_hot(latent, coder_config.latents)[:, None])
        edits = {place[0]: Splice(EditLatents(coder_config), coder, place[1], rows, where)}
        hidden, captured = forward(params, config, tokens, mask, capture=measure.capture(data), edits=edits)
        return measure(params, config, hidden, captured, data)

    return without(jnp.full(len(tokens), -1)) - jax.lax.map(without, latents.T)
