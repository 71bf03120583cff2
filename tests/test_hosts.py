"""Several hosts as one (P20): two processes of two devices each on localhost, by gloo, over the trace's own command."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_trace

from xlingjax.analyses.results import open_result
from xlingjax.corpora.concepts import write_concepts
from xlingjax.errors import InputError
from xlingjax.files import require_shared
from xlingjax.hosts import start

pytestmark = [pytest.mark.slow, pytest.mark.promise]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Two checkpoints, and 143 sentences, which no number of devices divides."""
    folder = tmp_path_factory.mktemp("given")
    tiny_trace.checkpoints(folder / "model", {"step1": tiny_trace.model(), "step2": tiny_trace.model(1)})
    write_concepts(tiny_trace.corpus().rows(np.arange(143)), folder / "concepts")
    return folder


def run(given: Path, workdir: Path, devices: int, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.trace", f"--model={given / 'model'}", "--revisions=step1,step2",
         f"--concepts={given / 'concepts'}", "--minimum=4", "--batch_tokens=2048", "--permutations=4",
         "--halvings=1", "--ladder_pairs=1", "--probe_tokens=60", "--k=5", "--mesh=data:4",
         f"--workdir={workdir}", *flags],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT),
                          "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"})  # fmt: skip


def address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def two(given: Path, workdir: Path, *flags: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of both hosts."""
    at = address()
    hosts = [run(given, workdir, 2, f"--coordinator={at}", f"--process={n}/2", *flags) for n in (1, 2)]
    try:
        said = [host.communicate(timeout=400) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    return [(host.returncode, *texts) for host, texts in zip(hosts, said)]


@pytest.fixture(scope="module")
def both(given, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("both")
    return workdir, two(given, workdir)


def test_two_hosts_end_as_one(given, both, tmp_path) -> None:
    workdir, ((status, out, err), (follower, follower_out, follower_err)) = both
    assert status == 0 and follower == 0, (err[-3000:], follower_err[-3000:])
    told = [line for line in follower_out.splitlines() if not line.startswith("[Gloo]")]
    assert "report:" in out and not told, "one host tells and writes"
    alone = run(given, tmp_path, 4)
    _, err = alone.communicate(timeout=400)
    assert alone.returncode == 0, err[-3000:]
    ours, theirs = open_result(workdir / "result.nc"), open_result(tmp_path / "result.nc")
    assert {node.path for node in ours.subtree} == {node.path for node in theirs.subtree}
    for node in theirs.subtree:
        for name, values in node.data_vars.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(
                    ours[node.path][name].values, values.values, rtol=1e-4, atol=1e-5, err_msg=f"{node.path} {name}")
    assert (workdir / "report.html").exists()


def test_parameters_are_split_between_hosts(given, both, tmp_path) -> None:
    """Heads and units of the MLP on both hosts, neither of which holds the model."""
    done = two(given, tmp_path, "--mesh=model:4", "--noprobe")
    assert [status for status, *_ in done] == [0, 0], [err[-3000:] for *_, err in done]
    ours, theirs = open_result(tmp_path / "result.nc"), open_result(both[0] / "result.nc")
    np.testing.assert_allclose(ours["health"]["loss"].values, theirs["health"]["loss"].values, rtol=1e-4)
    # Sums in another order change last digits, and so the place of a sentence here and there.
    names = ("experts/own_form", "ap_at_k")
    np.testing.assert_allclose(*(tree[names[0]][names[1]].values for tree in (ours, theirs)), atol=0.05)


def test_the_same_command_again_reads_what_is_there(given, both) -> None:
    workdir, _ = both
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.nc") if path.name != "result.nc"}
    again = two(given, workdir)
    assert [status for status, *_ in again] == [0, 0]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_stops_the_first_stops_all_at_once(given, both) -> None:
    workdir, _ = both
    (status, _, said), (follower, _, follower_said) = two(given, workdir, "--seed=1")
    assert status == 1 and "holds another experiment: settings.seed was 0 and is 1" in said
    assert follower == 1 and "error: the first host could not go on" in follower_said


@pytest.mark.parametrize("number", [1, 2])
def test_a_host_that_never_joins(given, tmp_path, number) -> None:
    begin = time.monotonic()
    alone = run(given, tmp_path, 2, f"--coordinator={address()}", f"--process={number}/2", "--join_seconds=4")
    _, said = alone.communicate(timeout=100)
    assert alone.returncode == 1 and "within 4 s; see that each was started" in said
    assert time.monotonic() - begin < 60 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flags", "said"), [
    (["--coordinator=localhost:1"], "process is None; give i/n"),
    (["--coordinator=localhost:1", "--process=3/2"], "process is '3/2'; give i/n"),
    (["--coordinator=localhost", "--process=1/2"], "coordinator is 'localhost'; give address:port"),
    (["--process=1/2"], "--process needs --coordinator"),
])  # fmt: skip
def test_wrong_flags(given, tmp_path, flags, said) -> None:
    alone = run(given, tmp_path, 2, *flags)
    _, text = alone.communicate(timeout=100)
    assert alone.returncode == 1 and said in text and "Traceback" not in text


def test_a_folder_that_is_not_shared_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="is not seen by this one; give a folder that all hosts share"):
        require_shared(tmp_path / "settings.json")


def test_auto_finds_the_process_itself() -> None:
    with pytest.raises(InputError, match="leave it out"):
        start("auto", "1/2")
