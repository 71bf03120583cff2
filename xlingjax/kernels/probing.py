"""Multinomial logistic-regression probes, many at once and to the minimum.

All runs of a layer (seeds, splits, training sizes, control tasks) are columns of one matrix, so an
iteration is a few matrix products whatever their number. The logits are linear in the weights, so
a line search costs no product at all. The L-BFGS recursion starts from an inverse Hessian, averaged
over runs and classes, at zero weights and once more on the way: that makes it insensitive to the scale
of the features, and halves the iterations where classes come apart and curvature falls.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from xlingjax.errors import InputError
from xlingjax.precision import full_precision

MEMORY = 8  # pairs that L-BFGS keeps
RENEWAL = 8  # the iteration before which the start matrix is computed anew
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
@full_precision
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
@full_precision
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
    w: Float[Array, "R D C"]  # features and bias
    logits: Float[Array, "R S C"]
    value: Float[Array, "R"]  # of the objective
    gradient: Float[Array, "R D C"]
    start: Float[Array, "D D"]  # where the recursion starts: an inverse Hessian, one for all runs and classes
    scaled: Float[Array, "R D C"]  # `start` times the gradient
    moves: Float[Array, "M R D C"]  # the last changes of w, a ring
    turns: Float[Array, "M R D C"]  # and of the gradient
    bends: Float[Array, "M R D C"]  # `start` times these
    inverse: Float[Array, "M R"]  # 1 / (move . turn), 0 where there is none
    done: Bool[Array, "R"]


class _Step(NamedTuple):
    tries: Int[Array, ""]
    t: Float[Array, "R"]  # the step length tried last
    next: Float[Array, "R"]  # and the one to try
    low: Float[Array, "R"]  # too short
    at_low: Float[Array, "R"]  # the slope there
    high: Float[Array, "R"]  # too long
    at_high: Float[Array, "R"]
    ok: Bool[Array, "R"]
    value: Float[Array, "R"]  # of the objective at t
    off: Float[Array, "R S C"]  # probabilities minus truth at t


@functools.partial(jax.jit, static_argnums=3)
@full_precision
def _fit(x: Array, y: Array, weight: Array, classes: int, l2: Array) -> Array:
    counts = jnp.any(weight != 0, axis=0)[:, None]
    truth = jax.nn.one_hot(y, classes, dtype=x.dtype)  # [R, S, C]
    weight = weight[..., None]
    absent = jnp.where(jnp.sum(truth * weight, axis=1, keepdims=True) > 0, 0, -jnp.inf).astype(x.dtype)

    def layer(features: Float[Array, "S D"]) -> Float[Array, "R D+1 C"]:
        features = jnp.where(counts, features, 0)
        # The bias is free, so shifting the features moves nothing but the bias.
        mean = jnp.sum(features, axis=0) / jnp.maximum(jnp.sum(counts), 1).astype(x.dtype)
        centred = features - mean
        ones = jnp.ones_like(centred[:, :1])
        w = _minimise(jnp.append(centred, ones, axis=1), truth, weight, absent, l2)
        bias = w[:, -1:] - jnp.einsum("d,rdc->rc", mean, w[:, :-1])[:, None] + absent
        return jnp.concatenate([w[:, :-1], bias], axis=1)

    return jax.lax.map(layer, x)


def _minimise(
    x: Float[Array, "S D"], truth: Float[Array, "R S C"], weight: Float[Array, "R S 1"],
    absent: Float[Array, "R 1 C"], l2: Float[Array, ""],
) -> Float[Array, "R D C"]:
    """L-BFGS from zero, for every run until it has converged."""
    width, (runs, _, classes) = x.shape[1], truth.shape
    penalty = jnp.append(jnp.full(width - 1, l2), jnp.zeros_like(l2)[None])[:, None]

    def logit(w: Array) -> Array:
        return jnp.einsum("sd,rdc->rsc", x, w)

    def times(start: Array, gradient: Array) -> Array:
        return jnp.einsum("de,rec->rdc", start, gradient)

    def inverse_hessian(logits: Array) -> Array:
        """That of the objective, its curvature in every sample averaged over runs and classes."""
        p = jax.nn.softmax(logits + absent)
        curvature = jnp.mean(jnp.sum(p * (1 - p), -1) * weight[..., 0], axis=0) / (classes - 1)
        hessian = x.T @ (x * curvature[:, None]) + jnp.diag(penalty[:, 0])
        ridge = 1e-6 * jnp.trace(hessian) / width
        unit = jnp.eye(width, dtype=x.dtype)
        return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian + ridge * unit), unit)

    def renewed(state: _State) -> _State:
        start = inverse_hessian(state.logits)
        return state._replace(start=start, scaled=times(start, state.gradient),
                              bends=jnp.einsum("de,mrec->mrdc", start, state.turns))

    def losses(w: Array, logits: Array) -> tuple[Array, Array]:
        """The objective, and probabilities minus truth, weighted; p - 1 of the truth as minus the others."""
        most = jnp.max(logits, axis=-1, keepdims=True)
        others = jnp.exp(logits + absent - most) * (1 - truth)
        total = jnp.sum(others, axis=-1, keepdims=True)
        true = jnp.sum(jnp.where(truth > 0, logits, 0), axis=-1, keepdims=True) - most
        # log(1 + sum of exp(other - true)) keeps its digits for samples far on the right side.
        loss = jnp.sum(jax.nn.softplus(jnp.log(total) - true) * weight, axis=(1, 2))
        off = (others - truth * total) / (total + jnp.exp(true)) * weight
        return loss + _dot(penalty * w, w) / 2, off

    def slope(w: Array, off: Array) -> Array:
        return jnp.einsum("sd,rsc->rdc", x, off) + penalty * w

    def direction(state: _State) -> Array:
        """H gradient by the two-loop recursion; the newest pair lies at (step - 1) mod MEMORY."""
        alphas = jnp.zeros((MEMORY, runs), x.dtype)

        def back(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            q, h, alphas = carry
            at = (state.step - 1 - i) % MEMORY
            alpha = state.inverse[at] * _dot(state.moves[at], q)
            q, h = q - _each(alpha) * state.turns[at], h - _each(alpha) * state.bends[at]
            return q, h, alphas.at[at].set(alpha)

        _, h, alphas = jax.lax.fori_loop(
            0, MEMORY, back, (state.gradient, state.scaled, alphas))
        # The start matrix, scaled to the curvature met last: losses flatten as probes grow sure.
        last = (state.step - 1) % MEMORY
        bent = state.inverse[last] * _dot(state.turns[last], state.bends[last])
        h = h / _each(jnp.where(bent > 0, bent, 1))

        def forth(i: Array, h: Array) -> Array:
            at = (state.step + i) % MEMORY
            beta = state.inverse[at] * _dot(state.turns[at], h)
            return h + _each(alphas[at] - beta) * state.moves[at]

        return jax.lax.fori_loop(0, MEMORY, forth, h)

    def search(state: _State, p: Array, dp: Array) -> _Step:
        """A step length a run at which the slope along -p has fallen enough, by bracketing."""
        first = -_dot(state.gradient, p)
        linear, square = _dot(penalty * state.w, p), _dot(penalty * p, p)

        def unsettled(step: _Step) -> Array:
            return (step.tries < SEARCH) & ~jnp.all(step.ok)

        def tighten(step: _Step) -> _Step:
            value, off = losses(state.w - _each(step.next) * p, state.logits - _each(step.next) * dp)
            now = step.next * square - linear - _dot(off, dp)
            # The slope may rise early and flatten: then it alone would accept a step uphill.
            ok = step.ok | ((now >= 0.9 * first) & (now <= -0.5 * first) & (value <= state.value * (1 + 1e-6)))
            up = now < 0
            low, at_low = (jnp.where(up & ~ok, a, b) for a, b in ((step.next, step.low), (now, step.at_low)))
            high, at_high = (jnp.where(~up & ~ok, a, b) for a, b in ((step.next, step.high), (now, step.at_high)))
            share = jnp.clip(at_low / (at_low - at_high), 0.1, 0.9)
            between = jnp.where(jnp.isfinite(high), low + share * (high - low), 2.5 * step.next)
            return _Step(step.tries + 1, step.next, jnp.where(ok, step.next, between),
                         low, at_low, high, at_high, ok, value, off)

        zero = jnp.zeros(runs, x.dtype)
        one, infinite = zero + 1, zero + jnp.inf
        return jax.lax.while_loop(unsettled, tighten, _Step(
            jnp.array(0), one, one, zero, first, infinite, infinite, state.done, state.value, jnp.zeros_like(dp)))

    def iterate(state: _State) -> _State:
        p = direction(state)
        done = state.done | (_dot(state.gradient, p) <= TOLERANCE * state.value)
        dp = logit(p)
        step = search(state._replace(done=done), p, dp)
        # Where rounding has led the recursion astray, it begins again from the start matrix; where
        # that does not help either, float32 has reached its end.
        lost, fresh = ~step.ok, ~jnp.any(state.inverse > 0, axis=0)
        kept = done | lost
        t = _each(jnp.where(kept, 0, step.t))
        w, logits = state.w - t * p, state.logits - t * dp
        gradient = jnp.where(_each(kept), state.gradient, slope(w, step.off))
        scaled = times(state.start, gradient)
        move, turn = w - state.w, gradient - state.gradient
        curve = _dot(move, turn)
        at = state.step % MEMORY
        known = curve > 0
        inverse = state.inverse.at[at].set(jnp.where(known, 1 / jnp.where(known, curve, 1), 0))
        return _State(
            state.step + 1, w, logits, jnp.where(kept, state.value, step.value), gradient, state.start, scaled,
            state.moves.at[at].set(move), state.turns.at[at].set(turn),
            state.bends.at[at].set(scaled - state.scaled), jnp.where(lost, 0, inverse),
            done | (lost & fresh))

    def phase(state: _State, limit: Array) -> tuple[_State, None]:
        """Iterations up to a limit from a start matrix made for where they begin."""
        unfinished = lambda state: (state.step < limit) & ~jnp.all(state.done)
        return jax.lax.while_loop(unfinished, iterate, renewed(state)), None

    zeros = jnp.zeros((runs, width, classes), x.dtype)
    pairs = jnp.zeros((MEMORY, *zeros.shape), x.dtype)
    flat = jax.lax.optimization_barrier(jnp.zeros_like(truth))  # or the compiler computes with it, and says it is slow
    value, off = losses(zeros, flat)
    begin = _State(
        jnp.array(0), zeros, flat, value, slope(zeros, off), jnp.zeros((width, width), x.dtype), zeros,
        pairs, pairs, pairs, jnp.zeros((MEMORY, runs), x.dtype), jnp.zeros(runs, bool))
    return jax.lax.scan(phase, begin, jnp.array([RENEWAL, ITERATIONS]))[0].w


def _dot(a: Float[Array, "R D C"], b: Float[Array, "R D C"]) -> Float[Array, "R"]:
    return jnp.sum(a * b, axis=(1, 2))


def _each(values: Shaped[Array, "R"]) -> Shaped[Array, "R 1 1"]:
    return values[:, None, None]
