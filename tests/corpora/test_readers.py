"""Readers on small hand-written files: layouts, documents, faults."""

import gzip
import lzma

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlingjax.corpora import (
    Corpus,
    parse_conllu,
    read_afriwoz,
    read_concepts,
    read_conllu,
    read_senses,
    read_sib200,
    read_tatoeba,
    read_text,
    read_xquad,
)
from xlingjax.errors import InputError

SIB = (
    "lang\tindex_id\ttext\n"
    "xx_Latn\t19\tone\nxx_Latn\t20\ttwo\nyy_Latn\t20\tzwei\nyy_Latn\t19\teins\n")
INDEX = "index_id\tsplit\tcategory\n19\ttrain\thealth\n20\ttest\tscience/technology\n"

CONLLU = """\
# newdoc id = d1
# sent_id = a
# text = The cats don't
1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_
2\tcats\tcat\tNOUN\t_\tNumber=Plur\t3\tnsubj\t_\tSense=cat.n.01
3-4\tdon't\t_\t_\t_\tNumber=Dual\t_\t_\t_\t_
3\tdo\tdo\tAUX\t_\tTense=Pres\t0\troot\t_\t_
3.1\tghost\tghost\tVERB\t_\tNumber=Ghost\t_\t_\t_\t_
4\tn't\tnot\tPART\t_\tPolarity=Neg\t3\tadvmod\t_\t_

# sent_id = b
# text = dog = dog
1\tdog\tdog\tNOUN\t_\tGender=Fem,Masc|Number=Sing|Number[psor]=Plur\t0\troot\t_\t_

# newdoc
# sent_id = c
# text = two
1\ttwo\ttwo\tNUM\t_\t_\t0\troot\t_\t_"""

SENSES = (
    "lang\tdoc\tsent\ttext\tsenses\n"
    "eng\td1\t0\ta girl\tO girl.n.01\neng\td2\t0\ta boy\tO boy.n.01\n"
    "deu\td1\t0\tein Mädchen\tO girl.n.01\ndeu\td3\t0\tRegen\tO\n")


def put(path, text):
    path.write_bytes(text.encode("utf-8"))
    return path


def test_sib200_table(tmp_path):
    put(tmp_path / "sib200_index.tsv", INDEX)
    (tmp_path / "sib200.tsv.xz").write_bytes(lzma.compress(SIB.encode()))
    corpus = read_sib200(tmp_path)
    assert corpus.texts == ("one", "two", "eins", "zwei")
    assert corpus.documents.tolist() == ["0000", "0001", "0000", "0001"]
    assert corpus.parallel.tolist() == ["19", "20", "19", "20"]
    assert corpus.concepts == ("health", "science/technology") and corpus.groups == ("topic",) * 2
    assert corpus.labels.tolist() == [[1, 0], [0, 1]] * 2
    assert read_sib200(tmp_path, ["yy_Latn"], ["test"]).texts == ("zwei",)
    assert read_sib200(tmp_path, ["yy_Latn", "xx_Latn"]).language_names == ("yy_Latn", "xx_Latn")
    with pytest.raises(InputError, match="language 'xx' is not in .*did you mean xx_Latn?"):
        read_sib200(tmp_path, ["xx"])
    with pytest.raises(InputError, match="split 'dve' is not in SIB-200; did you mean dev?"):
        read_sib200(tmp_path, splits=["dve"])
    with pytest.raises(InputError, match="is empty"):
        read_sib200(tmp_path, splits=["dev"])
    put(tmp_path / "sib200.tsv", SIB + "xx_Latn\t21\tthree\n")
    with pytest.raises(InputError, match="sib200.tsv, line 6: index_id 21 is not in"):
        read_sib200(tmp_path)
    put(tmp_path / "sib200.tsv", SIB + "xx_Latn\tx\tthree\n")
    with pytest.raises(InputError, match="sib200.tsv, line 6: index_id 'x' is no whole number"):
        read_sib200(tmp_path)


def test_sib200_folders(tmp_path):
    for language in ("xx_Latn", "yy_Latn"):
        (tmp_path / language).mkdir()
        put(tmp_path / language / "train.tsv",
            f"index_id\tcategory\ttext\n5\thealth\t{language} 5\n")
    assert read_sib200(tmp_path, splits=["train"]).texts == ("xx_Latn 5", "yy_Latn 5")
    with pytest.raises(InputError, match="no dev.tsv; add it or choose splits="):
        read_sib200(tmp_path)
    with pytest.raises(InputError, match="neither sib200.tsv nor"):
        read_sib200(tmp_path / "xx_Latn")


def test_conllu(tmp_path):
    path = tmp_path / "eng_small-test.conllu.gz"
    path.write_bytes(gzip.compress(CONLLU.encode()))
    names = ["Number=Plur", "Gender=Masc", "Number[psor]=Plur", "lemma:cat", "upos:NOUN",
             "misc:Sense=cat.n.01"]
    corpus = read_conllu(path, concepts=names)
    assert corpus.texts == ("The cats don't", "dog = dog", "two")
    assert corpus.labels.tolist() == [[1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 0], [0] * 6]
    assert corpus.groups == ("Number", "Gender", "Number[psor]", "lemma", "upos", "Sense")
    assert corpus.documents.tolist() == ["d1", "d1", "document 2"]
    assert corpus.language_names == ("eng",) and not any(corpus.parallel)
    assert [len(s.words) for s in parse_conllu(path)] == [4, 1, 1]
    for ghost in ("Number=Dual", "Number=Ghost", "Plural"):
        with pytest.raises(InputError, match="no word of eng shows"):
            read_conllu(path, concepts=[ghost])
    assert read_conllu(path, names, parallel=True).parallel.tolist() == ["a", "b", "c"]


def test_conllu_default_concepts_and_documents(tmp_path):
    word = "1\tw\tw\tX\t_\t{}\t0\troot\t_\t_\n\n"
    lines = {"xx": ["A=1|B=1|C=1", "A=1|C=1", "C=1", "C=1"],
             "yy": ["A=1|C=1", "A=1|B=1|C=1", "B=1|C=1", "C=1"]}
    for language, feats in lines.items():
        put(tmp_path / f"{language}.conllu", "".join(
            f"# sent_id = n0100{i // 2}00{i}\n# text = {language} {i}\n" + word.format(f)
            for i, f in enumerate(feats)))
    corpus = read_conllu(tmp_path, parallel=True, minimum=2)
    assert corpus.concepts == ("A=1",)
    assert corpus.documents.tolist() == ["n01000", "n01000", "n01001", "n01001"] * 2
    assert corpus.parallel[0] == corpus.parallel[4] == "n01000000" and not corpus.notes
    assert read_conllu(tmp_path, minimum=2, everywhere=False).concepts == ("A=1", "B=1")
    assert read_conllu({"a": tmp_path / "xx.conllu"}, minimum=1).language_names == ("a",)
    with pytest.raises(InputError, match="no concept has 3 .*in each of xx, yy; lower minimum="):
        read_conllu(tmp_path, minimum=3)
    with pytest.raises(InputError, match="sent_id 'n01000000' occurs twice in xx"):
        read_conllu({"xx": sorted(tmp_path.iterdir())}, parallel=True)
    put(tmp_path / "zz.conllu", "# sent_id = s1\n# text = zz\n" + word.format("A=1"))
    alone = read_conllu(tmp_path / "zz.conllu", concepts=["A=1"])
    assert alone.documents.tolist() == ["zz/s1"]
    assert alone.notes == ("zz: 1 sentences name no document; each is one of its own",)


def test_conllu_faults(tmp_path):
    path = tmp_path / "eng.conllu"
    for content, message in {
        "# sent_id = a\n1\tx\n": "line 2: 2 columns, not the 10",
        "1\tx\tx\tX\t_\t_\t0\troot\t_\t_\n": "line 1: the sentence has no '# text = ...'",
        "# text = x\n\n1\tx\tx\tX\t_\t_\t0\troot\t_\t_\n": "line 3: the sentence has no '# text",
        "# text = x\n1\tx\tx\tX\t_\t_\t0\troot\t_\t_\n": "no '# sent_id = ...'",
        "x\tx\tx\tX\t_\t_\t0\troot\t_\t_\n": "line 1: 'x' is no word number",
        "": "'eng' is empty",
    }.items():
        put(path, content)
        with pytest.raises(InputError, match=message):
            read_conllu(path, concepts=["A=1"])


def test_senses(tmp_path):
    path = put(tmp_path / "senses.tsv", SENSES)
    corpus = read_senses(path, minimum=1)
    assert corpus.concepts == ("girl.n.01",) and corpus.labels.ravel().tolist() == [1, 0, 1, 0]
    assert corpus.documents.tolist() == ["d1", "d2", "d1", "d3"]
    assert corpus.parallel.tolist() == ["d1/0", "d2/0", "d1/0", "d3/0"]
    assert read_senses(path, 1, everywhere=False).concepts == ("girl.n.01", "boy.n.01")
    with pytest.raises(InputError, match="no sense has 20 sentences"):
        read_senses(path)
    put(path, "lang\tdoc\ttext\tsenses\n")
    with pytest.raises(InputError, match="no column 'sent' .it has lang, doc, text, senses"):
        read_senses(path)


def test_xquad(tmp_path):
    for language in ("aa", "bb"):
        qas = [{"id": f"q{i}", "question": f"{language} {i}?", "answers": []} for i in range(2)]
        put(tmp_path / f"xquad.{language}.json", repr({"data": [
            {"paragraphs": [{"context": f"{language} 1", "qas": qas}]},
            {"paragraphs": [{"context": f"{language} 2", "qas": []}]}]}).replace("'", '"'))
    corpus = read_xquad(tmp_path)
    assert corpus.texts == ("aa 1", "aa 2", "bb 1", "bb 2")
    assert corpus.parallel.tolist() == ["0/0", "1/0"] * 2
    assert corpus.documents.tolist() == ["article 0", "article 1"] * 2
    assert read_xquad(tmp_path, ["bb"], part="question").parallel.tolist() == ["q0", "q1"]
    put(tmp_path / "xquad.cc.json", '{"data": [{"paragraphs": [{}]}]}')
    with pytest.raises(InputError, match="xquad.cc.json: not in SQuAD's layout"):
        read_xquad(tmp_path)


def test_afriwoz_and_tatoeba(tmp_path):
    path = put(tmp_path / "afriwoz.tsv", "lang\tsplit\tn\tepisode\ttext\n"
               "hau\ttrain\t0\t0\ta\nhau\ttrain\t1\t1\tb\nyor\ttrain\t25\t-1\tc\n")
    corpus = read_afriwoz(path)
    assert corpus.documents.tolist() == ["train/episode 0", "train/episode 1", "train/block 1"]
    assert corpus.notes == ("yor: 1 turns have no episode flag; blocks of 20 are documents",)
    path = put(tmp_path / "t.tsv", "lang\tn\ttext\tenglish\n"
               "deu\t0\tJa.\tYes.\ndeu\t1\tJawohl.\tYes.\nfra\t0\tOui.\tYes.\nfra\t1\tNon.\tNo.\n")
    corpus = read_tatoeba(path, ["eng", "deu"])
    assert corpus.texts == ("Ja.", "Yes.") and corpus.parallel.tolist() == ["0", "0"]
    assert sorted(read_tatoeba(path, ["eng"]).texts) == ["No.", "Yes."]
    assert len(read_tatoeba(path)) == 5


def test_running_text(tmp_path):
    put(tmp_path / "eng.txt", "\ufeffone\r\ntwo\u2028still two\n\n \nthree\n\n")
    put(tmp_path / "stories.tsv", "lang\tstory\tpage\ttext\ndeu\t1\t0\teins\neng\t1\t0\tone\n")
    corpus = read_text(tmp_path)
    assert corpus.texts == ("one", "two\u2028still two", "three", "eins", "one")
    assert corpus.documents.tolist() == ["eng/1", "eng/1", "eng/2", "stories/1", "stories/1"]
    assert corpus.language_names == ("eng", "deu") and corpus.labels.shape == (5, 0)
    assert read_text(tmp_path / "eng.txt", language="en").language_names == ("en",)
    assert read_text(tmp_path, languages=["deu"]).texts == ("eins",)
    bare = read_text(put(tmp_path / "bare.tsv", "id\ttext\n7\tx\n"), language="x", parallel="id")
    assert bare.parallel.tolist() == bare.documents.tolist() == ["bare/7"]
    for content, message in {
        "lang\ttext\nx\n": "bare.tsv, line 2: 1 fields, not 2",
        "text\nx\n": "bare.tsv, line 1: no column 'lang'", "": "no column 'text' .it has none",
        "lang\ttext\n": "'bare' is empty",
    }.items():
        with pytest.raises(InputError, match=message):
            read_text(put(tmp_path / "bare.tsv", content))


def test_running_text_of_treebanks_and_of_pairs_with_english(tmp_path):
    put(tmp_path / "eng_x-train.conllu", CONLLU)
    put(tmp_path / "pairs.tsv", "lang\tn\ttext\tenglish\ndeu\t0\teins\tone\nspa\t0\tuno\tone\nspa\t1\tdos\ttwo\n")
    corpus = read_text(tmp_path)
    assert corpus.texts == ("The cats don't", "dog = dog", "two", "eins", "one", "uno", "dos", "two")
    assert corpus.languages.tolist() == ["eng", "eng", "eng", "deu", "eng", "spa", "spa", "eng"]
    assert corpus.documents.tolist()[:3] == ["eng_x-train/d1", "eng_x-train/d1", "eng_x-train/document 2"]
    assert read_text(tmp_path / "pairs.tsv", language="x").texts == ("eins", "uno", "dos")
    assert set(read_text(tmp_path / "eng_x-train.conllu", language="en").languages) == {"en"}


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="eng.txt does not exist; did you mean eng.text?"):
        put(tmp_path / "eng.text", "x")
        read_text(tmp_path / "eng.txt")
    with pytest.raises(InputError, match="has no file ending in .txt or"):
        read_text(tmp_path)
    path = tmp_path / "eng.txt"
    path.write_bytes(b"good\nbad \xe4\n")
    with pytest.raises(InputError, match=r"eng.txt: byte 9 \(0xe4\) is not UTF-8; save"):
        read_text(path)
    whole = lzma.compress(b"line\n" * 1000)
    for name, content in {"a.txt.xz": whole[:40], "b.txt.xz": b"no xz", "c.txt.gz": b"no gz",
                          "d.txt.gz": gzip.compress(b"x" * 999)[:-9]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is no whole"):
            read_text(tmp_path / name)
    for reader in (read_concepts, read_sib200, read_senses, read_xquad, read_afriwoz, read_tatoeba):
        with pytest.raises(InputError):
            reader(tmp_path / "missing")


READERS = {
    "eng.conllu": (lambda path: read_conllu(path, concepts=["Number=Plur"]), CONLLU),
    "senses.tsv": (lambda path: read_senses(path, minimum=1), SENSES),
    "sib200.tsv": (read_sib200, SIB),
    "x.txt": (read_text, "one\n\ntwo\n"),
    "xquad.aa.json": (read_xquad, '{"data": [{"paragraphs": [{"context": "c", "qas": []}]}]}'),
}


@pytest.mark.promise
@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_named(tmp_path, name, data):
    """Cut, overwritten or grown anywhere: a corpus or an InputError, never another exception."""
    reader, content = READERS[name]
    damaged = bytearray(content.encode())
    put(tmp_path / "sib200_index.tsv", INDEX)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        end = data.draw(st.integers(start, len(damaged)))
        damaged[start:end] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"\t", b"\n", b"{", b'"']))
    (tmp_path / name).write_bytes(bytes(damaged))
    try:
        assert isinstance(reader(tmp_path / name), Corpus)
    except InputError as error:
        assert str(error)
