"""Sheets for judges: made blind, read back strictly, scored to the published example."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from statsmodels.stats.inter_rater import fleiss_kappa as reference

from xlingjax.analyses.results import open_result
from xlingjax.errors import InputError
from xlingjax.judging.human_items import (
    CATEGORIES,
    NOTHING,
    Item,
    Reply,
    key_csv,
    make_items,
    read_key,
    read_replies,
    rows_of,
    sheet_csv,
)
from xlingjax.judging.humans import (
    Answers,
    annotator_table,
    evaluation_rows,
    evaluation_table,
    item_table,
    ratings,
    read_answers,
    summary,
)

ROOT = Path(__file__).parents[2]
H, U, N = range(3)


def replies(languages=("pcm", "swa"), systems=("gpt2", "lstm"), count=50) -> list[Reply]:
    return [
        Reply(language, system, f"context {i}\nits second turn", f"{system} says {i}", f"a person says {i}")
        for language in languages
        for system in systems
        for i in range(count)
    ]


def published() -> tuple[dict[str, list[Item]], list[Answers]]:
    """AfriWOZ, Nigerian Pidgin: of 32 items 25 human-like by majority, 11 by all three; 3 hidden, all passed."""
    items = [
        Item("s1", n, "pcm", "DialoGPT", "human" if n in (5, 17, 30) else "model", f"c{n}", f"r{n}")
        for n in range(1, 36)
    ]
    scored = [item.number for item in items if item.shown == "model"]
    votes = [(H, H, H)] * 11 + [(H, U, H)] * 8 + [(N, H, H)] * 6 + [(H, U, N)] * 3 + [(N, N, H)] * 2 + [(N, N, N)] * 2
    said = {n: (H, H, H) for n in (5, 17, 30)} | dict(zip(scored, votes, strict=True))
    return {"s1": items}, [Answers("s1", name, {n: said[n][j] for n in said}, ("f",)) for j, name in enumerate("abc")]


def test_the_published_figures():
    key, answers = published()
    table = evaluation_table(answers, key, draws=500)
    one = table.sel(language="pcm", system="DialoGPT", who="all")
    assert float(one["human_like"]) == 25 / 32 == 0.78125
    assert float(one["unanimous_human_like"]) == 11 / 32 and float(one["unanimous"]) == 13 / 32
    assert one["share"].values.tolist() == [25 / 32, 0, 4 / 32] and float(one["undecided"]) == 3 / 32
    assert (float(one["items"]), float(one["judges"]), float(one["ceiling"])) == (32, 3, 1)
    counts = np.array([[list(row).count(c) for c in range(3)] for row in ratings(answers, key["s1"])])
    assert float(one["kappa"]) == pytest.approx(reference(counts), abs=1e-12)
    assert float(one["human_like_low"]) < 25 / 32 < float(one["human_like_high"])
    # 95 % of a binomial share of 32 items, from the quantiles of the distribution itself
    assert (
        abs(float(one["human_like_low"]) - 20 / 32) <= 1 / 32 and abs(float(one["human_like_high"]) - 29 / 32) <= 1 / 32
    )
    # below 0: these judges differ in how often they say human-like, which Fleiss' pooled categories do not know
    assert abs(float(one["kappa_chance"])) < 0.1 and float(one["unanimous_human_like_chance"]) < 11 / 32
    assert xr.testing.assert_identical(table, evaluation_table(answers, key, draws=500)) is None


def test_judges_of_the_hidden_replies():
    key, answers = published()
    careless = Answers("s1", "d", {n: N for n in range(1, 36)}, ("f",))
    open_ = Answers("s1", "e", {n: H for n in (1, 2, 5)}, ("f",))
    judges = annotator_table([*answers, careless, open_], key)
    assert judges["credible"].values.tolist() == [True, True, True, False, False]
    assert judges["hidden_human_like"].values.tolist() == [3, 3, 3, 0, 1]
    assert judges["answered"].values.tolist() == [35, 35, 35, 35, 3]
    assert float(judges["chance"][3]) == 0 and 0.5 < float(judges["chance"][0]) < 1
    table = evaluation_table([*answers, careless, open_], key, draws=50)
    assert table["judges"].sel(language="pcm", system="DialoGPT").values.tolist() == [5, 3]
    alone = evaluation_table(answers, key, draws=50)
    for name in ("human_like", "kappa", "alpha", "kappa_low"):
        assert table[name].sel(who="credible").item() == alone[name].sel(who="all").item()
    said = "\n".join(summary(table, judges))
    assert "not credible: d" in said and "filled in partly: e on sheet s1, 3 of 35" in said


def test_sheets_hide_who_said_it():
    sheets = make_items(replies(), seed=3)
    assert len(sheets) == 4
    for code, items in sheets.items():
        assert len(items) == 35 and sum(item.shown == "human" for item in items) == 3
        written = sheet_csv(items)
        assert not any(word in written for word in ("model", "gpt2,", "DialoGPT", "shown", items[0].language))
        assert [row["item"] for row in csv.DictReader(written.splitlines())][0] == "1"
        assert len({item.context for item in items}) == 35
        for item in items:
            number = item.context.split("\n")[0].split()[1]
            assert item.reply == f"{'a person' if item.shown == 'human' else item.system} says {number}"
        assert code == items[0].sheet
    one, other = (
        next(items for items in sheets.values() if (items[0].language, items[0].system) == place)
        for place in (("pcm", "gpt2"), ("pcm", "lstm"))
    )
    assert {item.context for item in one} == {item.context for item in other}, (
        "systems of a language: the same contexts"
    )
    hidden = [{item.context for item in items if item.shown == "human"} for items in (one, other)]
    assert hidden[0] == hidden[1]
    assert [item.context for item in one] != [item.context for item in other], "each sheet in its own order"
    assert make_items(replies(), seed=3) == sheets and make_items(replies(), seed=4).keys() != sheets.keys()


def test_what_a_system_left_unsaid_is_judged_too():
    sheets = make_items([Reply("x", "m", f"c{i}", "", f"p{i}") for i in range(35)])
    (items,) = sheets.values()
    assert {item.reply for item in items if item.shown == "model"} == {NOTHING}


def test_too_few_contexts_or_odd_numbers_are_refused():
    with pytest.raises(InputError, match="pcm has 30 contexts that every one of gpt2, lstm answered; a sheet needs 35"):
        make_items([*replies(("pcm",), ("gpt2",), 30), *replies(("pcm",), ("lstm",), 50)])
    for items, hidden in ((3, 3), (5, 0)):
        with pytest.raises(InputError, match="hide 1 or more"):
            make_items(replies(), items=items, hidden=hidden)


def fill(path: Path, items, judge: str, said=lambda item: "H", rows=slice(None)) -> Path:
    """A sheet filled in by hand."""
    lines = list(csv.DictReader(sheet_csv(items).splitlines(keepends=True)))
    for line, item in list(zip(lines, items))[rows]:
        line["judgement"] = said(item)
    lines[0]["annotator"] = judge
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


@pytest.fixture
def made(tmp_path):
    made = make_items(replies(("pcm",), ("gpt2",)))
    (tmp_path / "key.csv").write_text(key_csv(made.values()))
    (items,) = made.values()
    return tmp_path, read_key(tmp_path / "key.csv"), items


def test_key_and_sheets_come_back(made):
    folder, key, items = made
    assert key == {items[0].sheet: items}
    files = [
        fill(folder / f"{j}.csv", items, j, lambda item, j=j: "HUN"[(item.number + len(j)) % 3]) for j in ("ada", "bo")
    ]
    answers = read_answers(files, key)
    assert [(one.annotator, len(one.answers)) for one in answers] == [("ada", 35), ("bo", 35)]
    assert answers[0].answers[1] == U and answers[1].answers[1] == H
    assert [row["majority"] for row in item_table(answers, key)].count("undecided") == 35
    table = evaluation_table(answers, key, draws=10)
    assert table["unanimous"].sel(who="all").item() == 0 and len(evaluation_rows(table)) == 2


def test_a_spreadsheet_changes_nothing(made):
    """Semicolons, a byte order mark, other line ends, and texts that look like formulas."""
    folder, _, _ = made
    sheets = make_items([Reply("x", "m", f"=c{i};\n+d", f"-{i}", f'@{i} "so"') for i in range(35)])
    (items,) = sheets.values()
    (folder / "k.csv").write_text(key_csv(sheets.values()))
    key = read_key(folder / "k.csv")
    assert key == {items[0].sheet: items}
    assert not any(cell.startswith(tuple("=+-@")) for row in csv.reader(io.StringIO(sheet_csv(items))) for cell in row)
    path = fill(folder / "ada.csv", items, "ada")
    rows = list(csv.reader(path.read_text().splitlines(keepends=True)))
    with open(folder / "saved.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";", lineterminator="\r\n").writerows(
            [[cell.replace("\n", "\r\n") for cell in row] for row in rows]
        )
    (one,) = read_answers([folder / "saved.csv"], key)
    assert one.annotator == "ada" and len(one.answers) == 35


def test_halfway_joined_and_twice(made):
    folder, key, items = made
    first = fill(folder / "1.csv", items, "ada", rows=slice(0, 20))
    rest = fill(folder / "2.csv", items, "Ada ", rows=slice(15, 35))
    (half,) = read_answers([first], key)
    assert len(half.answers) == 20
    (whole,) = read_answers([first, rest], key)
    assert whole.annotator == "ada" and len(whole.answers) == 35 and whole.files == ("1.csv", "2.csv")
    (folder / "again.csv").write_bytes(first.read_bytes())
    assert read_answers([first, folder / "again.csv"], key)[0].answers == half.answers, (
        "the same file twice counts once"
    )
    other = fill(folder / "3.csv", items, "ada", lambda item: "N" if item.number == 7 else "H")
    with pytest.raises(
        InputError, match="ada judged item 7 of sheet .* twice: human-like in 1.csv and non-human-like in 3"
    ):
        read_answers([first, other], key)


def test_a_sheet_without_a_name_is_named_after_its_file(made):
    folder, key, items = made
    assert read_answers([fill(folder / "chi.csv", items, "")], key)[0].annotator == "chi"


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda text: text.replace(text.split("\n")[1].split(",")[0], "s000000000"), "is not of this key"),
        (lambda text: text.replace(",H,", ",maybe,", 1), "judgement 'maybe'; write human-like, uncertain"),
        (lambda text: text.replace("gpt2 says", "GPT2 says", 1), "the reply is not what the key has"),
        (lambda text: text.replace("its second turn", "its  second turn", 1), "the context is not what the key has"),
        (lambda text: text.replace("judgement", "verdict"), "no column 'judgement'"),
        (lambda text: text.replace(",H,", ",,").replace(",ada", ","), "no item of any sheet is judged"),
        (lambda text: text.replace(",H,\r\n", ",H,bo\r\n"), "names the annotators ada, bo"),
        (lambda text: text.split("\n")[0], "has no row"),
        (lambda text: text.replace(",H,", ",H", 1), "cells, not 6"),
    ],
)
def test_sheets_that_are_refused(made, change, said):
    folder, key, items = made
    path = fill(folder / "ada.csv", items, "ada")
    with open(path, newline="") as file:
        text = file.read()
    changed = change(text)
    assert changed != text
    path.write_bytes(changed.encode())
    with pytest.raises(InputError, match=said) as error:
        read_answers([path], key)
    assert "no item" in said or "ada.csv" in str(error.value)


def test_item_numbers_and_json_are_checked(made):
    folder, key, items = made
    sheet = items[0].sheet
    held = {
        "sheet": sheet,
        "annotator": "ada",
        "answers": [{"item": 1, "judgement": "uncertain"}, {"item": 2, "judgement": ""}],
    }
    path = folder / "a.json"
    path.write_text(json.dumps(held))
    assert read_answers([path], key)[0].answers == {1: U}
    for broken, said in (
        (held | {"answers": [{"item": 36, "judgement": "H"}]}, "item '36' is not one of 1 to 35"),
        ({"sheet": sheet}, "no file of answers"),
        ([], "no file of answers"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=said):
            read_answers([path], key)
    path.write_text("{")
    with pytest.raises(InputError, match="no file of answers"):
        read_answers([path], key)


def test_a_key_that_was_changed_is_refused(made):
    folder, _, _ = made
    text = (folder / "key.csv").read_text()
    for changed, said in (
        (text.replace("gpt2 says", "x", 1), "are not those it was made of"),
        (text.replace(",model,", ",robot,", 1), "this is no key"),
        ("\n".join(text.split("\n")[:1]), "holds no sheet"),
    ):
        (folder / "key.csv").write_text(changed)
        with pytest.raises(InputError, match=said):
            read_key(folder / "key.csv")


def test_replies_are_read_and_checked(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('language,system,context,reply,reference\npcm,m,"a\n b ",,yes\n')
    assert read_replies(path) == [Reply("pcm", "m", "a\nb", "", "yes")]
    path.write_text("language,system,context,reply,reference\npcm,m,a,b,\n")
    with pytest.raises(InputError, match="row 1: reference is empty"):
        read_replies(path)
    path.write_bytes("language,system,context,reply,reference\npcm,m,\xe4,b,c\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        list(rows_of(path, ("language",)))


def test_the_command_makes_and_scores(tmp_path):
    with open(tmp_path / "replies.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["language", "system", "context", "reply", "reference"])
        writer.writerows([(one.language, one.system, one.context, one.reply, one.reference) for one in replies()])

    (tmp_path / "filled").mkdir()
    done = subprocess.run([sys.executable, "-c", COMMANDS, str(tmp_path)], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    said = "pcm, lstm, all judges (3), 32 of 32 items: human-like 0.0%, uncertain 0.0%, non-human-like 100.0%"
    assert (
        said in done.stdout and "--replies" in done.stderr and "another experiment: seed was 0 and is 1" in done.stderr
    )
    assert sorted(path.suffix for path in (tmp_path / "run" / "sheets").iterdir()) == [".csv"] * 4 + [".html"] * 4
    with open(tmp_path / "run" / "evaluation.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {row["ceiling"] for row in rows} == {"1.0"} and set(CATEGORIES) <= set(rows[0])
    assert set(open_result(tmp_path / "run" / "result.nc").children) == {"evaluation", "annotators"}


COMMANDS = """
import csv, sys
from pathlib import Path
from absl.testing import flagsaver
from experiments.judge_replies import main, run
from xlingjax.judging.human_items import read_key, rows_of

folder = Path(sys.argv[1])
def do(*flags):
    sys.argv[1:] = [f"--workdir={folder / 'run'}", *flags]
    with flagsaver.flagsaver():
        try:
            run(main)
        except SystemExit as end:
            return end.code or 0

assert do(f"--replies={folder / 'replies.csv'}") == 0
assert do(f"--replies={folder / 'replies.csv'}", "--seed=1") == 1
key = read_key(folder / "run" / "key.csv")
for path in (folder / "run" / "sheets").glob("*.csv"):
    rows = list(rows_of(path, ("sheet", "item")))
    for judge in "abc":
        for row, item in zip(rows, key[rows[0]["sheet"]]):
            row["annotator"] = judge
            row["judgement"] = "H" if item.shown == "human" else "N" if item.system == "lstm" else "U"
        with open(folder / "filled" / f"{path.stem}_{judge}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
assert do(f"--answers={folder / 'filled'}", "--draws=20") == 0
assert do() == 1
"""
