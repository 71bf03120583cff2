"""What a config says of rotary positions and of windows, in the spellings of several releases."""

from typing import Any

from xlingjax.errors import InputError
from xlingjax.models.families.options import Options

LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def read_rotary(options: Options, base: float = 10_000.0) -> tuple[dict[str, Any], float]:
    """`positions`, `rotary_base` and `rotary_scaling` of a config, and the share of a head that turns.

    Older files have `rope_theta` beside a `rope_scaling` that may be null, newer ones all in
    `rope_parameters`.

    Errors: `InputError` for a scaling other than Llama 3.1's.
    """
    found = dict(options.read("rope_parameters", "rope_scaling", default={}))
    theta = options.read("rope_theta", "rotary_emb_base", default=base)
    theta = found.pop("rope_theta", theta)
    part = float(found.pop("partial_rotary_factor", options.read("rotary_pct", "partial_rotary_factor", default=1.0)))
    kinds = [found.pop(name) for name in ("rope_type", "type") if name in found]
    kind = kinds[0] if kinds else "default"
    scaling: tuple[float, ...] = ()
    if kind == "llama3":
        missing = [name for name in LLAMA3 if name not in found]
        if missing:
            raise InputError(
                f"option rope_parameters of this {options.family} model lacks {missing[0]}; take the "
                "config.json that belongs to the weights"
            )
        scaling = tuple(float(found.pop(name)) for name in LLAMA3)
    elif kind != "default":
        raise InputError(
            f"option rope_parameters of this {options.family} model has the type {kind!r}, which is "
            "not supported; 'default' and 'llama3' are"
        )
    if found:
        raise InputError(
            f"option rope_parameters of this {options.family} model has {next(iter(found))!r}, which "
            "is not supported; use a checkpoint without it"
        )
    return {"positions": "rotary", "rotary_base": float(theta), "rotary_scaling": scaling}, part


def read_window(options: Options) -> int:
    """The longest sentence that every token sees whole; 0: no limit.

    A model that attends within a window is, up to that length, one that attends to everything.

    Errors: `InputError` where layers differ in what they see.
    """
    kinds = set(options.read("layer_types", default=["full_attention"]))
    known = {"full_attention", "sliding_attention"}
    if kinds - known:
        raise InputError(
            f"option layer_types of this {options.family} model has {sorted(kinds - known)[0]!r}, which "
            f"is not supported; {', '.join(sorted(known))} are"
        )
    options.seen |= {"max_window_layers", "use_sliding_window", "sliding_window"}
    if options.hf.get("use_sliding_window", True) is False:
        return 0
    return int(options.hf.get("sliding_window") or 0)
