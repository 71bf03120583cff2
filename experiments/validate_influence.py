"""Whether influence functions tell what they say: beside exact inverses, the Bregman response, and retraining.

    python -m experiments.validate_influence               # all three, a few minutes
    python -m experiments.validate_influence --what=pbrf   # one

Small models are trained on data from known rules; each table has every method of the toolkit.
exact: Pearson's r over all pairs with (G + lambda)^-1 written out, on padded, partly scored text.
pbrf: r over training examples with the change that optimising the proximal Bregman objective makes in a query's loss.
lds: Spearman's correlation over random halves of the training examples, of summed influence with what training on
them gives. Means over queries and seeds, with 95 % intervals over seeds (Student's t).
"""

from collections.abc import Callable

import numpy as np
import scipy.stats
from absl import flags

from experiments._machine import machine
from experiments._main import run
from xlingjax.errors import InputError
from xlingjax.influence.validation import exactness, methods, problems, response, retraining
from xlingjax.influence.validation.networks import network_problem
from xlingjax.influence.validation.problems import Problem
from xlingjax.influence.validation.texts import text_problem
from xlingjax.markdown import markdown
from xlingjax.progress import progress

WHAT = ("exact", "pbrf", "lds")
PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "regression": lambda seed: network_problem("squared", (8, 16, 16, 1), seed=seed),
    "classification": lambda seed: network_problem("softmax", seed=seed),
    "text": lambda seed: text_problem(seed=seed),
}

FLAGS = flags.FLAGS
flags.DEFINE_list("what", list(WHAT), f"tables to print: {', '.join(WHAT)}")
flags.DEFINE_integer("seeds", 5, "trained models of each kind, over which intervals are taken", lower_bound=2)
flags.DEFINE_integer("seed", 0, "the first of them", lower_bound=0)
flags.DEFINE_integer("examples", 40, "training examples whose response is optimised (pbrf)", lower_bound=3)
flags.DEFINE_integer("subsets", 24, "random halves of the training examples (lds)", lower_bound=4)
flags.DEFINE_integer("trainings", 8, "trainings on each half, from other first weights (lds)", lower_bound=2)
flags.DEFINE_float("damping", 0.1, "lambda, as a share of G's mean eigenvalue", lower_bound=1e-6)


def all_influences(problem: Problem) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    """G, lambda, and method -> scores [q, n]."""
    g = np.asarray(problems.gauss_newton_matrix(
        problem.outputs, problem.loss, problem.rest, problem.weights, problem.inputs), np.float64)
    damping = methods.mean_damping(g, FLAGS.damping)
    return g, damping, methods.influences(problem, damping, g)


def pbrf(problem: Problem, seed: int) -> dict[str, float]:
    g, damping, scores = all_influences(problem)
    count = len(problem.inputs)
    rows = np.random.default_rng([seed, 41]).choice(count, min(FLAGS.examples, count), replace=False)
    found = response.bregman_response(problem, g, damping, rows)
    return {method: float(response.correlations(found.change, one[:, rows]).mean()) for method, one in scores.items()
            } | {"(gradient left, worst)": float(found.left.max())}


def lds(problem: Problem, seed: int) -> dict[str, float]:
    scores = all_influences(problem)[2]
    retrain = retraining.retraining_of(problem)
    kept = retraining.halves(len(problem.inputs), FLAGS.subsets, seed)
    done = retraining.retrained(retrain, kept, FLAGS.trainings)
    return {method: float(retraining.datamodelling_scores(done, one).mean()) for method, one in scores.items()
            } | {"(halves of the trainings with each other)": float(retraining.split_half(done).mean())}


def exact_scores(seed: int) -> dict[str, float]:
    found = exactness.padded_scores(seed=seed, share=FLAGS.damping)
    wanted = found.pop("exact").reshape(-1)
    return {method: float(np.corrcoef(one.reshape(-1), wanted)[0, 1]) for method, one in found.items()}


def interval(values: list[float]) -> str:
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def table(columns: dict[str, list[dict[str, float]]]) -> str:
    names = list(next(iter(columns.values()))[0])
    return markdown(["method", *columns], [
        [name, *(interval([one[name] for one in runs]) for runs in columns.values())] for name in names],
        right=range(1, 1 + len(columns)))


def main() -> None:
    unknown = [one for one in FLAGS.what if one not in WHAT]
    if unknown or not FLAGS.what:
        raise InputError(f"--what is {','.join(FLAGS.what)!r}; choose among {', '.join(WHAT)}")
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    print(f"{machine()}, {FLAGS.seeds} seeds, lambda {FLAGS.damping:g} of the mean eigenvalue")
    if "exact" in FLAGS.what:
        print("\nr with the exact inverse, padded and partly scored text\n")
        print(table({"text": [exact_scores(seed) for seed in progress(seeds, label="exact", unit="models")]}))
    rest = {"pbrf": (pbrf, "r with the proximal Bregman response"),
            "lds": (lds, "linear datamodelling score")}
    made = {name: [make(seed) for seed in seeds] for name, make in PROBLEMS.items()} if set(rest) & set(
        FLAGS.what) else {}
    for what, (measure, title) in rest.items():
        if what in FLAGS.what:
            print(f"\n{title}\n")
            print(table({name: [measure(problem, seed) for seed, problem in zip(seeds, of)]
                         for name, of in progress(made.items(), label=what, unit="problems")}))


if __name__ == "__main__":
    run(main)
