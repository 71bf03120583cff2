"""Does a layer still know which language a token is in, or only which token it is?

A token's type gives most languages away, so accuracy on all tokens says little. Three test sets
stand side by side: all tokens, tokens whose type the probe never saw in training, tokens whose type
occurs in two or more languages. Beside them stand what needs no model at all (a look-up of types,
the script) and a control task with a random label for each type (Hewitt & Liang 2019), which a
probe can only solve by knowing the type: it must lie at chance on unseen types.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from xlingjax.analyses.probe_splits import Split, sample_positions, split_documents
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.scripts import main_script
from xlingjax.corpora.tokenising import Tokens, pieces
from xlingjax.errors import InputError
from xlingjax.kernels.probing import fit_probes, probe_gradients, score_probes
from xlingjax.kernels.resampling import independent_blocks
from xlingjax.responses.states import collect_tokens

SUBSETS = ("all", "unseen", "shared")


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
    """How the probes are trained and tested.

    Attributes:
        tokens: sampled in every language, fewer where one language has fewer.
        per_sentence: at most so many of one sentence.
        seeds: splits of the documents, each with its own probes; they are no replicates.
        held_out: share of the documents that the probes are tested on.
        sizes: shares of the training tokens, for the learning curve; the largest must be 1.
        l2: penalty on squared weights against the sum of losses, on features of unit mean square.
        bootstraps: draws of documents for the 95 % intervals.
    """

    tokens: int = 600
    per_sentence: int = 4
    seeds: int = 3
    held_out: float = 0.3
    sizes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    l2: float = 1.0
    bootstraps: int = 200

    def __post_init__(self) -> None:
        for name, least in {"tokens": 2, "per_sentence": 1, "seeds": 1, "bootstraps": 0, "l2": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} of the probe is {getattr(self, name)}; it must be {least} or more")
        if not 0 < self.held_out < 1:
            raise InputError(
                f"held_out is {self.held_out}; give a share of documents between 0 and 1")
        if max(self.sizes) != 1 or min(self.sizes) <= 0:
            raise InputError(f"sizes are {self.sizes}; give shares of the training tokens up to 1")


def probe_checkpoint(
    model: Any,
    corpus: Corpus,
    tokens: Tokens,
    settings: ProbeSettings = ProbeSettings(),
    seed: int = 0,
    batch_tokens: int = 8192,
) -> xr.Dataset:
    """`language_probe` on the embedding and every layer of a model; one seed draws one sample."""
    positions = sample_positions(
        tokens, corpus.languages, settings.tokens, settings.per_sentence, seed)
    found = collect_tokens(model, tokens, positions, batch_tokens=batch_tokens)
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    kinds, which = np.unique(found.ids, return_inverse=True)
    texts = None
    if model.tokenizer is not None:
        texts = np.array(pieces(model.tokenizer, kinds.tolist()))[which]
    return language_probe(
        found.states, found.ids, blocks[found.rows], corpus.languages[found.rows], settings, seed,
        pieces=texts)


def language_probe(
    states: Float[np.ndarray, "L n D"],
    types: Int[np.ndarray, "n"],
    documents: Int[np.ndarray, "n"],
    languages: Shaped[np.ndarray, "n"],
    settings: ProbeSettings = ProbeSettings(),
    seed: int = 0,
    pieces: Sequence[str] | np.ndarray | None = None,
) -> xr.Dataset:
    """How well linear probes tell the language of n tokens, layer by layer, beside their controls.

    Whole documents are held out, in all their languages; training and test have equally many tokens
    of every language. Numbers are means over the seeds' splits.

    Args:
        states: hidden states, layer 0 being the embedding output.
        types: token ids.
        documents: block of each token: documents with all translations (`independent_blocks`).
        languages: code of each token's language.
        pieces: the text of each token, for the script baseline; without it `script` is NaN.

    Returns:
        By `layer` and `subset` ("all", "unseen": types not in training, "shared": types of two or
        more languages): `accuracy` (balanced: mean of the languages' recalls) with `accuracy_low`,
        `accuracy_high` (95 % over held-out documents), `control`. By `subset`: `lookup`, `script`,
        `tested` (tokens) and `tested_languages`. By `layer`: `log_loss_bits` against the coordinate
        `entropy_bits`, `confused_within_script`, `confused_across_scripts`, `control_seen`,
        `gradient` (the largest left at the end of training). `curve[layer, size]`,
        `confusion[layer, language, predicted]`. Coordinates `chance` = 1/G and `train_tokens` a
        language. NaN where a subset is empty or a layer holds numbers that are not finite.

    Raises:
        InputError: fewer than two languages, or documents that cannot be held out.
    """
    names, language = _languages(languages)
    if not np.isfinite(states).all():
        bad = [int(layer) for layer in np.flatnonzero(~np.isfinite(states).all(axis=(1, 2)))]
        states = np.where(np.isfinite(states).all(axis=(1, 2))[:, None, None], states, 0)
    else:
        bad = []
    count, layers = len(names), len(states)
    _, kinds = np.unique(types, return_inverse=True)
    splits = [
        split_documents(documents, language, settings.held_out, seed * settings.seeds + number)
        for number in range(settings.seeds)]
    controls = [np.random.default_rng([seed, number, 1]).integers(0, count, kinds.max() + 1)[kinds]
                for number in range(settings.seeds)]
    x = _unit(states)
    y, weight = _runs(language, controls, splits, settings.sizes)
    w = np.asarray(fit_probes(x, y, weight, count, settings.l2))
    predicted, log_p = (np.asarray(array) for array in score_probes(x, y, w))
    gradient = np.asarray(probe_gradients(x, y, weight, w, settings.l2)).max(axis=1)

    each = len(settings.sizes) + 1  # runs a seed: one a size, then the control
    full = settings.sizes.index(1.0)
    shared = _in_two_languages(kinds, language)
    scripts = None if pieces is None else np.unique([main_script([text]) for text in pieces],
                                                    return_inverse=True)[1]
    drawn = _draws(documents, settings.bootstraps, seed)
    sums: dict[str, list[np.ndarray]] = {}

    def note(**values: Any) -> None:
        for name, value in values.items():
            sums.setdefault(name, []).append(np.asarray(value, float))

    samples = []
    for number, (split, control) in enumerate(zip(splits, controls)):
        first = number * each
        right = predicted[:, first + full] == language
        control_right = predicted[:, first + each - 1] == control
        seen = np.isin(kinds, kinds[split.train])
        subsets = [split.test, split.test & ~seen, split.test & shared]
        lookup = _majority(kinds, language, split.train, count)
        script = None if scripts is None else _majority(scripts, language, split.train, count)
        note(
            accuracy=np.stack([_balanced(right, language, rows) for rows in subsets], -1),
            control=np.stack([_balanced(control_right, control, rows) for rows in subsets], -1),
            control_seen=_balanced(control_right, control, split.test & seen),
            lookup=[_balanced(lookup, language, rows) for rows in subsets],
            script=[np.nan if script is None else _balanced(script, language, rows)
                    for rows in subsets],
            tested=[rows.sum() for rows in subsets],
            tested_languages=[len(np.unique(language[rows])) for rows in subsets],
            log_loss_bits=-log_p[:, first + full, split.test].mean(-1) / np.log(2),
            curve=np.stack([_balanced(predicted[:, first + i] == language, language, split.test)
                            for i in range(each - 1)], -1),
            confusion=_confusion(predicted[:, first + full], language, split.test, count))
        samples.append(np.stack(
            [_resampled(right, language, documents, rows, drawn, count) for rows in subsets], -1))
    with np.errstate(all="ignore"):
        mean = {name: _mean(np.stack(values)) for name, values in sums.items()}
        low, high = _interval(_mean(np.stack(samples)))
    for name in ("accuracy", "control", "control_seen", "log_loss_bits", "curve", "confusion"):
        mean[name][bad] = np.nan
    low[bad] = high[bad] = np.nan
    same = _same_script(pieces, languages, names)
    off = ~np.eye(count, dtype=bool)
    confusion = mean["confusion"]
    result = xr.Dataset(
        {name: (("layer", "subset"), mean[name]) for name in ("accuracy", "control")}
        | {"accuracy_low": (("layer", "subset"), low), "accuracy_high": (("layer", "subset"), high)}
        | {name: ("subset", mean[name])
           for name in ("lookup", "script", "tested", "tested_languages")}
        | {"log_loss_bits": ("layer", mean["log_loss_bits"], {"units": "bits"}),
           "control_seen": ("layer", mean["control_seen"]),
           "gradient": ("layer", gradient),
           "curve": (("layer", "size"), mean["curve"]),
           "confusion": (("layer", "language", "predicted"), confusion),
           "confused_within_script": ("layer", (confusion * (same & off)).sum((1, 2)) / count),
           "confused_across_scripts": ("layer", (confusion * (~same & off)).sum((1, 2)) / count)},
        coords={"layer": np.arange(layers), "subset": list(SUBSETS), "size": list(settings.sizes),
                "language": names, "predicted": names, "chance": 1 / count,
                "entropy_bits": np.log2(count),
                "train_tokens": float(np.mean([split.train.sum() / count for split in splits]))})
    return result.assign_attrs(
        settings=json.dumps(dataclasses.asdict(settings)), seed=seed,
        interval=f"95 % over {len(np.unique(documents))} documents, {settings.bootstraps} draws",
        replicates="splits of one sample of tokens; no replicates")


def _languages(languages: np.ndarray) -> tuple[list[str], np.ndarray]:
    names, first, which = np.unique(languages, return_index=True, return_inverse=True)
    if len(names) < 2:
        raise InputError(
            f"the tokens are of {len(names)} language; a language probe needs two or more")
    rank = np.argsort(np.argsort(first))
    return [str(names[i]) for i in np.argsort(first)], rank[which]


def _unit(states: np.ndarray) -> np.ndarray:
    """Each layer about its mean, divided by one number: `l2` then means the same on every layer."""
    x = states.astype(np.float32)
    x = x - x.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.square(x, dtype=np.float64).mean(axis=(1, 2), keepdims=True))
    return (x / np.where(scale > 0, scale, 1)).astype(np.float32)


def _runs(
    language: np.ndarray,
    controls: Sequence[np.ndarray],
    splits: Sequence[Split],
    sizes: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights of all runs: seed by seed the sizes, then the control."""
    y, weight = [], []
    for split, control in zip(splits, controls):
        most = split.rank[split.train].max() + 1
        for size in sizes:
            y.append(language)
            weight.append(split.train & (split.rank < max(1, round(size * most))))
        y.append(control)
        weight.append(split.train)
    return np.stack(y).astype(np.int32), np.stack(weight).astype(np.float32)


def _in_two_languages(kinds: np.ndarray, language: np.ndarray) -> np.ndarray:
    occurs = np.zeros((kinds.max() + 1, language.max() + 1), bool)
    occurs[kinds, language] = True
    return (occurs.sum(axis=1) >= 2)[kinds]


def _majority(kinds: np.ndarray, language: np.ndarray, train: np.ndarray, count: int) -> np.ndarray:
    """How likely each token is told right by the language its kind had most often in training.

    Ties are shared out; a kind not seen in training is a guess among all.
    """
    table = np.zeros((kinds.max() + 1, count))
    np.add.at(table, (kinds[train], language[train]), 1)
    best = table == table.max(axis=1, keepdims=True)
    return (best / best.sum(axis=1, keepdims=True))[kinds, language]


def _balanced(right: np.ndarray, label: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean over the labels that occur of the share told right; NaN without a token."""
    found = [right[..., rows & (label == one)].mean(-1) for one in np.unique(label[rows])]
    return np.mean(found, axis=0) if found else np.full(right.shape[:-1], np.nan)


def _confusion(
    predicted: np.ndarray, language: np.ndarray, rows: np.ndarray, count: int
) -> np.ndarray:
    """[L, G, G]: of the tokens of a language, the share told to be each language."""
    table = np.zeros((len(predicted), count, count))
    layer = np.arange(len(predicted))[:, None]
    np.add.at(table, (layer, language[rows], predicted[:, rows]), 1)
    return table / table.sum(axis=2, keepdims=True)


def _draws(documents: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[draws, documents]: how often each document is drawn."""
    count = documents.max() + 1
    present = np.unique(documents)
    rng = np.random.default_rng([seed, 2])
    table = np.zeros((draws, count))
    for row in table:
        np.add.at(row, rng.choice(present, len(present)), 1)
    return table


def _resampled(
    right: np.ndarray, language: np.ndarray, documents: np.ndarray, rows: np.ndarray,
    drawn: np.ndarray, count: int,
) -> np.ndarray:
    """[draws, L] balanced accuracies with each test document counted as often as it is drawn."""
    cell = documents[rows] * count + language[rows]
    size = drawn.shape[1] * count
    total = drawn @ np.bincount(cell, minlength=size).reshape(-1, count)
    hits = np.stack([np.bincount(cell, one[rows], minlength=size) for one in right])
    hits = np.einsum("bd,ldg->blg", drawn, hits.reshape(len(right), -1, count))
    with np.errstate(invalid="ignore"):
        share = hits / total[:, None]
    return _mean(np.moveaxis(share, -1, 0))


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    number = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return np.where(known, values, 0).sum(axis=0) / number


def _interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(draws).all(axis=0)
    low, high = np.quantile(np.where(known, draws, 0), [0.025, 0.975], axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def _same_script(pieces: Any, languages: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """[G, G]: whether most letters of two languages are of one script; all alike without texts."""
    if pieces is None:
        return np.ones((len(names), len(names)), bool)
    texts = np.asarray(pieces)
    scripts = np.array([main_script(texts[languages == name]) for name in names])
    return scripts[:, None] == scripts
