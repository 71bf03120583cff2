"""Anchors: pieces two languages share, and the pseudo-model of token identity."""

import numpy as np
import pytest

from xlingjax.corpora import (
    Tokens,
    concept_anchors,
    shared_pieces,
    token_detectors,
    without_pieces,
)
from xlingjax.errors import InputError


def sentences(*rows):
    """Token 0 is special."""
    ids = tuple(np.array(row, np.int32) for row in rows)
    return Tokens(ids, tuple(row == 0 for row in ids))


def test_shared_pieces_leave_special_tokens_out():
    a, b = sentences([0, 1, 2, 2], [0, 3], [0]), sentences([0, 2, 3, 9], [0, 8])
    assert shared_pieces(a, b).tolist() == [2, 3] == shared_pieces(b, a).tolist()
    assert without_pieces(a, np.array([2])).tolist() == [False, True, True]
    assert without_pieces(a, np.array([0])).tolist() == [True, True, True]
    assert shared_pieces(sentences(), a).tolist() == []


@pytest.mark.promise
def test_token_detectors_against_counting():
    rng = np.random.default_rng(0)
    rows = [[0, *rng.integers(1, 40, rng.integers(0, 9)).tolist()] for _ in range(60)]
    responses, ids = token_detectors(sentences(*rows), 5)
    often = sorted(t for t in range(1, 40) if sum(t in row for row in rows) >= 5)
    assert ids.tolist() == often and responses.dtype == np.float32
    assert responses.tolist() == [[float(t in row) for t in often] for row in rows]
    with pytest.raises(InputError, match="no token type occurs in 61 of 60"):
        token_detectors(sentences(*rows), 61)


def test_concept_anchors():
    a = sentences([1, 2, 3], [1, 3], [2, 3], [3, 7], [5])
    b = sentences([1, 2, 3], [1, 2, 3], [3, 5], [3, 2], [1, 1])
    labels_a, labels_b = np.array([1, 1, 0, 0, -1]), np.array([1, 1, 0, 0, -1])
    # 1: only in positives of both (B's last row, label -1, does not count); 2: as often in A's
    # negatives; 3: everywhere; 5 and 7: no surplus.
    assert concept_anchors(a, labels_a, b, labels_b).tolist() == [1]
    assert concept_anchors(a, labels_a, b, labels_b, lift=0.9).tolist() == [1, 2, 3]
    with pytest.raises(InputError, match=r"shape \(2,\) for 5 sentences"):
        concept_anchors(a, labels_a[:2], b, labels_b)
