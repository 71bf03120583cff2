"""The general training loop: any loss, any parameters, a frozen rest; resumable to the same bytes."""

import dataclasses
import functools
import importlib.metadata
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from xlingjax.errors import InputError, require_least
from xlingjax.models.weights import fingerprint_params
from xlingjax.precision import full_precision
from xlingjax.training.checkpoints import RunFolder
from xlingjax.training.optimiser import OptimiserSettings, make_optimiser, schedule
from xlingjax.training.stepping import take_steps

COMPUTE = ("float32", "bfloat16")
Loss = Callable[[PyTree, PyTree, PyTree, Key[Array, ""]], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """What decides the result of a fit, beside its loss, data and parameters.

    Attributes:
        steps: updates in all.
        optimiser: the optimiser and its schedule.
        save_every: the state is saved, and a line of metrics written, every so many steps.
        evaluate_every: steps between evaluations; 0: at the last step only.
        patience: evaluations without improvement after which the fit ends; 0: never.
        accumulate: parts a batch is cut into, whose gradients are summed before the update.
        compute: "float32", or "bfloat16": the loss sees 16 bits, parameters and moments keep 32.
        seed: of the keys that the loss gets.
    """

    steps: int
    optimiser: OptimiserSettings = OptimiserSettings()
    save_every: int = 100
    evaluate_every: int = 0
    patience: int = 0
    accumulate: int = 1
    compute: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, {"steps": 1, "save_every": 1, "evaluate_every": 0, "patience": 0, "accumulate": 1})
        if self.compute not in COMPUTE:
            raise InputError(f"compute is {self.compute!r}; choose one of {', '.join(COMPUTE)}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed} is not between 0 and 2**32 - 1")
        if self.patience and not self.evaluate_every:
            raise InputError(f"patience is {self.patience} without evaluations to wait for; give evaluate_every")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a fit ends with.

    Attributes:
        params: float32; those with the best evaluation, or the last ones where nothing is evaluated.
        step: after which `params` stood.
        metrics: lines in order of steps, each with `step`, `loss` (mean since the line before), `learning_rate` and
            `gradient_norm` (of that step), and after evaluations `evaluation`, name -> value.
    """

    params: PyTree = dataclasses.field(repr=False)
    step: int
    metrics: list[dict[str, Any]] = dataclasses.field(repr=False)


def fit(
    loss: Loss, params: PyTree, batches: Callable[[int], PyTree], settings: FitSettings, workdir: str | Path, *,
    about: Mapping[str, Any], frozen: PyTree = None,
    evaluate: Callable[[PyTree], Mapping[str, float]] | None = None, show: Callable[[str], None] | None = None,
) -> Fitted:
    """Minimises a loss over `params`; `frozen` is never differentiated.

    Run again on the same folder it resumes from the last saved step and ends with the same bytes (same machine,
    versions and devices). SIGTERM and SIGINT save the step before they end it.

    Args:
        loss: (params, frozen, batch, key) -> (sum, count). A step's loss is the sum over the count, both added up
            over the parts of an accumulated batch. Programs are kept by `loss`: a loss that is equal (the same
            function, or a frozen dataclass with `__call__` and equal fields) compiles nothing anew.
        params: what is learned, a pytree of floats.
        batches: step (1, 2, ...) -> arrays that lead with the batch axis; a function of the step alone.
        settings: all else.
        workdir: run.json, metrics.jsonl and the state.
        about: what the run is, JSON values: data, model, loss. Another one in the folder is refused. Settings and
            the bytes of `params` and `frozen` are added here.
        frozen: what the loss reads beside `params`. It costs no gradient and no optimiser state.
        evaluate: parameters -> name -> value; the first value, the lower the better, decides which parameters are
            returned and when patience ends.
        show: gets what the run needs before it starts; a progress bar then runs on stderr.

    Raises:
        InputError: the folder holds another run or is in use, a full disk, a batch that `accumulate` does not
            divide, a loss, gradient or evaluation that is not finite (with its step).

    >>> import tempfile
    >>> def squares(params, frozen, batch, key):
    ...     return ((batch @ params["w"] - batch @ frozen) ** 2).sum(), batch.shape[0]
    >>> x, w = jax.random.normal(jax.random.key(0), (64, 3)), jnp.array([1.0, -2.0, 3.0])
    >>> settings = FitSettings(200, OptimiserSettings(0.1, weight_decay=0.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fitted = fit(squares, {"w": jnp.zeros(3)}, lambda step: x, settings, folder, about={}, frozen=w)
    >>> fitted.step, bool(jnp.allclose(fitted.params["w"], w, atol=1e-2))
    (200, True)
    """
    params, frozen = _cast(params, "float32"), _cast(frozen, settings.compute)
    identity = {
        "about": dict(about), "settings": dataclasses.asdict(settings), "start": fingerprint_params(params),
        "frozen": fingerprint_params(frozen), "evaluated": evaluate is not None,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax")},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    with RunFolder(workdir) as folder:
        folder.claim(identity)
        return _Fit(loss, batches, settings, folder, frozen, evaluate).run(params, show)


@dataclasses.dataclass(frozen=True)
class Programs:
    """`initial`: params -> state; `step`: (state, frozen, batch, key) -> (state, loss, gradient norm), jitted."""

    initial: Callable[[PyTree], dict]
    step: Any


@functools.lru_cache(maxsize=32)
def programs(loss: Loss, optimiser: OptimiserSettings, steps: int, accumulate: int, compute: str) -> Programs:
    """The programs of fits that differ in seed, data and values only."""
    transformation = make_optimiser(optimiser, steps)

    @functools.partial(jax.jit, donate_argnums=0)
    @full_precision
    def step(state: dict, frozen: PyTree, batch: PyTree, key: Array) -> tuple[dict, Array, Array]:
        params = state["params"]

        def total(params: PyTree, part: PyTree, key: Array) -> tuple[Array, Array]:
            value, count = loss(_cast(params, compute), frozen, part, key)
            return jnp.asarray(value, jnp.float32), jnp.asarray(count, jnp.float32)

        slope = jax.value_and_grad(total, has_aux=True)
        if accumulate == 1:
            (value, count), gradients = slope(params, batch, key)
        else:
            parts = jax.tree.map(lambda x: x.reshape(accumulate, x.shape[0] // accumulate, *x.shape[1:]), batch)

            def add(sums: PyTree, part: tuple) -> tuple[PyTree, None]:
                return jax.tree.map(jnp.add, sums, slope(params, *part)), None

            zero = ((jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, params))
            ((value, count), gradients), _ = jax.lax.scan(add, zero, (parts, jax.random.split(key, accumulate)))
        count = jnp.maximum(count, 1)
        gradients = jax.tree.map(lambda g: g / count, gradients)
        with jax.numpy_dtype_promotion("standard"):  # optax fails under strict
            updates, optimised = transformation.update(gradients, state["optimiser"], params)
            params = optax.apply_updates(params, updates)
        return {**state, "params": params, "optimiser": optimised}, value / count, optax.tree.norm(gradients)

    @jax.jit
    def initial(params: PyTree) -> dict:
        return {"params": params, "optimiser": transformation.init(params)}

    return Programs(initial, step)


def compiled_step(loss: Loss, params: PyTree, batch: PyTree, settings: FitSettings, frozen: PyTree = None) -> Any:
    """The compiled step of a fit: its `memory_analysis()` and `cost_analysis()` say what a step needs."""
    made = programs(loss, settings.optimiser, settings.steps, settings.accumulate, settings.compute)
    state = jax.eval_shape(made.initial, _cast(params, "float32"))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return made.step.lower(state, jax.eval_shape(lambda: _cast(frozen, settings.compute)), batch, key).compile()


class _Fit:
    """One fit: its programs, its folder, and what has been seen since the last line of metrics."""

    def __init__(
        self, loss: Loss, batches: Callable[[int], PyTree], settings: FitSettings, folder: RunFolder, frozen: PyTree,
        evaluate: Callable[[PyTree], Mapping[str, float]] | None,
    ) -> None:
        self.batches, self.settings, self.folder, self.frozen = batches, settings, folder, frozen
        self.evaluate = evaluate
        self.programs = programs(loss, settings.optimiser, settings.steps, settings.accumulate, settings.compute)
        self.rate = schedule(settings.optimiser, settings.steps)
        self.losses: list[float] = []
        self.norm = math.nan
        self.best: list = []  # step, value, evaluations since

    def run(self, params: PyTree, show: Callable[[str], None] | None) -> Fitted:
        """From the last saved step to the last one."""
        settings, done = self.settings, self.folder.saved_step()
        state = self.programs.initial(jax.tree.map(jnp.copy, params))  # the state's buffers are used up by each step
        if self.evaluate is not None:
            state["best"] = jax.tree.map(jnp.copy, params)
        if show is not None:
            show(self._plan(params) + (f"\nresuming   after step {done:,}" if done is not None else ""))
        self.folder.forget_after(done)
        if done is not None:
            state, (self.losses, self.best) = self.folder.load_state(jax.eval_shape(lambda: state))
        self.state, self.key = state, jax.random.key(settings.seed)
        take_steps(self, done or 0, settings.steps, label="fit", show=None if show is None else True)
        metrics = self.folder.metrics()
        if self.best:
            return Fitted(self.state["best"], self.best[0], metrics)
        return Fitted(self.state["params"], settings.steps, metrics)

    def over(self) -> bool:
        return bool(self.settings.patience and self.best and self.best[2] >= self.settings.patience)

    def take(self, step: int) -> tuple[Array, Array]:
        batch = self.batches(step)
        self._check(batch)
        self.state, loss, norm = self.programs.step(
            self.state, self.frozen, batch, jax.random.fold_in(self.key, step))
        return loss, norm

    def due(self, step: int) -> bool:
        return self._evaluating(step) or step == self.settings.steps or step % self.settings.save_every == 0

    def _evaluating(self, step: int) -> bool:
        every = self.settings.evaluate_every
        return self.evaluate is not None and (step == self.settings.steps or bool(every) and step % every == 0)

    def keep(self, step: int, stopping: bool) -> None:
        if self.due(step):
            self._write(step)
        else:
            self.folder.save_state(step, self.state, [self.losses, self.best])

    def _check(self, batch: PyTree) -> None:
        for leaf in jax.tree.leaves(batch):
            if leaf.shape[0] % self.settings.accumulate:
                raise InputError(f"a batch of {leaf.shape[0]} rows cannot be cut into accumulate="
                                 f"{self.settings.accumulate} equal parts; give a number that divides it")

    def settle(self, step: int, made: tuple[Array, Array]) -> str:
        value, self.norm = (float(one) for one in made)
        if not (math.isfinite(value) and math.isfinite(self.norm)):
            raise InputError(
                f"training diverged at step {step} (loss {value}, gradient norm {self.norm}); lower the learning "
                f"rate {self.settings.optimiser.learning_rate:g} or warm up longer, in another workdir")
        self.losses.append(value)
        return f"loss {value:.3f}"

    def _write(self, step: int) -> None:
        """Evaluates and writes what is due at a step, the state last."""
        state = self.state
        line: dict[str, Any] = {
            "step": step, "loss": math.fsum(self.losses) / len(self.losses),
            "learning_rate": float(self.rate(step - 1)), "gradient_norm": self.norm}
        if self.evaluate is not None and self._evaluating(step):
            values = {name: float(value) for name, value in self.evaluate(state["params"]).items()}
            name, value = next(iter(values.items()))
            if not math.isfinite(value):
                raise InputError(f"the evaluation {name} is {value} at step {step}; evaluate on text that has what "
                                 "is counted, or lower the learning rate, in another workdir")
            line["evaluation"] = values
            if not self.best or value < self.best[1]:
                self.best = [step, value, 0]
                state["best"] = jax.tree.map(jnp.copy, state["params"])
            else:
                self.best[2] += 1
        self.folder.report(line)
        self.losses = []
        self.folder.save_state(step, state, [self.losses, self.best])

    def _plan(self, params: PyTree) -> str:
        def numbers(tree: PyTree) -> int:
            return sum(leaf.size for leaf in jax.tree.leaves(tree))

        return (f"fit        {numbers(params):,} parameters, {numbers(self.frozen):,} frozen, "
                f"{self.settings.steps:,} steps")


def _cast(tree: PyTree, dtype: str) -> PyTree:
    """The tree as arrays, its floats in `dtype`."""

    def cast(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)
