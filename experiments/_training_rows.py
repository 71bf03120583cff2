"""Training by `fit` beside Hugging Face's Trainer on torch: the same model, batches and optimiser, seconds a step."""

import dataclasses
import tempfile
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Key, PyTree

from experiments._influence_peers import random_gpt2
from experiments._machine import cores
from experiments._timing import Row, reference, torch_device
from xlingjax.models import TransformerConfig, load_model
from xlingjax.models.transformer import forward
from xlingjax.training.fitting import FitSettings, fit
from xlingjax.training.objectives import label_losses
from xlingjax.training.optimiser import OptimiserSettings

FLAGS = flags.FLAGS  # --seed, --repeats, --dtype, of `experiments.benchmark`
HIDDEN = 0.15  # of the tokens of a masked model
OPTIMISER = OptimiserSettings(1e-4, warm_up=0, schedule="linear", weight_decay=0.01, beta_2=0.999)


class Sizes(NamedTuple):
    """Layers, width, heads, vocabulary; rows and tokens of a batch, steps."""

    masked: tuple[tuple[int, int, int, int], tuple[int, int, int]]
    causal: tuple[tuple[int, int, int, int], tuple[int, int, int]]


@dataclasses.dataclass(frozen=True)
class Loss:
    """Of the labels at some places of a batch, which is tokens [B, T], places [B, P] and labels [B, P]."""

    config: TransformerConfig

    def __call__(self, params: PyTree, frozen: PyTree, batch: Any, key: Key[Array, ""]) -> tuple[Array, Array]:
        tokens, places, labels = batch
        hidden, _ = forward(params, self.config, tokens, jnp.ones(tokens.shape, bool))
        hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)
        losses, counts = label_losses(params, self.config, hidden, labels, jnp.ones(labels.shape, bool))
        return losses.sum(), counts.sum()


def training(sizes: Sizes) -> list[Row]:
    torch, transformers = reference("torch"), reference("transformers")
    if torch is None or transformers is None or reference("accelerate", "peers") is None:
        return []
    torch.set_num_threads(cores())
    return [compared(torch, transformers, "masked", *sizes.masked), compared(torch, transformers, "causal",
                                                                             *sizes.causal)]


def random_model(torch: Any, transformers: Any, kind: str, shape: tuple[int, int, int, int], length: int) -> Any:
    """A BERT or GPT-2 of Hugging Face without dropout."""
    if kind == "causal":
        return random_gpt2(torch, transformers, shape, length, FLAGS.seed)
    layers, width, heads, vocabulary = shape
    torch.manual_seed(FLAGS.seed)
    return transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=length, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0))


def drawn(kind: str, vocabulary: int, rows: int, length: int, steps: int) -> list[tuple[np.ndarray, ...]]:
    """Batches: tokens, places, labels; causal: the token after each place."""
    rng = np.random.default_rng(FLAGS.seed)
    made: list[tuple[np.ndarray, ...]] = []
    for _ in range(steps):
        tokens = rng.integers(5, vocabulary, (rows, length)).astype(np.int32)
        if kind == "causal":
            places = np.tile(np.arange(length - 1, dtype=np.int32), (rows, 1))
            made.append((tokens, places, tokens[:, 1:]))
            continue
        places = rng.permuted(np.tile(np.arange(length, dtype=np.int32), (rows, 1)), axis=1)[:, :int(HIDDEN * length)]
        labels = np.take_along_axis(tokens, places, 1)
        np.put_along_axis(tokens, places, 4, 1)
        made.append((tokens, places, labels))
    return made


def compared(
    torch: Any, transformers: Any, kind: str, shape: tuple[int, int, int, int], batch: tuple[int, int, int],
) -> Row:
    rows, length, steps = batch
    batches = drawn(kind, shape[3], *batch)
    seconds: list[list[float]] = [[], []]
    ends = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        random_model(torch, transformers, kind, shape, length).save_pretrained(folder)
        for _ in range(FLAGS.repeats):
            for side, run in enumerate((ours, lambda *given: theirs(torch, transformers, *given))):
                marks, ends[side] = run(folder, kind, batches)
                seconds[side] += np.diff(marks)[1:].tolist()  # the first step compiles, or warms up
    a, b = (float(np.median(one)) for one in seconds)
    layers, width, _, vocabulary = shape
    name = "BERT, masked" if kind == "masked" else "GPT-2, causal"
    return Row(f"a training step, {name}, {layers} layers x {width} x {vocabulary:,} pieces, batch {rows} x {length}, "
               f"{FLAGS.dtype}, {rows * length / a:,.0f} tokens a second", "Hugging Face Trainer, same batches, AdamW",
               a, b, f"loss of {steps} steps {ends[0]:.4f} and {ends[1]:.4f}")


def ours(folder: str, kind: str, batches: list[tuple[np.ndarray, ...]]) -> tuple[list[float], float]:
    """When each step began, and the mean loss."""
    model, marks = load_model(folder), []

    def given(step: int) -> tuple[np.ndarray, ...]:
        marks.append(time.perf_counter())
        return batches[step - 1]

    with tempfile.TemporaryDirectory() as workdir:
        settings = FitSettings(len(batches), OPTIMISER, compute=FLAGS.dtype)
        done = fit(Loss(model.config), model.params, given, settings, workdir, about={"benchmark": kind})
    return marks, done.metrics[-1]["loss"]


def theirs(
    torch: Any, transformers: Any, folder: str, kind: str, batches: list[tuple[np.ndarray, ...]],
) -> tuple[list[float], float]:
    """When each step began, and the mean loss, of Hugging Face's Trainer."""
    rows = [{"input_ids": torch.from_numpy(tokens[i].astype(np.int64)), "labels": _labels(torch, kind, *(
        one[i] for one in batch))} for batch in batches for tokens in batch[:1] for i in range(len(tokens))]
    marks: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *given: Any, **more: Any) -> None:
            marks.append(time.perf_counter())

    class Sequential(transformers.Trainer):
        def _get_train_sampler(self, *given: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    kinds = {"masked": transformers.BertForMaskedLM, "causal": transformers.GPT2LMHeadModel}
    with tempfile.TemporaryDirectory() as workdir:
        trainer = Sequential(
            model=kinds[kind].from_pretrained(folder), train_dataset=rows, callbacks=[Clock()],
            args=transformers.TrainingArguments(
                output_dir=workdir, use_cpu=torch_device(torch) == "cpu",
                bf16=FLAGS.dtype == "bfloat16", max_steps=len(batches),
                per_device_train_batch_size=len(batches[0][0]), learning_rate=OPTIMISER.learning_rate,
                weight_decay=OPTIMISER.weight_decay, adam_beta2=OPTIMISER.beta_2, max_grad_norm=OPTIMISER.clip,
                lr_scheduler_type="linear", warmup_steps=0, save_strategy="no", logging_strategy="no", report_to=[],
                disable_tqdm=True))
        trainer.remove_callback(transformers.PrinterCallback)
        done = trainer.train()
    return marks, float(done.training_loss)


def _labels(torch: Any, kind: str, tokens: np.ndarray, places: np.ndarray, labels: np.ndarray) -> Any:
    """-100 where nothing is predicted; a causal model moves its labels by one itself."""
    wanted = np.full(tokens.shape, -100, np.int64)
    wanted[places + (kind == "causal")] = labels
    return torch.from_numpy(wanted)
