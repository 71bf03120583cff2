"""Languages are told apart on documents never seen, and what is no text is undetermined."""

import numpy as np
import pytest
from sklearn.naive_bayes import MultinomialNB

from xlingjax.corpora import mini_world
from xlingjax.errors import InputError
from xlingjax.judging.languages import (
    BUCKETS,
    ORDERS,
    UNDETERMINED,
    LibraryLanguages,
    confusion,
    fit_languages,
    segment_shares,
    segments,
    shuffled,
)  # fmt: skip
from xlingjax.judging.ngrams import ngram_counts


@pytest.fixture(scope="module")
def fitted():
    return fit_languages(mini_world(sentences=160))


def test_unseen_documents_are_told_apart(fitted) -> None:
    judge, rest = fitted
    table = confusion(judge, rest)
    assert len(rest) and table.sum() == len(rest)
    right = np.diag(table[:, :-1]) / table.sum(1)
    assert right.min() > 0.97, dict(zip(judge.names, right))
    assert (table[:, :-1].sum(1) - np.diag(table[:, :-1])).sum() <= 0.01 * table.sum(), "undetermined rather than wrong"
    broken = confusion(judge, rest, broken=True)
    assert broken[:, -1].sum() >= 0.95 * broken.sum(), "letters in random order are no language"


def test_a_long_text_is_judged_as_its_sentences_are(fitted) -> None:
    """Generated texts are longer than the sentences that the judge learns from, and somewhat broken all the way."""
    judge, rest = fitted
    for name in judge.names:
        texts = rest.language(name).texts
        broken = [" ".join(shuffled(word, 1) if i % 4 == 0 else word for i, word in enumerate(" ".join(part).split()))
                  for part in (texts[:2], texts[2:10])]
        assert judge.verdicts(broken).tolist() == [name, name]


def test_the_most_likely_language_is_scikit_learns(fitted) -> None:
    judge, rest = fitted
    texts = list(rest.texts[:60])
    peer = MultinomialNB(alpha=1.0, fit_prior=False).fit(np.eye(2, BUCKETS, dtype=np.float32), [0, 1])
    peer.feature_log_prob_, peer.classes_ = judge.log_probability.astype(float), np.array(judge.names)
    peer.class_log_prior_, peer.class_count_ = np.zeros(len(judge.names)), np.ones(len(judge.names))
    wanted = peer.predict(np.minimum(ngram_counts(texts, ORDERS, BUCKETS), 1))
    said = judge.verdicts(texts)
    assert (said == wanted)[said != UNDETERMINED].all() and (said != UNDETERMINED).mean() > 0.8


@pytest.mark.parametrize("text", ["", "   ", "12 34 !?", "....", "\u4e00\u4e8c\u4e09\u56db\u4e94", "\ud800",
                                  "xq zxq qxz zq xqz xz", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"])  # fmt: skip
def test_what_is_no_text_of_a_language_is_undetermined(fitted, text) -> None:
    assert fitted[0].verdicts([text])[0] == UNDETERMINED


def test_a_text_in_two_languages_is_seen_by_segment(fitted) -> None:
    judge, rest = fitted
    of = lambda name: " ".join(rest.language(name).texts[:4])
    shares = segment_shares(judge, [of("eng") + " " + of("rus"), "..."])
    at = {name: i for i, name in enumerate(judge.names)}
    assert 0.3 < shares[0, at["eng"]] < 0.7 and 0.3 < shares[0, at["rus"]] < 0.7
    assert shares[0].sum() == pytest.approx(1) and np.isnan(shares[1]).all()
    text = of("eng")
    assert " ".join(segments(text)).split() == text.split(), "nothing is lost"


def test_the_library_knows_real_text_offline(data) -> None:
    from xlingjax.corpora import read_sib200

    names = ("eng_Latn", "spa_Latn", "deu_Latn", "rus_Cyrl", "hin_Deva")
    corpus = read_sib200(data / "sib200.tsv.xz", names, splits=("test",))
    table = confusion(LibraryLanguages(names), corpus, each=100)
    assert (np.diag(table[:, :-1]) / table.sum(1)).min() > 0.95
    assert LibraryLanguages(names).verdicts(["", "42"]).tolist() == [UNDETERMINED] * 2


def test_what_cannot_be_judged_is_named() -> None:
    world = mini_world(sentences=40, languages=("eng", "spa"))
    with pytest.raises(InputError, match="telling languages apart needs two"):
        fit_languages(world.language("eng"))
    with pytest.raises(InputError, match="'xxx' is unknown to py3langid"):
        LibraryLanguages(("eng", "xxx"))
    with pytest.raises(InputError, match="3 parts need as many"):
        fit_languages(world.rows(np.arange(len(world)) % 40 == 0))
