"""Dictionaries of the library dictionary_learning: `ae.pt`, a torch state dict, and `config.json`.

`trainer.dict_class` says which kind it is. Standard autoencoders are read with decoder rows of norm 1, as their own
loader makes them.
"""

from typing import Any

import numpy as np

from xlingjax.errors import InputError
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.files.folding import recentred, unit_norm
from xlingjax.sae.files.places import Place, label_of, of_label
from xlingjax.sae.files.reading import Found, Settings, Tensors

CLASSES = ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE",
           "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")
K_CLASSES = {"AutoEncoderTopK": "topk", "BatchTopKSAE": "batch_topk", "MatryoshkaBatchTopKSAE": "matryoshka"}
UNTRAINED = -1.0  # their threshold before one was measured: every positive latent passes, as with 0


def read(settings: Settings, tensors: Tensors) -> Found:
    trainer = settings.inside("trainer")
    kind = trainer.text("dict_class")
    if kind not in CLASSES:
        raise InputError(f"dict_class in {settings.path} is {kind!r}, which is not supported; "
                         f"{', '.join(CLASSES)} are")
    d, m = trainer.whole("activation_dim"), trainer.whole("dict_size")
    take = tensors.take
    if kind in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        encoder = {"kernel": take("W_enc", d, m), "bias": take("b_enc", m)}
        decoder = {"kernel": take("W_dec", m, d), "bias": take("b_dec", d)}
    else:
        gate, centre = {"AutoEncoder": ("encoder.bias", "bias"), "GatedAutoEncoder": ("gate_bias", "decoder_bias"),
                        "AutoEncoderNew": ("encoder.bias", "decoder.bias")}.get(kind, ("encoder.bias", "b_dec"))
        encoder = {"kernel": take("encoder.weight", m, d).T, "bias": take(gate, m)}
        decoder = {"kernel": take("decoder.weight", d, m).T, "bias": take(centre, d)}
    params: dict[str, Any] = {"encoder": encoder, "decoder": decoder}
    config = DictionaryConfig("relu", d, m, centred=kind == "AutoEncoder")
    if kind == "AutoEncoder":
        params = unit_norm(params, config)
    elif kind == "GatedAutoEncoder":
        config = DictionaryConfig("gated", d, m)
        params |= {"log_scale": take("r_mag", m), "magnitude_bias": take("mag_bias", m)}
    elif kind == "JumpReluAutoEncoder":
        config = DictionaryConfig("jumprelu", d, m, centred=False)
        params["threshold"] = take("threshold", m)
    elif kind in K_CLASSES:
        k = int(tensors.wholes("k"))
        said = trainer.whole("k", default=k)
        if said != k:
            raise InputError(f"k in {settings.path} is {said} and in {tensors.file.path} {k}; take the two files that "
                             "belong together")
        threshold, groups = take("threshold"), ()
        if kind == "MatryoshkaBatchTopKSAE":
            sizes = tensors.wholes("group_sizes", tensors.length("group_sizes"))
            groups = tuple(np.cumsum(sizes).tolist())
        config = DictionaryConfig(K_CLASSES[kind], d, m, k=k, groups=groups)
        if kind != "AutoEncoderTopK":  # there it is only for those who wish no top k
            params["threshold"] = threshold
    named = trainer.text("submodule_name", default="")
    buffer = settings.inside("buffer", optional=True)
    place = of_label(named) if buffer.text("io", default="out") == "out" else None
    if named == "resid_post" and "layer" in trainer.values:
        place = Place("resid", trainer.whole("layer"))
    return Found(params, config, place, named, model=trainer.text("lm_name", default=""))


def write(dictionary: Dictionary) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    config = dictionary.config
    if config.skip or config.out != config.inputs or dictionary.target is not None:
        raise InputError("dictionary_learning has no transcoders; write this one as 'saelens' or 'sparsify'")
    kind = {"relu": "AutoEncoder" if config.centred else "AutoEncoderNew", "gated": "GatedAutoEncoder",
            "jumprelu": "JumpReluAutoEncoder"} | {ours: theirs for theirs, ours in K_CLASSES.items()}
    name = kind[config.kind]
    params = recentred(dictionary.params, config, name not in ("AutoEncoderNew", "JumpReluAutoEncoder"))
    encoder, decoder = params["encoder"], params["decoder"]
    tensors: dict[str, Any]
    if config.kind in ("jumprelu", "matryoshka"):
        tensors = {"W_enc": encoder["kernel"], "b_enc": encoder["bias"], "W_dec": decoder["kernel"],
                   "b_dec": decoder["bias"]}
    else:
        tensors = {"encoder.weight": encoder["kernel"].T, "decoder.weight": decoder["kernel"].T}
        tensors |= {
            "AutoEncoder": {"encoder.bias": encoder["bias"], "bias": decoder["bias"]},
            "AutoEncoderNew": {"encoder.bias": encoder["bias"], "decoder.bias": decoder["bias"]},
            "GatedAutoEncoder": {"gate_bias": encoder["bias"], "decoder_bias": decoder["bias"]},
        }.get(name, {"encoder.bias": encoder["bias"], "b_dec": decoder["bias"]})
    if config.kind == "gated":
        tensors |= {"r_mag": params["log_scale"], "mag_bias": params["magnitude_bias"]}
    if config.kind == "jumprelu":
        tensors["threshold"] = params["threshold"]
    if config.k:
        tensors |= {"k": np.int32(config.k), "threshold": params.get("threshold", np.float32(UNTRAINED))}
    sizes = np.diff((0, *config.groups)).tolist()
    if sizes:
        tensors["group_sizes"] = np.array(sizes)
    trainer = {"dict_class": name, "activation_dim": config.inputs, "dict_size": config.latents,
               "layer": dictionary.layer, "lm_name": dictionary.model or None,
               "submodule_name": label_of(Place(dictionary.site, dictionary.layer)) or None,
               **({"k": config.k} if config.k else {}), **({"group_sizes": sizes} if sizes else {})}
    return {name: np.asarray(values) for name, values in tensors.items()}, {"trainer": trainer}
