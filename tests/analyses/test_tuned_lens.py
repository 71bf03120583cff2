"""The tuned lens: what it may not change, what it finds again, and that it helps on documents it was not fitted to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_trace

from xlingjax.analyses.logit_lens import logit_lens
from xlingjax.analyses.tuned_lens import fit_translators
from xlingjax.errors import InputError
from xlingjax.models import TransformerConfig, init_params, unembed

CONFIG = TransformerConfig(vocab_size=23, layers=2, width=8, heads=2, mlp_width=16, final_norm=False)


def divergence(params, states) -> np.ndarray:
    """KL(final || lens) of each layer in float64, written out."""
    logits = np.asarray(unembed(params, CONFIG, jnp.asarray(states, jnp.float32)), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return (np.exp(log_p[-1]) * (log_p[-1] - log_p)).sum(-1).mean(-1)


@pytest.fixture(scope="module")
def planted():
    """The first layer holds what the last one does, turned and shifted."""
    params = jax.tree.map(lambda x: 20 * x if x.ndim > 1 else x, init_params(CONFIG, jax.random.key(0)))
    rng = np.random.default_rng(0)
    last = rng.standard_normal((600, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    noise = rng.standard_normal((600, 8))
    return params, np.stack([3 * last @ turn + 1, noise, last]).astype(np.float32)


def test_what_a_layer_knows_in_another_basis_is_found(planted) -> None:
    params, states = planted
    lens = fit_translators(params, CONFIG, states[:, :400], 2000)
    before, after = divergence(params, states[:, 400:]), divergence(params, lens(states[:, 400:]))
    assert before[0] > 1 and after[0] < 0.05 * before[0]
    assert after[1] > 0.3 * before[1], "noise cannot be read"
    np.testing.assert_array_equal(lens.kernel[-1], 0)  # the head was made for the last layer
    np.testing.assert_array_equal(lens.bias[-1], 0)
    assert after[-1] == pytest.approx(0, abs=1e-6)


def test_no_step_is_the_logit_lens_and_the_seed_decides(planted) -> None:
    params, states = planted
    lens = fit_translators(params, CONFIG, states, 0)
    np.testing.assert_array_equal(lens(states), states)
    one, same, other = (fit_translators(params, CONFIG, states, 5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.kernel, same.kernel)
    assert (one.kernel != other.kernel).any()


def test_a_layer_that_is_not_finite_is_left_alone(planted) -> None:
    params, states = planted
    broken = states.copy()
    broken[1, 3, 2] = np.nan
    lens = fit_translators(params, CONFIG, broken, 3)
    assert np.isfinite(lens.kernel).all() and not lens.kernel[1].any()


def test_too_little_text_is_named(planted) -> None:
    params, states = planted
    with pytest.raises(InputError, match="fitted to 20 tokens; give 32 or more"):
        fit_translators(params, CONFIG, states[:, :20], 3)


@pytest.mark.slow
def test_the_lens_of_a_model_is_nearer_to_its_end_on_other_documents() -> None:
    model, corpus = tiny_trace.model(), tiny_trace.corpus()
    plain, tuned = (logit_lens(model, corpus, tuned=steps) for steps in (0, 150))
    assert plain.attrs["tuned"] == 0 and tuned.attrs["tuned"] == 150
    np.testing.assert_allclose(tuned["surprisal"].isel(layer=-1), plain["surprisal"].isel(layer=-1), atol=1e-5)
    last = plain["surprisal"].isel(layer=-1)
    gap = lambda found: float(abs(found["surprisal"].isel(layer=0) - last).mean())
    assert gap(tuned) < gap(plain)
