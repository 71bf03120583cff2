"""Nothing asks for a connection: import, load, collect, trace with every socket refused (P19)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_trace

ROOT = Path(__file__).parents[1]
BLOCKED = """
import socket, sys
asked = []
def refuse(self, address, *rest):
    if self.family != getattr(socket, "AF_UNIX", None):
        asked.append(address)
        raise OSError("no connection in this test")
def refuse_name(host, *rest, **named):
    asked.append(host)
    raise OSError("no names in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse_name
"""
LOAD = (
    BLOCKED
    + """
import xlingjax as xl
import experiments.trace
model = xl.load_model(sys.argv[1], revision="step1")
corpus = xl.corpora.mini_world(sentences=8, languages=("eng", "spa"))
responses = xl.collect(model, corpus, sites=("mlp.up",), show=False)
assert responses["mlp.up"].shape == (2, 16, 64)
assert not asked, asked
"""
)
TRACE = (
    BLOCKED
    + """
import dataclasses
sys.path.insert(0, sys.argv[2])
import tiny_trace
from xlingjax.analyses.sources import sources
from xlingjax.analyses.trace import trace
from xlingjax.report.trace_page import write_report
corpus = tiny_trace.corpus().language("eng", "spa").with_concepts(tiny_trace.corpus().concepts[:2])
settings = dataclasses.replace(tiny_trace.SETTINGS, probe=None, unseen=())
tree = trace(sources(sys.argv[1], ["step1", "step2"]), corpus, settings, sys.argv[3])
write_report(tree, sys.argv[3])
assert not asked, asked
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("offline")
    tiny_trace.checkpoints(folder, {f"step{seed}": tiny_trace.model(seed) for seed in (1, 2)})
    return folder


def offline(script: str, *arguments: str | Path) -> None:
    """Runs a script that was not told to be offline, by no variable of the environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_folder_loads_and_is_collected_from(folder):
    offline(LOAD, folder)


@pytest.mark.slow
@pytest.mark.promise
def test_a_trace_with_its_report(folder, tmp_path):
    offline(TRACE, folder, ROOT / "tests", tmp_path)


def test_the_block_blocks():
    """The test would notice a connection."""
    script = (
        BLOCKED
        + """
here = ("127.0.0.1", 9)
for ask in (lambda: socket.create_connection(here), lambda: socket.socket().connect(here)):
    try:
        ask()
    except OSError as error:
        assert "in this test" in str(error), error
assert len(asked) == 2
"""
    )
    offline(script)
