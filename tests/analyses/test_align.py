"""Alignment of a model: planted translations are found, shuffled ones are not, and the page says so."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny_trace
import xarray as xr
from sklearn.decomposition import PCA

from xlingjax.analyses.alignment import (
    PAIRED,
    AlignSettings,
    align,
    alignment_at,
    chosen_rows,
    geometry,
    sentence_states,
)  # fmt: skip
from xlingjax.analyses.checkpoints import join_checkpoints
from xlingjax.analyses.logit_lens import logit_lens, read_layers
from xlingjax.analyses.results import write_tree
from xlingjax.corpora import mini_world, parallel_rows, read_parallel
from xlingjax.errors import InputError
from xlingjax.report.align_figures import agreement, clustered
from xlingjax.report.align_page import agreement_table, align_summary, write_align_report

SETTINGS = AlignSettings(sentences=60, shuffles=3, batch_tokens=2048, unseen=("rus",))


def corpus(sentences: int = 80):
    return mini_world(sentences=sentences, languages=tiny_trace.LANGUAGES)


class TestParallel:
    def test_columns_are_translations(self):
        found = corpus()
        rows = parallel_rows(found)
        assert rows.shape == (3, 80) and (np.diff(rows[0]) > 0).all()
        assert (found.parallel[rows] == found.parallel[rows[0]]).all()
        part = found.rows(np.delete(np.arange(len(found)), rows[1, 5]))
        assert parallel_rows(part).shape == (3, 79)

    def test_too_few_are_named(self):
        found = corpus()
        blank = found.parallel.copy()
        blank[found.languages == "spa"] = ""
        with pytest.raises(InputError, match="0 sentences in all languages.*spa 0"):
            parallel_rows(dataclasses.replace(found, parallel=blank))
        with pytest.raises(InputError, match="alignment needs two"):
            parallel_rows(found.language("eng"))
        with pytest.raises(InputError, match="40 sentences in all languages, and 50 are needed"):
            chosen_rows(corpus(40), SETTINGS)

    def test_a_table_of_ids(self, tmp_path):
        path = tmp_path / "pairs.tsv"
        path.write_text("id\tlang\ttext\n1\teng\tdog\n1\tspa\tperro\n2\teng\tcat\n", encoding="utf-8")
        found = read_parallel(path)
        assert found.texts == ("dog", "cat", "perro") and found.parallel.tolist() == ["1", "2", "1"]
        assert parallel_rows(found, least=1).tolist() == [[0], [2]]
        with pytest.raises(InputError, match="language 'deu' is not in"):
            read_parallel(path, ["deu"])
        path.write_text("lang\ttext\neng\tdog\n", encoding="utf-8")
        with pytest.raises(InputError, match="no column 'id'"):
            read_parallel(path)

    def test_whole_documents_are_drawn(self):
        found = corpus(160)
        rows = chosen_rows(found, SETTINGS)
        assert rows.shape == (3, 60)
        _, counts = np.unique(found.documents[rows[0]], return_counts=True)
        assert (counts == 4).all()
        np.testing.assert_array_equal(rows, chosen_rows(found, SETTINGS))


def test_states_are_the_models_own() -> None:
    """Mean weighted by position of a full forward pass, sentence by sentence."""
    model, found = tiny_trace.model(), corpus()
    rows = chosen_rows(found, SETTINGS)
    states = sentence_states(model, found, rows, SETTINGS)
    assert states.shape == (1 + model.config.layers, 3, 60, model.config.width)
    for g, i in ((0, 0), (2, 41)):
        tokens, mask = model.encode([found.texts[rows[g, i]]])
        real = mask[0] & ~np.isin(tokens[0], model.tokenizer.all_special_ids)
        out = model(tokens, mask, capture=("embed", "resid"))
        every = np.concatenate([np.asarray(out.captured[site]) for site in ("embed", "resid")])[:, 0, real]
        wanted = np.average(every, axis=1, weights=np.arange(1, real.sum() + 1))
        np.testing.assert_allclose(states[:, g, i], wanted, atol=1e-5)


def test_planted_translations_are_found() -> None:
    """Two languages whose sentences are alike from layer 1 on, and a third that has nothing to do with them."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((3, 3, 60, 16)).astype(np.float32)
    states[1:, 1] = states[1:, 0] + 0.3 * rng.standard_normal((2, 60, 16))
    found = alignment_at(states, corpus(), chosen_rows(corpus(), SETTINGS), SETTINGS)
    pair = lambda name, layer, other: float(found[name].sel(layer=layer, language="eng", language_b=other))
    for name in PAIRED:
        null = found[f"{name}_shuffled"].sel(layer=1, language="eng", language_b="spa")
        assert pair(name, 1, "spa") > float(null.max()), name
        assert pair(name, 1, "spa") > pair(name, 1, "rus") + 0.05, name
    assert pair("mexa", 0, "spa") < 0.15 and pair("mexa", 1, "spa") > 0.9
    broken = states.copy()
    broken[2, 0, 0, 0] = np.nan
    found = alignment_at(broken, corpus(), chosen_rows(corpus(), SETTINGS), SETTINGS)
    assert np.isnan(found["mexa"].sel(layer=2)).all() and pair("mexa", 1, "spa") > 0.9


def test_points_lie_where_principal_components_put_them() -> None:
    """Against scikit-learn, up to the sign of an axis; topics colour the points, features cannot."""
    found, rows = corpus(), chosen_rows(corpus(), SETTINGS)
    states = np.random.default_rng(0).standard_normal((2, 3, 60, 8)).astype(np.float32)
    topics = [name for name, group in zip(found.concepts, found.groups) if group == "topic"]
    made = geometry(states, found.with_concepts(topics), rows)
    peer = PCA(2).fit(states[1].reshape(-1, 8))
    wanted = peer.transform(states[1].reshape(-1, 8))
    np.testing.assert_allclose(np.abs(made["place"].sel(layer=1)), np.abs(wanted), atol=1e-4)
    np.testing.assert_allclose(made["explained"].sel(layer=1), peer.explained_variance_ratio_, rtol=1e-4)
    assert set(made["concept"].values) <= set(found.concepts) and made["language"].values[0] == "eng"
    assert (geometry(states, found.with_concepts(["Number=Plur", "Tense=Past"]), rows)["concept"] == "").all()


class TestLens:
    def test_masses_and_surprisal_are_those_of_a_full_pass(self):
        model, found = tiny_trace.model(), corpus()
        tokens, mask = model.encode(list(found.texts[:2]))
        out = model(tokens, mask, capture=("resid",))
        last = np.asarray(out.captured["resid"])[-1:, 0, :4]
        weights = np.random.default_rng(0).random((model.config.vocab_size, 3)).astype(np.float32)
        mass, surprisal = read_layers(model.params, model.config, last, tokens[0, 1:5], weights)
        log_p = scipy.special.log_softmax(np.asarray(out.logits(), float)[0, :4], axis=-1)
        np.testing.assert_allclose(mass[0], np.exp(log_p) @ weights, rtol=1e-3)
        np.testing.assert_allclose(surprisal[0], -np.take_along_axis(log_p, tokens[0, 1:5, None], 1)[:, 0], rtol=1e-3)

    def test_a_model_that_only_knows_russian_pieces_speaks_russian(self):
        sound, found = tiny_trace.model(), corpus(160)
        rows = tiny_trace.russian_pieces(sound, found)
        params = jax.tree.map(np.array, sound.params)
        towards = np.ones(sound.config.width, np.float32) * np.resize([1, -1], sound.config.width)
        params["embed"]["tokens"]["embedding"] = np.where(rows, 3.0, -3.0)[:, None] * towards
        params["norm"]["scale"][:] = 0
        params["norm"]["bias"][:] = towards  # every hidden state is this one
        planted = dataclasses.replace(sound, params=jax.tree.map(jax.numpy.asarray, params))
        lens = logit_lens(planted, found, count=40, batch_tokens=2048)
        assert float(lens["mass"].sel(language_b="rus").min()) > 0.9
        total = lens["mass"].sum("language_b") + lens["unknown"]
        np.testing.assert_allclose(total, 1, atol=1e-4)
        truth = lens["truth"]
        assert float(truth.sel(language="rus", language_b="rus")) > 0.9
        assert 0.5 < float(truth.sel(language="eng", language_b="eng")) < 1, "English shares pieces with Spanish"

    def test_an_encoder_has_no_next_token(self):
        encoder = dataclasses.replace(tiny_trace.model(), config=dataclasses.replace(
            tiny_trace.model().config, causal=False))
        with pytest.raises(InputError, match="is no decoder with a head"):
            logit_lens(encoder, corpus())


def test_agreement_is_spearmans(run) -> None:
    found = run[2]["alignment"].to_dataset(inherit=False)
    values, names = agreement(found)
    first, second = np.triu_indices(3, 1)
    over = lambda name, layer: (found[name] - found[f"{name}_shuffled"].mean("shuffle")).isel(
        checkpoint=-1, layer=layer).transpose("language", "language_b").values
    both = lambda name, layer: ((over(name, layer) + over(name, layer).T) / 2)[first, second]
    wanted = [scipy.stats.spearmanr(both("cka", layer), both("anc", layer))[0] for layer in range(3)]
    assert values[names.index("CKA"), names.index("ANC")] == pytest.approx(np.mean(wanted), abs=1e-6)
    shared = xr.DataArray(np.ones((3, 3)), dims=("language", "language_b"), coords={
        "language": list(tiny_trace.LANGUAGES), "language_b": list(tiny_trace.LANGUAGES)})
    more, names = agreement(found, shared)
    assert names[-1] == "expert overlap" and np.isnan(more[-1, 0]), "what never varies agrees with nothing"


def test_the_share_that_a_shuffle_leaves_in_place_is_told(run) -> None:
    """A document of n sentences in random order keeps one of them on average, whatever n."""
    found, documents = run[2]["alignment"], corpus().documents[chosen_rows(corpus(), SETTINGS)[0]]
    assert found.attrs["kept"] == pytest.approx(len(np.unique(documents)) / len(documents), abs=0.15)


def test_overlap_joins_over_the_languages_it_has(run) -> None:
    found = run[2]["alignment"].to_dataset(inherit=False)
    cka = (found["cka"] - found["cka_shuffled"].mean("shuffle")).isel(checkpoint=-1, layer=1).transpose(
        "language", "language_b")
    one_layer = found.isel(layer=[1])
    wider = cka.reindex(language=[*cka["language"].values, "xyz"], language_b=[*cka["language"].values, "xyz"])
    values, names = agreement(one_layer, wider + wider.transpose("language_b", "language").values)
    assert values[names.index("CKA"), -1] == pytest.approx(1)
    plain, _ = agreement(one_layer)
    np.testing.assert_array_equal(values[:-1, :-1], plain)


def test_the_table_of_agreement_names_the_most_and_the_least_alike(run) -> None:
    found = run[2]["alignment"].to_dataset(inherit=False)
    values, names = agreement(found)
    rows = {row[0]: row for row in agreement_table(found).rows}
    cka = values[names.index("CKA")].copy()
    cka[names.index("CKA")] = np.nan
    assert rows["CKA"][2] == pytest.approx(np.nanmax(cka)) and rows["CKA"][4] == pytest.approx(np.nanmin(cka))
    assert rows["CKA"][1] == names[int(np.nanargmax(cka))] and rows["CKA"][5] == pytest.approx(np.nanmedian(cka))


def test_similar_languages_are_neighbours() -> None:
    near = np.array([[1, 0.1, 0.9, 0.1], [0.1, 1, 0.1, 0.8], [0.9, 0.1, 1, 0.1], [0.1, 0.8, 0.1, 1]])
    order = clustered(near).tolist()
    assert abs(order.index(0) - order.index(2)) == 1 and abs(order.index(1) - order.index(3)) == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("align")
    sources = tiny_trace.checkpoints(folder / "model", {"step0": tiny_trace.model(), "step8": tiny_trace.model(1)})
    said: list[str] = []
    return folder, sources, align(sources, corpus(), SETTINGS, folder / "align", say=said.append), said


def test_the_same_again_reads_what_is_there(run, monkeypatch, tmp_path) -> None:
    folder, sources, tree, said = run
    from xlingjax.analyses import checkpoints as module

    assert len(said) == 2 and "mexa" in said[0]
    monkeypatch.setattr(module, "load_source", lambda *a, **k: pytest.fail("a finished checkpoint was loaded"))
    write_tree(tmp_path / "one.nc", tree)
    write_tree(tmp_path / "two.nc", align(sources, corpus(), SETTINGS, folder / "align"))
    assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()
    with pytest.raises(InputError, match=r"settings\.pool was 'position' and is 'last'"):
        align(sources, corpus(), dataclasses.replace(SETTINGS, pool="last"), folder / "align")


def test_models_of_other_depths_do_not_join() -> None:
    made = [{"alignment": xr.Dataset({"cka": ("layer", np.zeros(depth))})} for depth in (3, 5)]
    with pytest.raises(InputError, match="3 and 5 layers"):
        join_checkpoints(made, ())


def test_the_page_stands_alone(run, tmp_path) -> None:
    page = write_align_report(run[2], tmp_path).read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "") and "Do the measures agree?" in page
    assert (tmp_path / "align_agreement.png").exists() and (tmp_path / "align_training.png").exists()
    text = " ".join(align_summary(run[2]))
    assert "training did not see" in text and "One pre-training run" in text


@pytest.mark.parametrize(("settings", "said"), [
    ({"pool": "max"}, "pool 'max' is unknown"), ({"sentences": 10}, "sentences is 10"),
    ({"shuffles": 1}, "shuffles is 1"),
    ({"unseen": ("deu",)}, "'deu'")])  # fmt: skip
def test_settings_that_cannot_be(settings, said) -> None:
    with pytest.raises(InputError, match=said):
        chosen_rows(corpus(), dataclasses.replace(SETTINGS, **settings))
