"""experiments.lexical_transfer: what is given wrongly is said in one sentence; a tiny run leaves all its files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_bad_input import EACH

from xlingjax.analyses.results import open_result

ROOT = Path(__file__).parents[2]
TINY = ["--sentences=160", "--languages=spa", "--layers=1", "--width=16", "--heads=2", "--vocabulary=360",
        "--length=24", "--rows=4", "--body_steps=2", "--bank_steps=2", "--task_steps=2", "--adapter_width=2",
        "--seeds=1", "--baselines=", "--nostarts"]


def each(runs: list[list[str]]) -> list[tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-c", EACH.replace("NAME", "lexical_transfer"), json.dumps(runs)],
        cwd=ROOT, text=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-3000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    wrong = [
        (["--languages=eng"], "names no language|has none but --first=eng"),
        (["--languages=xxx"], "does not speak 'xxx'"),
        (["--topics=sib200.tsv.xz"], "--topics needs --corpus"),
        (["--corpus=text.tsv"], "--corpus needs a task"),
        (["--questions=xquad"], "--questions needs --corpus"),
        (["--corpus=text.tsv", "--questions=xquad", "--topics=sib200.tsv"], "--corpus needs a task: --topics"),
        (["--corpus=text.tsv", "--topics=sib200.tsv"], "sib200.tsv does not exist"),
        (["--seeds=0"], "seeds is 0"),
        (["--baselines=all"], "baseline 'all' is unknown"),
        (["--share=1.5"], "share 1.5"),
        (["--sentences=60", "--rows=900"], "fewer than a batch of 900 x"),
    ]
    found = each([[*flags, f"--workdir={tmp_path}"] for flags, _ in wrong])
    for (flags, said), (status, text) in zip(wrong, found, strict=True):
        assert status == 1 and "Traceback" not in text, (flags, text)
        assert any(part in text for part in said.split("|")), (flags, text)
        assert text.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_a_tiny_run_leaves_all_its_files(tmp_path):
    ((status, text),) = each([[*TINY, f"--workdir={tmp_path}"]])
    assert status in (0, None), text
    for name in ("result.nc", "scores.csv", "report.html", "lexical_scores.png", "lexical_layers.png"):
        assert (tmp_path / name).exists(), name
    tree = open_result(tmp_path / "result.nc")
    assert {"scores", "losses", "training", "text", "costs", "experts"} <= set(tree.children)
    assert (tmp_path / "scores.csv").read_text().startswith("system,language,")
