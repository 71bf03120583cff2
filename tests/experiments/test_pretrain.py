"""The pre-training command: flags, plan, checkpoints, and one sentence for what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_bad_input import EACH

from xlingjax.models import load_model

ROOT = Path(__file__).parents[2]
SMALL = [
    "--steps=3",
    "--layers=1",
    "--width=8",
    "--heads=2",
    "--vocabulary=400",
    "--length=16",
    "--batch_tokens=64",
    "--held_out=0.3",
]


def command(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "experiments.pretrain", *flags],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    words = {"lat": "ana bel cor dun", "cyr": "ана бел кор дун", "gre": "ανα βελ κορ δυν"}
    for language, line in words.items():
        (folder / f"{language}.txt").write_text(
            "\n\n".join(f"{line} {n}.\n{line}" for n in range(9))
        )
    return folder


@pytest.mark.slow
def test_trains_prints_the_plan_and_the_losses_and_resumes(text, tmp_path):
    flags = [f"--workdir={tmp_path}", f"--corpus={text}", "--leave_out=gre", *SMALL]
    first = command(*flags)
    assert first.returncode == 0, first.stderr
    assert "never seen: gre" in first.stderr and "parameters" in first.stderr
    assert "4 checkpoints" in first.stdout and "gre" in first.stdout.splitlines()[1]
    model = load_model(tmp_path, revision="2")
    assert model.family == "bloom" and model.encode(["ana bel"])[1].all()
    again = command(*flags)
    assert again.returncode == 0 and again.stdout == first.stdout
    other = command(*flags, "--seed=1")
    assert other.returncode == 1 and other.stdout == ""
    assert other.stderr.startswith("error: ") and "settings.seed was 0 and is 1" in other.stderr
    assert len(other.stderr.splitlines()) == 1


def test_the_masked_objective_follows_the_family(text, tmp_path):
    done = command(f"--workdir={tmp_path}", f"--corpus={text}", "--family=xlm_roberta", *SMALL)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["objective"] == "masked"
    assert not load_model(tmp_path, revision="3").config.causal


WRONG = [
    (["--stepz=3"], "stepz"),
    (["--steps=many"], "steps"),
    (["surplus"], "unknown argument 'surplus'"),
    (["--corpus=nowhere.txt"], "nowhere.txt"),
    (["--batch_tokens=100", "--length=64"], "--batch_tokens=100 is no multiple of --length=64"),
    (["--batch_tokens=0"], "--batch_tokens=0 is no multiple of --length=16"),
    (["--leave_out=xxx"], "'xxx'"),
    (["--languages=xxx"], "xxx"),
    (["--heads=3"], "heads 3"),
    (["--temperature=2"], "temperature 2.0"),
    (["--family=xglm", "--objective=masked"], "objective 'masked' does not fit"),
]


def test_what_is_wrong_is_said_in_one_sentence(text, tmp_path):
    """One process for all cases: it imports JAX once."""
    cases = [
        [f"--corpus={text}", *SMALL, *flags, f"--workdir={tmp_path / 'run'}"] for flags, _ in WRONG
    ]
    done = subprocess.run(
        [sys.executable, "-c", EACH.replace("NAME", "pretrain"), json.dumps(cases)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(answers) == len(WRONG), done.stderr
    for (status, said), (flags, expected) in zip(answers, WRONG):
        assert status == 1, flags
        assert expected in said and "Traceback" not in said, flags
        assert said.startswith("error: ") == (flags not in (["--stepz=3"], ["--steps=many"])), said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_help_lists_every_flag():
    shown = command("--help")
    for flag in (
        "workdir",
        "corpus",
        "leave_out",
        "batch_tokens",
        "learning_rate",
        "checkpoint_every",
    ):
        assert f"--{flag}" in shown.stdout or f"--[no]{flag}" in shown.stdout
