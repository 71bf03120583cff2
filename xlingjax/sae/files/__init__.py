"""Dictionaries in other toolkits' files: dictionary_learning, SAELens and sparsify, read and written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.models.weights.checkpoint import TensorFile
from xlingjax.models.weights.files import read_json
from xlingjax.models.weights.safetensors_file import open_safetensors
from xlingjax.models.weights.torch_file import open_torch
from xlingjax.models.weights.torch_writing import torch_bytes
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.files import dictionary_learning, folding, saelens, sparsify
from xlingjax.sae.files.places import Place
from xlingjax.sae.files.reading import OURS, Found, Settings, Tensors

__all__ = ["LAYOUTS", "read_dictionary", "write_dictionary"]


class Layout(NamedTuple):
    """The two files of a toolkit, and what they mean."""

    weights: str
    settings: str
    read: Callable[[Settings, Tensors], Found]
    write: Callable[[Dictionary], tuple[dict[str, np.ndarray], dict[str, Any]]]
    open: Callable[[Path], TensorFile]
    packed: Callable[[dict[str, np.ndarray]], bytes]


def _safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    return save({name: np.array(values, order="C") for name, values in tensors.items()}, {"format": "pt"})


LAYOUTS = {
    "dictionary_learning": Layout("ae.pt", "config.json", dictionary_learning.read, dictionary_learning.write,
                                  open_torch, torch_bytes),
    "saelens": Layout("sae_weights.safetensors", "cfg.json", saelens.read, saelens.write, open_safetensors,
                      _safetensors),
    "sparsify": Layout("sae.safetensors", "cfg.json", sparsify.read, sparsify.write, open_safetensors, _safetensors),
}


def read_dictionary(
    folder: str | Path, *, site: str = "", layer: int | None = None, target: tuple[str, int] | None = None,
    scale: float | None = None, unit_norm: bool = False,
) -> Dictionary:
    """A dictionary of dictionary_learning, SAELens or sparsify; the files in the folder tell which.

    Nothing in the files is executed, and torch is not needed. Weights become float32.

    Args:
        folder: of one dictionary; of sparsify, of one hookpoint.
        site, layer: where it reads, if the files do not say it or name a place that is no site of ours (one head, a
            model processed by TransformerLens, an `mlp` that may hold the residual stream).
        target: (site, layer) that a transcoder writes, likewise.
        scale: what activations are multiplied by first, where SAELens keeps that number elsewhere
            (`normalize_activations` "expected_average_only_in"); it becomes part of the weights.
        unit_norm: rows of the decoder get norm 1 and latents their norms, exactly the same reconstruction; not for
            kinds with a top k, whose latents would be others.

    Raises:
        InputError: files are missing, damaged or contradict each other, hold an option that we do not honour, or do
            not say where the dictionary reads.

    >>> import tempfile
    >>> from xlingjax.sae.coder import init_dictionary
    >>> from xlingjax.sae.config import DictionaryConfig
    >>> config = DictionaryConfig("topk", 8, 32, k=3)
    >>> one = Dictionary(init_dictionary(config, jax.random.key(0)), config, "resid", 2)
    >>> with tempfile.TemporaryDirectory() as home:
    ...     write_dictionary(one, Path(home) / "layers.2", "sparsify")
    ...     again = read_dictionary(Path(home) / "layers.2")
    >>> again.config == config, again.site, again.layer
    (True, 'resid', 2)
    """
    folder = Path(folder)
    name, layout = _recognised(folder)
    settings = Settings(read_json(folder / layout.settings), folder / layout.settings)
    tensors = Tensors(layout.open(folder / layout.weights), settings.path)
    found = layout.read(settings, tensors)
    tensors.finish()
    params, config = found.params, found.config
    if found.waits and scale is None:
        raise InputError(f"normalize_activations in {settings.path} is {saelens.WAITING!r}, whose number the files do "
                         "not hold; give it as scale=, or 1 if it has been folded into the weights")
    if scale is not None:
        if not scale > 0 or not np.isfinite(scale):
            raise InputError(f"scale is {scale}; give the positive number that activations are multiplied by")
        params = folding.scaled_input(params, scale)
    if unit_norm:
        params = folding.unit_norm(params, config)
    place, goal, fingerprint = _places(settings, found, site, layer, target)
    values = {key: value for key, value in settings.values.items() if key != OURS}
    return Dictionary(jax.tree.map(jnp.asarray, params), config, *place, target=goal, model=found.model,
                      fingerprint=fingerprint, about={"layout": name, "settings": values})


def write_dictionary(dictionary: Dictionary, folder: str | Path, layout: str) -> None:
    """Writes a dictionary as another toolkit reads it.

    The settings come last, and without them the folder holds no dictionary, so it holds a whole one or none. A
    threshold that stands for a batch is written to SAELens as JumpReLU, as SAELens does. Where it reads is kept beside
    the toolkit's own name for it.

    Args:
        folder: made if it does not exist. sparsify takes its name for the hookpoint, as in "layers.5".
        layout: "dictionary_learning", "saelens" or "sparsify".

    Raises:
        InputError: the layout cannot hold this kind of dictionary, or the folder holds one.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is unknown; choose among {', '.join(LAYOUTS)}")
    folder, kind = Path(folder), LAYOUTS[layout]
    if (folder / kind.settings).exists():
        raise InputError(f"{folder} holds a {kind.settings} already; choose another folder")
    host = Dictionary(jax.tree.map(np.asarray, dictionary.params), dictionary.config, dictionary.site, dictionary.layer,
                      dictionary.target, dictionary.model, dictionary.fingerprint)
    tensors, settings = kind.write(host)
    settings[OURS] = {"site": host.site, "layer": host.layer, "fingerprint": host.fingerprint,
                      "target": None if host.target is None else list(host.target)}
    write_whole(folder / kind.weights, kind.packed(tensors))
    write_whole(folder / kind.settings, json.dumps(settings, indent=1).encode())


def _recognised(folder: Path) -> tuple[str, Layout]:
    for name, layout in LAYOUTS.items():
        if (folder / layout.weights).exists():
            return name, layout
    inside = sorted(str(path.parent.relative_to(folder)) for layout in LAYOUTS.values()
                    for path in folder.glob(f"*/{layout.weights}")) if folder.is_dir() else []
    raise InputError(f"{folder} holds no dictionary: none of "
                     f"{', '.join(layout.weights for layout in LAYOUTS.values())} is there; give " + (
                         f"one of its folders ({', '.join(inside[:8])})" if inside else "the folder that does"))


def _places(
    settings: Settings, found: Found, site: str, layer: int | None, target: tuple[str, int] | None,
) -> tuple[Place, Place | None, str]:
    """Where it reads and writes, by the caller, by our own entry, or by the toolkit's name for it; a fingerprint."""
    ours = settings.inside(OURS, optional=True)
    kept, goal = found.place, found.target
    if ours.values.get("site"):
        kept = Place(ours.text("site"), ours.whole("layer"))
        written = ours.values.get("target")
        goal = None if written is None else _place(written, f"target in {settings.path}")
    if site or layer is not None:
        kept = _place((site, layer), "site and layer")
    if target is not None:
        goal = _place(target, "target")
    if kept is None:
        raise InputError(
            f"{settings.path} reads {found.named or 'a place that it does not name'}, which is no site that we know; "
            "give site= and layer=")
    if found.writes and goal is None and not ours.values.get("site"):
        raise InputError(f"{settings.path} is of a transcoder and does not say in our terms where it writes; give "
                         "target=(site, layer)")
    return kept, goal, ours.text("fingerprint", default="")


def _place(given: Any, what: str) -> Place:
    if (not isinstance(given, (tuple, list)) or len(given) != 2 or not isinstance(given[0], str) or not given[0]
            or isinstance(given[1], bool) or not isinstance(given[1], int) or given[1] < 0):
        raise InputError(f"{what} is {given!r}; give a site and the number of a layer")
    return Place(given[0], given[1])
