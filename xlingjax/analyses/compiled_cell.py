"""From tokens to overlaps in one compiled program, for corpora whose responses fit on the device.

The forward pass, pooling, average precision of every neuron for every concept in every language,
expert sets and their overlap are one jitted function of parameters, tokens and labels: no response
leaves the device. `collect` and `concept_experts` give the same numbers where it does not fit, and
the nulls and ceilings that a claim needs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from xlingjax.corpora.batching import counted, make_batch, plan_batches
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import tokenise
from xlingjax.errors import InputError
from xlingjax.kernels.experts import expert_sets, set_overlap
from xlingjax.kernels.ranking import average_precision
from xlingjax.models import Model
from xlingjax.models.transformer import forward
from xlingjax.responses.jobs import BATCH_TOKENS, read_sites
from xlingjax.sharding import batch_shards


class Rows(NamedTuple):
    """A corpus as arrays of one shape, n batches of B rows; filler rows count nothing."""

    tokens: np.ndarray  # int32[n, B, T]
    mask: np.ndarray  # bool[n, B, T]
    where: np.ndarray  # bool[n, B, T]
    labels: np.ndarray  # bool[n * B, C]
    counts: np.ndarray  # bool[n * B, C], labelled sentences
    language: np.ndarray  # int32[n * B], -1 = filler


class CompiledCell(NamedTuple):
    """What comes back: every language against every other, on the same sentences."""

    ap: Float[Array, "G C N"]
    sets: Int[Array, "G C k"]
    overlap: Float[Array, "G G C"]
    chance: Float[Array, "G G C"]


def compiled_cell(
    model: Model,
    corpus: Corpus,
    k: int,
    sites: tuple[str, ...] | None = None,
    pool: str = "max",
    *,
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
) -> CompiledCell:
    """Average precision, expert sets and overlaps of a whole corpus by one program.

    Args:
        model: with a tokenizer.
        corpus: labelled sentences in G languages.
        k: neurons in an expert set.
        sites: by default `model.neuron_sites`; N neurons.
        pool: "max", "mean", "last" or "sum" over a sentence's tokens.
        batch_tokens: the most tokens of a batch; all batches are padded to one length.
        seed: of ties.

    Raises:
        InputError: a site is unknown, or the model has no tokenizer.
    """
    chosen = model.neuron_sites if sites is None else read_sites(model, sites)
    rows = stack_rows(model, corpus, batch_tokens)
    return one_step(
        model.params, model.config, tuple((site, pool) for site in chosen), len(corpus.language_names),
        k, rows, jnp.uint32(seed))


def stack_rows(model: Model, corpus: Corpus, batch_tokens: int) -> Rows:
    """The corpus as one stack of batches that the mesh divides."""
    if model.tokenizer is None:
        raise InputError(f"model {model.name} has no tokenizer; load it with tokenizer=NAME")
    tokens = tokenise(model.tokenizer, corpus.texts, model.config.max_length or 2048)
    longest = int(tokens.lengths.max())
    plans = plan_batches(tokens.lengths, batch_tokens, batch_shards(model.params), (longest,))
    where = counted(tokens)
    batches = [make_batch(tokens, plan, where) for plan in plans]
    index = np.concatenate([batch.rows for batch in batches])
    real = index >= 0
    labels = np.where(real[:, None], corpus.labels[index], -1)
    codes = {name: number for number, name in enumerate(corpus.language_names)}
    language = np.array([codes[name] for name in corpus.languages.tolist()], np.int32)
    together = lambda name: np.stack([getattr(batch, name) for batch in batches])
    return Rows(
        together("tokens"), together("mask"), together("where"), labels == 1, labels >= 0,
        np.where(real, language[index], -1).astype(np.int32))


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def one_step(
    params: Any,
    config: Any,
    capture: tuple[tuple[str, str], ...],
    languages: int,
    k: int,
    rows: Rows,
    seed: Integer[Array, ""],
) -> CompiledCell:
    """The program: compiled once for a model, shape, capture, number of languages and k."""
    def batch(inputs: tuple[Array, Array, Array]) -> Float[Array, "B N"]:
        tokens, mask, where = inputs
        _, captured = forward(params, config, tokens, mask, capture=dict(capture), where=where)
        flat = [jnp.moveaxis(captured[site], 1, 0).reshape(len(tokens), -1) for site, _ in capture]
        return jnp.concatenate(flat, axis=1).astype(jnp.float32)

    responses = jax.lax.map(batch, (rows.tokens, rows.mask, rows.where))
    responses = responses.reshape(-1, responses.shape[-1])
    of = rows.language[:, None] == jnp.arange(languages)  # [S, G]
    concepts = rows.labels.shape[1]
    both: tuple[Bool[Array, "S GC"], ...] = tuple(
        (of[:, :, None] & values[:, None]).reshape(len(of), languages * concepts)
        for values in (rows.labels, rows.counts))
    ap = average_precision(responses, *both).reshape(languages, concepts, -1)
    sets = jnp.asarray(expert_sets(ap, k, seed))
    found = set_overlap(sets[:, None], sets[None], total=ap.shape[-1])
    return CompiledCell(ap, sets, found.overlap, found.chance)
