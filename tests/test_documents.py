"""The documents are true: their code runs, their commands, flags and files exist (P22)."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xlingjax.analyses.trace.tables import summary_markdown
from xlingjax.corpora import mini_world
from xlingjax.files import slug
from xlingjax.models.families import FAMILIES
from xlingjax.training.loop import pretrain
from xlingjax.training.settings import Settings, checkpoint_steps
from xlingjax.training.shapes import small_config

ROOT = Path(__file__).parents[1]
README, NOTES = (
    (ROOT / "README.md").read_text("utf-8"),
    (ROOT / "BUILD_NOTES.md").read_text("utf-8"),
)
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))
NOT_OURS = ("runs/", "GROUP/", "concept_list.csv", "config.json", "source.json")  # what a run or a user makes


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(experiment, its flags) of every command in a text, lines that end in a backslash joined."""
    joined = re.sub(r"\\{1,2}\n\s*", " ", text)
    found = re.findall(r"-m experiments\.(\w+)((?: +--[^\s`|\"']+)*)", joined)
    return [(name, re.findall(r"--(\w+)", flags)) for name, flags in found]


@functools.cache
def help_of(experiment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{experiment}", "--help"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def flags_of(experiment: str) -> set[str]:
    return set(re.findall(r"^\s+(?:-\w,)?--(?:\[no\])?(\w+)", help_of(experiment)[1], re.M))


def test_every_experiment_in_the_documents_exists():
    named = {
        name for text in (README, NOTES) for name in re.findall(r"experiments\.([a-z_]\w*)", text)
    }
    assert {"trace", "pretrain", "planted"} <= named
    assert named <= set(EXPERIMENTS), f"not there: {sorted(named - set(EXPERIMENTS))}"
    assert set(EXPERIMENTS) <= named, f"not in the README: {sorted(set(EXPERIMENTS) - named)}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_help_says_what_every_flag_is(experiment):
    code, text = help_of(experiment)
    assert code == 0 and "Traceback" not in text, text[-2000:]
    assert f"python -m experiments.{experiment}" in text, "the command stands at the head"
    several = {"workdir", "seeds"}
    wanted = dict.fromkeys(("benchmark", "plan", "parity", "list_models"), set()) | {
        "validate_influence": {"seed", "seeds"}, "real_size": {"workdir"}, "replicates": {"workdir"},
        "real_lexical": several, "real_text": several, "small_world": several}  # fmt: skip
    assert wanted.get(experiment, {"workdir", "seed"}) <= flags_of(experiment)


def test_flags_in_the_documents_are_flags_of_their_experiment():
    texts = [
        README,
        NOTES,
        *(
            (ROOT / "experiments" / f"{name}.py").read_text("utf-8").split('"""')[1]
            for name in EXPERIMENTS
        ),
    ]
    used = [(name, flag) for text in texts for name, flags in commands(text) for flag in flags]
    assert ("trace", "concepts") in used and ("pretrain", "leave_out") in used
    wrong = [
        (name, flag) for name, flag in used if name in EXPERIMENTS and flag not in flags_of(name)
    ]
    assert not wrong
    prose = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    inline = {
        flag for code in re.findall(r"`([^`]+)`", prose) for flag in re.findall(r"--(\w+)", code)
    }
    assert "workdir" in inline and inline - {"help"} <= flags_of("trace")


def test_every_file_in_the_documents_exists():
    missing = []
    for text in (README, NOTES):
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        named = re.findall(
            r"`([\w.-]*(?:/[\w.-]*)+|[\w-]+\.(?:md|py|cfg|toml|ipynb|json|csv))`", prose
        )
        named += re.findall(r"\]\((?!http|#)([^)]+)\)", prose)
        assert named
        for name in named:
            places = [ROOT / name, ROOT / "xlingjax" / name]
            if not name.startswith(NOT_OURS) and not any(place.exists() for place in places):
                missing.append(name)
    assert not missing


def test_the_two_commands_are_one_line_each():
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    starts = [line for line in lines if line.startswith("python3 -m venv ")]
    assert len(starts) == 2
    run, test = starts
    assert run.endswith("-m experiments.trace") and "pip install" in run
    assert "pip install" in test and "[test]" in test and "-m pytest" in test
    pattern = re.search(r"grep -m1 -E '([^']+)' README\.md", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    found = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert found[0] == test, "what .ci/run takes from the README"


def test_the_families_of_the_readme_are_the_families():
    table = README.split("| family |")[1].split("\n\n")[0]
    names = {"bart": "mBART", "bert": "BERT", "bloom": "BLOOM", "cohere": "Aya", "gpt2": "GPT-2", "gpt_neox": "Pythia",
             "llama": "Llama", "olmo": "OLMo", "qwen": "Qwen", "t5": "mT5", "xglm": "XGLM", "xlm_roberta": "XLM-R"}
    assert names.keys() == FAMILIES.keys()
    assert all(name in table for name in names.values())


def traced_groups() -> list[str]:
    """Groups of the concepts that the quick start traces; in a process of its own, for its flags."""
    code = """
import json
from experiments.trace import mini_world, traced_concepts
probe = mini_world("probe")
print(json.dumps(list(dict.fromkeys(probe.with_concepts(traced_concepts(probe)).groups))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return json.loads(done.stdout)


def small_tree(groups: list[str]) -> xr.DataTree:
    """As much of a trace of two checkpoints as its summary reads, every number another."""
    steps, pairs = ["0", "512"], ["seen", "unseen"]
    numbers = iter(np.linspace(-0.9, 0.9, 1000))
    parts = {
        "health": xr.Dataset(
            {"bits_per_character": (("checkpoint", "language"), [[4.0], [2.0]]),
             "status": ("checkpoint", ["ok", "ok"])}, {"checkpoint": steps})
    }  # fmt: skip
    columns = ("overlap", "null", "band", "name_null", "name_band", "ceiling", "shared_fraction",
               "shared_fraction_low", "shared_fraction_high")  # fmt: skip
    for group in groups:
        parts[f"claims/{slug(group)}"] = xr.Dataset(
            {name: (("pairs", "checkpoint"), [[next(numbers) for _ in steps] for _ in pairs])
             for name in columns},
            {"pairs": pairs, "checkpoint": steps}, {"group": group})  # fmt: skip
    tree = xr.DataTree.from_dict(parts)
    tree.attrs["last_sound"] = "512"
    return tree


def test_the_quick_start_table_is_what_the_command_writes():
    """Its figures are those of a run; header, rows and format are those of `summary.md`."""
    groups = traced_groups()
    tree = small_tree(groups)
    header, dashes, *made = summary_markdown(tree).splitlines()
    start = README.index(header)
    shown = README[start:].split("\n\n")[0].splitlines()
    assert shown[:2] == [header, dashes]
    number = r"(?:-?\d\.\d{3}|-)"
    form = rf"\| ([a-z ]+?)(?: \([^)]+\))?((?: \| {number}){{6}}) \| {number} \[{number}, {number}\] \| {number} \|"
    assert [re.fullmatch(form, row)[1] for row in made] == groups
    assert sorted(re.fullmatch(form, row)[1] for row in shown[2:]) == sorted(groups)
    one = tree["claims"].children[slug(groups[1])].to_dataset().sel(checkpoint="512", pairs="seen")
    assert made[1].split(" | ")[1] == f"{float(one['overlap']):.3f}", "of the last checkpoint"


@pytest.mark.slow
@pytest.mark.promise
def test_the_python_of_the_readme_runs(tmp_path):
    """On a model of two steps in the place of the quick start's, whose last step is 512."""
    assert re.search(
        r"pretrain_steps=N\b|--pretrain_steps.*\n.*default: '512'", help_of("trace")[1]
    )
    assert 512 in checkpoint_steps(512)
    corpus = mini_world("train", sentences=60, languages=("eng", "spa"))
    pretrain(
        corpus,
        small_config("bloom", 1, 16, 2),
        Settings(steps=2, rows=2, length=16, vocabulary=400, held_out=0.2, evaluated=32),
        tmp_path / "runs" / "trace" / "pretrain",
        family="bloom",
    )
    codes = blocks(README, "python")
    assert codes
    for code in codes:
        script = code.replace('revision="512"', 'revision="2"')
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "overlap" in done.stdout and "chance" in done.stdout


def test_no_document_names_a_machine():
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("experiments/*.md"),
        *ROOT.glob("experiments/*.ipynb"),
    ]:
        found = re.findall(r"(?<![\w.:/-])/(?:root|work|home|tmp)/\S*", path.read_text("utf-8"))
        assert not found, (path.name, found)
