"""Stored components are those of whole gradients; with all of them scores are the influence itself."""

import numpy as np
import pytest
from test_influence import CONFIGS, model_of, sequences
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.influence import store as storing
from xlingjax.influence.factors import FactorSettings, fit_factors
from xlingjax.influence.scoring import pairwise, sequence_gradients
from xlingjax.influence.store import store_gradients


def fitted(name: str = "plain"):
    model, tokens = model_of(CONFIGS[name]), sequences(11, longest=14)  # batches of two lengths, out of order
    return model, tokens, fit_factors(model, tokens, FactorSettings())


@pytest.mark.promise
def test_all_components_are_the_whole_influence(tmp_path) -> None:
    model, tokens, made = fitted()
    queries = sequence_gradients(model, made.matrices, sequences(3, seed=5))
    wanted = pairwise(model, made.matrices, made.precondition(queries), tokens).sum((2, 3))
    store = store_gradients(model, made, tokens, tmp_path / "all", components=10**6, block=4, batch_tokens=16)
    assert store.captured == pytest.approx(1)
    close(store.scores(queries) / np.abs(wanted).max(), wanted / np.abs(wanted).max(), 1e-5)
    order, values = store.nearest(queries, 3)
    np.testing.assert_array_equal(order, np.argsort(-wanted, axis=1)[:, :3])
    assert (np.diff(values, axis=1) <= 0).all()
    few = store_gradients(model, made, tokens, tmp_path / "few", components=30)
    assert 0.3 < few.captured < 1
    assert np.corrcoef(few.scores(queries).reshape(-1), wanted.reshape(-1))[0, 1] > 0.7


def test_a_store_goes_on_and_refuses_another(tmp_path, monkeypatch) -> None:
    model, tokens, made = fitted("gated, no biases")
    real, calls = storing._components, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(storing, "_components", dies)
    with pytest.raises(KeyboardInterrupt):
        store_gradients(model, made, tokens, tmp_path, components=9, block=4, batch_tokens=16)
    calls.clear()
    monkeypatch.setattr(storing, "_components", lambda *args: calls.append(1) or real(*args))
    whole = store_gradients(model, made, tokens, tmp_path, components=9, block=4, batch_tokens=16)
    assert len(calls) == whole.blocks - 1, "the finished block is read"
    asked = sequence_gradients(model, made.matrices, sequences(2, seed=5))
    apart = store_gradients(model, made, tokens, tmp_path.parent / "apart", components=9, block=11)
    close(whole.scores(asked), apart.scores(asked), 1e-5 * np.abs(apart.scores(asked)).max())
    with pytest.raises(InputError, match="components was 9 and is 8"):
        store_gradients(model, made, tokens, tmp_path, components=8, block=4, batch_tokens=16)
    with pytest.raises(InputError, match="components is 0"):
        store_gradients(model, made, tokens, tmp_path, components=0)
