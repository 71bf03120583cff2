"""What a run will be, before it starts: batches, bytes on device and disk, time."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from xlingjax.corpora.batching import BatchPlan, counted, make_batch, plan_batches
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.models.taps import site_shapes
from xlingjax.neurons import NeuronIndex
from xlingjax.responses import store
from xlingjax.responses.stepping import Capture, placement, pooled_step

POOLS = ("max", "mean", "last", "sum", "argmax")
BATCH_TOKENS = 8192
LONGEST = 2048  # tokens of a sentence where the model itself sets no limit
WORKDIR_RESERVE = 2**24  # bytes left for the records beside the responses
VERSIONS = ("jax", "jaxlib", "flax", "numpy", "tensorstore")

Where = Mapping[str, Any] | Sequence[np.ndarray] | None


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
        parameter_bytes: resident on the device for the whole run, exact.
        temporary_bytes: at most used beside them within a batch, from the compiler; None = it does not say.
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
        duration = "unknown (no batch was timed)" if self.seconds is None else (
            f"about {_duration(self.seconds)}, from one timed batch")
        lines = [
            f"{self.pool} over tokens of {self.neurons:,} neurons at {', '.join(self.sites)}",
            f"sentences   {self.sentences:,} ({self.truncated:,} cut to the context, {self.empty:,} without a counted token)",
            f"batches     {self.batches:,} in {self.compilations} shapes, each compiled once (sentences x tokens: {shapes})",
            f"device      {_bytes(self.parameter_bytes)} parameters, {temporary} temporary, "
            f"2 x {_bytes(self.output_bytes)} responses",
            f"host        {_bytes(self.host_bytes)} for the block being filled",
            f"disk        {_bytes(self.disk_bytes)}",
            f"time        {duration}",
        ]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that fixes a run: sentences as tokens, their batches, and the identity of it all.

    Attributes:
        tokens: the sentences.
        where: S arrays bool[t], counted tokens.
        batches: in the order they are run.
        capture: (site, pool) of each site.
        neurons: the index of all neurons collected.
        layout: blocks and chunks.
        order: int64[S], the sentence of each stored row.
        starts: int64[batches], the stored row of each batch's first sentence.
        pieces: int32[S], counted tokens of each sentence.
        identity: what must be equal for a run to be resumed.
    """

    tokens: Tokens
    where: tuple[np.ndarray, ...]
    batches: tuple[BatchPlan, ...]
    capture: Capture
    neurons: NeuronIndex
    layout: store.Layout
    order: np.ndarray
    starts: np.ndarray
    pieces: np.ndarray
    identity: Mapping[str, Any]

    def inputs(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """tokens int32[B, T], mask bool[B, T], where bool[B, T] of one batch."""
        made = make_batch(self.tokens, self.batches[batch], self.where)
        return made.tokens, made.mask, made.where


def plan(model: Any, corpus: Corpus | Tokens, sites: Sequence[str] | None = None, pool: str = "max",
         workdir: str | Path | None = None, *, where: Where = None, batch_tokens: int = BATCH_TOKENS,
         max_length: int | None = None, measure: bool = True) -> Plan:
    """What `collect` with the same arguments will need.

    Args:
        model: an `xlingjax.Model`.
        corpus: sentences, or their tokens.
        sites: by default `model.neuron_sites`.
        pool: "max", "mean", "last", "sum" or "argmax" over the counted tokens of a sentence.
        workdir: where `collect` will write; it is checked for room.
        where: which tokens count; see `collect`.
        batch_tokens: the most tokens of a batch, padding included.
        max_length: sentences are cut to so many tokens; by default the model's context, at most 2048.
        measure: compile the largest shape and run it twice, for the temporary bytes and the time.

    Raises:
        InputError: an argument cannot be used, or the disk of `workdir` has too little room.
    """
    job = prepare(model, corpus, sites, pool, where, batch_tokens, max_length, in_memory=workdir is None)
    if workdir is not None:
        check_room(Path(workdir), job.layout.disk_bytes)
    shapes: dict[tuple[int, int], int] = {}
    for batch in job.batches:
        shape = (batch.length, len(batch.rows))
        shapes[shape] = shapes.get(shape, 0) + 1
    read = sum(length * rows * count for (length, rows), count in shapes.items())
    temporary, seconds = _measure(model, job, read, len(shapes)) if measure else (None, None)
    row_bytes = 4 * job.neurons.total
    return Plan(
        sites=tuple(job.neurons.shapes), neurons=job.neurons.total, sentences=len(job.tokens), pool=pool,
        buckets=tuple((*shape, count) for shape, count in shapes.items()), tokens=read,
        parameter_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)),
        temporary_bytes=temporary, output_bytes=row_bytes * max(rows for _, rows in shapes),
        host_bytes=row_bytes * job.layout.block_sentences,
        disk_bytes=0 if workdir is None else job.layout.disk_bytes, seconds=seconds,
        truncated=job.tokens.truncated, empty=int((job.pieces == 0).sum()))


def prepare(model: Any, corpus: Corpus | Tokens, sites: Sequence[str] | None, pool: str, where: Where,
            batch_tokens: int, max_length: int | None, in_memory: bool,
            block_sentences: int | None = None) -> Job:
    """Checks the arguments and fixes batches, blocks and identity of a run.

    Raises:
        InputError: names the argument that cannot be used.
    """
    if pool not in POOLS:
        raise InputError(f"pool {pool!r} is unknown; choose among {', '.join(POOLS)}")
    chosen = tuple(model.neuron_sites) if sites is None else read_sites(model, sites)
    tokens, max_length = read_tokens(model, corpus, max_length)
    counts, rule = _counted(tokens, corpus, where)
    batches = plan_batches(tokens.lengths, batch_tokens)
    order = np.concatenate([batch.rows[batch.rows >= 0] for batch in batches])
    sizes = np.array([(batch.rows >= 0).sum() for batch in batches])
    neurons = model.neurons(chosen)
    layout = store.layout(
        neurons.shapes, len(tokens), "int32" if pool == "argmax" else "float32",
        len(tokens) if in_memory else block_sentences)
    # What a user changes comes first, what follows from it last: errors name the first differences.
    identity = {
        "pool": pool, "sites": list(chosen), "where": rule, "batch_tokens": batch_tokens,
        "max_length": max_length,
        "model": {"fingerprint": model.fingerprint, "dtype": _dtype(model), "config": model.config.to_dict()},
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "corpus": corpus.fingerprint if isinstance(corpus, Corpus) else "tokens",
        "versions": {"xlingjax": _version("xlingjax"), **{name: _version(name) for name in VERSIONS}},
        "mesh": _mesh(model.params),
        "tokens": _hash(tokens.ids, tokens.special),
        "counted": _hash(counts),
        "batches": _hash(*([np.array([batch.length]), batch.rows] for batch in batches)),
        "block_sentences": layout.block_sentences,
    }
    pieces = np.array([np.count_nonzero(row) for row in counts], np.int32)
    return Job(tokens, counts, batches, tuple((site, pool) for site in chosen), neurons, layout, order,
               np.concatenate([[0], np.cumsum(sizes)[:-1]]), pieces, identity)


def read_tokens(model: Any, corpus: Corpus | Tokens, max_length: int | None) -> tuple[Tokens, int]:
    """The sentences as tokens that the model can read, and the length they were cut to.

    Raises:
        InputError: no sentence, no tokenizer, or tokens that the model does not know.
    """
    limit = model.config.max_length or LONGEST
    if max_length is None:
        max_length = limit
    elif max_length > limit and model.config.max_length:
        raise InputError(f"max_length {max_length} exceeds the context of {model.name}; give at most {limit}")
    if len(corpus) == 0:
        raise InputError("the corpus has no sentences; give one with at least one")
    if isinstance(corpus, Tokens):
        tokens = corpus
        if tokens.lengths.max() > max_length:
            raise InputError(f"sentence {tokens.lengths.argmax()} has {tokens.lengths.max()} tokens; the most "
                             f"here is {max_length}, cut it or give a larger max_length")
    else:
        if model.tokenizer is None:
            raise InputError(f"model {model.name} was loaded without a tokenizer; load it with "
                             "tokenizer=NAME, or give tokens in place of texts")
        tokens = tokenise(model.tokenizer, corpus.texts, max_length)
    largest = max((int(ids.max()) for ids in tokens.ids if len(ids)), default=0)
    if largest >= model.config.vocab_size:
        raise InputError(f"the tokenizer gives token {largest}, but {model.name} knows {model.config.vocab_size} "
                         "tokens; load the tokenizer that belongs to the model")
    return tokens, max_length


def check_room(workdir: Path, needed: int) -> None:
    """Raises `InputError` where the disk of `workdir` has less room than `needed` bytes and a reserve."""
    folder = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < needed + WORKDIR_RESERVE:
        raise InputError(f"workdir {workdir} has {_bytes(free)} free, the run needs {_bytes(needed + WORKDIR_RESERVE)}; "
                         "free some space, choose another disk, or collect fewer sites or sentences")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of what the tokenizer does: its rules and vocabulary, not its padding of the moment."""
    if tokenizer is None:
        return "none"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.pop("padding", None)
        rules.pop("truncation", None)
    else:
        rules = [type(tokenizer).__name__, tokenizer.get_vocab()]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def read_sites(model: Any, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites as a tuple; `InputError` where the model has no such site or one is named twice."""
    if isinstance(sites, str):
        raise InputError(f"sites is the string {sites!r}; give a tuple of sites, ({sites!r},)")
    chosen = tuple(sites)
    shapes = site_shapes(model.config)
    for site in chosen:
        if site not in shapes:
            raise InputError(f"site {site!r} is not in {model.name}; choose among {', '.join(shapes)}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise InputError(f"sites are {chosen}; name at least one, each once")
    return chosen


def _counted(tokens: Tokens, corpus: Corpus | Tokens, where: Where) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Counted tokens of each sentence, and the rule as it stands in the result."""
    if where is None or isinstance(where, Mapping):
        rule = {"special": False, "first": True, "leave_out": None} | dict(where or {})
        if set(rule) != {"special", "first", "leave_out"}:
            raise InputError(f"where has the keys {', '.join(where or ())}; it takes special, first and leave_out")
        languages = corpus.languages if isinstance(corpus, Corpus) else None
        counts = counted(tokens, languages=languages, **rule)
        left_out = rule["leave_out"] or {}
        return counts, {"given": False, **rule, "leave_out": {name: len(ids) for name, ids in left_out.items()}}
    if len(where) != len(tokens) or any(np.shape(a) != np.shape(b) for a, b in zip(where, tokens.ids)):
        raise InputError("where has another shape than the tokens; give one bool for each token of each sentence")
    return tuple(np.asarray(row, bool) for row in where), {"given": True}


def _measure(model: Any, job: Job, read: int, shapes: int) -> tuple[int | None, float]:
    """(temporary bytes of the largest shape, seconds of the whole run)."""
    config = model.config

    def load(batch: int) -> int:
        length, rows = job.batches[batch].length, len(job.batches[batch].rows)
        return rows * length * (config.width * 6 + config.mlp_width * 2 + config.heads * length)

    largest = max(range(len(job.batches)), key=load)
    arrays = jax.device_put(job.inputs(largest), placement(model.params))
    begin = time.perf_counter()
    compiled = pooled_step.lower(model.params, config, job.capture, *arrays).compile()
    compiling = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    for _ in range(2):  # the first run warms up
        begin = time.perf_counter()
        jax.block_until_ready(compiled(model.params, *arrays))
        running = time.perf_counter() - begin
    return (None if analysis is None else int(analysis.temp_size_in_bytes),
            compiling * shapes + running * read / arrays[0].size)


def _mesh(params: Any) -> dict[str, Any]:
    sharding = jax.tree.leaves(params)[0].sharding
    device = sorted(sharding.device_set, key=lambda device: device.id)[0]
    axes = dict(sharding.mesh.shape) if isinstance(sharding, jax.sharding.NamedSharding) else {}
    return {"devices": len(sharding.device_set), "platform": device.platform, "kind": device.device_kind, "axes": axes}


def _dtype(model: Any) -> str:
    return str(jax.tree.leaves(model.params)[0].dtype)


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _hash(*groups: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for group in groups:
        for array in group:
            digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
