"""Where in a model a dictionary reads: the names of TransformerLens and Hugging Face, and our (site, layer)."""

import re
from typing import NamedTuple


class Place(NamedTuple):
    """A site and a layer of it."""

    site: str
    layer: int


HOOKS = {
    "hook_resid_post": "resid",
    "hook_resid_mid": "resid.mid",
    "hook_mlp_out": "mlp.down",
    "hook_attn_out": "attn.out",
    "attn.hook_z": "attn.heads",  # heads side by side, as the output map reads them
    "mlp.hook_post": "mlp.act",
}
# In these models TransformerLens hooks a sublayer's output after a norm, where we have no site.
NORMED_OUTPUT = ("gemma-2", "gemma-3", "olmo-2")

# Module of Hugging Face, without the names above it -> (site of its input, site of its output). A block's input is the
# stream that the block before left. BLOOM's modules `mlp` and `self_attention` add the stream inside, and GPT-2 has an
# `mlp` of the same path: under "h" neither is taken.
MODULES = {
    r"(?:layers|h)\.(\d+)": ("", "resid"),
    r"layers\.(\d+)\.mlp": ("mlp.in", "mlp.down"),
    r"(?:layers|h)\.(\d+)\.(?:mlp\.(?:down_proj|c_proj|dense_4h_to_h)|fc2)": ("mlp.act", "mlp.down"),
    r"(?:layers\.(\d+)\.(?:self_attn|attention)|h\.(\d+)\.attn)": ("attn.in", "attn.out"),
    r"(?:layers|h)\.(\d+)\.(?:self_attn\.(?:o_proj|out_proj)|attn\.c_proj|(?:self_)?attention\.dense)": (
        "attn.heads", "attn.out"),
}
ABOVE = r"(?:model\.|transformer\.|gpt_neox\.)*"
LABELS = {"resid_post": "resid", "mlp_out": "mlp.down", "attn_out": "attn.out", "attention_out": "attn.out"}


def of_hook(name: str, model: str = "") -> Place | None:
    """The place of a TransformerLens hook or a Hugging Face module's output; None where it is no site of ours.

    >>> of_hook("blocks.3.hook_resid_pre"), of_hook("blocks.0.hook_resid_pre"), of_hook("blocks.1.mlp.hook_pre")
    (Place(site='resid', layer=2), Place(site='embed', layer=0), None)
    """
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if not found:
        return of_module(name)
    layer, hook = int(found[1]), found[2]
    if hook == "hook_resid_pre":
        return _before(layer)
    normed = any(kind in model.lower() for kind in NORMED_OUTPUT) and hook in ("hook_mlp_out", "hook_attn_out")
    return None if hook not in HOOKS or normed else Place(HOOKS[hook], layer)


def of_module(name: str, reads: bool = False) -> Place | None:
    """The place of a Hugging Face module's output, or of its input where `reads`; None where it is no site of ours.

    >>> of_module("gpt_neox.layers.4.mlp"), of_module("h.2", reads=True), of_module("h.2.mlp")
    (Place(site='mlp.down', layer=4), Place(site='resid', layer=1), None)
    """
    for pattern, sites in MODULES.items():
        found = re.fullmatch(ABOVE + pattern, name)
        if found:
            layer = int(next(group for group in found.groups() if group is not None))
            site = sites[0] if reads else sites[1]
            return Place(site, layer) if site else _before(layer)
    return None


def of_label(name: str) -> Place | None:
    """The place that a `submodule_name` of dictionary_learning says.

    >>> of_label("resid_post_layer_7"), of_label("model.layers.7.mlp")
    (Place(site='resid', layer=7), Place(site='mlp.down', layer=7))
    """
    found = re.fullmatch(r"(\w+?)_layer_(\d+)", name)
    if found:
        return Place(LABELS[found[1]], int(found[2])) if found[1] in LABELS else None
    return of_module(name)


def hook_of(place: Place) -> str:
    """The TransformerLens hook of a place, or "".

    >>> hook_of(Place("resid", 3)), hook_of(Place("embed", 0)), hook_of(Place("attn.q", 1))
    ('blocks.3.hook_resid_post', 'blocks.0.hook_resid_pre', '')
    """
    if place.site == "embed":
        return "blocks.0.hook_resid_pre"
    return next((f"blocks.{place.layer}.{hook}" for hook, site in HOOKS.items() if site == place.site), "")


def label_of(place: Place) -> str:
    """The `submodule_name` of a place, or ""."""
    return next((f"{label}_layer_{place.layer}" for label, site in LABELS.items() if site == place.site), "")


def _before(layer: int) -> Place:
    return Place("resid", layer - 1) if layer else Place("embed", 0)
