"""`load_model` and `save_model`: whole models from folders, the hub, and our own checkpoints."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlingjax import hosts
from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import family_of
from xlingjax.models.hub import resolve
from xlingjax.models.model import Model
from xlingjax.models.placing import abstract_params, placement_of, require_room, without_padding
from xlingjax.models.tokenizer import load_tokenizer, require_fit
from xlingjax.models.weights import LoadedParams, fingerprint_params, load_params, open_checkpoint
from xlingjax.models.weights.files import read_json, write_json
from xlingjax.models.weights.fingerprint import leaf_name
from xlingjax.sharding import Placement

MANIFEST = "xlingjax.json"
PARAMS = "params"
FORMAT = 1
DTYPES = ("float32", "bfloat16", "float16", "float64")


def load_model(
    name_or_folder: str | Path,
    revision: str | None = None,
    subfolder: str | None = None,
    dtype: str = "float32",
    mesh: jax.sharding.Mesh | None = None,
    tokenizer: Any = None,
) -> Model:
    """A model with its weights: from the hub, a folder, or a checkpoint of our own.

    Of an encoder-decoder it is the encoder; `models.pair.load_pair` loads both halves.

    Args:
        name_or_folder: `owner/name` on the hub, or a folder. A folder with everything in it needs
            no connection.
        revision: tag, branch or commit; of a folder, the checkpoint of that name in it.
        subfolder: where in the revision the checkpoint lies.
        dtype: of the parameters and of the forward pass: `"float32"`, `"bfloat16"`, `"float16"` or
            `"float64"` (with JAX_ENABLE_X64=1).
        mesh: parameters are split over it by the rules of `xlingjax.sharding` and go straight to
            their devices; None: all of them on the default device.
        tokenizer: another folder or repository to take it from, or a tokenizer. By default the one
            beside the weights; a model without one loads, and says so when it is given text.

    Nothing that comes with a checkpoint is executed. Weights are strict both ways: a tensor that is
    missing, unexpected, or of another shape or type is an error; NaN and infinity are counted in
    `model.health`.

    Errors: `InputError` naming what is not there, not supported, damaged, does not fit, or is larger
        than a device.
    """
    check_dtype(dtype)
    folder = resolve(name_or_folder, revision, subfolder)
    name = str(name_or_folder) + (f"@{revision}" if revision else "")
    name += f"/{subfolder}" if subfolder else ""

    if (folder / MANIFEST).exists() or (folder / PARAMS).exists():
        family, config, loaded = _load_own(folder, dtype, mesh)
    else:
        family, config, loaded = _load_foreign(folder, dtype, mesh)
    chosen = tokenizer_of(folder, tokenizer, config.vocab_size, name)
    return Model(
        loaded.params, config, chosen, loaded.fingerprint, name, family, health=loaded.health
    )


def tokenizer_of(folder: Path, tokenizer: Any, vocab_size: int, name: str) -> Any:
    """The tokenizer beside the weights in `folder`, or the one that is named; None where there is none.

    Errors: `InputError` where a named one is not there, or gives ids that the model lacks.
    """
    chosen, where = tokenizer, type(tokenizer).__name__
    if tokenizer is None or isinstance(tokenizer, str | Path):
        where = name if tokenizer is None else str(tokenizer)
        source = folder if tokenizer is None else resolve(tokenizer, weights=False)
        chosen = load_tokenizer(source)
        if chosen is None and tokenizer is not None:
            raise InputError(
                f"{tokenizer} holds no tokenizer; give a folder or repository that does"
            )
    if chosen is not None:
        require_fit(chosen, vocab_size, where)
    return chosen


def save_model(model: Model, folder: str | Path) -> None:
    """Writes a checkpoint that `load_model` reads: parameters (Orbax), tokenizer, and a manifest.

    The folder appears under its name when everything in it is on disk; a write that was broken off
    leaves a folder that `load_model` refuses.

    Errors: `InputError` where the folder exists and is not empty.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another folder, or remove it")
    part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write(model, part)
        os.replace(part, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(model: Model, folder: Path) -> None:
    import orbax.checkpoint as ocp

    params = without_padding(model.params, model.config)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / PARAMS, params)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(str(folder))
    for path in folder.rglob("*"):
        _sync(path)
    libraries = ("jax", "flax", "orbax-checkpoint")
    manifest = {
        "format": FORMAT,
        "family": model.family,
        "config": model.config.to_dict(),
        "dtype": str(jax.tree.leaves(model.params)[0].dtype),
        "fingerprint": model.fingerprint or fingerprint_params(params),
        "files": _file_hashes(folder),
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }
    write_json(folder / MANIFEST, manifest | {"sha256": _sha256(manifest)})
    _sync(folder / MANIFEST)
    _sync(folder)


def _load_foreign(
    folder: Path, dtype: str, mesh: jax.sharding.Mesh | None
) -> tuple[str, TransformerConfig, LoadedParams]:
    if not (folder / "config.json").is_file():
        inner = folder / "checkpoints"
        steps = ", ".join(sorted(path.name for path in inner.iterdir())) if inner.is_dir() else ""
        remedy = f"give revision=, one of {steps}" if steps else "give the folder of a checkpoint"
        raise InputError(f"{folder} holds no config.json; {remedy}")
    hf = read_json(folder / "config.json")
    family = family_of(hf)
    config = family.read_config(hf)
    require_room(config, dtype, mesh, str(folder))
    loaded = load_params(
        open_checkpoint(folder),
        family.entries(config),
        abstract_params(config, dtype),
        dtype,
        None if mesh is None else placement_of(config, mesh).put,
        prefixes=family.prefixes,
        unused=family.unused,
        spellings=family.spellings,
        vocab_size=config.vocab_size,
    )
    return family.name, config, loaded


def _load_own(
    folder: Path, dtype: str, mesh: jax.sharding.Mesh | None
) -> tuple[str, TransformerConfig, LoadedParams]:
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"{folder} is unfinished: it has no {MANIFEST}, which is written last; use another "
            "checkpoint, or write this one again"
        )
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST} has the format {manifest.get('format')!r} and not {FORMAT}; load "
            "it with the version of xlingjax that wrote it"
        )
    digest = manifest.pop("sha256", None)
    if digest != _sha256(manifest):
        raise InputError(f"{folder / MANIFEST} is damaged or edited; use another checkpoint")
    found = _file_hashes(folder)
    for file, expected in manifest["files"].items():
        if found.get(file) != expected:
            what = "damaged" if file in found else "missing"
            raise InputError(f"{folder / file} is {what}; use another checkpoint")
    family, fingerprint = manifest["family"], manifest["fingerprint"]
    config = TransformerConfig.from_dict(manifest["config"])
    require_room(config, manifest["dtype"], mesh, str(folder))
    place = None if mesh is None else placement_of(config, mesh)
    params = _restore(folder / PARAMS, abstract_params(config, manifest["dtype"]), place)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    return family, config, LoadedParams(params, fingerprint, _not_finite(params))


def _restore(path: Path, target: Any, place: Placement | None) -> Any:
    """Parameters from disk to their devices; those that are padded go by way of the host."""
    import orbax.checkpoint as ocp

    def wanted(leaf_path: Any, leaf: jax.ShapeDtypeStruct) -> Any:
        if place is None:
            sharding: Any = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        elif place.padded(leaf_name(leaf_path), leaf.shape) != leaf.shape:
            return np.empty(leaf.shape, leaf.dtype)
        else:
            sharding = place.sharding(leaf_name(leaf_path), leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    target = jax.tree_util.tree_map_with_path(wanted, target)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(path.absolute(), target)
    except Exception as error:  # Orbax raises whatever its layers raise
        raise InputError(
            f"{path} cannot be restored ({type(error).__name__}: {str(error)[:200]}); use "
            "another checkpoint"
        ) from error
    if place is None:
        return restored
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: place.put(leaf_name(path), leaf) if isinstance(leaf, np.ndarray) else leaf,
        restored,
    )


def _file_hashes(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file but the manifest."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            hashes[path.relative_to(folder).as_posix()] = digest
    return hashes


def _sha256(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _not_finite(params: Any) -> dict[str, int]:
    """Tensor -> its numbers that are NaN or infinite, where there are any; each layer is one tensor."""
    health = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = leaf_name(path)
        stacked = name.startswith("layers/")
        counts = hosts.to_host(jnp.sum(~jnp.isfinite(leaf), axis=tuple(range(stacked, leaf.ndim))))
        for layer, bad in enumerate(np.atleast_1d(counts).tolist()):
            if bad:
                health[f"{name}[{layer}]" if stacked else name] = bad
    return health


def check_dtype(dtype: Any) -> None:
    """`InputError` for a type of parameters that is unknown or that JAX is not set up for."""
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; choose one of {', '.join(map(repr, DTYPES))}")
    if dtype == "float64" and jnp.zeros(0).dtype != "float64":
        raise InputError(
            "dtype is 'float64' while JAX keeps 32 bits; set JAX_ENABLE_X64=1 or use 'float32'"
        )


def _sync(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
