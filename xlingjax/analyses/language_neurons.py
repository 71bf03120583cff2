"""Neurons of one language: found by two definitions, and whether taking them away hurts that language alone.

LAPE (Tang et al. 2024) looks at how often a neuron is active in each language, both ends of average precision (Kojima
et al. 2024) at how well its mean response tells the language. Either set is put to zero, and the loss of every language
on other documents is measured: rows of the matrix are languages whose neurons are gone, columns those that suffer.
Beside each row stand random neurons, as many in every layer and site.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.analyses.health import language_losses
from xlingjax.analyses.reading import longest
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import tokenise
from xlingjax.errors import InputError
from xlingjax.kernels.ranking import average_precision
from xlingjax.kernels.resampling import document_halves, independent_blocks, random_like
from xlingjax.kernels.selectivity import both_ends, language_neurons
from xlingjax.models import Edit, Model
from xlingjax.neurons import NeuronIndex
from xlingjax.responses.collecting import collect
from xlingjax.responses.jobs import BATCH_TOKENS

METHODS = ("lape", "both_ends")
LAPE_SITE = "mlp.act"  # the MLP's activation, which the definition looks at


def find_language_neurons(
    model: Model, corpus: Corpus, method: str = "lape", *, part: float = 0.01, ends: int | None = None,
    batch_tokens: int = BATCH_TOKENS, seed: int = 0,
) -> tuple[dict[str, np.ndarray], NeuronIndex]:
    """Language -> flat indices of its neurons, and the index that they count in.

    Args:
        model: a checkpoint with a tokenizer.
        corpus: sentences in two or more languages; labels play no part.
        method: "lape", on the MLP's activation, or "both_ends", on the outputs of the linear maps.
        part: of all neurons, for "lape". ends: neurons from either end; as 1,000 of 221,184, at least 20, by default.
        seed: of ties.

    Raises:
        InputError: an unknown method, or fewer than two languages.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; choose among {', '.join(METHODS)}")
    names = corpus.language_names
    if len(names) < 2:
        raise InputError(f"corpus {corpus.name!r} has {len(names)} languages; neurons of one language need two")
    sites, pool = ((LAPE_SITE,), "positive") if method == "lape" else (None, "mean")
    found = collect(model, corpus, sites, pool, batch_tokens=batch_tokens, show=False,
                    max_length=longest(model))
    matrix = found.matrix()
    if method == "lape":
        weight = found.pieces.astype(float)
        active = np.stack([np.average(matrix[rows], axis=0, weights=weight[rows])
                           for rows in ((corpus.languages == name) & (weight > 0) for name in names)])
        chosen = [np.flatnonzero(row) for row in language_neurons(active, part)]
    else:
        ends = max(20, round(found.neurons.total * 1000 / 221_184)) if ends is None else ends
        labels = np.stack([corpus.languages == name for name in names], axis=1)
        ap = np.array(average_precision(matrix, labels))
        ap[:, (matrix == matrix[0]).all(0)] = np.nan
        high, low = both_ends(ap, ends, ends, seed)
        chosen = [np.unique(np.concatenate([a, b])) for a, b in zip(high, low)]
    return {name: neurons[neurons >= 0] for name, neurons in zip(names, chosen)}, found.neurons


def damage(
    model: Model, corpus: Corpus, neurons: Mapping[str, np.ndarray], index: NeuronIndex, *, controls: int = 3,
    batch_tokens: int = BATCH_TOKENS, seed: int = 0,
) -> xr.Dataset:
    """How much worse each language is predicted without another's neurons.

    Args:
        model: a checkpoint with a head.
        corpus: documents that did not find the neurons.
        neurons, index: of `find_language_neurons`.
        controls: draws of random neurons for each language.

    Returns:
        Dimensions `removed`, `language`, `draw`. `loss` (nats a target) without any edit by `language`; `damage`, the
        loss without the neurons of `removed` minus that; `random`, the same for random neurons, by `draw`; `size`;
        `own`, damage to the language itself minus the mean damage to the others, and `own_random`.
    """
    tokens = tokenise(model.tokenizer, corpus.texts, longest(model))
    names = list(corpus.language_names)
    removed = [name for name in neurons if name in names]
    run = lambda edits: language_losses(model, corpus, tokens, batch_tokens, edits=edits)["loss"].values
    plain = run(silenced(index, np.empty(0, int)))
    hurt = np.stack([run(silenced(index, neurons[name])) - plain for name in removed])
    random = np.stack([[
        run(silenced(index, random_like(neurons[name], index.strata, neurons[name], seed + 100 * draw + row))) - plain
        for draw in range(controls)] for row, name in enumerate(removed)])
    apart = lambda matrix: np.array([
        matrix[row, names.index(name)] - np.delete(matrix[row], names.index(name)).mean()
        for row, name in enumerate(removed)])
    return xr.Dataset(
        {"loss": ("language", plain), "damage": (("removed", "language"), hurt),
         "random": (("removed", "draw", "language"), random),
         "size": ("removed", [len(neurons[name]) for name in removed]),
         "own": ("removed", apart(hurt)),
         "own_random": (("removed", "draw"), np.stack([apart(random[:, draw]) for draw in range(controls)], 1))},
        coords={"removed": removed, "language": names})


def language_neurons_at(
    model: Model, corpus: Corpus, method: str, *, controls: int = 3, batch_tokens: int = BATCH_TOKENS, seed: int = 0,
) -> xr.Dataset:
    """`damage` of the neurons found on one half of the documents, measured on the other half."""
    half = document_halves(independent_blocks(corpus.documents, corpus.parallel), corpus.languages, seed)
    neurons, index = find_language_neurons(
        model, corpus.rows(half == 0), method, batch_tokens=batch_tokens, seed=seed)
    found = damage(
        model, corpus.rows(half == 1), neurons, index, controls=controls, batch_tokens=batch_tokens, seed=seed)
    return found.assign_attrs(method=method, neurons=index.total)


def silenced(index: NeuronIndex, neurons: np.ndarray) -> dict[str, Edit]:
    """The edit that puts neurons to zero in every row; the same fields whatever the neurons are."""
    out: dict[str, Any] = {}
    for site, (layers, units) in index.shapes.items():
        start = index.starts[site]
        inside = neurons[(neurons >= start) & (neurons < start + layers * units)] - start
        mask = np.zeros((layers, 1, 1, units), bool)
        layer, unit = np.divmod(inside, units)
        mask[layer, 0, 0, unit] = True
        out[site] = Edit(mask=mask, value=np.zeros((1, 1, 1, 1), np.float32))
    return out
