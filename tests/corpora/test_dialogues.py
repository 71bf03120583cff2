"""Dialogues: defects found and treated by rule, windows, leaks, translations, controls; AfriWOZ as published."""

import dataclasses
import lzma

import numpy as np
import pytest
from workbooks_for_tests import sheet, workbook

from xlingjax.corpora import (
    Dialogues,
    leaks,
    mini_dialogues,
    parallel_turns,
    read_dialogues,
    reply_only,
    shuffle_contexts,
    windows,
    without_leaks,
)
from xlingjax.corpora.dialogue_files import repaired
from xlingjax.corpora.dialogues import LONG, LONGEST, RULES
from xlingjax.corpora.translated import translated_rows
from xlingjax.corpora.world.dialogues import MOST_HELD_OUT, _facts
from xlingjax.errors import InputError

HEADER = ["New_Episode", "Conversation"]


def put(folder, name, rows, header=HEADER):
    """A table of (flag, turn)."""
    path = folder / f"{name}.tsv"
    path.write_text("\n".join(["\t".join(header), *("\t".join(row) for row in rows)]) + "\n", "utf-8")
    return path


def simple(**changed) -> Dialogues:
    """Two episodes of three turns and one of one turn."""
    held = dict(
        texts=("a1", "a2", "a3", "b1", "b2", "b3", "c1"),
        languages=np.array(["x"] * 7),
        splits=np.array(["test"] * 7),
        episodes=np.array(list("0001112")),
        rows=np.arange(7),
        parallel=np.array([""] * 7),
        mixed=np.zeros(7, bool),
        scored=np.ones(7, bool),
    )
    return Dialogues(**(held | changed))


def test_windows_stay_within_episodes():
    found = windows(simple())
    assert found.contexts == (("a1",), ("a1", "a2"), ("b1",), ("b1", "b2")) and found.replies == (
        "a2",
        "a3",
        "b2",
        "b3",
    )
    assert found.turns.tolist() == [1, 2, 4, 5] and not found.mixed.any()
    assert windows(simple(), earlier=1).contexts == (("a1",), ("a2",), ("b1",), ("b2",))
    long = simple(texts=tuple(f"t{i}" for i in range(7)), episodes=np.array(["0"] * 7))
    assert windows(long, 7).contexts[-1] == tuple(f"t{i}" for i in range(6))
    assert len(windows(long.take(np.arange(7) != 3)).replies) == 5
    with pytest.raises(InputError, match="no reply"):
        windows(simple().take(np.array([0, 3, 6])))
    with pytest.raises(InputError, match="1 or more turns"):
        windows(simple(), 0)


def test_seven_earlier_turns_and_no_more():
    long = mini_dialogues(("eng",), train=1, held_out=1).only(split="train")
    more = dataclasses.replace(long, texts=tuple(f"t{i}" for i in range(8)))
    assert [len(context) for context in windows(more).contexts] == [1, 2, 3, 4, 5, 6, 7]


def test_turns_of_an_episode_are_neighbours():
    with pytest.raises(InputError, match="must be neighbours"):
        simple(episodes=np.array(list("0101112")))
    with pytest.raises(InputError, match="empty turn"):
        simple(texts=("a1", " ", "a3", "b1", "b2", "b3", "c1"))
    with pytest.raises(InputError, match="rows has shape"):
        simple(rows=np.arange(6))


def test_controls():
    given = mini_dialogues(("eng", "deu"), train=3, held_out=6)
    found = windows(given)
    shuffled = shuffle_contexts(found, seed=1)
    assert shuffled.replies == found.replies and shuffled.variant == "shuffled context"
    home = {text: set() for text in given.texts}
    for text, language, split, episode in zip(given.texts, given.languages, given.splits, given.episodes):
        home[text].add((language, split, episode))
    for i, (context, turn) in enumerate(zip(shuffled.contexts, shuffled.turns)):
        assert len(context) == len(found.contexts[i])
        mine = (given.languages[turn], given.splits[turn], given.episodes[turn])
        common = set.intersection(*(home[text] for text in context))
        assert any(one[:2] == mine[:2] for one in common - {mine}), "one other episode, same language and split"
    assert shuffle_contexts(found, seed=1).contexts == shuffled.contexts != shuffle_contexts(found, seed=2).contexts
    alone = reply_only(found)
    assert set(alone.contexts) == {()} and alone.replies == found.replies
    assert len({found.fingerprint, shuffled.fingerprint, alone.fingerprint}) == 3
    with pytest.raises(InputError, match="one document"):
        shuffle_contexts(windows(simple().take(np.arange(3))))


def test_leaks_lose_their_reply_and_stay_as_context():
    test = simple()
    train = simple(texts=("A2!", "z", "b  3", "no", "nein", "non", "b3"), splits=np.array(["train"] * 7))
    found = leaks(train, test)
    assert [(leak.test, leak.train) for leak in found] == [(1, 0), (5, 6)]
    assert leaks(dataclasses.replace(train, languages=np.array(["y"] * 7)), test) == ()
    assert leaks(train, test, words=LONG) == ()
    left = windows(without_leaks(train, test))
    assert left.replies == ("a3", "b2") and left.contexts == (("a1", "a2"), ("b1",))
    assert without_leaks(train, test, words=2).scored.all()


def test_defects_are_reported_and_nothing_is_lost(tmp_path):
    put(
        tmp_path,
        "xx_train",
        [
            ("", "begins without a flag"),
            ("0", "buÆ™atar jirgin"),
            ("", " "),
            ("TRUE", ""),
            ("", "begins after an empty turn"),
            ("1", "alone"),
            ("true", "last"),
            ("", "of all"),
            ("", ""),
            ("", ""),
        ],
    )
    given = read_dialogues(tmp_path)
    assert given.texts == (
        "begins without a flag",
        "buƙatar jirgin",
        "begins after an empty turn",
        "alone",
        "last",
        "of all",
    )
    assert given.episodes.tolist() == ["0", "0", "1", "2", "3", "3"] and given.rows.tolist() == [0, 1, 4, 5, 6, 7]
    kinds = {(defect.kind, defect.row): defect.text for defect in given.defects}
    assert kinds == {
        ("first flag", 0): "",
        ("mojibake", 1): "buÆ™atar jirgin",
        ("empty turn", 2): "",
        ("empty turn", 3): "",
        ("one turn", 4): "begins after an empty turn",
        ("one turn", 5): "alone",
        ("empty rows", -1): "2 of them",
    }
    text = given.summary()
    for kind, _ in kinds:
        assert kind in text and RULES[kind] in text


def test_stretches_without_flags(tmp_path):
    put(
        tmp_path,
        "xx_test",
        [("1" if i in (0, 5) else "", f"turn {'ab'[i % 2] * (i + 1)}") for i in range(LONGEST + 10)],
    )
    given = read_dialogues(tmp_path)
    assert given.mixed.tolist() == [False] * 5 + [True] * (LONGEST + 5)
    found = windows(given)
    assert len(found) == LONGEST + 8 and found.mixed.sum() == LONGEST + 4
    assert set(given.documents[:5]) == {"xx/test/0"} and set(given.documents[5:20]) == {"xx/test/1/block 0"}
    assert len(set(given.documents.tolist())) == 1 + len({i // 20 for i in range(5, LONGEST + 10)})
    assert "no flag" in given.summary()


def test_translations_and_borrowed_flags(tmp_path):
    """A language without flags, one row behind from row 40 on, borrows its translation's; a third says other things."""
    turns = [(f"train TR{i:04d} leaves" if i % 3 == 0 else f"turn number {'x' * (i % 7)}") for i in range(90)]
    put(tmp_path, "aa_test", [("1" if i % 9 == 0 else "", turns[i]) for i in range(90)])
    behind = [turn.replace("train", "treni") for turn in turns]
    put(tmp_path, "bb_test", [("", behind[i]) for i in range(90) if i != 40])
    put(tmp_path, "cc_test", [("1" if i % 9 == 0 else "", f"AB{i:04d}") for i in range(90)])
    given = read_dialogues(tmp_path)
    rows = parallel_turns(given, ("aa", "bb"))
    assert rows.shape[1] > 80
    for one, other in rows.T:
        assert given.texts[one].replace("train", "treni") == given.texts[other]
    assert parallel_turns(given).shape == (3, 0) and parallel_turns(given, ("aa", "cc")).shape == (2, 0)
    assert not given.mixed.any()
    bb = given.only("bb")
    for episode in set(bb.episodes.tolist()):
        part = bb.take(bb.episodes == episode)
        assert len(part) <= 10
    kinds = {(defect.kind, defect.language) for defect in given.defects}
    assert ("borrowed flags", "bb") in kinds and ("other slice", "cc") in kinds
    corpus = given.corpus()
    assert len(corpus) == len(given) and (corpus.parallel != "").sum() == 2 * rows.shape[1]


def test_numbers_that_repeat_are_no_anchors():
    ours = {i: f"call 01223{i // 2:03d}" for i in range(30)}  # each number in two rows: which one is meant?
    assert translated_rows(ours, {i + 1: text for i, text in ours.items()}) == {}


def test_workbooks_as_published(tmp_path):
    rows = [HEADER, [True, "a"], [None, "b"], [True, "c"], [None, None], [None, "d"], [None, None, "a note"]]
    workbook(tmp_path / "ha_translate_mwoz_testset.xlsx", {"notes": sheet([["x"]]), "Tunde(test_set)": sheet(rows)})
    given = read_dialogues(tmp_path)
    assert given.texts == ("a", "b", "c", "d") and set(given.languages) == {"hau"} and set(given.splits) == {"test"}
    assert given.episodes.tolist() == ["0", "0", "1", "1"] and given.rows.tolist() == [0, 1, 2, 4]
    assert {defect.kind for defect in given.defects} == {"other sheet", "other column", "empty turn", "empty rows"}


@pytest.mark.parametrize(
    "name, rows, header, said",
    [
        ("xx_test", [("maybe", "a")], HEADER, "New_Episode is 'maybe'"),
        ("xx_test", [("1", "")], HEADER, "no turn"),
        ("xx_test", [("1", "a\tb")], HEADER, "3 fields, not 2"),
        ("xx_test", [("1", "a")], ["New_Episode", "Text"], "the two columns New_Episode and Conversation"),
        ("xx", [("1", "a")], HEADER, "does not say language and split"),
        ("xx_train_test", [("1", "a")], HEADER, "does not say language and split"),
    ],
)
def test_tables_that_are_refused(tmp_path, name, rows, header, said):
    path = put(tmp_path, name, rows, header)
    with pytest.raises(InputError, match=said) as error:
        read_dialogues(path)
    assert path.name in str(error.value)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="no .xlsx or .tsv"):
        read_dialogues(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_dialogues(tmp_path / "xx_test.tsv")
    put(tmp_path, "xx_test", [("1", "a")])
    with lzma.open(tmp_path / "xx_testset.tsv.xz", "wt") as file:
        file.write("New_Episode\tConversation\n1\ta\n")
    with pytest.raises(InputError, match="both xx test"):
        read_dialogues(tmp_path)
    with pytest.raises(InputError, match="language 'yy' is not in"):
        read_dialogues(tmp_path / "xx_test.tsv", languages=["yy"])
    workbook(tmp_path / "zz_test.xlsx", {"one": sheet([["New_Episode", "Turn"], [True, "a"]])})
    with pytest.raises(InputError, match="no sheet whose first row names the columns"):
        read_dialogues(tmp_path / "zz_test.xlsx")
    given = read_dialogues(
        put(tmp_path, "yy_dev", [("1", "a"), ("", "b")], ["start", "said"]), columns=("start", "said")
    )
    assert given.splits.tolist() == ["valid"] * 2
    with pytest.raises(InputError, match="no turn of language 'yy' in split 'test'; there are yy valid"):
        given.only("yy", "test")


def test_mojibake_is_mended_and_nothing_else():
    for text in ("Æ™asa É—aya", "â€œso", "ÃƒÂº"):
        assert repaired(text) != text and repaired(repaired(text)) == repaired(text)
    for text in ("Ẹ káàárọ̀ o", "Ñandú ÀÁÂÃ àéîõü", "Größe", "ƙasa ɗaya ɓera", "हिन्दी", "Où ça? «Là»", "Ôté!"):
        assert repaired(text) == text
        assert repaired(text.encode().decode("latin-1")) == text


def test_mini_dialogues():
    given = mini_dialogues(seed=1, train=20, held_out=10)
    assert given.language_names == ("eng", "deu", "spa", "swh") and not given.mixed.any()
    for language in given.language_names:
        for split, count in (("train", 20), ("valid", 10), ("test", 10)):
            part = given.only(language, split)
            assert len(part) == 8 * count and len(set(part.documents.tolist())) == count
    for split in ("valid", "test"):
        rows = parallel_turns(given.only(split=split))
        assert rows.shape == (4, 80), "the same dialogues in every language"
    told = {
        split: {text for i, text in enumerate(given.only("eng", split).texts) if i % 8 < 2}
        for split in ("train", "valid", "test")
    }
    assert not told["train"] & told["valid"] and not told["train"] & told["test"] and not told["valid"] & told["test"]
    assert mini_dialogues(("swh",), seed=1, train=20, held_out=10).texts == given.only("swh").texts
    assert mini_dialogues(("swh",), seed=2, train=20, held_out=10).texts != given.only("swh").texts
    with pytest.raises(InputError, match="one or more of eng, deu, spa, swh"):
        mini_dialogues(("tur",))
    with pytest.raises(InputError, match="ask for 1 to 120"):
        mini_dialogues(held_out=121)


def test_nothing_is_told_twice():
    """Topics share words: what one topic tells in validation, another must not tell in test."""
    told = [meaning[:3] for pair in _facts(None, 2 * MOST_HELD_OUT, 0) for meaning in pair]
    assert len(told) == 4 * MOST_HELD_OUT == len(set(told))
    trained = {meaning[:3] for pair in _facts("eng", 400, 0) for meaning in pair}
    assert not trained & set(told)


def test_the_answers_of_mini_dialogues_need_what_was_told():
    """Every answer is a part of one of the two sentences told, and hardly ever of another episode's."""
    given = mini_dialogues(("eng", "swh"), train=2, held_out=60).only(split="test")
    own = other = asked = 0
    for language in ("eng", "swh"):
        turns = given.only(language).texts
        told = [turns[i] + " | " + turns[i + 1] for i in range(0, len(turns), 8)]
        for episode, start in enumerate(range(0, len(turns), 8)):
            for answer in turns[start + 3 : start + 8 : 2]:
                asked += 1
                own += answer in told[episode]
                other += answer in told[(episode + 1) % len(told)]
    assert own == asked and other < 0.2 * asked


def test_afriwoz_as_published(data):
    given = read_dialogues(data / "afriwoz_xlsx")
    assert given.language_names == ("hau", "pcm", "swa", "yor") and len(given) == 6030
    table = [line.split("\t") for line in lzma.open(data / "afriwoz.tsv.xz", "rt")][1:]
    wanted = [
        " ".join(repaired(text).split())
        for language in given.language_names
        for split in ("train", "valid", "test")
        for one, part, _, _, text in table
        if (one, part) == (language, split)
    ]
    assert list(given.texts) == wanted, "turn by turn what the cleaned table has"
    flagged = {
        (language, split): int((~given.only(language, split).mixed).sum())
        for language in given.language_names
        for split in ("train", "valid", "test")
    }
    assert {place for place, count in flagged.items() if count} == {
        ("hau", "train"),
        *((language, split) for language in ("hau", "pcm", "swa") for split in ("valid", "test")),
    }
    for split in ("valid", "test"):
        hau, swa = given.only("hau", split), given.only("swa", split)
        assert hau.episodes.tolist() == swa.episodes.tolist(), "borrowed flags stand where the cleaned table puts them"
        rows = parallel_turns(given.only(("hau", "swa"), split))
        assert (
            given.only(("hau", "swa"), split).rows[rows[0]] == given.only(("hau", "swa"), split).rows[rows[1]]
        ).all()
        assert rows.shape == (2, 250)
        assert parallel_turns(given.only(split=split)).shape == (4, 0), "Yoruba's are no translations"
    assert parallel_turns(given.only(("hau", "swa"), "train")).shape == (2, 0), "another slice"
    assert parallel_turns(given.only(("pcm", "swa"), "train")).shape[1] > 950
    assert {defect.kind for defect in given.defects} == {
        "mojibake",
        "empty turn",
        "empty rows",
        "no flag",
        "borrowed flags",
        "other slice",
    }
    assert all(
        len(leaks(given.only(name, "train"), given.only(name, part))) <= 16
        for name in given.language_names
        for part in ("valid", "test")
    )
