"""experiments.dialogue: what is given wrongly is refused before any training; a small run; a conversation by pipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_bad_input import EACH

ROOT = Path(__file__).parents[2]
TINY = ["--kinds=lstm", "--languages=swh", "--pretrain_steps=2", "--source_updates=2", "--updates=2",
        "--evaluations=1", "--seeds=1", "--controls=", "--replies=2", "--conversations=1", "--turns=1",
        "--max_new_tokens=6", "--draws=100", "--nosharing", "--rows=2", "--validation=4", "--warm_up=1"]  # fmt: skip


def wrong(folder: Path) -> list[tuple[list[str], str]]:
    data = f"--data={folder}"
    return [
        (["--kinds=rnn"], "--kinds=rnn; choose among decoder, pair, lstm"), (["--kinds="], "--kinds="),
        (["--languages=xxx"], "xxx"), (["--languages=eng"], "the source language and a target too"),
        (["--controls=none"], "control 'none' is unknown"), (["--text=0"], "text is 0"),
        (["--revision=8"], "--revision needs --data"), (["--concepts=somewhere"], "--concepts needs --data"),
        (["--chat_kind=lstm", "--kinds=decoder"], "--chat_kind=lstm is none of the --kinds"),
        (["--width=0"], "--width=0; give 1 or more"), (["--learning_rate=0"], "learning rate 0"),
        ([data], "--data needs --decoder"), ([data, "--decoder=x", "--columns=a"], "--columns=a; give two"),
        ([data, f"--decoder={folder}"], "the two columns New_Episode and Conversation"),
        (["--decoder=", "--kinds=lstm"], "error"),
        ([f"--data={folder}/absent", "--decoder=x"], "absent")]


def test_what_is_given_wrongly_is_said_before_any_training(tmp_path):
    (tmp_path / "hau_train.tsv").write_text("New_Episode\tText\n1\ta\n")
    cases = wrong(tmp_path)
    made = [[f"--workdir={tmp_path / 'run'}", *given] for given, _ in cases]
    done = subprocess.run(
        [sys.executable, "-c", EACH.replace("NAME", "dialogue"), json.dumps(made)], cwd=ROOT, text=True,
        capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get(
            "PYTHONPATH", "")])})
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    bad = [(given, expected, status, said[-300:]) for (status, said), (given, expected) in zip(answers, cases)
           if status != 1 or expected not in said or "Traceback" in said]
    assert not bad and len(answers) == len(cases), (bad, done.stderr[-2000:])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_small_run_and_a_conversation_by_pipe(tmp_path):
    run = lambda *more, given="": subprocess.run(
        [sys.executable, "-m", "experiments.dialogue", f"--workdir={tmp_path}", *TINY, *more], cwd=ROOT, text=True,
        input=given, capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get(
            "PYTHONPATH", "")])})
    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    for name in ("result.nc", "scores.csv", "claims.csv", "replies.csv", "conversations.txt", "dialogue_losses.png"):
        assert (tmp_path / name).stat().st_size > 0
    talks = [run("--chat", given=text).stdout.splitlines() for text in ("habari\nwapi\n", "habari\n\n/new\nhabari\n")]
    assert [len(said) for said in talks] == [2, 2] and talks[0][0] == talks[1][0]
