"""Losses, slopes and whole steps against torch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_recipes
from tiny_dictionaries import KINDS, planted, settings, spec
from tolerances import KERNEL, close

from xlingjax.sae import objectives
from xlingjax.sae.coder import encode, init_dictionary
from xlingjax.sae.objectives import Run, latents, loss, tiers
from xlingjax.sae.packing import map_named, pack
from xlingjax.sae.training import group_runs
from xlingjax.sae.updating import first_state, update

D, M, B = 12, 40, 32


def flat(params) -> dict[str, np.ndarray]:
    named = {}
    map_named(lambda name, leaf: named.__setitem__(name, np.array(leaf)), params)
    return named


def drawn(config, seed: int = 0):
    """Parameters away from any start: biases and rows of the decoder drawn, thresholds above 0."""
    draw = np.random.default_rng(seed)
    params = init_dictionary(config, jax.random.key(seed))
    moved = map_named(lambda name, leaf: np.array(
        leaf + 0.1 * draw.standard_normal(leaf.shape), np.float32), params)
    if config.kind == "jumprelu":
        moved["threshold"] = draw.uniform(0.1, 0.6, M).astype(np.float32)
    return moved


def prepared(kind: str, sparse: bool = False, clip=None, **options):
    """(program, run) of one dictionary, activations taken as they are."""
    one = spec(kind, D, M, sparsity=0.7, **options)
    program = dataclasses.replace(group_runs([one], settings(clip=clip, dead_after=64, aux_k=6), None)[0].program,
                                  sparse=sparse)
    run = Run(which=0, seed=0, k=max(1, one.config.k), sparsity=np.float32(one.sparsity), rate=np.float32(1e-3),
              target_l0=np.float32(one.target_l0), width=M, scale_in=np.float32(1), scale_out=np.float32(1))
    return one.config, program, run


def batch(seed: int = 0) -> np.ndarray:
    return planted(B, D, 16, seed)[0][0]


CASES = [("relu", {}), ("gated", {}), ("topk", {}), ("batch_topk", {}), ("matryoshka", {}), ("jumprelu", {}),
         ("jumprelu", {"target_l0": 5.0}), ("relu", {"config": {"outputs": 9, "centred": False, "skip": True}}),
         ("gated", {"config": {"outputs": 9, "centred": False, "skip": True}}),
         ("topk", {"config": {"outputs": 9, "centred": False}})]


# Only kinds with k revive dead latents in their loss; only centred "topk" has the sparse way.
WAYS = [(kind, options, sparse, revival) for kind, options in CASES for sparse in (False, True) for revival in range(4)
        if (not sparse or (kind == "topk" and not options)) and (not revival or "top" in kind or kind == "matryoshka")]


@pytest.mark.promise
@pytest.mark.parametrize(("kind", "options", "sparse", "revival"), WAYS, ids=str)
def test_loss_and_slopes_against_torch(kind, options, sparse, revival) -> None:
    config, program, run = prepared(kind, sparse, **options)
    params, x = drawn(config), batch()
    y = x if config.out == D else np.random.default_rng(5).standard_normal((B, config.out)).astype(np.float32)
    # No latent is dead, four are, half of them are, most of them are: each has a branch of its own.
    quiet = np.zeros(M, np.int32)
    count = (0, 5, 22, 34)[revival]
    quiet[:count] = 1000
    params["encoder"]["bias"][:count] -= (0, 1, 1, 8)[revival]  # seldom among the largest
    ours = jax.jit(functools.partial(jax.value_and_grad(loss, has_aux=True), program=program))
    (value, seen), slope = ours(params, run=run, x=x, y=y, quiet=quiet, penalty=jnp.float32(1),
                                revival=jnp.int32(revival))
    theirs = {name: torch.nn.Parameter(torch.tensor(leaf)) for name, leaf in flat(params).items()}
    arguments = {"sparsity": float(run.sparsity), "k": config.k, "groups": config.groups, "centred": config.centred,
                 "bandwidth": program.bandwidth, "target_l0": float(run.target_l0)}
    with torch.no_grad():
        f = torch_recipes.loss(theirs, kind, torch.tensor(x), torch.tensor(y), **arguments)[1]
    dead = torch.tensor(quiet >= 32) & ~(f > 0).any(0)
    bounds = (0, *tiers(program.aux_k, M))
    assert bounds == (0, 6, 24, 40) and dead.sum() <= bounds[revival]
    assert revival == 0 or dead.sum() > (0, 0, 6, 24)[revival], int(dead.sum())
    wanted, _ = torch_recipes.loss(theirs, kind, torch.tensor(x), torch.tensor(y), dead=dead, aux_k=6,
                                   aux_weight=program.aux_weight, **arguments)
    wanted.backward()
    np.testing.assert_allclose(value, wanted.detach().numpy(), rtol=2e-6)
    np.testing.assert_array_equal(seen.counts, (f > 0).sum(0).numpy())
    if kind in ("batch_topk", "matryoshka"):
        np.testing.assert_allclose(seen.smallest, f[f > 0].min(), rtol=1e-6)
    for name, leaf in flat(slope).items():
        theirs_grad = theirs[name].grad
        right = np.zeros_like(leaf) if theirs_grad is None else theirs_grad.numpy()
        close(leaf, right, 1e-5 * max(1, np.abs(right).max()), name)


@pytest.mark.promise
@pytest.mark.parametrize(("kind", "sparse"), [("gated", False), ("topk", False), ("topk", True), ("batch_topk", False)])
def test_three_steps_of_the_peers_recipe(kind, sparse) -> None:
    """Gradients across the decoder's rows, clipping for kinds with k, Adam, rows of norm 1; dead latents revived."""
    config, program, run = prepared(kind, sparse)
    params = flat(drawn(config))
    params["decoder/kernel"] /= np.linalg.norm(params["decoder/kernel"], axis=1, keepdims=True)
    params["encoder/bias"][:10] -= 2  # some that will be dead by the third step
    batches = [batch(seed) for seed in range(3)]
    nested = map_named(lambda name, leaf: params[name], init_dictionary(config, jax.random.key(0)))
    runs = Run(*(jnp.asarray(value)[None] for value in run))
    state = jax.tree.map(jnp.asarray, first_state(pack([nested], kind, M), program))
    for x in batches:
        state, metrics = update(program, state, runs, x[None], None, jnp.float32(1), jnp.float32(1), jnp.bool_(False))
    wanted = torch_recipes.train(
        {name: leaf for name, leaf in params.items() if kind == "jumprelu" or name != "threshold"}, kind, batches,
        rate=1e-3, beta_1=program.beta_1, clip=program.clip, dead_after=64 if config.k else 0,
        sparsity=float(run.sparsity), k=config.k, aux_k=6, aux_weight=program.aux_weight)
    assert (program.clip, program.beta_1) == ((0, 0) if kind == "gated" else (1, 0.9))
    if config.k:
        assert metrics[0, 3] > 0, "the case has dead latents"
    for name, leaf in wanted.items():
        assert np.abs(leaf - params[name]).max() > 1e-4
        close(flat(state["params"])[name][0], leaf, 1e-5, name)


@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_the_latents_that_the_dictionary_gives(kind) -> None:
    config, program, run = prepared(kind)
    params, x = drawn(config), batch()
    _, f, _ = jax.jit(functools.partial(latents, program=program))(params, run=run, x=x, real=jnp.ones(M, bool))
    if kind in ("batch_topk", "matryoshka"):
        # The threshold just below the smallest active value makes the same choice.
        params["threshold"] = np.float32(np.asarray(f)[np.asarray(f) > 0].min() * (1 - 1e-5))
    close(f, encode(params, config, x), KERNEL["float32"])


def test_the_slope_of_the_centred_product() -> None:
    draw = np.random.default_rng(0)
    arrays = [draw.standard_normal(shape).astype(np.float32) for shape in ((9, 5), (5,), (5, 7), (9, 7))]
    plain = jax.grad(lambda x, b, w, g: (((x - b) @ w) * g).sum(), (1, 2))(*arrays)
    ours = jax.grad(lambda x, b, w, g: (objectives.centred_product(x, b, w) * g).sum(), (1, 2))(*arrays)
    for one, other in zip(ours, plain):
        close(one, other, 1e-5)
