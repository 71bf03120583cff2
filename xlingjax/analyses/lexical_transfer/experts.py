"""Are the same neurons experts of a concept in the first language and in one that never touched the body?"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from xlingjax.analyses.concept_experts import concept_experts, default_k
from xlingjax.analyses.lexical_transfer.settings import LexicalSettings
from xlingjax.analyses.reading import longest
from xlingjax.corpora.corpus import Corpus
from xlingjax.models.model import Model
from xlingjax.responses.collecting import collect

LEAST = 12  # sentences with a concept in every language


def traced_concepts(corpus: Corpus) -> Corpus:
    """The corpus with the concepts that enough sentences of every language show."""
    positives, negatives = corpus.counts()
    enough = (np.minimum(positives, negatives) >= LEAST).all(0)
    return corpus.with_concepts([name for name, kept in zip(corpus.concepts, enough) if kept])


def shared_experts(
    models: Mapping[str, Model], corpus: Corpus, settings: LexicalSettings, seed: int,
) -> xr.Dataset:
    """`concept_experts` of one body through several banks, each language read through its own.

    Args:
        models: language -> body and bank; the bodies are the same.
        corpus: labelled sentences; languages without a model are left out.
        settings: permutations.
        seed: of halves, permutations and ties.

    Returns:
        As of `concept_experts`, strata being layers: `layer_overlap` [language, language_b, layer] is the overlap in
        neurons of each layer as a share of k, `layer_null` that under permuted labels, `layer_chance` that of sets of
        the same sizes drawn at random within the layer.
    """
    corpus = traced_concepts(corpus.language(*models))
    parts = {name: corpus.rows(corpus.languages == name) for name in models}
    found = {name: collect(model, parts[name], max_length=longest(model), show=False) for name, model in models.items()}
    order = np.concatenate([np.flatnonzero(corpus.languages == name) for name in models])
    corpus = corpus.rows(order)
    neurons = next(iter(found.values())).neurons
    made = concept_experts(
        np.concatenate([one.matrix() for one in found.values()]), corpus.labels, corpus.languages, corpus.documents,
        corpus.parallel, np.concatenate([one.pieces for one in found.values()]),
        np.array([len(text) for text in corpus.texts]), np.asarray(neurons.layers), concepts=corpus.concepts,
        kinds=corpus.kinds or None, k=default_k(neurons.total), permutations=settings.permutations, halvings=2,
        adjustments=("raw",), seed=seed).isel(adjustment=0, drop=True)
    k = made.attrs["k"]
    made["layer_overlap"] = made["stratum_shared"].rename(stratum="layer") / k
    made["layer_null"] = made["stratum_null_draws"].mean("draw").rename(stratum="layer") / k
    made["layer_chance"] = made["stratum_chance"].rename(stratum="layer") / k
    return made
