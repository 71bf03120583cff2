"""Influence as kronfluence computes it on torch: the same GPT-2, factors and pairwise scores."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments._timing import torch_device
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.gpt2 import FAMILY


def random_gpt2(torch: Any, transformers: Any, shape: tuple[int, int, int, int], longest: int, seed: int) -> Any:
    """A GPT-2 of Hugging Face with random weights; shape = layers, width, heads, vocabulary."""
    layers, width, heads, vocabulary = shape
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=heads, n_positions=longest, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)).eval()


def write_weights(torch: Any, model: Any, params: Mapping[str, Any], config: TransformerConfig) -> None:
    """Gives a GPT-2 of Hugging Face our weights."""
    held = model.state_dict()
    for entry in FAMILY.entries(config):
        values: Any = params
        for part in entry.ours.split("/"):
            values = values[part]
        for layer in range(config.layers if "{layer}" in entry.theirs else 1):
            one = np.asarray(values[layer] if "{layer}" in entry.theirs else values)
            held[entry.theirs.format(layer=layer)].copy_(torch.from_numpy(np.array(one)))


def with_linear_maps(torch: Any, transformers: Any, model: Any) -> Any:
    """The same model with torch's Linear where GPT-2 has a map of its own, which kronfluence does not know."""
    own = transformers.pytorch_utils.Conv1D
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, own):
                linear = torch.nn.Linear(*child.weight.shape)
                linear.weight.data = child.weight.data.T.contiguous()
                linear.bias.data = child.bias.data.clone()
                setattr(module, name, linear)
    return model


def _task(torch: Any, kronfluence: Any, layers: int) -> Any:
    """Next tokens of unpadded sequences, the loss summed."""

    class Task(kronfluence.task.Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            logits = model(batch).logits[:, :-1].flatten(0, 1)
            labels = batch[:, 1:].flatten()
            if sample:
                with torch.no_grad():
                    labels = torch.multinomial(logits.softmax(-1), num_samples=1).flatten()
            return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return [f"transformer.h.{layer}.mlp.{name}" for layer in range(layers) for name in ("c_fc", "c_proj")]

        def get_attention_mask(self, batch: Any) -> Any:
            mask = torch.ones_like(batch)
            mask[:, -1] = 0  # nothing is predicted there, so its input belongs to no covariance
            return mask

    return Task()


class Kronfluence:
    """Factors and scores of one model, kept in a folder.

    Args:
        model: a GPT-2 of Hugging Face with `with_linear_maps`.
        batch: sequences at once.
    """

    def __init__(self, torch: Any, kronfluence: Any, model: Any, folder: str, batch: int):
        logging.getLogger("kronfluence").setLevel(logging.WARNING)
        self.torch, self.arguments, self.batch = torch, kronfluence.arguments, batch
        task = _task(torch, kronfluence, model.config.n_layer)
        self.analyzer = kronfluence.analyzer.Analyzer(
            "benchmark", kronfluence.analyzer.prepare_model(model, task), task, cpu=torch_device(torch) == "cpu",
            disable_tqdm=True, log_level=logging.WARNING, output_dir=folder)

    def fit(self, tokens: np.ndarray, labels: str) -> None:
        """EK-FAC; labels "sampled" or "true"."""
        arguments = self.arguments.FactorArguments("ekfac", use_empirical_fisher=labels == "true")
        self.analyzer.fit_all_factors("factors", self._dataset(tokens), self.batch, factor_args=arguments,
                                      overwrite_output_dir=True)

    def scores(self, queries: np.ndarray, tokens: np.ndarray, rank: int | None = None) -> np.ndarray:
        """[Q, n], damped by 0.1 of the mean variance, of queries by their `rank` largest directions or whole."""
        arguments = self.arguments.ScoreArguments(damping_factor=None, query_gradient_low_rank=rank)
        self.analyzer.compute_pairwise_scores(
            "scores", "factors", self._dataset(queries), self._dataset(tokens), min(self.batch, len(queries)),
            self.batch, score_args=arguments, overwrite_output_dir=True)
        return self.analyzer.load_pairwise_scores("scores")["all_modules"].numpy()

    def _dataset(self, tokens: np.ndarray) -> Any:
        return list(self.torch.from_numpy(tokens.astype(np.int64)))
