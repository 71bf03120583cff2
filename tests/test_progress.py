"""Progress shows after two seconds, in a terminal or when asked, with a rate."""

import time
from pathlib import Path

import pytest

from xlingjax import progress as module
from xlingjax.progress import progress


def test_silent_outside_a_terminal(capsys):
    assert list(progress(range(3), label="count")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_short_work_shows_nothing_even_when_asked(capsys):
    with progress(total=3, label="count", show=True) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_long_work_shows_label_and_rate(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BEFORE_SHOWN", 0.2)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.5)
    monkeypatch.setenv("XLINGJAX_PROGRESS", "1")
    with progress(total=3, label="count", unit="sentences") as bar:
        for _ in range(3):
            time.sleep(0.6)
            bar.update(1)
    shown = capsys.readouterr().err
    assert "count" in shown and "sentences/s" in shown.replace(" ", "") and "3.00/3.00" in shown


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_log_gets_a_line_every_ten_seconds(capsys, monkeypatch, by_hand):
    clock = [0.0]
    monkeypatch.setattr(module._Lines, "_time", lambda self: clock[0], raising=False)
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with progress(None if by_hand else range(5_000), total=5_000, label="train", unit="steps", show=True) as bar:
        for _ in range(5_000) if by_hand else bar:
            clock[0] += 0.01  # 50 seconds in all
            if by_hand:
                bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 6 and not any("\r" in line for line in lines)
    assert all(line.startswith("train:") and "steps/s" in line for line in lines), lines
    assert "5.00k/5.00k" in lines[-1] and "100%" in lines[-1]


def test_a_resumed_bar_starts_where_it_stopped(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BEFORE_SHOWN", 0.0)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress(total=8, initial=6, label="train", show=True) as bar:
        bar.update(2)
    assert "8.00/8.00" in capsys.readouterr().err


def test_there_is_no_other_bar():
    root = Path(module.__file__).parents[1]
    files = [*root.glob("xlingjax/**/*.py"), *root.glob("experiments/*.py")]
    bars = [path.name for path in files if "tqdm" in path.read_text("utf-8").replace("disable_tqdm=True", "")]
    assert bars == ["progress.py"]
