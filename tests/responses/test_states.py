"""Hidden states of chosen tokens equal those of the sentence run alone."""

import jax
import numpy as np
import pytest
import tiny
from tolerances import BATCHING, close

from xlingjax.errors import InputError
from xlingjax.models.transformer import forward
from xlingjax.responses import collect_tokens


@pytest.mark.promise
def test_states_of_ragged_choices():
    model, tokens, draw = (
        tiny.model(),
        tiny.sentences(25, lengths=(2, 5, 9, 20)),
        np.random.default_rng(0),
    )
    positions = [draw.permutation(len(ids))[: draw.integers(0, 5)] for ids in tokens.ids]
    found = collect_tokens(model, tokens, positions, batch_tokens=96)
    step = jax.jit(
        lambda ids, mask: forward(
            model.params, model.config, ids, mask, capture=("embed", "resid")
        )[1]
    )
    at = 0
    for row, (ids, places) in enumerate(zip(tokens.ids, positions)):
        captured = step(ids[None], np.ones((1, len(ids)), bool))
        alone = np.concatenate([captured["embed"], captured["resid"]])[:, 0]
        part = slice(at, at + len(places))
        close(found.states[:, part], alone[:, places], BATCHING)
        assert found.rows[part].tolist() == [row] * len(places)
        assert found.positions[part].tolist() == places.tolist()
        assert found.ids[part].tolist() == ids[places].tolist()
        at += len(places)
    assert found.states.shape == (1 + 3, at, 16) and found.states.dtype == np.float32


def test_other_sites():
    tokens = tiny.sentences(3)
    found = collect_tokens(tiny.model(), tokens, [[0], [], [1, 1]], sites=("mlp.act",))
    assert found.states.shape == (3, 3, 40) and found.rows.tolist() == [0, 2, 2]
    close(found.states[:, 1], found.states[:, 2], 0)


@pytest.mark.parametrize(
    "positions, sites, message",
    [
        ([[0], [99], []], ("resid",), "positions of sentence 1 reach from 99 to 99"),
        ([[-1], [], []], ("resid",), "positions of sentence 0 reach from -1"),
        ([[0]], ("resid",), "given for 1 sentences of 3"),
        ([[], [], []], ("resid",), "no token is chosen"),
        ([[0], [], []], ("resid", "mlp.up"), "unequal widths"),
        ([[0], [], []], ("residue",), "site 'residue' is not in tiny-0"),
    ],
)
def test_refused(positions, sites, message):
    with pytest.raises(InputError, match=message):
        collect_tokens(tiny.model(), tiny.sentences(3), positions, sites)
