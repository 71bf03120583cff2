"""Progress shows after two seconds, in a terminal or when asked, with a rate."""

import time

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
    monkeypatch.setenv("XLINGJAX_PROGRESS", "1")
    with progress(total=3, label="count", unit="sentences") as bar:
        for _ in range(3):
            time.sleep(0.6)
            bar.update(1)
    shown = capsys.readouterr().err
    assert "count" in shown and "sentences/s" in shown.replace(" ", "") and "3.00/3.00" in shown
