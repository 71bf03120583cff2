"""Starts of new token embeddings: worked by hand, and the rows that nothing is known about."""

import numpy as np
import pytest
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.transfer.starts import by_dictionary, by_similarity, drawn_like, overlap_copied

RNG = np.random.default_rng(0)
SOURCE = RNG.standard_normal((40, 6)) * [1, 2, 3, 1, 1, 1] + [5, 0, 0, 0, 0, 0]


def test_drawn_rows_have_the_source_s_mean_and_spread():
    drawn = drawn_like(SOURCE, 20_000, 0)
    close(drawn.mean(0), SOURCE.mean(0), 0.1)
    close(drawn.std(0), SOURCE.std(0), 0.1)
    assert (drawn_like(SOURCE, 9, 0) == drawn_like(SOURCE, 9, 0)).all()
    assert (drawn_like(SOURCE, 9, 0) != drawn_like(SOURCE, 9, 1)).any()


def test_nearest_rows_are_mixed_by_softmax():
    static_source, static_target = RNG.standard_normal((40, 4)), RNG.standard_normal((7, 4))
    static_target[2] = 0
    start, told = by_similarity(SOURCE, static_source, static_target, neighbours=3, temperature=0.2)
    assert told.tolist() == [True, True, False, True, True, True, True]
    for token in (0, 6):
        cosine = [static_target[token] @ row / np.linalg.norm(static_target[token]) / np.linalg.norm(row)
                  for row in static_source]
        near = np.argsort(cosine)[-3:]
        weight = np.exp(np.array(cosine)[near] / 0.2)
        close(start[token], weight @ SOURCE[near] / weight.sum(), 1e-5)
    assert (start[2] == drawn_like(SOURCE, 7, 0)[2]).all()


def test_the_same_space_gives_the_same_rows():
    static = RNG.standard_normal((40, 8))
    start, _ = by_similarity(SOURCE, static, static, neighbours=5, temperature=0.001)
    close(start, SOURCE, 1e-5)


def test_copies_and_dictionaries():
    names = [f"t{i}" for i in range(40)]
    start, copied = overlap_copied(SOURCE, names, ["x", "t7", "t0"])
    assert copied.tolist() == [False, True, True]
    close(start[1:], SOURCE[[7, 0]].astype(np.float32), 0)
    start, told = by_dictionary(SOURCE, [(3, 1, 1), (4, 1, 1), (4, 1, 2)], 2)
    assert told.tolist() == [False, True]
    close(start[1], (SOURCE[3] + 3 * SOURCE[4]) / 4, 1e-6)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="39 source tokens for 40"):
        overlap_copied(SOURCE, ["a"] * 39, ["a"])
    with pytest.raises(InputError, match="weights above 0"):
        by_dictionary(SOURCE, [(0, 0, 0.0)], 1)
    with pytest.raises(InputError, match="tokens that exist"):
        by_dictionary(SOURCE, [(40, 0, 1.0)], 1)
    with pytest.raises(InputError, match="one width"):
        by_similarity(SOURCE, np.ones((40, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match="no source token"):
        by_similarity(SOURCE, np.zeros((40, 3)), np.ones((2, 3)))
    with pytest.raises(InputError, match="temperature is 0"):
        by_similarity(SOURCE, np.ones((40, 3)), np.ones((2, 3)), temperature=0)
