"""Words carry the values that they carry in documents never seen; what is not known is said not to be."""

import dataclasses

import numpy as np
import pytest

from xlingjax.corpora import mini_world_words
from xlingjax.corpora.words import Treebank, read_words
from xlingjax.errors import InputError
from xlingjax.judging.values import fit_values

FEATURES = ("Number", "Tense", "Gender")


@pytest.fixture(scope="module")
def bank():
    return mini_world_words("train", sentences=400, languages=("eng", "spa", "rus"), tasks=("upos", *FEATURES))


@pytest.fixture(scope="module")
def judge(bank):
    return fit_values(bank)


def tiny(labels, forms, documents, rows) -> Treebank:
    """A treebank of one language, given word by word."""
    texts = tuple(" ".join(form for form, row in zip(forms, rows) if row == one) for one in sorted(set(rows)))
    return Treebank(texts, np.array(["eng"] * len(texts)), np.array(documents), np.array(rows), np.zeros(
        (len(rows), 2), int), np.array(forms), {"Number": np.array(labels)})


@pytest.mark.promise
def test_a_judge_by_hand() -> None:
    """Each of 16 documents says the same; errors are then those of the rule itself."""
    forms = ["dogs", "run", "the", "dog", "runs", "sheep", "linja-auto"]
    labels = ["Plur", "Plur", "", "Sing", "Sing", "", "Sing"]
    one = tiny(labels * 16, forms * 16, [f"d{i}" for i in range(16)], np.repeat(np.arange(16), 7).tolist())
    judge = fit_values(one, least=3)
    plural, singular = judge.index("Number", "Plur"), judge.index("Number", "Sing")
    assert judge.forms == ({"dog": (singular,), "dogs": (plural,), "run": (plural,), "runs": (singular,)},)
    np.testing.assert_allclose(judge.coverage, [[4 / 5]])  # linja-auto is two words
    assert judge.confusion[0].tolist() == [[8, 0, 0], [0, 8, 4]]
    np.testing.assert_allclose(judge.spurious, [[0.0]])
    np.testing.assert_allclose(judge.share_error, [[abs(2 / 4 - 2 / 5)] * 2])
    counts = judge.counts(["The DOGS run!", "a dog", "sheep", ""], ["eng"] * 4)
    assert counts.tolist() == [[2, 0], [0, 1], [0, 0], [0, 0]]
    shares = judge.shares(["dogs run dog", "sheep", "dogs"], ["eng", "eng", "deu"])
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3], [np.nan] * 2, [np.nan] * 2])


def test_a_form_of_two_values_carries_none() -> None:
    forms, documents = ["cut"] * 40, [f"d{i}" for i in range(40)]
    labels = ["Plur", "Plur", "Plur", "Sing"] * 10
    steady = ["dogs"] * 40
    one = tiny(labels + ["Plur"] * 40, forms + steady, documents, [*range(40), *range(40)])
    assert set(fit_values(one).forms[0]) == {"dogs"}
    assert set(fit_values(one, purity=0.6).forms[0]) == {"dogs", "cut"}
    rare = dataclasses.replace(one, form=np.array([f"cut{i}" for i in range(40)] + steady))
    assert set(fit_values(rare).forms[0]) == {"dogs"}


def test_unseen_documents_are_judged_well(judge) -> None:
    assert judge.languages == ("eng", "spa", "rus") and judge.features == FEATURES
    gender = judge.features.index("Gender")
    assert np.isnan(judge.coverage[0, gender]) and np.nanmin(judge.coverage) > 0.4
    for g in range(3):
        table = judge.confusion[g]
        right, judged = np.diag(table[:, :-1]).sum(), table[:, :-1].sum()
        assert right > 0.95 * judged > 0
    assert np.nanmax(judge.spurious) < 0.1 and np.nanmax(judge.share_error) < 0.3


def test_texts_are_told_apart(judge) -> None:
    plural, past = judge.index("Number", "Plur"), judge.index("Tense", "Past")
    texts = ["yesterday the dogs saw the horse", "today the dog sees the horse", "las mujeres ven los perros"]
    shares = judge.shares(texts, ["eng", "eng", "spa"])
    assert shares[0, plural] == pytest.approx(1 / 3), "yesterday is one word in the singular, horse another"
    assert shares[1, plural] == 0 and shares[2, plural] == 1
    assert shares[0, past] == 1 and shares[1, past] == 0


def test_labels_without_meaning_teach_little(bank) -> None:
    rng = np.random.default_rng(0)
    labels = {"Number": rng.permutation(bank.labels["Number"])}
    try:
        judge = fit_values(dataclasses.replace(bank, labels=labels))
    except InputError as error:
        assert "no form occurs" in str(error)
        return
    assert np.nanmax(judge.coverage) < 0.05


@pytest.mark.parametrize(("arguments", "says"), [
    ({"features": ["Mood"]}, "no labels of 'Mood'; it has upos, Number"), ({"least": 10**6}, "no form occurs 1000000"),
    ({"purity": 0.4}, "purity 0.4"), ({"least": 0}, "least is 0")])
def test_what_cannot_be_learned_is_named(bank, arguments, says) -> None:
    with pytest.raises(InputError, match=says):
        fit_values(bank, **arguments)


def test_what_the_judge_does_not_know_is_named(judge) -> None:
    with pytest.raises(InputError, match="does not know Case=Nom; it knows Number=Plur"):
        judge.index("Case", "Nom")
    assert not judge.counts(["\ud800 \x00 x"], ["eng"]).any()


@pytest.mark.slow
def test_real_treebanks(data) -> None:
    judge = fit_values(read_words(data / "pud", ["Number", "Tense"], ["eng", "spa", "deu", "rus"]))
    number = [v for v, (feature, _) in enumerate(judge.values) if feature == "Number"]
    for g, name in enumerate(judge.languages):
        table = judge.confusion[g][np.ix_(number, number)]
        assert np.diag(table).sum() > 0.93 * table.sum() > 0, (name, table)
    assert np.nanmin(judge.coverage[:, 0]) > 0.2
