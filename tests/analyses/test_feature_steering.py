"""Steering by latents, and the experiment over checkpoints: what is set, what is counted, what is kept."""

import dataclasses
import html

import numpy as np
import pytest
import tiny_trace
import xarray as xr

from xlingjax.analyses.features.run import (
    DictionarySettings,
    as_corpus,
    last_checkpoint,
    match_checkpoints,
    trace_features,
)
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.features.steering import (
    UNSTEERED,
    Change,
    Push,
    SteeringSettings,
    changes,
    judged,
    steer_values,
    write,
)
from xlingjax.analyses.features.summary import summary
from xlingjax.analyses.planted.features import plant_features
from xlingjax.analyses.results import write_tree
from xlingjax.corpora.prompts import Prompts
from xlingjax.errors import InputError
from xlingjax.judging.values import ValueJudge
from xlingjax.report.feature_page import spanned, write_feature_report
from xlingjax.sae.settings import TrainSettings

STEER = SteeringSettings(scales=(1.0, 3.0), new_tokens=5, batch_rows=4, bootstraps=200)
VALUES = (("Number", "Plur"), ("Number", "Sing"), ("Tense", "Past"), ("Tense", "Pres"))


class Letters:
    """A judge of languages: a text that begins with an x is of another one."""

    names = ("qaa", "qab")

    def verdicts(self, texts):
        return np.array(["other" if text.startswith("x") else "qaa" for text in texts])


def judge(forms: dict[str, tuple[int, ...]]) -> ValueJudge:
    blank = np.zeros((2, 2))
    return ValueJudge(("qaa", "qab"), ("Number", "Tense"), VALUES, (forms, forms), blank, np.zeros((2, 4, 5), int),
                      blank, np.zeros((2, 4)))


@pytest.fixture(scope="module")
def world():
    return plant_features(seed=1)


def test_a_change_goes_both_ways_between_the_two_values_most_languages_have() -> None:
    used = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    found = changes(["Case=Nom", "Case=Dat", "Case=Acc", "Tense=Past"], used)
    assert [str(one) for one in found] == ["Case: Nom to Acc", "Case: Acc to Nom"]


def test_what_is_judged_is_counted_by_hand() -> None:
    forms = {"dogs": (0,), "dog": (1,), "ran": (2,), "runs": (3,)}
    texts = [["dog ran", "dogs runs", "cat"], ["dogs ran", "dogs dogs ran", "x dogs"]]
    change = Change("Number", "Sing", "Plur")
    found = judged(texts, "qaa", np.array(["a", "b", "c"]), judge(forms), Letters(), change, STEER)
    np.testing.assert_allclose(found["wanted"], [0.5, 1])
    np.testing.assert_allclose(found["d_wanted"], [0, 0.5])
    np.testing.assert_array_equal(found["words"], [2, 4])
    np.testing.assert_allclose(found["same_language"], [1, 2 / 3])
    np.testing.assert_allclose(found["unwanted"], [0, 0.5])  # past goes from one of two to two of two
    assert found["unwanted_value"][1] in ("Tense=Past", "Tense=Pres")
    assert found["d_wanted_low"][0] == found["d_wanted_high"][0] == 0
    assert found["d_wanted_low"][1] <= 0.5 <= found["d_wanted_high"][1]


@pytest.mark.promise
def test_texts_are_those_of_the_same_edit_made_by_hand(world) -> None:
    """Latents of a relu dictionary set by value: the same as moving the stream by hand at the same positions."""
    none = Push(np.empty(0, int), np.empty(0), np.empty(0, int))
    some = Push(np.array([2]), np.array([50.0]), np.array([0]))
    prompts = list(world.bank.texts[:3])
    texts, nats = write(world.model, world.dictionary, prompts, [none, some], STEER)
    for row, prompt in enumerate(prompts):
        plain = world.model.generate([prompt], max_new_tokens=STEER.new_tokens)
        assert texts[0][row] == plain.texts[0], "an edit that changes nothing changes nothing"
        tokens = np.concatenate([world.model.encode([prompt])[0], plain.tokens], 1)
        logits = np.asarray(world.model(tokens).logits(), np.float64)[0, -1 - plain.tokens.shape[1]:-1]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert nats[0, row] == pytest.approx(-log_p[np.arange(len(log_p)), plain.tokens[0]].mean(), abs=1e-3)
    assert texts[0] != texts[1]
    alone, _ = write(world.model, world.dictionary, prompts[1:2], [some], STEER)
    assert alone[0][0] == texts[1][1], "a row's text does not depend on the others"


def test_prompts_of_any_length_in_small_batches(world) -> None:
    """The longest prompt is in the first batch only, and texts are those of one large batch."""
    some = Push(np.array([2]), np.array([50.0]), np.array([0]))
    prompts = [" ".join(text.split()[:count]) for text, count in zip(world.bank.texts, (4, 1, 2, 1, 3))]
    small, _ = write(world.model, world.dictionary, prompts, [some], dataclasses.replace(STEER, batch_rows=2))
    large, _ = write(world.model, world.dictionary, prompts, [some], STEER)
    assert small == large


def inputs(world):
    """Tops, effects and activity as the analysis would find them for the planted carriers."""
    carriers = world.carriers  # of Plur and Past
    width = world.dictionary.config.latents
    languages = list(dict.fromkeys(world.bank.languages.tolist()))
    values = ["Number=Plur", "Number=Sing"]
    spare = np.setdiff1d(np.arange(width), carriers)[:1]
    tops = np.stack([carriers[0], np.repeat(spare, len(languages))])[..., None]
    contrast = np.zeros((2, len(languages), width))
    for v in range(2):
        contrast[v, np.arange(len(languages)), tops[v, :, 0]] = 1
    latents = xr.Dataset({"top": (("value", "language", "rank"), tops)},
                         coords={"value": values, "language": languages})
    return latents, contrast, np.full(width, 2.0), np.full((len(languages), width, 2), 0.1), languages


def test_steering_uses_latents_of_other_languages_beside_its_controls(world) -> None:
    latents, contrast, highest, activity, languages = inputs(world)
    rows = np.flatnonzero(np.isin(world.bank.languages, languages[:1] + languages[3:]))[:6]
    prompts = Prompts(tuple(world.bank.texts[row] for row in rows), ("",) * len(rows), rows,
                      np.zeros((len(rows), 0), int), world.bank.languages[rows], world.bank.documents[rows])
    word = world.bank.texts[0].split()[0]
    known = dataclasses.replace(judge({word: (0,)}), languages=tuple(languages), forms=({word: (0,)},) * len(languages))
    done: list[int] = []
    found = steer_values(world.model, world.dictionary, prompts, known, Letters(), latents, contrast, highest, activity,
                         STEER, done.append)
    steering = found["steering"]
    assert steering["condition"].values.tolist() == [UNSTEERED, "shared x1", "shared x3", "matched x1", "matched x3"]
    assert (steering["latent"].sel(language=languages[0]) == [latents["top"][1, 0, 0], latents["top"][0, 0, 0]]).all()
    assert np.isfinite(steering["nats"].sel(language=languages[0])).all()
    missing = [name for name in languages if name not in prompts.languages]
    assert np.isnan(steering["nats"].sel(language=missing)).all()
    assert sum(done) == 2 * 5 * len(rows) and set(found["samples"]["condition"].values) <= {UNSTEERED, "shared x3"}
    with pytest.raises(InputError, match="no feature has two values that the judge knows"):
        steer_values(world.model, world.dictionary, prompts, known, Letters(), latents.isel(value=[0]), contrast[:1],
                     highest, activity, STEER)


@pytest.mark.parametrize(("settings", "said"), [
    ({"scales": ()}, "scales are"), ({"scales": (-1,)}, "scales are"), ({"latents": 0}, "latents is 0"),
    ({"new_tokens": 0}, "new_tokens is 0")])  # fmt: skip
def test_settings_that_cannot_be(settings, said) -> None:
    with pytest.raises(InputError, match=said):
        SteeringSettings(**settings)


def test_a_dictionary_for_another_model_is_named(world) -> None:
    with pytest.raises(InputError, match="site 'nowhere' is not in"):
        DictionarySettings(site="nowhere").place(world.model)
    with pytest.raises(InputError, match="layer 9 of 'resid' is not in"):
        DictionarySettings(layer=9).place(world.model)
    assert DictionarySettings().place(world.model) == ("resid", 1)
    assert DictionarySettings(kind="matryoshka", latents=64, k=4).spec(world.model).config.groups == (8, 16, 32, 64)
    assert DictionarySettings(kind="gated").spec(world.model).sparsity > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    worlds = [plant_features(seed=1, strength=strength) for strength in (0.0, 3.0)]
    sources = tiny_trace.checkpoints(folder / "model", {"step0": worlds[0].model, "step8": worlds[1].model})
    settings = FeatureSettings(
        values=("Number=Plur", "Number=Sing"), minimum=20, tested=20, k=4, ks=(2, 4), ablated=4, matched=4, random=1,
        null_draws=20, attributed=4, steps=2, exact=2, losses=8, bootstraps=40, batch_tokens=1024)
    trained = DictionarySettings(latents=96, k=8, layer=0, batch_tokens=256, train=TrainSettings(
        steps=40, warm_up=4, decay=8, sparsity_warm_up=0))
    arguments = (sources, as_corpus(worlds[1].bank), worlds[1].bank, trained, settings, folder / "work")
    said: list[str] = []
    return arguments, trace_features(*arguments, say=said.append), said


@pytest.mark.slow
class TestOverCheckpoints:
    def test_every_checkpoint_has_its_dictionary_and_the_last_its_details(self, run) -> None:
        arguments, tree, said = run
        assert tree["universality"]["checkpoint"].values.tolist() == ["step0", "step8"]
        assert "checkpoint" not in tree["latents"].dims and "downstream" in tree.children
        assert tree["dictionary"].sizes["checkpoint"] == 2 and tree["matched"].sizes["pair"] == 1
        assert float(tree["matched"]["cosine"][0]) > float(tree["matched"]["cosine_null"][0]) - 0.2
        assert [line for line in said if line.startswith("2/2 step8")]
        again = match_checkpoints(arguments[0], arguments[-1])
        xr.testing.assert_identical(again, tree["matched"].to_dataset(inherit=False))

    def test_the_same_again_reads_what_is_there(self, run, tmp_path, monkeypatch) -> None:
        from xlingjax.analyses import checkpoints as module

        arguments, tree, _ = run
        monkeypatch.setattr(module, "load_source", lambda *a, **k: pytest.fail("a finished checkpoint was loaded"))
        write_tree(tmp_path / "one.nc", tree)
        write_tree(tmp_path / "two.nc", trace_features(*arguments))
        assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()
        other = dataclasses.replace(arguments[3], latents=64)
        with pytest.raises(InputError, match="dictionary.latents was 96 and is 64"):
            trace_features(*arguments[:3], other, *arguments[4:])

    def test_the_page_stands_alone(self, run, tmp_path) -> None:
        tree = run[1]
        said = summary(last_checkpoint(tree))
        page = write_feature_report(tree, tmp_path, said).read_text(encoding="utf-8")
        assert "http" not in page.replace("http-equiv", "") and html.escape(said[0]) in page
        for title in ("How many languages share a latent", "Latents and languages", "The dictionary", "Over training"):
            assert title in page
        assert (tmp_path / "features_breadth.png").exists()


def test_markup_in_a_sentence_is_shown() -> None:
    assert spanned("a <b>", 0, 1) == "<mark>a</mark> &lt;b&gt;"

