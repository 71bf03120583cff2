"""What a run will be, before it starts: batches, bytes on device and disk, time."""

import dataclasses
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from xlingjax import hosts
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.models.placing import placement_of
from xlingjax.models.weights.fingerprint import leaf_name
from xlingjax.responses.jobs import BATCH_TOKENS, Job, Where, prepare
from xlingjax.responses.stepping import pooled_step
from xlingjax.sharding import batch_sharding, batch_shards, device_memory, mesh_of

WORKDIR_RESERVE = 2**24  # bytes left for the records beside the responses
MEASURES = ("nothing", "memory", "time")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `collect` will do and need; `str(plan)` says it to the reader.

    Attributes:
        sites: the sites.
        neurons: N, their units in all layers.
        sentences: S.
        pool: how tokens become one response.
        buckets: (T, B, batches) of each shape, longest first.
        tokens: tokens that the model reads, padding included.
        parameter_bytes: resident on each device for the whole run, exact.
        mesh: axis -> devices; empty on a single device.
        replicated: parameters that the mesh cannot split, with the reason.
        temporary_bytes: at most used beside them within a batch, from the compiler; None = it does
            not say.
        output_bytes: of the responses of the largest batch; two batches live at a time.
        host_bytes: of the block (in memory: of all responses) that is being filled.
        disk_bytes: of all response files, exact.
        seconds: estimated from one measured batch; None = not measured.
        truncated: sentences cut to the model's context.
        empty: sentences without a counted token.
    """

    sites: tuple[str, ...]
    neurons: int
    sentences: int
    pool: str
    buckets: tuple[tuple[int, int, int], ...]
    tokens: int
    mesh: Mapping[str, int]
    replicated: tuple[str, ...]
    parameter_bytes: int
    temporary_bytes: int | None
    output_bytes: int
    host_bytes: int
    disk_bytes: int
    seconds: float | None
    truncated: int
    empty: int

    @property
    def batches(self) -> int:
        """The number of batches."""
        return sum(count for _, _, count in self.buckets)

    @property
    def compilations(self) -> int:
        """The number of programs compiled: one for each shape."""
        return len(self.buckets)

    def __str__(self) -> str:
        shapes = ", ".join(f"{count} of {rows} x {length}" for length, rows, count in self.buckets)
        temporary = "unknown" if self.temporary_bytes is None else _bytes(self.temporary_bytes)
        duration = (
            "unknown (no batch was timed)"
            if self.seconds is None
            else (f"about {_duration(self.seconds)}, from one timed batch")
        )
        lines = [
            f"{self.pool} over tokens of {self.neurons:,} neurons at {', '.join(self.sites)}",
            f"sentences   {self.sentences:,} ({self.truncated:,} cut to the context, "
            f"{self.empty:,} without a counted token)",
            f"batches     {self.batches:,} in {self.compilations} shapes, each compiled once "
            f"(sentences x tokens: {shapes})",
            *self._mesh_lines(),
            f"device      {_bytes(self.parameter_bytes)} parameters, {temporary} temporary, "
            f"2 x {_bytes(self.output_bytes)} responses",
            f"host        {_bytes(self.host_bytes)} for the block being filled",
            f"disk        {_bytes(self.disk_bytes)}",
            f"time        {duration}",
        ]
        return "\n".join(lines)

    def _mesh_lines(self) -> list[str]:
        if not self.mesh:
            return []
        axes = " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())
        lines = [f"mesh        {axes}; bytes are of each device"]
        if self.replicated:
            lines.append(f"replicated  {', '.join(self.replicated)}")
        return lines


def plan(
    model: Any,
    corpus: Corpus | Tokens,
    sites: Sequence[str] | None = None,
    pool: str = "max",
    workdir: str | Path | None = None,
    *,
    where: Where = None,
    batch_tokens: int = BATCH_TOKENS,
    max_length: int | None = None,
    measure: str = "time",
    device_limit: int | None = None,
) -> Plan:
    """What `collect` with the same arguments will need.

    Args:
        measure: "nothing"; "memory", the largest shape is compiled for the temporary bytes; "time", it
            is also run twice. A model without weights (`abstract_model`) can be compiled, not run.
        device_limit: bytes of a device; by default what the devices here have.
        model, corpus, sites, pool, workdir, where, batch_tokens, max_length: see `collect`; a
            `workdir` is checked for room.

    Raises:
        InputError: an argument cannot be used, the disk of `workdir` has too little room, or (where
            measured) a batch needs more memory than a device has.
    """
    if measure not in MEASURES:
        raise InputError(f"measure is {measure!r}; choose among {', '.join(MEASURES)}")
    if measure == "time" and isinstance(jax.tree.leaves(model.params)[0], jax.ShapeDtypeStruct):
        raise InputError(f"model {model.name!r} has no weights, so it cannot be timed; plan with measure='memory'")
    job = prepare(
        model, corpus, sites, pool, where, batch_tokens, max_length, in_memory=workdir is None
    )
    if workdir is not None:
        check_room(Path(workdir), job.layout.disk_bytes)
    shapes: dict[tuple[int, int], int] = {}
    for batch in job.batches:
        shape = (batch.length, len(batch.rows))
        shapes[shape] = shapes.get(shape, 0) + 1
    read = sum(length * rows * count for (length, rows), count in shapes.items())
    row_bytes = 4 * job.neurons.total
    output = row_bytes * max(rows for _, rows in shapes)
    temporary, seconds = None, None
    if measure != "nothing":
        compiled, largest, compiling, temporary = _compile(model, job, output, device_limit)
        if measure == "time":
            seconds = compiling * len(shapes) + _run(model, job, compiled, largest) * read
    return Plan(
        sites=tuple(job.neurons.shapes),
        neurons=job.neurons.total,
        sentences=len(job.tokens),
        pool=pool,
        buckets=tuple((*shape, count) for shape, count in shapes.items()),
        tokens=read,
        **_mesh(model),
        parameter_bytes=device_bytes(model.params),
        temporary_bytes=temporary,
        output_bytes=output,
        host_bytes=row_bytes * job.layout.block_sentences,
        disk_bytes=0 if workdir is None else job.layout.disk_bytes,
        seconds=seconds,
        truncated=job.tokens.truncated,
        empty=int((job.pieces == 0).sum()),
    )


def _mesh(model: Any) -> dict[str, Any]:
    """Axes of the mesh, and what it cannot split."""
    mesh = mesh_of(model.params)
    if mesh is None:
        return {"mesh": {}, "replicated": ()}
    leaves = jax.tree_util.tree_flatten_with_path(model.params)[0]
    shapes = {leaf_name(path): leaf.shape for path, leaf in leaves}
    return {
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1},
        "replicated": tuple(placement_of(model.config, mesh).replicated(shapes)),
    }


def device_bytes(params: Any) -> int:
    """Bytes of the parameters on each device that holds a part of them."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(params)
    )


def check_room(workdir: Path, needed: int) -> None:
    """`InputError` where the disk of `workdir` has less room than `needed` bytes and a reserve."""
    folder = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < needed + WORKDIR_RESERVE:
        raise InputError(
            f"workdir {workdir} has {_bytes(free)} free, the run needs "
            f"{_bytes(needed + WORKDIR_RESERVE)}; "
            "free some space, choose another disk, or collect fewer sites or sentences"
        )


def _compile(
    model: Any, job: Job, output: int, limit: int | None
) -> tuple[Any, int, float, int | None]:
    """(program, its batch, seconds to compile, temporary bytes) of the largest shape, seen to fit."""
    config = model.config

    def load(batch: int) -> int:
        length, rows = job.batches[batch].length, len(job.batches[batch].rows)
        return rows * length * (config.width * 6 + config.mlp_width * 2 + config.heads * length)

    largest = max(range(len(job.batches)), key=load)
    where = batch_sharding(model.params)
    arrays = [jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where) for array in job.inputs(largest)]
    begin = time.perf_counter()
    compiled = pooled_step.lower(model.params, config, job.capture, *arrays).compile()
    compiling = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    if analysis is None:
        return compiled, largest, compiling, None
    temporary = int(analysis.temp_size_in_bytes)
    passing = temporary + 2 * output // batch_shards(model.params)
    _require_memory(device_bytes(model.params), passing, arrays[0].shape, limit or device_memory())
    return compiled, largest, compiling, temporary


def _run(model: Any, job: Job, compiled: Any, batch: int) -> float:
    """Seconds a token of a batch takes; the first run warms up."""
    arrays = hosts.to_devices(job.inputs(batch), batch_sharding(model.params))
    for _ in range(2):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(model.params, *arrays))
        running = time.perf_counter() - begin
    return running / arrays[0].size


def _require_memory(resident: int, passing: int, batch: tuple[int, ...], limit: int | None) -> None:
    """`InputError` where a batch needs more than a device has beside the parameters, with what would fit."""
    if limit is None or resident + passing <= limit:
        return
    rows, length = batch
    fits = int(0.8 * (limit - resident) / passing * rows)
    remedy = (f"batches of {fits * length} tokens fit (--batch_tokens)" if fits > 0 else
              "split the model over more devices (--mesh=model:2) or take a smaller type (--dtype=bfloat16)")
    raise InputError(
        f"a batch of {rows} x {length} tokens needs {_bytes(passing)} on each device beside "
        f"{_bytes(resident)} of parameters, and a device has {_bytes(limit)}; {remedy}")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
