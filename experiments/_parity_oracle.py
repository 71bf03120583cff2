"""The oracle: Hugging Face's models on torch, read at every site by hooks."""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from experiments._parity_cases import Case
from xlingjax.models import forward, unembed
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import Entry, family_of
from xlingjax.models.taps import site_shapes

TorchModel = Any  # torch.nn.Module, whose attributes a type checker takes for tensors


class _Float64Torch:
    """The torch module as a family file sees it, with float64 in the place of float32."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """In float64, lift what Hugging Face keeps in float32: softmax, slopes, sinusoids."""
    if dtype != "float64":
        yield
        return
    tensor: Any = torch.Tensor
    modules: list[Any] = [importlib.import_module("transformers.modeling_rope_utils"), *(
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        for family in ("bloom", "xglm", "xlm_roberta", "roberta", "bert", "gpt2", "gpt_neox", "llama", "mistral",
                       "qwen2", "qwen3", "cohere", "olmo", "olmo2"))]  # fmt: skip
    to_float = tensor.float
    try:
        torch.set_default_dtype(torch.float64)
        tensor.float = tensor.double
        for module in modules:
            module.torch = _Float64Torch()
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        tensor.float = to_float
        for module in modules:
            module.torch = torch


def build(case: Case, seed: int = 0) -> TorchModel:
    """The random model of a case; no bias is 0 and no norm 1, so that none can be left out."""
    config = getattr(transformers, case.config)(**case.options, attn_implementation="eager")
    model = getattr(transformers, case.model)(config).eval()
    config.architectures = [case.model]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim == 1:
                value = 0.3 * noise + (1.0 if "norm" in name.lower() or "ln_" in name else 0.0)
                value = 0.3 * noise if name.endswith("bias") else value
            else:
                value = noise * (0.3 if "embed" in name else parameter.shape[1] ** -0.5)
            parameter.copy_(value)
    return model


def our_params(model: TorchModel, dtype: str) -> tuple[TransformerConfig, dict[str, Any]]:
    """Config and parameters of ours from the oracle's, by the family's own tables."""
    family = family_of(model.config.to_dict())
    config = family.read_config(model.config.to_dict())
    tensors = {name: x.detach().float().numpy() for name, x in model.state_dict().items()}
    params: dict[str, Any] = {}
    for entry in family.entries(config):
        *path, leaf = entry.ours.split("/")
        node = params
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = jnp.asarray(_tensor(entry, tensors, config.layers), dtype)
    return config, params


def _tensor(entry: Entry, tensors: dict[str, np.ndarray], layers: int) -> np.ndarray:
    def one(name: str) -> np.ndarray:
        return tensors[name].T if entry.transpose else tensors[name]

    if "{layer}" not in entry.theirs:
        return one(entry.theirs)
    return np.stack([one(entry.theirs.format(layer=i)) for i in range(layers)])


@dataclasses.dataclass
class Oracle:
    """Everything the oracle holds for one batch: site -> `[L, ...]`, hidden, logits."""

    sites: dict[str, np.ndarray]
    hidden: np.ndarray
    logits: np.ndarray


def run(case: Case, model: TorchModel, tokens: np.ndarray, mask: np.ndarray) -> Oracle:
    """The oracle's values at every site of the case, read by hooks."""
    layers = range(model.config.num_hidden_layers)
    held: dict[str, dict[int, np.ndarray]] = {}
    hooks = []

    def hook(module: str, place: str | int, site: str, layer: int) -> None:
        def keep(_: Any, inputs: Sequence[Any], output: Any) -> None:
            value = inputs[0] if place == "in" else output if place == "out" else output[place]
            # An XGLM block returns a tensor, or a tuple that begins with it.
            value = value[0] if isinstance(value, tuple) else value
            held.setdefault(site, {})[layer] = value.detach().float().numpy().copy()  # bfloat16 as float32

        hooks.append(model.get_submodule(module).register_forward_hook(keep))

    for site, (module, place) in case.sites.items():
        for layer in layers if "{layer}" in module else (0,):
            hook(module.format(layer=layer), place, site, layer)
    hook(case.norm, "out", "hidden", 0)
    try:
        with torch.no_grad():
            out = model(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask).long())
    finally:
        for handle in hooks:
            handle.remove()
    sites = {site: np.stack([by[i] for i in sorted(by)]) for site, by in held.items()}
    hidden = sites.pop("hidden")[0]
    if "attn.qkv" in sites:
        sites |= dict(zip(("attn.q", "attn.k", "attn.v"), _split(model, sites["attn.qkv"])))
    return Oracle(sites, hidden, out.logits.float().numpy())


def _split(model: TorchModel, qkv: np.ndarray) -> Sequence[np.ndarray]:
    """attn.q, k and v as the family itself splits its fused map."""
    flat = (*qkv.shape[:-1], -1)
    match model.config.model_type:
        case "bloom":
            split = model.transformer.h[0].self_attention._reshape
            parts = [split(torch.tensor(layer)) for layer in qkv]
            return [np.stack([part[i].transpose(1, 2).numpy() for part in parts]).reshape(flat) for i in range(3)]
        case "gpt2":
            return [part.numpy() for part in torch.tensor(qkv).split(model.config.hidden_size, dim=-1)]
        case "gpt_neox":
            heads = torch.tensor(qkv).view(*qkv.shape[:-1], model.config.num_attention_heads, -1)
            return [part.numpy().reshape(flat) for part in heads.chunk(3, dim=-1)]
    raise ValueError(model.config.model_type)


def bloom_gelu(x: np.ndarray) -> np.ndarray:
    """BLOOM's own activation."""
    from transformers.models.bloom.modeling_bloom import bloom_gelu_forward

    return bloom_gelu_forward(torch.tensor(x)).numpy()


def batch_of(
    model: TorchModel, length: int, shorter: int = 0, side: str = "right"
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask of two rows, the second `shorter` tokens short, with the padding id under the mask."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, model.config.vocab_size, (2, length))
    mask = np.ones((2, length), bool)
    if shorter:
        mask[1, :shorter] = False
        mask = mask if side == "left" else mask[:, ::-1].copy()
    return np.where(mask, tokens, model.config.pad_token_id), mask


class Pair(NamedTuple):
    """What both hold of the real tokens of a batch; zero in a pattern where either token is padding."""

    ours: np.ndarray
    theirs: np.ndarray


def both(case: Case, dtype: str, length: int, shorter: int = 0, side: str = "right") -> dict[str, Pair]:
    """Every site of a case, "hidden" and "logits", as we compute them and as Hugging Face does."""
    with precision(dtype), jax.enable_x64(dtype == "float64"):
        model = build(case).to(getattr(torch, dtype))
        tokens, mask = batch_of(model, length, shorter, side)
        theirs = run(case, model, tokens, mask)
        config, params = our_params(model, dtype)
        sites = tuple(site_shapes(config))
        if set(theirs.sites) != set(sites):
            raise ValueError(f"{case}: sites differ in {set(theirs.sites) ^ set(sites)}")
        with jax.numpy_dtype_promotion("strict"):
            step = jax.jit(lambda p, t, m: forward(p, config, t, m, capture=sites))
            hidden, captured = step(params, jnp.asarray(tokens), jnp.asarray(mask))
            logits = unembed(params, config, hidden)
    seen = mask[:, None, :, None] & mask[:, None, None, :]
    out = {"hidden": Pair(np.asarray(hidden)[mask], theirs.hidden[mask]),
           "logits": Pair(np.asarray(logits)[mask], theirs.logits[mask])}  # fmt: skip
    for site in sites:
        values = (np.asarray(captured[site]), theirs.sites[site])
        cut = [np.where(seen, x, 0) if site == "attn.pattern" else x[:, mask] for x in values]
        out[site] = Pair(*cut)
    return out
