"""Which language the layers speak: the next-token distribution that each one would give, by language of the token.

The logit lens (nostalgebraist 2020) reads a layer's residual stream with the final norm and the head. A token belongs
to the languages whose text has it, in proportion to its rate in each; the rates are counted on other documents than
those that are read. Beside it stands what the true next tokens are, which is less than 1 where languages share tokens.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from xlingjax.analyses.probe_splits import sample_positions
from xlingjax.analyses.reading import longest
from xlingjax.analyses.tuned_lens import fit_translators
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.kernels.resampling import document_halves, independent_blocks
from xlingjax.models import Model
from xlingjax.models.transformer import normalised, unembed
from xlingjax.precision import full_precision
from xlingjax.responses.jobs import BATCH_TOKENS
from xlingjax.responses.states import collect_tokens

LOGITS = 4_000_000  # made at a time


def logit_lens(
    model: Model, corpus: Corpus, *, count: int = 200, per_sentence: int = 4, tuned: int = 0,
    batch_tokens: int = BATCH_TOKENS, seed: int = 0,
) -> xr.Dataset:
    """The mass of each layer's next-token distribution on the tokens of each language.

    Args:
        model: a decoder with a head and a tokenizer.
        count: places read in every language. per_sentence: at most so many of one sentence.
        tuned: steps of a tuned lens (`tuned_lens`), fitted on the documents that are not read; 0 = the logit lens.
        seed: of documents and places.

    Returns:
        Dimensions `layer` (0 is the embedding), `language` (of the text), `language_b` (of the tokens). `mass`, with
        `unknown[layer, language]` on tokens that no counted text has: with it, mass sums to 1. `surprisal`, nats of the
        true next token. `truth[language, language_b]`, the same shares of the true next tokens.

    Raises:
        InputError: an encoder, a model without head or tokenizer, fewer than two languages or documents.
    """
    config = model.config
    if not config.causal or not config.head:
        raise InputError(f"model {model.name!r} is no decoder with a head, so its layers predict no next token")
    names = corpus.language_names
    if len(names) < 2:
        raise InputError(f"corpus {corpus.name!r} has one language; which language a layer speaks needs two")
    tokens = tokenise(model.tokenizer, corpus.texts, longest(model))
    half = document_halves(independent_blocks(corpus.documents, corpus.parallel), corpus.languages, seed)
    weights = language_weights(tokens.rows(half == 0), corpus.languages[half == 0], names, config.vocab_size)
    read = np.flatnonzero(half == 1)
    inside = _without_last(tokens.rows(read))
    places = sample_positions(inside, corpus.languages[read], count, per_sentence, seed)
    found = collect_tokens(model, tokens.rows(read), places, batch_tokens=batch_tokens, show=False)
    states = found.states
    if tuned:
        rest = np.flatnonzero(half == 0)
        fitted = sample_positions(_without_last(tokens.rows(rest)), corpus.languages[rest], count, per_sentence, seed)
        known = collect_tokens(model, tokens.rows(rest), fitted, batch_tokens=batch_tokens, show=False)
        states = fit_translators(model.params, config, known.states, tuned, seed=seed)(states)
    following = np.array([tokens.ids[read[row]][place + 1] for row, place in zip(found.rows, found.positions)])
    mass, surprisal = read_layers(model.params, config, states, following, weights)
    language = corpus.languages[read][found.rows]
    mean = lambda values: np.stack([values[..., language == name].mean(-1) for name in names], -1)
    by_language = mean(np.moveaxis(mass, 1, -1))  # [L, G + 1, G]
    truth = mean(weights[following].T)
    return xr.Dataset(
        {"mass": (("layer", "language_b", "language"), by_language[:, :-1]),
         "unknown": (("layer", "language"), by_language[:, -1]),
         "surprisal": (("layer", "language"), mean(surprisal), {"units": "nats"}),
         "truth": (("language_b", "language"), truth[:-1])},
        coords={"layer": np.arange(len(mass)), "language": list(names), "language_b": list(names)},
        attrs={"places": int((language == names[0]).sum()), "tuned": tuned})


def language_weights(
    tokens: Tokens, languages: np.ndarray, names: tuple[str, ...], vocabulary: int,
) -> Float[np.ndarray, "V G+1"]:
    """How much of each token is each language's, by its rate in their texts; last column: tokens in none of them.

    >>> tokens = Tokens((np.array([1, 2, 2]), np.array([2, 3])), (np.zeros(3, bool), np.zeros(2, bool)))
    >>> language_weights(tokens, np.array(["x", "y"]), ("x", "y"), 5).astype(float).round(2).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.57, 0.43, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rates = np.zeros((vocabulary, len(names)))
    for g, name in enumerate(names):
        rows = np.flatnonzero(languages == name)
        ids = np.concatenate([tokens.ids[row][~tokens.special[row]] for row in rows]) if len(rows) else np.empty(0, int)
        rates[:, g] = np.bincount(ids, minlength=vocabulary) / max(len(ids), 1)
    total = rates.sum(1, keepdims=True)
    known = np.where(total > 0, rates / np.where(total > 0, total, 1), 0)
    return np.concatenate([known, total == 0], 1).astype(np.float32)


def _without_last(tokens: Tokens) -> Tokens:
    """The last real token and what follows it counted as special: nothing follows them that could be predicted."""
    special = []
    for mark in tokens.special:
        out = mark.copy()
        real = np.flatnonzero(~mark)
        if len(real):
            out[real[-1]:] = True
        special.append(out)
    return Tokens(tokens.ids, tuple(special))


def read_layers(
    params: Any, config: Any, states: Float[np.ndarray, "L n D"], following: Int[np.ndarray, "n"],
    weights: Float[np.ndarray, "V G1"],
) -> tuple[Float[np.ndarray, "L n G1"], Float[np.ndarray, "L n"]]:
    """Mass by column of `weights` and surprisal of the following token; a few rows of logits at a time."""
    rows = max(1, min(states.shape[1], LOGITS // config.vocab_size))
    filled = -(-states.shape[1] // rows) * rows
    pad = filled - states.shape[1]
    padded = np.pad(states, ((0, 0), (0, pad), (0, 0)))
    mass, surprisal = _read(params, config, padded, np.pad(following, (0, pad)), weights, rows)
    return np.asarray(mass)[:, :states.shape[1]], np.asarray(surprisal)[:, :states.shape[1]]


@functools.partial(jax.jit, static_argnames=("config", "rows"))
@full_precision
def _read(
    params: Any, config: Any, states: Float[Array, "L n D"], following: Int[Array, "n"], weights: Float[Array, "V G1"],
    rows: int,
) -> tuple[Float[Array, "L n G1"], Float[Array, "L n"]]:
    layers, size, width = states.shape
    dtype = params["embed"]["tokens"]["embedding"].dtype

    def part(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        h, target = chunk
        logits = unembed(params, config, normalised(params, config, h.astype(dtype))).astype(jnp.float32)
        log_p = jax.nn.log_softmax(logits)
        return jnp.exp(log_p) @ weights, -jnp.take_along_axis(log_p, target[:, None], 1)[:, 0]

    chunks = states.reshape(-1, rows, width), jnp.tile(following.reshape(-1, rows), (layers, 1))
    mass, surprisal = jax.lax.map(part, chunks)
    return mass.reshape(layers, size, -1), surprisal.reshape(layers, size)
