"""The LSTM with attention against torch: its own LSTM with the same weights, attention written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tolerances import BATCHING, PARITY, close

from xlingjax.errors import InputError
from xlingjax.models.lstm import LstmConfig, forward_lstm_pair, init_lstm_pair, unembed_lstm

CONFIG = LstmConfig(vocab_size=23, width=12, layers=2)


@pytest.fixture(scope="module")
def params():
    """Random, with no bias at zero."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.2, leaf.shape).astype(np.float32),
                        init_lstm_pair(CONFIG, jax.random.key(1)))


def batch():
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 23, (3, 9)), rng.integers(0, 23, (3, 6))
    return tokens, np.arange(9) < np.array([[9], [4], [1]]), targets, np.arange(6) < np.array([[3], [6], [1]])


def torch_lstm(half) -> torch.nn.LSTM:
    theirs = torch.nn.LSTM(CONFIG.width, CONFIG.width, CONFIG.layers, batch_first=True)
    with torch.no_grad():
        for layer in range(CONFIG.layers):
            of = lambda part, layer=layer: torch.tensor(np.asarray(part[layer]))
            getattr(theirs, f"weight_ih_l{layer}").copy_(of(half["read"]["kernel"]).T)
            getattr(theirs, f"weight_hh_l{layer}").copy_(of(half["state"]["kernel"]).T)
            getattr(theirs, f"bias_ih_l{layer}").copy_(of(half["read"]["bias"]))
            getattr(theirs, f"bias_hh_l{layer}").zero_()
    return theirs


def by_hand(params, tokens, targets) -> np.ndarray:
    """Logits of one row without padding."""
    of = lambda leaf: torch.tensor(np.asarray(leaf))
    table = of(params["embed"]["tokens"]["embedding"])
    with torch.no_grad():
        read, state = torch_lstm(params["encoder"])(table[torch.tensor(tokens)][None])
        queries, _ = torch_lstm(params["decoder"])(table[torch.tensor(targets)][None], state)
        score = of(params["attention"]["score"]["kernel"])
        out = []
        for query in queries[0]:
            weights = torch.softmax(torch.stack([query @ score @ one for one in read[0]]), 0)
            seen = sum(w * one for w, one in zip(weights, read[0]))
            mixed = torch.cat([seen, query]) @ of(params["attention"]["mix"]["kernel"])
            out.append(table @ torch.tanh(mixed + of(params["attention"]["mix"]["bias"])))
    return torch.stack(out).numpy()


def test_it_is_torchs_lstm_with_luongs_attention(params):
    tokens, mask, targets, own = batch()
    hidden = forward_lstm_pair(params, CONFIG, tokens, mask, targets, own)
    logits = np.asarray(unembed_lstm(params, hidden))
    for row in range(3):
        wanted = by_hand(params, tokens[row][mask[row]], targets[row][own[row]])
        assert np.abs(wanted).max() > 0.1
        close(logits[row][own[row]], wanted, PARITY["float32"], f"row {row}")


def test_padding_of_either_side_changes_nothing(params):
    tokens, mask, targets, own = batch()
    whole = np.asarray(forward_lstm_pair(params, CONFIG, tokens, mask, targets, own))
    broken = {**params, "embed": {"tokens": {"embedding": params["embed"]["tokens"]["embedding"].at[0].set(jnp.nan)}}}
    left, right = np.flip(tokens, 1).copy(), np.flip(mask, 1)
    for row in range(3):  # the same tokens at the end of the row, and NaN where the padding points
        left[row, right[row]] = tokens[row, mask[row]]
    clean = np.where(mask, np.maximum(tokens, 1), 0)
    wanted = np.asarray(forward_lstm_pair(params, CONFIG, clean, mask, np.maximum(targets, 1), own))
    found = np.asarray(forward_lstm_pair(broken, CONFIG, clean, mask, np.where(own, np.maximum(targets, 1), 0), own))
    close(np.asarray(forward_lstm_pair(params, CONFIG, left, right, targets, own))[own], whole[own], BATCHING)
    # Token 0 is read by nobody; the state is multiplied by nothing of it.
    close(found[own], wanted[own], BATCHING)


def test_a_gradient_reaches_every_parameter(params):
    tokens, mask, targets, own = batch()
    loss = lambda p: (unembed_lstm(p, forward_lstm_pair(p, CONFIG, tokens, mask, targets, own)) ** 2).sum()
    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(gradients))


def test_a_shape_that_is_none_is_named():
    with pytest.raises(InputError, match="layers is 0"):
        LstmConfig(vocab_size=3, width=4, layers=0)
