"""The map between static spaces: against SciPy, planted rotations, a brute-force CSLS, and real distances of words."""

import numpy as np
import pytest
import scipy.linalg
from tolerances import KERNEL, close

from xlingjax.corpora import mini_world
from xlingjax.corpora.world.lexicon import NOT_FORMS, lexicon
from xlingjax.errors import InputError
from xlingjax.transfer import mapping
from xlingjax.transfer.mapping import (
    MappingSettings,
    first_dictionary,
    learn_mapping,
    nearest,
    normalised,
    orthogonal_map,
    weighted_maps,
)
from xlingjax.transfer.static import StaticSettings, train_static, word_ids


def spaces(words: int = 150, width: int = 12, noise: float = 0.0, seed: int = 0):
    """A lumpy space, a rotation of it with noise whose words are in another order, and that order."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((9, width)) * rng.gamma(1.0, 1.0, (9, 1))
    x = centres[rng.integers(0, 9, words)] + 0.7 * rng.standard_normal((words, width)) * rng.gamma(1, 1, width)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    order = rng.permutation(words)
    return x, (x @ turn)[order] + noise * rng.standard_normal((words, width)), order, turn


def test_orthogonal_map_is_scipy_s():
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, 30, 6))
    close(orthogonal_map(x, z), scipy.linalg.orthogonal_procrustes(x, z)[0], KERNEL["float64"])


def test_a_planted_rotation_is_found_with_a_dictionary():
    x, z, order, turn = spaces()
    close(orthogonal_map(x[order], z), turn, 1e-9)


@pytest.mark.parametrize("weighted", (True, False))
def test_a_planted_rotation_is_found_from_nothing(weighted):
    x, z, order, _ = spaces(noise=0.05)
    learned = learn_mapping(x, z, MappingSettings(patience=5, rounds=200, weighted=weighted))
    right = nearest(learned.source, learned.target)[order] == np.arange(len(order))
    assert right.mean() > 0.9, right.mean()


def test_without_structure_nothing_is_found():
    """Control: two spaces that have nothing to do with each other give chance."""
    x, _, order, _ = spaces(seed=1)
    other = spaces(seed=2)[0]
    learned = learn_mapping(x, other, MappingSettings(patience=5, rounds=100))
    assert (nearest(learned.source, learned.target)[order] == np.arange(len(order))).mean() < 0.06


def test_the_first_dictionary_matches_equal_distributions():
    x, z, order, _ = spaces()
    pairs = first_dictionary(normalised(x), normalised(z), MappingSettings())
    assert (order[pairs[:, 1]] == pairs[:, 0]).mean() > 0.95


def test_a_dictionary_that_is_given_is_where_it_begins():
    x, z, order, _ = spaces(noise=0.3)
    given = [(int(order[i]), i) for i in range(40)]
    learned = learn_mapping(x, z, MappingSettings(rounds=1, weighted=False), given)
    turned = normalised(x) @ orthogonal_map(normalised(x)[order[:40]], normalised(z)[:40])
    hub = lambda a, b: np.sort(a @ b.T, axis=1)[:, -10:].mean(1)
    z = normalised(z)
    with_all = np.argmax(turned @ z.T - hub(z, turned) / 2, axis=1)
    every = learn_mapping(x, z, MappingSettings(rounds=1, weighted=False, kept=1.0), given)
    assert (every.dictionary[:150, 1] == with_all).all()  # all similarities seen: CSLS by hand
    assert (learned.dictionary[:150, 1] != with_all).any()  # a tenth of them seen


def test_csls_is_that_of_a_plain_loop_over_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((20, 5)), rng.standard_normal((17, 5))
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit(x) @ unit(z).T
    hub = np.array([np.sort(cosine[:, j])[-3:].mean() for j in range(17)])
    expected = [max(range(17), key=lambda j: 2 * cosine[i, j] - hub[j]) for i in range(20)]
    assert nearest(x, z, 3).tolist() == expected
    monkeypatch.setattr(mapping, "ROWS", 8)
    assert nearest(x, z, 3).tolist() == expected


def test_weighted_maps_are_vecmap_s_steps():
    """Whitened dictionaries have unit covariance, and without weights the result is a whitened Procrustes."""
    x, z, order, _ = spaces(noise=0.1)
    pairs = np.stack([order, np.arange(len(order))], 1)
    x, z = normalised(x), normalised(z)
    root = lambda rows: scipy.linalg.sqrtm(rows.T @ rows).real
    wx, wz = root(x[order]), root(z)
    u, s, vt = np.linalg.svd((x @ np.linalg.inv(wx))[order].T @ (z @ np.linalg.inv(wz)))
    ours_x, ours_z = weighted_maps(x, z, pairs)
    theirs_x = x @ np.linalg.inv(wx) @ u @ np.diag(np.sqrt(s)) @ u.T @ wx @ u
    theirs_z = z @ np.linalg.inv(wz) @ vt.T @ np.diag(np.sqrt(s)) @ vt @ wz @ vt.T
    close(ours_x @ ours_z.T, theirs_x @ theirs_z.T, 1e-8)  # the axes' signs are free


def test_words_without_embedding_take_no_part():
    x, z, order, _ = spaces(noise=0.02)
    x[order[3]] = 0
    learned = learn_mapping(x, z, MappingSettings(patience=3, rounds=100))
    assert order[3] not in learned.dictionary[:, 0] and not learned.source[order[3]].any()


@pytest.mark.slow
def test_translations_of_the_embedded_corpus_are_far_above_chance():
    """Spelling alike helps to begin with, and what is tested is words that are not written alike."""
    words, tables = {}, {}
    for code in ("eng", "deu"):
        corpus = mini_world("train", languages=(code,), sentences=4000)
        words[code], ids = word_ids(corpus.texts)
        settings = StaticSettings(width=32, batch=1024, drawn=64, learning_rate=0.4)
        tables[code] = train_static(ids, len(words[code]), settings)
    alike = [(words["eng"].index(word), words["deu"].index(word)) for word in words["eng"] if word in words["deu"]]
    gold: dict[int, set[int]] = {}
    for entry in lexicon().values():
        one, other = ({form.lower() for name, form in entry["forms"][code].items() if name not in NOT_FORMS}
                      for code in ("eng", "deu"))
        for form in one & set(words["eng"]):
            right = {words["deu"].index(found) for found in other & set(words["deu"])}
            if right and form not in words["deu"]:
                gold.setdefault(words["eng"].index(form), set()).update(right)
    learned = learn_mapping(tables["eng"], tables["deu"], MappingSettings(patience=10, rounds=150), alike)
    got = nearest(learned.source, learned.target)
    share = np.mean([got[word] in right for word, right in gold.items()])
    chance = np.mean([len(right) for right in gold.values()]) / len(words["deu"])
    assert len(gold) > 200 and share > 10 * chance, (share, chance)


def test_bad_input_is_named():
    x, z, _, _ = spaces()
    with pytest.raises(InputError, match="of one width"):
        learn_mapping(x, z[:, :5])
    with pytest.raises(InputError, match="give pairs of row numbers"):
        learn_mapping(x, z, dictionary=[(0, 500)])
    with pytest.raises(InputError, match="not all finite"):
        learn_mapping(x * np.nan, z)
    with pytest.raises(InputError, match="cannot be whitened"):
        weighted_maps(x, z, np.array([[0, 0], [1, 1]]))
    with pytest.raises(InputError, match="kept is 0"):
        MappingSettings(kept=0)
