"""Forcing neurons: the right ones, beside controls that differ in one thing, judged as they come."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.special
import tiny_trace
import xarray as xr
from statsmodels.stats.contingency_tables import mcnemar

from xlingjax.analyses.results import write_tree
from xlingjax.analyses.steering import SteerSettings, effects, steer
from xlingjax.analyses.steering.claims import claims
from xlingjax.analyses.steering.conditions import (
    CONTROLS,
    EXPERTS,
    RANDOM,
    UNFORCED,
    Condition,
    choose,
    edits_of,
    scaled,
)  # fmt: skip
from xlingjax.analyses.steering.run import Judges, require_fit
from xlingjax.analyses.steering.summary import summarise
from xlingjax.corpora import Corpus, mini_world
from xlingjax.errors import InputError
from xlingjax.kernels.resampling import random_like
from xlingjax.models.generating import positions
from xlingjax.neurons import Neuron, NeuronIndex
from xlingjax.report.steer_page import highlighted, steer_summary, write_steer_report

SETTINGS = SteerSettings(
    "Number=Plur", "spa", k=6, ks=(2, 6), seeds=6, max_new_tokens=8, temperature=1.0, batch_rows=16, batch_tokens=2048,
    draws=200)  # fmt: skip
INDEX = NeuronIndex({"mlp.up": (2, 30), "mlp.down": (2, 10)})


def silent(count: int) -> None:
    """No progress bar."""


def corpus(sentences: int = 160) -> Corpus:
    world = mini_world(sentences=sentences, languages=tiny_trace.LANGUAGES)
    return world.with_concepts(["Number=Plur", "Tense=Past"])


def planted(seed: int = 0) -> tuple[np.ndarray, Corpus]:
    """Responses in which neurons 0-3 detect the concept in all languages, 4 and 5 in Spanish, 6 and 7 in English."""
    rng, found = np.random.default_rng(seed), corpus(80)
    responses = rng.standard_normal((len(found), INDEX.total)).astype(np.float32)
    shown = found.labels[:, 0] == 1
    for neuron, languages in [*((i, ("eng", "spa", "rus")) for i in range(4)), (4, ("spa",)), (5, ("spa",)),
                              (6, ("eng",)), (7, ("eng",))]:  # fmt: skip
        responses[shown & np.isin(found.languages, languages), neuron] += 9
    responses[found.labels[:, 1] == 1, 10:16] += 9
    responses[:, 20] = 1.5  # constant
    return responses, found


class TestConditions:
    def test_planted_experts_and_what_languages_share(self):
        responses, found = planted()
        chosen = choose(responses, INDEX, found, dataclasses.replace(SETTINGS, other_language="eng"))
        of = {name: set(one.neurons.tolist()) for name, one in chosen.conditions.items()}
        assert of[EXPERTS] == {0, 1, 2, 3, 4, 5} and of[UNFORCED] == set()
        assert of["experts shared with eng"] == {0, 1, 2, 3}
        assert of["experts of spa only"] == {4, 5} and of["experts of eng only"] == {6, 7}
        assert of["experts of Tense=Past"] == set(range(10, 16))
        assert of["2 experts"] < of[EXPERTS] and chosen.doses == {
            2: ("2 experts", "2 random neurons"), 6: (EXPERTS, RANDOM)}
        assert chosen.matched == {RANDOM: EXPERTS, "2 random neurons": "2 experts"}
        assert not of[RANDOM] & of[EXPERTS] and not of["2 random neurons"] & of["2 experts"]
        for stratum in range(4):
            count = lambda name, stratum=stratum: (INDEX.strata[list(of[name])] == stratum).sum()
            assert count(RANDOM) == count(EXPERTS)
        assert (chosen.ap > 0.99).all()

    @pytest.mark.parametrize(("value", "wanted"), [
        ("median", lambda x, _: np.median(x, 0)), ("mean", lambda x, _: x.mean(0)),
        ("p90", lambda x, _: np.quantile(x, 0.9, 0)), ("zero", lambda x, _: np.zeros(x.shape[1])),
        ("scale", lambda x, _: np.full(x.shape[1], 3.0)), ("add", lambda _, every: 3 * every.std(0))])  # fmt: skip
    def test_values(self, value, wanted):
        responses, found = planted()
        chosen = choose(responses, INDEX, found, dataclasses.replace(SETTINGS, value=value, amount=3.0))
        one = chosen.conditions[EXPERTS]
        spanish = found.languages == "spa"
        shown = responses[spanish & (found.labels[:, 0] == 1)][:, one.neurons]
        np.testing.assert_allclose(one.value, wanted(shown, responses[spanish][:, one.neurons]), rtol=1e-5)

    def test_edits_reach_each_rows_neurons_and_no_others(self):
        rows = [Condition(np.array([0, 35, 61]), np.array([1.0, 2, 3], np.float32)),
                Condition(np.empty(0, int), np.empty(0, np.float32))]  # fmt: skip
        made = edits_of(INDEX, rows, "median", positions("every", 1, 2))
        up, down = made["mlp.up"], made["mlp.down"]
        assert up.mask.shape == (2, 2, 1, 30) and up.mask.sum() == 2 and down.mask.sum() == 1
        assert up.value[0, 0, 0, 0] == 1 and up.value[1, 0, 0, 5] == 2 and down.value[0, 0, 0, 1] == 3
        assert {site: set(vars(edit)) for site, edit in made.items()}.keys() == INDEX.shapes.keys()
        assert edits_of(INDEX, rows, "scale", positions("every", 1, 2))["mlp.up"].scale[0, 1].min() == 1

    def test_random_neurons_where_few_are_left(self):
        strata = np.array([0, 0, 0, 1])
        assert random_like(np.array([0, 3]), strata, np.array([0, 1, 3]), 0).tolist() == [2]

    def test_displacements_are_scaled_from_where_neurons_are(self):
        one = Condition(np.array([1, 2]), np.array([5.0, -1], np.float32))
        np.testing.assert_allclose(scaled(one, np.array([1.0, 1]), 0.5, "median").value, [3, 0])
        np.testing.assert_allclose(scaled(one, np.array([1.0, 1]), 0.5, "scale").value, [3, 0])
        np.testing.assert_allclose(scaled(one, np.array([1.0, 1]), 2, "add").value, [10, -2])

    @pytest.mark.parametrize(("settings", "said"), [
        ({"source_language": "fra"}, "language 'fra'"), ({"concept": "Mood=Ind"}, "concept 'Mood=Ind'"),
        ({"other_language": "xxx"}, "language 'xxx'")])  # fmt: skip
    def test_what_cannot_be_chosen_is_named(self, settings, said):
        responses, found = planted()
        with pytest.raises(InputError, match=said):
            choose(responses, INDEX, found, dataclasses.replace(SETTINGS, **settings))

    def test_an_empty_expert_set_and_a_concept_without_positives(self):
        responses, found = planted()
        with pytest.raises(InputError, match="the expert set is empty"):
            choose(np.ones_like(responses), INDEX, found, SETTINGS)
        labels = found.labels.copy()
        labels[found.languages == "spa", 0] = 0
        with pytest.raises(InputError, match="no positive sentence in spa"):
            choose(responses, INDEX, dataclasses.replace(found, labels=labels), SETTINGS)

    @pytest.mark.parametrize(("settings", "said"), [
        ({"switch": "all"}, "switch 'all'"), ({"top_p": 0.0}, "top_p 0"), ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": 0.0}, "6 seeds change nothing"),
        ({"value": "mode"}, "value 'mode' is unknown"), ({"positions": "all"}, "positions 'all'"),
        ({"seeds": 1}, "seeds is 1"), ({"ks": ()}, "ks are"), ({"other_language": "spa"}, "is the source"),
        ({"other_concept": "Number=Plur"}, "itself")])  # fmt: skip
    def test_settings_that_cannot_be(self, settings, said):
        with pytest.raises(InputError, match=said):
            dataclasses.replace(SETTINGS, **settings)


@pytest.fixture(scope="module")
def russian():
    """A model in which one neuron, once it is high, makes Russian letters likely, and a corpus."""
    model, found = tiny_trace.model(), corpus()
    rows = tiny_trace.russian_pieces(model, found)
    params = jax.tree.map(np.array, model.params)
    rng = np.random.default_rng(0)
    towards = rng.standard_normal(model.config.width)
    towards -= towards.mean()
    embedding = np.where(rows, 1.0, -0.2)[:, None] * towards + 0.5 * rng.standard_normal((len(rows), len(towards)))
    params["embed"]["tokens"]["embedding"] = embedding.astype(np.float32)
    params["layers"]["mlp"]["down"]["kernel"][-1, 3] = towards
    return dataclasses.replace(model, params=jax.tree.map(jax.numpy.asarray, params), fingerprint="planted"), found


def condition(model, value: float) -> Condition:
    neuron = Neuron("mlp.up", model.config.layers - 1, 3)
    return Condition(np.array([model.neurons().flat(neuron)]), np.array([value], np.float32))


NOTHING = Condition(np.empty(0, int), np.empty(0, np.float32))


@pytest.mark.slow
@pytest.mark.promise
def test_a_planted_neuron_answers_in_its_language_and_others_do_not(russian) -> None:
    model, found = russian
    settings = dataclasses.replace(SETTINGS, seeds=20, max_new_tokens=16)
    judges = Judges(found, "ngrams", [SETTINGS.concept], 0)
    other = Condition(condition(model, 0).neurons + 1, np.array([50.0], np.float32))
    conditions = {UNFORCED: NOTHING, EXPERTS: condition(model, 50.0), RANDOM: other}
    written = effects.write(model, conditions, settings, silent)
    plain = model.generate(seeds=[effects.row_seed(0, 0, i) for i in range(20)], max_new_tokens=16, temperature=1.0)
    assert written[UNFORCED].texts == plain.texts, "an edit that reaches no neuron changes nothing"
    cyrillic = lambda name: np.mean([any("а" <= letter <= "я" for letter in text) for text in written[name].texts])
    assert cyrillic(EXPERTS) > 0.9 and cyrillic(EXPERTS) - cyrillic(UNFORCED) > 0.3
    assert cyrillic(RANDOM) - cyrillic(UNFORCED) < 0.3, "its neighbour, forced as far, does not"
    judged = {name: effects.judge(model, one, judges.languages, judges.concepts, settings)
              for name, one in written.items()}  # fmt: skip
    summary = summarise(judged, judges.languages.names, judges.confusion, judges.concepts, SETTINGS.concept, 200, 0)
    said = {name: judged[name].verdict == 2 for name in (EXPERTS, UNFORCED)}
    b, c = (said[EXPERTS] & ~said[UNFORCED]).sum(), (~said[EXPERTS] & said[UNFORCED]).sum()
    peer = mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0
    assert float(summary["p_share"].sel(condition=UNFORCED, verdict="rus")) == pytest.approx(peer)
    np.testing.assert_allclose(summary["share"].sum("verdict"), 1)
    assert (summary["d_share"].sel(condition=UNFORCED) == 0).all()
    assert float(summary["d_nats"].sel(condition=EXPERTS)) > float(summary["d_nats"].sel(condition=RANDOM))


def test_what_a_model_cannot_meet_is_said_before_anything_is_made() -> None:
    sound = tiny_trace.model()
    prompts = dataclasses.replace(SETTINGS, prompts=("the dog sees the cat",))
    short = dataclasses.replace(sound, config=dataclasses.replace(sound.config, max_length=10))
    for model, settings, said in (
            (sound, dataclasses.replace(SETTINGS, k=10_000), "k is 10000, but"),
            (short, prompts, "exceed the 10 positions"),
            (sound, dataclasses.replace(SETTINGS, ks=(5, 20_000)), "k is 20000, but"),
            (sound, dataclasses.replace(SETTINGS, sites=("mlp.upp",)), "'mlp.upp'")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            require_fit(model, settings)
    require_fit(sound, prompts)


def test_texts_as_perplexed(russian) -> None:
    """The temperature that makes the unforced model write texts of a given loss, found by bisection."""
    model, _ = russian
    settings = dataclasses.replace(SETTINGS, seeds=16, max_new_tokens=16)
    plain = effects.write(model, {"": NOTHING}, settings, silent)[""]
    loss = lambda texts: float(effects.nats_per_token(model, texts, settings).mean())
    for change in (-0.5, 0.3):
        wanted = loss(plain) + change
        warm = effects.equal_temperature(model, NOTHING, wanted, settings, silent)
        again = effects.write(model, {"": NOTHING}, dataclasses.replace(settings, temperature=warm), silent)[""]
        assert abs(loss(again) - wanted) < 0.15 and (warm > 1) == (change > 0)


class TestClaims:
    def effects(self, over: dict[str, list[float]], p: dict[str, list[float]]) -> xr.Dataset:
        """Two checkpoints, two languages; values by condition, the same at both checkpoints."""
        names = list(over)
        of = lambda table: (("checkpoint", "condition", "verdict"),
                            np.stack([[[*table[name], 0.0] for name in names]] * 2))
        return xr.Dataset({"over_share": of(over), "p_share": of(p)}, coords={
            "checkpoint": ["1", "2"], "condition": names, "verdict": ["eng", "spa", "undetermined"],
            "language": ["eng", "spa"]})

    def test_only_what_exceeds_every_control_is_claimed(self):
        over = {name: [-0.1, 0.3] for name in CONTROLS}
        p = {name: [0.5, 0.004] for name in CONTROLS}
        found = claims(self.effects(over, p))
        assert found["claimed"].values.tolist() == [[False, True]] * 2
        np.testing.assert_allclose(found["p"].sel(language="spa"), 0.004 * 4, rtol=1e-6)
        for control in CONTROLS:
            weak = claims(self.effects(over, {**p, control: [0.5, 0.2]}))
            assert not weak["claimed"].any() and (weak["nearest"].sel(language="spa") == control).all()
            opposed = claims(self.effects({**over, control: [-0.1, -0.3]}, p))
            assert not opposed["claimed"].sel(language="spa").any()

    def test_the_more_is_tested_the_less_is_claimed(self):
        p = {name: [0.5, 0.02] for name in CONTROLS}
        assert not claims(self.effects({name: [-0.1, 0.3] for name in CONTROLS}, p))["claimed"].any()

    def test_a_checkpoint_without_experts_claims_nothing(self):
        blank = {name: [np.nan, np.nan] for name in CONTROLS}
        found = claims(self.effects(blank, blank))
        assert not found["claimed"].any() and (found["nearest"] == "").all() and found["p"].isnull().all()


def test_fluency_is_that_of_the_unforced_model(russian) -> None:
    """Cross-entropy of the new tokens, against the logits of one full pass."""
    model, _ = russian
    settings = dataclasses.replace(SETTINGS, prompts=("the dog sees",))  # whose own tokens do not count
    written = effects.write(model, {"one": condition(model, 50.0)}, settings, silent)["one"]
    start = np.repeat(effects.read_prompts(model, settings).tokens, len(written.tokens), 0)
    logits = np.asarray(model(np.concatenate([start, written.tokens], 1)).logits(), np.float64)
    log_p = scipy.special.log_softmax(logits[:, start.shape[1] - 1: -1], axis=-1)
    chosen = np.take_along_axis(log_p, written.tokens[..., None], -1)[..., 0]
    real = np.arange(written.tokens.shape[1]) < written.lengths[:, None]
    wanted = -(chosen * real).sum(1) / real.sum(1)
    np.testing.assert_allclose(effects.nats_per_token(model, written, settings), wanted, rtol=1e-3)


def test_random_neurons_move_the_stream_as_far(russian) -> None:
    model, _ = russian
    unforced = effects.write(model, {"none": NOTHING}, SETTINGS, silent)["none"]
    assert effects.displacement(model, NOTHING, unforced, SETTINGS) == 0
    wanted = effects.displacement(model, condition(model, 5.0), unforced, SETTINGS)
    other = Condition(condition(model, 0).neurons + np.array([1, 2, 5]), np.full(3, 2.0, np.float32))
    _, moved = effects.with_matched_norm(model, other, wanted, unforced, SETTINGS)
    assert moved == pytest.approx(wanted, rel=0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steer")
    sources = tiny_trace.checkpoints(folder / "model", {"step0": tiny_trace.model(), "step8": tiny_trace.model(1)})
    said: list[str] = []
    return folder, sources, steer(sources, corpus(), SETTINGS, folder / "steer", say=said.append), said


@pytest.mark.slow
@pytest.mark.promise
class TestRun:
    def test_every_condition_at_every_checkpoint(self, run):
        _, _, tree, said = run
        found = tree["effects"].to_dataset(inherit=False)
        assert found.sizes["checkpoint"] == 2 and len(said) == 2
        wanted = {*CONTROLS, EXPERTS, "2 experts", "2 random neurons", "experts of Tense=Past"}
        assert wanted <= set(found["condition"].values.tolist())
        assert float(found["displacement"].sel(condition=UNFORCED).max()) == 0
        assert str(found["condition"].values[0]) == UNFORCED
        share = found["share"].dropna("condition")
        for low, high in ((found["share_low"], share), (share, found["share_high"])):
            assert (low.sel(condition=share["condition"]) <= high.sel(condition=share["condition"]) + 1e-9).all()
        np.testing.assert_allclose(found["p_share"].sel(condition=EXPERTS), 1)
        moved = found["displacement"].sel(condition=[EXPERTS, RANDOM]).values
        np.testing.assert_allclose(moved[..., 0], moved[..., 1], rtol=0.1)
        switched = tree["switched"].to_dataset(inherit=False)
        assert switched.sizes == {"checkpoint": 2, "switched": 3, "kind": 2, "verdict": 4}
        np.testing.assert_allclose(switched["share"].sum("verdict"), 1)
        np.testing.assert_allclose(
            switched["unforced"], found["share"].sel(condition=UNFORCED).transpose("checkpoint", "verdict"))
        assert float(found["tested"].min()) > 0, "the confusion matrix was measured on held-out sentences"

    def test_the_same_again_reads_what_is_there_and_another_is_refused(self, run, monkeypatch, tmp_path):
        folder, sources, tree, _ = run
        from xlingjax.analyses import checkpoints as module

        monkeypatch.setattr(module, "load_source", lambda *a, **k: pytest.fail("a finished checkpoint was loaded"))
        write_tree(tmp_path / "one.nc", tree)
        write_tree(tmp_path / "two.nc", steer(sources, corpus(), SETTINGS, folder / "steer"))
        assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()
        with pytest.raises(InputError, match=r"settings\.seeds was 6 and is 7"):
            steer(sources, corpus(), dataclasses.replace(SETTINGS, seeds=7), folder / "steer")

    def test_the_page_stands_alone_and_claims_nothing_of_random_models(self, run, tmp_path):
        _, _, tree, _ = run
        page = write_steer_report(tree, tmp_path).read_text(encoding="utf-8")
        assert "http" not in page.replace("http-equiv", "") and "Texts to read" in page
        assert (tmp_path / "steer_dose.png").exists()
        assert json.loads(tree.attrs["settings"])["k"] == 6
        text = " ".join(steer_summary(tree))
        assert "raises" not in text and "lowers" not in text and "Switching" in text

    def test_markup_in_a_text_is_shown_and_not_run(self):
        assert highlighted("<script>dog</script>", {"dog"}) == "&lt;script&gt;<mark>dog</mark>&lt;/script&gt;"
