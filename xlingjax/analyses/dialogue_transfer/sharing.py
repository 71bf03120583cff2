"""Whether a fine-tuned model's concept neurons are those of its source language, before and after, layer by layer.

Experts of a concept in the source language from one half of the documents, against experts in the target language from
the other (`analyses.concept_experts`), beside permuted labels, chance and the ceiling of a language against itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.analyses.dialogue_transfer.settings import DialogueSettings
from xlingjax.analyses.dialogue_transfer.starts import Start
from xlingjax.analyses.reading import Matrix, longest
from xlingjax.analyses.trace.ladder import expert_inputs
from xlingjax.analyses.trace.usable import usable_concepts
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import tokenise
from xlingjax.errors import InputError
from xlingjax.models import Model
from xlingjax.models.pair import EncoderDecoder
from xlingjax.responses.collecting import collect

SITE = "mlp.up"
MINIMUM = 8  # positives and negatives of a concept in both languages


def readers(start: Start) -> Model | None:
    """The model whose neurons are looked at: a decoder, the encoder of a pair; an LSTM has no such sites."""
    made = start.model()
    if isinstance(made, EncoderDecoder):
        return made.encoder
    return made if isinstance(made, Model) else None


def of_two(corpus: Corpus, source: str, target: str) -> Corpus | None:
    """The labelled sentences of both languages with the concepts that have enough; None where that is not to be had."""
    if not {source, target} <= set(corpus.language_names):
        return None
    try:
        return usable_concepts(corpus.language(source, target), MINIMUM)[0]
    except InputError:
        return None


def shared_experts(
    models: Mapping[str, Start], corpus: Corpus, source: str, target: str, settings: DialogueSettings,
    workdir: Path | None = None,
) -> xr.Dataset:
    """Overlap of experts by `condition` and `layer`.

    Args:
        models: condition -> model.
        corpus: labelled sentences of both languages (`of_two`).

    Returns:
        By `condition`: overlap (share of k), its `null` (permuted labels, their mean) and `band` (their largest), `p`,
        `ceiling` (mean over both languages), `chance`. By `layer` as well: `shared`, the overlap within the layer as a
        share of k, with `shared_null` and `shared_band`; `experts_source`, `experts_target`: where experts lie.
    """
    found = []
    for condition, start in models.items():
        model = readers(start)
        assert model is not None
        responses = collect(model, corpus, (SITE,), "max", None if workdir is None else workdir / condition.replace(
            " ", "_"), max_length=longest(model), show=False)
        inputs: dict[str, Any] = expert_inputs(corpus, tokenise(model.tokenizer, corpus.texts, longest(model)))
        one = concept_experts(
            Matrix(responses), **inputs, strata=responses.neurons.strata, adjustments=("raw",), k=settings.k,
            permutations=settings.permutations, halvings=1, name_draws=99, seed=settings.seed)
        found.append(_reduced(one, source, target))
    return xr.concat(found, "condition").assign_coords(condition=list(models)).assign_attrs(
        k=found[0].attrs["k"], concepts=len(corpus.concepts), site=SITE)


def _reduced(found: xr.Dataset, source: str, target: str) -> xr.Dataset:
    k = found.attrs["k"]
    pair = {"language": source, "language_b": target}
    one = found.isel(adjustment=0).sel(k=k)
    draws, strata = one["null_draws"].sel(pair), one["stratum_null_draws"].sel(pair) / k
    ceiling = one["ceiling"].sel(language=[source, target]).mean()
    at = one["experts_by_stratum"]
    layer = lambda values: ("layer", np.asarray(values, float))
    return xr.Dataset(
        {"overlap": one["overlap_mean"].sel(pair), "null": draws.mean(), "band": draws.max(),
         "p": one["p"].sel(pair), "ceiling": ceiling, "chance": one["chance_uniform"],
         "shared_fraction": one["shared_fraction"].sel(pair),
         "shared": layer(one["stratum_shared"].sel(pair) / k), "shared_null": layer(strata.mean("draw")),
         "shared_band": layer(strata.max("draw")), "shared_chance": layer(one["stratum_chance"].sel(pair) / k),
         "experts_source": layer(at.sel(language=source) / k), "experts_target": layer(at.sel(language=target) / k)},
        coords={"layer": np.arange(one.sizes["stratum"])}, attrs={"k": k}).reset_coords(drop=True)


