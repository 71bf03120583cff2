"""Concepts in latents, within and across languages: sparse probing and feature absorption.

*Sparse probing* (Gurnee et al. 2023, and SAEBench): the k latents whose mean differs most between tokens with a concept
and without are chosen in one language, a logistic probe on them is trained there, and tested in every language; beside
it a probe on the whole activation, probes on k random latents that fire, and chance.

*Feature absorption* (Chanin et al. 2024, arXiv 2409.14507): the latent that stands for a concept keeps silent on a
token that shows it, because a more special latent carries the concept's direction there. Probe and dictionary read the
same activation, so what a latent adds to the probe is f (w . d) exactly, and no ablation has to be run.

Training and test documents are disjoint, in all languages at once.
"""

import dataclasses
import fractions
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped

from xlingjax.errors import InputError, require_least
from xlingjax.kernels.probing import fit_probes
from xlingjax.kernels.resampling import document_parts
from xlingjax.sae.dictionary import Dictionary

BLOCK_FLOATS = 1 << 24  # latents held at once


@dataclasses.dataclass(frozen=True)
class ProbingSettings:
    """How concepts are probed.

    Attributes:
        ks: numbers of latents.
        main: latents that stand for the concept, of absorption.
        cosine: least cosine of an absorbing latent's direction with the probe's (0.025 in the paper).
        share: least part of the probe's projection that the absorbing latent carries (0.4 in SAEBench).
        held_out: share of the documents that probes are tested on, in tenths.
        draws: of random latents, and of random directions.
        l2: penalty on squared weights against the sum of losses, on features of unit variance.
        seed: of documents and draws.
    """

    ks: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    main: int = 1
    cosine: float = 0.025
    share: float = 0.4
    held_out: float = 0.3
    draws: int = 5
    l2: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ks", tuple(self.ks))
        require_least(self, {"main": 1, "draws": 1, "l2": 0, "seed": 0})
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"ks are {list(self.ks)}; give numbers of latents, each at least 1")
        if not 0.1 <= self.held_out <= 0.9:
            raise InputError(f"held_out is {self.held_out}; give a share of documents from 0.1 to 0.9")


class _Parts(NamedTuple):
    """Tokens of one concept, and who of them trains and tests."""

    x: Float[np.ndarray, "n D"]
    y: Int[np.ndarray, "n"]
    names: list[str]
    language: Int[np.ndarray, "n"]
    test: Bool[np.ndarray, "n"]

    def rows(self, language: int, test: bool) -> Int[np.ndarray, "m"]:
        return np.flatnonzero((self.language == language) & (self.test == test))


def sparse_probing(
    dictionary: Dictionary, states: Float[np.ndarray, "n D"], labels: Int[np.ndarray, "n"],
    languages: Shaped[np.ndarray, "n"], documents: Int[np.ndarray, "n"], settings: ProbingSettings = ProbingSettings(),
) -> xr.Dataset:
    """How few latents show a concept, and whether those of one language show it in another.

    Args:
        states: activations of tokens at the dictionary's place.
        labels: 1 where a token shows the concept, else 0.
        documents: of each token; translations share one.

    Returns:
        `accuracy[k, language, language_b]`: mean recall of the two classes of a probe on k latents, chosen and trained
        in `language`, tested in `language_b`; `random`, the mean of `draws` probes on k latents that fire in training;
        `dense[language, language_b]`, on the activation; `chance`, 0.5. `latents[language, rank]`, the chosen ones,
        best first, and `difference`, their mean with the concept minus without. `tested[language]` tokens.

    Raises:
        InputError: shapes that do not fit, or a language in which a class has no training or no test token.
    """
    parts = _split(dictionary, states, labels, languages, documents, settings)
    with_it, without, fires = _means(dictionary, parts)
    difference = with_it - without
    ks = [k for k in settings.ks if k <= dictionary.config.latents]
    if not ks:
        raise InputError(f"ks are {list(settings.ks)}, and the dictionary has {dictionary.config.latents} latents; "
                         "give smaller ones")
    order = np.argsort(-np.abs(difference), axis=1, kind="stable")[:, :max(ks)]
    rng = np.random.default_rng([settings.seed, 53])
    drawn = np.stack([_drawn(rng, fired, max(ks), settings.draws) for fired in fires])  # [G, draws, k]
    sets = np.concatenate([order[:, None], drawn], 1)
    needed, at = np.unique(sets, return_inverse=True)
    f, at = _latents(dictionary, parts.x, needed), at.reshape(sets.shape)
    count = len(parts.names)
    found = np.empty((1 + settings.draws, len(ks), count, count))
    dense = np.empty((count, count))
    for a in range(count):
        dense[a] = _tested(parts, a, parts.x[None], settings.l2)[0]
        for i, k in enumerate(ks):
            features = np.stack([f[:, columns[:k]] for columns in at[a]])
            found[:, i, a] = _tested(parts, a, features, settings.l2)
    axes = ("k", "language", "language_b")
    return xr.Dataset({
        "accuracy": (axes, found[0]), "random": (axes, found[1:].mean(0)), "dense": (axes[1:], dense), "chance": 0.5,
        "latents": (("language", "rank"), order),
        "difference": (("language", "rank"), np.take_along_axis(difference, order, 1)),
        "tested": (("language",), [len(parts.rows(a, True)) for a in range(count)])},
        coords={"k": ks, "language": parts.names, "language_b": parts.names},
        attrs={"settings": json.dumps(dataclasses.asdict(settings))})


def feature_absorption(
    dictionary: Dictionary, states: Float[np.ndarray, "n D"], labels: Int[np.ndarray, "n"],
    languages: Shaped[np.ndarray, "n"], documents: Int[np.ndarray, "n"], settings: ProbingSettings = ProbingSettings(),
) -> xr.Dataset:
    """How often a concept's latent keeps silent because another carries its direction.

    The main latents are those whose mean rises most with the concept in the training documents of one language; the
    probe is each language's own. Counted are test tokens that show the concept and of which the probe says so. One is
    *missed* where no main latent fires; it is *absorbed* where besides the latent that adds most to the probe has a
    direction d with cos(d, w) >= `cosine` and carries at least `share` of (x - b) . w, b the decoder's bias.

    Args:
        As of `sparse_probing`; the dictionary writes where it reads.

    Returns:
        `missed` and `absorbed[language, language_b]`: shares of the counted tokens of `language_b`, main latents chosen
        in `language`; `control`: `absorbed` with random directions in place of the probe's. `counted` and
        `probe_accuracy[language_b]`; `main[language, rank]`; `absorber[language, language_b]`, the latent that
        absorbs most often (-1: none), and `absorber_share`, of the absorbed tokens. NaN where nothing is counted.

    Raises:
        InputError: as of `sparse_probing`, or the dictionary is a transcoder.
    """
    if dictionary.target is not None or dictionary.config.out != dictionary.config.inputs:
        raise InputError("absorption compares a probe of what the dictionary reads with what it writes; give a "
                         "dictionary that writes where it reads")
    parts = _split(dictionary, states, labels, languages, documents, settings)
    with_it, without, _ = _means(dictionary, parts)
    main = np.argsort(-(with_it - without), axis=1, kind="stable")[:, :settings.main]
    count, rng = len(parts.names), np.random.default_rng([settings.seed, 59])
    shapes = {"missed": np.nan, "absorbed": np.nan, "control": np.nan, "absorber_share": np.nan}
    out = {name: np.full((count, count), value) for name, value in shapes.items()}
    absorber = np.full((count, count), -1)
    accuracy, counted = np.empty(count), np.empty(count, int)
    for b in range(count):
        w, bias = _probe(parts, b, parts.x[None], settings.l2)
        direction, offset = w[0, :, 1] - w[0, :, 0], bias[0, 1] - bias[0, 0]
        held = parts.rows(b, True)
        said = parts.x[held] @ direction + offset > 0
        accuracy[b] = _recall(said == (parts.y[held] == 1), parts.y[held])
        rows = held[said & (parts.y[held] == 1)]
        counted[b] = len(rows)
        if not len(rows):
            continue
        random = rng.standard_normal((settings.draws, len(direction)))
        silent, top, passes = _carriers(dictionary, parts.x[rows], main, np.vstack([direction, random]), settings)
        for a in range(count):
            absorbed = silent[a] & passes[0]
            out["missed"][a, b], out["absorbed"][a, b] = silent[a].mean(), absorbed.mean()
            out["control"][a, b] = (silent[a] & passes[1:]).mean()
            if absorbed.any():
                latents, often = np.unique(top[absorbed], return_counts=True)
                absorber[a, b] = latents[often.argmax()]
                out["absorber_share"][a, b] = often.max() / absorbed.sum()
    axes = ("language", "language_b")
    return xr.Dataset(
        {**{name: (axes, values) for name, values in out.items()}, "absorber": (axes, absorber),
         "main": (("language", "rank"), main), "counted": (("language_b",), counted),
         "probe_accuracy": (("language_b",), accuracy)},
        coords={"language": parts.names, "language_b": parts.names},
        attrs={"settings": json.dumps(dataclasses.asdict(settings))})


def _carriers(
    dictionary: Dictionary, x: Float[np.ndarray, "n D"], main: Int[np.ndarray, "G m"],
    directions: Float[np.ndarray, "R D"], settings: ProbingSettings,
) -> tuple[Bool[np.ndarray, "G n"], Int[np.ndarray, "n"], Bool[np.ndarray, "R n"]]:
    """Whether the main latents of each language are silent; the latent that adds most to the first direction; and
    whether the one that adds most to each direction passes for absorbing."""
    rows = dictionary.directions
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    along = unit @ rows.T  # [R, M]
    norm = np.linalg.norm(rows, axis=1)
    aligned = along / np.where(norm > 0, norm, 1) >= settings.cosine
    wanted = (x - np.asarray(dictionary.params["decoder"]["bias"])) @ unit.T  # [n, R]
    silent, top, passes = [], [], []
    for start, f in _blocks(dictionary, x):
        silent.append((f[:, main] == 0).all(-1).T)
        for number, projected in enumerate(along):
            adds = f * projected
            most = adds.argmax(1)
            carried = adds[np.arange(len(f)), most]
            part = wanted[start:start + len(f), number]
            passes.append((part > 0) & (carried >= settings.share * part) & aligned[number, most])
            if number == 0:
                top.append(most)
    each = [np.concatenate(passes[number::len(along)]) for number in range(len(along))]
    return np.concatenate(silent, 1), np.concatenate(top), np.stack(each)


def _split(
    dictionary: Dictionary, states: Any, labels: Any, languages: Any, documents: Any, settings: ProbingSettings,
) -> _Parts:
    x, y = np.asarray(states, np.float32), np.asarray(labels)
    languages, documents = np.asarray(languages), np.asarray(documents)
    if x.ndim != 2 or x.shape[1] != dictionary.config.inputs or any(
            one.shape != x.shape[:1] for one in (y, languages, documents)):
        raise InputError(
            f"states {list(x.shape)}, labels {list(y.shape)}, languages {list(languages.shape)} and documents "
            f"{list(documents.shape)} do not fit; give [n, {dictionary.config.inputs}] and three times [n]")
    if not np.isin(y, (0, 1)).all():
        raise InputError(f"labels are {np.unique(y)[:5].tolist()}; give 1 for tokens that show the concept, else 0")
    broken = int((~np.isfinite(x).all(1)).sum())
    if broken:
        raise InputError(f"{broken} of {len(x)} states are NaN or infinite; leave these tokens out")
    names = list(dict.fromkeys(languages.tolist()))
    language = np.array([names.index(name) for name in languages.tolist()])
    out_of = fractions.Fraction(settings.held_out).limit_denominator(10)
    blocks = np.unique(documents, return_inverse=True)[1]
    part = document_parts(blocks, languages, (out_of.denominator - out_of.numerator, out_of.numerator), settings.seed)
    parts = _Parts(x, y.astype(int), names, language, part == 1)
    for number, name in enumerate(names):
        for test, said in ((False, "training"), (True, "test")):
            if len(np.unique(parts.y[parts.rows(number, test)])) < 2:
                raise InputError(f"language {name} has not both kinds of tokens, with and without the concept, in its "
                                 f"{said} documents; leave it out or give more text")
    return parts


def _blocks(dictionary: Dictionary, x: Float[np.ndarray, "n D"]) -> Any:
    """(start, latents [m, M]) of block after block; the last one is padded, so that one program serves all."""
    rows = max(64, min(4096, BLOCK_FLOATS // dictionary.config.latents))
    for start in range(0, len(x), rows):
        block = x[start:start + rows]
        yield start, np.asarray(dictionary.encode(np.pad(block, ((0, rows - len(block)), (0, 0)))))[:len(block)]


def _latents(
    dictionary: Dictionary, x: Float[np.ndarray, "n D"], columns: Sequence[int] | np.ndarray,
) -> Float[np.ndarray, "n k"]:
    return np.concatenate([f[:, columns] for _, f in _blocks(dictionary, x)])


def _means(dictionary: Dictionary, parts: _Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[G, M] over training tokens: mean latents with the concept and without, and whether a latent fires at all."""
    count, m = len(parts.names), dictionary.config.latents
    sums, number, fired = np.zeros((2, count, m)), np.zeros((2, count)), np.zeros((count, m), bool)
    train = np.flatnonzero(~parts.test)
    for start, f in _blocks(dictionary, parts.x[train]):
        rows = train[start:start + len(f)]
        for a in range(count):
            for label in (0, 1):
                chosen = (parts.language[rows] == a) & (parts.y[rows] == label)
                sums[label, a] += f[chosen].sum(0, dtype=np.float64)
                number[label, a] += chosen.sum()
            fired[a] |= (f[parts.language[rows] == a] != 0).any(0)
    without, with_it = sums / number[..., None]
    return with_it, without, fired


def _drawn(rng: np.random.Generator, fires: Bool[np.ndarray, "M"], k: int, draws: int) -> Int[np.ndarray, "draws k"]:
    """Random latents that fire; where there are fewer than k, silent ones after them."""
    return np.stack([np.argsort(np.where(fires, rng.random(len(fires)), 2 + np.arange(len(fires))))[:k]
                     for _ in range(draws)])


def _probe(
    parts: _Parts, language: int, features: Float[np.ndarray, "L n k"], l2: float,
) -> tuple[Float[np.ndarray, "L k 2"], Float[np.ndarray, "L 2"]]:
    """Weights and biases, for features as they are, of probes trained in one language, its two classes balanced.

    Tokens of the other languages stand by without weight: every language has the same program.
    """
    rows = parts.rows(language, False)
    mean = features[:, rows].mean(1, keepdims=True, dtype=np.float64)
    spread = features[:, rows].std(1, keepdims=True, dtype=np.float64)
    spread = np.where(spread > 0, spread, 1)
    train = np.flatnonzero(~parts.test)
    y = parts.y[train]
    mine = parts.language[train] == language
    size = np.bincount(y[mine], minlength=2)
    weight = np.where(mine, mine.sum() / (2 * size[y]), 0).astype(np.float32)
    x = np.where(mine[:, None], (features[:, train] - mean) / spread, 0).astype(np.float32)
    w = np.asarray(fit_probes(x, y[None], weight[None], 2, l2), np.float64)[:, 0]
    kernel = w[:, :-1] / spread.swapaxes(1, 2)
    return kernel, w[:, -1] - (mean @ kernel)[:, 0]


def _tested(parts: _Parts, language: int, features: Float[np.ndarray, "L n k"], l2: float) -> Float[np.ndarray, "L G"]:
    """Mean recall in every language of probes trained in one."""
    kernel, bias = _probe(parts, language, features, l2)
    out = np.empty((len(features), len(parts.names)))
    for b in range(len(parts.names)):
        rows = parts.rows(b, True)
        said = (features[:, rows] @ kernel + bias[:, None]).argmax(-1)
        out[:, b] = [_recall(one == parts.y[rows], parts.y[rows]) for one in said]
    return out


def _recall(right: Bool[np.ndarray, "n"], y: Int[np.ndarray, "n"]) -> float:
    return float(np.mean([right[y == label].mean() for label in (0, 1)]))
