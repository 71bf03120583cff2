"""A trace killed, terminated, interrupted goes on to the bytes of an unbroken run (P6, P18)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_trace

from xlingjax.corpora.concepts import write_concepts

ROOT = Path(__file__).parents[2]
# A test run in the background of a shell hands its children an ignored Ctrl-C.
COMMAND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments.trace", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("given")
    tiny_trace.checkpoints(
        folder / "model", {f"step{seed}": tiny_trace.model(seed) for seed in (1, 2, 3)}
    )
    corpus = tiny_trace.corpus()
    write_concepts(
        corpus.language("eng", "spa").with_concepts(corpus.concepts[:2]), folder / "concepts"
    )
    return [
        f"--model={folder / 'model'}",
        "--revisions=step1,step2,step3",
        "--minimum=4",
        "--permutations=3",
        "--halvings=1",
        "--k=5",
        "--batch_tokens=2048",
        "--noprobe",
        "--ladder_pairs=1",
        f"--concepts={folder / 'concepts'}",
    ]


def start(workdir: Path, flags: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def stop_after(process: subprocess.Popen, line: str, how: signal.Signals) -> tuple[int, str]:
    """Sends a signal once a line that begins so is printed; (exit code, all that is printed)."""
    said = []
    assert process.stderr is not None
    for text in process.stderr:
        said.append(text)
        if text.startswith(line):
            process.send_signal(how)
            break
    said.append(process.stderr.read())
    return process.wait(), "".join(said)


@pytest.mark.slow
@pytest.mark.promise
def test_stopped_anywhere_it_ends_with_the_same_bytes(flags, tmp_path):
    whole = start(tmp_path / "whole", flags)
    _, said = whole.communicate()
    assert whole.returncode == 0, said
    broken = tmp_path / "broken"
    code, said = stop_after(start(broken, flags), "1/3", signal.SIGKILL)
    assert code == -signal.SIGKILL, said
    kept = {path: path.stat().st_mtime_ns for path in broken.rglob("checkpoint.nc")}
    assert kept and len(kept) < 3
    code, said = stop_after(start(broken, flags), "1/3", signal.SIGTERM)
    assert code in (143, -signal.SIGTERM) and "Traceback" not in said, said
    code, said = stop_after(start(broken, flags), "1/3", signal.SIGINT)
    assert code == 130 and "Traceback" not in said and "stopped" in said, said
    assert not (broken / "result.nc").exists(), "what is not finished cannot be read as finished"
    last = start(broken, flags)
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), (
        "finished work is kept"
    )
    for name in ("result.nc", "summary.csv", "summary.md", "expertise.csv", "report.html"):
        assert (broken / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not [path.name for path in broken.iterdir() if path.name.startswith(".")]
