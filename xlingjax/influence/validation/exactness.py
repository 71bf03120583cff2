"""Scores on padded, partly scored text beside those of the inverse written out: the way that users go, end to end."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from xlingjax.corpora.tokenising import Tokens
from xlingjax.influence.curvature import exact, flatten, gauss_newton, unflatten
from xlingjax.influence.factors import METHODS, FactorSettings, fit_factors
from xlingjax.influence.matrices import matrices
from xlingjax.influence.scoring import pairwise, sequence_gradients
from xlingjax.influence.validation.texts import DRAWS, SMALL, STEPS, topics, train
from xlingjax.models import Model
from xlingjax.models.config import TransformerConfig
from xlingjax.models.transformer import init_params


def ragged(rows: np.ndarray, seed: int) -> tuple[Tokens, list[Bool[np.ndarray, "t"]]]:
    """The sequences cut to random lengths, and what is scored of each: all after a random place, as of completions."""
    rng = np.random.default_rng([seed, 13])
    longest = rows.shape[1]
    ids = [row[:rng.integers(longest // 2, longest + 1)] for row in rows]
    scored = [np.arange(len(one)) >= rng.integers(1, len(one) // 2 + 1) for one in ids]
    return Tokens(tuple(ids), tuple(np.zeros(len(one), bool) for one in ids)), scored


def padded_scores(
    config: TransformerConfig = SMALL, count: int = 96, queries: int = 12, steps: int = STEPS, seed: int = 0,
    share: float = 0.1,
) -> dict[str, Float[np.ndarray, "q n"]]:
    """Method -> influences of a small trained model, "exact" by (G + lambda)^-1 with all MLP matrices at once.

    Args:
        share: lambda, of G's mean eigenvalue.
    """
    rows = topics(config, count + queries, config.max_length, seed)
    params = train(config, init_params(config, jax.random.key(seed)), rows[:count], jnp.ones(count), steps)
    model, chosen = Model(params, config), matrices(config)
    tokens, scored = ragged(rows[:count], seed)
    asked, completions = ragged(rows[count:], seed + 1)
    repeated = Tokens(tokens.ids * DRAWS, tokens.special * DRAWS)  # so that labels are drawn often enough
    factors = fit_factors(model, repeated, FactorSettings(diagonal=True, seed=seed), scored=scored * DRAWS, show=False)
    gradients = sequence_gradients(model, chosen, asked, completions)
    product = gauss_newton(model, chosen, tokens, scored)
    size = sum(config.layers * m.rows * m.outputs for m in chosen)
    dense = np.stack([product(row) for row in np.eye(size)])
    damping = share * float(np.trace(dense)) / size
    whole = exact(lambda v: dense @ v, flatten(gradients, chosen), damping)
    given = {"exact": unflatten(whole, chosen, config.layers)}
    given |= {method: factors.precondition(gradients, method, damping) for method in METHODS}
    return {method: pairwise(model, chosen, one, tokens, scored, show=False).sum((2, 3))
            for method, one in given.items()}
