"""Static embeddings: the loss and its gradient against torch, the pairs against a plain loop, what is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import KERNEL, close

from xlingjax.errors import InputError
from xlingjax.transfer import static
from xlingjax.transfer.static import StaticSettings, pair_losses, train_static, word_ids


def test_loss_and_gradient_are_torch_s():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape).astype(np.float32) for shape in ((6, 4), (6, 4), (3, 4))]
    ours, gradients = jax.value_and_grad(lambda rows: pair_losses(*rows, 2.5).sum())([jnp.asarray(x) for x in given])
    u, v, n = (torch.tensor(x, requires_grad=True) for x in given)
    right = torch.sigmoid((u * v).sum(1)).log()
    wrong = torch.stack([torch.sigmoid(-(u * row).sum(1)).log() for row in n]).mean(0)
    theirs = -(right + 2.5 * wrong).sum()
    theirs.backward()
    close(ours, theirs.item(), 10 * KERNEL["float32"])
    for mine, other in zip(gradients, (u, v, n)):
        close(mine, other.grad.numpy(), KERNEL["float32"])


def test_one_step_is_adagrad_of_the_whole_tables():
    """Rows that occur twice in a step get the sum of their gradients, and only rows of the step move."""
    settings = StaticSettings(width=4, batch=3, drawn=2, negatives=2.0, learning_rate=0.05)
    state = static._initial(7, settings)
    state["out"] = jax.random.normal(jax.random.key(5), (7, 4))
    before = jax.tree.map(np.asarray, state)
    steps = static.STEPS
    centres, contexts = (np.zeros((steps, 3), np.int32) for _ in range(2))
    centres[0], contexts[0] = [2, 2, 3], [4, 5, 4]
    weights = np.zeros((steps, 3), np.float32)
    weights[0] = 1  # the other steps have no pair and must change nothing
    noise = jnp.asarray([0, 0, 0, 0, 0, 0, 1.0], jnp.float32)  # only token 6 is ever drawn
    after, loss = static._steps(7, settings)(state, noise, centres, contexts, weights, jax.random.key(0))

    def whole(tables):
        into, out = tables
        return pair_losses(into[centres[0]], out[contexts[0]], out[jnp.array([6, 6])], 2.0).sum()

    total, gradients = jax.value_and_grad(whole)((jnp.asarray(before["in"]), jnp.asarray(before["out"])))
    for table, gradient, name in zip((before["in"], before["out"]), gradients, ("in", "out")):
        expected = table - 0.05 * np.asarray(gradient) / np.sqrt(1e-3 + np.asarray(gradient) ** 2)
        close(after[name], expected, KERNEL["float32"], name)
    close(loss, total / 3, 10 * KERNEL["float32"])
    assert (np.asarray(after["in"])[[0, 1, 4, 5, 6]] == before["in"][[0, 1, 4, 5, 6]]).all()


def test_pairs_are_those_of_a_plain_loop():
    ids, owner = np.array([5, 6, 7, 8, 9, 5, 6]), np.array([0, 0, 0, 0, 1, 1, 1])
    got = sorted(zip(*(side.tolist() for side in static._pairs(ids, owner, 2, np.random.default_rng(3)))))
    reach = np.random.default_rng(3).integers(1, 3, len(ids))
    expected = sorted((int(ids[i]), int(ids[j])) for i in range(7) for j in range(7)
                      if i != j and abs(i - j) <= reach[i] and owner[i] == owner[j])
    assert got == expected


def test_same_seed_same_bytes_other_seed_other_ones():
    texts = [np.random.default_rng(i).integers(0, 12, 9) for i in range(30)]
    settings = StaticSettings(width=8, epochs=2, batch=32, drawn=8)
    one, two = (train_static(texts, 13, settings) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert (one != train_static(texts, 13, StaticSettings(width=8, epochs=2, batch=32, drawn=8, seed=1))).any()
    assert not one[12].any() and one[:12].any(1).all()


def test_words_of_one_class_become_alike():
    """Two classes of words that occur in each other's company only."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 6, 8) + 6 * (i % 2) for i in range(400)]
    table = train_static(texts, 12, StaticSettings(width=8, epochs=10, batch=128, drawn=32, subsample=0))
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert min(cosine[:6, :6].min(), cosine[6:, 6:].min()) > cosine[:6, 6:].max() + 0.5


def test_frequent_words_are_left_out_as_often_as_told():
    texts = [np.concatenate([np.zeros(50, int), np.arange(1, 51)]) for _ in range(40)]
    count = np.bincount(np.concatenate(texts), minlength=51)
    settings = StaticSettings(window=1, subsample=1e-3, epochs=1)
    [(tokens, (centres, contexts))] = list(static._blocks(texts, count, settings))
    ratio = 1e-3 / 0.5
    expected = 2000 * (np.sqrt(ratio) + ratio)
    assert tokens == 4000
    occurs = np.count_nonzero(contexts == 0) / 2  # each token has a left and a right neighbour
    assert abs(occurs - expected) < 5 * np.sqrt(expected)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="no text of two tokens"):
        train_static([np.array([1])], 4)
    with pytest.raises(InputError, match="between 1 and 4, not in a vocabulary of 4"):
        train_static([np.array([1, 4])], 4)
    with pytest.raises(InputError, match="batch is 0"):
        StaticSettings(batch=0)
    assert word_ids([]) == ((), [])
