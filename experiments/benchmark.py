"""Our kernels and capture beside scikit-learn, PyTorch and the way of ml-selfcond: the same work, in turns.

    python -m experiments.benchmark               # small shapes, about a minute
    python -m experiments.benchmark --size=full   # the shapes of a real cell, about 15 minutes
    python -m experiments.benchmark --size=gpu --dtype=bfloat16   # the same on a GPU, larger batches

Prints a table: medians, their ratio, and how far the two results lie apart. What a reference takes
too long for is measured on a part and scaled up, and the row says so. Every side uses all cores;
ours is compiled beforehand. On a GPU torch uses the same one, arrays lie there before the clock starts and results
stay there. References need `pip install xlingjax[test,peers]`.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import _influence_rows as influence_rows
from experiments import _training_rows as training_rows
from experiments._dictionary_rows import Sizes, dictionaries
from experiments._machine import accelerator, cores, machine
from experiments._main import run
from experiments._peers import (
    SITES,
    hooked_generation,
    hooked_maxima,
    numpy_alignment,
    numpy_correlations,
    scikit_learn_average_precision,
    selfcond_responses,
    torch_average_precision,
    torch_probe,
)
from experiments._timing import Row, in_turns, matrix_rate, reference, torch_device
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.kernels.alignment import Alignment, alignment, local_overlap
from xlingjax.kernels.cca import canonical_correlations, components
from xlingjax.kernels.experts import expert_sets, set_overlap
from xlingjax.kernels.geometry import shape_of
from xlingjax.kernels.probing import fit_probes
from xlingjax.kernels.ranking import average_precision
from xlingjax.markdown import markdown
from xlingjax.models import Edit, load_model
from xlingjax.progress import progress
from xlingjax.responses.collecting import collect

PARTS = ("ranking", "probes", "capture", "cold", "generation", "alignment", "sae", "influence", "training")

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "small", ["small", "full", "gpu"], "of the arrays and of the model")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"],
                  "of the model in capture and generation, and of what the loss sees in training")
flags.DEFINE_integer("repeats", 3, "turns, of which the median is taken", lower_bound=1)
flags.DEFINE_list("parts", list(PARTS), f"what to measure: {', '.join(PARTS)}")
flags.DEFINE_alias("only", "parts")
flags.DEFINE_integer("seed", 0, "of the random arrays and weights", lower_bound=0)


ALIGNED = Alignment._fields
TOPICS = 7  # concepts that share their sentences, as SIB-200 has them


class Shapes(NamedTuple):
    """S sentences, N neurons, C concepts; L layers, R runs, S samples, D features, classes."""

    ranking: tuple[int, int, int]
    cell: tuple[int, int, int]
    shared: tuple[int, int, int]
    null: tuple[int, int, int]
    probes: tuple[int, int, int, int, int]
    model: tuple[int, int, int, int]  # layers, width, heads, vocabulary
    batch: tuple[int, int, int]  # batches, sentences, longest
    cold: tuple[int, int, int, int]  # as model
    sentences: tuple[int, int]  # of a language, longest
    texts: tuple[int, int, int]  # at once, one by one, new tokens of each
    parallel: tuple[int, int, int, int]  # layers, languages, sentences, width
    sae: Sizes
    influence: influence_rows.Sizes
    training: training_rows.Sizes


SIZES = {
    "small": Shapes((400, 4000, 8), (400, 20_000, 1), (2000, 500, 50), (400, 1000, 200),
                    (4, 6, 400, 64, 8), (4, 128, 4, 4000), (4, 16, 48), (2, 64, 4, 1000), (24, 48), (16, 4, 12),
                    (3, 4, 200, 64), Sizes((64, 256, 256, 10), (32, 128, 256, 300), 3),
                    influence_rows.Sizes(((2, 128, 4, 1000), (64, 16, 48)), ((1, 16, 2, 16), (96, 12, 24)), 24, 4),
                    training_rows.Sizes(((2, 64, 2, 1000), (8, 32, 5)), ((2, 64, 2, 1000), (4, 32, 5)))),
    "full": Shapes((2000, 20_000, 8), (1700, 221_184, 1), (10_000, 2000, 200), (1700, 2000, 1000),
                   (24, 8, 2000, 1024, 20), (24, 1024, 16, 250_880), (4, 32, 64),
                   (6, 1024, 16, 250_880), (60, 64), (100, 4, 64), (24, 10, 1000, 1024),
                   Sizes((512, 4096, 4096, 8), (128, 1024, 1024, 2000), 4),
                   influence_rows.Sizes(((4, 256, 4, 4000), (256, 64, 128)), ((2, 32, 2, 32), (128, 24, 24)), 48, 4),
                   training_rows.Sizes(((4, 256, 4, 8000), (32, 128, 6)), ((12, 768, 12, 50_257), (4, 128, 4)))),
    "gpu": Shapes((2000, 20_000, 8), (1700, 221_184, 1), (10_000, 2000, 200), (1700, 2000, 1000),
                  (24, 8, 2000, 1024, 20), (24, 1024, 16, 250_880), (4, 256, 128),
                  (6, 1024, 16, 250_880), (60, 64), (100, 4, 64), (24, 10, 1000, 1024),
                  Sizes((512, 4096, 4096, 30), (128, 1024, 1024, 2000), 8),
                  influence_rows.Sizes(((4, 768, 12, 50_257), (256, 32, 128)), ((2, 32, 2, 32), (128, 24, 24)), 48, 4),
                  training_rows.Sizes(((4, 256, 4, 8000), (32, 128, 30)), ((12, 768, 12, 50_257), (4, 128, 30)))),
}


# Average precision


def responses_and_labels(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    sentences, neurons, concepts = shape
    rng = np.random.default_rng(FLAGS.seed)
    responses = rng.standard_normal((sentences, neurons), np.float32)
    return responses, rng.random((sentences, concepts)) < 0.14


def ranking_rows(name: str, shape: tuple[int, int, int], torch: Any, metrics: Any) -> list[Row]:
    responses, labels = responses_and_labels(shape)
    work = f"{name}, {shape[0]:,} sentences x {shape[1]:,} neurons x {shape[2]}"
    part, times = slice(0, 100), shape[1] / 100
    rows = []
    placed = placed_arrays(responses, labels)
    ours = lambda: average_precision(*placed)
    where = torch_device(torch)
    if where is not None:
        torch.set_num_threads(cores())
        x, y = (torch.from_numpy(one).to(where) for one in (responses, labels))
        block = 1000 if where == "cpu" else 20_000
        (a, mine), (b, other) = in_turns(ours, lambda: torch_average_precision(torch, x, y, block))
        rows.append(Row(work, "torch, vectorised", a, b, f"{np.abs(np.asarray(mine) - other.cpu().numpy()).max():.0e}"))
    if metrics is not None:
        (a, mine), (b, other) = in_turns(
            ours, lambda: scikit_learn_average_precision(metrics, responses[:, part], labels))
        rows.append(Row(work, f"scikit-learn loop (100 neurons, x {times:g})", a, b * times,
                        f"{np.abs(np.asarray(mine)[:, part] - other).max():.0e}"))
    return rows


def placed_arrays(*arrays: np.ndarray) -> list[Any]:
    """On the accelerator, where there is one."""
    return [jax.device_put(one) if accelerator() else one for one in arrays]


def one_by_one(score: Callable, responses: Any, labels: Any, few: int) -> np.ndarray:
    return np.concatenate([np.asarray(score(responses, labels[:, c:c + 1])) for c in range(few)])


def ranking(shapes: Shapes) -> list[Row]:
    torch: Any = reference("torch")
    metrics = None if accelerator() else reference("sklearn.metrics")  # torch is the peer on a GPU
    rows = []
    for name, shape in (("AP", shapes.ranking), ("AP, a cell", shapes.cell)):
        rows += ranking_rows(name, shape, torch, metrics)
    responses, labels = placed_arrays(*responses_and_labels(shapes.shared))
    few = 5
    together = lambda: np.asarray(average_precision(responses, labels))
    (a, mine), (b, other) = in_turns(
        together, lambda: one_by_one(average_precision, responses, labels, few))
    times = labels.shape[1] / few
    rows.append(Row(
        f"AP, {labels.shape[1]} concepts on {len(labels):,} shared sentences, "
        f"{responses.shape[1]:,} neurons", f"ours, one by one ({few}, x {times:g})", a, b * times,
        f"{np.abs(mine[:few] - other).max():.0e}"))
    drawn, truth = responses_and_labels(shapes.null)
    rng = np.random.default_rng(FLAGS.seed)
    permuted = np.stack([rng.permutation(truth[:, 0]) for _ in range(truth.shape[1])], axis=1)
    responses, labels = placed_arrays(drawn, permuted)
    sides: dict[str, Callable] = {"ours": lambda: one_by_one(average_precision, responses, labels, few)}
    where = torch_device(torch)
    if where is not None:
        x, y = (torch.from_numpy(one).to(where) for one in (drawn, permuted))
        sides["torch"] = lambda: one_by_one(
            lambda *pair: torch_average_precision(torch, *pair).cpu(), x, y, few)
    times = labels.shape[1] / few
    for name, side in sides.items():
        (a, mine), (b, other) = in_turns(together, side)
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

    features, truth, counted = placed_arrays(x, y, weight)
    ours = lambda: np.asarray(fit_probes(features, truth, counted, classes))
    torch: Any = reference("torch") if accelerator() else None
    where = torch_device(torch)
    sides: dict[str, Callable] = {} if accelerator() else {"scikit-learn, converged": theirs}
    if where is not None:
        rows_of, named = (torch.from_numpy(one[0, counts[0]]).to(where) for one in (x, y))
        sides["torch, its L-BFGS"] = lambda: torch_probe(torch, rows_of, named, classes, 1.0).cpu().numpy()
    rows = []
    for name, side in sides.items():
        (a, mine), (b, other) = in_turns(ours, side)
        own, best = (objective(x[0, counts[0]], y[0, counts[0]], w, 1.0) for w in (mine[0, 0], other))
        rows.append(Row(
            f"probes, {layers} layers x {runs} runs x {classes} classes, {samples:,} x {width:,}",
            f"{name} (1 fit, x {layers * runs})", a, b * layers * runs, f"objective {own / best - 1:+.0e}"))
    return rows


# Capture


def random_bloom(torch: Any, transformers: Any, shape: tuple[int, int, int, int], folder: str) -> Any:
    """A random model of Hugging Face, also saved in a folder."""
    layers, width, heads, vocabulary = shape
    torch.manual_seed(FLAGS.seed)
    model = transformers.BloomForCausalLM(transformers.BloomConfig(
        vocab_size=vocabulary, hidden_size=width, n_layer=layers, n_head=heads)).eval()
    model.save_pretrained(folder)
    return model


def capture(shapes: Shapes) -> list[Row]:
    torch: Any = reference("torch")
    where, transformers = torch_device(torch), reference("transformers")
    if where is None or transformers is None:
        return []
    torch.set_num_threads(cores())
    layers, width, _, vocabulary = shapes.model
    count, sentences, longest = shapes.batch
    rng = np.random.default_rng(FLAGS.seed)
    batches = []
    for _ in range(count):
        lengths = rng.integers(longest // 2, longest + 1, sentences)
        mask = np.arange(longest) < lengths[:, None]
        batches.append((rng.integers(0, vocabulary, mask.shape).astype(np.int32), mask))
    placed = [placed_arrays(*pair) for pair in batches]
    tensors = [(torch.from_numpy(tokens).long().to(where), torch.from_numpy(mask).to(where))
               for tokens, mask in batches]
    with tempfile.TemporaryDirectory() as folder:
        model = random_bloom(torch, transformers, shapes.model, folder).to(where, getattr(torch, FLAGS.dtype))
        ours = load_model(folder, dtype=FLAGS.dtype)

        def mine() -> dict[str, jax.Array]:
            found = [ours(tokens, mask, capture=dict.fromkeys(SITES, "max")).captured for tokens, mask in placed]
            return {site: jnp.concatenate([one[site] for one in found], 1) for site in SITES}

        sides: dict[str, Callable] = {"torch with hooks, max in the hook": lambda: hooked_maxima(torch, model, tensors)}
        if where == "cpu" and FLAGS.dtype == "float32":
            sides["the ml-selfcond way"] = lambda: selfcond_responses(
                torch, model, [ids[real] for pair in batches for ids, real in zip(*pair)], Path(folder))
        (a, own), *others = in_turns(mine, *sides.values())
    work = (f"capture, BLOOM of {layers} layers x {width:,}, {count} x {sentences} sentences of "
            f"{longest // 2}-{longest} tokens, {FLAGS.dtype}")
    if accelerator():
        products = layers * count * sentences * longest * (24 * width**2 + 4 * longest * width)
        rate = products / a
        work += f", {rate / 1e12:.3g} TFLOP/s, {rate / matrix_rate(FLAGS.dtype):.2f} of a matrix product's"
    apart = max(np.abs(np.asarray(own[site], np.float32) - others[0][1][site].float().cpu().numpy()).max()
                for site in SITES)
    said = (f"{apart:.0e}", "padding in their max")
    return [Row(work, name, a, seconds, note) for name, (seconds, _), note in zip(sides, others, said)]


# One concept, and all that share sentences, from a folder of weights to the overlap of two languages


def cold(shapes: Shapes) -> list[Row]:
    torch, transformers = reference("torch"), reference("transformers")
    metrics = reference("sklearn.metrics")
    if torch is None or transformers is None or metrics is None:
        return []
    torch.set_num_threads(cores())
    layers, width, _, vocabulary = shapes.cold
    count, longest = shapes.sentences
    rng = np.random.default_rng(FLAGS.seed)
    ids = [rng.integers(4, vocabulary, length).astype(np.int32)
           for length in rng.integers(longest // 4, longest, 2 * count)]
    tokens = Tokens(tuple(ids), tuple(np.zeros(len(one), bool) for one in ids))
    labels = np.stack([rng.permutation(count) < count // 4 for _ in range(TOPICS)], 1)
    halves = slice(0, count), slice(count, 2 * count)  # the languages
    few = 1000

    def mine(concepts: int) -> list[np.ndarray]:
        jax.clear_caches()  # compiling is part of a cold start
        responses = collect(load_model(folder), tokens, show=False).matrix()
        ap = [np.asarray(average_precision(responses[rows], labels[:, :concepts])) for rows in halves]
        a, b = (expert_sets(one, 500, seed) for seed, one in enumerate(ap))
        set_overlap(a, b, responses.shape[1])
        return ap

    def captured() -> np.ndarray:
        model = transformers.BloomForCausalLM.from_pretrained(folder).eval()
        return selfcond_responses(torch, model, ids, Path(folder))

    with tempfile.TemporaryDirectory() as folder:
        random_bloom(torch, transformers, shapes.cold, folder)
        responses = captured()
        (a, _), (b, _), (c, _), (d, _) = in_turns(
            lambda: mine(1), lambda: mine(TOPICS), captured, lambda: scikit_learn_average_precision(
                metrics, responses[halves[0], :few], labels[:, :1]))
    theirs = c + 2 * d * responses.shape[1] / few / cores()  # as there, spread over processes
    work = (f"a BLOOM of {layers} layers x {width:,} x {vocabulary:,} pieces, 2 languages x {count} sentences of "
            f"{longest // 4}-{longest} tokens, load to overlap")
    return [Row(f"one concept cold, {work}", f"the ml-selfcond way (AP of {few:,} neurons, scaled to all, all cores)",
                a, theirs, ""),
            Row(f"{TOPICS} concepts cold, {work}", f"the ml-selfcond way (one, x {TOPICS})", b, TOPICS * theirs, "")]


# Generation with forced neurons


def generation(shapes: Shapes) -> list[Row]:
    torch: Any = reference("torch")
    where, transformers = torch_device(torch), reference("transformers")
    if where is None or transformers is None:
        return []
    torch.set_num_threads(cores())
    layers, width, heads, vocabulary = shapes.model
    count, few, new = shapes.texts
    rng = np.random.default_rng(FLAGS.seed)
    forced = rng.random((layers, 4 * width)) < 0.01
    value = rng.standard_normal((layers, 4 * width)).astype(np.float32)
    edits = {"mlp.up": Edit(mask=forced[:, None, None], value=value[:, None, None])}
    with tempfile.TemporaryDirectory() as folder:
        theirs = random_bloom(torch, transformers, shapes.model, folder).to(where, getattr(torch, FLAGS.dtype))
        ours = load_model(folder, dtype=FLAGS.dtype)

    def write(seeds: range) -> np.ndarray:
        return ours.generate(
            np.array([[1]]), edits=edits, seeds=seeds, max_new_tokens=new, temperature=0.8, stop=()).tokens

    together = lambda: write(range(count))
    alone = lambda: np.concatenate([write(range(seed, seed + 1)) for seed in range(few)])
    alone()  # compiled beforehand, as `in_turns` does for the first side
    (a, mine), (b, one) = in_turns(together, alone)
    _, (c, _) = in_turns(lambda: None, lambda: hooked_generation(torch, theirs, forced, value, count, new))
    work = (f"{count} texts of {new} tokens, neurons forced, BLOOM of {layers} layers x {width:,} x {vocabulary:,} "
            f"pieces, {FLAGS.dtype}, {count * new / a:.3g} tokens a second")
    same = f"{(mine[:few] == one).mean():.2f} of tokens equal"
    return [Row(work, f"ours, one text at a time ({few}, x {count / few:g})", a, b * count / few, same),
            Row(work, "Hugging Face generate, the same batch, hooks", a, c, "other noise")]


# Alignment of languages


def aligned(shapes: Shapes) -> list[Row]:
    layers, languages, sentences, width = shapes.parallel
    rng = np.random.default_rng(FLAGS.seed)
    common = rng.standard_normal((layers, 1, sentences, width), np.float32)
    states = common + 2 * rng.standard_normal((layers, languages, sentences, width), np.float32)
    pairing, count = np.arange(sentences)[None], components(sentences, width)
    pairs = layers * languages * (languages - 1) // 2
    few = [(0, a, b) for a, b in ((0, 1), (0, 2), (1, 2))]

    def mine() -> np.ndarray:
        local_overlap(states)
        return np.stack([np.asarray(one) for one in alignment(states, pairing)])

    theirs = lambda: [numpy_alignment(states[layer, a], states[layer, b]) for layer, a, b in few]
    (a, own), (b, other) = in_turns(mine, theirs)
    apart = max(abs(own[i, layer, 0, g, h] - one[name]) for one, (layer, g, h) in zip(other, few)
                for i, name in enumerate(ALIGNED) if name in one)
    work = f"{layers} layers x {languages} languages x {sentences:,} sentences x {width:,}"
    rows = [Row(f"alignment, all measures but canonical correlations, {work}",
                f"NumPy, a pair and a measure at a time ({len(few)} pairs, x {pairs / len(few):g})", a,
                b * pairs / len(few), f"{apart:.0e}")]
    both = lambda: np.asarray(canonical_correlations(states, pairing, count).svcca) + 0 * np.asarray(
        shape_of(states).dimension)[:, None, :, None]
    (a, own), (b, values) = in_turns(
        both, lambda: [numpy_correlations(states[layer, g], states[layer, h], count) for layer, g, h in few])
    apart = max(abs(own[layer, 0, g, h] - one) for one, (layer, g, h) in zip(values, few))
    return [*rows, Row(f"canonical correlations and intrinsic dimension, {work}",
                       f"NumPy, SVCCA alone ({len(few)} pairs, x {pairs / len(few):g})", a, b * pairs / len(few),
                       f"{apart:.0e}")]


def table(rows: list[Row]) -> str:
    return markdown(
        ["work", "against", "ours (s)", "theirs (s)", "times as fast", "apart"],
        [[row.work, row.against, f"{row.ours:.3g}", f"{row.theirs:.3g}", f"{row.theirs / row.ours:.3g}", row.apart]
         for row in rows], right=(2, 3, 4))


def main() -> None:
    parts = dict(zip(PARTS, (
        ranking, probes, capture, cold, generation, aligned, lambda shapes: dictionaries(shapes.sae),
        lambda shapes: influence_rows.influence(shapes.influence),
        lambda shapes: training_rows.training(shapes.training))))
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
    print(f"{machine()}, size {FLAGS.size}, median of {FLAGS.repeats}\n")
    print(table(rows))


if __name__ == "__main__":
    run(main)
