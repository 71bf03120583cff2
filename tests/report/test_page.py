"""The page: self-contained, escaped, the same bytes twice."""

import re

import pytest

from xlingjax.report import page, style


@pytest.fixture
def sections() -> list[page.Section]:
    with style.figure() as (canvas, axes):
        axes[0, 0].plot([0, 1])
        picture = page.Figure("line", style.png(canvas), "a <line>", "How to read & why")
    slides = page.Slides("steps", (picture, picture), ("step 0", "step <1>"), "Checkpoint", "caption")
    table = page.Table(["a", "b"], [[1, 0.5], ["<script>alert(1)</script>", page.marked(["x", " y"], 1)]], "T")
    return [page.Section("First part", ["text with <b>", picture, slides, table])]


def test_nothing_is_fetched_and_nothing_from_data_is_run(sections) -> None:
    text = page.render("Title <i>", ["Sentence & more"], sections, "footer")
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "http" not in re.sub(r"data:[^\"]+", "", text)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "<b>" not in text and "<i>" not in text
    assert text.count("<mark>") == 1


def test_the_slider_is_a_labelled_native_input(sections) -> None:
    text = page.render("T", [], sections, "")
    assert '<label for="steps">Checkpoint</label><input type="range" id="steps"' in text
    assert text.count("data-name=") == 2
    assert "img[hidden] { display: none; }" in text, "the page's own display rule must not undo hidden"


def test_figures_are_written_beside_the_page(sections, tmp_path) -> None:
    path = page.write(tmp_path / "out", page.render("T", [], sections, ""), sections)
    assert path.name == "report.html"
    assert (tmp_path / "out" / "line.png").read_bytes().startswith(b"\x89PNG")


def test_lone_surrogates_do_not_break_the_page(tmp_path) -> None:
    section = [page.Section("S", ["half \ud800 a character"])]
    assert page.write(tmp_path, page.render("T", [], section, ""), section).exists()


def test_the_same_figure_has_the_same_bytes() -> None:
    def picture() -> bytes:
        with style.figure() as (canvas, axes):
            axes[0, 0].plot([0, 1, 4])
            return style.png(canvas)
    assert picture() == picture()
