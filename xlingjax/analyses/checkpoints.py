"""One experiment at every checkpoint: each one computed once, kept, and read back."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xlingjax import hosts
from xlingjax.analyses.finished import RESULT, is_finished, record, recorded, sign
from xlingjax.analyses.results import read_tree, write_tree
from xlingjax.analyses.sources import Source, load_source
from xlingjax.errors import InputError
from xlingjax.files import locked
from xlingjax.models import Model
from xlingjax.models.hub import require_revisions

Datasets = dict[str, xr.Dataset]


def over_checkpoints(
    sources: Sequence[Source], folder: Path, make: Callable[[Model, Path], Mapping[str, xr.Dataset]], dtype: str,
    tokenizer: Any = None, say: Callable[[int, Source, Datasets], None] | None = None,
    require: Callable[[Model], None] | None = None,
) -> list[Datasets]:
    """What `make` says of each checkpoint; killed and called again, it goes on with the one it was at.

    One checkpoint is freed before the next is loaded; one that is finished is not loaded.

    Args:
        folder: held by the caller (`files.claim`); each checkpoint has a folder in it.
        make: from the model and its folder to datasets by name.
        dtype: of the forward pass.
        tokenizer: folder or repository of the tokenizer, where the checkpoints bring none.
        say: told of each one as it is known.
        require: raises where a model does not fit, before anything is made in `folder`.
    """
    for name in {source.name for source in sources}:
        require_revisions(name, [(one.revision, one.subfolder) for one in sources
                                 if one.name == name and recorded(folder / one.label) is None])
    found = []
    for number, source in enumerate(sources):
        load = functools.cache(functools.partial(load_source, source, dtype, tokenizer=tokenizer))
        home = folder / source.label
        if not hosts.agreed(is_finished(home, source, tokenizer, load)):
            signed = sign(source, tokenizer)
            model = load()
            if require is not None:
                require(model)
            with contextlib.ExitStack() as held:
                held.enter_context(locked(home))
                write_tree(home / RESULT, make(model, home))
                record(home, source, signed, model)
        found.append(read_tree(home / RESULT))  # also what was just made, so that a resumed run cannot differ
        if say is not None:
            say(number, source, found[-1])
    return found


def join_checkpoints(found: Sequence[Mapping[str, xr.Dataset]], sources: Sequence[Source]) -> Datasets:
    """Datasets of the same name joined along `checkpoint`; attributes on which checkpoints differ are dropped.

    Raises:
        InputError: the checkpoints are of models with other numbers of layers, which do not join.
    """
    depths = sorted({one.sizes["layer"] for made in found for one in made.values() if "layer" in one.sizes})
    if len(depths) > 1:
        raise InputError(
            f"the checkpoints have {' and '.join(map(str, depths))} layers; take models of one shape together")
    return {name: xr.concat(
        [made[name] for made in found], "checkpoint", join="exact", combine_attrs="drop_conflicts", coords="minimal",
        compat="override", data_vars="all").assign_coords(checkpoint_coordinates(sources)) for name in found[0]}


def checkpoint_coordinates(sources: Sequence[Source]) -> dict[str, Any]:
    """Labels of the checkpoints, and steps and tokens seen where they are known."""
    known = lambda values: ("checkpoint", [np.nan if value is None else value for value in values])
    return {"checkpoint": [source.label for source in sources], "step": known([one.step for one in sources]),
            "tokens_seen": known([one.tokens for one in sources])}
