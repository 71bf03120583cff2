"""Is a checkpoint what it claims to be: loss of each language, non-finite numbers, duplicates."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from xlingjax import hosts
from xlingjax.corpora.batching import make_batch, plan_batches
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens
from xlingjax.models import Edit
from xlingjax.sharding import batch_sharding, batch_shards
from xlingjax.training.objectives import Objective, row_losses

DIVERGED = 1.05  # a loss this many times that of a uniform guess is no language model's


SENTENCES = 200  # of a language; enough for 1 to 2 % of the loss, and logits cost more than the blocks


def language_losses(model: Any, corpus: Corpus, tokens: Tokens, batch_tokens: int = 8192,
                    sentences: int = SENTENCES, edits: Mapping[str, Edit] | None = None) -> xr.Dataset:
    """How well a checkpoint predicts the corpus's own sentences, language by language.

    Causal models: mean cross-entropy of each next token. Masked models: of 15 % hidden tokens, the
    same ones at every checkpoint of one tokenizer.

    Args:
        model: a checkpoint with an output head.
        corpus: the text, in any number of languages.
        tokens: of its sentences.
        batch_tokens: the most tokens of a batch.
        sentences: the most of a language, spread evenly over it.
        edits: site -> `Edit` of all rows alike; by default none.

    Returns:
        `loss` (nats a target), `perplexity`, `bits_per_character` by language; NaN without a target.
        Compare languages in bits per character: it does not depend on how finely a language is cut.
    """
    chosen = spread(corpus.languages, sentences)
    corpus, tokens = corpus.rows(chosen), tokens.rows(chosen)
    config = model.config
    if config.causal:
        objective = Objective("causal")
    else:
        special = model.tokenizer.all_special_ids
        ordinary = 1 + max(i for i in special if i != model.tokenizer.mask_token_id)
        objective = Objective("masked", model.tokenizer.mask_token_id, ordinary)
    totals = np.zeros((2, len(tokens)))
    where = batch_sharding(model.params)
    for number, plan in enumerate(plan_batches(tokens.lengths, batch_tokens, batch_shards(model.params))):
        batch = make_batch(tokens, plan)
        losses, counts = hosts.to_host(_row_losses(
            model.params, config, objective, *hosts.to_devices((batch.tokens, batch.mask), where),
            jax.random.fold_in(jax.random.key(0), number), dict(edits or {})))
        real = batch.rows >= 0
        totals[0, batch.rows[real]] = losses[real]
        totals[1, batch.rows[real]] = counts[real]
    characters = np.array([len(text) for text in corpus.texts])
    names = corpus.language_names
    sums = {name: totals[:, corpus.languages == name].sum(1) for name in names}
    loss = np.array([sums[name][0] / sums[name][1] if sums[name][1] else np.nan for name in names])
    targets = np.array([sums[name][1] for name in names])
    written = np.array([characters[corpus.languages == name].sum() for name in names])
    covered = targets if config.causal else np.array(
        [tokens.real_lengths[corpus.languages == name].sum() for name in names])
    with np.errstate(over="ignore"):
        perplexity = np.exp(loss)
    return xr.Dataset(
        {"loss": ("language", loss, {"units": "nats a target"}),
         "perplexity": ("language", perplexity),
         "bits_per_character": (
             "language", loss * covered / np.maximum(written, 1) / math.log(2), {"units": "bits"})},
        coords={"language": list(names)})


def spread(languages: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most so many sentences of each language, spread evenly over its rows, in order.

    >>> spread(np.array(["a", "a", "a", "a", "b"]), 2)
    array([0, 2, 4])
    """
    chosen = []
    for name in np.unique(languages):
        rows = np.flatnonzero(languages == name)
        count = min(most, len(rows))
        chosen.append(rows[np.arange(count) * len(rows) // count])
    return np.sort(np.concatenate(chosen))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _row_losses(params: Any, config: Any, objective: Objective, tokens: Any, mask: Any, key: Any, edits: Any) -> Any:
    return row_losses(params, config, objective, tokens, mask, key, edits)


def faults(losses: xr.Dataset, vocabulary: int, weights: Mapping[str, int], responses: int,
           unseen: Sequence[str] = ()) -> str:
    """What is wrong with a checkpoint by itself, in one phrase; "" where nothing is.

    Args:
        losses: of `language_losses`.
        vocabulary: V; a loss far above log V is worse than guessing.
        weights: tensor -> non-finite values in it.
        responses: non-finite responses in all.
        unseen: languages that pre-training never saw, of which nothing can be asked.
    """
    found: list[str] = []
    if weights:
        first, count = next(iter(weights.items()))
        found.append(f"{sum(weights.values()):,} non-finite weights, the first {count:,} in {first}")
    if responses:
        found.append(f"{responses:,} non-finite responses")
    worse = (losses["loss"] > DIVERGED * math.log(vocabulary)) & ~losses["language"].isin(list(unseen))
    if bool(worse.any()):
        names: Sequence[str] = losses["language"].values[worse.values].tolist()
        found.append(f"diverged: worse than guessing in {', '.join(names)}")
    if bool(np.isnan(losses["loss"]).any()):
        found.append("loss is not a number")
    return "; ".join(found)


def verdict(faults: str, fingerprint: str, earlier: Mapping[str, str], published: str = "") -> str:
    """One phrase on a checkpoint among others: "ok", or what is wrong with it.

    Args:
        faults: what is wrong with it by itself, "" for nothing.
        fingerprint: of the weights.
        earlier: fingerprint -> label of the checkpoints before this one.
        published: what is known of this upload, said where something is wrong.

    >>> verdict("", "ab", {"ab": "step 10"})
    'same weights as step 10'
    """
    same = f"same weights as {earlier[fingerprint]}" if fingerprint in earlier else ""
    found = [phrase for phrase in (same, faults) if phrase]
    return "; ".join([*found, published] if found and published else found) or "ok"
