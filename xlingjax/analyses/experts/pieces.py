"""What makes an expert fire: the pieces at which it is largest, in each language.

A shared expert whose maximising pieces are the same in both languages may know a word and no concept:
it is an *anchor*. One that loses its place when sentences are matched for length is a *length* neuron.
The others are called *abstract*, which says that neither explanation was found, and no more.
"""

import collections
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, pieces
from xlingjax.responses.responses import Responses

CALLS = ("anchor", "length", "abstract")
TOP = 10  # positive sentences, those with the largest responses, whose maximising pieces are compared


class Firing(NamedTuple):
    """Where the neurons fired most in the positive sentences of one concept and language."""

    rows: np.ndarray  # int[n, TOP], sentences by response, largest first; -1 fills
    places: np.ndarray  # int[n, TOP], position of the maximum among the sentence's tokens
    ids: np.ndarray  # int[n, TOP], the token there


class SharedExpert(NamedTuple):
    """One neuron that is an expert of a concept in several languages, and where it fires."""

    group: str
    concept: str
    site: str
    layer: int
    unit: int
    languages: tuple[str, ...]  # in which it is an expert
    call: str  # "anchor", "length" or "abstract"
    ap: float  # mean over these languages
    examples: tuple[tuple[str, list[str], int], ...]  # language, pieces of a sentence, maximising piece


def firing(tokens: Tokens, responses: Responses, places: Responses, rows: np.ndarray,
           neurons: np.ndarray) -> Firing:
    """The largest responses of some neurons over some sentences, and the tokens they came from.

    Args:
        tokens: S sentences.
        responses: their max-pooled responses; places: the positions of the maxima ("argmax").
        rows: int[s], the sentences looked at (a concept's positives in one language).
        neurons: int[n], flat indices.
    """
    values = responses.rows(rows).matrix(neurons).T  # [n, s]
    order = np.argsort(-values, axis=1, kind="stable")[:, :TOP]
    chosen = np.take_along_axis(places.rows(rows).matrix(neurons).T, order, axis=1)
    ids = [[tokens.ids[rows[s]][place] for s, place in zip(*both)] for both in zip(order, chosen)]
    return Firing(rows[order], chosen, np.array(ids, np.int64).reshape(chosen.shape))


def is_anchor(tokenizer: Any, a: Firing, b: Firing) -> np.ndarray:
    """bool[n]: a maximising piece of the neuron in one language is one of its own in the other.

    Pieces are compared as read, so that a piece and the same piece after a blank are one.
    """
    known: dict[int, str] = {}
    ids = np.unique(np.concatenate([a.ids.ravel(), b.ids.ravel()]))
    known = dict(zip(ids.tolist(), (piece.casefold() for piece in pieces(tokenizer, ids.tolist()))))
    return np.array([
        bool({known[i] for i in row_a.tolist()} & {known[i] for i in row_b.tolist()})
        for row_a, row_b in zip(a.ids, b.ids)], bool)


def first_tokens(tokens: Tokens) -> np.ndarray:
    """int[S]: the position of each sentence's first real token (where attention sinks lie)."""
    return np.array([np.argmin(np.append(special, False)) for special in tokens.special])


def first_token_share(first: np.ndarray, found: Firing) -> float:
    """The share of maxima that lie at the first real token, `first_tokens` of all sentences."""
    held = found.rows >= 0
    return float((found.places == first[found.rows])[held].mean()) if held.any() else float("nan")


def shared_experts(
    tokenizer: Any, corpus: Corpus, tokens: Tokens, responses: Responses, places: Responses,
    experts: xr.Dataset, group: str, shown: int,
) -> tuple[list[SharedExpert], xr.Dataset]:
    """Every neuron that is an expert in two or more languages, called anchor, length or abstract.

    Args:
        responses, places: max-pooled, and the positions of the maxima.
        experts: a `concept_experts` dataset of one checkpoint with both adjustments.
        shown: neurons of each concept that come with example sentences, the broadest first.

    Returns:
        The shown neurons, and a dataset of how many shared experts get each call by concept and by
        pair of languages, with the share of maxima at the first token by language.
    """
    names, concepts = list(corpus.language_names), list(corpus.concepts)
    raw = experts["expert"].sel(adjustment="raw").transpose("language", "concept", "rank").values
    values = experts["expert_ap"].sel(adjustment="raw").transpose("language", "concept", "rank").values
    lengths = (experts["expert"].sel(adjustment="length").transpose("language", "concept", "rank")
               .values if "length" in experts["adjustment"] else raw)
    calls = np.zeros((len(CALLS), len(concepts), len(names), len(names)))
    first = np.full((len(concepts), len(names)), np.nan)
    best: list[SharedExpert] = []
    opening = first_tokens(tokens)
    for c, concept in enumerate(concepts):
        sets = [set(row[row >= 0].tolist()) for row in raw[:, c]]
        by_length = [set(row[row >= 0].tolist()) for row in lengths[:, c]]
        count = collections.Counter(neuron for members in sets for neuron in members)
        neurons = np.array(sorted(n for n, times in count.items() if times >= 2), int)
        if not len(neurons):
            continue
        fired = []
        for g, name in enumerate(names):
            rows = np.flatnonzero((corpus.languages == name) & (corpus.labels[:, c] == 1))
            fired.append(firing(tokens, responses, places, rows, neurons))
            first[c, g] = first_token_share(opening, fired[-1])
        anchor = np.zeros((len(names), len(names), len(neurons)), bool)
        for a in range(len(names)):
            for b in range(a + 1, len(names)):
                anchor[a, b] = anchor[b, a] = is_anchor(tokenizer, fired[a], fired[b])
        inside = np.array([[n in members for n in neurons] for members in sets])
        steady = np.array([[n in members for n in neurons] for members in by_length])
        for a in range(len(names)):
            for b in range(len(names)):
                both = inside[a] & inside[b]
                if a == b:
                    continue
                long = both & ~(steady[a] & steady[b])
                same = both & ~long & anchor[a, b]
                for call, members in zip(CALLS, (same, long, both & ~long & ~same)):
                    calls[CALLS.index(call), c, a, b] = members.sum()
        mean = np.array([np.mean([values[g, c][raw[g, c] == n][0] for g in range(len(names))
                                  if n in sets[g]]) for n in neurons])
        order = sorted(range(len(neurons)), key=lambda i: (-count[int(neurons[i])], -mean[i]))
        for i in order[:shown]:
            members = np.flatnonzero(inside[:, i])
            pairs = [(a, b) for a in members for b in members if a < b]
            call = ("length" if not steady[members, i].all() else
                    "anchor" if any(anchor[a, b, i] for a, b in pairs) else "abstract")
            site, layer, unit = responses.neurons.neuron(int(neurons[i]))
            best.append(SharedExpert(
                group, concept, site, layer, unit, tuple(names[g] for g in members), call,
                float(mean[i]), tuple(
                    (names[g], *example(corpus, tokens, tokenizer, fired[g], i, 0))
                    for g in members[:5] if fired[g].rows.shape[1])))
    dims = ("concept", "language", "language_b")
    dataset = xr.Dataset(
        {**{call: (dims, calls[i]) for i, call in enumerate(CALLS)},
         "first_token_share": (("concept", "language"), first)},
        coords={"concept": concepts, "language": names, "language_b": names},
        attrs={"group": group})
    return best, dataset


def table(shown: Sequence[SharedExpert]) -> xr.Dataset:
    """The shown neurons as a dataset; examples as JSON."""
    fields = ("group", "concept", "site", "layer", "unit", "call", "ap")
    data: dict[str, Any] = {name: ("expert", [getattr(one, name) for one in shown]) for name in fields}
    data["languages"] = ("expert", [" ".join(one.languages) for one in shown])
    data["examples"] = ("expert", [json.dumps(one.examples, ensure_ascii=True) for one in shown])
    return xr.Dataset(data)


def example(corpus: Corpus, tokens: Tokens, tokenizer: Any, found: Firing, neuron: int,
            place: int) -> tuple[list[str], int]:
    """The pieces of one of a neuron's top sentences and the index of the maximising one."""
    row = int(found.rows[neuron, place])
    real = np.flatnonzero(~tokens.special[row])
    index = int(np.searchsorted(real, found.places[neuron, place]))
    return spaced(tokenizer, tokens.ids[row][real]), index


def spaced(tokenizer: Any, ids: np.ndarray) -> list[str]:
    """Readable pieces with the blanks between words kept, so that joined they are the sentence."""
    raw = tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    shown = pieces(tokenizer, ids.tolist())
    return [(" " if i and str(token)[:1] in "▁Ġ" else "") + ("" if piece == "␣" else piece)
            for i, (token, piece) in enumerate(zip(raw, shown))]
