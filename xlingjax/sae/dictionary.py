"""A trained dictionary with where it reads; on disk as one folder."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from xlingjax import hosts
from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.models.taps import Splice
from xlingjax.models.weights.files import read_json, require_file
from xlingjax.models.weights.fingerprint import leaf_name
from xlingjax.sae.coder import EditLatents, LatentEdit, Params, decode, encode, init_dictionary, reconstruct
from xlingjax.sae.config import DictionaryConfig

_encode, _decode, _reconstruct = (jax.jit(one, static_argnums=1) for one in (encode, decode, reconstruct))


@dataclasses.dataclass(frozen=True)
class Dictionary:
    """M directions of a site in which activations are sparse.

    Args:
        params, config: see `init_dictionary`.
        site, layer: where it reads, and where it writes unless `target` says so.
        target: (site, layer) that a transcoder writes; None = where it reads.
        model: name of the model whose activations it was trained on; fingerprint: of its weights. "" = unknown.
        about: how it was trained, JSON values.

    >>> from xlingjax.sae.coder import init_dictionary
    >>> config = DictionaryConfig("topk", 8, 32, k=3)
    >>> one = Dictionary(init_dictionary(config, jax.random.key(0)), config, "resid", 2)
    >>> one.encode(np.ones((5, 8), np.float32)).shape, one(np.ones((5, 8), np.float32)).shape
    ((5, 32), (5, 8))
    """

    params: Params = dataclasses.field(repr=False)
    config: DictionaryConfig
    site: str = ""
    layer: int = 0
    target: tuple[str, int] | None = None
    model: str = ""
    fingerprint: str = ""
    about: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def encode(self, x: Any) -> Float[Array, "... M"]:
        """The latents of activations [..., D]."""
        return _encode(self.params, self.config, self._checked(x))

    def decode(self, f: Any, x: Any = None) -> Float[Array, "... E"]:
        """The reconstruction from latents [..., M]; `x` where there is a skip path."""
        return _decode(self.params, self.config, jnp.asarray(f), None if x is None else self._checked(x))

    def __call__(self, x: Any) -> Float[Array, "... E"]:
        """What it makes of activations [..., D]."""
        return _reconstruct(self.params, self.config, self._checked(x))

    @property
    def directions(self) -> np.ndarray:
        """float[M, E]: what each latent writes."""
        return np.asarray(self.params["decoder"]["kernel"])

    def edit(self, latents: LatentEdit, where: Any = None) -> Splice:
        """A `Splice` for this layer of `site` that changes latents and leaves what they do not explain.

        Args:
            latents: `LatentEdit` with arrays that lead with [B|1].
            where: bool[B|1, T], the positions; all by default.
        """
        if self.target is not None:
            raise InputError(
                "a transcoder reads one site and writes another, so latents of a site cannot be edited by it")
        return Splice(EditLatents(self.config), self.params, self.layer, latents, where)

    def require(self, model: Any) -> None:
        """`InputError` where the model has no such site, layer or width."""
        for site, layer, width, does in ((self.site, self.layer, self.config.inputs, "reads"),
                                         (*(self.target or (self.site, self.layer)), self.config.out, "writes")):
            if site not in model.sites:
                raise InputError(f"the dictionary {does} site {site!r}, which {model.name} lacks; "
                                 f"its sites are {', '.join(model.sites)}")
            layers, units = model.neurons((site,)).shapes[site]
            if not 0 <= layer < layers:
                raise InputError(f"the dictionary {does} layer {layer} of {site!r}, and {model.name} has {layers}; "
                                 "give a dictionary of this model")
            if units != width:
                raise InputError(f"the dictionary {does} {width} units at {site!r}, and {model.name} has {units}; give "
                                 "a dictionary of this model")

    def described(self) -> str:
        """JSON of all but the parameters."""
        return json.dumps({"config": self.config.to_dict(), "site": self.site, "layer": self.layer,
                           "target": None if self.target is None else list(self.target), "model": self.model,
                           "fingerprint": self.fingerprint, "about": self.about}, indent=1, sort_keys=True)

    def _checked(self, x: Any) -> Array:
        array = jnp.asarray(x)
        if array.ndim < 1 or array.shape[-1] != self.config.inputs:
            raise InputError(f"activations are of shape {array.shape}; this dictionary reads [..., "
                             f"{self.config.inputs}]" + (f" at {self.site}, layer {self.layer}" if self.site else ""))
        return array


PARAMS, ABOUT = "dictionary.safetensors", "dictionary.json"


def save_dictionary(dictionary: Dictionary, folder: str | Path) -> None:
    """Writes a dictionary as one folder that `load_dictionary` reads; whole or not at all.

    `dictionary.safetensors` holds the parameters, float32; `dictionary.json`, without which the folder is no
    dictionary, comes last and vouches for them.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    leaves = jax.tree_util.tree_flatten_with_path(dict(dictionary.params))[0]
    tensors = {leaf_name(path): np.array(leaf, np.float32, order="C") for path, leaf in leaves}
    data = safetensors.numpy.save(tensors)
    body = {**json.loads(dictionary.described()), "sha256": hashlib.sha256(data).hexdigest()}
    if hosts.writes():
        (folder / ABOUT).unlink(missing_ok=True)  # what stands there does not belong to the new parameters
    write_whole(folder / PARAMS, data)
    write_whole(folder / ABOUT, json.dumps({"digest": _digest(body), "body": body}, indent=1, sort_keys=True).encode())


def load_dictionary(folder: str | Path) -> Dictionary:
    """Reads what `save_dictionary` wrote.

    Raises:
        InputError: a file is missing, cut short or altered, or does not hold what the other says; it is named.
    """
    folder = Path(folder)
    path, about = folder / PARAMS, folder / ABOUT
    record = read_json(about)
    body = record.get("body")
    if not isinstance(body, dict) or record.get("digest") != _digest(body):
        raise InputError(f"{about} is damaged or no dictionary of ours; save the dictionary again")
    require_file(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != body["sha256"]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {about.name}; save the dictionary again")
    config = DictionaryConfig.from_dict(body["config"])
    tensors = safetensors.numpy.load(data)
    wanted = jax.eval_shape(lambda: init_dictionary(config, jax.random.key(0)))

    def take(at: Any, leaf: Any) -> Array:
        found = tensors.pop(leaf_name(at), None)
        if found is None or found.shape != leaf.shape:
            raise InputError(f"{path} holds {'no' if found is None else f'a {found.shape}'} {leaf_name(at)!r}, and its "
                             f"config asks for {leaf.shape}; save the dictionary again")
        return jnp.asarray(found)

    params = jax.tree_util.tree_map_with_path(take, wanted)
    if tensors:
        raise InputError(f"{path} holds {', '.join(sorted(tensors))}, of which its config knows nothing; save the "
                         "dictionary again")
    target = body["target"]
    return Dictionary(params, config, body["site"], body["layer"], None if target is None else (target[0], target[1]),
                      body["model"], body["fingerprint"], body["about"])


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
