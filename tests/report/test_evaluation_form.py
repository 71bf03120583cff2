"""The form for judges in a headless browser: filled in by keyboard, kept, saved, scored; narrow; without storage."""

import csv
import json
import re
import time

import browser
import pytest

from xlingjax.errors import InputError
from xlingjax.judging.human_items import CATEGORIES, Reply, key_csv, make_items, read_key
from xlingjax.judging.humans import evaluation_table, read_answers
from xlingjax.report.evaluation_form import Shown, evaluation_form

EXPLAINED = ("yes", "perhaps", "no")
HOSTILE = '</script><img src=x onerror="window.hurt=1"> & \u2028 مرحبا'


def the_form(items, sheet="s1") -> str:
    return evaluation_form(sheet, items, CATEGORIES, EXPLAINED, "Judging replies: pcm")


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """A folder with a form, its key and its items."""
    if browser.find() is None:
        pytest.skip("no Chromium found on the path or in $XLINGJAX_CHROMIUM: the form is not tried in a browser")
    folder = tmp_path_factory.mktemp("form")
    made = make_items(
        [Reply("pcm", "m", f"turn {i}\n{HOSTILE}", f"reply {i} {HOSTILE}", f"person {i}") for i in range(35)]
    )
    (items,) = made.values()
    (folder / "key.csv").write_text(key_csv(made.values()), "utf-8")
    (folder / "form.html").write_text(
        the_form([Shown(one.context, one.reply) for one in items], items[0].sheet), "utf-8"
    )
    return folder, read_key(folder / "key.csv"), items


def downloaded(folder, ending):
    """The file that the browser saves, once it is whole."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = list((folder / "downloads").glob(f"*{ending}"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"nothing ending in {ending} was saved")


def status(page) -> str:
    return page.do("document.getElementById('status').textContent")


def test_fill_in_save_and_score(sheet, tmp_path):
    folder, key, items = sheet
    address = (folder / "form.html").as_uri()
    with browser.opened(tmp_path) as page:
        page.size(1100, 900)
        page.open(address)
        assert page.do("document.querySelectorAll('fieldset').length") == 35
        assert page.do("window.hurt === undefined && document.querySelectorAll('form img').length === 0"), (
            "text is text"
        )
        shown = page.do(
            "[...document.querySelectorAll('fieldset')].map(b => b.querySelector('.reply div').textContent)"
        )
        assert shown == [item.reply for item in items]
        assert "model" not in page.do("document.body.innerText") and "pcm" in page.do("document.title")

        page.do("document.getElementById('csv').click()")
        assert "name" in status(page) and page.do("document.activeElement.id") == "annotator", "refused, and said why"
        page.call("Input.insertText", text='Ada "=1", Ọlá')
        page.do("document.querySelector('fieldset input').focus()")
        for number in range(20):
            page.key(str(number % 3 + 1), text=str(number % 3 + 1))
        assert page.do("document.getElementById('count').textContent") == "20 of 35 judged"
        assert page.do("document.activeElement.name") == "item21", "the keys move on"
        page.key(" ", 32, " ")  # the radio button itself
        assert page.do("document.querySelector('[name=item21]:checked').value") == CATEGORIES[0]

        page.events.clear()
        page.call("Page.navigate", wait=False, url="about:blank")
        assert page.wait_event("Page.javascriptDialogOpening")["type"] == "beforeunload", (
            "unsaved: warned before leaving"
        )
        page.call("Page.handleJavaScriptDialog", accept=False)
        held = json.loads(page.do(f"localStorage.getItem('judging-replies-{items[0].sheet}')"))
        assert len(held["answers"]) == 21 and held["saved"] is False, "kept before anything is saved"

        page.do("document.getElementById('csv').click()")
        half = downloaded(tmp_path, ".csv")
        assert "Still open: 14" in status(page)
        page.open(address)
        assert "earlier answers" in status(page), "saved: no warning, and kept over a reload"
        assert page.do("document.querySelectorAll('input:checked').length") == 21
        page.do("document.getElementById('next').click()")
        assert page.do("document.activeElement.name") == "item22"
        for _ in range(14):
            page.key("2", text="2")
        assert "All items are judged" in status(page)
        page.do("document.getElementById('json').click()")
        whole = downloaded(tmp_path, ".json")
        time.sleep(0.2)
        copied = page.do("document.getElementById('copy').value")
    (first,) = read_answers([half], key)
    assert first.annotator == 'Ada "=1", Ọlá' and first.answers == {n + 1: n % 3 for n in range(20)} | {21: 0}
    (both,) = read_answers([half, whole], key)
    assert len(both.answers) == 35 and [both.answers[n] for n in range(22, 36)] == [1] * 14
    assert [row["judgement"] for row in csv.DictReader(copied.splitlines())][-1] == "uncertain"
    assert float(evaluation_table([both], key, draws=5)["items"].max()) == 0, "one judge agrees with nobody"


def test_narrow_and_accessible(sheet, tmp_path):
    folder, _, _ = sheet
    with browser.opened(tmp_path) as page:
        for width in (320, 1100):
            page.size(width, 640)
            page.open((folder / "form.html").as_uri())
            assert page.do("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways"
        page.call("Accessibility.enable")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]
        ]
        for role, count in (("radio", 105), ("button", 4), ("textbox", 1), ("progressbar", 1)):
            found = [name for one, name in named if one == role]
            assert len(found) >= count and all(found), (role, found)
        assert all(("group", f"Item {n} of 35") in named for n in range(1, 36))
        assert ("textbox", "Your name or code") in named


def test_a_browser_that_keeps_nothing(sheet, tmp_path):
    """Storage that throws, as in private windows, or is full later: answers live in memory, and the page says so."""
    folder, _, items = sheet
    forbidden = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    with browser.opened(tmp_path, before=forbidden) as page:
        page.open((folder / "form.html").as_uri())
        assert "keeps nothing" in status(page)
        page.do("document.querySelector('fieldset input').click()")
        assert page.do(
            "document.getElementById('count').textContent"
        ) == "1 of 35 judged" and "keeps nothing" in status(page)
        page.do(
            "document.getElementById('annotator').value = 'bo';"
            "document.getElementById('annotator').dispatchEvent(new Event('input'))"
        )
        page.do("document.getElementById('json').click()")
        held = json.loads(downloaded(tmp_path, ".json").read_text())
        assert held["annotator"] == "bo" and held["answers"][0] == {"item": 1, "judgement": "human-like"}
        page.open("about:blank")
    damaged = f'localStorage.setItem(\'judging-replies-{items[0].sheet}\', \'{{"answers": {{"1": "great"}}}}\');'
    with browser.opened(tmp_path / "second", before=damaged) as page:
        page.open((folder / "form.html").as_uri())
        assert page.do("document.getElementById('count').textContent") == "0 of 35 judged", "no answer of another form"
    kept = json.dumps({"answers": {"3": "uncertain"}, "saved": False})
    held = f"localStorage.setItem('judging-replies-{items[0].sheet}', '{kept}');"
    with browser.opened(tmp_path / "third", before=held) as page:
        page.open((folder / "form.html").as_uri())
        assert page.do("document.querySelector('[name=item3]:checked').value") == "uncertain"
        assert "not in a file yet" in status(page)


def test_the_page_is_whole():
    page = the_form([Shown("a\nb", HOSTILE)])
    assert "__DATA__" not in page and not re.search(r'(?:src|href)=["\']?(?:https?:)?//', page), (
        "nothing from elsewhere"
    )
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    assert json.loads(held)["items"] == [{"context": ["a", "b"], "reply": HOSTILE}]
    assert not {"human", "model"} & set(json.loads(held)["items"][0])


@pytest.mark.parametrize(
    "items, categories, said",
    [
        ([], ("a", "b"), "no item"),
        ([Shown("a", "b")], ("a",), "two to nine"),
        ([Shown("a", "b")], ("a", "b", "c"), "2 expl"),
    ],
)
def test_forms_that_are_refused(items, categories, said):
    with pytest.raises(InputError, match=said):
        evaluation_form("s", items, categories, ("x", "y"), "t")
