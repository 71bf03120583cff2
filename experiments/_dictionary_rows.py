"""Training dictionaries beside dictionary_learning on torch: speed on the same batches, and what comes of it."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse
from absl import flags

from experiments._machine import cores
from experiments._peers import dictionary_learning_training, save_dictionary_learning
from experiments._timing import Row, in_turns, reference
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.files import read_dictionary
from xlingjax.sae.files.dictionary_learning import write
from xlingjax.sae.measures import measure_dictionary
from xlingjax.sae.settings import DictionarySpec, TrainSettings
from xlingjax.sae.stream import ArrayStream
from xlingjax.sae.training import train_dictionaries

FLAGS = flags.FLAGS  # --seed, of `experiments.benchmark`
ACTIVE = 8  # directions in an activation, and latents of a topk dictionary
RATE = 1e-3
PENALTY = 0.3  # of gated dictionaries
KINDS = ("topk", "gated")
SEEDS = 3  # of the trainings whose results are compared


def sparse_activations(width: int, directions: int, tokens: int, seed: int) -> np.ndarray:
    """float32[tokens, width]: a few of many directions at a time, a constant, a little noise."""
    rng = np.random.default_rng(FLAGS.seed)
    rows = rng.standard_normal((directions, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    constant = rng.standard_normal(width)
    rng = np.random.default_rng([FLAGS.seed, seed])
    chosen = rng.integers(0, directions, (tokens, ACTIVE))
    place = np.arange(tokens * ACTIVE) // ACTIVE
    strength = scipy.sparse.csr_matrix(
        (rng.uniform(0.5, 2, tokens * ACTIVE), (place, chosen.reshape(-1))), (tokens, directions))
    return np.asarray(strength @ rows + constant + 0.05 * rng.standard_normal((tokens, width)), np.float32)


def specs(kind: str, width: int, latents: int, count: int = 1) -> list[DictionarySpec]:
    config = DictionaryConfig(kind, width, latents, k=ACTIVE if kind == "topk" else 0)
    return [DictionarySpec(config, seed=seed, sparsity=PENALTY if kind == "gated" else 0.0, learning_rate=RATE)
            for seed in range(count)]


def recipe(kind: str, steps: int) -> tuple[TrainSettings, dict[str, Any]]:
    """dictionary_learning's own, as ours and as theirs: activations as they are, no decay."""
    warm = steps // 10
    ours = TrainSettings(steps=steps, warm_up=warm, decay=0, sparsity_warm_up=warm, scale_batches=0,
                         start="median" if kind == "topk" else "zero", report_every=steps)
    return ours, {"lr": RATE, **({"k": ACTIVE} if kind == "topk" else {
        "l1_penalty": PENALTY, "sparsity_warmup_steps": warm})}


class Sizes(NamedTuple):
    """Width, latents, tokens of a batch, steps.

    Attributes:
        timed: of short trainings. compared: of those whose results are compared. several: dictionaries at once.
    """

    timed: tuple[int, int, int, int]
    compared: tuple[int, int, int, int]
    several: int


def dictionaries(sizes: Sizes) -> list[Row]:
    torch, gdm, top_k = reference("torch"), *(
        reference(f"dictionary_learning.trainers.{name}", "peers") for name in ("gdm", "top_k"))
    rows = []
    if torch is not None and gdm is not None and top_k is not None:
        torch.set_num_threads(cores())
        trainers = {"topk": top_k.TopKTrainer, "gated": gdm.GatedSAETrainer}
        for kind in KINDS:
            rows += [trained(torch, kind, trainers[kind], shape, seeds)
                     for shape, seeds in ((sizes.timed, 1), (sizes.compared, SEEDS))]
    return [*rows, *(several(kind, sizes) for kind in KINDS)]


def trained(torch: Any, kind: str, trainer: Any, shape: tuple[int, int, int, int], seeds: int) -> Row:
    """The same steps on the same batches by both; of several seeds, what came of them on other activations.

    Both start from our first parameters: dictionaries of two seeds differ by more than those of two libraries.
    """
    width, latents, batch, steps = shape
    passes = min(steps, 64)
    stream = ArrayStream(sparse_activations(width, 2 * latents, passes * batch, 1)[None], batch_tokens=batch)
    batches = [np.array(stream.batch(step)[0][0]) for step in range(steps)]
    ours, theirs = recipe(kind, steps)
    mine = lambda: train_dictionaries(stream, specs(kind, width, latents, seeds), ours)
    other = lambda: [
        dictionary_learning_training(torch, trainer, batches, latents, theirs, ours.warm_up, spec.seed, first_of(spec))
        for spec in specs(kind, width, latents, seeds)]
    (a, found), (b, made) = in_turns(mine, other)
    said = ""
    if seeds > 1:
        held_out = sparse_activations(width, 2 * latents, 8192, 2)
        sides = [[quality_of(one, held_out) for one in side] for side in (found, [as_read(torch, one) for one in made])]
        said = ", ".join(f"{name} {' and '.join(spread([one[place] for one in side]) for side in sides)}"
                         for place, name in enumerate(("FVU", "L0")))
    return Row(f"{kind} dictionaries, {seeds} of {steps:,} steps of {batch:,} x {width} to {latents:,} latents, "
               f"{seeds * steps / a:.3g} steps a second", "dictionary_learning, same batches and recipe", a, b, said)


def first_of(spec: DictionarySpec) -> dict[str, np.ndarray]:
    """What `train_dictionaries` starts from, named as in dictionary_learning's files."""
    return write(Dictionary(init_dictionary(spec.config, jax.random.key(spec.seed)), spec.config))[0]


def as_read(torch: Any, trainer: Any) -> Dictionary:
    with tempfile.TemporaryDirectory() as folder:
        save_dictionary_learning(torch, trainer, Path(folder))
        return read_dictionary(folder)


def quality_of(one: Dictionary, x: np.ndarray) -> tuple[float, float]:
    found = measure_dictionary(one, [(x, np.zeros(len(x), int))]).isel(language=0)
    return float(found.fvu), float(found.l0)


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def several(kind: str, sizes: Sizes) -> Row:
    width, latents, batch, steps = sizes.timed
    stream = ArrayStream(sparse_activations(width, 2 * latents, steps * batch, 1)[None], batch_tokens=batch)
    wanted, settings = specs(kind, width, latents, sizes.several), recipe(kind, steps)[0]
    together = lambda: train_dictionaries(stream, wanted, settings)
    alone = lambda: [train_dictionaries(stream, [one], settings)[0] for one in wanted]
    alone()  # compiled beforehand, as `in_turns` does for the first side
    (a, mine), (b, other) = in_turns(together, alone)
    apart = max(float(np.abs(x.directions - y.directions).max()) for x, y in zip(mine, other))
    work = f"{len(wanted)} {kind} dictionaries at once, {steps:,} steps of {batch:,} x {width} to {latents:,} latents"
    return Row(work, "ours, one after another", a, b, f"{apart:.0e}")
