"""Latents of two dictionaries: a shuffled, noisy copy is matched back, and strangers are not."""

import jax
import numpy as np
import pytest

from xlingjax.analyses.features.matching import match_latents
from xlingjax.errors import InputError
from xlingjax.sae import Dictionary, DictionaryConfig, init_dictionary

CONFIG = DictionaryConfig("relu", 24, 40)


def dictionary(seed, rows=None):
    params = init_dictionary(CONFIG, jax.random.key(seed))
    if rows is not None:
        params["decoder"]["kernel"] = rows
    return Dictionary(params, CONFIG, "resid", 0)


@pytest.mark.promise
def test_a_shuffled_copy_is_matched_back_and_strangers_are_not() -> None:
    rng = np.random.default_rng(0)
    first = dictionary(0)
    order = rng.permutation(40)
    rows = first.directions[order] + 0.1 * rng.standard_normal((40, 24)).astype(np.float32)
    active = np.maximum(rng.standard_normal((300, 40)), 0)
    found = match_latents(first, dictionary(1, rows), profiles=(active, active[:, order]),
                          blocks=np.repeat(np.arange(30), 10))
    np.testing.assert_array_equal(order[found["b"].values], found["a"].values)
    assert found["cosine"].min() > 0.8 > found["cosine_null"].mean()
    assert found["p_cosine"].item() == found["p_correlation"].item() == pytest.approx(1 / 21)
    assert found.attrs["agree"] == 1
    np.testing.assert_allclose(found["correlation"], 1)

    strange = match_latents(first, dictionary(2), profiles=(active, np.maximum(rng.standard_normal((300, 40)), 0)))
    assert strange["p_cosine"].item() > 0.05 and strange["p_correlation"].item() > 0.05
    assert strange.attrs["agree"] < 0.3 and (strange["best"] >= strange["cosine"] - 1e-12).all()


def test_only_some_latents() -> None:
    found = match_latents(dictionary(0), dictionary(0), latents=(np.array([3, 7]), np.array([9, 7, 3])), draws=3)
    assert dict(zip(found["a"].values.tolist(), found["b"].values.tolist())) == {3: 3, 7: 7}


def test_what_does_not_fit() -> None:
    other = DictionaryConfig("relu", 8, 40)
    narrow = Dictionary(init_dictionary(other, jax.random.key(0)), other)
    with pytest.raises(InputError, match="write 24 and 8 units"):
        match_latents(dictionary(0), narrow)
    with pytest.raises(InputError, match="3 and 4 tokens"):
        match_latents(dictionary(0), dictionary(1), profiles=(np.ones((3, 40)), np.ones((4, 40))), draws=2)
    with pytest.raises(InputError, match="cannot be matched one to one"):
        match_latents(dictionary(0), dictionary(1), latents=(np.zeros(9000, int), np.zeros(2, int)))
