"""Hidden states of chosen tokens, for probes."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlingjax.corpora.batching import make_batch, plan_batches
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.progress import progress
from xlingjax.responses.jobs import BATCH_TOKENS, read_sites, read_tokens
from xlingjax.responses.stepping import run, states_step
from xlingjax.sharding import batch_sharding, batch_shards


class TokenStates(NamedTuple):
    """n chosen tokens, sentence by sentence, in each sentence in the order asked for.

    Attributes:
        states: float32[L, n, D]; the layers of the sites one after the other (with the default
            sites: the embedding, then the output of each layer).
        rows: int64[n], the sentence of each token.
        positions: int64[n], its place in the sentence's tokens, special tokens included.
        ids: int32[n], the token.
    """

    states: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    ids: np.ndarray


def collect_tokens(
    model: Any,
    corpus: Corpus | Tokens,
    positions: Sequence[np.ndarray],
    sites: Sequence[str] = ("embed", "resid"),
    *,
    batch_tokens: int = BATCH_TOKENS,
    max_length: int | None = None,
    show: bool | None = None,
) -> TokenStates:
    """Hidden states at chosen tokens of each sentence.

    Only sentences with a chosen token are run, and only chosen states leave the device.

    Args:
        model: an `xlingjax.Model`.
        corpus: S sentences, or their tokens (`tokenise`), in which positions are counted.
        positions: S arrays of int, places in the tokens of each sentence, special tokens included;
            may be empty.
        sites: sites of one width.
        batch_tokens, max_length, show: as for `collect`.

    Raises:
        InputError: a position lies outside its sentence; no position is given; sites differ in
            width.
    """
    sites = read_sites(model, sites)
    shapes = model.neurons(sites).shapes
    if len({units for _, units in shapes.values()}) != 1:
        raise InputError(f"sites {', '.join(sites)} have unequal widths; collect them one by one")
    tokens, _ = read_tokens(model, corpus, max_length)
    if len(positions) != len(tokens):
        raise InputError(
            f"positions are given for {len(positions)} sentences of {len(tokens)}; give one "
            "array each"
        )
    chosen = [np.asarray(places, np.int64).reshape(-1) for places in positions]
    for row, places in enumerate(chosen):
        if len(places) and not (0 <= places.min() and places.max() < len(tokens.ids[row])):
            raise InputError(
                f"positions of sentence {row} reach from {places.min()} to {places.max()}; "
                f"it has tokens 0 to {len(tokens.ids[row]) - 1}"
            )
    counts = np.array([len(places) for places in chosen])
    used = np.flatnonzero(counts)
    if len(used) == 0:
        raise InputError("no token is chosen in any sentence; give at least one position")
    kept = tokens.rows(used)
    batches = plan_batches(kept.lengths, batch_tokens, batch_shards(model.params))
    # One P for each length, so that each length is compiled once.
    widest = {
        length: max(
            counts[used[batch.rows[batch.rows >= 0]]].max()
            for batch in batches
            if batch.length == length
        )
        for length in {batch.length for batch in batches}
    }

    def inputs() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for batch in batches:
            made = make_batch(kept, batch)
            places = np.zeros((len(batch.rows), widest[batch.length]), np.int32)
            for i, row in enumerate(batch.rows):
                if row >= 0:
                    places[i, : counts[used[row]]] = chosen[used[row]]
            yield made.tokens, made.mask, places

    starts = np.concatenate([[0], np.cumsum(counts)])
    layers = sum(count for count, _ in shapes.values())
    states = np.empty((layers, starts[-1], next(iter(shapes.values()))[1]), np.float32)
    step = functools.partial(states_step, model.params, model.config, sites)
    with progress(total=len(used), label="collect tokens", unit="sentences", show=show) as bar:
        for batch, captured in zip(batches, run(step, inputs(), batch_sharding(model.params))):
            both = np.concatenate([captured[site] for site in sites])
            for i, row in enumerate(batch.rows):
                if row >= 0:
                    sentence = used[row]
                    states[:, starts[sentence] : starts[sentence + 1]] = both[
                        :, i, : counts[sentence]
                    ]
            bar.update(int((batch.rows >= 0).sum()))
    return TokenStates(
        states,
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate(chosen),
        np.concatenate([tokens.ids[row][places] for row, places in enumerate(chosen)]),
    )
