"""P5: what factors and scores need is told in advance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.influence.factors import FactorSettings
from xlingjax.influence.losses import batch_statistics
from xlingjax.influence.matrices import matrices
from xlingjax.influence.planning import WITHIN, plan_influence
from xlingjax.models import Model, TransformerConfig, init_params

CONFIG = TransformerConfig(vocab_size=500, layers=3, width=64, heads=4, mlp_width=256)
TOKENS = Tokens((np.zeros(32, np.int32),) * 24, (np.zeros(32, bool),) * 24)
QUERIES = 8


def planned(**more):
    model = Model(jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0))), CONFIG)
    return model, plan_influence(model, TOKENS, FactorSettings(batch_tokens=256), queries=QUERIES, eigen_rate=1e-9,
                                 **more)


def test_bytes_of_every_step_are_those_of_the_compiler():
    model, plan = planned()
    assert plan.batch == (8, 32)
    shape = jax.ShapeDtypeStruct
    sums = {
        "covariances": ("covariances", lambda m: {"inputs": (m.rows, m.rows), "outputs": (m.outputs, m.outputs)}),
        "variances": ("squares", lambda m: {"squares": (m.rows, m.outputs), "left": (m.rows, m.rows),
                                            "right": (m.outputs, m.outputs)}),
        "query gradients": ("gradients", lambda m: {"gradients": (8, m.rows, m.outputs)}),
        "scores": ("products", lambda m: {"queries": (m.rows, m.outputs, QUERIES), "products": (QUERIES, 8)}),
    }
    chosen = matrices(CONFIG)
    batch = [shape((8, 32), kind) for kind in (jnp.int32, bool, bool)]
    for step, (kind, of) in sums.items():
        given = {m.name: {key: shape((CONFIG.layers, *one), jnp.float32) for key, one in of(m).items()} for m in chosen}
        done = batch_statistics.lower(
            model.params, CONFIG, tuple((m, kind) for m in chosen), "true", given, *batch).compile().memory_analysis()
        found = done.argument_size_in_bytes + done.output_size_in_bytes + done.temp_size_in_bytes
        assert 1 / WITHIN < plan.steps[step] / found < WITHIN, (step, plan.steps[step], found)


def test_what_does_not_fit_is_named_with_what_would():
    _, plan = planned()
    assert plan.limit and not plan.too_large and plan.remedies == ()
    plan.require()
    largest = max(plan.steps, key=plan.steps.get)
    _, small = planned(device_limit=plan.steps[largest] - 1)
    assert largest in small.too_large and f"{largest} " in str(small) and "too large" in str(small)
    with pytest.raises(InputError, match=f"{largest} need about .*(batch_tokens=|rank 32)"):
        small.require()


def test_blocks_save_eigendecompositions():
    model, whole = planned()
    cut = plan_influence(model, TOKENS, FactorSettings(batch_tokens=256, blocks=4), eigen_rate=1e-9)
    assert cut.eigen_seconds < whole.eigen_seconds / 10
    assert "eigenbases" in str(cut)
