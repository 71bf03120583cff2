"""The benchmark measures both sides on the same work and finds the same numbers."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_prints_a_table_in_which_both_sides_agree():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--repeats=1",
         "--parts=probes,capture,cold,generation,alignment"],
        capture_output=True, text=True, check=True)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert [row[0].split(",")[0].strip() for row in rows] == [
        "probes", "capture", "capture", "one concept cold", "7 concepts cold", "16 texts of 12 tokens",
        "16 texts of 12 tokens", "alignment", "canonical correlations and intrinsic dimension"]
    apart = [re.search(r"[-+\d.]+e[-+\d]+\s*$", row[-1]) for row in rows]
    assert [found is not None for found in apart] == [True, True, *[False] * 5, True, True]
    assert rows[5][-1].strip() == "1.00 of tokens equal"
    assert all(abs(float(found[0])) < 5e-4 for found in apart if found)
    assert all(float(row[4]) > 0 for row in rows)


@pytest.mark.slow
def test_dictionaries_trained_at_once_are_those_trained_one_by_one():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", "--repeats=1", "--parts=sae"],
        capture_output=True, text=True, check=True)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert [row[0].split(",")[0].strip() for row in rows][-2:] == [
        "3 topk dictionaries at once", "3 gated dictionaries at once"]
    assert all(float(row[-1]) < 1e-4 for row in rows[-2:]) and all(float(row[4]) > 0 for row in rows)
    for row in rows[:-2]:  # against dictionary_learning, where it is installed
        found = re.search(r"FVU (\S+) .* and (\S+) .*, L0 (\S+) .* and (\S+) ", row[-1])
        if found:
            ours, theirs, *active = map(float, found.groups())
            assert abs(ours / theirs - 1) < 0.15 and abs(active[0] / active[1] - 1) < 0.1, row


@pytest.mark.parametrize("flags, said", [
    ("benchmark --parts=probe", "--parts has 'probe'"),
    ("benchmark --parts=", "--parts is empty"),
    ("benchmark --seed=-1", "--seed=-1"),
    ("planted --workdir=/dev/null", "workdir /dev/null cannot be used"),
])
def test_what_is_wrong_is_said_at_once(flags, said):
    name, *flags = flags.split()
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *flags], capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout, "before anything is measured"
