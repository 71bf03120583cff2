"""Multinomial logistic-regression probes, many at once and to the minimum.

All runs of a layer (seeds, splits, training sizes, control tasks) are columns of one matrix, so an
iteration is a few matrix products whatever their number. The logits are linear in the weights, so
a line search costs no product at all; the start of the L-BFGS recursion is the inverse Hessian at
zero weights, which makes it insensitive to the scale of the features.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError

MEMORY = 10  # pairs that L-BFGS keeps
ITERATIONS = 1000
SEARCH = 12  # step lengths tried in one iteration
TOLERANCE = 2e-9  # remaining decrease, as the quadratic model has it, over the objective

AnyArray = Array | np.ndarray


def fit_probes(
    x: Float[AnyArray, "L S D"],
    y: Int[AnyArray, "R S"],
    weight: Float[AnyArray, "R S"],
    classes: int,
    l2: Float[AnyArray, ""] | float = 1.0,
) -> Float[Array, "L R D+1 classes"]:
    """The minimum of sum_i weight_i CE_i + l2/2 |W without bias|^2 on every layer and run.

    scikit-learn's `LogisticRegression(C=1/l2)` on the samples with their weights, converged; with
    two classes its `C=2/l2`, as both classes have weights here. The bias is not penalised.

    Args:
        x: features, the same samples for all runs.
        y: the class of each sample in each run, from 0.
        weight: how much each sample counts; 0 leaves it out.
        classes: how many there are; another number compiles again, another `l2` does not.
        l2: strength of the penalty against the sum of the losses.

    Returns:
        W, last row the bias; each row sums to 0 over the classes that occur. A class without weight
        in a run has weights 0 and bias -inf there: it is never predicted.

    Raises:
        InputError: where shapes do not fit.

    >>> x = np.random.default_rng(0).standard_normal((1, 200, 2)).astype(np.float32)
    >>> y = (x[0, :, 0] > 0).astype(int)[None]
    >>> w = fit_probes(x, y, np.ones((1, 200), np.float32), classes=2)
    >>> predicted, _ = score_probes(x, y, w)
    >>> w.shape, float((predicted == y).mean()) > 0.98
    ((1, 1, 3, 2), True)
    """
    if x.ndim != 3 or y.shape != weight.shape or y.shape[1:] != x.shape[1:2]:
        raise InputError(
            f"x {x.shape}, y {y.shape} and weight {weight.shape} do not fit; "
            "give [layer, sample, feature], [run, sample] and [run, sample]")
    dtype = jnp.result_type(x)
    weight, l2 = jnp.asarray(weight, dtype), jnp.asarray(l2, dtype)
    return _fit(jnp.asarray(x), jnp.asarray(y), weight, classes, l2)


@jax.jit
def score_probes(
    x: Float[AnyArray, "L S D"], y: Int[AnyArray, "R S"], w: Float[AnyArray, "L R D+1 classes"],
) -> tuple[Int[Array, "L R S"], Float[Array, "L R S"]]:
    """The predicted class of every sample, and the log-probability (nats) of its class `y`."""

    def layer(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        features, weights = pair
        logits = jnp.einsum("sd,rdc->rsc", features, weights[:, :-1]) + weights[:, -1][:, None]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], axis=-1)[..., 0]
        return jnp.argmax(logits, axis=-1), chosen

    return jax.lax.map(layer, (x, w))


@jax.jit
def probe_gradients(
    x: Float[AnyArray, "L S D"],
    y: Int[AnyArray, "R S"],
    weight: Float[AnyArray, "R S"],
    w: Float[AnyArray, "L R D+1 classes"],
    l2: Float[AnyArray, ""] | float = 1.0,
) -> Float[Array, "L R"]:
    """How far from the minimum: the gradient's largest entry, with each feature's scale divided
    out, over the sum of the weights. Below 1e-4 nothing visible changes any more."""

    def layer(pair: tuple[Array, Array]) -> Float[Array, "R"]:
        features, weights = pair
        counts = jnp.any(weight != 0, axis=0)[:, None]
        features = jnp.where(counts, features, 0)
        scale = jnp.sqrt(jnp.sum(features**2, axis=0) / jnp.sum(counts)) + 1e-30
        logits = jnp.einsum("sd,rdc->rsc", features, weights[:, :-1]) + weights[:, -1][:, None]
        truth = jax.nn.one_hot(y, w.shape[-1], dtype=x.dtype)
        off = (jax.nn.softmax(logits) - truth) * weight[..., None]
        slope = jnp.einsum("sd,rsc->rdc", features, off)
        slope = jnp.abs(slope + jnp.asarray(l2, x.dtype) * weights[:, :-1]) / scale[:, None]
        free = jnp.abs(jnp.sum(off, axis=1))
        largest = jnp.maximum(jnp.max(slope, axis=(1, 2)), jnp.max(free, axis=1))
        return largest / jnp.sum(weight, axis=1)

    return jax.lax.map(layer, (x, w))


class _State(NamedTuple):
    step: Int[Array, ""]
    w: Float[Array, "D R C"]  # features and bias
    logits: Float[Array, "S R C"]
    value: Float[Array, "R"]  # of the objective
    gradient: Float[Array, "D R C"]
    scaled: Float[Array, "D R C"]  # the start matrix times the gradient
    moves: Float[Array, "M D R C"]  # the last changes of w, a ring
    turns: Float[Array, "M D R C"]  # and of the gradient
    bends: Float[Array, "M D R C"]  # and of `scaled`
    inverse: Float[Array, "M R"]  # 1 / (move . turn), 0 where there is none
    done: Bool[Array, "R"]


@functools.partial(jax.jit, static_argnums=3)
def _fit(x: Array, y: Array, weight: Array, classes: int, l2: Array) -> Array:
    counts = jnp.any(weight != 0, axis=0)[:, None]
    truth = jax.nn.one_hot(y.T, classes, dtype=x.dtype)  # [S, R, C]
    weight = weight.T[..., None]
    absent = jnp.where(jnp.sum(truth * weight, axis=0) > 0, 0, -jnp.inf).astype(x.dtype)  # [R, C]

    def layer(features: Float[Array, "S D"]) -> Float[Array, "R D+1 C"]:
        features = jnp.where(counts, features, 0)
        # The bias is free, so shifting the features moves nothing but the bias.
        mean = jnp.sum(features, axis=0) / jnp.maximum(jnp.sum(counts), 1).astype(x.dtype)
        centred = features - mean
        ones = jnp.ones_like(centred[:, :1])
        w = _minimise(jnp.append(centred, ones, axis=1), truth, weight, absent, l2)
        bias = w[-1] - jnp.einsum("d,drc->rc", mean, w[:-1]) + absent
        return jnp.moveaxis(jnp.concatenate([w[:-1], bias[None]]), 0, 1)

    return jax.lax.map(layer, x)


def _minimise(
    x: Float[Array, "S D"], truth: Float[Array, "S R C"], weight: Float[Array, "S R 1"],
    absent: Float[Array, "R C"], l2: Float[Array, ""],
) -> Float[Array, "D R C"]:
    """L-BFGS from zero, for every run until it has converged."""
    width, (_, runs, classes) = x.shape[1], truth.shape
    penalty = jnp.append(jnp.full(width - 1, l2), jnp.zeros_like(l2)[None])[:, None, None]
    start = _inverse_hessian(x, weight, penalty[:, 0, 0], classes)

    def logit(w: Array) -> Array:
        return (x @ w.reshape(width, -1)).reshape(-1, runs, classes)

    def times_start(gradient: Array) -> Array:
        return (start @ gradient.reshape(width, -1)).reshape(gradient.shape)

    def surplus(logits: Array) -> Array:
        """Probabilities minus truth, weighted; p - 1 of the truth as minus all the others."""
        others = jax.nn.softmax(logits + absent) * (1 - truth)
        return (others - truth * jnp.sum(others, axis=-1, keepdims=True)) * weight

    def slope(w: Array, logits: Array) -> Array:
        off = surplus(logits)
        return (x.T @ off.reshape(len(x), -1)).reshape(w.shape) + penalty * w

    def objective(w: Array, logits: Array) -> Array:
        # log(1 + sum of exp(other - true)) keeps its digits for samples far on the right side.
        true = jnp.sum(jnp.where(truth > 0, logits, 0), axis=-1, keepdims=True)
        others = jnp.where(truth > 0, -jnp.inf, logits + absent - true)
        loss = jnp.sum(jax.nn.softplus(jax.nn.logsumexp(others, axis=-1)) * weight[..., 0], axis=0)
        return loss + jnp.sum(penalty * w**2, axis=(0, 2)) / 2

    def direction(state: _State) -> Array:
        """H gradient by the two-loop recursion; the newest pair lies at (step - 1) mod MEMORY."""
        alphas = jnp.zeros((MEMORY, runs), x.dtype)

        def back(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            q, h, alphas = carry
            at = (state.step - 1 - i) % MEMORY
            alpha = state.inverse[at] * _dot(state.moves[at], q)
            q, h = q - alpha[:, None] * state.turns[at], h - alpha[:, None] * state.bends[at]
            return q, h, alphas.at[at].set(alpha)

        _, h, alphas = jax.lax.fori_loop(
            0, MEMORY, back, (state.gradient, state.scaled, alphas))
        # The start matrix, scaled to the curvature met last: losses flatten as probes grow sure.
        last = (state.step - 1) % MEMORY
        bent = state.inverse[last] * _dot(state.turns[last], state.bends[last])
        h = h / jnp.where(bent > 0, bent, 1)[:, None]

        def forth(i: Array, h: Array) -> Array:
            at = (state.step + i) % MEMORY
            beta = state.inverse[at] * _dot(state.turns[at], h)
            return h + (alphas[at] - beta)[:, None] * state.moves[at]

        return jax.lax.fori_loop(0, MEMORY, forth, h)

    def search(state: _State, p: Array, dp: Array) -> Array:
        """A step length a run at which the slope along -p has fallen enough, by bracketing."""
        linear, square = jnp.sum(penalty * state.w * p, (0, 2)), jnp.sum(penalty * p * p, (0, 2))

        def along(t: Array) -> Array:  # derivative of the objective at w - t p
            off = surplus(state.logits - t[:, None] * dp)
            return -jnp.sum(off * dp, axis=(0, 2)) - linear + t * square

        first = -_dot(state.gradient, p)

        def unsettled(carry: tuple[Any, ...]) -> Array:
            return (carry[0] < SEARCH) & ~jnp.all(carry[-1])

        def tighten(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            count, t, low, at_low, high, at_high, ok = carry
            now = along(t)
            fine = ok | ((now >= 0.9 * first) & (now <= -0.5 * first))
            up = now < 0
            low, at_low = jnp.where(up & ~fine, t, low), jnp.where(up & ~fine, now, at_low)
            high, at_high = jnp.where(~up & ~fine, t, high), jnp.where(~up & ~fine, now, at_high)
            bracketed = jnp.isfinite(high)
            share = jnp.clip(at_low / (at_low - at_high), 0.1, 0.9)
            between = jnp.where(bracketed, low + share * (high - low), 2.5 * t)
            return count + 1, jnp.where(fine, t, between), low, at_low, high, at_high, fine

        zero = jnp.zeros(runs, x.dtype)
        infinite = jnp.full(runs, jnp.inf, x.dtype)
        begin: tuple[Any, ...] = (
            0, jnp.ones(runs, x.dtype), zero, first, infinite, infinite, state.done)
        return jax.lax.while_loop(unsettled, tighten, begin)[1]

    def iterate(state: _State) -> _State:
        p = direction(state)
        done = state.done | (_dot(state.gradient, p) <= TOLERANCE * state.value)
        dp = logit(p)
        t = search(state._replace(done=done), p, dp)
        # Where rounding has led the recursion astray, it begins again from the start matrix; where
        # that does not help either, float32 has reached its end.
        then = objective(state.w - t[:, None] * p, state.logits - t[:, None] * dp)
        worse = then > state.value * (1 + 1e-6)
        kept = done | worse
        t = jnp.where(kept, 0, t)[:, None]
        fresh = ~jnp.any(state.inverse > 0, axis=0)
        w, logits = state.w - t * p, state.logits - t * dp
        gradient = slope(w, logits)
        scaled = times_start(gradient)
        move, turn = w - state.w, gradient - state.gradient
        curve = _dot(move, turn)
        at = state.step % MEMORY
        known = curve > 0
        inverse = state.inverse.at[at].set(jnp.where(known, 1 / jnp.where(known, curve, 1), 0))
        return _State(
            state.step + 1, w, logits, jnp.where(kept, state.value, then), gradient, scaled,
            state.moves.at[at].set(move), state.turns.at[at].set(turn),
            state.bends.at[at].set(scaled - state.scaled), jnp.where(worse, 0, inverse),
            done | (worse & fresh))

    zeros = jnp.zeros((width, runs, classes), x.dtype)
    pairs = jnp.zeros((MEMORY, *zeros.shape), x.dtype)
    flat = jnp.zeros_like(truth)
    gradient = slope(zeros, flat)
    begin = _State(
        jnp.array(0), zeros, flat, objective(zeros, flat), gradient, times_start(gradient),
        pairs, pairs, pairs,
        jnp.zeros((MEMORY, runs), x.dtype), jnp.zeros(runs, bool))
    return jax.lax.while_loop(
        lambda state: (state.step < ITERATIONS) & ~jnp.all(state.done), iterate, begin).w


def _inverse_hessian(
    x: Float[Array, "S D"], weight: Float[Array, "S R 1"], penalty: Float[Array, "D"], classes: int
) -> Float[Array, "D D"]:
    """That of the objective at zero weights, for sample weights averaged over the runs."""
    mean = jnp.mean(weight, axis=1)
    hessian = x.T @ (x * mean) / classes + jnp.diag(penalty)
    ridge = 1e-6 * jnp.trace(hessian) / len(hessian)
    factor = jax.scipy.linalg.cho_factor(hessian + ridge * jnp.eye(len(hessian), dtype=x.dtype))
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(len(hessian), dtype=x.dtype))


def _dot(a: Float[Array, "D R C"], b: Float[Array, "D R C"]) -> Float[Array, "R"]:
    return jnp.sum(a * b, axis=(0, 2))
