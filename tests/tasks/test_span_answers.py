"""Span questions: windows, loss, decoding; and the whole way from a file to scores in two languages."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_questions import ENCODER, PARAGRAPHS, body, start, tokenizer, write
from tolerances import KERNEL, close

from xlingjax.errors import InputError
from xlingjax.tasks import Answer, Example, SpanAnswers, evaluate, mean_loss, read_squad, select
from xlingjax.tasks.spans import NEVER, best_spans
from xlingjax.tasks.task import _program

TASK = SpanAnswers(stride=10, longest_question=16, longest_answer=6, candidates=5)
LENGTH = ENCODER.max_length
LOSS, OUTPUTS = jax.jit(TASK.loss), jax.jit(TASK.outputs)


@pytest.fixture(scope="module")
def words():
    return tokenizer()


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return read_squad(write(tmp_path_factory.mktemp("xquad")))


@pytest.fixture(scope="module")
def encoded(examples, words):
    return TASK.encode(examples, words, LENGTH)


def test_files_are_read_as_they_are(examples):
    assert [e.language for e in examples] == ["de"] * 5 + ["en"] * 5
    first = examples[5]
    assert first.texts == (PARAGRAPHS["en"][0][1][0][0], PARAGRAPHS["en"][0][0]) and first.answers[0].text == "1704"
    assert {e.document for e in examples} == {"xquad/article 0", "xquad/article 1"}
    assert [e.name for e in select(examples, ["en"])] == [e.name for e in select(examples, ["de"])]


def test_every_window_says_where_the_answer_stands(encoded, words):
    """Characters and tokens of every window that has the answer whole; all others point at the first token."""
    context = encoded.targets["context"]
    for row, owner in enumerate(encoded.rows):
        example, spans = encoded.examples[owner], encoded.spans[row]
        first, last = encoded.targets["start"][row], encoded.targets["end"][row]
        shown = np.flatnonzero(context[row])
        assert (np.diff(shown) == 1).all() and encoded.mask[row, shown].all()
        if encoded.targets["answered"][row]:
            assert context[row, [first, last]].all()
            assert example.texts[1][spans[first, 0]:spans[last, 1]] == example.answers[0].text
            written = words.decode(encoded.tokens[row, first:last + 1]).strip()
            assert written == example.answers[0].text
        else:
            assert first == last == encoded.targets["none"][row] == 0
        question = words.decode(encoded.tokens[row, 1:shown[0] - 1])
        assert question.strip() == example.texts[0]
    assert encoded.counts["windows"] > 0 and encoded.counts["unreachable"] == 0


def test_windows_together_are_the_context(encoded):
    for number, example in enumerate(encoded.examples):
        rows = np.flatnonzero(encoded.rows == number)
        seen = set()
        for row in rows:
            spans = encoded.spans[row][encoded.targets["context"][row]]
            seen |= {i for begin, end in spans.tolist() for i in range(begin, end)}
            assert encoded.mask[row].sum() <= LENGTH
        assert seen == {i for i, c in enumerate(example.texts[1]) if not c.isspace()}


def brute(starts, ends, context, longest):
    found = [(starts[s] + ends[e], s, e) for s in range(len(starts)) for e in range(s, min(s + longest, len(starts)))
             if context[s] and context[e]]
    return sorted(found, key=lambda one: (-one[0], one[1], one[2]))


def test_the_best_spans_are_those_of_all_spans():
    rng = np.random.default_rng(0)
    starts, ends = rng.standard_normal((2, 5, 14)).astype(np.float32)
    context = np.zeros((5, 14), bool)
    for row, (low, high) in enumerate([(3, 14), (5, 9), (13, 14), (0, 14), (2, 2)]):
        context[row, low:high] = True
    starts[:, :2] = 50  # the question, and what stands behind the context, would win if they might
    ends[:, -1] = 50
    search = jax.jit(best_spans, static_argnums=(3, 4))
    got = jax.device_get(search(starts, ends, context, 4, 12))
    for row in range(5):
        expected = brute(starts[row], ends[row], context[row], 4)[:12]
        close(got["score"][row][:len(expected)], [one[0] for one in expected], KERNEL["float32"])
        assert (got["score"][row][len(expected):] == NEVER).all()
        assert [(s, e) for s, e in zip(got["start"][row], got["end"][row])][:len(expected)] == [
            one[1:] for one in expected]


def test_no_answer_reaches_over_question_or_padding(encoded):
    """A head that loves the question, the marks and the padding answers from the context all the same."""
    hidden = np.zeros((len(encoded), LENGTH, ENCODER.width), np.float32)
    hidden[~encoded.targets["context"]] = 100.0
    hidden[~encoded.mask] = np.nan
    head = {"out": {"kernel": jnp.ones((ENCODER.width, 2)), "bias": jnp.zeros(2)}}
    outputs = jax.device_get(OUTPUTS(head, jnp.asarray(hidden), encoded.targets))
    for example, found in zip(encoded.examples, TASK.answers(outputs, encoded)):
        assert found and all(one.text and one.text in example.texts[1] for one in found)
        assert all(example.texts[1][one.start:one.start + len(one.text)] == one.text for one in found)
    real = np.array(outputs["score"] > NEVER / 2)
    assert (outputs["end"] - outputs["start"])[real].max() < TASK.longest_answer


def test_loss_is_torch_s_cross_entropy(encoded):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    batch = encoded.batch(0, 6, seed=1)
    hidden = rng.standard_normal((6, LENGTH, ENCODER.width)).astype(np.float32)
    kernel = rng.standard_normal((ENCODER.width, 2)).astype(np.float32)
    head = {"out": {"kernel": kernel, "bias": np.ones(2, np.float32)}}
    total, weight = LOSS(jax.tree.map(jnp.asarray, head), jnp.asarray(hidden), batch.targets)
    allowed = batch.targets["context"].copy()
    allowed[:, 0] = True
    logits = torch.tensor(hidden @ head["out"]["kernel"] + head["out"]["bias"])
    logits = logits.masked_fill(~torch.tensor(allowed)[..., None], -torch.inf)
    theirs = sum(
        torch.nn.functional.cross_entropy(logits[..., i], torch.tensor(batch.targets[name]).long(), reduction="sum")
        for i, name in enumerate(("start", "end")))
    close(total, theirs.item() / 2, 1e-4)
    assert weight == 6


def test_a_filler_row_counts_nothing(encoded):
    *_, batch = encoded.batches(len(encoded) - 1)
    real = int((batch.rows >= 0).sum())
    assert 0 < real < len(batch.rows)
    hidden = jnp.ones((len(batch.rows), LENGTH, ENCODER.width))
    head = TASK.init_head(jax.random.key(0), ENCODER.width)
    total, weight = LOSS(head, hidden, batch.targets)
    alone, _ = LOSS(head, hidden[:real], {name: value[:real] for name, value in batch.targets.items()})
    assert weight == real
    close(total, alone, 1e-5)
    close(LOSS(head, hidden, batch.targets | {"weight": 2 * batch.targets["weight"]})[0], 2 * total, 1e-4)
    gradient = jax.jit(jax.grad(lambda hidden: TASK.loss(head, hidden, batch.targets)[0]))(hidden)
    assert np.isfinite(np.asarray(gradient)).all() and not np.asarray(gradient)[real:].any()


def test_an_answer_is_found_in_the_window_that_is_surest(encoded):
    """Scores are of the window, not of its first: an answer behind the first window wins with the better score."""
    number = next(i for i in range(len(encoded.examples)) if np.count_nonzero(encoded.rows == i) > 1)
    rows = np.flatnonzero(encoded.rows == number)
    outputs = {"score": np.full((len(encoded), 1), -5.0, np.float32)}
    places = [int(np.flatnonzero(encoded.targets["context"][row])[-1]) for row in range(len(encoded))]
    outputs["start"] = outputs["end"] = np.array(places)[:, None]
    outputs["score"][rows[1]] = -1
    best = TASK.answers(outputs, encoded)[number][0]
    begin, end = encoded.spans[rows[1], places[rows[1]]]
    assert best.text == encoded.examples[number].texts[1][begin:end] and best.score == -1


def test_what_does_not_fit_is_counted(words):
    context = "the mill " * 30 + "by the river Aller"
    example = Example("q", ("who " * 40, context), "en", "d", answers=(
        Answer("mill by the river", context.index("mill by")),))
    counts = TASK.encode([example], words, LENGTH).counts
    assert counts["cut"] == 1 and counts["windows"] == 4 and counts["unreachable"] == 0
    long = Example("q", ("who", context), "en", "d", answers=(Answer(context.strip(), 0),))
    encoded = TASK.encode([long], words, LENGTH)
    assert encoded.counts["unreachable"] == encoded.counts["longer"] == 1 and not encoded.targets["answered"].any()
    part = Example("q", ("who", "the millstone"), "en", "d", answers=(Answer("e m", 2),))
    assert TASK.encode([part], words, LENGTH).counts["inexact"] == 1


def test_ceiling_is_what_the_answer_s_tokens_write(encoded):
    """A head that knows gets everything; one that is best at nothing gets the first candidate of each."""
    outputs = {name: np.asarray(encoded.targets[name])[:, None] for name in ("start", "end")}
    outputs["score"] = np.where(encoded.targets["answered"], 0.0, NEVER)[:, None].astype(np.float32)
    scores = TASK.score(outputs, encoded)
    assert scores.means() == {"f1": 1, "exact": 1} and (scores.ceiling["exact"] == 1).all()
    assert 0 < scores.chance["f1"].mean() < 0.35 and scores.chance["exact"].mean() < 0.2


def test_whole_path_trains_decodes_and_scores_in_two_languages(examples, encoded, words):
    """Fine-tuned on English windows, scored in both languages with one compiled program."""
    english, german = (TASK.encode(select(examples, [code]), words, LENGTH) for code in ("en", "de"))
    params, head = start(), TASK.init_head(jax.random.key(1), ENCODER.width)
    optimiser = optax.adam(5e-3)
    trained = (params, head)

    @jax.jit
    def step(trained, state, tokens, mask, targets):
        def loss_of(trained):
            return mean_loss(TASK, trained[1], body(trained[0], tokens, mask), targets)

        loss, gradients = jax.value_and_grad(loss_of)(trained)
        updates, state = optimiser.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, loss

    state, losses = optimiser.init(trained), []
    before = evaluate(TASK, body, *trained, english, 8)
    for number in range(60):
        batch = english.batch(number, 8, seed=0)
        trained, state, loss = step(trained, state, batch.tokens, batch.mask, batch.targets)
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    after = evaluate(TASK, body, *trained, english, 8)
    assert after.means()["f1"] > before.means()["f1"] + 0.2
    other = evaluate(TASK, body, *trained, german, 8)
    assert len(other.predictions) == 5 and 0 <= other.means()["f1"] <= 1
    assert _program(TASK, body)._cache_size() == 1  # languages and parameters compile nothing anew
    table = other.table(draws=50)
    assert table.score.sel(language="de", measure="f1").item() == pytest.approx(other.means()["f1"])
    assert (table.low <= table.score).all() and (table.score <= table.high).all()


def test_decoders_read_the_last_token(examples):
    task = SpanAnswers(stride=10, longest_question=16, longest_answer=6, reads="last")
    encoded = task.encode(examples, tokenizer("causal"), LENGTH)
    assert (encoded.targets["none"] == encoded.mask.sum(1) - 1).all()
    end = tokenizer("causal").eos_token_id
    assert all(row[mask.sum() - 1] == end for row, mask in zip(encoded.tokens, encoded.mask))


def changed(folder, **changes):
    data = json.loads((folder / "xquad.en.json").read_text(encoding="utf-8"))
    data["data"][1]["paragraphs"][0]["qas"][0] |= changes
    path = folder / "xquad.xx.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(("answers", "message"), [
    ([{"text": "314 ships", "answer_start": 82}], "question '1-0'.*'314 ships' is not in its context at character 82"),
    ([{"text": "312 ships", "answer_start": 83}], "question '1-0'.*correct answer_start"),
    ([{"text": "312 ships", "answer_start": -1}], "question '1-0'"),
    ([{"text": " ", "answer_start": 1}], "question '1-0'"),
    ([], "question '1-0' has no answer"),
    ([{"text": "312 ships"}], "not in SQuAD's layout"),
    ("312", "not in SQuAD's layout"),
])
def test_answers_that_are_not_in_their_context_name_the_question(tmp_path, answers, message):
    with pytest.raises(InputError, match=message):
        read_squad(changed(write(tmp_path), answers=answers))


def test_other_bad_input_is_named(tmp_path, examples, words):
    path = tmp_path / "train-v1.1.json"
    path.write_text('{"data": [{"paragraphs": 3}]}')
    with pytest.raises(InputError, match="give language="):
        read_squad(path)
    with pytest.raises(InputError, match="SQuAD's layout"):
        read_squad(path, language="en")
    (tmp_path / "more").mkdir()
    with pytest.raises(InputError, match="'fr' is not in the question files"):
        read_squad(write(tmp_path / "more"), ["fr"])
    with pytest.raises(InputError, match="rows of 12 tokens hold no context"):
        TASK.encode(examples, words, 12)
    with pytest.raises(InputError, match="example 'x' is no question"):
        TASK.encode([Example("x", ("one",), "en", "d")], words, LENGTH)
    with pytest.raises(InputError, match="stride is 0"):
        SpanAnswers(stride=0)
    with pytest.raises(InputError, match="language 'tr'"):
        asked = Example("x", ("a", "b"), "tr", "d", answers=(Answer("b", 0),))
        SpanAnswers(rules="mlqa").encode([asked], words, LENGTH)


def test_xquad_as_published(data):
    """Every answer of eight languages stands in its context, and in a window; ceilings show what tokens cost."""
    words, task = tokenizer(), SpanAnswers(longest_answer=120)
    examples = read_squad(data / "xquad")
    assert len(examples) == 8 * 1190 and len({e.document for e in examples}) == 48
    for language, found in itertools.groupby(examples, lambda e: e.language):
        some = tuple(found)[::40]
        encoded = task.encode(some, words, 384)
        assert encoded.counts["unreachable"] <= 1, (language, encoded.counts)
        outputs = {name: np.asarray(encoded.targets[name])[:, None] for name in ("start", "end")}
        outputs["score"] = np.where(encoded.targets["answered"], 0.0, NEVER)[:, None].astype(np.float32)
        assert task.score(outputs, encoded).means()["exact"] > 0.95, language
