"""The one door into the model: capture what a site holds, or edit it, inside the forward pass.

A *site* is a named point of the computation, `[B, T, F]` in every layer. A *capture* asks for a
site's values, reduced over the tokens inside the layer loop. An *edit* changes them. Captures see
what edits have done. Sites that nobody names cost nothing.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig

Reduction = None | str | Array | np.ndarray | Callable[[Array, Array], Any]


def site_shapes(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """Site -> (layers, F), in the order of the computation; `embed` has one layer.

    `attn.pattern` holds `[B, H, T, T]`; its F is given as H.
    """
    width, mlp = config.width, config.mlp_width
    in_layers = {
        "attn.in": width,
        **({"attn.qkv": 3 * width} if config.fused else {}),
        "attn.q": width,
        "attn.k": config.key_value_width,
        "attn.v": config.key_value_width,
        "attn.pattern": config.heads,
        "attn.heads": width,
        "attn.out": width,
        "resid.mid": width,
        "mlp.in": width,
        **({"mlp.gate": mlp} if config.gated else {}),
        "mlp.up": mlp,
        "mlp.act": mlp,
        "mlp.down": width,
        "resid": width,
    }
    return {"embed": (1, width)} | {site: (config.layers, f) for site, f in in_layers.items()}


def neuron_sites(config: TransformerConfig) -> tuple[str, ...]:
    """The outputs of the checkpoint's own linear maps, each once."""
    attention = ("attn.qkv",) if config.fused else ("attn.q", "attn.k", "attn.v")
    gate = ("mlp.gate",) if config.gated else ()
    return (*attention, "attn.out", *gate, "mlp.up", "mlp.down")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
    """`h' = where(mask, value, h * scale + add)` at the positions `where`; padding is never edited.

    Args:
        scale, add, value: float, broadcast from `[L|1, B|1, T|1, F|1]`; `[F]` serves all alike.
        mask: bool, of the same shapes: units that take `value`; without it, `value` goes to all.
        where: bool `[B|1, T]`, the edited positions; without it, every real token.

    Which fields are present shapes the compiled program; their values never do.
    """

    scale: Any = None
    add: Any = None
    mask: Any = None
    value: Any = None
    where: Any = None


def check_sites(config: TransformerConfig, sites: Iterable[str]) -> None:
    """`InputError` that lists the sites of this model where one of `sites` is not among them."""
    known = site_shapes(config)
    for site in sites:
        if site not in known:
            raise InputError(f"site {site!r} is not in this model; choose among {', '.join(known)}")


def read_capture(config: TransformerConfig, capture) -> dict[str, Reduction]:
    """Site -> reduction from what `forward` takes as `capture`; `InputError` for what it cannot."""
    if isinstance(capture, str):
        raise InputError(
            f"capture is the string {capture!r}; give a tuple of sites, ({capture!r},)"
        )
    wanted = dict(capture) if isinstance(capture, Mapping) else dict.fromkeys(capture)
    check_sites(config, wanted)
    for site, how in wanted.items():
        if isinstance(how, str) and how not in REDUCTIONS:
            raise InputError(
                f"reduction {how!r} of site {site!r} is unknown; choose among None, "
                f"{', '.join(map(repr, REDUCTIONS))}, positions [B, P] and a function"
            )
        if not (how is None or isinstance(how, str) or callable(how)):
            positions = jnp.asarray(how)
            if positions.ndim != 2 or not jnp.issubdtype(positions.dtype, jnp.integer):
                raise InputError(
                    f"positions of site {site!r} are {positions.dtype} of shape "
                    f"{positions.shape}; give whole numbers of shape [B, P]"
                )
            wanted[site] = positions
        if site == "attn.pattern" and not (how is None or callable(how)):
            raise InputError(
                "site 'attn.pattern' has no token reduction; capture it with None or "
                "with a function (pattern [B, H, T, T], where [B, T]) -> pytree"
            )
    return wanted


def read_edits(
    config: TransformerConfig, edits: Mapping[str, Edit] | None, shape: tuple[int, int], dtype
) -> dict[str, dict[str, Array]]:
    """Site -> field -> array `[L|1, B|1, T|1, F|1]` (`where`: `[B|1, T]`) of what is present.

    `shape` is (B, T). `InputError` for an unknown site, a shape that does not fit, a mask alone.
    """
    edits = dict(edits or {})
    check_sites(config, edits)
    return {
        site: _read_edit(site, edit, (*site_shapes(config)[site], *shape), dtype)
        for site, edit in edits.items()
    }


def _read_edit(site: str, edit: Edit, sizes: tuple[int, int, int, int], dtype) -> dict[str, Array]:
    layers, units, batch, length = sizes
    if site == "attn.pattern":
        raise InputError("site 'attn.pattern' cannot be edited; edit 'attn.heads' or 'attn.v'")
    if not isinstance(edit, Edit):
        raise InputError(
            f"the edit of site {site!r} is a {type(edit).__name__}; give an xlingjax Edit"
        )
    if edit.mask is not None and edit.value is None:
        raise InputError(f"the edit of site {site!r} has a mask without a value; give both")
    fields = {}
    for field in dataclasses.fields(edit):
        given = getattr(edit, field.name)
        if given is None:
            continue
        array = jnp.asarray(given)
        full: tuple[int, ...] = (layers, batch, length, units)
        kind = bool if field.name in ("mask", "where") else dtype
        if field.name == "where":
            full = (batch, length)
            fits = array.ndim == 2 and array.shape[0] in (1, batch) and array.shape[1] == length
        else:
            array = array.reshape(1, 1, 1, -1) if array.ndim < 2 else array
            fits = array.ndim == 4 and all(n in (1, m) for n, m in zip(array.shape, full))
        if not fits or (kind is bool) != (array.dtype == bool):
            raise InputError(
                f"{field.name} of the edit of site {site!r} is {array.dtype} of shape {array.shape}; "
                f"give {'bool' if kind is bool else 'float'} that broadcasts to {full}"
            )
        fields[field.name] = array.astype(kind)
    return fields


def edited_positions(fields: Mapping[str, Array], mask: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
    """The tokens that an edit reaches: its `where` among the real ones."""
    return mask & fields["where"] if "where" in fields else mask


def apply_edit(
    h: Float[Array, "B T F"], fields: Mapping[str, Array], mask: Bool[Array, "B T"]
) -> Float[Array, "B T F"]:
    """One site of one layer after its edit; `fields` without their layer axis."""
    new = h
    if "scale" in fields:
        new = new * fields["scale"]
    if "add" in fields:
        new = new + fields["add"]
    if "value" in fields:
        new = (
            jnp.where(fields["mask"], fields["value"], new) if "mask" in fields else fields["value"]
        )
    return jnp.where(edited_positions(fields, mask)[..., None], new, h)


class Taps:
    """The captures and edits of one layer; called as `h = tap(site, h)` where the site is computed.

    Args:
        capture: site -> reduction.
        edits: site -> fields, each without its layer axis.
        mask: real tokens.
        where: tokens that reductions count.

    `captured` holds what was asked for and is part of the layer's return value.
    """

    def __init__(
        self,
        capture: Mapping[str, Reduction],
        edits: Mapping[str, Mapping[str, Array]],
        mask: Bool[Array, "B T"],
        where: Bool[Array, "B T"],
    ):
        self.capture, self.edits, self.mask, self.where = capture, edits, mask, where
        self.captured: dict[str, Any] = {}

    def __call__(self, site: str, h: Array) -> Array:
        if site in self.edits:
            h = apply_edit(h, self.edits[site], self.mask)
        if site in self.capture:
            self.captured[site] = reduce_tokens(h, self.mask, self.where, self.capture[site])
        return h


def reduce_tokens(h: Array, mask: Bool[Array, "B T"], where: Bool[Array, "B T"], how: Reduction):
    """One site of one layer, reduced over the tokens that count (positions: over the real ones).

    A row without such a token gives NaN, and -1 for `"argmax"`. Without a reduction the values at
    padding are finite and mean nothing.
    """
    if how is None:
        return h
    if isinstance(how, str):
        return REDUCTIONS[how](h, where)
    if callable(how):
        return how(h, where)
    inside = jnp.clip(how, 0, h.shape[1] - 1)
    real = (inside == how) & jnp.take_along_axis(mask, inside, axis=1)
    return jnp.where(real[..., None], jnp.take_along_axis(h, inside[..., None], axis=1), jnp.nan)


def _or_nan(reduced: Float[Array, "B F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    return jnp.where(where.any(axis=1)[:, None], reduced, jnp.nan)


def _max(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    return _or_nan(jnp.where(where[..., None], h, -jnp.inf).max(axis=1), where)


def _sum(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    return _or_nan(jnp.where(where[..., None], h, 0).sum(axis=1), where)


def _mean(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    count = jnp.maximum(where.sum(axis=1, dtype=jnp.int32), 1)
    return _sum(h, where) / count.astype(h.dtype)[:, None]


def _last(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    last = h.shape[1] - 1 - jnp.argmax(where[:, ::-1], axis=1)
    return _or_nan(jnp.take_along_axis(h, last[:, None, None], axis=1)[:, 0], where)


def _argmax(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Int[Array, "B F"]:
    # A counted -inf must not lose to an uncounted token before it: start from the first counted one.
    first = jnp.argmax(where, axis=1)[:, None, None]
    shown = jnp.where(where[..., None], h, -jnp.inf)
    best = jnp.argmax(shown, axis=1).astype(jnp.int32)
    best = jnp.where(shown.max(axis=1) == -jnp.inf, first[:, 0].astype(jnp.int32), best)
    return jnp.where(where.any(axis=1)[:, None], best, -1)


REDUCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "max": _max,
    "mean": _mean,
    "last": _last,
    "sum": _sum,
    "argmax": _argmax,
}
