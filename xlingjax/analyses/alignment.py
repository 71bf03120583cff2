"""Do languages represent the same sentence alike, in which layer, and when during training?

One vector for each sentence of a parallel corpus, at the embedding and after every layer; all measures of all pairs
of languages (`kernels.alignment`, `kernels.cca`), beside the same with translations shuffled; and the shape of each
language's cloud (`kernels.geometry`), without which a cosine says little.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.checkpoints import join_checkpoints, over_checkpoints
from xlingjax.analyses.logit_lens import logit_lens
from xlingjax.analyses.reading import longest
from xlingjax.analyses.sources import Source
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.parallel import parallel_rows
from xlingjax.errors import InputError, require_least
from xlingjax.files import claim
from xlingjax.kernels.alignment import NEIGHBOURS, alignment, local_overlap, shuffled_pairings
from xlingjax.kernels.cca import canonical_correlations, components
from xlingjax.kernels.geometry import shape_of
from xlingjax.models import Model
from xlingjax.responses.collecting import collect
from xlingjax.responses.jobs import BATCH_TOKENS

SITES = ("embed", "resid")
POINTS = 60  # sentences of a language in the picture
POOLS = ("position", "mean", "last")
PAIRED = ("cka", "cka_debiased", "svcca", "pwcca", "anc", "mexa", "at_1", "at_5", "centred_at_1", "centred_at_5",
          "csls_at_1", "csls_at_5", "mutual")


@dataclasses.dataclass(frozen=True)
class AlignSettings:
    """Everything that decides an alignment beside its checkpoints and its corpus.

    Attributes:
        pool: how tokens become one vector: mean weighted by "position" (1, 2, ...; later tokens of a decoder have seen
            more), "mean", or "last".
        sentences: of each language, at most; whole documents, drawn by the seed.
        shuffles: pairings of the null.
        unseen: languages that training did not see, whose pairs are shown apart.
        tuned: steps of the tuned lens; 0 = the logit lens.
        dtype: of the forward pass. batch_tokens: of a batch. seed: of drawn documents and of shuffles.
    """

    pool: str = "position"
    sentences: int = 1000
    shuffles: int = 10
    unseen: tuple[str, ...] = ()
    tuned: int = 0
    dtype: str = "float32"
    batch_tokens: int = BATCH_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise InputError(f"pool {self.pool!r} is unknown; choose among {', '.join(POOLS)}")
        require_least(self, {"sentences": 50, "shuffles": 2, "tuned": 0, "batch_tokens": 1, "seed": 0})


def chosen_rows(corpus: Corpus, settings: AlignSettings) -> Int[np.ndarray, "G n"]:
    """The parallel sentences that are used: all, or whole documents until there are enough.

    Raises:
        InputError: of `parallel_rows`; 50 sentences are the least, of which CCA takes ten components.
    """
    for name in settings.unseen:
        corpus.language(name)
    rows = parallel_rows(corpus, least=50)
    if rows.shape[1] <= settings.sentences:
        return rows
    _, document = np.unique(corpus.documents[rows[0]], return_inverse=True)
    order = np.random.default_rng([settings.seed, 29]).permutation(document.max() + 1)
    return rows[:, np.sort(np.argsort(order[document], kind="stable")[:settings.sentences])]


def align(
    sources: Sequence[Source], corpus: Corpus, settings: AlignSettings, workdir: str | Path, *, tokenizer: Any = None,
    say: Callable[[str], None] | None = None,
) -> xr.DataTree:
    """Alignment of all pairs of languages at every layer of every checkpoint. Killed, it goes on where it was.

    Args:
        sources: the checkpoints, in order.
        corpus: sentences with parallel ids in two languages or more; labels play no part.
        tokenizer: folder or repository of the tokenizer, where the checkpoints bring none.
        say: gets one line a checkpoint.

    Returns:
        `alignment`, as of `alignment_at`, `geometry`, of `geometry`, and of decoders `lens`, of `logit_lens`, each
        along `checkpoint`.

    Raises:
        InputError: checkpoints, corpus and settings do not fit, or the workdir holds another experiment.
    """
    say = say or (lambda text: None)
    rows = chosen_rows(corpus, settings)
    identity = {"corpus": corpus.fingerprint, "settings": dataclasses.asdict(settings), "tokenizer": str(tokenizer)}

    def tell(number: int, source: Source, made: dict[str, xr.Dataset]) -> None:
        best = [f"{name} {value:.2f}" for name in ("mexa", "cka_debiased")
                for value in [float(made["alignment"][name].mean(("language", "language_b")).max())]]
        say(f"{number + 1}/{len(sources)} {source.label}: in its best layer {', '.join(best)}")

    with claim(Path(workdir), identity, "align") as folder:
        found = over_checkpoints(
            sources, folder, lambda model, home: _checkpoint(model, corpus, rows, settings, home), settings.dtype,
            tokenizer, tell)
    tree = xr.DataTree.from_dict(join_checkpoints(found, sources))
    tree.attrs = {"model": sources[0].name, "corpus": corpus.name, "corpus_fingerprint": corpus.fingerprint,
                  "settings": json.dumps(dataclasses.asdict(settings))}
    return tree


def _checkpoint(
    model: Model, corpus: Corpus, rows: Int[np.ndarray, "G n"], settings: AlignSettings, folder: Path,
) -> dict[str, xr.Dataset]:
    states = sentence_states(model, corpus, rows, settings, folder)
    made = {"alignment": alignment_at(states, corpus, rows, settings), "geometry": geometry(states, corpus, rows)}
    if model.config.causal and model.config.head:
        made["lens"] = logit_lens(
            model, corpus, tuned=settings.tuned, batch_tokens=settings.batch_tokens, seed=settings.seed)
    return made


def alignment_at(
    states: Float[np.ndarray, "L G n D"], corpus: Corpus, rows: Int[np.ndarray, "G n"], settings: AlignSettings,
) -> xr.Dataset:
    """One checkpoint.

    Args:
        states: of `sentence_states`. rows: of `chosen_rows`.

    Returns:
        Dimensions `layer` (0 is the embedding), `language`, `language_b`, `shuffle`. Each measure of `PAIRED`, and
        `NAME_shuffled` with translations shuffled; retrieval goes from `language` to `language_b`. By `language`:
        `ilo`, `bridge`, `reach` (most where languages cannot be told apart: `ilo_mixed`, with languages shuffled in
        each sentence), `cosine`, `rogue`, `dimension`. Attributes: `sentences`, `shuffled` (of them, in documents with
        others), `kept`, the share that a shuffle leaves with its own translation, as a random order of a short document
        does, `components` of the canonical correlations, and `chance`, what theory says of some.
    """
    _, _, size, width = states.shape
    documents = corpus.documents[rows[0]]
    shuffled, moved = shuffled_pairings(np.unique(documents, return_inverse=True)[1], settings.shuffles, settings.seed)
    pairings = np.concatenate([np.arange(size)[None], shuffled])
    count = components(size, width)
    neighbours = min(NEIGHBOURS, size - 2)
    measures = {**alignment(states, pairings, neighbours)._asdict(),
                **canonical_correlations(states, pairings, count)._asdict()}
    finite = np.isfinite(states).all((1, 2, 3))
    names = list(corpus.language_names)
    axes = ("layer", "language", "language_b")
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name in PAIRED:
        values = np.where(finite[:, None, None, None], np.asarray(measures[name], float), np.nan)
        found[name] = (axes, values[:, 0])
        found[f"{name}_shuffled"] = (("layer", "shuffle", *axes[1:]), values[:, 1:])
    ilo = local_overlap(states, neighbours)
    mixed = local_overlap(_mixed(states, settings.seed), neighbours)[0]
    for name, values in (*zip(("ilo", "bridge", "reach"), ilo), ("ilo_mixed", mixed),
                         *shape_of(states)._asdict().items()):
        found[name] = (axes[:2], np.where(finite[:, None], np.asarray(values, float), np.nan))
    chance = {"anc": math.sqrt(2 / (math.pi * size)), "mutual": neighbours / (size - 1), "mexa": 1 / (2 * size - 1)}
    chance |= {f"{kind}at_{k}": k / size for kind in ("", "centred_", "csls_") for k in (1, 5)}
    return xr.Dataset(found, coords={"layer": range(len(states)), "language": names, "language_b": names}, attrs={
        "sentences": size, "shuffled": moved, "kept": float((shuffled == np.arange(size)).mean()),
        "components": count, "neighbours": neighbours,
        "chance": json.dumps(chance)})


def sentence_states(
    model: Model, corpus: Corpus, rows: Int[np.ndarray, "G n"], settings: AlignSettings, folder: Path | None = None,
) -> Float[np.ndarray, "L G n D"]:
    """One vector a sentence at the embedding and after each layer, row i the same sentence in every language."""
    used = corpus.rows(np.sort(rows.reshape(-1)))
    place = np.searchsorted(np.sort(rows.reshape(-1)), rows)
    responses = collect(model, used, SITES, settings.pool, None if folder is None else folder / "responses",
                        batch_tokens=settings.batch_tokens, max_length=longest(model))
    matrix = responses.matrix()
    layers = sum(count for count, _ in responses.neurons.shapes.values())
    by_layer = matrix.reshape(len(matrix), layers, -1)
    return np.ascontiguousarray(by_layer[place].transpose(2, 0, 1, 3))


def geometry(
    states: Float[np.ndarray, "L G n D"], corpus: Corpus, rows: Int[np.ndarray, "G n"],
) -> xr.Dataset:
    """Each layer's sentences on its two leading principal components, for a picture.

    Returns:
        `place[layer, point, axis]` of at most 60 sentences of each language, `explained[layer, axis]` of the variance,
        `language[point]`, and `concept[point]` where every sentence shows exactly one of a group ("" otherwise).
    """
    few = np.linspace(0, rows.shape[1] - 1, min(POINTS, rows.shape[1])).astype(int)
    points = states[:, :, few].reshape(len(states), -1, states.shape[-1]).astype(float)
    points = np.where(np.isfinite(points), points, 0)
    points -= points.mean(1, keepdims=True)
    left, spread, _ = np.linalg.svd(points, full_matrices=False)
    total = np.square(spread).sum(-1, keepdims=True)
    chosen = rows[:, few].reshape(-1)
    return xr.Dataset(
        {"place": (("layer", "point", "axis"), (left * spread[:, None])[..., :2]),
         "explained": (("layer", "axis"), np.square(spread)[:, :2] / np.where(total > 0, total, 1)),
         "language": ("point", corpus.languages[chosen]), "concept": ("point", _one_concept(corpus)[chosen])},
        coords={"layer": range(len(states)), "axis": [1, 2]})


def _one_concept(corpus: Corpus) -> np.ndarray:
    """The concept of each sentence in the first group of which every sentence shows exactly one."""
    for group in dict.fromkeys(corpus.groups):
        columns = np.flatnonzero(np.array(corpus.groups) == group)
        shown = corpus.labels[:, columns] == 1
        if len(columns) > 1 and (shown.sum(1) == 1).all():
            return np.array(corpus.concepts)[columns][shown.argmax(1)]
    return np.full(len(corpus), "", "<U1")


def _mixed(states: Float[np.ndarray, "L G n D"], seed: int) -> Float[np.ndarray, "L G n D"]:
    """The states with languages in random order within each sentence: languages that cannot be told apart."""
    count, size = states.shape[1:3]
    order = np.random.default_rng([seed, 31]).permuted(np.tile(np.arange(count)[:, None], (1, size)), axis=0)
    return states[:, order, np.arange(size)]
