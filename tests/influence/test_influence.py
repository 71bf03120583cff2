"""P16: influence is right: statistics as gradients written out, inverses as dense ones, parts as wholes."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tolerances import BATCHING, GRADIENT, close

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.influence import curvature
from xlingjax.influence import factors as fitting
from xlingjax.influence.factors import FactorSettings, fit_factors
from xlingjax.influence.losses import drawn_labels, sequence_losses
from xlingjax.influence.matrices import matrices
from xlingjax.influence.scoring import (
    by_token,
    low_rank,
    normalised,
    pairwise,
    self_influence,
    sequence_gradients,
)
from xlingjax.kernels.kronecker import eigenbases, inverse_product
from xlingjax.models import Edit, Model, TransformerConfig, init_params
from xlingjax.models.transformer import unembed
from xlingjax.training import objectives
from xlingjax.training.objectives import label_losses

pytestmark = pytest.mark.promise
PLAIN = TransformerConfig(vocab_size=13, layers=2, width=6, heads=2, mlp_width=10)
CONFIGS = {
    "plain": PLAIN,
    "gated, no biases": dataclasses.replace(PLAIN, gated=True, mlp_bias=False, attention_bias=False),
    "apart": dataclasses.replace(PLAIN, fused=""),
}


def model_of(config: TransformerConfig) -> Model:
    params = init_params(config, jax.random.key(0))
    grown = jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 1 else leaf, params)  # or nothing depends on anything
    return Model(grown, config, fingerprint="tiny")


def weight(layers, matrix):
    """[L, J, O]: kernel and bias of a matrix in every layer, the bias as the last row."""
    block, name = matrix.name.split("/")
    held = layers[block][name]
    return jnp.concatenate([held["kernel"], held["bias"][:, None]], 1) if matrix.bias else held["kernel"]


def sequences(count: int = 7, seed: int = 0, longest: int = 8) -> Tokens:
    rng = np.random.default_rng(seed)
    ids = tuple(rng.integers(0, 13, length).astype(np.int32) for length in rng.integers(3, longest + 1, count))
    return Tokens(ids, tuple(np.zeros(len(one), bool) for one in ids))


def written_out(model: Model, ids: np.ndarray, scored: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Gradients of one unpadded sequence by `jax.grad` in the parameters themselves."""
    tokens, mask = jnp.asarray(ids)[None], jnp.ones((1, len(ids)), bool)
    places = np.append((np.ones(len(ids), bool) if scored is None else scored)[1:], False)[None]
    slopes = loss_gradient(model.params, model.config, tokens, mask, jnp.roll(tokens, -1, 1), places)
    groups = ("attention", "mlp")
    return {m.name: np.asarray(weight(slopes["layers"], m)) for m in matrices(model.config, groups)}


@functools.partial(jax.jit, static_argnums=1)
def loss_gradient(params, config, *batch):
    return jax.grad(lambda params: sequence_losses(params, config, *batch).sum())(params)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_sequences_are_those_of_the_parameters(name: str) -> None:
    """Padded, in one batch, all at once, against each alone without padding."""
    model, tokens = model_of(CONFIGS[name]), sequences()
    chosen = matrices(model.config, ("attention", "mlp"))
    scored = [np.arange(len(ids)) >= len(ids) // 2 for ids in tokens.ids]
    for given in (None, scored):
        found = sequence_gradients(model, chosen, tokens, given)
        for row, ids in enumerate(tokens.ids):
            wanted = written_out(model, ids, None if given is None else given[row])
            for matrix in chosen:
                scale = np.abs(wanted[matrix.name]).max()
                assert scale > 1e-3, matrix.name
                close(found[matrix.name][row] / scale, wanted[matrix.name] / scale, GRADIENT, matrix.name)


def test_factors_are_means_over_tokens_and_sequences() -> None:
    """With true labels; A and S from sites and from gradients in additive edits, Lambda from whole gradients."""
    model, tokens = model_of(PLAIN), sequences()
    made = fit_factors(model, tokens, FactorSettings(labels="true", diagonal=True, batch_tokens=20, parts=3))
    (up, down) = made.matrices
    inputs, outputs, total = np.zeros((2, 7, 7)), np.zeros((2, 10, 10)), 0
    squares = np.zeros((2, 7, 10))
    plain = np.zeros((2, 7, 10))
    left, right = made.left[up.name], made.right[up.name]
    slope = jax.jit(jax.grad(lambda add, row, mask, places: sequence_losses(
        model.params, PLAIN, row, mask, jnp.roll(row, -1, 1), places, {"mlp.up": Edit(add=add)}).sum()))
    for ids in tokens.ids:
        row, mask = jnp.asarray(ids)[None], jnp.ones((1, len(ids)), bool)
        places = np.append(np.ones(len(ids) - 1, bool), False)[None]
        a = np.asarray(model(row, mask, ("mlp.in",)).captured["mlp.in"])[:, 0]
        a = np.concatenate([a, np.ones((*a.shape[:2], 1))], -1)

        g = np.asarray(slope(jnp.zeros((2, 1, len(ids), 10)), row, mask, places))[:, 0]
        inputs += np.einsum("lti,ltj->lij", a[:, :-1], a[:, :-1])
        outputs += np.einsum("lti,ltj->lij", g[:, :-1], g[:, :-1])
        total += len(ids) - 1
        whole = written_out(model, ids)[up.name]
        squares += np.square(np.swapaxes(left, 1, 2) @ whole @ right)
        plain += np.square(whole)
    assert (made.tokens, made.sequences) == (total, len(tokens))
    rebuilt = lambda vectors, values: vectors * values[:, None] @ np.swapaxes(vectors, 1, 2)
    close(rebuilt(left, made.alpha[up.name]), inputs / total, 1e-4)
    close(rebuilt(right, made.sigma[up.name]), outputs / total, 1e-4)
    scale = np.abs(squares).max() / len(tokens)
    close(made.squares[up.name] / scale, squares / len(tokens) / scale, 1e-4)
    close(made.diagonal[up.name] / scale, plain / len(tokens) / scale, 1e-4)


def test_the_inverse_is_the_dense_one() -> None:
    """G written out as a matrix over all weights of a layer, solved by NumPy."""
    model, tokens = model_of(PLAIN), sequences(20)
    made = fit_factors(model, tokens, FactorSettings(diagonal=True))
    gradients = sequence_gradients(model, made.matrices, sequences(3, seed=1))
    for method, own in (("ekfac", made.squares), ("kfac", made.variances("kfac")), ("diagonal", made.diagonal)):
        for damping in (None, 0.5):
            found = made.precondition(gradients, method, damping)
            for matrix in made.matrices:
                name = matrix.name
                for layer in range(2):
                    basis = np.kron(made.left[name][layer], made.right[name][layer])
                    basis = np.eye(len(basis)) if method == "diagonal" else basis
                    held = own[name][layer]
                    dense = basis @ np.diag(held.reshape(-1)) @ basis.T
                    dense += np.eye(len(basis)) * (0.1 * held.mean() if damping is None else damping)
                    wanted = np.linalg.solve(dense, gradients[name][:, layer].reshape(3, -1).T).T
                    got = found[name][:, layer].reshape(3, -1)
                    close(got / np.abs(wanted).max(), wanted / np.abs(wanted).max(), 1e-6, f"{method} {name}")


def test_ekfac_is_the_exact_inverse_where_gradients_are_products() -> None:
    """One predicted token a sequence, and a Fisher matrix whose eigenvectors are products: nothing is approximated."""
    rng = np.random.default_rng(0)
    a, g = np.linalg.qr(rng.standard_normal((4, 4)))[0], np.linalg.qr(rng.standard_normal((3, 3)))[0]
    slopes = np.array([np.outer(x, y) * scale for x in a.T for y in g.T for scale in rng.uniform(0.5, 2, 2)])
    exact = np.einsum("nio,njp->iojp", slopes, slopes).reshape(12, 12) / len(slopes)
    inputs = np.einsum("nio,njo->ij", slopes, slopes)[None]
    outputs = np.einsum("nio,nip->op", slopes, slopes)[None]
    (_, left), (_, right) = eigenbases(inputs), eigenbases(outputs)
    turned = left[0].T @ slopes @ right[0]
    query = rng.standard_normal((4, 3))
    found = inverse_product(query[None], 1 / (np.square(turned).mean(0) + 0.1)[None], left, right)[0]
    close(found.reshape(-1), np.linalg.solve(exact + 0.1 * np.eye(12), query.reshape(-1)), 1e-5)  # in float32


def test_parts_sum_to_the_whole() -> None:
    """By layer, matrix and token, of padded and partly scored sequences, against products of whole gradients."""
    model, tokens, queries = model_of(CONFIGS["gated, no biases"]), sequences(), sequences(3, seed=2)
    made = fit_factors(model, tokens, FactorSettings(groups=("mlp", "attention")))
    scored = [np.arange(len(ids)) >= 1 + len(ids) // 3 for ids in tokens.ids]
    asked = made.precondition(sequence_gradients(model, made.matrices, queries))
    found = pairwise(model, made.matrices, asked, tokens, scored)
    slopes = sequence_gradients(model, made.matrices, tokens, scored)
    wanted = np.stack([np.einsum("qljo,nljo->qnl", asked[m.name], slopes[m.name]) for m in made.matrices], 2)
    scale = np.abs(wanted).max()
    close(found / scale, wanted / scale, 1e-5)
    full = pairwise(model, made.matrices, low_rank(asked, 12), tokens, scored)
    close(full / scale, wanted / scale, 1e-5)
    few = pairwise(model, made.matrices, low_rank(asked, 2), tokens, scored).sum((2, 3))
    assert np.corrcoef(few.reshape(-1), wanted.sum((2, 3)).reshape(-1))[0, 1] > 0.9
    tokenwise = by_token(model, made.matrices, asked, tokens, scored)
    for row, ids in enumerate(tokens.ids):
        assert tokenwise[row].shape == (3, len(ids))
        close(tokenwise[row].sum(1) / scale, wanted[:, row].sum((1, 2)) / scale, 1e-5)


def test_self_influence_is_a_sequences_influence_on_itself() -> None:
    model, tokens = model_of(PLAIN), sequences()
    made = fit_factors(model, tokens, FactorSettings())
    for method in ("ekfac", "kfac"):
        asked = made.precondition(sequence_gradients(model, made.matrices, tokens), method)
        whole = pairwise(model, made.matrices, asked, tokens).sum((2, 3))
        found = self_influence(model, made, tokens, method=method)
        close(found / whole.max(), np.diag(whole) / whole.max(), 1e-5)
        assert (found > 0).all()


def test_one_pass_gives_scores_and_what_they_are_divided_by() -> None:
    model, tokens = model_of(PLAIN), sequences()
    made = fit_factors(model, tokens, FactorSettings())
    asked = made.precondition(sequence_gradients(model, made.matrices, sequences(3, seed=2)))
    scored = [np.arange(len(ids)) >= len(ids) // 2 for ids in tokens.ids]
    own = self_influence(model, made, tokens, scored)
    for queries in (asked, low_rank(asked, 12)):
        found, root = normalised(model, made, queries, tokens, scored)
        close(root / root.max(), np.sqrt(own) / root.max(), 1e-5)
        wanted = pairwise(model, made.matrices, queries, tokens, scored).sum((2, 3)) / np.sqrt(own)
        close(found / np.abs(wanted).max(), wanted / np.abs(wanted).max(), 1e-5)


def test_a_workdir_keeps_parts_and_refuses_other_factors(tmp_path, monkeypatch) -> None:
    model, tokens = model_of(PLAIN), sequences(30)
    settings = FactorSettings(batch_tokens=16, parts=4)
    whole = fit_factors(model, tokens, settings)
    real, calls = fitting._sums, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(fitting, "_sums", dies)
    with pytest.raises(KeyboardInterrupt):
        fit_factors(model, tokens, settings, tmp_path)
    monkeypatch.setattr(fitting, "_sums", lambda *args: calls.append(1) or real(*args))
    calls.clear()
    again = fit_factors(model, tokens, settings, tmp_path)
    assert len(calls) == 3, "parts that were finished are read"
    for name, values in whole.squares.items():
        np.testing.assert_array_equal(values, again.squares[name])
    with pytest.raises(InputError, match="seed"):
        fit_factors(model, tokens, dataclasses.replace(settings, seed=1), tmp_path)
    with pytest.raises(InputError, match="scored"):
        fit_factors(model, tokens, settings, tmp_path, scored=[np.arange(len(ids)) > 1 for ids in tokens.ids])


@pytest.mark.slow
def test_three_ways_without_factors_and_what_they_approximate() -> None:
    """G by products is the covariance of gradients with drawn labels; the solvers agree, and EK-FAC comes near."""
    model = model_of(dataclasses.replace(PLAIN, layers=1, width=4, mlp_width=5))
    tokens, queries = sequences(12), sequences(4, seed=3)
    chosen = matrices(model.config)
    product = curvature.gauss_newton(model, chosen, tokens)
    size = sum(m.rows * m.outputs for m in chosen)
    dense = np.stack([product(row) for row in np.eye(size)])
    close(dense, dense.T, 1e-5 * np.abs(dense).max())
    assert np.linalg.eigvalsh(dense).min() > -1e-5 * np.abs(dense).max()
    # By hand: probabilities of one sequence's tokens and gradients for every label.
    drawn = np.zeros_like(dense)
    for ids in tokens.ids:
        row, mask = jnp.asarray(ids)[None], jnp.ones((1, len(ids)), bool)
        p = np.asarray(jax.nn.softmax(model(row, mask).logits()[0]))
        slope = jax.jit(jax.grad(lambda params, label, place, row=row, mask=mask: sequence_losses(
            params, model.config, row, mask, jnp.full_like(row, label), place).sum()))
        for t, label in itertools.product(range(len(ids) - 1), range(13)):
            slopes = slope(model.params, label, (np.arange(len(ids)) == t)[None])["layers"]
            flat = curvature.flatten({m.name: weight(slopes, m) for m in chosen}, chosen)
            drawn += p[t, label] * np.outer(flat, flat) / len(tokens)
    close(dense / np.abs(drawn).max(), drawn / np.abs(drawn).max(), 1e-4)
    asked = curvature.flatten(sequence_gradients(model, chosen, queries), chosen)
    damping = 0.1 * np.trace(dense) / size
    wanted = curvature.exact(product, asked, damping)
    for found in (curvature.conjugate_gradient(product, asked, damping, steps=400),
                  curvature.lissa(product, asked, damping, steps=3000)):
        close(found / np.abs(wanted).max(), wanted / np.abs(wanted).max(), 2e-3)
    many = sequences(500, seed=4)  # a label of each token is drawn once, so variances need many sequences
    wanted = curvature.exact(curvature.gauss_newton(model, chosen, many), asked, damping)
    made = fit_factors(model, many, FactorSettings())
    slopes = curvature.flatten(sequence_gradients(model, chosen, tokens), chosen)
    score = lambda inverse: np.corrcoef((inverse @ slopes.T).reshape(-1), (wanted @ slopes.T).reshape(-1))[0, 1]
    by = {method: score(curvature.flatten(made.precondition(
        curvature.unflatten(asked, chosen, 1), method, damping), chosen)) for method in ("ekfac", "kfac", "dot")}
    assert by["ekfac"] > 0.7 and by["ekfac"] > by["dot"] + 0.2, by
    with pytest.raises(InputError, match="larger"):
        curvature.lissa(product, asked[:1], damping, steps=3000, scale=damping)


def test_labels_are_drawn_as_the_model_has_them() -> None:
    """By a chi-squared test over 20,000 draws; what has no probability is never drawn, whatever the number."""
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, 40), jnp.float32).at[jnp.array([0, 7, 39])].set(-jnp.inf)
    count = 20_000
    uniform = jax.random.uniform(jax.random.key(1), (count,))
    drawn = drawn_labels(jnp.broadcast_to(logits, (count, 40)), uniform)
    seen = np.bincount(np.asarray(drawn), minlength=40)
    expected = np.asarray(jax.nn.softmax(logits), np.float64) * count
    possible = expected > 0
    assert seen[~possible].sum() == 0
    assert scipy.stats.chisquare(seen[possible], expected[possible] / expected.sum() * count).pvalue > 0.01
    ends = drawn_labels(jnp.broadcast_to(logits[:39], (2, 39)), jnp.array([0, np.nextafter(np.float32(1), 0)]))
    assert ends.tolist() == [1, 38]


def test_the_loss_of_drawn_labels_is_the_model_s_entropy() -> None:
    """Its mean over 20,000 draws lies within four standard errors; labels drawn evenly would lie far above."""
    model, count = model_of(PLAIN), 20_000
    hidden = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (6,)), (1, count, 6))
    losses = label_losses(model.params, model.config, hidden, jax.random.uniform(jax.random.key(1), (1, count)),
                          jnp.ones((1, count), bool), drawn_labels)[0]
    p = np.asarray(jax.nn.softmax(unembed(model.params, model.config, hidden[0, 0])), np.float64)
    entropy = -(p * np.log(p)).sum()
    error = np.sqrt(((p * np.log(p) ** 2).sum() - entropy**2) / count)
    assert abs(losses[0] / count - entropy) < 4 * error
    assert -np.log(p).mean() - entropy > 40 * error


def test_labels_do_not_depend_on_how_many_logits_are_made_at_once(monkeypatch) -> None:
    model = model_of(PLAIN)
    keys = jax.random.split(jax.random.key(0))
    hidden, uniform = jax.random.normal(keys[0], (4, 5, 6)), jax.random.uniform(keys[1], (4, 5))
    losses = lambda: label_losses(model.params, model.config, hidden, uniform, jnp.ones((4, 5), bool), drawn_labels)[0]
    whole = losses()
    monkeypatch.setattr(objectives, "LOGITS_AT_ONCE", 1)
    close(losses(), whole, BATCHING)


def test_blocks_of_covariances() -> None:
    covariance = np.cov(np.random.default_rng(0).standard_normal((6, 40)))[None]
    _, vectors = eigenbases(covariance, 2)
    assert (vectors[0, :3, 3:] == 0).all() and (vectors[0, 3:, :3] == 0).all()
    close(vectors[0] @ vectors[0].T, np.eye(6), 1e-12)


def test_bad_input_is_named() -> None:
    model, tokens = model_of(PLAIN), sequences()
    made = fit_factors(model, tokens, FactorSettings())
    with pytest.raises(InputError, match="another|is of|model"):
        made.require(dataclasses.replace(model, fingerprint="other"))
    with pytest.raises(InputError, match="completion"):
        sequence_gradients(model, made.matrices, tokens, [np.zeros(len(ids), bool) for ids in tokens.ids])
    with pytest.raises(InputError, match="diagonal"):
        made.variances("diagonal")
    with pytest.raises(InputError, match="not finite"):
        eigenbases(np.full((1, 2, 2), np.nan))
    with pytest.raises(InputError, match="decoder"):
        fit_factors(dataclasses.replace(model, config=dataclasses.replace(PLAIN, causal=False)), tokens)
    with pytest.raises(InputError, match="groups"):
        matrices(PLAIN, ("heads",))
