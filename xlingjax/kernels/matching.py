"""Which rows of one matrix correspond to which of another: by cosine or correlation, each used once."""

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

BLOCK = 2048  # rows compared at a time where only the best is asked for


def cosines(a: Float[np.ndarray, "A D"], b: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "A B"]:
    """Cosine of every row of a with every row of b; 0 for a row of zeros.

    >>> cosines(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0]]
    """
    return _unit(a) @ _unit(b).T


def correlations(f: Float[np.ndarray, "n A"], g: Float[np.ndarray, "n B"]) -> Float[np.ndarray, "A B"]:
    """Pearson's correlation of every column of f with every column of g; 0 for a constant column.

    >>> correlations(np.array([[0.0], [1.0], [2.0]]), np.array([[5.0], [3.0], [1.0]])).round(6).tolist()
    [[-1.0]]
    """
    return cosines((f - f.mean(0)).T, (g - g.mean(0)).T)


def best_cosines(
    a: Float[np.ndarray, "A D"], b: Float[np.ndarray, "B D"],
) -> tuple[Float[np.ndarray, "A"], Int[np.ndarray, "A"]]:
    """The highest cosine of each row of a with any of b, and which; never the whole matrix at once.

    >>> best_cosines(np.array([[2.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 3.0]]))[1].tolist()
    [0]
    """
    unit, other = _unit(a), _unit(b).T
    best, which = np.empty(len(a)), np.empty(len(a), int)
    for start in range(0, len(a), BLOCK):
        part = unit[start:start + BLOCK] @ other
        which[start:start + BLOCK] = part.argmax(1)
        best[start:start + BLOCK] = part.max(1)
    return best, which


def one_to_one(similarity: Float[np.ndarray, "A B"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Pairs (row, column), each used once, with the largest sum (Kuhn 1955); n is the smaller side.

    >>> rows, columns = one_to_one(np.array([[0.9, 0.8], [0.7, 0.1]]))
    >>> rows.tolist(), columns.tolist()
    ([0, 1], [1, 0])
    """
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return rows, columns


def random_rotation(width: int, rng: np.random.Generator) -> Float[np.ndarray, "D D"]:
    """An orthogonal matrix, uniform over all of them: Q of a normal matrix, signs of R's diagonal put right.

    >>> turn = random_rotation(3, np.random.default_rng(0))
    >>> bool(np.allclose(turn @ turn.T, np.eye(3)))
    True
    """
    q, r = scipy.linalg.qr(rng.standard_normal((width, width)))
    return np.asarray(q * np.sign(np.diag(r)))


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)
