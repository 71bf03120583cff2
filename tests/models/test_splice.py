"""P15 for splices: a function of what a site holds, in one layer, at named positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import KERNEL, close

from xlingjax.errors import InputError
from xlingjax.models import Edit, Model, Splice, TransformerConfig, forward, init_params
from xlingjax.models import model as model_file
from xlingjax.models.generating import positions

CONFIG = TransformerConfig(vocab_size=31, layers=3, width=12, heads=3, mlp_width=20)
TOKENS = np.random.default_rng(0).integers(0, 31, (4, 7))
MASK = np.arange(7)[None] >= np.array([0, 2, 4, 6])[:, None]
WHERE = np.random.default_rng(1).random((4, 7)) < 0.5


@pytest.fixture(scope="module")
def model() -> Model:
    params = jax.tree.map(lambda x: 5 * x if x.ndim > 1 else x, init_params(CONFIG, jax.random.key(0)))
    return Model(params, CONFIG, name="tiny")


@dataclasses.dataclass(frozen=True)
class Affine:
    """h a + b, and a share of each row's own vector."""

    share: float = 1.0

    def __call__(self, h, params, rows):
        return h * params["a"] + params["b"] + self.share * (0 if rows is None else rows[:, None])


PARAMS = {"a": np.float32(1.5), "b": np.linspace(-1, 1, 12, dtype=np.float32)}
ROWS = np.random.default_rng(2).standard_normal((4, 12)).astype(np.float32)


def as_edit(layer: int, rows: np.ndarray | None, where: np.ndarray | None) -> Edit:
    """The same change in the words of an edit."""
    scale = np.ones((3, 1, 1, 12), np.float32)
    add = np.zeros((3, 4, 1, 12), np.float32)
    scale[layer] *= PARAMS["a"]
    add[layer] += PARAMS["b"] + (0 if rows is None else rows[:, None])
    return Edit(scale=scale, add=add, where=where)


@pytest.mark.promise
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("rows", [None, ROWS], ids=["alike", "rows"])
@pytest.mark.parametrize("where", [None, WHERE], ids=["everywhere", "some"])
def test_a_splice_is_the_edit_that_says_the_same(model, layer, rows, where) -> None:
    spliced = model(TOKENS, MASK, ("resid",), {"resid": Splice(Affine(), PARAMS, layer, rows, where)})
    edited = model(TOKENS, MASK, ("resid",), {"resid": as_edit(layer, rows, where)})
    close(spliced.captured["resid"][:, MASK], edited.captured["resid"][:, MASK], KERNEL["float32"])
    close(spliced.hidden[MASK], edited.hidden[MASK], KERNEL["float32"])
    np.testing.assert_array_equal(spliced.edited["resid"], edited.edited["resid"])
    plain = model(TOKENS, MASK, ("resid",)).captured["resid"]
    np.testing.assert_array_equal(spliced.captured["resid"][:layer], plain[:layer])  # earlier layers have not seen it


def test_padding_is_never_edited(model) -> None:
    out = model(TOKENS, MASK, ("embed",), {"embed": Splice(Affine(), PARAMS)}).captured["embed"]
    plain = model(TOKENS, MASK, ("embed",)).captured["embed"]
    np.testing.assert_array_equal(out[0][~MASK], plain[0][~MASK])
    assert (out[0][MASK] != plain[0][MASK]).any(-1).all()


@pytest.mark.promise
def test_layer_parameters_and_rows_are_data(model) -> None:
    model(TOKENS, MASK, edits={"resid": Splice(Affine(), PARAMS, 0, ROWS)})
    before = model_file._run._cache_size()
    model(TOKENS, MASK, edits={"resid": Splice(Affine(), {**PARAMS, "a": np.float32(7)}, 2, -ROWS)})
    assert model_file._run._cache_size() == before


def test_gradients_pass(model) -> None:
    def total(params, layer):
        splice = Splice(Affine(), params, layer)
        hidden, _ = forward(model.params, CONFIG, TOKENS, MASK, edits={"mlp.down": splice})
        return jnp.where(MASK[..., None], hidden * ROWS[:, None], 0).sum()  # a plain sum is constant under the norm

    params = jax.tree.map(jnp.asarray, PARAMS)
    slope = jax.grad(total)(params, 1)
    step = 1e-2
    moved = [total({**params, "a": params["a"] + sign * step}, 1) for sign in (1, -1)]
    np.testing.assert_allclose(slope["a"], (moved[0] - moved[1]) / (2 * step), rtol=0.02)


@pytest.mark.promise
@pytest.mark.parametrize("which", ["every", "generated"])
def test_generation_under_a_splice_is_a_full_pass_under_it(model, which) -> None:
    new = 6
    splice = Splice(Affine(), PARAMS, 1, ROWS, positions(which, 7, new))
    made = model.generate(TOKENS, MASK, {"resid": splice}, max_new_tokens=new, stop=(), capture=("resid",))
    whole = np.concatenate([TOKENS, made.tokens], 1)
    real = np.concatenate([MASK, np.ones((4, new), bool)], 1)
    out = model(whole, real, ("resid",), {"resid": splice})
    np.testing.assert_allclose(made.captured["resid"], out.captured["resid"][:, :, 7:], atol=2e-5)
    np.testing.assert_array_equal(np.asarray(out.logits())[:, 6:-1].argmax(-1), made.tokens)
    np.testing.assert_array_equal(made.edited["resid"], (real & splice.where).sum(1))


def test_what_does_not_fit_is_named(model) -> None:
    with pytest.raises(InputError, match="layer of the splice of site 'resid' is 3; give a whole number from 0 to 2"):
        model(TOKENS, MASK, edits={"resid": Splice(Affine(), PARAMS, 3)})
    with pytest.raises(InputError, match="where of the edit of site 'resid'"):
        model(TOKENS, MASK, edits={"resid": Splice(Affine(), PARAMS, 1, None, np.ones((4, 3), bool))})
    with pytest.raises(InputError, match="rows do not agree"):
        model.generate(TOKENS, MASK, {"resid": Splice(Affine(), PARAMS, 1, ROWS[:3])}, max_new_tokens=2)
    with pytest.raises(InputError, match="give an Edit or a Splice"):
        model(TOKENS, MASK, edits={"resid": 3})
