"""One short file for each family of checkpoints; `family_of` finds the one that reads a config."""

import difflib
from collections.abc import Mapping
from typing import Any

from xlingjax.errors import InputError
from xlingjax.models.families import (
    bart,
    bert,
    bloom,
    cohere,
    gpt2,
    gpt_neox,
    llama,
    olmo,
    qwen,
    t5,
    xglm,
    xlm_roberta,
)
from xlingjax.models.families.entry import Entry, Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        bart, bert, bloom, cohere, gpt2, gpt_neox, llama, olmo, qwen, t5, xglm, xlm_roberta)
}

__all__ = ["FAMILIES", "Entry", "Family", "family_of"]


def family_of(hf: Mapping[str, Any]) -> Family:
    """The family that reads a parsed `config.json`.

    Errors: `InputError` names the nearest supported architecture where none does.

    >>> family_of({"model_type": "bloom"}).name
    'bloom'
    >>> family_of({"model_type": "gemma2", "rms_norm_eps": 1e-6})
    Traceback (most recent call last):
    ...
    xlingjax.errors.InputError: model_type 'gemma2' is not supported; the nearest that is: 'llama' (all: ...)
    """
    model_type = hf.get("model_type")
    known = {kind: family for family in FAMILIES.values() for kind in family.model_types}
    if model_type in known:
        return known[model_type]
    nearest = _nearest(str(model_type), hf, list(known))
    raise InputError(
        f"model_type {model_type!r} is not supported; the nearest that is: {nearest!r} "
        f"(all: {', '.join(sorted(known))})"
    )


def _nearest(model_type: str, hf: Mapping[str, Any], known: list[str]) -> str:
    """The supported architecture that is most like it: by its name, else by what its config has."""
    named = difflib.get_close_matches(model_type, known, n=1, cutoff=0.7)
    if named:
        return named[0]
    if hf.get("is_encoder_decoder"):
        return "bart"
    signs = {"rms_norm_eps": "llama", "type_vocab_size": "bert", "n_embd": "gpt2"}
    return next((kind for option, kind in signs.items() if option in hf),
                difflib.get_close_matches(model_type, known, n=1, cutoff=0.0)[0])
