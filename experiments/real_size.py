"""A model of real size on this machine: BLOOM-560m's shape from the hub's own files, traced in bounded memory.

    python -m experiments.real_size --data=DATA

DATA holds `sib200.tsv.xz` and `sib200_index.tsv`. Two checkpoints with random weights are written as the
hub's cache keeps them (one float32 in safetensors, one float16 in torch's format), and `experiments.trace`
runs on them, offline, over a quarter of SIB-200's sentences in two languages and then over all of them.
The table says what memory and disk each took; it fails where a trace took more than --limit_gib, or where
memory grew with the sentences by more than the 1 GiB of responses that analyses hold in memory. Weights are
random, so only the costs mean something. Needs xlingjax[test] for torch.
"""

import csv
import hashlib
import importlib
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from experiments._main import run
from experiments._shapes import BLOOM_560M
from xlingjax.analyses.reading import DENSE_BYTES
from xlingjax.corpora import read_sib200
from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.markdown import markdown
from xlingjax.models import init_params
from xlingjax.models.families import FAMILIES
from xlingjax.models.weights.writing import named_tensors, write_safetensors
from xlingjax.training.tokenizer import train_tokenizer

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "folder with sib200.tsv.xz and sib200_index.tsv", required=True)
flags.DEFINE_string("workdir", "runs/real_size", "folder of the checkpoints and the traces; resumes what is there")
flags.DEFINE_list("languages", ["eng_Latn", "spa_Latn"], "two or more languages of SIB-200")
flags.DEFINE_enum("shape", "560m", ["560m", "tiny"], "of the model: BLOOM-560m, or a small one to try the command")
flags.DEFINE_float("limit_gib", 12, "memory a trace may take")

REPOSITORY = "random/bloom-intermediate"
REVISIONS = {"global_step1000": "float32", "global_step10000": "float16"}
SHAPES = {
    "560m": BLOOM_560M,
    "tiny": {"vocab_size": 1000, "n_layer": 2, "hidden_size": 64, "n_head": 4},
}
PART = 4  # the smaller corpus holds one sentence in so many
GROWTH = 1.1  # memory may be so many times as large on PART times the sentences, beside DENSE_BYTES


class Cost(NamedTuple):
    """Of one trace."""

    sentences: int
    seconds: float
    peak: int  # bytes of memory, mapped files included
    disk: int  # bytes of all responses, two poolings
    raw: int  # bytes that the responses of every token would take


def write_cache(hub: Path, shape: Mapping[str, int], tokenizer: Any) -> None:
    """Both revisions as a download leaves them: refs, blobs, and snapshots that link to blobs."""
    torch = importlib.import_module("torch")
    config = {"model_type": "bloom", "architectures": ["BloomForCausalLM"], **shape}
    family = FAMILIES["bloom"]
    ours = family.read_config(config)
    home = hub / f"models--{REPOSITORY.replace('/', '--')}"
    for seed, (revision, dtype) in enumerate(REVISIONS.items()):
        if (home / "refs" / revision).exists():
            continue
        made = home / "made"
        made.mkdir(parents=True, exist_ok=True)
        params = init_params(ours, jax.random.key(seed))
        if dtype == "float32":
            write_safetensors(made, family.entries(ours), params)
        else:
            torch.save({name: torch.from_numpy(tensor) for name, tensor in
                        named_tensors(family.entries(ours), params, dtype)}, made / "pytorch_model.bin")
        del params
        (made / "config.json").write_text(json.dumps(config))
        tokenizer.save_pretrained(made)
        commit = hashlib.sha1(revision.encode()).hexdigest()
        snapshot = home / "snapshots" / commit
        for folder in (snapshot, home / "blobs", home / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.iterdir()):
            blob = home / "blobs" / f"{commit[:8]}-{path.name}"
            path.rename(blob)
            (snapshot / path.name).unlink(missing_ok=True)
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
        write_whole(home / "refs" / revision, commit.encode())


def cut_table(data: Path, folder: Path, languages: list[str], part: int) -> Path:
    """The rows of some languages and of every `part`-th block of ids, as a table of SIB-200 again."""
    folder.mkdir(parents=True, exist_ok=True)
    with lzma.open(data / "sib200.tsv.xz", "rt", encoding="utf-8", newline="") as source:
        rows = list(csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE))
    header, rows = rows[0], rows[1:]
    at, of = header.index("index_id"), header.index("lang")
    kept = [row for row in rows if row[of] in languages and int(row[at]) // 20 % part == 0]
    text = "".join("\t".join(row) + "\n" for row in [header, *kept])
    write_whole(folder / "sib200.tsv", text.encode())
    write_whole(folder / "sib200_index.tsv", (data / "sib200_index.tsv").read_bytes())
    return folder / "sib200.tsv"


def trace_cost(table: Path, hub: Path, workdir: Path, languages: list[str]) -> Cost:
    """Traces both checkpoints in a process of its own, and what that took; read back where it is known."""
    record = workdir / "cost.json"
    if record.exists():
        return Cost(**json.loads(record.read_text()))
    command = [sys.executable, "-m", "experiments.trace", f"--model={REPOSITORY}",
               f"--revisions={','.join(REVISIONS)}", f"--concepts={table}", f"--languages={','.join(languages)}",
               "--ladder_pairs=1", f"--workdir={workdir}"]
    print("\n" + " ".join(["python", *command[1:]]), file=sys.stderr, flush=True)
    begin = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    corpus = read_sib200(table, languages)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    cost = Cost(len(corpus), time.monotonic() - begin, usage.ru_maxrss * unit,
                sum(path.stat().st_size for path in (workdir / "trace").rglob("*") if path.is_file()),
                _raw_bytes(corpus, hub))
    write_whole(record, json.dumps(cost._asdict()).encode())
    return cost


def _raw_bytes(corpus: Any, hub: Path) -> int:
    """Bytes of float32 responses of every token at BLOOM's four sites, both checkpoints."""
    from transformers import AutoTokenizer

    snapshot = next((hub / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots").iterdir())
    tokenizer = AutoTokenizer.from_pretrained(snapshot)
    tokens = sum(len(ids) for ids in tokenizer(list(corpus.texts))["input_ids"])
    shape = SHAPES[FLAGS.shape]
    return len(REVISIONS) * tokens * 4 * 9 * shape["hidden_size"] * shape["n_layer"]


def table(costs: list[Cost]) -> str:
    header = ["sentences", "minutes", "peak memory (GiB)", "disk (GB)", "every token's responses would be (GB)"]
    return markdown(header, [
        [f"{cost.sentences:,}", f"{cost.seconds / 60:.1f}", f"{cost.peak / 2**30:.2f}", f"{cost.disk / 1e9:.2f}",
         f"{cost.raw / 1e9:.0f}"] for cost in costs], right=range(len(header)))


def main() -> None:
    data, workdir, languages = Path(FLAGS.data), Path(FLAGS.workdir), list(FLAGS.languages)
    for name in ("sib200.tsv.xz", "sib200_index.tsv"):
        if not (data / name).exists():
            raise InputError(f"--data={data} lacks {name}; it is SIB-200 as one table and its topics")
    if len(set(languages)) < 2:
        raise InputError(f"--languages={','.join(languages)}: give two or more different languages")
    shape = SHAPES[FLAGS.shape]
    whole = cut_table(data, workdir / "all", languages, 1)
    part = cut_table(data, workdir / "part", languages, PART)
    corpus = read_sib200(whole, languages)
    tokenizer = train_tokenizer(corpus, min(8000, shape["vocab_size"]))
    write_cache(workdir / "hub", shape, tokenizer)
    costs = [trace_cost(path, workdir / "hub", workdir / f"{path.parent.name}-trace", languages)
             for path in (part, whole)]
    print(table(costs))
    small, large = costs
    if large.peak > FLAGS.limit_gib * 2**30:
        raise InputError(f"the trace took {large.peak / 2**30:.2f} GiB, more than --limit_gib={FLAGS.limit_gib:g}")
    if large.peak > GROWTH * small.peak + DENSE_BYTES:
        raise InputError(f"memory grew with the sentences, from {small.peak / 2**30:.2f} to "
                         f"{large.peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    run(main)
