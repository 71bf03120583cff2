"""A sweep on paper: exact where it counts, compiled for devices that are not here, and what does not fit is said."""

import re
import subprocess
import sys

import pytest

PARAMETERS = {"bloom-560m": 559_214_592, "bloom-7b1": 7_069_016_064, "xglm-257m": 257_115_136}  # published


def planned(*flags: str) -> list[list[str]]:
    """The cells of each model's line."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.plan", "--teraflops=100", "--billions_ranked=2", *flags],
        capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-1000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_counts_are_those_of_the_paper() -> None:
    rows = {row[0]: row for row in planned("--shapes=bloom-560m,xglm-257m")}
    assert [rows[name][1] for name in rows] == ["8", "44"]
    for name, row in rows.items():
        held = re.match(r"([\d.]+) \+ ([\d.]+) \+ ([\d.]+)", row[2])
        assert held and float(held[1]) == pytest.approx(4 * PARAMETERS[name] / 1e9, abs=0.005)
        assert float(held[2]) > 0
    assert rows["bloom-560m"][3] == "163.2 M", "200 x 16 x 1,700 x 30"
    assert float(rows["bloom-560m"][8]) == 1.5, "1,700 x 221,184 x 4 bytes"
    # 2 operations for each of 24 x 12 x 1,024^2 weights, and attention, at 100 x 10^12 a second.
    operations = 163.2e6 * (2 * 24 * 12 * 1024**2 + 24 * 4 * 30 * 1024)
    assert float(rows["bloom-560m"][5]) == pytest.approx(8 * operations / 1e14 / 3600, abs=0.05)
    assert float(rows["bloom-560m"][6]) == pytest.approx(8 * 200 * 16 * 1700 * 221_184 / 2e9 / 3600, abs=0.05)


@pytest.mark.slow
@pytest.mark.promise
@pytest.mark.parametrize("mesh, parts", [("data:2,model:4", 4), ("data:1,model:8", 8), ("data:4,model:8", 8),
                                         ("fsdp:4,model:8", 32)])  # fmt: skip
def test_7b1_is_compiled_for_8_and_32_devices(mesh, parts) -> None:
    """P5: each device holds its part of the parameters, nearly nothing of which is replicated."""
    (row,) = planned("--shapes=bloom-7b1", f"--mesh={mesh}", "--dtype=bfloat16", "--device_gib=16")
    held = re.fullmatch(r"([\d.]+) \+ ([\d.]+) \+ ([\d.]+)", row[2])
    assert held, "it fits"
    assert float(held[1]) == pytest.approx(2 * PARAMETERS["bloom-7b1"] / parts / 1e9, rel=0.01, abs=0.01)
    assert 0 < float(held[2]) < 2, "no device makes the embedding or a layer stack whole"


def test_what_does_not_fit_is_said_beside_what_does() -> None:
    small, large = planned("--shapes=xglm-257m,bloom-560m", "--device_gib=2")
    assert "does not fit" not in small[2] and "does not fit in 2.1" in large[2]


@pytest.mark.parametrize("flags, said", [
    ("--shapes=bloom", "--shapes has 'bloom'; choose among bloom-560m"),
    ("--teraflops=0", "--teraflops=0; give a number above 0"),
    ("--mesh=tensor:2", "name axes among data, fsdp, model"),
    ("--sentences=1", "--sentences=1"),
])  # fmt: skip
def test_what_is_wrong_is_said_at_once(flags, said) -> None:
    done = subprocess.run([sys.executable, "-m", "experiments.plan", flags], capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
