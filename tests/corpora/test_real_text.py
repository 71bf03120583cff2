"""The readers on real text: the counts that are known of it."""

import numpy as np
import pytest

from xlingjax.corpora import read_conllu, read_senses, read_sib200, read_text, read_xquad

LANGUAGES = "eng deu spa fra ita rus ara hin tur zho".split()
KNOWN = {
    "Number=Plur": [685, 709, 760, 741, 758, 776, 738, 606, 621, 130],
    "Gender=Fem": [None, 813, 864, 892, 892, 825, 924, 809, None, None],
    "Tense=Past": [745, 709, 644, 633, 715, 698, 686, 579, 611, None],
}


def test_pud(data):
    corpus = read_conllu(data / "pud", concepts=list(KNOWN), languages=LANGUAGES, parallel=True)
    assert len(corpus) == 10_000 and len(set(corpus.documents)) == 397
    positives, negatives = corpus.counts()
    assert corpus.language_names == tuple(LANGUAGES) and (positives + negatives == 1000).all()
    for c, counts in enumerate(KNOWN.values()):
        for g, count in enumerate(counts):
            assert count is None or positives[g, c] == count, (corpus.concepts[c], LANGUAGES[g])


def test_sib200(data):
    corpus = read_sib200(data, ["eng_Latn", "zho_Hans", "arb_Arab", "swh_Latn"])
    corpus.check(83)
    assert corpus.counts()[0].max() == 252 and len(corpus.concepts) == 7
    ids = [corpus.parallel[corpus.languages == name] for name in corpus.language_names]
    assert all(len(set(i)) == 1004 and np.array_equal(i, ids[0]) for i in ids)
    sizes = np.unique(corpus.documents, return_counts=True)[1] // 4
    assert sizes.max() <= 20
    splits = [len(read_sib200(data, ["eng_Latn"], [s])) for s in ("train", "dev", "test")]
    assert splits == [701, 99, 204]


@pytest.mark.parametrize("languages, count", [("eng", 188), ("deu", 35), ("ita", 16), (None, 15)])
def test_senses(data, languages, count):
    path = data / "concepts" / "pmb_senses.tsv.xz"
    corpus = read_senses(path, languages=languages and [languages])
    assert len(corpus.concepts) == count


def test_xquad(data):
    corpus = read_xquad(data / "xquad", ["de", "zh"])
    assert len(corpus) == 480 and len(set(corpus.documents)) == 48
    assert len(read_xquad(data / "xquad", ["ar"], part="question")) == 1190


def test_running_text(data):
    corpus = read_text(data / "text", languages=["eng", "swa"])
    assert len(corpus) > 3000 and not corpus.notes
    homes = [set(corpus.documents[corpus.languages == name]) for name in ("eng", "swa")]
    assert {home.split("/")[0] for home in homes[0]} == {
        "djangogirls", "global_asp", "opensource_guide", "udhr"} and homes[0] & homes[1]
