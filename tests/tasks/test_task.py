"""What all tasks share: batches, splits by documents, scores with chance, ceiling and intervals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_questions import tokenizer

from xlingjax.errors import InputError
from xlingjax.tasks import Classification, Encoded, Example, Scores, evaluate, predict, select, split_by_documents
from xlingjax.tasks.task import _program

EXAMPLES = tuple(
    Example(f"{i}", (f"the river {i}",), code, f"d{i // 3}", label=("no", "yes")[i % 2])
    for code in ("eng", "deu") for i in range(12))
TASK = Classification("toy", ("no", "yes"))


def encoded(rows: int) -> Encoded:
    tokens = np.arange(rows)[:, None] * 10 + np.arange(4)
    return Encoded(EXAMPLES[:rows], tokens.astype(np.int32), np.ones((rows, 4), bool), np.arange(rows),
                   {"label": np.arange(rows, dtype=np.int32), "weight": np.ones(rows, np.float32)})


def test_every_epoch_has_every_row_once_in_another_order():
    some = encoded(10)
    drawn = np.concatenate([some.batch(step, 4, seed=0).rows for step in range(5)])  # two epochs
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert (drawn[:10] != drawn[10:]).any()
    assert (some.batch(3, 4, seed=0).rows == drawn[12:16]).all()  # any step, without those before
    assert (some.batch(0, 4, seed=1).rows != drawn[:4]).any()
    assert some.batch(0, 25, seed=0).tokens.shape == (25, 4)  # more than there are


def test_batches_in_order_are_filled_up():
    parts = list(encoded(10).batches(4))
    assert [part.rows.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]
    last = parts[-1]
    assert last.tokens[1].tolist() == [90, 91, 92, 93] and not last.tokens[2:].any() and not last.mask[2:].any()
    assert last.targets["weight"].tolist() == [1, 1, 0, 0] and last.targets["label"].tolist() == [8, 9, 0, 0]
    assert encoded(10).steps(4) == 3 and list(encoded(0).batches(4)) == []
    with pytest.raises(InputError, match="nothing to train on"):
        encoded(0).batch(0, 4, seed=0)


def test_documents_lie_in_one_split_in_all_languages():
    split = split_by_documents(EXAMPLES, {"train": 2, "test": 2}, seed=3)
    homes: dict[str, set[str]] = {}
    for e in split:
        homes.setdefault(e.document, set()).add(e.split)
    assert all(len(home) == 1 for home in homes.values()) and len(homes) == 4
    assert {len(select(split, ["deu"], name)) for name in ("train", "test")} == {6}
    assert [dataclasses.replace(e, split="") for e in split] == list(EXAMPLES)
    with pytest.raises(InputError, match="4 independent document"):
        split_by_documents(EXAMPLES, dict.fromkeys("abcde", 1))
    with pytest.raises(InputError, match="no example in languages"):
        select(split, ["fra"])


def test_table_is_means_and_percentiles_by_documents():
    value = np.array([1.0, 0.0, 1.0] * 8)
    scores = Scores(EXAMPLES, ("no",) * 24, {"accuracy": value}, {"accuracy": value / 2}, {"accuracy": value + 1})
    table = scores.table(draws=400)
    assert table.score.values == pytest.approx(2 / 3) and table.chance.values == pytest.approx(1 / 3)
    assert table.low.values == pytest.approx(2 / 3)  # all documents have the same mean: no spread between them
    uneven = np.repeat([1.0, 1.0, 0.0, 0.0] * 2, 3)
    table = Scores(EXAMPLES, ("no",) * 24, *[{"accuracy": uneven}] * 3).table(draws=4000)
    counts = np.random.default_rng(0).binomial(4, 0.5, 100_000) / 4  # four documents, drawn with replacement
    assert (table.low.values == np.quantile(counts, 0.025)).all() and (table.high.values == 1).all()
    assert table.documents.values.tolist() == [4, 4] and table.examples.values.tolist() == [12, 12]
    assert (table.low.sel(language="eng") == table.low.sel(language="deu")).all()  # the same documents are drawn


def body(params, tokens, mask):
    return params["table"][tokens] * mask[..., None]


def test_all_parameters_and_languages_share_one_program():
    """Also another number of rows: batches have one shape."""
    _program.cache_clear()
    words, head = tokenizer(), TASK.init_head(jax.random.key(0), 8)
    for seed, code in enumerate(("eng", "deu")):
        params = {"table": jax.random.normal(jax.random.key(seed), (600, 8))}
        rows = TASK.encode(select(EXAMPLES, [code])[:7 + seed], words, 16)
        outputs = predict(TASK, body, params, head, rows, 4)
        assert outputs["logits"].shape == (7 + seed, 2)
        alone = TASK.logits(head, body(params, jnp.asarray(rows.tokens), jnp.asarray(rows.mask)), rows.targets)
        np.testing.assert_allclose(outputs["logits"], alone, atol=1e-6)
    assert _program(TASK, body)._cache_size() == 1
    assert set(evaluate(TASK, body, params, head, rows, 4).means()) == {"accuracy"}


def test_nothing_to_predict_is_said():
    rows = dataclasses.replace(encoded(0), targets={})
    with pytest.raises(InputError, match="nothing to predict"):
        predict(TASK, body, {}, {}, rows)
