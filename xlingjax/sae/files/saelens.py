"""Dictionaries of SAELens: `sae_weights.safetensors` and `cfg.json`, of releases before and since 6.0.

Dictionaries trained by top k of a batch are there stored as JumpReLU with one threshold, which they are read and
written as; checkpoints of such a training (`topk_threshold`) are read too.
"""

from typing import Any

import numpy as np

from xlingjax.errors import InputError
from xlingjax.sae.config import THRESHOLD_KINDS, DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.files.folding import recentred
from xlingjax.sae.files.places import Place, hook_of, of_hook
from xlingjax.sae.files.reading import Found, Settings, Tensors

ARCHITECTURES = {
    "standard": "relu", "gated": "gated", "topk": "topk", "jumprelu": "jumprelu", "batchtopk": "batch_topk",
    "matryoshka_batchtopk": "matryoshka", "transcoder": "relu", "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu",
}
WAITING = "expected_average_only_in"  # activations times a number that is kept elsewhere
RELEASE = "6.0.0"  # of the spelling that we write
# TransformerLens then takes the mean over units from every activation, or folds norms into what reads them.
PROCESSING = ("center_writing_weights", "fold_ln", "fold_value_biases", "refactor_factored_attn_matrices")


def read(settings: Settings, tensors: Tensors) -> Found:
    architecture = settings.text("architecture", default="standard")
    activation = settings.text("activation_fn", "activation_fn_str", default="relu")
    options = settings.inside("activation_fn_kwargs", optional=True)
    if architecture == "standard" and activation == "topk":
        architecture = "topk"  # before 6.0
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture in {settings.path} is {architecture!r}, which is not supported; "
                         f"{', '.join(ARCHITECTURES)} are")
    settings.refuse("activation_fn", "relu", *(["topk"] if architecture == "topk" else []))
    settings.refuse("activation_fn_str", "relu", *(["topk"] if architecture == "topk" else []))
    settings.refuse("finetuning_scaling_factor")
    settings.refuse("normalize_activations", "none", WAITING, True)
    settings.refuse("reshape_activations", "none", "hook_z")
    kind, writes = ARCHITECTURES[architecture], architecture.endswith("transcoder")
    d, m = settings.whole("d_in"), settings.whole("d_sae")
    out = settings.whole("d_out") if writes else d
    take = tensors.take
    params: dict[str, Any] = {
        "encoder": {"kernel": take("W_enc", d, m), "bias": take("b_gate" if kind == "gated" else "b_enc", m)},
        "decoder": {"kernel": take("W_dec", m, out), "bias": take("b_dec", out)}}
    if kind == "gated":
        params |= {"log_scale": take("r_mag", m), "magnitude_bias": take("b_mag", m)}
    if kind == "jumprelu":
        params["threshold"] = take("threshold", m)
    if kind in THRESHOLD_KINDS:
        params["threshold"] = take("topk_threshold")
    skip = "skip" in architecture
    if skip:
        params["skip"] = take("W_skip", out, d).T
    if "scaling_factor" in tensors and not (take("scaling_factor", m) == 1).all():
        raise InputError(f"{tensors.file.path} holds 'scaling_factor' of a finetuning, which is not supported; use the "
                         "dictionary from before it")
    k, groups = 0, tuple[int, ...]()
    if kind in ("topk", *THRESHOLD_KINDS):
        k = (settings if settings.values.get("k") is not None else options).whole("k")
    if kind == "matryoshka":
        groups = settings.wholes("matryoshka_widths")
        groups += () if groups[-1:] == (m,) else (m,)
    centred = not writes and settings.flag("apply_b_dec_to_input", default=True)
    config = DictionaryConfig(kind, d, m, out if out != d else 0, k, groups, centred, skip)
    if kind in ("topk", *THRESHOLD_KINDS) and settings.flag(
            "rescale_acts_by_decoder_norm", default=kind != "topk"):
        # Latents are chosen, and compared with the threshold, after they are multiplied by these norms.
        norm = np.linalg.norm(params["decoder"]["kernel"], axis=1)
        encoder, decoder = params["encoder"], params["decoder"]
        params["encoder"] = {"kernel": encoder["kernel"] * norm, "bias": encoder["bias"] * norm}
        params["decoder"] = {**decoder, "kernel": decoder["kernel"] / np.where(norm > 0, norm, 1)[:, None]}
    about = settings.inside("metadata", optional=True)
    model = about.text("model_name", default=settings.text("model_name", default=""))
    named = _hook(settings, about, "hook_name", "hook_point")
    target = _hook(settings, about, "hook_name_out")
    whole_model = not any(_processed(one) for one in (settings, about))
    heads = all(one.values.get(name) is None for one in (settings, about)
                for name in ("hook_head_index", "hook_point_head_index", "hook_head_index_out"))
    known = whole_model and heads
    return Found(params, config, of_hook(named, model) if known else None, named,
                 of_hook(target, model) if known else None, writes, model,
                 settings.values.get("normalize_activations") in (WAITING, True))


def _hook(settings: Settings, about: Settings, *names: str) -> str:
    return about.text(*names, default=settings.text(*names, default=""))


def _processed(settings: Settings) -> bool:
    options = settings.values.get("model_from_pretrained_kwargs") or {}
    return isinstance(options, dict) and any(options.get(name) for name in PROCESSING)


def write(dictionary: Dictionary) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    config = dictionary.config
    writes = config.skip or config.out != config.inputs or dictionary.target is not None
    kind = "jumprelu" if config.kind in THRESHOLD_KINDS else config.kind
    if writes and kind not in ("relu", "jumprelu"):
        raise InputError(f"SAELens has no {config.kind} transcoder; it has relu and jumprelu ones")
    params = recentred(dictionary.params, config, config.centred and not writes)
    encoder, decoder = params["encoder"], params["decoder"]
    tensors = {"W_enc": encoder["kernel"], "W_dec": decoder["kernel"], "b_dec": decoder["bias"]}
    tensors["b_gate" if kind == "gated" else "b_enc"] = encoder["bias"]
    if kind == "gated":
        tensors |= {"r_mag": params["log_scale"], "b_mag": params["magnitude_bias"]}
    if kind == "jumprelu":
        tensors["threshold"] = np.broadcast_to(np.asarray(params["threshold"]), (config.latents,))
    if config.skip:
        tensors["W_skip"] = params["skip"].T
    architecture = ("standard" if kind == "relu" else kind) if not writes else "_".join(
        (["jumprelu"] if kind == "jumprelu" else []) + (["skip"] if config.skip else []) + ["transcoder"])
    hooks = {"hook_name": hook_of(Place(dictionary.site, dictionary.layer)),
             "hook_name_out": hook_of(Place(*dictionary.target)) if dictionary.target else ""}
    settings = {
        "architecture": architecture, "d_in": config.inputs, "d_sae": config.latents, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": config.centred and not writes, "normalize_activations": "none",
        "reshape_activations": "hook_z" if dictionary.site == "attn.heads" else "none",
        **({"d_out": config.out} if writes else {}),
        **({"k": config.k, "rescale_acts_by_decoder_norm": False} if kind == "topk" else {}),
        "metadata": {"sae_lens_version": RELEASE, "model_name": dictionary.model or None,
                     **{name: hook for name, hook in hooks.items() if hook}},
    }
    return {name: np.asarray(values, np.float32) for name, values in tensors.items()}, settings
