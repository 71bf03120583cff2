"""F1 and exact match against the published definitions, written here once more, and cases worked by hand."""

import collections
import json
import re
import string
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_questions import ENCODER, body, start, tokenizer, write

from xlingjax.errors import InputError
from xlingjax.tasks import SpanAnswers, evaluate, read_squad
from xlingjax.tasks.answers import best, normalise

PIECES = [*"aAtThHeEnN ..,'-\t ßİéø的中元1’", "the ", " an ", "ال", " das "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)


def squad_text(text):
    """SQuAD 1.1's order: lower case, punctuation off, articles to blanks, blanks made one."""
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.compile(r"\b(a|an|the)\b").sub(" ", kept).split())


def squad(predictions, gold):
    """The whole evaluation, in percent: of each question the best answer, then the mean."""
    f1 = exact = 0
    for name, answers in gold.items():
        found = []
        for answer in answers:
            words, right = squad_text(predictions[name]).split(), squad_text(answer).split()
            same = sum((collections.Counter(words) & collections.Counter(right)).values())
            found.append(0 if same == 0 else 2 * (same / len(words)) * (same / len(right))
                         / (same / len(words) + same / len(right)))
        f1 += max(found)
        exact += max(squad_text(predictions[name]) == squad_text(answer) for answer in answers)
    return 100 * f1 / len(gold), 100 * exact / len(gold)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_squad_s_definition(prediction, answers):
    f1, exact = squad({"q": prediction}, {"q": answers})
    ours = best([prediction], answers)
    assert ours["exact"][0] * 100 == exact
    assert ours["f1"][0] * 100 == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize(("prediction", "answers", "f1", "exact"), [
    ("the Rhine", ["Rhine"], 1, 1),
    ("Rhine River", ["the river Rhine"], 1, 0),  # a bag of words, but not the same text
    ("red red river", ["red river"], 0.8, 0),  # 2 of 3 and 2 of 2: counted as often as they occur
    ("red red", ["red red river"], 0.8, 0),
    ("in 1704", ["1704", "in the year 1704"], 0.8, 0),  # 2/3 with the first, 2 * 1 * (2/3) / (5/3) with the second
    ("a the an", ["."], 0, 1),  # nothing is left of both: equal, and no common word
    ("état-major", ["étatmajor"], 1, 1),  # the hyphen goes without a blank
    ("“Rhine”", ["Rhine"], 0, 0),  # quotes that are not ASCII stay
    ("“the”", ["“ ”"], 1, 1),  # an article leaves a blank
    ("", ["Rhine"], 0, 0),
    ("theatre", ["the atre"], 0, 0),
])
def test_cases_by_hand(prediction, answers, f1, exact):
    got = best([prediction], answers)
    assert (got["f1"][0], got["exact"][0]) == (pytest.approx(f1), exact)


PUNCTUATION = set(string.punctuation) | {
    chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i))[0] == "P"}
ARTICLES = {
    "en": r"\b(a|an|the)\b", "es": r"\b(un|una|unos|unas|el|la|los|las)\b", "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b", "ar": r"\sال^|ال"}


def mlqa_text(text, language):
    text = "".join(c for c in text.lower() if c not in PUNCTUATION)
    text = re.sub(ARTICLES[language], " ", text) if language in ARTICLES else text
    if language != "zh":
        return " ".join(text.split())
    words, word = [], ""
    for c in text:
        if re.search("[\u4e00-\u9fa5]", c):
            words += [*word.split(), c]
            word = ""
        else:
            word += c
    return " ".join([*words, *word.split()])


@given(TEXTS, st.sampled_from(["en", "es", "hi", "vi", "de", "ar", "zh"]))
def test_mlqa_s_definition(text, language):
    assert normalise(text, "mlqa", language) == mlqa_text(text, language)


def test_mlqa_by_hand():
    assert normalise("Der Rhein, die Elbe", "mlqa", "de") == "rhein elbe"
    assert normalise("Der Rhein, die Elbe") == "der rhein die elbe"
    assert best(["一七零四年"], ["一七零四"], "mlqa", "zh")["f1"][0] == pytest.approx(8 / 9)
    assert best(["一七零四年"], ["一七零四"])["f1"][0] == 0
    with pytest.raises(InputError, match="language 'tr'"):
        normalise("x", "mlqa", "tr")
    with pytest.raises(InputError, match="rules are 'bleu'"):
        normalise("x", "bleu")


def test_a_whole_file_scores_as_the_official_evaluation(tmp_path):
    """The task's means on its own predictions are the evaluation's on the same predictions and the same file."""
    import jax

    task, words = SpanAnswers(stride=12, longest_question=16, longest_answer=6), tokenizer()
    examples = read_squad(write(tmp_path), ["en"])
    encoded = task.encode(examples, words, ENCODER.max_length)
    head = task.init_head(jax.random.key(3), ENCODER.width)
    scores = evaluate(task, body, start(), head, encoded, 4)
    data = json.loads((tmp_path / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    gold = {qa["id"]: [answer["text"] for answer in qa["answers"]]
            for article in data for paragraph in article["paragraphs"] for qa in paragraph["qas"]}
    said = {example.name: text for example, text in zip(scores.examples, scores.predictions)}
    f1, exact = squad(said, gold)
    assert 100 * scores.means()["f1"] == pytest.approx(f1, abs=1e-9)
    assert 100 * scores.means()["exact"] == pytest.approx(exact, abs=1e-9)
    assert all(text in examples[0].texts[1] or text in examples[-1].texts[1] for text in scores.predictions)
    assert np.isfinite(scores.values["f1"]).all()
