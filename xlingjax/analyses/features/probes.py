"""Probes of values: balanced logistic regression on words, in the coordinates of the layer itself."""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from xlingjax.analyses.features.cells import TEST, Cells
from xlingjax.kernels.probing import fit_probes
from xlingjax.kernels.weighted_ranking import weighted_auroc


def fit(
    x: Float[np.ndarray, "L n D"], side: Shaped[np.ndarray, "R n"], rows: int, l2: float,
) -> Float[np.ndarray, "L R D+1"]:
    """The logit of each probe on the features as they are: direction, then bias; one batched call for all.

    Both sides of a probe weigh alike, half of its words each. The penalty sees features of unit variance, which
    is put back into the direction, so that the logit is `x @ w[:-1] + w[-1]`.

    Args:
        side: 1 and 0, the sides of each probe; -1 takes no part.
        rows: words that the arrays are filled up to, so that every call has one shape.

    Returns:
        NaN where a probe lacks a side or a layer is not finite.
    """
    layers, size, width = x.shape
    finite = np.isfinite(x).all((1, 2))
    features = np.zeros((layers, rows, width), np.float32)
    x = np.where(finite[:, None, None], x, 0)
    mean, spread = x.mean(1, dtype=np.float64), x.std(1, dtype=np.float64)
    # A unit that hardly moves is no signal that a division should make large.
    floor = 1e-3 * np.sqrt(np.square(spread).mean(1, keepdims=True)) + 1e-30
    spread = np.maximum(spread, floor)
    features[:, :size] = (x - mean[:, None]) / spread[:, None]
    y = np.zeros((len(side), rows), np.int32)
    weight = np.zeros((len(side), rows), np.float32)
    for row, one in enumerate(side):
        counts = [int((one == has).sum()) for has in (0, 1)]
        for has in (0, 1):
            weight[row, :size][one == has] = sum(counts) / 2 / max(counts[has], 1)
        y[row, :size] = one == 1
        if not min(counts):  # a probe of nothing keeps the others' arithmetic finite
            y[row], weight[row] = np.arange(rows) % 2, 1
    w = np.asarray(fit_probes(features, y, weight, 2, l2), float)
    w = w[..., 1] - w[..., 0]
    direction = w[..., :-1] / spread[:, None]
    bias = w[..., -1] - (direction * mean[:, None]).sum(-1)
    out = np.concatenate([direction, bias[..., None]], -1)
    known = np.array([(one == 0).any() and (one == 1).any() for one in side])
    return np.where(finite[:, None, None] & known[None, :, None], out, np.nan)


def logits(x: Float[np.ndarray, "*batch n D"], w: Float[np.ndarray, "*batch D1"]) -> Float[np.ndarray, "*batch n"]:
    """What one probe a batch says of each word."""
    return (x @ w[..., :-1, None])[..., 0] + w[..., -1:]


def fit_language(
    states: Float[np.ndarray, "L m D"], at: Int[np.ndarray, "m"], cells: Cells, part: int, language: int, rows: int,
    l2: float,
) -> Float[np.ndarray, "L V D+1"]:
    """Probes of every value in one language, at all layers.

    Args:
        states: of the words `at` among the cells' words, of this language and part.
    """
    inside = (cells.part[at] == part) & (cells.language[at] == language)
    side = np.where(cells.used[:, language, None], cells.side[:, at[inside]], -1)
    return fit(states[:, inside], side, rows, l2)


def document_draws(cells: Cells, draws: int, seed: int) -> Int[np.ndarray, "documents R"]:
    """How often each document counts: once in the first column, then by the bootstrap over test documents."""
    tested = np.unique(cells.document[cells.part == TEST])
    count = np.ones((cells.document.max() + 1, 1 + draws), int)
    drawn = np.random.default_rng([seed, 53]).multinomial(len(tested), np.full(len(tested), 1 / len(tested)), draws)
    count[tested, 1:] = drawn.T
    return count


def areas(
    scores: Float[np.ndarray, "N m"], labels: Bool[np.ndarray, "m"], weight: Int[np.ndarray, "m R"],
) -> Float[np.ndarray, "N R"]:
    """AUROC of N scores of the same words under each draw of documents."""
    return weighted_auroc(np.asarray(scores, float).T, labels, weight)
