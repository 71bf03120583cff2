"""Several runs by command: one report of three traces, what is refused, the commands of the real-text runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_trace

from xlingjax.analyses.results import open_result, write_tree
from xlingjax.analyses.trace import trace

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> list[Path]:
    """Three runs of two checkpoints of random models, traced."""
    home = tmp_path_factory.mktemp("runs")
    folders = []
    for seed in range(3):
        folder = home / f"run{seed}" / "trace"
        sources = tiny_trace.checkpoints(
            home / f"model{seed}",
            {"step0": tiny_trace.model(10 + seed), "step10": tiny_trace.model(20 + seed)},
        )
        tree = trace(sources, tiny_trace.corpus(), tiny_trace.SETTINGS, folder / "trace")
        write_tree(folder / "result.nc", tree)
        folders.append(folder)
    return folders


@pytest.mark.slow
@pytest.mark.promise
def test_three_traces_make_one_report(traces, tmp_path) -> None:
    done = python(
        "-m", "experiments.replicates", f"--traces={','.join(map(str, traces))}",
        f"--workdir={tmp_path}")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 pre-training runs (run0/trace, run1/trace, run2/trace)" in done.stdout
    tree = open_result(tmp_path / "result.nc")
    runs = [open_result(folder / "result.nc") for folder in traces]
    for node, name in (("experts/own_form", "overlap_mean"), ("probe", "accuracy")):
        each = np.stack([one[node][name].values for one in runs])
        np.testing.assert_allclose(tree[node][name].values, each.mean(0))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Run by run" in page and "run2/trace" in page
    assert "Student&#x27;s t between 3 runs" in page
    first = re.search(r"<ul><li>(.*?)</li>", page)
    assert first and first[1].startswith("Nothing found"), "random models share nothing"
    assert "One pre-training run" not in page
    assert len((tmp_path / "summary.csv").read_text().splitlines()) == 5
    table = (tmp_path / "summary.md").read_text()
    assert table in done.stdout and table.count("| step10 |") == 3, "two groups and the probe"
    one = tree["claims/own_form"].sel(checkpoint="step10", pairs="seen")
    assert f"| {float(one['overlap']):.3f} [{float(one['overlap_low']):.3f}, " in table


@pytest.mark.slow
def test_the_same_run_twice_is_refused(traces) -> None:
    done = python("-m", "experiments.replicates", f"--traces={traces[0]},{traces[0]}")
    assert done.returncode == 1 and "twice; a replicate is another pre-training run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_trace_is_refused(tmp_path) -> None:
    done = python("-m", "experiments.replicates", f"--traces={tmp_path},{tmp_path / 'b'}")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path} holds no result.nc; give the --workdir of a finished trace\n"
    )


@pytest.mark.parametrize("name", ["replicates", "real_text", "small_world"])
def test_doctests(name) -> None:
    """Here and not with the package's: two experiments in one process define the same flags twice."""
    done = python("-m", "doctest", "-v", f"experiments/{name}.py")
    assert done.returncode == 0 and "1 passed" in done.stdout.replace("1 tests", "1"), done.stdout


@pytest.mark.parametrize(
    ("name", "call", "expected"),
    [
        ("real_text", "Path('data'), Path('runs'), ['0', '1'], 1536",
         [*["pretrain", "trace", "trace"] * 2, "replicates", "replicates"]),
        ("small_world", "Path('runs'), ['0', '1']",
         ["trace", "trace", "replicates", *["trace"] * 4]),
        ("real_lexical", "Path('D'), Path('W'), ['deu', 'spa'], 2", ["lexical_transfer"] * 2),
        ("real_dialogue", "Path('D'), Path('W'), ['hau', 'yor'], 8, 4, 1, 0", ["pretrain", "dialogue"] * 2),
    ],
)  # fmt: skip
def test_the_commands_have_flags_that_exist(name, call, expected) -> None:
    listed = python("-c", (
        f"import json; from pathlib import Path; from experiments.{name} import commands;"
        f"print(json.dumps(commands({call})))"))  # fmt: skip
    commands = json.loads(listed.stdout)
    assert [one[0].split(".")[1] for one in commands] == expected
    for module in {one[0] for one in commands}:
        known = set(re.findall(r"--(?:\[no\])?(\w+)", python("-m", module, "--help").stdout))
        used = {flag[2:].split("=")[0] for one in commands if one[0] == module for flag in one[1:]}
        assert {flag.removeprefix("no") for flag in used} <= known


class TestRealText:
    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--data=nowhere"], "--data=nowhere lacks text/opensource_guide.tsv.xz"),
            (["--seeds=1"], "--seeds=1: give two or more different whole numbers"),
            (["--steps=3"], "--steps=3; it must be 32 or more"),
        ],
    )
    def test_what_is_wrong_is_said_at_once(self, flags, said, tmp_path) -> None:
        for name in ("opensource_guide", "djangogirls", "global_asp", "udhr"):
            (tmp_path / "text").mkdir(exist_ok=True)
            (tmp_path / "text" / f"{name}.tsv.xz").touch()
        (tmp_path / "sib200.tsv.xz").touch()
        (tmp_path / "pud").mkdir()
        done = python("-m", "experiments.real_text", f"--data={tmp_path}", *flags)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
