"""The whole transfer in seconds: it ends, it is the same when it is broken off, and its parts are what they say."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import xarray as xr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xlingjax.analyses.lexical_transfer import LexicalSettings, TransferData, lexical_transfer
from xlingjax.analyses.lexical_transfer import stages as stages_module
from xlingjax.analyses.lexical_transfer.bag import bag_of_shared_pieces, near_shared_pieces, shared_pieces
from xlingjax.analyses.lexical_transfer.data import clean, first_tokens, read_apart, read_languages
from xlingjax.analyses.lexical_transfer.embedded import embedded
from xlingjax.analyses.lexical_transfer.questions import read_questions
from xlingjax.analyses.lexical_transfer.summary import table
from xlingjax.analyses.lexical_transfer.systems import ROLES
from xlingjax.corpora.world import mini_world
from xlingjax.errors import InputError
from xlingjax.models.loading import load_model
from xlingjax.report.lexical_page import write_lexical_report
from xlingjax.tasks.spans import SpanAnswers
from xlingjax.tasks.task import Answer, Example, select
from xlingjax.training.shapes import small_config
from xlingjax.transfer.banks import flatten, fresh_bank, join, load_banks

CONFIG = dataclasses.replace(small_config("xlm_roberta", 1, 16, 2, 24), bare_first=True)
TINY = LexicalSettings(
    vocabulary=360, length=24, rows=4, body_steps=4, bank_steps=3, task_steps=3, task_rows=8, adapter_width=2, seeds=1,
    held_out=0.1, draws=20, permutations=4, save_every=2)


@pytest.fixture(scope="module")
def data():
    whole = embedded("eng", ["spa", "tur"], 0.0, 160)
    probes = whole.concepts.rows(np.arange(len(whole.concepts)))
    return dataclasses.replace(whole, concepts=probes.with_concepts(probes.concepts[:20]))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lexical")
    return folder, lexical_transfer(data, CONFIG, TINY, folder)


@pytest.mark.slow
def test_every_system_is_scored_in_every_language(made):
    scores = made[1]["scores"].dataset
    assert list(scores["system"].values) == list(ROLES)
    assert list(scores["language"].values) == ["spa", "tur", "all"]
    assert not np.isnan(scores["score"]).any() and (scores["low"] <= scores["score"]).all()
    mean = scores["score"].isel(language=slice(2)).mean("language")
    np.testing.assert_allclose(scores["score"].sel(language="all"), mean)
    assert not np.isnan(scores["first"].where(scores["role"] != "floor", drop=True)).any()
    assert set(scores["floor"].values) == {"untrained embeddings", "random body", "bag of shared pieces"}


@pytest.mark.slow
def test_text_costs_and_experts_stand_beside_the_scores(made):
    tree = made[1]
    text = tree["text"].dataset
    assert text["tokens"].sel(language="spa") == text["tokens"].sel(language="tur")
    costs = tree["costs"].dataset
    assert float(costs["operations"].sel(learned="bank")) < float(costs["operations"].sel(learned="everything"))
    assert float(costs["state_bytes"].sel(learned="bank")) < float(costs["state_bytes"].sel(learned="everything"))
    experts = tree["experts"].dataset
    assert list(experts["condition"].values) == ["transferred", "untrained embeddings", "random body"]
    for name in ("overlap_mean", "null_overlap", "ceiling", "chance_uniform", "layer_overlap", "layer_null", "p"):
        assert name in experts, name
    assert experts["layer_overlap"].sizes["layer"] == 1


@pytest.mark.slow
def test_the_banks_are_kept_and_share_their_body(made):
    banks = load_banks(made[0] / "banks")
    assert list(banks.banks) == ["eng", "spa", "tur"]
    spanish = load_model(made[0] / "banks", revision="spa")
    assert spanish.fingerprint == banks.model("spa").fingerprint


@pytest.mark.slow
@pytest.mark.promise
def test_broken_off_and_started_again_it_ends_the_same(data, tmp_path, monkeypatch):
    few = dataclasses.replace(TINY, baselines=(), starts=False, traced=False)
    small = dataclasses.replace(data, texts=data.texts.language("eng", "spa"))
    whole = lexical_transfer(small, CONFIG, few, tmp_path / "whole")
    true, calls = stages_module.fit, []

    def breaking(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return true(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stages_module, "fit", breaking)
        with pytest.raises(KeyboardInterrupt):
            lexical_transfer(small, CONFIG, few, tmp_path / "broken")
    again = lexical_transfer(small, CONFIG, few, tmp_path / "broken")
    for part in ("scores", "losses", "training", "text"):
        xr.testing.assert_identical(again[part].dataset, whole[part].dataset)


def asked(folder, languages=(("eng", "en"), ("spa", "es")), articles=10):
    """Questions on four sentences each, in XQuAD's layout and under its names: the first word asks for the last."""
    world = mini_world("probe", languages=[name for name, _ in languages])
    for name, code in languages:
        texts = world.language(name).texts
        data = []
        for a in range(articles):
            paragraphs = []
            for p in range(2):
                sentences = texts[8 * a + 4 * p:8 * a + 4 * p + 4]
                context = f"{a} {p}: " + " ".join(sentences)
                last = sentences[0].split()[-1].strip(".?!")
                paragraphs.append({"context": context, "qas": [{
                    "id": f"{a}-{p}", "question": sentences[0].split()[0],
                    "answers": [{"text": last, "answer_start": context.index(last)}]}]})
            data.append({"paragraphs": paragraphs})
        (folder / f"xquad.{code}.json").write_text(json.dumps({"data": data}))
    return folder


@pytest.mark.slow
def test_questions_are_a_task_like_topics(tmp_path):
    text = tmp_path / "text.tsv"
    rows = mini_world("train", sentences=160, languages=["eng", "spa"])
    text.write_text("text\tlang\n" + "".join(
        f"{one}\t{name}\n" for one, name in zip(rows.texts, rows.languages.tolist(), strict=True)))
    length = 48
    data = read_questions([str(text)], [str(asked(tmp_path))], "eng", ["spa"], length)
    assert {e.language for e in data.examples} == {"eng", "spa"} and data.task.longest_question == 12
    few = dataclasses.replace(TINY, length=length, baselines=(), starts=False)
    config = dataclasses.replace(small_config("xlm_roberta", 1, 16, 2, length), bare_first=True)
    tree = lexical_transfer(data, config, few, tmp_path / "run")
    scores = tree["scores"].dataset
    assert tree.attrs["measure"] == "f1" and "experts" not in tree.children
    assert set(scores["floor"].values) == {"untrained embeddings", "random body", "bag of shared pieces"}
    assert ((scores["score"] >= 0) & (scores["score"] <= 1)).all() and 0 < float(scores["chance"][0]) < 0.5
    page = write_lexical_report(tree, tmp_path).read_text()
    assert "f1 of every system" in page


class TestAnswersByStrings:
    def tokenizer(self):
        words = [*"<s> </s> who saw a b c d e f g h".split()]
        made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<s>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")

    @pytest.mark.parametrize("context, wanted", [
        ("a b c saw d e f g h", "a b c"),  # as near on both sides: the earlier one
        ("saw a b c d e f g h", "a b c"),
        (" ".join("abcdefgh" * 2) + " saw a", "f g h"),  # beside the word, not ten before it; "a" comes later
        ("saw who", ""),
    ])
    def test_the_answer_stands_beside_what_is_shared(self, context, wanted):
        right = Answer(wanted or "saw", context.rindex(wanted or "saw"))
        example = Example("q", ("who saw", context), "eng", "d", "test", answers=(right,))
        found = near_shared_pieces(self.tokenizer(), [example], SpanAnswers())
        assert found.tolist() == [float(bool(wanted))]


@pytest.mark.slow
def test_another_experiment_is_refused(made, data):
    with pytest.raises(InputError, match="settings.noise was 0.075 and is 0.1"):
        lexical_transfer(data, CONFIG, dataclasses.replace(TINY, noise=0.1), made[0])


def test_lines_of_the_first_language_leave_the_others(data):
    texts, rows = data.texts, np.flatnonzero(data.texts.languages == "spa")
    english = [t for t, g in zip(texts.texts, texts.languages) if g == "eng"]
    moved = list(texts.texts)
    moved[rows[3]], moved[rows[7]] = english[5], "the friendly people of the town are reading newspapers in the morning"
    dirty = dataclasses.replace(data, texts=dataclasses.replace(texts, texts=tuple(moved)))
    cleaned = clean(dirty, TINY)
    kept = {t for part in (cleaned.train, cleaned.held) for t, g in zip(part.texts, part.languages) if g == "spa"}
    assert moved[rows[3]] not in kept and moved[rows[7]] not in kept
    assert cleaned.removed["spa"] >= 2 and cleaned.removed["eng"] == 0
    assert clean(dirty, dataclasses.replace(TINY, clean=False)).removed["spa"] == 0
    assert not set(cleaned.train.documents) & set(cleaned.held.documents)


def test_vocabularies_apart_share_special_tokens_only(data):
    languages = read_languages(data, clean(data, TINY), TINY)
    joined, own, theirs = read_apart(languages["eng"], languages["spa"], TINY)
    assert set(own) & set(theirs) == set(range(5)) and joined.vocabulary == 2 * TINY.vocabulary - 5
    np.testing.assert_array_equal(joined.texts["spa"].tokens, theirs[languages["spa"].texts["spa"].tokens])
    assert max(theirs) == joined.vocabulary - 1
    text = languages["eng"].texts["eng"]
    assert first_tokens(text, 100).real == 100 and first_tokens(text, 10**6) is text


def test_text_and_task_that_do_not_fit_are_refused(data, tmp_path):
    leaking = tuple(dataclasses.replace(e, document="d") for e in data.examples)
    for changes, message in [
        ({"first": "deu"}, "language 'deu', on which the body is to be trained"),
        ({"texts": data.texts.language("eng")}, "has no language but 'eng'"),
        ({"examples": leaking}, "document 'd' is in the training examples and in the test of 'eng'"),
        ({"examples": (*data.examples, Example("x", (data.texts.texts[0],), "spa", "x", "test", "home"))},
         "1 test texts stand in the running text"),
    ]:
        with pytest.raises(InputError, match=message):
            dataclasses.replace(data, **changes)
    with pytest.raises(InputError, match=r"tokens .* fewer than a batch of 900 x 24"):
        lexical_transfer(data, CONFIG, dataclasses.replace(TINY, rows=900), tmp_path)
    with pytest.raises(InputError, match="restarts is 0"):
        dataclasses.replace(TINY, restarts=0)
    with pytest.raises(InputError, match="baseline 'pairs' is unknown"):
        dataclasses.replace(TINY, baselines=("pairs",))
    assert isinstance(data, TransferData)


def test_the_bag_knows_shared_words_and_nothing_else(data):
    languages = read_languages(data, clean(data, TINY), TINY)
    eng, spa = languages["eng"].tokenizer, languages["spa"].tokenizer
    assert "</s>" not in shared_pieces(eng, spa)
    pairs = [Example(str(i), ("aaa bbb"[4 * (i % 2):][:3],), "eng", str(i), "train", "xy"[i % 2]) for i in range(20)]
    assert bag_of_shared_pieces((eng, eng), pairs, pairs).mean() == 1
    foreign = [dataclasses.replace(e, texts=("मम" if e.label == "x" else "कक",)) for e in pairs]
    assert bag_of_shared_pieces((eng, spa), pairs, foreign).mean() in (0.0, 0.5, 1.0)


def test_intervals_and_gains_are_by_documents():
    """Two systems of 40 documents, one always 0.2 better: the gain's interval has no width, the scores' have."""
    random = np.random.default_rng(0)
    examples = {g: [Example(str(i), ("t",), g, f"d{i // 5}", "test", "x") for i in range(200)] for g in ("a", "b")}
    worse = np.repeat(random.random((2, 40)), 5, axis=1)
    right = {("good", g): worse + 0.2 for g in "ab"} | {("floor", g): worse for g in "ab"}
    found = table(right, examples, {"good": "transfer", "floor": "floor"}, {"a": 0.1, "b": 0.3}, 500)
    np.testing.assert_allclose(found["gain"], 0.2)
    np.testing.assert_allclose(found["gain_low"], 0.2)
    assert found["above"].all() and float(found["chance"].sel(language="all")) == pytest.approx(0.2)
    width = float((found["high"] - found["low"]).sel(system="good", language="a"))
    blocks = worse.mean(0).reshape(40, 5).mean(1)
    assert abs(width - 2 * 1.96 * blocks.std() / 40**0.5) < 0.25 * width, "as wide as documents, not sentences, allow"
    np.testing.assert_allclose(found["spread"].sel(system="good", language="a"), worse.mean(1).std(ddof=1))


@pytest.mark.slow
def test_words_next_sentences_and_restarts_run(data, tmp_path):
    few = dataclasses.replace(TINY, unit="word", next_sentence=True, restarts=2, baselines=(), starts=False,
                              traced=False, bank_steps=2, body_steps=2)
    small = dataclasses.replace(data, texts=data.texts.language("eng", "spa"))
    tree = lexical_transfer(small, CONFIG, few, tmp_path)
    assert {"tokens", "random body"} <= set(tree["scores"].dataset["system"].values)
    kept = sorted(path.name for path in (tmp_path / "seed0" / "lm").iterdir())
    assert "tokens_spa_0" in kept and "tokens_spa_1" in kept
    assert json.loads(tree.attrs["settings"])["unit"] == "word"


def test_frozen_steps_and_the_swap_by_hand(data, tmp_path):
    """Step 3 leaves embeddings and LM head as they were; the other language is read through its own bank."""
    languages = read_languages(data, clean(data, TINY), TINY)
    stage = stages_module.Stage(TINY, 0, tmp_path, lambda text: None)
    body, own = stages_module.random_body(CONFIG, languages["eng"], TINY, 0)
    train, test = (data.task.encode(select(data.examples, [name], split), languages[name].tokenizer, TINY.length)
                   for name, split in (("eng", "train"), ("spa", "test")))
    tuned, head = stages_module.fine_tune(stage, "own", body, own, data.task, train, 0.075)
    before, after = flatten(body.params), flatten(tuned.params)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved and all(path.startswith("layers/") for path in moved)
    bank = fresh_bank(body, languages["spa"].tokenizer, jax.random.key(1), "spa", vocabulary=TINY.vocabulary)
    scores = stages_module.score(tuned, bank, head, data.task, test, 8)
    model = join(tuned, bank)
    hidden = model(test.tokens, test.mask).hidden
    logits = data.task.logits(head, hidden, test.targets)
    assert scores.predictions == tuple(data.task.labels[i] for i in np.asarray(logits).argmax(-1))
