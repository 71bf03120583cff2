"""Model x corpus -> pooled responses, in memory or resumable on disk."""

import contextlib
import functools
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlingjax import hosts
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.files import differences, locked, require_shared
from xlingjax.progress import progress
from xlingjax.responses import ledger, store
from xlingjax.responses.jobs import BATCH_TOKENS, Job, Where, prepare
from xlingjax.responses.planning import check_room
from xlingjax.responses.responses import Responses, from_arrays, open_responses
from xlingjax.responses.stepping import pooled_step, run
from xlingjax.sharding import batch_sharding

EXPERIMENT = "experiment.json"  # written first: what this workdir is for

Finish = Callable[[int, dict[str, np.ndarray], dict[str, list[int]]], None]


def collect(
    model: Any,
    corpus: Corpus | Tokens,
    sites: Sequence[str] | None = None,
    pool: str = "max",
    workdir: str | Path | None = None,
    *,
    where: Where = None,
    batch_tokens: int = BATCH_TOKENS,
    max_length: int | None = None,
    block_sentences: int | None = None,
    show: bool | None = None,
) -> Responses:
    """Responses of the model's neurons to every sentence, pooled over its counted tokens.

    With a `workdir` the run is resumable: killed anywhere and called again with the same arguments,
    it ends with the same bytes. SIGTERM ends it after the batch at hand, with exit code 143.

    Args:
        model: an `xlingjax.Model`.
        corpus: S sentences, or their tokens.
        sites: by default `model.neuron_sites`.
        pool: "max", "mean", "last", "sum", "positive" (share of tokens above 0), "position" (mean weighted by
            place, 1, 2, ...) -> float32, or "argmax" -> int32, the position of the maximum among the tokens of the
            sentence.
        workdir: where blocks are kept as they are finished; None keeps everything in memory.
        where: which tokens count. None: all but special ones. A mapping with some of `special`
            (True counts special tokens), `first` (False leaves out the first real token) and
            `leave_out` (language -> token ids that do not count in it). Or one array bool[t] for
            each sentence.
        batch_tokens: the most tokens of a batch, padding included.
        max_length: sentences are cut to so many tokens; by default the model's context, at most
            2048.
        block_sentences: sentences of a block on disk; by default at most 1,024 and 128 MiB.
        show: show progress; by default in a terminal.

    Raises:
        InputError: an argument cannot be used; the workdir is in use, belongs to another experiment
            (what differs is named), or its disk is full. What is finished is kept.
    """
    job = prepare(
        model,
        corpus,
        sites,
        pool,
        where,
        batch_tokens,
        max_length,
        workdir is None,
        block_sentences,
    )
    attrs = _attrs(model, corpus, job)
    if workdir is None:
        return _in_memory(model, job, attrs, show)
    workdir = Path(workdir)
    with contextlib.ExitStack() as held:

        def enter() -> None:
            held.enter_context(locked(workdir))
            _claim(workdir, job.identity)

        hosts.first_does(f"claiming {workdir}", enter)
        require_shared(workdir / EXPERIMENT)
        if not hosts.agreed((workdir / store.MANIFEST).exists()):
            _on_disk(model, job, attrs, workdir, show)
    return open_responses(workdir)


def _in_memory(model: Any, job: Job, attrs: dict[str, Any], show: bool | None) -> Responses:
    finished: dict[str, Any] = {}

    def finish(block: int, values: dict[str, np.ndarray], nonfinite: dict[str, list[int]]) -> None:
        finished.update(values=values, nonfinite=nonfinite)

    _fill(model, job, [0], finish, show)
    rows = np.empty_like(job.order)
    rows[job.order] = np.arange(len(job.order))
    attrs["nonfinite"] = _report_nonfinite([finished["nonfinite"]], model.name)
    return from_arrays(finished["values"], job.pieces, attrs, job.neurons, rows)


def _on_disk(model: Any, job: Job, attrs: dict[str, Any], workdir: Path, show: bool | None) -> None:
    layout = job.layout
    records: dict[int, dict[str, Any]] = {}
    arrays: Any = None

    def begin() -> None:
        nonlocal arrays
        records.update(_usable(workdir, layout))
        files = {name: entry for record in records.values() for name, entry in record["files"].items()}
        store.remove_unrecorded(workdir, files)
        check_room(workdir, layout.disk_bytes - sum(size for size, _ in files.values()))
        arrays = store.open_arrays(workdir, layout, create=True)

    def finish(block: int, values: dict[str, np.ndarray], nonfinite: dict[str, list[int]]) -> None:
        if not hosts.writes():
            return
        written = store.write_block(arrays, workdir, layout, block, values)
        records[block] = {"files": written, "nonfinite": nonfinite}
        ledger.write_record(ledger.block_record(workdir, block), records[block])

    hosts.first_does(f"opening {workdir}", begin)
    missing = hosts.agreed([block not in records for block in range(layout.blocks)])
    _fill(model, job, np.flatnonzero(missing).tolist(), finish, show)
    hosts.first_does(f"completing {workdir}", lambda: _complete(model, job, attrs, workdir, records))


def _complete(
    model: Any, job: Job, attrs: dict[str, Any], workdir: Path, records: Mapping[int, dict[str, Any]]
) -> None:
    """Writes the manifest, by which the responses are whole."""
    layout = job.layout
    described = {
        store.metadata_name(site): list(
            ledger.sync_file(workdir / store.metadata_name(site), workdir)
        )
        for site in layout.shapes
    }
    in_order = [records[block] for block in range(layout.blocks)]
    attrs["nonfinite"] = _report_nonfinite([record["nonfinite"] for record in in_order], model.name)
    ledger.write_record(
        workdir / store.MANIFEST,
        {
            "sites": [[site, *shape] for site, shape in layout.shapes.items()],
            "modules": dict(job.neurons.modules),
            "sentences": layout.sentences,
            "block_sentences": layout.block_sentences,
            "dtype": layout.dtype,
            "order": job.order.tolist(),
            "pieces": job.pieces.tolist(),
            "files": described
            | {name: entry for record in in_order for name, entry in record["files"].items()},
            "attrs": attrs,
        },
    )


def _fill(model: Any, job: Job, blocks: Sequence[int], finish: Finish, show: bool | None) -> None:
    """Runs the batches that hold sentences of some blocks; hands on each block when it is full."""
    layout = job.layout
    ends = np.append(job.starts[1:], layout.sentences)
    wanted = [
        batch
        for batch in range(len(job.batches))
        if any(
            job.starts[batch] < layout.rows(block).stop and ends[batch] > layout.rows(block).start
            for block in blocks
        )
    ]
    step = functools.partial(pooled_step, model.params, model.config, job.capture)
    results = run(step, (job.inputs(batch) for batch in wanted), batch_sharding(model.params))
    missing = set(blocks)
    values: dict[str, np.ndarray] = {}
    nonfinite: dict[str, list[int]] = {}
    with (
        _stoppable() as stop_if_asked,
        progress(
            total=sum(int(ends[batch] - job.starts[batch]) for batch in wanted),
            label="collect",
            unit="sentences",
            show=show,
        ) as bar,
    ):
        for batch, (pooled, unusable) in zip(wanted, results):
            real = job.batches[batch].rows >= 0
            start, end = int(job.starts[batch]), int(ends[batch])
            for block in range(
                start // layout.block_sentences, (end - 1) // layout.block_sentences + 1
            ):
                if block not in missing:
                    continue
                rows = layout.rows(block)
                first, last = max(start, rows.start), min(end, rows.stop)
                if not values:
                    values = {
                        site: np.empty((layers, rows.stop - rows.start, units), layout.dtype)
                        for site, (layers, units) in layout.shapes.items()
                    }
                    nonfinite = {site: [0] * layers for site, (layers, _) in layout.shapes.items()}
                taken = np.flatnonzero(real)[first - start : last - start]
                for site, array in values.items():
                    array[:, first - rows.start : last - rows.start] = pooled[site][:, taken]
                    found = unusable[site][:, taken].sum(axis=1)
                    nonfinite[site] = [int(a + b) for a, b in zip(nonfinite[site], found)]
                if last == rows.stop:
                    finish(block, values, nonfinite)
                    values = {}
            bar.update(end - start)
            stop_if_asked()


def _claim(workdir: Path, identity: Mapping[str, Any]) -> None:
    """Makes the workdir this experiment's, or sees that it is."""
    path = workdir / EXPERIMENT
    if not path.exists():
        if any((workdir / name).exists() for name in (store.ARRAYS, store.MANIFEST, ledger.LEDGER)):
            raise InputError(
                f"{path} is missing from a workdir with responses; restore it or choose another "
                "workdir"
            )
        ledger.write_record(path, identity)
    found = differences(ledger.read_record(path), identity)
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise InputError(
            f"workdir {workdir} holds another experiment: {'; '.join(found[:3])}{more}. Set it "
            "as it was, or choose another workdir"
        )


def _usable(workdir: Path, layout: store.Layout) -> dict[int, dict[str, Any]]:
    """The ledger's blocks whose files are what was recorded; the others are redone, and named."""
    records = ledger.finished_blocks(workdir, layout.blocks)
    for block, record in list(records.items()):
        for name, (size, digest) in record["files"].items():
            fault = ledger.file_fault(workdir / name, size, digest)
            if fault:
                warnings.warn(
                    f"{workdir / name} {fault}; its block is collected again", stacklevel=4
                )
                records.pop(block, None)
    return records


def _attrs(model: Any, corpus: Corpus | Tokens, job: Job) -> dict[str, Any]:
    """What the result says of its origin and of what was noticed before the run."""
    return {
        **{key: value for key, value in job.identity.items()},
        "model_name": model.name,
        "corpus_name": corpus.name if isinstance(corpus, Corpus) else "tokens",
        "empty": np.flatnonzero(job.pieces == 0).tolist(),
        "truncated": job.tokens.truncated,
        "replaced": job.tokens.replaced,
        "unknown": job.tokens.unknown,
    }


def _report_nonfinite(counts: Sequence[Mapping[str, list[int]]], name: str) -> dict[str, list[int]]:
    """Site -> non-finite responses by layer over all blocks; sites without any are left out."""
    total = {site: np.sum([block[site] for block in counts], axis=0).tolist() for site in counts[0]}
    total = {site: layers for site, layers in total.items() if any(layers)}
    for site, layers in total.items():
        bad = [f"{layer} ({count})" for layer, count in enumerate(layers) if count]
        warnings.warn(
            f"{name}: NaN or infinite responses at {site} in layers {', '.join(bad)}", stacklevel=4
        )
    return total


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """SIGTERM is kept until the batch at hand is done; the function given ends the process then."""
    asked = threading.Event()
    free = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )

    def stop_if_asked() -> None:
        if asked.is_set():
            raise SystemExit(128 + signal.SIGTERM)

    if free:
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield stop_if_asked
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
