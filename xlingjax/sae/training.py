"""Dictionaries from a stream of activations: several in one compiled step, resumable to the same bytes."""

import contextlib
import dataclasses
import importlib.metadata
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from xlingjax.errors import InputError
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.config import K_KINDS
from xlingjax.sae.dictionary import Dictionary, save_dictionary
from xlingjax.sae.normalising import geometric_median, mean_square, unscaled
from xlingjax.sae.objectives import Program, Run
from xlingjax.sae.packing import latents_of_mesh, pack, place, place_batch, unpack
from xlingjax.sae.planning import TrainPlan
from xlingjax.sae.settings import NO_MOMENTUM, DictionarySpec, TrainSettings
from xlingjax.sae.sparse import LEAST_SHARE
from xlingjax.sae.stream import Stream
from xlingjax.sae.updating import METRICS, first_state, resample, update
from xlingjax.training.checkpoints import RunFolder
from xlingjax.training.stepping import take_steps

_median = jax.jit(geometric_median)


def train_dictionaries(
    stream: Stream, specs: Sequence[DictionarySpec], settings: TrainSettings | None = None,
    workdir: str | Path | None = None, *, mesh: Mesh | None = None, show: Callable[[str], None] | None = None,
) -> tuple[Dictionary, ...]:
    """Trains dictionaries on the same batches; those of one kind in one compiled step.

    Each is what it would be if trained alone, to float32 accuracy. Another seed, sparsity, learning rate or k (up to
    the next power of two) compiles nothing anew. With a `workdir` the run is resumable: killed anywhere and called
    again with the same arguments, it ends with the same bytes; SIGTERM and SIGINT save the step before they end it.

    Args:
        stream: what is read. A stream with targets trains transcoders.
        specs: the dictionaries.
        settings: what they share.
        workdir: metrics.jsonl, the training state, and at the end dictionaries/0, 1, ... as `load_dictionary`
            reads them; None keeps all in memory.
        mesh: latents are split over its axis `model`, tokens over `data`.
        show: gets the plan before training starts; a progress bar then runs on stderr.

    Returns:
        The dictionaries in the order of `specs`; they read raw activations.

    Raises:
        InputError: specs that do not fit the stream, a folder of another experiment or in use, a full disk,
            activations or a loss that are not finite.

    >>> from xlingjax.sae.config import DictionaryConfig
    >>> from xlingjax.sae.stream import ArrayStream
    >>> x = np.random.default_rng(0).standard_normal((1, 256, 8))
    >>> specs = [DictionarySpec(DictionaryConfig("topk", 8, 16, k=k), learning_rate=1e-2) for k in (2, 4)]
    >>> two, four = train_dictionaries(ArrayStream(x, batch_tokens=64), specs, TrainSettings(
    ...     steps=20, warm_up=2, decay=4, sparsity_warm_up=0))
    >>> (two.encode(x[0]) > 0).sum(-1).max().item(), (four.encode(x[0]) > 0).sum(-1).max().item()
    (2, 4)
    """
    settings = TrainSettings() if settings is None else settings
    specs = tuple(specs)
    check_specs(stream, specs)
    with contextlib.ExitStack() as held:
        folder = None
        if workdir is not None:
            folder = held.enter_context(RunFolder(workdir))
            folder.claim({
                "settings": dataclasses.asdict(settings),
                "dictionaries": [{**dataclasses.asdict(spec), "config": spec.config.to_dict()} for spec in specs],
                "stream": stream.identity(),
                "mesh": None if mesh is None else {axis: size for axis, size in mesh.shape.items() if size > 1},
                "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")},
                "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"})
        return _Training(stream, specs, settings, folder, mesh).train(show)


def check_specs(stream: Stream, specs: Sequence[DictionarySpec]) -> None:
    """`InputError` where a dictionary cannot be trained on a stream."""
    if not specs:
        raise InputError("no dictionary is given; give at least one DictionarySpec")
    for number, spec in enumerate(specs):
        config = spec.config
        if spec.activation >= len(stream.places):
            raise InputError(f"dictionary {number} reads activation {spec.activation}, and the stream has "
                             f"{len(stream.places)}; give 0 to {len(stream.places) - 1}")
        if (config.inputs, config.out) != (stream.width, stream.out):
            site, layer = stream.places[spec.activation]
            raise InputError(
                f"dictionary {number} is of width {config.inputs} to {config.out}, and the activations at "
                f"{site or 'the site'}, layer {layer}, are of {stream.width} to {stream.out}; give a config of these")
        if stream.targets is not None and config.centred:
            raise InputError(f"dictionary {number} is a transcoder, so its output's bias says nothing of its input; "
                             "give centred=False")


@dataclasses.dataclass
class _Group:
    """Runs of one program: `members` are their places among the specs, `latents` the padded M."""

    program: Program
    members: list[int]
    latents: int
    runs: Any = None
    state: Any = None


def group_runs(specs: Sequence[DictionarySpec], settings: TrainSettings, mesh: Mesh | None) -> list[_Group]:
    """Specs that one program serves, in the order in which they first appear."""
    kinds: dict[tuple, list[int]] = {}
    for number, spec in enumerate(specs):
        config = spec.config
        kinds.setdefault((config.kind, config.skip, config.centred, config.groups), []).append(number)
    groups = []
    for (kind, skip, centred, prefixes), members in kinds.items():
        configs = [specs[number].config for number in members]
        latents = latents_of_mesh(max(config.latents for config in configs), mesh)
        most = min(latents, 1 << max(3, (max(config.k for config in configs) - 1).bit_length()))
        on_cpu = mesh is None and jax.default_backend() == "cpu"
        groups.append(_Group(Program(
            kind=kind, skip=skip, centred=centred, groups=prefixes, most=most,
            aux_k=min(latents, settings.aux_k or max(1, configs[0].out // 2)), aux_weight=settings.aux_weight,
            bandwidth=settings.bandwidth, dead_after=settings.dead_after, threshold_decay=settings.threshold_decay,
            beta_1=(0.0 if kind in NO_MOMENTUM else 0.9) if settings.beta_1 is None else settings.beta_1,
            beta_2=settings.beta_2,
            clip=float(kind in K_KINDS or kind == "jumprelu") if settings.clip is None else settings.clip,
            sparse=kind == "topk" and on_cpu and centred and not skip and most * LEAST_SHARE <= latents,
            in_turn=on_cpu,
        ), members, latents))
    return groups


def _starts(stream: Stream, settings: TrainSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scales of inputs [A], of outputs [A], start of the decoder's bias [A, E], scaled)."""
    count = max(1, settings.scale_batches) if settings.scale_batches or settings.start == "mean" else 1
    squares, means, first = [], [], None
    for step in range(count):
        x, y = stream.batch(step)
        y = x if y is None else y
        first = y if first is None else first
        squares.append(np.stack([mean_square(x), mean_square(y)]))
        means.append(np.asarray(y.mean(axis=1)))
    scales = np.sqrt(np.mean(squares, axis=0, dtype=np.float64)).astype(np.float32)
    for named, row in ((stream.places, scales[0]), (stream.targets or stream.places, scales[1])):
        for (site, layer), scale in zip(named, row):
            if scale == 0:
                raise InputError(f"all activations at {site}, layer {layer}, are 0; leave that layer out")
    if not settings.scale_batches:
        scales = np.ones_like(scales)
    assert first is not None
    if settings.start == "median":
        bias = np.stack([np.asarray(_median(one / scale)) for one, scale in zip(first, scales[1])])
    else:
        bias = np.mean(means, axis=0, dtype=np.float64).astype(np.float32) / scales[1][:, None]
    return scales[0], scales[1], bias * np.float32(settings.start != "zero")


class _Training:
    """One training: its groups of runs, its stream and its folder."""

    def __init__(
        self, stream: Stream, specs: tuple[DictionarySpec, ...], settings: TrainSettings, folder: RunFolder | None,
        mesh: Mesh | None,
    ) -> None:
        self.stream, self.specs, self.settings, self.folder, self.mesh = stream, specs, settings, folder, mesh
        self.groups = group_runs(specs, settings, mesh)
        self.pending: list[list[list[float]]] = []  # metrics [R, 4] of the steps since the last line

    def train(self, show: Callable[[str], None] | None) -> tuple[Dictionary, ...]:
        """Trains from the last saved step to the last one."""
        begun = time.perf_counter()
        batch = self.stream.batch(0)[0]
        filling = time.perf_counter() - begun
        scale_in, scale_out, bias = _starts(self.stream, self.settings)
        firsts = [self._first(group, scale_in, scale_out, bias) for group in self.groups]
        for group, first in zip(self.groups, firsts):
            group.state = place(first, group.program.kind, self.mesh, batch)
        done = None if self.folder is None else self.folder.saved_step()
        if show is not None:
            plan = self._plan(filling)
            show(str(plan) + (f"\nresuming   after step {done:,}" if done is not None else ""))
            for group, first in zip(self.groups, firsts):
                group.state = place(first, group.program.kind, self.mesh, batch)  # timing has used up the others
        if self.folder is not None:
            if done is not None:
                state, self.pending = self.folder.load_state(self._states())
                for number, group in enumerate(self.groups):
                    group.state = state[str(number)]
            self.folder.forget_after(done)
        take_steps(self, done or 0, self.settings.steps, label="train", show=show is not None)
        return self._finished(scale_in, scale_out)

    def over(self) -> bool:
        return False

    def take(self, step: int) -> list[jax.Array]:
        x, y = (place_batch(part, self.mesh) for part in self.stream.batch(step - 1))
        return self._step(step, x, y)

    def due(self, step: int) -> bool:
        return self._reporting(step) or self._saving(step)

    def _reporting(self, step: int) -> bool:
        return step % self.settings.report_every == 0 or step == self.settings.steps

    def _saving(self, step: int) -> bool:
        return step % self.settings.save_every == 0 or step == self.settings.steps

    def keep(self, step: int, stopping: bool) -> None:
        if self._reporting(step):
            self._report(step)
        if self.folder is not None and (stopping or self._saving(step)):
            self.folder.save_state(step, self._states(), self.pending)

    def _first(self, group: _Group, scale_in: np.ndarray, scale_out: np.ndarray, bias: np.ndarray) -> Any:
        """The state of a group before its first step, on the host; its runs' settings go to the device."""
        own = [self.specs[number] for number in group.members]
        column = lambda values, dtype: jnp.asarray(np.array(values, dtype))
        group.runs = Run(
            which=column([spec.activation for spec in own], np.int32),
            seed=column([spec.seed for spec in own], np.uint32),
            k=column([max(1, spec.config.k) for spec in own], np.int32),
            sparsity=column([spec.sparsity for spec in own], np.float32),
            rate=column([spec.rate for spec in own], np.float32),
            target_l0=column([spec.target_l0 for spec in own], np.float32),
            width=column([spec.config.latents for spec in own], np.int32),
            scale_in=column([scale_in[spec.activation] for spec in own], np.float32),
            scale_out=column([scale_out[spec.activation] for spec in own], np.float32))
        params = []
        for spec in own:
            one = init_dictionary(spec.config, jax.random.key(spec.seed))
            one["decoder"]["bias"] = bias[spec.activation]
            if spec.config.kind == "jumprelu":
                one["threshold"] = np.full(spec.config.latents, self.settings.first_threshold, np.float32)
            params.append(one)
        packed = pack(params, group.program.kind, group.latents)
        return jax.device_get(first_state(packed, group.program))

    def _factors(self, step: int) -> tuple[np.float32, np.float32, np.bool_]:
        """Of learning rate and penalty, and whether the threshold is averaged, at a step."""
        settings = self.settings
        return (np.float32(settings.rate_factor(step)), np.float32(settings.penalty_factor(step)),
                np.bool_(step > min(settings.threshold_from, settings.steps // 2)))

    def _step(self, step: int, x: jax.Array, y: jax.Array | None) -> list[jax.Array]:
        """One update of every group."""
        settings, metrics = self.settings, []
        for group in self.groups:
            group.state, seen = update(group.program, group.state, group.runs, x, y, *self._factors(step))
            if step in settings.resample_at:
                group.state = resample(group.program, group.state, group.runs, x, y, np.int32(step))
            metrics.append(seen)
        return metrics

    def settle(self, step: int, made: list[jax.Array]) -> str:
        rows: list[list[float]] = [[]] * len(self.specs)
        for group, seen in zip(self.groups, made):
            for member, row in zip(group.members, np.asarray(seen).tolist()):
                rows[member] = row
        for number, row in enumerate(rows):
            if not math.isfinite(row[0]):
                raise InputError(
                    f"training of dictionary {number} diverged at step {step} (loss {row[0]}); lower its learning "
                    f"rate {self.specs[number].rate:g} or its sparsity, or warm up longer")
        self.pending.append(rows)
        fvu, l0 = (math.fsum(row[METRICS.index(name)] for row in rows) / len(rows) for name in ("fvu", "l0"))
        return f"fvu {fvu:.3f}, l0 {l0:.1f}"

    def _report(self, step: int) -> None:
        """Writes the mean metrics since the last line."""
        means = np.mean(np.array(self.pending, np.float64), axis=0)
        line: dict[str, Any] = {"step": step, "tokens": step * self.stream.batch_tokens}
        line |= {name: means[:, column].tolist() for column, name in enumerate(METRICS)}
        self.pending = []
        if self.folder is not None:
            self.folder.report(line)

    def _states(self) -> dict[str, Any]:
        return {str(number): dict(group.state) for number, group in enumerate(self.groups)}

    def _plan(self, filling: float) -> TrainPlan:
        """What the run needs; takes two steps to time one, after which the states are spent."""
        x, y = (place_batch(part, self.mesh) for part in self.stream.batch(0))
        plan = TrainPlan.of(self.settings, self.stream, self.groups, len(self.specs), self.folder is not None)
        analyses = [update.lower(group.program, group.state, group.runs, x, y, *self._factors(1)).compile(
            ).memory_analysis() for group in self.groups]
        known = [int(one.temp_size_in_bytes) for one in analyses if one is not None]
        temporary = max(known) if len(known) == len(analyses) else None
        for _ in range(2):
            begun = time.perf_counter()
            jax.block_until_ready(self._step(1, x, y))
            pace = time.perf_counter() - begun
        return dataclasses.replace(
            plan, temporary_bytes=temporary, step_seconds=pace, buffer_seconds=filling)

    def _finished(self, scale_in: np.ndarray, scale_out: np.ndarray) -> tuple[Dictionary, ...]:
        made: dict[int, Dictionary] = {}
        for group in self.groups:
            for run, number in enumerate(group.members):
                spec = self.specs[number]
                params = unpack(group.state["params"], group.program.kind, run, spec.config.latents)
                params = unscaled(params, spec.config, float(scale_in[spec.activation]),
                                  float(scale_out[spec.activation]))
                site, layer = self.stream.places[spec.activation]
                made[number] = Dictionary(
                    jax.tree.map(jnp.asarray, params), spec.config, site, layer,
                    None if self.stream.targets is None else self.stream.targets[spec.activation],
                    self.stream.model, self.stream.fingerprint,
                    {"settings": dataclasses.asdict(self.settings), "seed": spec.seed, "sparsity": spec.sparsity,
                     "learning_rate": spec.rate, "target_l0": spec.target_l0,
                     "tokens": self.settings.steps * self.stream.batch_tokens})
        finished = tuple(made[number] for number in range(len(self.specs)))
        if self.folder is not None:
            for number, dictionary in enumerate(finished):
                save_dictionary(dictionary, self.folder.path / "dictionaries" / str(number))
        return finished
