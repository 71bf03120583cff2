"""The parts of the feature analysis: which words, what is read of them, what a latent does for a probe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression

from xlingjax.analyses.features import downstream, probes, reading
from xlingjax.analyses.features.attribution import probe_effects, word_effects
from xlingjax.analyses.features.cells import CHOOSE, TEST, TRAIN, make_cells
from xlingjax.analyses.features.conditions import choose_sets, erase_at, fit_erasers
from xlingjax.analyses.features.reading import Reader
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.planted.features import plant_features
from xlingjax.corpora.tokenising import tokenise
from xlingjax.corpora.words import word_positions
from xlingjax.errors import InputError
from xlingjax.kernels.erasure import Eraser
from xlingjax.models import Model, TransformerConfig, forward, init_params
from xlingjax.sae import Dictionary, DictionaryConfig, LatentEdit, init_dictionary
from xlingjax.training.objectives import Objective, row_losses

SETTINGS = FeatureSettings(minimum=15, tested=10, words=60, k=4, bootstraps=40, matched=4, batch_tokens=256)


@pytest.fixture(scope="module")
def world():
    return plant_features(shared=2, alone=1, sentences=60, documents=30, latents=64, layers=3)


@pytest.fixture(scope="module")
def parts(world):
    tokens = tokenise(world.model.tokenizer, world.bank.texts, 64)
    places = word_positions(world.model.tokenizer, world.bank, tokens)
    cells = make_cells(world.bank, places[:, 0] >= 0, SETTINGS)
    reader = Reader(world.model, world.dictionary, world.bank, tokens, places, cells.words, SETTINGS)
    return tokens, places, cells, reader


@pytest.mark.promise
def test_evidence_for_one_of_two_values_is_evidence_against_the_other() -> None:
    rng = np.random.default_rng(0)
    f = scipy.sparse.csr_matrix(np.maximum(rng.standard_normal((60, 30)), 0))
    has, w, directions = rng.random(60) < 0.5, rng.standard_normal(9), rng.standard_normal((30, 8))
    one, other = probe_effects(f, has, w, directions), probe_effects(f, ~has, -w, directions)
    np.testing.assert_allclose(one.contrast, other.contrast)  # the contrast cannot tell the two apart
    np.testing.assert_allclose(one.evidence, -other.evidence)
    more = np.asarray(f[has].mean(0) - f[~has].mean(0)).reshape(-1) > 0
    speaks = directions @ w[:-1] > 0
    np.testing.assert_array_equal(one.evidence > 0, more & speaks)
    np.testing.assert_array_equal(one.evidence < 0, ~more & ~speaks)


def test_no_document_serves_two_parts_and_negatives_have_the_feature(world, parts) -> None:
    _, _, cells, _ = parts
    document = world.bank.documents[world.bank.row[cells.words]]
    of = [set(document[cells.part == part]) for part in range(3)]
    assert all(of) and not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])
    for v, name in enumerate(cells.values):
        feature, _, value = name.partition("=")
        label = world.bank.labels[feature][cells.words]
        np.testing.assert_array_equal(label[cells.side[v] == 1], value)
        assert set(label[cells.side[v] == 0]) and value not in label[cells.side[v] == 0]
        assert "" not in label[cells.side[v] >= 0]
    for g in range(3):
        at, has = cells.of(0, g, TRAIN)
        assert 15 <= has.sum() <= 60 and (cells.language[at] == g).all()


def test_what_lacks_words_is_named(world, parts) -> None:
    _, places, _, _ = parts
    labels = dict(world.bank.labels)
    rare = labels["Tense"].copy()
    rare[(world.bank.languages[world.bank.row] == "qab") & (rare == "Past")] = "Pres"
    rare[np.flatnonzero(world.bank.languages[world.bank.row] == "qab")[:3]] = "Past"
    bank = dataclasses.replace(world.bank, labels={**labels, "Tense": rare})
    found = make_cells(bank, places[:, 0] >= 0, SETTINGS)
    past = found.values.index("Tense=Past")
    assert found.used[past].tolist() == [True, False, True]
    assert any("Tense=Past in qab" in said and "fewer than 15" in said for said in found.left_out)
    with pytest.raises(InputError, match="no value has 5000 words with it"):
        make_cells(world.bank, places[:, 0] >= 0, dataclasses.replace(SETTINGS, minimum=5000))
    with pytest.raises(InputError, match="value 'Number=Dual' occurs with no word"):
        make_cells(world.bank, places[:, 0] >= 0, dataclasses.replace(SETTINGS, values=("Number=Dual",)))
    only = dataclasses.replace(bank, labels={"upos": labels["Tense"]})
    with pytest.raises(InputError, match="none of them a feature"):
        make_cells(only, places[:, 0] >= 0, SETTINGS)


@pytest.mark.promise
@pytest.mark.parametrize("align", ["mean", "first"])
def test_states_and_latents_are_those_of_a_plain_pass(world, parts, align) -> None:
    """Words of two tokens: spans are widened on purpose, the planted tokenizer has one token a word."""
    tokens, places, cells, _ = parts
    wide = places.copy()
    wide[::3, 1] = np.minimum(wide[::3, 1] + 1, tokens.lengths[world.bank.row[::3]] - 1)
    reader = Reader(world.model, world.dictionary, world.bank, tokens, wide, cells.words,
                    dataclasses.replace(SETTINGS, align=align))
    words = cells.words[[0, 40, 7, 3, 100]]
    states = reader.states(words)[0]
    assert reader.layers == ["own", "resid 1", "resid 2", "final"]
    latents = reader.latents(words).toarray()
    for i, word in enumerate(words):
        ids = tokens.ids[world.bank.row[word]][None]
        out = world.model(ids, np.ones(ids.shape, bool), capture=("resid",))
        first, last = wide[word]
        span = slice(first, (last if align == "mean" else first) + 1)
        wanted = [*np.asarray(out.captured["resid"])[:, 0, span].mean(1), np.asarray(out.hidden)[0, span].mean(0)]
        np.testing.assert_allclose(states[:, i], np.stack(wanted), atol=1e-5)
        f = np.asarray(world.dictionary.encode(out.captured["resid"][0, 0, span])).mean(0)
        np.testing.assert_allclose(latents[i], f, atol=1e-5)


@pytest.mark.promise
def test_an_effect_is_what_zeroing_the_latent_does(parts, world) -> None:
    """Exact to 1e-6 of the logit's size, for words of several tokens, at the dictionary's own layer."""
    tokens, places, cells, _ = parts
    wide = places.copy()
    wide[::2, 1] = np.minimum(wide[::2, 1] + 1, tokens.lengths[world.bank.row[::2]] - 1)
    reader = Reader(world.model, world.dictionary, world.bank, tokens, wide, cells.words, SETTINGS)
    at, has = cells.of(0, 0, CHOOSE)
    words = cells.words[at]
    w = np.random.default_rng(0).standard_normal(49)
    w /= np.linalg.norm(w)
    latents = [*world.carriers[0, :1], *np.flatnonzero(np.asarray(reader.latents(words).mean(0)).reshape(-1))[:6]]
    keep = np.ones((1 + len(latents), reader.width), bool)
    keep[np.arange(1, len(keep)), latents] = False
    states = reader.states(words, reader.silence(keep))[:, 0].astype(float)
    fall = (states[0] - states[1:]) @ w[:-1]
    effects = word_effects(reader.latents(words), w, world.dictionary.directions)[:, latents].toarray().T
    assert np.abs(effects).max() > 0.3
    np.testing.assert_allclose(effects, fall, atol=2e-6)
    contrast = probe_effects(reader.latents(words), has, w, world.dictionary.directions)
    np.testing.assert_allclose(contrast.contrast[latents], fall[:, has].mean(1) - fall[:, ~has].mean(1), atol=2e-6)
    np.testing.assert_allclose(contrast.mean[latents], fall[:, has].mean(1), atol=2e-6)


def test_edits_leave_special_tokens_and_conditions_are_data(parts, world) -> None:
    tokens, _, cells, reader = parts
    words = cells.words[:12]
    none, all_ = reader.states(words, reader.silence(np.stack([np.ones(64), np.zeros(64)])))
    np.testing.assert_allclose(none, reader.states(words)[0], atol=1e-6)
    assert np.abs(all_ - none).max() > 0.1
    before = reading._states_after._cache_size()
    mixed = np.random.default_rng(0).random((5, 64)) < 0.5
    several = reader.states(cells.words[5:60], reader.silence(mixed))
    alone = reader.states(cells.words[5:60], reader.silence(mixed[3:4]))
    assert reading._states_after._cache_size() == before, "other words, conditions and their number compile nothing"
    np.testing.assert_allclose(several[3], alone[0], atol=1e-5)
    # "<s>" stands first and is attended to: were it edited too, a later layer would hold something else.
    row = int(world.bank.row[words[0]])
    ids, ordinary = tokens.ids[row][None], ~tokens.special[row][None]
    assert not ordinary[0, 0]
    edit = {"resid": dataclasses.replace(reader.silence(np.zeros((1, 64))), where=ordinary)}
    later = world.model(ids, np.ones(ids.shape, bool), ("resid",), edit).captured["resid"][1, 0]
    inside = np.flatnonzero(world.bank.row[words] == row)
    np.testing.assert_allclose(all_[1, inside], later[reader.first[words[inside]]], atol=1e-5)


def test_layers_below_the_edit_are_read_once_and_nothing_changes(parts, world, monkeypatch) -> None:
    """Conditions that begin at the edit hold what whole passes hold, at every layer."""
    _, _, cells, reader = parts
    edit = reader.silence(np.random.default_rng(0).random((3, 64)) < 0.5)
    begun = reader.states(cells.words[5:60], edit)
    monkeypatch.setattr(reading, "BEGINS", ())
    np.testing.assert_allclose(begun, reader.states(cells.words[5:60], edit), atol=1e-5)


@pytest.mark.promise
def test_losses_are_those_of_the_objective(parts, world) -> None:
    tokens, _, _, reader = parts
    sentences = np.array([4, 0, 77, 130])
    keep = np.ones((2, 64), bool)
    keep[1] = False
    sums, counts = reader.losses(sentences, reader.silence(keep))
    for i, row in enumerate(sentences):
        ids = jnp.asarray(tokens.ids[row])[None]
        edit = reader.silence(keep[1:])
        where = jnp.asarray(~tokens.special[row])[None]
        for e, edits in enumerate((None, {"resid": dataclasses.replace(edit, where=where)})):
            loss, count = row_losses(world.model.params, world.model.config, Objective("causal"), ids,
                                     jnp.ones(ids.shape, bool), jax.random.key(0), edits)
            assert sums[e, i] == pytest.approx(float(loss[0]), rel=1e-5) and counts[e, i] == int(count[0])
    assert np.abs(sums[0] - sums[1]).min() > 1e-3


@pytest.mark.promise
def test_the_probe_is_scikit_learns_balanced_one() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 120, 5)) * [1, 10, 0.1, 3, 1]).astype(np.float32)
    side = np.full((2, 120), -1)
    side[0, :90] = rng.random(90) < 0.2
    side[1, 40:] = rng.random(80) < 0.6
    x[0, :, 2] += 0.1 * (side[0] == 1)
    ours = probes.fit(x, side, 128, 1.0)
    for layer in (0, 1):
        for run in (0, 1):
            inside = side[run] >= 0
            scale = x[layer].std(0)
            peer = LogisticRegression(C=2.0, class_weight="balanced", tol=1e-9, max_iter=5000).fit(
                (x[layer] / scale)[inside], side[run][inside])
            np.testing.assert_allclose(ours[layer, run, :-1], peer.coef_[0] / scale, rtol=0.01, atol=0.01)
            said = probes.logits(x[layer], ours[layer, run])
            np.testing.assert_allclose(said, peer.decision_function(x[layer] / scale), atol=0.02)
    assert np.isnan(probes.fit(x, np.ones((1, 120)), 128, 1.0)).all(), "one side only"
    broken = x.copy()
    broken[1, 3, 3] = np.inf
    again = probes.fit(broken, side, 128, 1.0)
    assert np.isnan(again[1]).all()
    np.testing.assert_allclose(again[0], ours[0], atol=1e-5)


@pytest.mark.promise
def test_erasing_by_an_edit_is_the_kernels_erasing(parts, world) -> None:
    _, _, cells, reader = parts
    states = {g: (reader.states(cells.words[at])[0, 0], has) for g in range(3) for at, has in [cells.of(0, g, TRAIN)]}
    erasers = fit_erasers(states, 1)
    assert erasers[0].rank == 1 and erasers[1].rank == 2
    x, has = states[1]
    weight = np.where(has, 0.5 / has.sum(), 0.5 / (~has).sum())
    clean = x - ((x - erasers[0].mean) @ erasers[0].read) @ erasers[0].write
    assert np.abs(clean[has].mean(0) - clean[~has].mean(0)).max() < 1e-5
    assert weight.sum() == pytest.approx(1)
    at, _ = cells.of(0, 1, TEST)
    words = cells.words[at]
    plain, edited = reader.states(words)[0, 0], reader.states(words, erase_at(0, erasers))[:, 0]
    for one, found in zip(erasers, edited):
        wanted = plain - ((plain - one.mean) @ one.read) @ one.write
        np.testing.assert_allclose(found, wanted, atol=1e-4)  # spans of one token, so the mean is the token
    assert isinstance(erase_at(0, erasers).rows, Eraser)


def test_conditions_take_equally_many_and_shared_ones_are_chosen_elsewhere() -> None:
    rng = np.random.default_rng(0)
    contrast = rng.random((4, 200)) * 0.1
    contrast[:3, 5] = 9  # in three languages
    contrast[3, 9] = 9
    contrast[[0, 3], 11] = 8  # of two languages, one of them the tested one
    tops = np.argsort(-contrast, axis=1)[:, :2]
    activity = np.stack([rng.random(200), rng.random(200)], 1) + 0.01
    sets = choose_sets(contrast, tops, np.ones(4, bool), 3, activity, SETTINGS, 0)
    of = dict(zip(sets.names, sets.latents))
    assert of["shared"].tolist() == [5] and of["one shared"].tolist() == [5] and of["specific"].tolist() == [9]
    assert {len(row) for row in sets.latents} == {0, 1}
    rest = np.concatenate([row for name, row in of.items() if name.startswith(("matched", "random"))])
    assert not np.isin(rest, tops).any()
    assert 11 not in of["shared"], "two languages have it, and one of them is tested"
    assert sets.keep(200).sum(1).tolist() == [200 - len(row) for row in sets.latents]
    nothing = choose_sets(contrast, tops, np.array([True, False, False, True]), 3, activity, SETTINGS, 0)
    assert nothing is None, "one other language cannot share"


CONFIG = TransformerConfig(vocab_size=23, layers=3, width=12, heads=3, mlp_width=20)


@pytest.fixture(scope="module")
def small():
    params = jax.tree.map(lambda x: 5 * x if x.ndim > 1 else x, init_params(CONFIG, jax.random.key(0)))
    coder = init_dictionary(DictionaryConfig("relu", 12, 30), jax.random.key(1))
    # Both estimates tend to exact ablation as latents become small beside the state, whatever the layers do. (With
    # latents of full size these layers are so far from linear that neither correlates by more than 0.52 with it.)
    coder["encoder"]["kernel"] *= 0.05
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(0, 23, (5, 6)), np.arange(6)[None] < np.array([6, 5, 6, 4, 6])[:, None]
    dictionary = Dictionary(coder, DictionaryConfig("relu", 12, 30), "resid", 0)
    return Model(params, CONFIG, name="small"), dictionary, tokens, mask


def measures(tokens, mask):
    rng = np.random.default_rng(1)
    average = np.where(mask, rng.random(mask.shape), 0).astype(np.float32)
    w = rng.standard_normal((5, 12)).astype(np.float32)
    logit = {"average": average, "w": w, "bias": np.ones(5, np.float32), "layer": np.full(5, 2)}
    pair = {"position": mask.sum(1) - 1, "good": np.arange(5), "bad": np.arange(5) + 7}
    return {"logit": (downstream.WordLogit(), logit), "final": (downstream.WordLogit(final=True), logit),
            "loss": (downstream.CrossEntropy(), {"tokens": tokens, "counted": mask}),
            "odds": (downstream.LogOdds(), pair)}


@pytest.mark.promise
@pytest.mark.parametrize("name", [
    "logit", "loss", *(pytest.param(name, marks=pytest.mark.slow) for name in ("final", "odds"))])
def test_downstream_effects_against_exact_ablation(small, name) -> None:
    """Integrated gradients add up to the whole; small changes are the gradient's; exact ones are full passes."""
    model, dictionary, tokens, mask = small
    measure, data = measures(tokens, mask)[name]
    fine = downstream.attribute(model, dictionary, tokens, mask, measure, data, steps=64)
    total = np.asarray(fine.whole - fine.silent)
    np.testing.assert_allclose(np.asarray(fine.effects).sum(1), total, atol=0.01 * np.abs(total).max())
    exact = np.asarray(downstream.exact_effects(model, dictionary, tokens, mask, measure, data, np.arange(30)))
    rough = downstream.attribute(model, dictionary, tokens, mask, measure, data)
    r = [np.corrcoef(exact.T.ravel(), np.asarray(one.effects).ravel())[0, 1] for one in (rough, fine)]
    assert min(r) > 0.95, r

    @jax.jit
    def run(scale):
        edit = {"resid": dictionary.edit(LatentEdit(scale=scale[None, None]))}
        hidden, captured = forward(model.params, CONFIG, tokens, mask, capture=measure.capture(data), edits=edit)
        return measure(model.params, CONFIG, hidden, captured, data)

    value = lambda scale: np.asarray(run(np.asarray(scale, np.float32)), float)

    one = int(np.abs(exact).sum(1).argmax())
    without = np.ones(30)
    without[one] = 0
    np.testing.assert_allclose(exact[one], value(np.ones(30)) - value(without), atol=2e-5)
    step = 0.01
    nudge = np.ones(30)
    up, down = nudge.copy(), nudge.copy()
    up[one], down[one] = 1 + step, 1 - step
    slope = (value(up) - value(down)) / (2 * step)
    np.testing.assert_allclose(np.asarray(rough.effects)[:, one], slope, atol=0.02 * np.abs(exact).max())


def test_downstream_effects_look_only_where_asked(small) -> None:
    model, dictionary, tokens, mask = small
    measure, data = measures(tokens, mask)["logit"]
    where = np.zeros_like(mask)
    found = downstream.attribute(model, dictionary, tokens, mask, measure, data, where, steps=4)
    assert np.abs(np.asarray(found.effects)).max() == 0
    np.testing.assert_allclose(found.whole, found.silent)
    with pytest.raises(InputError, match="steps is -1"):
        downstream.attribute(model, dictionary, tokens, mask, measure, data, steps=-1)
    with pytest.raises(InputError, match="reads 8 units at 'resid'"):
        wrong = DictionaryConfig("relu", 8, 30)
        other = Dictionary(init_dictionary(wrong, jax.random.key(1)), wrong, "resid", 0)
        downstream.attribute(model, other, tokens, mask, measure, data)


@pytest.mark.parametrize(("settings", "said"), [
    ({"ranking": "sum"}, "ranking 'sum'"), ({"minimum": 1}, "minimum is 1"), ({"shares": (1, 1)}, "shares are"),
    ({"ks": ()}, "ks are"), ({"nearly": 0.0}, "nearly is 0.0"), ({"values": ("Plur",)}, "value 'Plur' is not of")])
def test_settings_that_cannot_be(settings, said) -> None:
    with pytest.raises(InputError, match=said):
        FeatureSettings(**settings)
