"""The example notebook runs from its first cell to its last."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "experiments" / "example.ipynb"


def test_it_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert 4 <= len(code) <= 8
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.slow
@pytest.mark.promise
def test_it_runs_and_shows_overlap_beside_chance(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    text = "".join(output.get("text", "") for output in outputs)
    found = re.findall(r"step +(\d+), eng with (\w+): overlap ([\d.]+), chance ([\d.]+)", text)
    assert [(step, language) for step, language, _, _ in found] == [
        (step, language) for step in ("0", "8", "32") for language in ("spa", "rus")
    ]
    assert all(0 < float(chance) < 0.2 for *_, chance in found)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "only this unit differs in its layer: True" in text
    changed = re.search(r"largest change of a logit: ([\d.]+)", text)
    assert changed is not None and float(changed[1]) > 0
    assert not [output for output in outputs if output.output_type == "error"]
