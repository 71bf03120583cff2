"""Agreement and words in context: balanced, so that the word alone gives nothing away."""

import collections

import pytest
from small_questions import tokenizer

from xlingjax.corpora import mini_world_pairs
from xlingjax.errors import InputError
from xlingjax.tasks import AGREEMENT, WORDS_IN_CONTEXT, agreement_examples, words_in_context

TABLE = "lang\tdoc\tsent\ttext\ttokens\tlemmas\tsenses\n"


def test_either_form_is_right_equally_often():
    examples = agreement_examples(mini_world_pairs(languages=("eng", "tur")))
    count = collections.Counter(
        (e.language, e.texts[0][e.spans[0][0]:e.spans[0][1]].lower(), e.label) for e in examples)
    assert len(count) > 8
    for language, form, label in count:
        other = "wrong" if label == "right" else "right"
        assert count[language, form, label] == count[language, form, other], (form, label)
    encoded = AGREEMENT.encode(examples, tokenizer(), 96)
    assert encoded.counts["lost"] == 0 and (encoded.targets["read"].sum((1, 2)) - 1 < 1e-6).all()
    assert agreement_examples(mini_world_pairs(languages=("eng", "tur"))) == examples
    with pytest.raises(InputError, match="'Gender'"):
        agreement_examples(mini_world_pairs(languages=("eng",)), "Gender")


def table(tmp_path, uses):
    rows = [f"eng\t{doc}\t0\t{text}\t{text.replace('.', ' .')}\t{text.lower().replace('.', ' .')}\t{senses}"
            for doc, text, senses in uses]
    path = tmp_path / "senses.tsv"
    path.write_text(TABLE + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_pairs_of_one_sense_and_of_two(tmp_path):
    uses = [(f"d{i}", f"the bank {i}.", f"O bank.n.0{1 + i % 2} O O") for i in range(8)]
    uses += [(f"e{i}", "my dog.", "O dog.n.01 O") for i in range(4)]  # one sense only: no pairs
    uses += [(f"f{i}", "they bank here.", f"O bank.v.0{i} O O") for i in (1, 2)]  # a verb, too rare
    uses += [("d0", "the same bank.", "O O bank.n.02 O")]  # a document is used once
    examples = words_in_context(table(tmp_path, uses))
    assert collections.Counter(e.label for e in examples) == {"same": 2, "other": 2}
    used = [text for e in examples for text in e.texts]
    assert len(set(used)) == 8 and {e.document for e in examples} == {"eng bank.n"}
    sense = {text: senses.split()[-3] if "same" not in text else "bank.n.02" for _, text, senses in uses}
    for e in examples:
        assert [text[begin:end] for text, (begin, end) in zip(e.texts, e.spans)] == ["bank", "bank"]
        assert (sense[e.texts[0]] == sense[e.texts[1]]) == (e.label == "same")
    encoded = WORDS_IN_CONTEXT.encode(examples, tokenizer(), 32)
    assert encoded.targets["read"].shape[1] == 2 and encoded.counts["lost"] == 0
    with pytest.raises(InputError, match="no word of eng has two senses"):
        words_in_context(table(tmp_path, uses[8:12]))


def test_words_of_the_meaning_bank(data):
    examples = words_in_context(data / "concepts" / "pmb_senses.tsv.xz")
    count = collections.Counter((e.language, e.label) for e in examples)
    assert all(count[language, "same"] == count[language, "other"] > 80 for language in ("eng", "deu", "ita"))
