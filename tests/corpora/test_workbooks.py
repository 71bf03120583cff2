"""Workbooks: every way to write a cell, and every malformation."""

import zipfile

import pytest
from workbooks_for_tests import MAIN, sheet, workbook

from xlingjax.corpora import workbooks
from xlingjax.corpora.workbooks import read_workbook
from xlingjax.errors import InputError


def test_every_kind_of_cell(tmp_path):
    cells = (
        '<c r="A1" t="s"><v>1</v></c><c r="C1"><v>17</v></c><c t="str"><f>1+1</f><v>two</v></c>'
        '<c r="F1" t="b"><v>1</v></c>'
        '<c r="AA1" t="inlineStr"><is><r><t>a</t></r><r><t> b</t></r><rPh><t>x</t></rPh></is></c>'
        '<c r="H1" t="s"/>'
    )
    strings = (
        "<si><t>first</t></si><si><r><t>rich </t></r><r><rPr/><t>text</t></r><rPh sb='0' eb='1'><t>say</t></rPh></si>"
        "<si><t>a_x000D_b</t></si>"
    )
    rows = f'<row r="1">{cells}</row><row><c t="s"><v>2</v></c></row>'
    xml = f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>'
    path = workbook(tmp_path / "a.xlsx", {"one": xml, "two": sheet([["x"]])}, strings)
    first, second = read_workbook(path)
    assert first.name == "one" and second == ("two", [(1, {0: "x"})])
    assert first.rows == [(1, {0: "rich text", 2: "17", 3: "two", 5: "1", 26: "a b"}), (2, {0: "a\rb"})]


def test_a_namespace_and_an_absolute_target(tmp_path):
    row = '<x:row r="3"><x:c r="B3"><x:v>5</x:v></x:c></x:row>'
    xml = f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData>{row}</x:sheetData></x:worksheet>'
    path = workbook(
        tmp_path / "a.xlsx",
        {"one": xml},
        **{"xl/_rels/workbook.xml.rels": '<R><Relationship Id="rId1" Target="/xl/worksheets/sheet1.xml"/></R>'},
    )
    assert read_workbook(path)[0].rows == [(3, {1: "5"})]


BOMB = (
    '<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + f'<worksheet xmlns="{MAIN}">&b;</worksheet>'
)
OUTSIDE = '<!DOCTYPE w SYSTEM "file:///etc/hostname"><worksheet/>'


@pytest.mark.parametrize(
    "xml, said",
    [
        (BOMB, "has a document type"),
        (OUTSIDE, "has a document type"),
        ("<worksheet>", "broken XML"),
        (BOMB.encode("utf-16").decode("latin-1"), "broken XML|document type"),
        (f'<worksheet xmlns="{MAIN}"><row r="1"><c r="A1" t="s"><v>4</v></c></row></worksheet>', "text '4' of 0"),
        (f'<worksheet xmlns="{MAIN}"><row r="1"><c r="ZZZ1"><v>4</v></c></row></worksheet>', "outside a sheet"),
    ],
)
def test_sheets_that_are_refused(tmp_path, xml, said):
    with pytest.raises(InputError, match=said) as error:
        read_workbook(workbook(tmp_path / "a.xlsx", {"one": xml}))
    assert "a.xlsx" in str(error.value)


def test_archives_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="no whole .xlsx"):
        read_workbook(path)
    whole = workbook(path, {"one": sheet([["x" * 100]])}).read_bytes()
    for cut in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="no whole .xlsx"):
            read_workbook(path)
    place = whole.index(b"xl/worksheets") + 60
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    with pytest.raises(InputError, match="no whole|broken XML"):
        read_workbook(path)
    workbook(
        path,
        {"one": sheet([["x"]])},
        **{"xl/_rels/workbook.xml.rels": '<R><Relationship Id="rId1" Target="../../etc/passwd"/></R>'},
    )
    with pytest.raises(InputError, match="has no part"):
        read_workbook(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/other.xml", "<a/>")
    with pytest.raises(InputError, match="has no part"):
        read_workbook(path)
    monkeypatch.setattr(workbooks, "MOST_BYTES", 2**20)
    workbook(path, {"one": " " * 2**21})
    with pytest.raises(InputError, match="over 1 MiB"):
        read_workbook(path)
