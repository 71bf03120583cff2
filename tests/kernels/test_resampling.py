"""Documents stay together, languages move jointly, counts are kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlingjax.errors import InputError
from xlingjax.kernels import resampling


def parallel_world(languages=3, documents=7, each=4, seed=0):
    """Parallel sentences in shuffled row order; document ids differ by language on purpose."""
    rng = np.random.default_rng(seed)
    sentence = np.tile(np.arange(documents * each), languages)
    language = np.repeat(np.arange(languages), documents * each)
    order = rng.permutation(len(sentence))
    sentence, language = sentence[order], language[order]
    names = np.array([f"l{i}" for i in language])
    docs = np.array([f"d{s // each}-{g}" for s, g in zip(sentence, language)])
    return sentence, names, docs, np.array([f"s{s}" for s in sentence]), each


def test_blocks_join_documents_through_parallel_sentences():
    sentence, _, docs, parallel, each = parallel_world()
    blocks = resampling.independent_blocks(docs, parallel)
    assert len(np.unique(blocks)) == 7
    for block in range(7):
        assert len(np.unique(sentence[blocks == block] // each)) == 1
    alone = resampling.independent_blocks(docs, np.full(len(docs), ""))
    assert len(np.unique(alone)) == 21


@pytest.mark.promise
@given(st.integers(0, 2**31), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_no_document_in_any_language_on_both_sides(seed, documents):
    sentence, names, docs, parallel, each = parallel_world(documents=documents, seed=seed % 100)
    blocks = resampling.independent_blocks(docs, parallel)
    half = resampling.document_halves(blocks, names, seed)
    for document in np.unique(sentence // each):
        assert len(np.unique(half[sentence // each == document])) == 1
    for name in np.unique(names):
        counts = np.bincount(half[names == name], minlength=2) // each
        assert abs(counts[0] - counts[1]) <= 1


def test_halves_are_random_and_reach_every_language():
    blocks = np.repeat(np.arange(8), 2)
    names = np.array(["x", "y"] * 8)
    both = np.stack([resampling.document_halves(blocks, names, seed) for seed in range(200)])
    assert 0.4 < both.mean() < 0.6 and (np.abs(both.mean(0) - 0.5) < 0.15).all()
    apart = np.array(["x"] * 8 + ["y"] * 8)
    half = resampling.document_halves(blocks, apart, 0)
    assert set(half[:8]) == set(half[8:]) == {0, 1}
    with pytest.raises(InputError, match="2 parts need as many"):
        resampling.document_halves(np.zeros(4, int), names[:4], 0)


@pytest.mark.promise
def test_joint_permutation_is_one_permutation_of_documents():
    sentence, names, docs, parallel, each = parallel_world()
    blocks = resampling.independent_blocks(docs, parallel)
    for source in resampling.joint_permutations(blocks, parallel, names, 20, seed=1):
        np.testing.assert_array_equal(names[source], names)
        taken = {}
        for row, other in enumerate(source):
            assert taken.setdefault(sentence[row], sentence[other]) == sentence[other]
        assert sorted(taken.values()) == sorted(taken)
        for document in range(7):  # equal sizes: a document's labels come from one document
            assert len({taken[s] // each for s in taken if s // each == document}) == 1


def test_documents_of_unequal_size_keep_runs_and_counts():
    documents = np.repeat(["a", "b", "c", "d"], [1, 5, 2, 4])
    parallel, names = np.full(12, ""), np.full(12, "x")
    blocks = resampling.independent_blocks(documents, parallel)
    sources = resampling.joint_permutations(blocks, parallel, names, 50, seed=0)
    for source in sources:
        assert sorted(source) == list(range(12))
        together = (np.diff(source) == 1).sum()
        assert together >= 8  # 11 steps, at most 3 of them between documents
    assert len({tuple(source) for source in sources}) > 15


def test_without_parallel_ids_each_language_permutes_its_own_documents():
    sentence, names, docs, _, _ = parallel_world()
    none = np.full(len(docs), "")
    blocks = resampling.independent_blocks(docs, none)
    source = resampling.joint_permutations(blocks, none, names, 1, seed=2)[0]
    np.testing.assert_array_equal(names[source], names)
    by_language = [dict(zip(sentence[names == name], sentence[source][names == name]))
                   for name in np.unique(names)]
    assert by_language[0] != by_language[1]


def test_permutation_stays_in_its_half():
    sentence, names, docs, parallel, _ = parallel_world(documents=10)
    blocks = resampling.independent_blocks(docs, parallel)
    half = resampling.document_halves(blocks, names, 3)
    for source in resampling.joint_permutations(blocks, parallel, names, 10, 4, half):
        np.testing.assert_array_equal(half[source], half)


def test_missing_translations_move_only_among_their_like():
    parallel = np.array(["1", "2", "3", "4", "1", "2", "", "9"])
    names = np.array(["x"] * 4 + ["y"] * 4)
    blocks = resampling.independent_blocks(np.arange(8).astype(str), parallel)
    for source in resampling.joint_permutations(blocks, parallel, names, 20, 0):
        np.testing.assert_array_equal(names[source], names)
        assert sorted(source) == list(range(8))
        assert (source[0] == 0) == (source[4] == 4) and {source[0], source[1]} == {0, 1}


def test_bootstrap_draws_whole_documents():
    blocks = np.repeat(np.arange(6), 3)
    times = np.stack([resampling.document_bootstrap(blocks, seed) for seed in range(300)])
    assert (times.reshape(300, 6, 3) == times.reshape(300, 6, 3)[..., :1]).all()
    assert (times.sum(1) == 18).all() and abs((times > 0).mean() - (1 - (5 / 6) ** 6)) < 0.02


def test_equal_counts_leaves_parallel_labels_alone_and_levels_others():
    sentence, names, docs, parallel, _ = parallel_world()
    blocks = resampling.independent_blocks(docs, parallel)
    labels = (np.random.default_rng(0).random((28, 3)) < 0.3).astype(np.int8)[sentence]
    np.testing.assert_array_equal(
        resampling.equal_counts(labels, names, blocks, parallel, 0), labels)
    labels[(names == "l1") & (sentence < 9)] = -1
    equal = resampling.equal_counts(labels, names, blocks, parallel, 0)
    assert (equal[equal != labels] == -1).all()
    counts = np.array([
        [(equal[names == g] == v).sum(0) for v in (0, 1)] for g in ("l0", "l1", "l2")])
    assert (counts == counts[0]).all()
    np.testing.assert_array_equal(
        counts[0], [(labels[names == "l1"] == v).sum(0) for v in (0, 1)])


def test_same_seed_same_draw():
    _, names, docs, parallel, _ = parallel_world()
    blocks = resampling.independent_blocks(docs, parallel)
    for draw in (lambda s: resampling.document_halves(blocks, names, s),
                 lambda s: resampling.document_bootstrap(blocks, s),
                 lambda s: resampling.joint_permutations(blocks, parallel, names, 3, s),
                 lambda s: resampling.name_permutations(["word"] * 9, 4, s)):
        np.testing.assert_array_equal(draw(5), draw(5))
        assert not np.array_equal(draw(5), draw(6))


def test_names_stay_within_their_kind() -> None:
    kinds = np.array(["noun", "verb", "noun", "time", "verb", "noun"])
    drawn = resampling.name_permutations(kinds.tolist(), 50, 0)
    assert (np.sort(drawn, axis=1) == np.arange(6)).all() and (kinds[drawn] == kinds).all()
    assert (drawn[:, 3] == 3).all(), "nothing else is of its kind"
    assert len(np.unique(drawn, axis=0)) == 12, "3! orders of nouns, 2 of verbs"


def test_a_block_of_a_language_of_its_own_falls_on_either_side() -> None:
    """Otherwise languages with an odd number of documents would all favour the same half."""
    blocks, languages = np.arange(3), np.array(["x", "y", "z"])
    sides = {tuple(resampling.document_halves(blocks, languages, seed).tolist()) for seed in range(40)}
    assert len(sides) == 6, "all but the two in which a half is empty"
