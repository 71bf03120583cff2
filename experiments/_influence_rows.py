"""Influence functions beside kronfluence on torch: the same GPT-2, sequences and damping."""

import functools
import tempfile
import types
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments._influence_peers import Kronfluence, random_gpt2, with_linear_maps, write_weights
from experiments._machine import accelerator, cores
from experiments._timing import Row, in_turns, reference
from xlingjax.influence.factors import Factors, FactorSettings, fit_factors
from xlingjax.influence.scoring import low_rank, pairwise, sequence_gradients
from xlingjax.influence.validation import exactness
from xlingjax.influence.validation.retraining import datamodelling_scores, halves, retrained, retraining_of
from xlingjax.influence.validation.texts import as_tokens, text_problem
from xlingjax.models import Model, load_model

FLAGS = flags.FLAGS  # --seed, of `experiments.benchmark`
BATCH = 32  # sequences at once, on both sides
RANK = 32
DRAWS = 5  # of labels, from which LDS is averaged
COMPLETION = 16  # tokens at the end of a query, its prompt before them


class Sizes(NamedTuple):
    """Layers, width, heads, vocabulary; sequences, queries, tokens of each.

    Attributes:
        timed: whose scores are timed and compared. trained: on half of its sequences, again and again.
        subsets, trainings: halves, and trainings on each.
    """

    timed: tuple[tuple[int, int, int, int], tuple[int, int, int]]
    trained: tuple[tuple[int, int, int, int], tuple[int, int, int]]
    subsets: int
    trainings: int


def influence(sizes: Sizes) -> list[Row]:
    torch, transformers = reference("torch"), reference("transformers")
    peer = kronfluence()
    rows = []
    if torch is not None and transformers is not None:
        torch.set_num_threads(cores())
        rows += scored(torch, transformers, peer, sizes.timed)
        if peer is not None and not accelerator():  # what tells how good scores are is the same there
            rows += foretold(torch, transformers, peer, sizes)
    return rows if accelerator() else [*rows, exact_inverse()]


def kronfluence() -> Any | None:
    """Its parts; None where it is not installed."""
    found = {name: reference(f"kronfluence.{name}", "peers") for name in ("analyzer", "arguments", "task")}
    return None if None in found.values() else types.SimpleNamespace(**found)


def gpt2(torch: Any, transformers: Any, shape: tuple[int, int, int, int], longest: int) -> tuple[Any, Model]:
    """The same random weights in torch, with Linear maps, and here."""
    theirs = random_gpt2(torch, transformers, shape, longest, FLAGS.seed)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_model(folder)
    return with_linear_maps(torch, transformers, theirs), ours


def asked_of(model: Model, factors: Factors, queries: np.ndarray, start: int = 0) -> dict[str, np.ndarray]:
    """Preconditioned gradients of what stands from `start` on."""
    scored = [np.arange(len(row)) >= start for row in queries]
    return factors.precondition(sequence_gradients(
        model, factors.matrices, as_tokens(queries), scored, batch_tokens=BATCH * queries.shape[1]))


def scores(model: Model, factors: Factors, asked: Any, rows: np.ndarray) -> np.ndarray:
    return pairwise(model, factors.matrices, asked, as_tokens(rows), batch_tokens=BATCH * rows.shape[1],
                    show=False).sum((2, 3))


def scored(
    torch: Any, transformers: Any, peer: Any, shape: tuple[tuple[int, int, int, int], tuple[int, int, int]],
) -> list[Row]:
    (layers, width, heads, vocabulary), (count, asked, length) = shape
    theirs, ours = gpt2(torch, transformers, shape[0], length)
    rng = np.random.default_rng(FLAGS.seed)
    rows, queries = (rng.integers(0, vocabulary, (n, length)).astype(np.int32) for n in (count, asked))
    work = (f"GPT-2 of {layers} layers x {width:,} x {vocabulary:,} pieces, {asked} queries x {count} sequences of "
            f"{length} tokens")
    fitted = lambda labels: fit_factors(ours, as_tokens(rows), FactorSettings(
        labels=labels, batch_tokens=BATCH * length, parts=1, seed=FLAGS.seed), show=False)  # as theirs, unless asked

    def mine(labels: str) -> np.ndarray:
        factors = fitted(labels)
        return scores(ours, factors, asked_of(ours, factors, queries), rows)

    made = []
    if peer is not None:
        with tempfile.TemporaryDirectory() as folder:
            other = Kronfluence(torch, peer, theirs, folder, BATCH)

            def their_scores(labels: str) -> np.ndarray:
                other.fit(rows, labels)
                return other.scores(queries, rows)

            for labels in ("true", "sampled"):
                (a, one), (b, two) = in_turns(functools.partial(mine, labels), functools.partial(their_scores, labels))
                made.append(Row(f"EK-FAC with {labels} labels and scores, {work}", "kronfluence, its EK-FAC", a, b,
                                f"r {correlation(one, two):.5f}"))
    factors = fitted("sampled")
    for said, start in (("whole queries", 0), (f"completions of {COMPLETION} tokens", length - COMPLETION)):
        asked_for = asked_of(ours, factors, queries, start)
        few = low_rank(asked_for, RANK)
        sides = [functools.partial(scores, ours, factors, given, rows) for given in (few, asked_for)]
        (a, one), (b, two) = in_turns(*sides)
        made.append(Row(f"scores of rank {RANK}, {said}, {work}", "ours at full rank", a, b,
                        f"r {correlation(one, two):.5f}"))
    return made


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1])


def foretold(torch: Any, transformers: Any, peer: Any, sizes: Sizes) -> list[Row]:
    """The linear datamodelling score of both, from the same retrainings."""
    shape, (count, asked, length) = sizes.trained
    _, ours = gpt2(torch, transformers, shape, length)
    problem = text_problem(ours.config, count, asked, length, seed=FLAGS.seed, start=ours.params)
    done = retrained(retraining_of(problem), halves(count, sizes.subsets, FLAGS.seed), sizes.trainings)
    rows, queries = np.asarray(problem.inputs), np.asarray(problem.queries)
    trained = Model(problem.rest, ours.config)
    written = random_gpt2(torch, transformers, shape, length, FLAGS.seed)
    write_weights(torch, written, trained.params, ours.config)
    work = (f"what {sizes.subsets} halves x {sizes.trainings} trainings give, GPT-2 of {shape[0]} layers x {shape[1]}, "
            f"{asked} queries x {count} sequences of {length} tokens")
    made = []
    with tempfile.TemporaryDirectory() as folder:
        other = Kronfluence(torch, peer, with_linear_maps(torch, transformers, written), folder, BATCH)
        def mine(labels: str, seed: int) -> np.ndarray:
            factors = fit_factors(trained, as_tokens(rows), FactorSettings(
                labels=labels, batch_tokens=BATCH * length, seed=seed), show=False)
            return scores(trained, factors, asked_of(trained, factors, queries), rows)

        def their_scores(labels: str, seed: int) -> np.ndarray:
            torch.manual_seed(seed)
            other.fit(rows, labels)
            return other.scores(queries, rows)

        lds = lambda found: datamodelling_scores(done, found).mean()
        for labels, draws in (("true", 1), ("sampled", DRAWS)):
            (a, one), (b, two) = in_turns(
                *(functools.partial(side, labels, FLAGS.seed) for side in (mine, their_scores)))
            sides = [[lds(first), *(lds(side(labels, seed)) for seed in range(FLAGS.seed + 1, FLAGS.seed + draws))]
                     for first, side in ((one, mine), (two, their_scores))]
            said = " and ".join(f"{np.mean(side):.4f}" + (f" (sd {np.std(side, ddof=1):.4f})" if draws > 1 else "")
                                for side in sides)
            made.append(Row(f"{work}, {labels} labels" + (f" drawn {draws} times" if draws > 1 else ""),
                            "kronfluence, its EK-FAC", a, b, f"LDS {said}, r {correlation(one, two):.3f}"))
    return made


def exact_inverse() -> Row:
    (a, found), = in_turns(lambda: exactness.padded_scores(seed=FLAGS.seed))
    return Row("scores of padded, partly scored text, all methods", "the exact inverse", a, a, ", ".join(
        f"{name} r {correlation(one, found['exact']):.3f}" for name, one in found.items() if name != "exact"))
