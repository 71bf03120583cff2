"""Our kernels and capture beside scikit-learn and PyTorch: the same work, in turns, in one run.

    python -m experiments.benchmark               # small shapes, about a minute
    python -m experiments.benchmark --size=full   # the shapes of a real cell, about 15 minutes

Prints a table: medians, their ratio, and how far the two results lie apart. What a reference takes
too long for is measured on a part and scaled up, and the row says so. Every side uses all cores;
ours is compiled beforehand. References need `pip install xlingjax[test]`.
"""

import datetime
import functools
import importlib
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments._main import run
from xlingjax.errors import InputError
from xlingjax.kernels.probing import fit_probes
from xlingjax.kernels.ranking import average_precision
from xlingjax.models import load_model
from xlingjax.progress import progress

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "small", ["small", "full"], "of the arrays and of the model")
flags.DEFINE_integer("repeats", 3, "turns, of which the median is taken", lower_bound=1)
flags.DEFINE_list("parts", ["ranking", "probes", "capture"], "what to measure")
flags.DEFINE_integer("seed", 0, "of the random arrays and weights", lower_bound=0)


class Shapes(NamedTuple):
    """S sentences, N neurons, C concepts; L layers, R runs, S samples, D features, classes."""

    ranking: tuple[int, int, int]
    cell: tuple[int, int, int]
    shared: tuple[int, int, int]
    null: tuple[int, int, int]
    probes: tuple[int, int, int, int, int]
    model: tuple[int, int, int, int]  # layers, width, heads, vocabulary
    batch: tuple[int, int, int]  # batches, sentences, longest


SIZES = {
    "small": Shapes((400, 4000, 8), (400, 20_000, 1), (2000, 500, 50), (400, 1000, 200),
                    (4, 6, 400, 64, 8), (4, 128, 4, 4000), (4, 16, 48)),
    "full": Shapes((2000, 20_000, 8), (1700, 221_184, 1), (10_000, 2000, 200), (1700, 2000, 1000),
                   (24, 8, 2000, 1024, 20), (24, 1024, 16, 250_880), (4, 32, 64)),
}


class Row(NamedTuple):
    work: str
    against: str
    ours: float
    theirs: float
    apart: str  # how far the results are from each other


def reference(module: str) -> Any | None:
    """A package that only the references need; None, said aloud, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"{module} is not installed: its rows are left out (pip install xlingjax[test])")
        return None


def in_turns(*sides: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Median seconds and last result of each side; the first turn of ours is not counted."""
    sides[0]()
    seconds: list[list[float]] = [[] for _ in sides]
    results: list[Any] = [None] * len(sides)
    for _ in range(FLAGS.repeats):
        for number, side in enumerate(sides):
            begin = time.perf_counter()
            results[number] = side()
            seconds[number].append(time.perf_counter() - begin)
    return [(float(np.median(times)), result) for times, result in zip(seconds, results)]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Average precision


def responses_and_labels(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    sentences, neurons, concepts = shape
    rng = np.random.default_rng(FLAGS.seed)
    responses = rng.standard_normal((sentences, neurons), np.float32)
    return responses, rng.random((sentences, concepts)) < 0.14


def with_torch(torch: Any, responses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same with PyTorch, all neurons of a block and one concept at a time, ties included."""
    scores = np.empty((labels.shape[1], responses.shape[1]), np.float32)
    truth = torch.from_numpy(labels.T.copy())
    for start in range(0, responses.shape[1], 1000):
        block = torch.from_numpy(responses[:, start:start + 1000]).T.contiguous()
        values, order = torch.sort(block, dim=1, descending=True)
        places = torch.arange(1, values.shape[1] + 1)
        differs = torch.nn.functional.pad(values[:, 1:] != values[:, :-1], (0, 1), value=True)
        ends = torch.where(differs, places, values.shape[1])
        last = ends.flip(1).cummin(1).values.flip(1)
        for concept, label in enumerate(truth):
            shown = label[order]
            hits = shown.cumsum(1).gather(1, last - 1)
            score = (shown * (hits / last)).sum(1) / label.sum()
            scores[concept, start:start + 1000] = score.numpy()
    return scores


def with_scikit_learn(metrics: Any, responses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([[metrics.average_precision_score(label, response) for response in responses.T]
                     for label in labels.T])


def ranking_rows(name: str, shape: tuple[int, int, int], torch: Any, metrics: Any) -> list[Row]:
    responses, labels = responses_and_labels(shape)
    work = f"{name}, {shape[0]:,} sentences x {shape[1]:,} neurons x {shape[2]}"
    part, times = slice(0, 100), shape[1] / 100
    rows = []

    def ours() -> np.ndarray:
        return np.asarray(average_precision(responses, labels))

    if torch is not None:
        torch.set_num_threads(cores())
        (a, mine), (b, other) = in_turns(ours, lambda: with_torch(torch, responses, labels))
        rows.append(Row(work, "torch, vectorised", a, b, f"{np.abs(mine - other).max():.0e}"))
    if metrics is not None:
        (a, mine), (b, other) = in_turns(
            ours, lambda: with_scikit_learn(metrics, responses[:, part], labels))
        rows.append(Row(work, f"scikit-learn loop (100 neurons, x {times:g})", a, b * times,
                        f"{np.abs(mine[:, part] - other).max():.0e}"))
    return rows


def one_by_one(score: Callable, responses: np.ndarray, labels: np.ndarray, few: int) -> np.ndarray:
    return np.concatenate([score(responses, labels[:, c:c + 1]) for c in range(few)])


def ranking(shapes: Shapes) -> list[Row]:
    torch, metrics = reference("torch"), reference("sklearn.metrics")
    rows = []
    for name, shape in (("AP", shapes.ranking), ("AP, a cell", shapes.cell)):
        rows += ranking_rows(name, shape, torch, metrics)
    responses, labels = responses_and_labels(shapes.shared)
    few = 5
    together = lambda: np.asarray(average_precision(responses, labels))
    (a, mine), (b, other) = in_turns(
        together, lambda: one_by_one(average_precision, responses, labels, few))
    times = labels.shape[1] / few
    rows.append(Row(
        f"AP, {labels.shape[1]} concepts on {len(labels):,} shared sentences, "
        f"{responses.shape[1]:,} neurons", f"ours, one by one ({few}, x {times:g})", a, b * times,
        f"{np.abs(mine[:few] - other).max():.0e}"))
    responses, labels = responses_and_labels(shapes.null)
    rng = np.random.default_rng(FLAGS.seed)
    labels = np.stack([rng.permutation(labels[:, 0]) for _ in range(labels.shape[1])], axis=1)
    sides: dict[str, Callable] = {"ours": average_precision}
    if torch is not None:
        sides["torch"] = lambda *arrays: with_torch(torch, *arrays)
    times = labels.shape[1] / few
    for name, score in sides.items():
        (a, mine), (b, other) = in_turns(
            together, functools.partial(one_by_one, score, responses, labels, few))
        rows.append(Row(
            f"null, {labels.shape[1]:,} permutations of {len(labels):,} x {responses.shape[1]:,}",
            f"{name}, from scratch ({few}, x {times:g})", a, b * times,
            f"{np.abs(mine[:few] - other).max():.0e}"))
    return rows


# Probes


def objective(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> float:
    logits = x.astype(np.float64) @ w[:-1].astype(np.float64) + w[-1]
    top = logits.max(1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    penalty = l2 / 2 * float((w[:-1].astype(np.float64) ** 2).sum())
    return penalty - float(log_p[np.arange(len(y)), y].sum())


def probes(shapes: Shapes) -> list[Row]:
    linear = reference("sklearn.linear_model")
    if linear is None:
        return []
    layers, runs, samples, width, classes = shapes.probes
    rng = np.random.default_rng(FLAGS.seed)
    y = np.stack([rng.permutation(np.arange(samples) % classes) for _ in range(runs)])
    centres = rng.standard_normal((layers, classes, width)) * 0.3
    noise = rng.standard_normal((layers, samples, width), np.float32)
    # A rotated, decaying spectrum, as hidden states have.
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    turn *= np.arange(1, width + 1)[:, None] ** -0.5
    x = ((centres[:, y[0]] + noise) @ turn).astype(np.float32)
    x /= x.std()
    weight = (rng.random((runs, samples)) < 0.7).astype(np.float32)
    counts = [row > 0 for row in weight]

    def theirs() -> np.ndarray:
        fit = linear.LogisticRegression(C=1.0, tol=1e-6, max_iter=10_000).fit(
            x[0, counts[0]], y[0, counts[0]])
        return np.concatenate([fit.coef_.T, fit.intercept_[None]])

    (a, mine), (b, other) = in_turns(
        lambda: np.asarray(fit_probes(x, y, weight, classes, 1.0)), theirs)
    own, best = (objective(x[0, counts[0]], y[0, counts[0]], w, 1.0) for w in (mine[0, 0], other))
    return [Row(
        f"probes, {layers} layers x {runs} runs x {classes} classes, {samples:,} x {width:,}",
        f"scikit-learn, converged (1 fit, x {layers * runs})", a, b * layers * runs,
        f"objective {own / best - 1:+.0e}")]


# Capture


def capture(shapes: Shapes) -> list[Row]:
    torch, transformers = reference("torch"), reference("transformers")
    if torch is None or transformers is None:
        return []
    layers, width, heads, vocabulary = shapes.model
    count, sentences, longest = shapes.batch
    torch.set_num_threads(cores())
    torch.manual_seed(FLAGS.seed)
    config = transformers.BloomConfig(
        vocab_size=vocabulary, hidden_size=width, n_layer=layers, n_head=heads)
    model = transformers.BloomForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = load_model(folder)
    rng = np.random.default_rng(FLAGS.seed)
    batches = []
    for _ in range(count):
        lengths = rng.integers(longest // 2, longest + 1, sentences)
        mask = np.arange(longest) < lengths[:, None]
        batches.append((rng.integers(0, vocabulary, mask.shape).astype(np.int32), mask))
    sites = {"attn.qkv": "query_key_value", "attn.out": "self_attention.dense",
             "mlp.up": "dense_h_to_4h", "mlp.down": "dense_4h_to_h"}

    def mine() -> dict[str, np.ndarray]:
        found = [ours(tokens, mask, capture=dict.fromkeys(sites, "max")).captured
                 for tokens, mask in batches]
        return {site: np.concatenate([np.asarray(one[site]) for one in found], 1) for site in sites}

    def theirs() -> dict[str, np.ndarray]:
        pooled: dict[str, list[Any]] = {site: [] for site in sites}
        mask: Any = None

        def hook(site: str) -> Callable:
            def pool(module: Any, inputs: Any, output: Any) -> None:
                pooled[site].append(output.masked_fill(~mask[..., None], -torch.inf).amax(1))
            return pool

        handles = [
            module.register_forward_hook(hook(site)) for name, module in model.named_modules()
            for site, ending in sites.items() if name.endswith(ending)]
        with torch.inference_mode():
            for tokens, real in batches:
                mask = torch.from_numpy(real)
                model.transformer(torch.from_numpy(tokens).long(), attention_mask=mask)
        for handle in handles:
            handle.remove()
        return {site: np.concatenate([torch.stack(found[i:i + layers]).numpy()
                                      for i in range(0, len(found), layers)], 1)
                for site, found in pooled.items()}

    (a, own), (b, other) = in_turns(mine, theirs)
    apart = max(np.abs(own[site] - other[site]).max() for site in sites)
    return [Row(
        f"capture, BLOOM of {layers} layers x {width:,}, {count} x {sentences} sentences of "
        f"{longest // 2}-{longest} tokens", "torch with hooks, max in the hook", a, b,
        f"{apart:.0e}")]


def machine() -> str:
    """What the table was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
                 if line.startswith("model name")]
        model = names[0] if names else model
    versions = []
    for name in ("jax", "numpy", "torch", "scikit-learn", "transformers"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    return (f"{datetime.date.today()}, {cores()} cores of {model}, {jax.devices()[0].device_kind}, "
            f"Python {platform.python_version()}, {', '.join(versions)}, size {FLAGS.size}, "
            f"median of {FLAGS.repeats}")


def table(rows: list[Row]) -> str:
    lines = ["| work | against | ours (s) | theirs (s) | times as fast | apart |",
             "|---|---|---:|---:|---:|---|"]
    for row in rows:
        lines.append(f"| {row.work} | {row.against} | {row.ours:.3g} | {row.theirs:.3g} | "
                     f"{row.theirs / row.ours:.3g} | {row.apart} |")
    return "\n".join(lines)


def main() -> None:
    parts = {"ranking": ranking, "probes": probes, "capture": capture}
    if not FLAGS.parts:
        raise InputError(f"--parts is empty; choose among {', '.join(parts)}")
    unknown = [name for name in FLAGS.parts if name not in parts]
    if unknown:
        raise InputError(f"--parts has {unknown[0]!r}; choose among {', '.join(parts)}")
    rows = []
    with progress(total=len(FLAGS.parts), label="benchmark", unit="parts") as bar:
        for name in FLAGS.parts:
            rows += parts[name](SIZES[FLAGS.size])
            bar.update(1)
    print(machine() + "\n")
    print(table(rows))


if __name__ == "__main__":
    run(main)
