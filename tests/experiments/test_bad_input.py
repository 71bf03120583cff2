"""What an experiment is given wrongly is said in one sentence, with exit code 1, and nothing is lost."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_trace

from xlingjax.analyses.results import write_tree
from xlingjax.corpora import mini_world
from xlingjax.corpora.concepts import write_concepts
from xlingjax.errors import InputError
from xlingjax.files import claim, write_whole
from xlingjax.models import save_model

ROOT = Path(__file__).parents[2]
EACH = """
import contextlib, io, json, sys
from absl.testing import flagsaver
from experiments.NAME import main, run
for flags in json.loads(sys.argv[1]):
    said, sys.argv[:] = io.StringIO(), ["NAME", *flags]
    with flagsaver.flagsaver(), contextlib.redirect_stderr(said):
        try:
            run(main)
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, said.getvalue()]))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Models and concept folders, sound and not."""
    folder = tmp_path_factory.mktemp("given")
    sound = tiny_trace.model()
    tiny_trace.checkpoints(folder / "model", {"step1": sound, "step2": tiny_trace.model(1)})
    save_model(dataclasses.replace(sound, tokenizer=None), folder / "mute" / "step1")
    wide = dataclasses.replace(sound.config, vocab_size=sound.config.vocab_size - 7)
    rows = np.asarray(sound.params["embed"]["tokens"]["embedding"])[: wide.vocab_size]
    params = {**sound.params, "embed": {**sound.params["embed"], "tokens": {"embedding": rows}}}
    narrow = dataclasses.replace(sound, tokenizer=None, config=wide, params=params)
    save_model(narrow, folder / "narrow" / "step1")
    corpus = tiny_trace.corpus()
    write_concepts(corpus, folder / "concepts")
    labels = corpus.labels[:, :1].copy()
    labels[corpus.languages == "rus"] = 0
    one = dataclasses.replace(corpus.with_concepts(corpus.concepts[:1]), labels=labels)
    write_concepts(one, folder / "no positives")
    labels = corpus.labels[:, :1].copy()
    labels[corpus.languages == "spa"] = 1
    write_concepts(dataclasses.replace(one, labels=labels), folder / "no negatives")
    for language in ("eng", "spa"):
        empty = folder / "empty" / language
        (empty / "own form").mkdir(parents=True)
        (empty / "concept_list.csv").write_text("group,concept\nown form,dog\n")
        (empty / "own form" / "dog.json").write_text(
            json.dumps(
                {
                    "concept": "dog",
                    "group": "own form",
                    "sentences": {"positive": [], "negative": []},
                }
            )
        )
    many = mini_world(sentences=160, languages=tiny_trace.LANGUAGES).with_concepts(["Number=Plur", "Tense=Past"])
    write_concepts(many, folder / "many")
    rows = [f"{i}\t{g}\t{text}" for i, g, text in zip(corpus.parallel, corpus.languages, corpus.texts)]
    more = [f"{i}\t{g}\t{text}" for i, g, text in zip(many.parallel, many.languages, many.texts)]
    for name, kept in (("few", rows), ("one", [row for row in rows if "\teng\t" in row]), ("many", more)):
        (folder / f"{name}.tsv").write_text("\n".join(["id\tlang\ttext", *kept]) + "\n", encoding="utf-8")
    (folder / "nothing").mkdir()
    (folder / "file").write_text("a file")
    (folder / "empty.txt").write_text("\n")
    other = folder / "other" / "trace"
    with claim(other, {"corpus": "of another trace", "settings": {}}, "trace"):
        (other / "step1").mkdir()
    return folder


MODEL = [
    "--model={}/model",
    "--revisions=step1,step2",
    "--minimum=4",
    "--batch_tokens=2048",
    "--noprobe",
]
CONCEPTS = [*MODEL, "--concepts={}/concepts"]
WRONG = [
    (["--stepz=3"], "stepz"),
    (["--pool=sum"], "pool"),
    (["surplus"], "unknown argument 'surplus'"),
    (["--concepts=somewhere"], "--concepts needs --model"),
    (["--revisions=step1"], "--revisions needs --model"),
    (MODEL, "--model needs --concepts"),
    ([*CONCEPTS, "--dose=0.3"], "--dose is of the embedded corpus"),
    ([*CONCEPTS, "--revisions=step1,step7"], "has no checkpoint 'step7'"),
    ([*CONCEPTS, "--revisions=step1,step1"], "'step1' is named twice"),
    ([*CONCEPTS, "--step_list=1,2"], "--step_list needs --template"),
    ([*CONCEPTS, "--template=step{step}", "--step_list=1,x"], "--step_list is '1,x'"),
    ([*CONCEPTS, "--template=step", "--step_list=1"], "template 'step' has no {step}"),
    ([*CONCEPTS, "--languages=eng,xxx"], "'xxx'"),
    ([*CONCEPTS, "--languages=eng"], "has one language, eng"),
    ([*CONCEPTS, "--unseen=xxx"], "language 'xxx' is not in corpus"),
    ([*CONCEPTS, "--sites=mlp.up,mlp.upp"], "site 'mlp.upp' is not in "),
    ([*CONCEPTS, "--unseen=rus,spa"], "1 of 3 languages were seen in pre-training"),
    ([*CONCEPTS, "--revisions=../model/step1"], "'../model/step1' is no plain name"),
    ([*CONCEPTS, "--tokens_per_step=nan"], "tokens_per_step is nan; give a number above 0"),
    ([*CONCEPTS, "--tokens_per_step=0"], "tokens_per_step is 0; give"),
    ([*CONCEPTS, "--model="], "--model is empty"),
    ([*CONCEPTS, "--workdir="], "--workdir is empty; name a folder"),
    ([*CONCEPTS, "--k=0"], "k is 0; it must be 1 or more"),
    ([*CONCEPTS, "--k=100000"], "k is 100000, but "),
    ([*CONCEPTS, "--permutations=2"], "permutations is 2; it must be 3 or more"),
    ([*CONCEPTS, "--batch_tokens=0"], "batch_tokens is 0"),
    ([*CONCEPTS, "--minimum=1000"], "has 1000 positive and 1000 negative"),
    ([*CONCEPTS, "--dtype=float64"], "JAX_ENABLE_X64=1"),
    ([*MODEL, "--concepts={}/absent"], "does not exist"),
    ([*MODEL, "--concepts={}/nothing"], "has no concept_list.csv"),
    ([*MODEL, "--concepts={}/empty"], "empty"),
    ([*MODEL, "--concepts={}/no positives"], "no concept of corpus 'no positives' has 4 positive"),
    ([*MODEL, "--concepts={}/no negatives"], "no concept of corpus 'no negatives' has 4 positive"),
    ([*CONCEPTS, "--model={}/mute", "--revisions=step1"], "brings no tokenizer; name the folder"),
    (
        [*CONCEPTS, "--model={}/narrow", "--revisions=step1", "--tokenizer={}/model/step1"],
        "give the tokenizer that belongs to the model",
    ),
    ([*CONCEPTS, "--tokenizer={}/nothing"], "holds no tokenizer"),
    ([*CONCEPTS, "--model={}/nothing", "--revisions="], "holds no config.json"),
    ([*CONCEPTS, "--workdir={}/other"], "holds another experiment: corpus was 'of another trace'"),
    ([*CONCEPTS, "--workdir={}/file"], "cannot be used"),
    (["--unseen=xxx"], "'xxx'"),
    (["--languages=xxx"], "'xxx'"),
    (["--dose=2"], "dose 2"),
    *(
        ([flag], expected)
        for flag, expected in {
            "--sites=mlp.upp": "site 'mlp.upp' is not in the embedded corpus's model; choose among",
            "--k=2305": "k is 2305, but the embedded corpus's model has 2,304 neurons",
            "--minimum=1000": "has 1000 positive and 1000 negative",
            "--probe_tokens=0": "tokens of the probe is 0; it must be 2 or more",
            "--dtype=float64": "JAX_ENABLE_X64=1",
            "--languages=eng": "has one language, eng",
            "--unseen=eng,deu,spa,fin,rus,tur,hin": "1 of 8 languages were seen in pre-training",
            "--pretrain_steps=0": "steps is 0",
        }.items()
    ),
]


CHECKPOINTS = ["--model={}/model", "--revisions=step1,step2", "--batch_tokens=2048"]
STEER = [*CHECKPOINTS, "--concepts={}/many", "--concept=Number=Plur"]
ALIGN = [*CHECKPOINTS, "--parallel={}/many.tsv"]
WRONG_ELSEWHERE = {
    "steer": [
        (["--value=mode"], "value"), (["--concepts=somewhere"], "--concepts needs --model"),
        (CHECKPOINTS, "--model needs --concepts"), ([*STEER, "--concept=nothing"], "'nothing'"),
        ([*STEER, "--source_language=xxx"], "'xxx'"), ([*STEER, "--other_language=spa"], "is the source"),
        ([*STEER, "--other_concept=Number=Plur"], "is the concept itself"), ([*STEER, "--k=100000"], "k is 100000"),
        ([*STEER, "--ks=1,x"], "--ks has 'x'"), ([*STEER, "--ks=0"], "ks are (0,)"),
        ([*STEER, "--prompts={}/absent"], "is no file"), ([*STEER, "--prompts={}/empty.txt"], "holds no prompt"),
        ([*STEER, "--seeds=1"], "give two rows or more"), ([*STEER, "--temperature=0"], "100 seeds change nothing"),
        ([*STEER, "--max_new_tokens=0"], "max_new_tokens is 0"), ([*STEER, "--sites=mlp.upp"], "site 'mlp.upp'"),
        ([*STEER, "--languages=spa"], "needs two"), ([*STEER, "--concepts={}/no positives", "--concept=dog"], "'dog'"),
        ([*STEER, "--judge=library", "--languages=eng,spa", "--temperature=-1"], "temperature is -1"),
        ([*STEER, "--model={}/mute", "--revisions=step1"], "brings no tokenizer")],
    "align": [
        (["--pool=max"], "pool"), (["--parallel=somewhere"], "--parallel needs --model"),
        (CHECKPOINTS, "--model needs --parallel"), ([*ALIGN, "--parallel={}/absent"], "does not exist"),
        ([*ALIGN, "--parallel={}/few.tsv"], "has 48 sentences in all languages, and 50 are needed"),
        ([*ALIGN, "--parallel={}/one.tsv"], "alignment needs two"), ([*ALIGN, "--parallel={}/file"], "no column 'id'"),
        ([*ALIGN, "--languages=eng,xxx"], "'xxx'"), ([*ALIGN, "--unseen=xxx"], "'xxx'"),
        ([*ALIGN, "--sentences=10"], "sentences is 10"), ([*ALIGN, "--trace={}/absent.nc"], "is no file"),
        ([*ALIGN, "--revisions=step1,step7"], "has no checkpoint 'step7'")],
    "words": [
        (["--treebanks=somewhere"], "--treebanks needs --model"), (CHECKPOINTS, "--model needs --treebanks"),
        ([*CHECKPOINTS, "--treebanks={}/absent"], "does not exist"), (["--tasks=Mood"], "'Mood' applies to no word"),
        (["--languages=xxx"], "does not speak 'xxx'"), (["--words=5"], "words is 5")],
}  # fmt: skip
BY_ABSL = (["--stepz=3"], ["--pool=sum"], ["--value=mode"], ["--pool=max"])


@pytest.mark.parametrize("experiment", [
    "trace", *(pytest.param(name, marks=[pytest.mark.slow, pytest.mark.promise]) for name in WRONG_ELSEWHERE)])
def test_what_is_wrong_is_said_in_one_sentence(given, tmp_path, experiment):
    """One process for all cases: it imports JAX once. Attempts share a workdir, as users' do."""
    cases = WRONG if experiment == "trace" else WRONG_ELSEWHERE[experiment]
    made = [
        [f"--workdir={tmp_path / 'run'}", *(flag.replace("{}", str(given)) for flag in flags)]
        for flags, _ in cases
    ]
    done = subprocess.run(
        [sys.executable, "-c", EACH.replace("NAME", experiment), json.dumps(made)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    wrong = []
    for (status, said), (flags, expected) in zip(answers, cases):
        told = [line for line in said.splitlines() if line.startswith("error: ")]
        if status != 1 or expected not in said or "Traceback" in said or len(told) != (flags not in BY_ABSL):
            wrong.append((flags, expected, status, said[-500:]))
    assert not wrong and len(answers) == len(cases), (wrong, done.stderr[-2000:])
    left = [path for path in (tmp_path / "run" / experiment).rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"lock"}, "a refused attempt leaves the workdir free for the right one"
    assert (given / "other" / "trace" / "step1").is_dir()
    assert not (tmp_path / "run" / "pretrain").exists(), "refused before any pre-training"


class TestFullDisk:
    @pytest.fixture
    def full(self, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return lambda name: monkeypatch.setattr(os, name, refuse)

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_the_file_that_was_there_stays(self, tmp_path, full, call):
        path = tmp_path / "result.nc"
        write_whole(path, b"earlier")
        full(call)
        with pytest.raises(InputError, match="result.nc: .*No space left.*what is finished is kept"):
            write_whole(path, b"later")
        assert path.read_bytes() == b"earlier" and [p.name for p in tmp_path.iterdir()] == [
            "result.nc"
        ]

    def test_a_tree_that_cannot_be_made_names_both_places(self, tmp_path, monkeypatch):
        import xarray as xr

        def refuse(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(xr.DataTree, "to_netcdf", refuse)
        with pytest.raises(
            InputError, match="result.nc by way of .*No space left on device; free disk"
        ):
            write_tree(tmp_path / "result.nc", {"a": xr.Dataset({"x": 1})})
        assert not list(tmp_path.iterdir())


def test_a_workdir_is_free_again_after_a_mistake_but_not_after_work(tmp_path):
    with (
        pytest.raises(InputError, match="a mistake"),
        claim(tmp_path, {"site": "mlp.upp"}, "trace"),
    ):
        raise InputError("a mistake")
    with pytest.raises(InputError, match="too late"), claim(tmp_path, {"site": "mlp.up"}, "trace"):
        (tmp_path / "step1").mkdir()
        raise InputError("too late")
    with pytest.raises(InputError, match="site was 'mlp.up' and is 'mlp.down'"):
        with claim(tmp_path, {"site": "mlp.down"}, "trace"):
            pass
