"""Dictionaries of sparsify: one folder a hookpoint, named after it, with `sae.safetensors` and `cfg.json`."""

from pathlib import Path
from typing import Any

import numpy as np

from xlingjax.errors import InputError
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.files.folding import recentred
from xlingjax.sae.files.places import of_module
from xlingjax.sae.files.reading import Found, Settings, Tensors


def read(settings: Settings, tensors: Tensors) -> Found:
    settings.refuse("activation", "topk")
    settings.refuse("signed")
    d = settings.whole("d_in")
    m = settings.whole("num_latents", default=0) or d * settings.whole("expansion_factor")
    skip, writes = settings.flag("skip_connection", default=False), settings.flag("transcode", default=False)
    take = tensors.take
    params: dict[str, Any] = {"encoder": {"kernel": take("encoder.weight", m, d).T, "bias": take("encoder.bias", m)},
                              "decoder": {"kernel": take("W_dec", m, d), "bias": take("b_dec", d)}}
    if skip:
        params["skip"] = take("W_skip", d, d).T
    config = DictionaryConfig("topk", d, m, k=settings.whole("k"), centred=not writes, skip=skip)
    named = hookpoint(settings.path.parent)
    return Found(params, config, of_module(named, reads=writes), named, of_module(named) if writes else None, writes)


def hookpoint(folder: Path) -> str:
    """The module that a folder is named after."""
    return folder.resolve().name


def write(dictionary: Dictionary) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    config = dictionary.config
    if config.kind != "topk":
        raise InputError(f"sparsify has topk dictionaries, and this one is {config.kind}; write it as 'saelens' or "
                         "'dictionary_learning'")
    if config.out != config.inputs:
        raise InputError(f"sparsify's transcoders write as many units as they read, and this one reads {config.inputs} "
                         f"and writes {config.out}; sparsify cannot hold it")
    writes = dictionary.target is not None
    params = recentred(dictionary.params, config, not writes)
    encoder, decoder = params["encoder"], params["decoder"]
    tensors = {"encoder.weight": encoder["kernel"].T, "encoder.bias": encoder["bias"], "W_dec": decoder["kernel"],
               "b_dec": decoder["bias"], **({"W_skip": params["skip"].T} if config.skip else {})}
    settings = {"activation": "topk", "expansion_factor": 1, "normalize_decoder": True, "num_latents": config.latents,
                "k": config.k, "multi_topk": False, "skip_connection": config.skip, "transcode": writes,
                "d_in": config.inputs}
    return {name: np.ascontiguousarray(values, np.float32) for name, values in tensors.items()}, settings
