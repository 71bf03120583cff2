"""Classes of texts, pairs and words: what is read, losses against torch, files as published, chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_questions import tokenizer
from tolerances import close

from xlingjax.corpora import mini_world, read_sib200
from xlingjax.errors import InputError
from xlingjax.tasks import (
    PAWSX,
    XNLI,
    Classification,
    Example,
    evaluate,
    mean_loss,
    read_pawsx,
    read_xnli,
    split_by_documents,
    topic_examples,
)
from xlingjax.training.tokenizer import train_tokenizer

WIDTH, LENGTH = 6, 24


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def pair(name="p", label="1", texts=("the mill by the river", "by the mill"), spans=(), language="en"):
    return Example(name, texts, language, name, label=label, spans=spans)


def test_logits_are_those_of_a_plain_loop(words):
    """For each way of reading, by hand; hidden states that are not read may be NaN."""
    rng = np.random.default_rng(0)
    example = pair(spans=((4, 8), (7, 11)))  # "mill" in both
    for reads in ("first", "last", "words"):
        task = Classification("t", ("0", "1", "2"), reads=reads)
        encoded = task.encode([example], words, LENGTH)
        head = task.init_head(jax.random.key(1), WIDTH)
        hidden = rng.standard_normal((1, LENGTH, WIDTH)).astype(np.float32)
        used = encoded.mask[0].sum()
        first, second = (words.tokenize(text) for text in example.texts)
        assert used == len(first) + len(second) + 3
        if reads == "words":
            both = []
            for tokens, at in ((first, 1), (second, len(first) + 2)):
                begin = "".join(tokens).index("mill")
                ends = np.cumsum([len(token) for token in tokens])
                inside = [at + i for i, end in enumerate(ends) if end > begin and end - len(tokens[i]) < begin + 4]
                both.append(hidden[0, inside].mean(0))
            x = np.concatenate([*both, abs(both[0] - both[1]), both[0] * both[1]])
        else:
            x = hidden[0, 0 if reads == "first" else used - 1]
        read = encoded.targets["read"][0].any(0)
        hidden[0, ~read] = np.nan
        dense = np.tanh(x @ np.asarray(head["dense"]["kernel"]) + np.asarray(head["dense"]["bias"]))
        expected = dense @ np.asarray(head["out"]["kernel"]) + np.asarray(head["out"]["bias"])
        close(task.logits(head, jnp.asarray(hidden), encoded.targets)[0], expected, 1e-6, reads)


def test_a_word_is_the_mean_of_its_tokens(words):
    task = Classification("t", ("0", "1"), reads="word", linear=True)
    text = "the lighthouse stands"
    encoded = task.encode([pair(texts=(text,), spans=((4, 14),))], words, LENGTH)
    weights = encoded.targets["read"][0, 0]
    shown = words.convert_ids_to_tokens(encoded.tokens[0, weights > 0])
    assert "".join(shown).replace("▁", "") == "lighthouse" and weights.sum() == pytest.approx(1)
    assert set(task.init_head(jax.random.key(0), WIDTH)) == {"out"}


def test_loss_is_torch_s(words):
    torch = pytest.importorskip("torch")
    examples = [pair(str(i), str(i % 3)) for i in range(5)]
    task = Classification("t", ("0", "1", "2"), linear=True)
    *_, batch = task.encode(examples, words, LENGTH).batches(3)  # the last row is a filler
    hidden = jax.random.normal(jax.random.key(0), (3, LENGTH, WIDTH))
    head = jax.tree.map(lambda x: x * 50, task.init_head(jax.random.key(1), WIDTH))
    total, weight = jax.jit(task.loss)(head, hidden, batch.targets)
    logits = torch.tensor(np.asarray(task.logits(head, hidden, batch.targets)))
    theirs = torch.nn.functional.cross_entropy(logits[:2], torch.tensor([0, 1]), reduction="sum")
    assert weight == 2
    close(total, theirs.item(), 1e-5)


def test_scores_chance_and_what_does_not_fit(words):
    examples = [pair("a", "0"), pair("b", "1"), pair("c", "1"), pair("d", ""), pair("e", "0", language="de")]
    encoded = PAWSX.encode(examples, words, LENGTH)
    assert encoded.counts == {"unlabelled": 1, "cut": 0, "lost": 0, "empty": 0} and len(encoded.examples) == 4
    scores = PAWSX.score({"logits": np.array([[1, 0], [1, 0], [0, 1], [1, 0.0]])}, encoded)
    assert scores.values["accuracy"].tolist() == [1, 0, 1, 1] and scores.predictions == ("0", "0", "1", "0")
    assert scores.chance["accuracy"].tolist() == [0, 1, 1, 1]  # "1" in English, "0" in German
    assert scores.table(10).score.sel(language="en").item() == pytest.approx(2 / 3)


def test_words_beyond_the_row_are_wrong_and_counted(words):
    task = Classification("t", ("0", "1"), reads="word")
    far = pair("far", texts=("the river " * 20 + "mill",), spans=((200, 204),))
    near = pair("near", texts=("the mill",), spans=((4, 8),))
    encoded = task.encode([far, near], words, 12)
    assert encoded.counts["lost"] == encoded.counts["cut"] == 1 and encoded.rows.tolist() == [1]
    scores = task.score({"logits": np.array([[0.0, 1.0]])}, encoded)
    assert scores.values["accuracy"].tolist() == scores.ceiling["accuracy"].tolist() == [0, 1]


def test_long_pairs_lose_the_longer_text_first(words):
    long = pair(texts=("the river " * 30, "by the mill"))
    encoded = PAWSX.encode([long], words, LENGTH)
    assert encoded.counts["cut"] == 1 and encoded.mask.all()
    assert words.decode(encoded.tokens[0]).endswith("by the mill</s>")
    assert PAWSX.encode([pair(texts=("", ""))], words, LENGTH).counts["empty"] == 1


def test_bad_input_is_named(words):
    with pytest.raises(InputError, match="example 'p' has the class 'maybe'"):
        PAWSX.encode([pair(label="maybe")], words, LENGTH)
    with pytest.raises(InputError, match="has 1 texts"):
        PAWSX.encode([pair(), pair("q", texts=("one",))], words, LENGTH)
    with pytest.raises(InputError, match="rows of 4 tokens"):
        PAWSX.encode([pair()], words, 4)
    with pytest.raises(InputError, match="spans"):
        Classification("t", ("0", "1"), reads="word").encode([pair(texts=("mill",), spans=((2, 9),))], words, LENGTH)
    with pytest.raises(InputError, match="reads is 'middle'"):
        Classification("t", ("0", "1"), reads="middle")
    with pytest.raises(InputError, match="two or more"):
        Classification("t", ("0",))


XNLI_COLUMNS = ["language", "gold_label", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse",
                "sentence2_parse", "sentence1", "sentence2", "promptID", "pairID", "genre", "label1"]


def test_xnli_files_as_published(tmp_path):
    rows = [[code, label, "", "", "", "", f'A "quote {code}', hypothesis, "31", pair, "facetoface", label]
            for code in ("de", "sw") for pair, label, hypothesis in
            (("91", "neutral", "B"), ("92", "contradiction", "C"), ("93", "-", "D"))]
    lines = ["\t".join(row) for row in [XNLI_COLUMNS, *rows]]
    (tmp_path / "xnli.test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "multinli.train.en.tsv").write_text(
        "premise\thypo\tlabel\nP1\tH1\tneutral\nP2\tH2\tcontradictory\nP1\tH3\tentailment\n", encoding="utf-8")
    examples = read_xnli(tmp_path)
    assert [(e.language, e.label, e.document, e.split) for e in examples] == [
        ("en", "neutral", "train/premise 0", "train"), ("en", "contradiction", "train/premise 1", "train"),
        ("en", "entailment", "train/premise 0", "train"),
        *[(code, label, "test/31", "test") for code in ("de", "sw") for label in ("neutral", "contradiction", "")]]
    assert examples[3].texts == ('A "quote de', "B")
    assert len(read_xnli(tmp_path / "xnli.test.tsv", ["sw"])) == 3
    assert {e.label for e in examples} - {""} == set(XNLI.labels)
    with pytest.raises(InputError, match="line 2: label 'yes' is none of"):
        (tmp_path / "xnli.test.tsv").write_text("\n".join([lines[0], lines[1].replace("neutral", "yes", 1)]))
        read_xnli(tmp_path)
    with pytest.raises(InputError, match="is none of xnli.dev.tsv"):
        (tmp_path / "xnli.tsv").write_text("a\n")
        read_xnli(tmp_path / "xnli.tsv")


def test_pawsx_files_as_published(tmp_path):
    for code, name in (
            ("en", "train.tsv"), ("de", "translated_train.tsv"), ("de", "test_2k.tsv"), ("en", "test_2k.tsv")):
        (tmp_path / code).mkdir(exist_ok=True)
        (tmp_path / code / name).write_text(
            'id\tsentence1\tsentence2\tlabel\n1\tIn "A" , B .\tB in A\t1\n2\tNS\tC\t0\n3\tD\tE\t0\n', encoding="utf-8")
    examples = read_pawsx(tmp_path, ["en", "de"])
    assert [e.split for e in examples if e.language == "de"] == ["train"] * 3 + ["test"] * 3
    assert [e.label for e in examples[:3]] == ["1", "", "0"] and examples[0].texts[0] == 'In "A" , B .'
    assert {e.document for e in examples} == {f"{split}/{i}" for split in ("train", "test") for i in (1, 2, 3)}
    with pytest.raises(InputError, match="no dev_2k.tsv"):
        read_pawsx(tmp_path, splits=["dev"])
    with pytest.raises(InputError, match="PAWS-X's languages"):
        read_pawsx(tmp_path / "de")


def test_topics_of_the_embedded_corpus_are_learned_from_pieces():
    """A body that is a table of the pieces, and a a head trained by gradient descent: far above the majority."""
    corpus = mini_world("probe", languages=("eng", "deu"), dose=0.3)
    examples = split_by_documents(topic_examples(corpus), {"train": 2, "test": 1})
    task = Classification("topics", tuple(sorted({e.label for e in examples})), reads="last", linear=True)
    assert len(task.labels) == 6 and all(e.label for e in examples)

    def body(params, tokens, mask):
        total = (params[tokens] * mask[..., None]).sum(1)
        return jnp.broadcast_to(total[:, None], (*tokens.shape, total.shape[-1]))

    pieces = train_tokenizer(corpus, 700, objective="masked")
    train, test = (task.encode([e for e in examples if e.split == split], pieces, 24) for split in ("train", "test"))
    params, head = jnp.eye(len(pieces)), task.init_head(jax.random.key(0), len(pieces))
    hidden = body(params, jnp.asarray(train.tokens), jnp.asarray(train.mask))

    @jax.jit
    def descend(head):
        gradient = jax.grad(lambda head: mean_loss(task, head, hidden, train.targets))
        down = lambda _, head: jax.tree.map(lambda x, g: x - 0.3 * g, head, gradient(head))
        return jax.lax.fori_loop(0, 200, down, head)

    table = evaluate(task, body, params, descend(head), test).table(100)
    assert (table.score > table.chance + 0.15).all(), table


def test_topics_of_sib200(data):
    corpus = read_sib200(data, ["eng_Latn", "swh_Latn"])
    examples = topic_examples(corpus)
    assert len(examples) == 2008 and len({e.label for e in examples}) == 7
    names = [{e.name for e in examples if e.language == language} for language in corpus.language_names]
    assert names[0] == names[1] and len(names[0]) == 1004
    with pytest.raises(InputError, match="0 concept.*'topics'.*did you mean topic"):
        topic_examples(corpus, "topics")
