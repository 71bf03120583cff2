"""Dialogue transfer: figures by hand, controls, what is planted is found, a killed run ends at the same result."""

import dataclasses
import math

import numpy as np
import pytest

from xlingjax.analyses.dialogue_transfer import DialogueSettings, Transfer, chat, dialogue_transfer
from xlingjax.analyses.dialogue_transfer.data import as_condition, parallel_rows, read_part
from xlingjax.analyses.dialogue_transfer.settings import targets
from xlingjax.analyses.dialogue_transfer.sharing import of_two, readers, shared_experts
from xlingjax.analyses.dialogue_transfer.starts import from_model, small_starts, text_as_dialogues
from xlingjax.analyses.dialogue_transfer.summary import Cell, per_turn, rates, summarise, transfer
from xlingjax.analyses.dialogue_transfer.tables import claims_csv, conversations_text, replies_csv, scores_csv
from xlingjax.corpora.dialogues import Dialogues
from xlingjax.corpora.running_text import read_text
from xlingjax.corpora.world import mini_dialogues, mini_world
from xlingjax.errors import InputError
from xlingjax.judging.human_items import read_replies
from xlingjax.models import Model
from xlingjax.report.dialogue_page import dialogue_summary, write_dialogue_report
from xlingjax.training.tokenizer import train_tokenizer

SMALL = DialogueSettings(
    text=64, label=24, source_updates=3, updates=3, evaluations=1, warm_up=1, rows=4, validation=8, seeds=2, replies=3,
    conversations=1, turns=2, max_new_tokens=6, draws=100, sharing=False)


@pytest.fixture(scope="module")
def dialogues() -> Dialogues:
    return mini_dialogues(("eng", "swh", "spa"), train=6, held_out=3)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(mini_dialogues(("eng", "swh", "spa"), train=20, held_out=1).corpus(), 400)


def models(tokenizer, kinds=("lstm",), width=8, seed=0):
    return small_starts(tokenizer, kinds, layers=1, width=width, heads=2, text=64, label=24, seed=seed)


def test_rates_are_the_textbooks():
    """Sums over sums, by hand; draws of documents against NumPy's own resampling of the same documents."""
    nats = {"a": np.array([[1.0, 2.0, 3.0, 6.0], [3.0, 2.0, 1.0, 2.0]])}
    per, documents = np.array([1, 1, 2, 4]), np.array(["x", "x", "y", "z"])
    found = rates(nats, per, documents, 4000, 0)["a"]
    assert found[0] == pytest.approx((12 + 8) / 2 / 8)
    rng = np.random.default_rng(0)
    by = np.array([[3.0, 3.0, 6.0], [5.0, 1.0, 2.0]])
    plain = []
    for _ in range(4000):
        chosen, runs = rng.integers(0, 3, 3), rng.integers(0, 2, 2)
        plain.append(by[runs].mean(0)[chosen].sum() / np.array([2, 2, 4])[chosen].sum())
    assert [found[1:].mean(), found[1:].std()] == pytest.approx([np.mean(plain), np.std(plain)], rel=0.05)


def cell(shift: float, windows: int = 60, seed: int = 0) -> Cell:
    rng = np.random.default_rng(seed)
    base = rng.gamma(4.0, 5.0, windows)
    noise = lambda runs: rng.normal(0, 0.5, (runs, windows))
    return Cell({"before": base + 5 + noise(1), "fine-tuned": base + noise(3), "from scratch": base + shift + noise(3)},
                np.full(windows, 8), np.full(windows, 20), np.repeat(np.arange(windows // 4).astype(str), 4),
                np.arange(windows) % 10 == 0)


def test_a_difference_is_claimed_where_it_is_and_nowhere_else():
    cells = {("there", "lstm", "test"): cell(2.0), ("nothing", "lstm", "test"): cell(0.0)}
    scores, differences = summarise(cells, ("before", "fine-tuned", "from scratch"), 500, 0)
    found = transfer(differences)
    assert bool(found["helps"].sel(language="there", kind="lstm", against="from scratch"))
    assert not bool(found["claimed"].sel(language="nothing", kind="lstm", against="from scratch"))
    assert bool(found["helps"].sel(against="before").all())
    at = scores.sel(language="there", kind="lstm", split="test", turns="all", condition="fine-tuned")
    nats = cells["there", "lstm", "test"].nats["fine-tuned"]
    assert float(at["perplexity"]) == pytest.approx(math.exp(nats.mean(0).sum() / (60 * 8)))
    assert float(at["bits_per_character"]) == pytest.approx(nats.mean(0).sum() / math.log(2) / (60 * 20))
    kept = scores.sel(language="there", kind="lstm", split="test", turns="without leaks")
    assert int(kept["replies"]) == 54 and int(kept["leaked"]) == 6
    assert float(at["perplexity_sd"]) > 0 and float(at["perplexity_low"]) < float(at["perplexity"])


def test_parallel_turns_are_scored_row_by_row(dialogues):
    parts = {name: read_part(dialogues, name, SMALL) for name in ("swh", "spa")}
    rows = parallel_rows(parts)
    assert len(rows["swh"]) == len(rows["spa"]) > 10
    for a, b in zip(rows["swh"], rows["spa"]):
        assert parts["swh"].splits["test"].parallel[a] == parts["spa"].splits["test"].parallel[b] != ""
    count = {name: len(part.splits["test"]) for name, part in parts.items()}
    cells = {(name, "lstm", "test"): Cell(
        {"fine-tuned": np.full((1, n), math.log(2) * (1 + (name == "spa")))}, np.ones(n, int), np.ones(n, int),
        parts[name].splits["test"].documents, np.zeros(n, bool)) for name, n in count.items()}
    found = per_turn(cells, rows, ("fine-tuned",), 100, 0)
    assert found["bits_per_turn"].values.ravel() == pytest.approx([1, 2])
    strange = {**parts, "tur": parts["spa"]._replace(splits={"test": dataclasses.replace(
        parts["spa"].splits["test"], parallel=np.full(count["spa"], "", "<U1"))})}
    assert set(parallel_rows(strange)) == {"swh", "spa"}, "a language without translations is left out, not all of them"


def test_leaked_replies_are_marked_and_controls_change_contexts_alone(dialogues):
    places = list(zip(dialogues.languages.tolist(), dialogues.splits.tolist(), dialogues.rows.tolist()))
    twice = (("swh", "train", 2), ("swh", "test", 3))
    leaked = dataclasses.replace(dialogues, texts=tuple(
        "leo na kesho na jana" if place in twice else text for place, text in zip(places, dialogues.texts)))
    part = read_part(leaked, "swh", SMALL)
    assert part.leaked["test"].sum() == 1
    as_said = part.splits["test"]
    for condition in ("shuffled context", "reply only"):
        other = as_condition(as_said, condition, 0)
        assert other.replies == as_said.replies and other.contexts != as_said.contexts
    assert as_condition(as_said, "from scratch", 0) is as_said


def test_running_text_becomes_dialogues(tmp_path):
    lines = [f"one {d} {p}" for d in range(12) for p in range(3)]
    (tmp_path / "eng.txt").write_text("\n".join(
        line + ("\n" if i % 3 == 2 else "") for i, line in enumerate(lines)), encoding="utf-8")
    found = text_as_dialogues(read_text(tmp_path / "eng.txt"), "eng")
    assert len(found) == 36 and len(set(found.episodes.tolist())) == 12
    assert sorted(set(found.splits.tolist())) == ["train", "valid"]
    assert not set(found.only(split="train").documents) & set(found.only(split="valid").documents)


def test_a_killed_run_ends_at_the_same_result_and_another_is_refused(dialogues, tokenizer, tmp_path, monkeypatch):
    settings = dataclasses.replace(SMALL, languages=("swh",), seeds=1, controls=("reply only",))
    make = lambda folder, **changes: Transfer(
        models(tokenizer), dialogues, dataclasses.replace(settings, **changes), folder)
    whole = dialogue_transfer(make(tmp_path / "whole"))
    broken = make(tmp_path / "broken")
    calls = []

    def once_more(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return type(broken).scores(broken, *args)

    monkeypatch.setattr(broken, "scores", once_more, raising=False)
    with pytest.raises(KeyboardInterrupt):
        dialogue_transfer(broken)
    assert len(list((tmp_path / "broken").rglob("scores.nc"))) == 2
    assert dialogue_transfer(make(tmp_path / "broken")).identical(whole)
    with pytest.raises(InputError, match="settings.updates was 3 and is 4"):
        dialogue_transfer(make(tmp_path / "whole", updates=4))
    # Everything that a user is given can be made of it.
    of = lambda name: whole[name].to_dataset(inherit=False)
    assert scores_csv(of("scores")).count("\n") == 1 + whole["scores"]["perplexity"].size
    assert claims_csv(of("claims")).count("\n") == 1 + whole["claims"]["change"].size
    assert conversations_text(of("conversations")).count("\n> ") == 3 * settings.turns
    (tmp_path / "replies.csv").write_text(replies_csv(of("replies"), "fine-tuned"), encoding="utf-8")
    replies = read_replies(tmp_path / "replies.csv")
    assert [one.system for one in replies] == ["lstm, fine-tuned"] * 3 and all(one.reference for one in replies)
    page = write_dialogue_report(whole, tmp_path / "page")
    text = page.read_text("utf-8")
    assert "from scratch" in text and "reply only" in text and dialogue_summary(whole)[0].startswith("swh: ")
    # A conversation: the same seeds say the same, and what was said before counts.
    first, second = (chat(make(tmp_path / "whole"), "swh", "lstm") for _ in range(2))
    said = [first.say("habari"), first.say("wapi")]
    assert said == [second.say("habari"), second.say("wapi")] and len(first.turns) >= 2
    second.forget()
    assert second.turns == []
    with pytest.raises(InputError, match="kind 'pair' is not of this experiment"):
        chat(make(tmp_path / "whole"), "swh", "pair")


@pytest.mark.slow
def test_shared_experts_of_one_model_twice_are_the_same_and_layers_sum_to_the_whole(tokenizer):
    start = models(tokenizer, ("decoder",), width=16)["decoder"]
    corpus = of_two(mini_world("probe", sentences=120, languages=("eng", "swh")).with_concepts(
        ["animals", "Number=Plur"]), "eng", "swh")
    found = shared_experts({"before": start, "fine-tuned": start}, corpus, "eng", "swh", dataclasses.replace(
        SMALL, permutations=3))
    before, after = (found.sel(condition=name, drop=True) for name in ("before", "fine-tuned"))
    assert before.identical(after)
    assert float(before["shared"].sum()) == pytest.approx(float(before["overlap"]), abs=1e-6)
    assert float(before["experts_source"].sum()) == pytest.approx(1) and 0 < float(before["chance"]) < 1
    assert of_two(corpus, "eng", "hau") is None and readers(models(tokenizer)["lstm"]) is None


@pytest.mark.slow
@pytest.mark.promise
def test_what_is_planted_is_found(tokenizer, tmp_path):
    """A target that is the source language again needs little learning; an untrained start is worth little."""
    english = mini_dialogues(("eng",), train=40, held_out=15)
    names = np.array(["same"] * len(english))
    both = Dialogues(
        english.texts * 2, np.concatenate([english.languages, names]), np.tile(english.splits, 2),
        np.tile(english.episodes, 2), np.tile(english.rows, 2), np.tile(english.parallel, 2), np.tile(english.mixed, 2),
        np.tile(english.scored, 2))
    settings = dataclasses.replace(
        SMALL, languages=("same",), source_updates=150, updates=8, evaluations=1, rows=16, lstm_learning_rate=2e-2,
        controls=(), replies=0, conversations=0, draws=500)
    start = models(tokenizer, width=32)
    told = dialogue_transfer(Transfer(start, both, settings, tmp_path / "told"))
    assert bool(told["claims"]["helps"].sel(against="from scratch").all())
    untold = dialogue_transfer(Transfer(
        start, both, dataclasses.replace(settings, source_updates=0), tmp_path / "untold"))
    change = untold["claims"]["change"].sel(against="from scratch").item()
    # What is left is the luck of one random start against others.
    assert abs(change) < abs(told["claims"]["change"].sel(against="from scratch").item()) / 3


def test_what_does_not_fit_is_named(dialogues, tokenizer, tmp_path):
    for changes, expected in (
            ({"controls": ("nothing",)}, "control 'nothing' is unknown"), ({"seeds": 0}, "seeds is 0"),
            ({"control_seeds": 3}, "more than the 2 seeds"),
            ({"rows": 6, "accumulate": 4}, "does not divide the 6 rows"),
            ({"scored": "some"}, "scored is 'some'"), ({"top_p": 0.0}, "top_p is 0.0"), ({"text": 0}, "text is 0"),
            ({"languages": ("eng",)}, "the source language and a target too"),
            ({"evaluations": 9}, "9 evaluations in 3"),
            ({"schedule": "steps"}, "unknown schedule"), ({"compute": "int8"}, "compute is 'int8'")):
        with pytest.raises(InputError, match=expected):
            dataclasses.replace(SMALL, **changes)
    with pytest.raises(InputError, match="no language 'hau'; there are eng, swh"):
        targets(("eng", "swh"), dataclasses.replace(SMALL, languages=("hau",)))
    with pytest.raises(InputError, match="in eng alone"):
        targets(("eng",), SMALL)
    without = dialogues.take(~((dialogues.languages == "swh") & (dialogues.splits == "valid")))
    with pytest.raises(InputError, match="'swh' in split 'valid'"):
        Transfer(models(tokenizer), without, SMALL, tmp_path)
    first = dialogues.take(np.flatnonzero((dialogues.splits != "test") | (dialogues.rows % 8 == 0)))
    with pytest.raises(InputError, match="swh test: .*every episode is of one turn"):
        Transfer(models(tokenizer), first, SMALL, tmp_path)
    decoder = models(tokenizer, ("decoder",))["decoder"]
    with pytest.raises(InputError, match="brings no tokenizer"):
        from_model(Model(decoder.params, decoder.config, None, name="mute"))
    with pytest.raises(InputError, match="is no decoder with a head"):
        from_model(Model(decoder.params, dataclasses.replace(decoder.config, causal=False, head="")))
    with pytest.raises(InputError, match="112 tokens, but the model has 88"):
        made = Transfer({"decoder": decoder}, dialogues, dataclasses.replace(SMALL, text=88), tmp_path / "long")
        dialogue_transfer(made)
