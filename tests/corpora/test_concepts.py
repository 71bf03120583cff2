"""Concept folders: ml-selfcond's layout, ours, and what is wrong with a file."""

import json

import numpy as np
import pytest

from xlingjax.corpora import Corpus, read_concepts, write_concepts
from xlingjax.errors import InputError


def write(folder, concepts, **fields):
    """concepts: (group, concept) -> (positive, negative)."""
    for (group, concept), (positive, negative) in concepts.items():
        path = folder / group / f"{concept}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({
            "concept": concept, "group": group, "source": "hand",
            "sentences": {"positive": positive, "negative": negative}, **fields}), encoding="utf-8")
    rows = "".join(f"{group},{concept}\n" for group, concept in concepts)
    (folder / "concept_list.csv").write_text("group,concept\n" + rows)
    return folder


def test_one_language(tmp_path):
    folder = write(tmp_path / "eng", {
        ("sense", "man-1_18_00__"): (["a man", "the man"], ["a cat", "rain"]),
        ("keyword", "cat"): (["a cat"], ["a man", "a car"])})
    corpus = read_concepts(folder)
    assert corpus.texts == ("a man", "the man", "a cat", "rain", "a car")
    assert corpus.concepts == ("man-1_18_00__", "cat") and corpus.groups == ("sense", "keyword")
    assert corpus.labels.tolist() == [[1, 0], [1, -1], [0, 1], [0, -1], [-1, 0]]
    assert set(corpus.languages) == {"eng"} and len(set(corpus.documents)) == 5
    assert corpus.notes == (
        "eng: 5 of 5 sentences name no document; each is a document of its own",)
    assert set(read_concepts(folder, language="en").languages) == {"en"}
    corpus.check()


def test_a_folder_a_language(tmp_path):
    write(tmp_path / "deu", {("g", "x"): (["ja"], ["nein"])},
          documents={"positive": ["d1"], "negative": [2]},
          parallel={"positive": ["p"], "negative": [""]})
    positive = [{"text": "yes", "document": "d1", "parallel": "p"}]
    write(tmp_path / "eng", {("g", "x"): (positive, ["no"]), ("g", "y"): (["no"], ["maybe"])})
    corpus = read_concepts(tmp_path)
    assert corpus.texts == ("ja", "nein", "yes", "no", "maybe")
    assert corpus.documents.tolist() == ["d1", "2", "d1", "eng:1", "eng:2"]
    assert corpus.parallel.tolist() == ["p", "", "p", "", ""]
    assert corpus.labels.tolist() == [[1, -1], [0, -1], [1, -1], [0, 1], [-1, 0]]
    with pytest.raises(InputError, match=r"'y' in deu \(0 with, 0 without\)"):
        corpus.check()
    assert "without positives or negatives: y" in corpus.summary()
    assert read_concepts(tmp_path, languages=["eng"]).language_names == ("eng",)
    with pytest.raises(InputError, match="language 'dea' is not in .*did you mean deu"):
        read_concepts(tmp_path, languages=["dea"])


def test_doubtful_sentences(tmp_path):
    write(tmp_path / "eng", {("g", "x"): (["both", "twice", "twice"], ["both", "both", "other"])})
    corpus = read_concepts(tmp_path)
    assert corpus.texts == ("both", "twice", "other")
    assert corpus.labels.ravel().tolist() == [-1, 1, 0]
    assert corpus.notes[0].startswith("eng: 1 sentences are both positive and negative")


def test_equal_names_in_two_groups(tmp_path):
    write(tmp_path, {
        ("a", "x"): (["1"], ["2"]), ("b", "x"): (["2"], ["1"]), ("b", "y"): (["3"], [])})
    corpus = read_concepts(tmp_path)
    assert corpus.concepts == ("a/x", "b/x", "y")
    with pytest.raises(InputError, match=r"'y' in .* \(1 with, 0 without\)"):
        corpus.check()


def test_written_and_read_back(tmp_path):
    corpus = Corpus(
        texts=("a", "b\ud800", "c\0\n", "", "e"), languages=np.array(["x", "x", "x", "y", "y"]),
        documents=np.array(["1", "1", "2", "1", "3"]), parallel=np.array(["p", "", "", "p", ""]),
        labels=np.array([[1, 0], [0, 1], [0, -1], [1, 1], [0, 0]]),
        concepts=("science/technology", '..\\"odd", 100%'), groups=("topic", "../up"))
    write_concepts(corpus, tmp_path / "out")
    back = read_concepts(tmp_path / "out")
    assert back.concepts == corpus.concepts and back.groups == corpus.groups

    def rows(c):
        return sorted(zip(c.texts, c.languages, c.documents, c.parallel, c.labels.tolist()))

    assert rows(back) == rows(corpus)
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    with pytest.raises(InputError, match="not empty"):
        write_concepts(corpus, tmp_path / "out")


@pytest.mark.promise
@pytest.mark.parametrize(
    "group, concept", [("../..", "secret"), ("g", "../../../secret"), ("/etc", "x")])
def test_paths_stay_inside(tmp_path, group, concept):
    inside = tmp_path / "a" / "b"
    write(inside, {("g", "x"): (["1"], ["2"])})
    secret = json.dumps({"sentences": {"positive": ["1"], "negative": ["2"]}})
    (tmp_path / "secret.json").write_text(secret)
    (inside / "concept_list.csv").write_text(f"group,concept\n{group},{concept}\n")
    with pytest.raises(InputError, match=r"%2F.*does not exist|%2E.*does not exist"):
        read_concepts(inside)


def test_faults_are_named(tmp_path):
    with pytest.raises(InputError, match="has no concept_list.csv"):
        read_concepts(tmp_path)
    folder = write(tmp_path / "eng", {("g", "x"): (["1"], ["2"])})
    path = folder / "g" / "x.json"

    def fails(message, content=None, data=None):
        if data is not None:
            content = json.dumps(data)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=message) as caught:
            read_concepts(folder)
        assert "x.json" in str(caught.value)

    fails("line 2, column 1: .*write valid JSON", "{\n")
    fails(r"byte 3 \(0xff\) is not UTF-8", b'{"a\xff": 1}')
    fails("no field 'sentences'", data={"concept": "x"})
    fails("no field 'sentences'", data=[1])
    fails("field sentences.negative is missing", data={"sentences": {"positive": ["a"]}})
    fails("sentences.positive, entry 1: no text", data={
        "sentences": {"positive": ["a", 3], "negative": []}})
    good = {"positive": ["a", "b"], "negative": []}
    fails("documents.positive has 1 entries for 2", data={
        "sentences": good, "documents": {"positive": ["d"], "negative": []}})
    fails("positive sentence 0 has the id None", data={
        "sentences": good, "parallel": {"positive": [None, "d"], "negative": []}})
    fails("nested too deep", "[" * 100_000)
    path.unlink()
    with pytest.raises(InputError, match="x.json does not exist"):
        read_concepts(folder)
    (folder / "concept_list.csv").write_text("group;concept\ng;x\n")
    with pytest.raises(InputError, match="line 1: no column 'group' .it has group;concept."):
        read_concepts(folder)
    (folder / "concept_list.csv").write_text("group,concept\ng,x,y\n")
    with pytest.raises(InputError, match="line 2: 3 fields, not 2"):
        read_concepts(folder)
    (folder / "concept_list.csv").write_text("group,concept\n")
    with pytest.raises(InputError, match="lists no concept"):
        read_concepts(folder)
