"""How cost grows: the trace's stages over a factor of 16 in sentences, neurons, languages and checkpoints.

    python -m experiments.growth

Each stage runs at 1, 2, 4, 8 and 16 times a small size, after a run that is not counted. The table prints
medians and the exponent of a power law fitted to the upper half (1 = linear); `growth.png` shows them. Random
weights and labels: only the costs mean something. About four minutes on 2 cores.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments._machine import machine
from experiments._main import run
from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.analyses.sources import sources
from xlingjax.analyses.trace import trace
from xlingjax.analyses.trace.settings import TraceSettings
from xlingjax.corpora import mini_world
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.kernels.ranking import average_precision
from xlingjax.markdown import markdown
from xlingjax.models import Model, init_params, save_model
from xlingjax.progress import progress
from xlingjax.report import style
from xlingjax.responses import collect
from xlingjax.training.shapes import small_config
from xlingjax.training.tokenizer import train_tokenizer

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "runs/growth", "folder of growth.png and growth.md")
flags.DEFINE_integer("repeats", 3, "turns, of which the median is taken", lower_bound=1)
flags.DEFINE_list("factors", ["1", "2", "4", "8", "16"], "sizes, as multiples of the smallest")
flags.DEFINE_integer("seed", 0, "of the random arrays and weights", lower_bound=0)


def capturing(factor: int) -> Callable[[], object]:
    """Responses of 128 x factor sentences in memory, a model of 4 layers and 4,608 neurons."""
    config = small_config("bloom", 4, 128, 4)
    config = type(config).from_dict(config.to_dict() | {"vocab_size": 512})
    model = Model(init_params(config, jax.random.key(FLAGS.seed)), config, None, "random", "random")
    rng = np.random.default_rng(FLAGS.seed)
    ids = tuple(rng.integers(5, 512, length).astype(np.int32) for length in rng.integers(16, 33, 128 * factor))
    tokens = Tokens(ids, tuple(np.zeros(len(one), bool) for one in ids))
    return lambda: collect(model, tokens, batch_tokens=2048, show=False)


def ranking(sentences: int, neurons: int) -> Callable[[], object]:
    rng = np.random.default_rng(FLAGS.seed)
    responses = rng.standard_normal((sentences, neurons), np.float32)
    labels = rng.random((sentences, 4)) < 0.15
    return lambda: np.asarray(average_precision(responses, labels))


def experts(factor: int) -> Callable[[], object]:
    """Expert sets, overlaps and nulls of 2 x factor languages of 100 sentences, 500 neurons, 4 concepts."""
    languages, sentences = 2 * factor, 100
    rng = np.random.default_rng(FLAGS.seed)
    labels = rng.random((sentences, 4)) < 0.3
    repeat = lambda values: np.tile(values, languages)
    responses = rng.standard_normal((languages * sentences, 500), np.float32)
    lengths = repeat(rng.integers(5, 30, sentences))
    return lambda: concept_experts(
        responses, np.tile(labels, (languages, 1)).astype(np.int8),
        np.repeat([f"l{i:02d}" for i in range(languages)], sentences), repeat(np.arange(sentences).astype(str)),
        repeat(np.arange(sentences).astype(str)), lengths, 5 * lengths, adjustments=("raw",), permutations=4,
        halvings=2, seed=FLAGS.seed)


def tracing(factor: int, folder: Path) -> Callable[[], object]:
    """A whole trace of `factor` checkpoints of two layers, three languages; the last one's extras left out."""
    corpus = mini_world("probe", sentences=96, languages=("eng", "spa", "rus"))
    corpus = corpus.with_concepts(["Number=Plur", "Tense=Past"])
    tokenizer = train_tokenizer(mini_world("train", sentences=100, languages=("eng", "spa")), 400)
    config = small_config("bloom", 2, 32, 2)
    config = type(config).from_dict(config.to_dict() | {"vocab_size": len(tokenizer)})
    for step in range(factor):
        if not (folder / f"step{step}").exists():
            save_model(Model(init_params(config, jax.random.key(step)), config, tokenizer, "", "random", "bloom"),
                       folder / f"step{step}")
    found = sources(str(folder), [f"step{step}" for step in range(factor)])
    settings = TraceSettings(permutations=4, halvings=1, minimum=4, ladder_pairs=0, probe=None, seed=FLAGS.seed)

    def act() -> None:
        with tempfile.TemporaryDirectory() as workdir:
            trace(found, corpus, settings, Path(workdir), say=lambda text: None)

    return act


def stages(folder: Path) -> dict[str, tuple[str, Callable[[int], Callable[[], object]]]]:
    """Stage -> (what it is 1 of, how to make it at a factor)."""
    return {
        "capture, by sentences": ("128 sentences", capturing),
        "average precision, by sentences": ("250 sentences", lambda factor: ranking(250 * factor, 8000)),
        "average precision, by neurons": ("4,000 neurons", lambda factor: ranking(1000, 4000 * factor)),
        "experts and nulls, by languages": ("2 languages", experts),
        "whole trace, by checkpoints": ("1 checkpoint", lambda factor: tracing(factor, folder)),
    }


def median_seconds(act: Callable[[], object]) -> float:
    act()
    seconds = []
    for _ in range(FLAGS.repeats):
        begin = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def exponent(factors: list[int], seconds: list[float]) -> float:
    """Of the power law through the upper half of the sizes, where fixed costs no longer count.

    >>> round(exponent([1, 2, 4, 8], [9.0, 2.0, 4.0, 8.0]), 3)
    1.0
    """
    first = (len(factors) - 1) // 2
    return float(np.polyfit(np.log(factors[first:]), np.log(seconds[first:]), 1)[0])


def draw(factors: list[int], found: dict[str, list[float]]) -> bytes:
    with style.figure(width=7.2, height=4.4) as (canvas, grid):
        axes = grid[0, 0]
        for i, (name, seconds) in enumerate(found.items()):
            axes.plot(factors, seconds, color=style.PALETTE[i], marker=style.MARKERS[i], label=name)
        low = min(seconds[0] for seconds in found.values())
        axes.plot(factors, [low / 2 * factor for factor in factors], color=style.NULL, linestyle=":", label="linear")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(factors, [f"x {factor}" for factor in factors])
        axes.set_xlabel("size, as a multiple of the smallest")
        axes.set_ylabel("time (s)")
        style.legend_below(canvas, axes)
        return style.png(canvas)


def table(factors: list[int], found: dict[str, list[float]], units: dict[str, str]) -> str:
    header = ["stage", "x 1 is", *(f"x {factor} (s)" for factor in factors), "exponent"]
    return markdown(header, [
        [name, units[name], *(f"{one:.3g}" for one in seconds), f"{exponent(factors, seconds):.2f}"]
        for name, seconds in found.items()], right=range(2, len(header)))


def main() -> None:
    if not all(factor.isdigit() and int(factor) for factor in FLAGS.factors) or len(set(FLAGS.factors)) < 3:
        raise InputError(f"--factors={','.join(FLAGS.factors)}; give three or more different whole numbers above 0")
    factors = sorted({int(factor) for factor in FLAGS.factors})
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = stages(Path(folder))
        with progress(total=len(chosen) * len(factors), label="growth", unit="sizes") as bar:
            for name, (_, make) in chosen.items():
                found[name] = []
                for factor in factors:
                    found[name].append(median_seconds(make(factor)))
                    bar.update(1)
    text = table(factors, found, {name: unit for name, (unit, _) in chosen.items()})
    workdir = Path(FLAGS.workdir)
    write_whole(workdir / "growth.png", draw(factors, found))
    write_whole(workdir / "growth.md", f"{machine()}\n\n{text}".encode())
    print(f"{machine()}\n\n{text}")


if __name__ == "__main__":
    run(main)
