# ruff: noqa: E501  (style and markup read better on one line)
"""One self-contained HTML page: headings, prose, figures with captions, tables, sliders.

The page opens offline: style, script and pictures stand inside it. All text that comes from data is
escaped, so a sentence with markup in it is shown, never run.
"""

import base64
import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

from xlingjax.files import write_whole

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --mark: #ffe08a; --blue: #0058a3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ul { margin: .5rem 0; }
a { color: var(--blue); }
nav { font-size: .92rem; margin: .8rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
figure { margin: 1rem 0 1.4rem; }
figure img { max-width: 100%; height: auto; display: block; }
figure img[hidden] { display: none; }
figcaption { color: var(--dim); font-size: .92rem; margin-top: .4rem; }
.wide { overflow-x: auto; }
.wide:focus-visible, a:focus-visible, input:focus-visible, summary:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .88rem; margin: .4rem 0; }
caption { text-align: left; color: var(--dim); padding-bottom: .3rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
mark { background: var(--mark); color: inherit; padding: 0 .1em; border-radius: .15em; }
span.up { background: rgb(213 94 0 / calc(var(--w) * .7)); }
span.down { background: rgb(0 114 178 / calc(var(--w) * .5)); text-decoration: underline dotted; }
.summary { border-left: 4px solid var(--blue); padding: .3rem 0 .3rem 1rem; background: #f6f8fa; }
.slider { display: flex; gap: .8rem; align-items: center; flex-wrap: wrap; margin: .4rem 0; }
.slider input { flex: 1 1 12rem; min-width: 0; }
footer { color: var(--dim); font-size: .85rem; margin-top: 3rem; overflow-wrap: anywhere; }
@media print { nav, .slider { display: none; } }
"""

_SCRIPT = """
document.querySelectorAll('[data-slides]').forEach(function (box) {
  var range = box.querySelector('input'), name = box.querySelector('output');
  var slides = box.querySelectorAll('img');
  function show() {
    slides.forEach(function (slide, i) { slide.hidden = i !== Number(range.value); });
    name.textContent = slides[range.value].dataset.name;
    range.setAttribute('aria-valuetext', name.textContent);
  }
  range.addEventListener('input', show);
  show();
});
"""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture as PNG bytes, the file name it gets beside the page, what it shows, how to read it."""

    name: str
    png: bytes
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Slides:
    """Pictures of one kind, one for each step of a slider; `labels` name the steps."""

    name: str
    figures: tuple[Figure, ...]
    labels: tuple[str, ...]
    what: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells; a cell is a string (escaped), a number, or `Markup` (taken as it is)."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


class Markup(str):
    """HTML made by this package out of escaped text."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with paragraphs, figures and tables, in order."""

    title: str
    parts: Sequence[object]

    @property
    def anchor(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


def marked(pieces: Sequence[str], chosen: int) -> Markup:
    """The pieces of a sentence with one of them marked.

    >>> marked(["the", " cat", " <b>"], 1)
    'the<mark> cat</mark> &lt;b&gt;'
    """
    parts = [html.escape(piece) for piece in pieces]
    if 0 <= chosen < len(parts):
        parts[chosen] = f"<mark>{parts[chosen]}</mark>"
    return Markup("".join(parts))


def coloured(pieces: Sequence[str], weights: Sequence[float]) -> Markup:
    """The pieces of a sentence on a ground as strong as their weight, negative ones also underlined.

    >>> coloured(["a", "<b>"], [2.0, -1.0])
    '<span class="up" style="--w:1.00" title="+2">a</span><span class="down" style="--w:0.50" title="-1">&lt;b&gt;</span>'
    """
    top = max((abs(weight) for weight in weights), default=0) or 1
    return Markup("".join(
        f'<span class="{"down" if weight < 0 else "up"}" style="--w:{abs(weight) / top:.2f}" title="{weight:+.3g}">'
        f"{html.escape(piece)}</span>" for piece, weight in zip(pieces, weights)))


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    if isinstance(value, bool) or value is None:
        return f"<td>{'' if value is None else ('yes' if value else 'no')}</td>"
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    if isinstance(value, float):
        return f'<td class="number">{"&ndash;" if value != value else f"{value:z.3f}"}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _image(figure: Figure, extra: str = "") -> str:
    data = base64.b64encode(figure.png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(figure.alt, quote=True)}"{extra}>'


def _part(part: object) -> str:
    match part:
        case Figure():
            return f"<figure>{_image(part)}<figcaption>{html.escape(part.caption)}</figcaption></figure>"
        case Slides():
            last = len(part.figures) - 1
            images = "".join(
                _image(figure, f' data-name="{html.escape(label, quote=True)}"{"" if i == last else " hidden"}')
                for i, (figure, label) in enumerate(zip(part.figures, part.labels)))
            what = html.escape(part.what)
            return (
                f'<figure data-slides><div class="slider"><label for="{part.name}">{what}</label>'
                f'<input type="range" id="{part.name}" min="0" max="{last}" value="{last}" step="1">'
                f'<output for="{part.name}">{html.escape(part.labels[-1])}</output></div>{images}'
                f"<figcaption>{html.escape(part.caption)}</figcaption></figure>")
        case Table():
            head = "".join(f'<th scope="col">{html.escape(str(cell))}</th>' for cell in part.header)
            body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in part.rows)
            caption = f"<caption>{html.escape(part.caption)}</caption>" if part.caption else ""
            label = html.escape(part.caption or "table", quote=True)
            return (f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>{caption}'
                    f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
        case Markup():
            return str(part)
        case str():
            return f"<p>{html.escape(part)}</p>"
    raise TypeError(f"a section cannot hold {type(part).__name__}")


def render(title: str, summary: Sequence[str], sections: Sequence[Section], footer: str) -> str:
    """The whole page as a string.

    Args:
        title: heading of the page.
        summary: sentences; the first ones a reader sees.
        sections: the body, each with an entry in the table of contents.
        footer: hashes, versions and settings.
    """
    toc = "".join(f'<a href="#{s.anchor}">{html.escape(s.title)}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{html.escape(s.title)}</h2>{"".join(map(_part, s.parts))}</section>'
        for s in sections)
    points = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in summary)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><header><h1>{html.escape(title)}</h1></header><main><div class="summary"><ul>{points}</ul></div>'
        f'<nav aria-label="Contents">{toc}</nav>{body}</main><footer>{html.escape(footer)}</footer>'
        f"<script>{_SCRIPT}</script></body></html>\n")


def write(folder: Path, text: str, sections: Sequence[Section]) -> Path:
    """Writes `report.html` and every figure as PNG into `folder`; returns the page's path.

    Each file appears whole under its name or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for part in section.parts:
            figures = part.figures if isinstance(part, Slides) else (part,) if isinstance(part, Figure) else ()
            for figure in figures:
                write_whole(folder / f"{figure.name}.png", figure.png)
    page = folder / "report.html"
    write_whole(page, text.encode("utf-8", "replace"))
    return page

