"""The experiment: a dictionary at each checkpoint, its latents of grammatical values, and which of them stay."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.analyses.checkpoints import checkpoint_coordinates, over_checkpoints
from xlingjax.analyses.features.cells import TEST
from xlingjax.analyses.features.matching import match_latents
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.features.steering import SteeringSettings, steer_values
from xlingjax.analyses.grammatical_features import grammatical_features
from xlingjax.analyses.minimal_pairs import pair_accuracy, pair_scores
from xlingjax.analyses.reading import longest
from xlingjax.analyses.sources import Source
from xlingjax.corpora.batching import Batch, counted, make_batch, plan_batches
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.minimal_pairs import MinimalPairs
from xlingjax.corpora.prompts import Prompts, continuations
from xlingjax.corpora.tokenising import tokenise
from xlingjax.corpora.words import Treebank
from xlingjax.errors import InputError
from xlingjax.files import claim
from xlingjax.judging.languages import LanguageJudge, fit_languages
from xlingjax.judging.values import ValueJudge, fit_values
from xlingjax.kernels.resampling import document_parts
from xlingjax.models import Model, Splice
from xlingjax.progress import progress
from xlingjax.responses.stepping import states_step
from xlingjax.sae import Dictionary, DictionaryConfig, load_dictionary
from xlingjax.sae.activations import ActivationStream
from xlingjax.sae.config import K_KINDS
from xlingjax.sae.fidelity import measure_in_model
from xlingjax.sae.measures import ALL, measure_dictionary
from xlingjax.sae.settings import DictionarySpec, TrainSettings
from xlingjax.sae.training import train_dictionaries

Say = Callable[[str], None]
NEAR = 0.7  # cosine from which a latent counts as found again
LAST_ONLY = ("latents", "examples", "effects", "steering", "samples", "downstream")  # kept of the last checkpoint
SHOWN = {"l0": "active latents a token", "fvu": "variance unexplained", "cosine": "cosine",
         "reconstruction_bias": "reconstruction bias", "dead_share": "latents never active",
         "recovered": "cross-entropy recovered", "kl_recovered": "KL recovered"}


@dataclasses.dataclass(frozen=True)
class DictionarySettings:
    """Which dictionary is trained at every checkpoint.

    Attributes:
        site: what it reads. layer: of it; -1 = the middle one.
        kind, latents, k: of `DictionaryConfig`; k is used by the kinds that take it.
        sparsity: of the others, see `DictionarySpec`.
        learning_rate: None = the kind's own.
        prefixes: of "matryoshka": nested prefixes, each twice as long as the one before.
        batch_tokens: of a training step. seed: of its start and of the order of tokens.
        train: the rest.
    """

    site: str = "resid"
    layer: int = -1
    kind: str = "topk"
    latents: int = 512
    k: int = 16
    sparsity: float = 0.05
    learning_rate: float | None = None
    prefixes: int = 4
    batch_tokens: int = 1024
    seed: int = 0
    train: TrainSettings = TrainSettings()

    def place(self, model: Model) -> tuple[str, int]:
        """Site and layer in this model.

        Raises:
            InputError: the model lacks them.
        """
        if self.site not in model.sites:
            raise InputError(f"site {self.site!r} is not in {model.name}; choose among {', '.join(model.sites)}")
        layers, _ = model.neurons((self.site,)).shapes[self.site]
        if not -1 <= self.layer < layers:
            raise InputError(f"layer {self.layer} of {self.site!r} is not in {model.name}; give 0 to {layers - 1}, or "
                             "-1 for the middle one")
        return self.site, (layers - 1) // 2 if self.layer < 0 else self.layer

    def spec(self, model: Model) -> DictionarySpec:
        """The dictionary for this model."""
        width = model.neurons((self.site,)).shapes[self.site][1]
        takes_k = self.kind in K_KINDS
        ends = tuple(self.latents >> shift for shift in reversed(range(self.prefixes)))
        config = DictionaryConfig(self.kind, width, self.latents, k=self.k if takes_k else 0,
                                  groups=ends if self.kind == "matryoshka" else ())
        return DictionarySpec(config, 0, self.seed, 0.0 if takes_k else self.sparsity, self.learning_rate)


def as_corpus(bank: Treebank) -> Corpus:
    """The sentences of a treebank."""
    return Corpus(bank.texts, bank.languages, bank.documents, np.full(len(bank.texts), "", "<U1"),
                  np.zeros((len(bank.texts), 0), np.int8), name="treebanks")


def trace_features(
    sources: Sequence[Source], texts: Corpus, bank: Treebank, trained: DictionarySettings, settings: FeatureSettings,
    workdir: str | Path, *, pairs: MinimalPairs | None = None, steering: SteeringSettings | None = None,
    prompts: Prompts | None = None, dtype: str = "float32", tokenizer: Any = None, say: Say | None = None,
) -> xr.DataTree:
    """Trains a dictionary at each checkpoint and asks it for grammatical values; killed, it goes on where it was.

    Args:
        sources: the checkpoints, in order.
        texts: what the dictionaries are trained on; no document of the treebanks.
        bank: treebanks read with the features that are asked about. Its test documents measure the dictionary, and
            their beginnings are the prompts of steering; other documents teach its judges.
        trained: which dictionary. settings: of `grammatical_features`.
        pairs: minimal pairs whose accuracy is asked for under every ablation, at the last checkpoint.
        steering: how latents steer what the last checkpoint writes; None = not.
        prompts: for steering; by default the first four words of test sentences.
        dtype: of the forward pass. tokenizer: where the checkpoints bring none. say: gets plans and one line each.

    Returns:
        What `grammatical_features` returns, along `checkpoint` where it is of every one; `dictionary`, how well it
        reconstructs, by language; `matched`, latents found again from one checkpoint to the next; `steering` and
        `samples` (see `steer_values`).

    Raises:
        InputError: checkpoints, corpora and settings do not fit, or the workdir holds another experiment.
    """
    say = say or (lambda text: None)
    identity: dict[str, Any] = {
        "texts": texts.fingerprint, "treebanks": bank.fingerprint, "dictionary": dataclasses.asdict(trained),
        "settings": dataclasses.asdict(settings), "tokenizer": str(tokenizer),
        "pairs": None if pairs is None else pairs.fingerprint,
        "steering": None if steering is None else dataclasses.asdict(steering),
        "prompts": None if prompts is None else list(prompts.texts)}
    last = sources[-1]

    def make(model: Model, home: Path) -> Mapping[str, xr.Dataset]:
        if home.name == last.label:
            return checkpoint(model, home, texts, bank, trained, settings, pairs, steering, prompts, say)
        few = dataclasses.replace(settings, attributed=0, examples=0)  # shown of the last checkpoint only
        return checkpoint(model, home, texts, bank, trained, few, None, None, None, say)

    def tell(number: int, source: Source, made: Mapping[str, xr.Dataset]) -> None:
        fvu = float(made["dictionary"]["fvu"].sel(language=ALL))
        shared = float(made["universality"]["share"].sel(k=settings.k, method="nearest").mean())
        say(f"{number + 1}/{len(sources)} {source.label}: variance unexplained {fvu:.3f}, of the tops {shared:.2f} in "
            "two languages or more")

    def require(model: Model) -> None:
        trained.place(model)

    with claim(Path(workdir), identity, "features over checkpoints") as folder:
        found = over_checkpoints(sources, folder, make, dtype, tokenizer, tell, require)
        matched = match_checkpoints(sources, folder)
    tree = xr.DataTree.from_dict({**join(found, sources), **({"matched": matched} if len(sources) > 1 else {})})
    tree.attrs = {"model": last.name, "site": trained.site, "treebanks": bank.fingerprint, "texts": texts.name,
                  "layer": found[-1]["universality"].attrs["layer"], "left_out": found[-1]["probes"].attrs["left_out"],
                  "settings": json.dumps({key: identity[key] for key in ("dictionary", "settings", "steering")})}
    return tree


def checkpoint(
    model: Model, home: Path, texts: Corpus, bank: Treebank, trained: DictionarySettings, settings: FeatureSettings,
    pairs: MinimalPairs | None, steering: SteeringSettings | None, prompts: Prompts | None, say: Say,
) -> dict[str, xr.Dataset]:
    """One checkpoint: the datasets of `trace_features`."""
    site, layer = trained.place(model)
    stream = ActivationStream(
        model, texts, ((site, layer),), batch_tokens=trained.batch_tokens, seed=trained.seed, max_length=longest(model))
    (dictionary,) = train_dictionaries(stream, [trained.spec(model)], trained.train, home / "dictionary", show=say)
    tested = np.flatnonzero(document_parts(
        np.unique(bank.documents, return_inverse=True)[1], bank.languages, settings.shares, settings.seed) == TEST)
    measured, highest = measures(model, dictionary, as_corpus(bank).rows(tested), settings.batch_tokens)

    def score(edits: Mapping[str, Splice], language: str) -> xr.Dataset:
        assert pairs is not None
        held = pairs.rows(pairs.languages == language)
        if not len(held):
            return xr.Dataset()
        return pair_accuracy(held, pair_scores(model, held, edits), settings.bootstraps, settings.seed)

    tree = grammatical_features(
        model, dictionary, bank, settings, home / "features", pairs=None if pairs is None else score)
    found = {name: node.to_dataset(inherit=False) for name, node in tree.children.items()}
    found["universality"].attrs["layer"] = layer
    found["probes"].attrs["left_out"] = tree.attrs["left_out"]
    found["dictionary"] = measured
    if steering is not None:
        found |= steered(model, dictionary, bank, tested, found, highest, steering, prompts)
    return found


def measures(
    model: Model, dictionary: Dictionary, corpus: Corpus, batch_tokens: int,
) -> tuple[xr.Dataset, np.ndarray]:
    """How well a dictionary reconstructs sentences it was not trained on, by language; and each latent's maximum."""
    tokens = tokenise(model.tokenizer, corpus.texts, longest(model))
    where = counted(tokens)
    names = list(corpus.language_names)
    of = np.array([names.index(name) for name in corpus.languages.tolist()])
    batches = [make_batch(tokens, plan, where) for plan in plan_batches(tokens.lengths, batch_tokens)]

    def states(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        every = np.tile(np.arange(batch.tokens.shape[1]), (len(batch.tokens), 1))
        x = states_step(model.params, model.config, (dictionary.site,), batch.tokens, batch.mask, every)
        kept = batch.where & (batch.rows >= 0)[:, None]
        language = np.where(batch.rows >= 0, of[batch.rows], 0)
        return (np.asarray(x[dictionary.site][dictionary.layer])[kept],
                np.broadcast_to(language[:, None], kept.shape)[kept])

    found = measure_dictionary(dictionary, map(states, batches), names)
    highest = found["maximum"].sel(language=ALL).values
    if model.config.causal and model.config.head == "lm":
        inside = measure_in_model(model, dictionary, batches, of, names, show=False)
        found = found.merge(inside[["recovered", "kl_recovered"]])
    kept = found[[name for name in SHOWN if name in found]]
    for name in kept.data_vars:
        kept[name].attrs["title"] = SHOWN[str(name)]
    kept.attrs = {"what": f"On {len(corpus):,} sentences that neither trained it nor chose latents; recovered: of what "
                  "setting the site to zero costs"}
    return kept, highest


def steered(
    model: Model, dictionary: Dictionary, bank: Treebank, tested: np.ndarray, found: Mapping[str, xr.Dataset],
    highest: np.ndarray, settings: SteeringSettings, prompts: Prompts | None,
) -> dict[str, xr.Dataset]:
    """Steering at one checkpoint; the judges learn from documents that are not prompts."""
    corpus = as_corpus(bank)
    known = np.isin(np.arange(len(corpus)), tested, invert=True)
    if prompts is None:
        prompts = continuations(corpus, settings.prompt_words, settings.prompts, settings.seed,
                                asked=sorted(set(corpus.documents[tested].tolist())))
    judges: tuple[ValueJudge, LanguageJudge] = (
        fit_values(bank.rows(known), seed=settings.seed), fit_languages(corpus.rows(known), settings.seed)[0])
    effects = found["effects"]
    conditions = 1 + 2 * len(settings.scales)
    with progress(total=conditions * len(prompts) * 4, label="steered texts", unit="texts") as bar:
        return steer_values(
            model, dictionary, prompts, *judges, found["latents"],
            effects["evidence"].transpose("value", "language", "latent").values, highest,
            np.stack([effects[name].transpose("language", "latent").values for name in ("frequency", "mean")], -1),
            settings, bar.update)


def match_checkpoints(sources: Sequence[Source], folder: Path) -> xr.Dataset:
    """Latents of each checkpoint's dictionary found again in the next one's.

    Returns:
        Along `pair`: `checkpoint_a`, `checkpoint_b`, `cosine` (median of matched latents), `cosine_null` with one side
        turned at random, `above`, the share of latents with a cosine of 0.7 or more, and `p`.
    """
    rows: list[tuple[Any, ...]] = []
    for a, b in zip(sources, sources[1:]):
        one, other = (load_dictionary(folder / source.label / "dictionary" / "dictionaries" / "0") for source in (a, b))
        made = match_latents(one, other)
        cosine = made["cosine"].values
        rows.append((a.label, b.label, float(np.median(cosine)), float(np.median(made["cosine_null"].values)),
                     float((cosine >= NEAR).mean()), float(made["p_cosine"])))
    names = ("checkpoint_a", "checkpoint_b", "cosine", "cosine_null", "above", "p")
    return xr.Dataset({name: ("pair", list(column)) for name, column in zip(names, zip(*rows))} if rows else {})


def join(found: Sequence[Mapping[str, xr.Dataset]], sources: Sequence[Source]) -> dict[str, xr.Dataset]:
    """Datasets along `checkpoint`; of some only the last checkpoint's. What one checkpoint lacks is NaN there."""
    coordinates = checkpoint_coordinates(sources)
    out = {}
    for name in dict.fromkeys(name for made in found for name in made):
        if name in LAST_ONLY:
            if name in found[-1]:
                out[name] = found[-1][name]
            continue
        has = [number for number, made in enumerate(found) if name in made]
        if name == "pairs":
            out[name] = found[has[-1]][name]
            continue
        joined = xr.concat([found[number][name] for number in has], "checkpoint", join="outer",
                           combine_attrs="override", coords="minimal", compat="override", data_vars="all")
        joined = joined.assign_coords(checkpoint=[sources[number].label for number in has])
        if len(has) < len(found):
            joined = joined.reindex(checkpoint=coordinates["checkpoint"])
        else:
            joined = joined.assign_coords(coordinates)
        out[name] = joined
    return out


def last_checkpoint(tree: xr.DataTree) -> xr.DataTree:
    """The last checkpoint of `trace_features`, as `grammatical_features` would return it."""
    out = {}
    for name, node in tree.children.items():
        found = node.to_dataset(inherit=False)
        out[name] = found.isel(checkpoint=-1) if "checkpoint" in found.dims else found
    made = xr.DataTree.from_dict(out)
    made.attrs = dict(tree.attrs)
    return made
