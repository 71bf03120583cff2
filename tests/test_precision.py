"""float32 is float32 on accelerators: no product of matrices is left to the device's own idea of it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlingjax.kernels import alignment, cca, geometry, probing
from xlingjax.models import TransformerConfig, init_params
from xlingjax.models.generating import generate_tokens
from xlingjax.models.sampling import Steps, Values
from xlingjax.models.transformer import forward, unembed
from xlingjax.sae import DictionaryConfig, decode, encode
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.objectives import Run
from xlingjax.sae.settings import DictionarySpec, TrainSettings
from xlingjax.sae.training import group_runs
from xlingjax.sae.updating import first_state, update
from xlingjax.training.objectives import Objective, row_losses

CONFIG = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
PARAMS = init_params(CONFIG, jax.random.key(0))
CODER = DictionaryConfig("gated", 8, 16)
TOKENS, MASK = jnp.ones((2, 4), jnp.int32), jnp.ones((2, 4), bool)
X = np.random.default_rng(0).standard_normal((1, 2, 20, 8)).astype(np.float32)


def products(jaxpr: Any) -> Iterator[Any]:
    """The products of matrices of a program and of the programs in it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def training() -> Any:
    spec = DictionarySpec(CODER, sparsity=0.1)
    (group,) = group_runs([spec], TrainSettings(), None)
    params = jax.tree.map(lambda leaf: leaf[None], init_dictionary(CODER, jax.random.key(0)))
    column = lambda value, dtype: jnp.full(1, value, dtype)
    runs = Run(which=column(0, jnp.int32), seed=column(0, jnp.uint32), k=column(1, jnp.int32),
               sparsity=column(0.1, jnp.float32), rate=column(1e-3, jnp.float32), target_l0=column(0, jnp.float32),
               width=column(16, jnp.int32), scale_in=column(1, jnp.float32), scale_out=column(1, jnp.float32))
    return update(group.program, first_state(params, group.program), runs, X[:, 0], None, np.float32(1),
                  np.float32(1), np.bool_(False))


def gradient() -> Any:
    whole = lambda params: row_losses(params, CONFIG, Objective("causal"), TOKENS, MASK, jax.random.key(0))[0].sum()
    return jax.grad(whole)(PARAMS)


PROGRAMS: dict[str, Callable[[], Any]] = {
    "forward": lambda: forward(PARAMS, CONFIG, TOKENS, MASK),
    "unembed": lambda: unembed(PARAMS, CONFIG, jnp.ones((2, 8))),
    "generation": lambda: generate_tokens(
        PARAMS, CONFIG, TOKENS, MASK, {}, jnp.zeros(2, jnp.uint32),
        Values(jnp.zeros(2), jnp.zeros(2, jnp.int32), jnp.ones(2), jnp.ones(2)), jnp.array([-1]), new=2,
        steps=Steps(False, False, False, 0)),
    "gradient": gradient,
    "probes": lambda: probing.fit_probes(X[0], np.zeros((1, 20), int), np.ones((1, 20), np.float32), 2),
    "probe scores": lambda: probing.score_probes(X[0], np.zeros((1, 20), int), np.ones((2, 1, 9, 2), np.float32)),
    "alignment": lambda: alignment.alignment(X, np.arange(20)[None], neighbours=3),
    "local overlap": lambda: alignment.local_overlap(X, neighbours=3),
    "canonical correlations": lambda: cca.canonical_correlations(X, np.arange(20)[None], 3),
    "geometry": lambda: geometry.shape_of(X),
    "dictionary": lambda: decode(init_dictionary(CODER, jax.random.key(0)), CODER,
                                 encode(init_dictionary(CODER, jax.random.key(0)), CODER, jnp.ones((3, 8)))),
    "dictionary training": training,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_product_has_the_precision_of_its_operands(name: str) -> None:
    found = list(products(jax.make_jaxpr(PROGRAMS[name])().jaxpr))
    assert found
    for product in found:
        assert product.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2, product


def test_a_users_own_choice_counts() -> None:
    with jax.default_matmul_precision("tensorfloat32"):
        found = list(products(jax.make_jaxpr(PROGRAMS["forward"])().jaxpr))
    assert found and all(product.params["precision"] != (jax.lax.Precision.HIGHEST,) * 2 for product in found)
