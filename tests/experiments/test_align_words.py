"""Alignment and word probes as commands: from checkpoints and files to a page, and again from where they stopped."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_trace

from xlingjax.corpora import mini_world

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, text=True, capture_output=True)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    tiny_trace.checkpoints(folder / "model", {"step1": tiny_trace.model(), "step2": tiny_trace.model(1)})
    corpus = mini_world(sentences=80, languages=tiny_trace.LANGUAGES)
    rows = [f"{i}\t{g}\t{d}\t{text}" for i, g, d, text in zip(
        corpus.parallel, corpus.languages, corpus.documents, corpus.texts)]
    (folder / "pairs.tsv").write_text("\n".join(["id\tlang\tdocument\ttext", *rows]) + "\n", encoding="utf-8")
    tiny_trace.treebanks(folder / "banks", corpus)
    return folder


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize(("experiment", "more", "said"), [
    ("align", ["--parallel={}/pairs.tsv", "--sentences=60", "--shuffles=2", "--unseen=rus"], "training did not see"),
    ("words", ["--treebanks={}/banks", "--tasks=upos", "--words=100", "--minimum=10"], "upos: ")])
def test_a_command_ends_with_its_page_and_goes_on_where_it_stopped(given, tmp_path, experiment, more, said) -> None:
    command = [f"experiments.{experiment}", f"--model={given}/model", "--revisions=step1,step2", "--batch_tokens=2048",
               f"--workdir={tmp_path}", *(flag.replace("{}", str(given)) for flag in more)]
    done = run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert said in done.stdout and "One pre-training run" in done.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "") and len(list(tmp_path.glob("*.png"))) >= 3
    first = (tmp_path / "result.nc").read_bytes()
    again = run(*command)
    assert again.stdout == done.stdout and (tmp_path / "result.nc").read_bytes() == first
    other = run(*command, "--seed=1")
    assert other.returncode == 1 and "holds another experiment" in other.stderr


@pytest.mark.slow
def test_words_are_probed_without_flags(tmp_path) -> None:
    """The embedded corpus and a model pre-trained on it; here a small share of it."""
    command = ["experiments.words", f"--workdir={tmp_path}", "--pretrain_steps=2", "--tasks=upos,Number", "--words=60",
               "--languages=eng,spa", "--minimum=5"]
    done = run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "upos: " in done.stdout and "Number: " in done.stdout
    assert "the embedded corpus" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert run(*command).stdout == done.stdout
