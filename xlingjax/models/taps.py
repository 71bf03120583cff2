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
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig

Reduction = None | str | Array | np.ndarray | Callable[[Array, Array], Any]
Capture = Mapping[str, Reduction] | Iterable[str]


def site_shapes(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """Site -> (layers, F), in the order of the computation; `embed` has one layer.

    `attn.pattern` holds `[B, H, T, T]`; its F is given as H. Parallel blocks have no `resid.mid`.
    """
    width, mlp = config.width, config.mlp_width
    in_layers = {
        "attn.in": width,
        **({"attn.qkv": 3 * config.query_width} if config.fused else {}),
        "attn.q": config.query_width,
        "attn.k": config.key_value_width,
        "attn.v": config.key_value_width,
        "attn.pattern": config.heads,
        "attn.heads": config.query_width,
        "attn.out": width,
        **({} if config.parallel else {"resid.mid": width}),
        **({"cross.in": width, "cross.q": config.query_width, "cross.heads": config.query_width, "cross.out": width,
            "resid.cross": width} if config.cross else {}),
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
    cross = ("cross.q", "cross.out") if config.cross else ()
    gate = ("mlp.gate",) if config.gated else ()
    return (*attention, "attn.out", *cross, *gate, "mlp.up", "mlp.down")


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Splice:
    """`h' = function(h, params, rows)` in one layer of a site, at the positions `where`; padding is never edited.

    What no `Edit` can say because it depends on `h`: a dictionary's reconstruction, one of its latents set to a value.

    Args:
        function: (h [B, T, F], params, rows) -> [B, T, F]. Programs are compiled once for each: give a function of a
            module, or a frozen dataclass with `__call__`, never a new lambda each time.
        params: pytree of arrays.
        layer: int, which layer; 0 for `embed`. It is data, as `params` and `rows` are.
        rows: pytree of arrays that lead with `[B|1]`, what differs between rows.
        where: bool `[B|1, T]`, the edited positions; without it, every real token.

    >>> def double(h, params, rows): return params * h
    >>> Splice(double, jnp.float32(2), layer=1).where is None
    True
    """

    function: Callable[[Array, Any, Any], Array] = dataclasses.field(metadata={"static": True})
    params: Any = None
    layer: Any = 0
    rows: Any = None
    where: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Watch:
    """`h' = function(h, read, sums, rows)` in every layer of a site; what it returns has to equal `h`.

    For statistics of gradients: `function` is an identity whose backward pass (`jax.custom_vjp`) says what the gradient
    in `sums` is, and it may be any function of the gradient in `h` and of what another site held. The gradient of a
    loss in `sums`, zeros, is then that statistic of every layer, and no gradient of a token is ever kept.

    Args:
        function: (h [B, T, F], read [B, T, E], sums, rows) -> [B, T, F], of a module or a frozen dataclass.
        reads: a site of the same layer that is computed before.
        sums: pytree of arrays [L, ...], of which a layer gets its own.
        rows: pytree of arrays, the same for all layers.
    """

    function: Callable[[Array, Array, Any, Any], Array] = dataclasses.field(metadata={"static": True})
    reads: str = dataclasses.field(metadata={"static": True})
    sums: Any = None
    rows: Any = None


Edits = Mapping[str, Edit | Splice | Watch]


def check_sites(config: TransformerConfig, sites: Iterable[str]) -> None:
    """`InputError` that lists the sites of this model where one of `sites` is not among them."""
    known = site_shapes(config)
    for site in sites:
        if site not in known:
            raise InputError(f"site {site!r} is not in this model; choose among {', '.join(known)}")


def read_capture(config: TransformerConfig, capture: Capture) -> dict[str, Reduction]:
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


def edit_arrays(config: TransformerConfig, edits: Edits) -> dict[str, Edit | Splice | Watch]:
    """The edits with every field an array (lists are none); `InputError` for an unknown site."""
    check_sites(config, edits)
    out: dict[str, Edit | Splice | Watch] = {}
    for site, edit in edits.items():
        if isinstance(edit, Watch):
            _check_watch(config, site, edit)
            out[site] = jax.tree.map(jnp.asarray, edit)
        elif isinstance(edit, Splice):
            _check_splice(config, site, edit)
            out[site] = jax.tree.map(jnp.asarray, edit)
        elif isinstance(edit, Edit):
            out[site] = Edit(*(None if x is None else jnp.asarray(x) for x in _fields(edit).values()))
        else:
            raise InputError(f"the edit of site {site!r} is {edit!r}; give an Edit or a Splice")
    return out


def _check_splice(config: TransformerConfig, site: str, splice: Splice) -> None:
    """Where the layer is known (it may be traced), it has to exist."""
    layers = site_shapes(config)[site][0]
    if isinstance(splice.layer, jax.core.Tracer):
        return
    layer = np.asarray(splice.layer)
    if layer.shape != () or not np.issubdtype(layer.dtype, np.integer) or not 0 <= layer < layers:
        raise InputError(
            f"layer of the splice of site {site!r} is {splice.layer!r}; give a whole number from 0 to {layers - 1}")


def _check_watch(config: TransformerConfig, site: str, watch: Watch) -> None:
    names = list(site_shapes(config))
    check_sites(config, [watch.reads])
    if "embed" in (site, watch.reads) or names.index(watch.reads) >= names.index(site):
        raise InputError(
            f"the watch of site {site!r} reads {watch.reads!r}; give a site of the layers that is computed before it")


def _fields(edit: Edit) -> dict[str, Any]:
    return {field.name: getattr(edit, field.name) for field in dataclasses.fields(edit)}


def read_edits(
    config: TransformerConfig,
    edits: Edits | None,
    batch: int,
    length: int,
    dtype: DTypeLike,
) -> dict[str, dict[str, Any]]:
    """Site -> field -> array `[L|1, B|1, T|1, F|1]` of what is present, `where` among it.

    A splice is the field "splice" itself beside "on", bool `[L, 1, 1, 1]`, its layer; a watch is "watch" beside "sums".

    Errors: `InputError` for an unknown site, a shape or type that does not fit, a mask alone.
    """
    shapes = site_shapes(config)
    read = {}
    for site, edit in edit_arrays(config, edits or {}).items():
        if site == "attn.pattern":
            raise InputError("site 'attn.pattern' cannot be edited; edit 'attn.heads' or 'attn.v'")
        if isinstance(edit, Watch):
            read[site] = {"watch": edit, "sums": edit.sums}
            continue
        if isinstance(edit, Splice):
            layers, units = shapes[site]
            read[site] = {"splice": edit, "on": (jnp.arange(layers) == edit.layer).reshape(-1, 1, 1, 1)}
            if edit.where is not None:
                read[site]["where"] = _read_field(site, "where", edit.where, (layers, batch, length, units), dtype)
            continue
        if edit.mask is not None and edit.value is None:
            raise InputError(f"the edit of site {site!r} has a mask without a value; give both")
        layers, units = shapes[site]
        read[site] = {
            name: _read_field(site, name, x, (layers, batch, length, units), dtype)
            for name, x in _fields(edit).items()
            if x is not None
        }
    return read


def _read_field(site: str, name: str, given: Any, full: tuple[int, ...], dtype: DTypeLike) -> Array:
    x = jnp.asarray(given)
    boolean = name in ("mask", "where")
    if name == "where":
        shape, fits = f"[{full[1]} or 1, {full[2]}]", x.shape in (full[1:3], (1, full[2]))
        x = x[None, ..., None]
    else:
        shape = f"[{full[3]}], or four axes that broadcast to {list(full)}"
        x = x.reshape(1, 1, 1, -1) if x.ndim < 2 else x
        fits = x.ndim == 4 and all(n in (1, m) for n, m in zip(x.shape, full))
    if not fits or boolean != (x.dtype == bool):
        raise InputError(
            f"{name} of the edit of site {site!r} is {x.dtype} of shape {jnp.shape(given)}; "
            f"give {'bool' if boolean else 'float'} of shape {shape}"
        )
    return x if boolean else x.astype(dtype)


def split_layers(edits: Mapping[str, Mapping[str, Any]]) -> tuple[dict, dict]:
    """Edit fields that differ by layer, and without their layer axis those that all layers share.

    The former are scanned over: closing over them would cost their gradient L times its size.
    """
    whole = ("splice", "watch")  # no arrays
    varies = lambda name, x: name == "sums" or (name not in whole and x.shape[0] > 1)
    by_layer = {
        site: {name: x for name, x in fields.items() if varies(name, x)}
        for site, fields in edits.items()
    }
    shared = {
        site: {name: x if name in whole else x[0] for name, x in fields.items() if not varies(name, x)}
        for site, fields in edits.items()
    }
    return by_layer, shared


def apply_edit(
    h: Float[Array, "B T F"], fields: Mapping[str, Any], mask: Bool[Array, "B T"],
    seen: Mapping[str, Array] | None = None,
) -> Float[Array, "B T F"]:
    """One site of one layer after its edit; `fields` without their layer axis, `seen` what watched sites read."""
    if "watch" in fields:
        watch = fields["watch"]
        return watch.function(h, (seen or {})[watch.reads], fields["sums"], watch.rows)
    new = h
    if "splice" in fields:
        splice = fields["splice"]
        new = jax.lax.cond(fields["on"].reshape(()),
                           lambda h: splice.function(h, splice.params, splice.rows).astype(h.dtype), lambda h: h, h)
    if "scale" in fields:
        new = new * fields["scale"]
    if "add" in fields:
        new = new + fields["add"]
    if "value" in fields:
        new = jnp.where(fields.get("mask", True), fields["value"], new)
    where = mask[..., None] & fields.get("where", True)
    return jnp.where(where, new, h)


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
        edits: Mapping[str, Mapping[str, Any]],
        mask: Bool[Array, "B T"],
        where: Bool[Array, "B T"],
    ):
        self.capture, self.edits, self.mask, self.where = capture, edits, mask, where
        self.captured: dict[str, Any] = {}
        self.read = {fields["watch"].reads for fields in edits.values() if "watch" in fields}
        self.seen: dict[str, Array] = {}

    def __call__(self, site: str, h: Array) -> Array:
        if site in self.edits:
            h = apply_edit(h, self.edits[site], self.mask, self.seen)
        if site in self.read:
            self.seen[site] = h
        if site in self.capture:
            self.captured[site] = reduce_tokens(h, self.mask, self.where, self.capture[site])
        return h


def reduce_tokens(
    h: Array, mask: Bool[Array, "B T"], where: Bool[Array, "B T"], how: Reduction
) -> Any:
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


def _positive(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    return _mean((h > 0).astype(h.dtype), where)


def _position(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    weight = jnp.where(where, jnp.cumsum(where, axis=1, dtype=jnp.int32), 0).astype(h.dtype)
    total = jnp.maximum(weight.sum(axis=1), 1)[:, None]
    return _or_nan((jnp.where(where[..., None], h, 0) * weight[..., None]).sum(axis=1) / total, where)


def _last(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Float[Array, "B F"]:
    last = h.shape[1] - 1 - jnp.argmax(where[:, ::-1], axis=1)
    return _or_nan(jnp.take_along_axis(h, last[:, None, None], axis=1)[:, 0], where)


def _argmax(h: Float[Array, "B T F"], where: Bool[Array, "B T"]) -> Int[Array, "B F"]:
    # A counted -inf must not lose to an uncounted token: begin with the first that counts.
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
    "positive": _positive,
    "position": _position,
}
