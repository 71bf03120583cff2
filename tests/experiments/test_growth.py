"""The growth experiment times every stage at every size and draws it."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_table_and_a_figure(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.growth", "--factors=1,2,4", "--repeats=1", f"--workdir={tmp_path}"],
        capture_output=True, text=True, check=True)  # fmt: skip
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert [row[0].split(",")[1].strip() for row in rows] == [
        "by sentences", "by sentences", "by neurons", "by languages", "by checkpoints"]  # fmt: skip
    assert all(float(cell) > 0 for row in rows for cell in row[2:-1])
    assert all(re.fullmatch(r" -?\d\.\d\d ", row[-1]) for row in rows)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "growth.md").read_text().strip() in done.stdout.strip() + "\n"


@pytest.mark.parametrize("factors", ["1,2", "1,1,2", "0,1,2", "a,b,c"])
def test_sizes_that_cannot_be(factors) -> None:
    done = subprocess.run([sys.executable, "-m", "experiments.growth", f"--factors={factors}"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "give three or more different whole numbers" in done.stderr
