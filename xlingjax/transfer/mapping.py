"""An orthogonal map between two static embedding spaces, learned from itself, as VecMap does it.

Artetxe, Labaka, Agirre (ACL 2018, arXiv 1805.06297): a first dictionary from the sorted similarities of each space,
then in turns the orthogonal map of the dictionary and the dictionary of the map, with random omissions that become
fewer; at the end both spaces are whitened, mapped, and weighted by how well their axes agree.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int, Key

from xlingjax.errors import InputError, require_least
from xlingjax.precision import full_precision
from xlingjax.progress import progress

ROWS = 1024  # similarities of so many words are in memory at once


@dataclasses.dataclass(frozen=True)
class MappingSettings:
    """How a map is learned.

    Attributes:
        most: words, the most frequent ones, that dictionaries are made of.
        start: of these, words that the first dictionary is made of.
        neighbours: of CSLS.
        kept: share of similarities that the first dictionaries see.
        growth: factor on it where nothing improves.
        patience: rounds without improvement before `kept` grows, or learning ends.
        improvement: the least gain in mean similarity that is one.
        rounds: the most in all.
        weighted: whiten and weight both spaces at the end; else the map is orthogonal.
        seed: of the omissions.
    """

    most: int = 20_000
    start: int = 4_000
    neighbours: int = 10
    kept: float = 0.1
    growth: float = 2.0
    patience: int = 50
    improvement: float = 1e-6
    rounds: int = 2_000
    weighted: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, dict.fromkeys(("most", "start", "neighbours", "patience", "rounds"), 1))
        if not 0 < self.kept <= 1 or self.growth <= 1:
            raise InputError(f"kept is {self.kept} and growth {self.growth}; give a share above 0, and more than 1")


@dataclasses.dataclass(frozen=True, eq=False)
class Mapping:
    """Two spaces in one.

    Attributes:
        source, target: all words of each, mapped; compare them by `nearest`.
        dictionary: pairs (source word, target word) that the map was made from.
        similarity: mean cosine of each source word and its translation in the last dictionary that is learned.
        rounds: made.
    """

    source: Float[np.ndarray, "v D"]
    target: Float[np.ndarray, "w D"]
    dictionary: Int[np.ndarray, "n 2"]
    similarity: float
    rounds: int


def normalised(table: Float[np.ndarray, "V D"]) -> Float[np.ndarray, "V D"]:
    """Rows of length 1, about their mean, of length 1 again; rows of zeros (words without vector) stay zero."""
    real = np.linalg.norm(table, axis=1, keepdims=True) > 0
    unit = lambda rows: rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    rows = unit(np.asarray(table, np.float64))
    return np.where(real, unit(rows - rows[real[:, 0]].mean(0)), 0.0)


def orthogonal_map(x: Float[np.ndarray, "n D"], z: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "D D"]:
    """The orthogonal W that minimises |x W - z|, by the singular vectors of x' z (Schönemann 1966).

    >>> turned = orthogonal_map(np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]]))
    >>> turned.round(6).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    """
    left, _, right = scipy.linalg.svd(x.T @ z)
    return left @ right


def weighted_maps(
    x: Float[np.ndarray, "v D"], z: Float[np.ndarray, "w D"], dictionary: Int[np.ndarray, "n 2"],
) -> tuple[Float[np.ndarray, "v D"], Float[np.ndarray, "w D"]]:
    """Both spaces whitened, mapped, weighted by the root of the singular values, and with their variance given back.

    Artetxe, Labaka, Agirre (AAAI 2018), steps 1 to 4 with weights of 1/2 on both sides.
    """
    whiten_x, whiten_z = (_whitener(side[dictionary[:, i]]) for i, side in enumerate((x, z)))
    left, values, right = scipy.linalg.svd((x @ whiten_x)[dictionary[:, 0]].T @ (z @ whiten_z)[dictionary[:, 1]])
    weight = np.sqrt(values)
    give_back = lambda rotation, whiten: rotation.T @ np.linalg.inv(whiten) @ rotation
    return ((x @ whiten_x @ left * weight) @ give_back(left, whiten_x),
            (z @ whiten_z @ right.T * weight) @ give_back(right.T, whiten_z))


def _whitener(rows: np.ndarray) -> np.ndarray:
    """rows' rows to the power -1/2, axes without variance left out."""
    _, values, right = scipy.linalg.svd(rows, full_matrices=False)
    if len(values) < rows.shape[1] or values[-1] < 1e-6 * values[0]:
        raise InputError(
            f"a dictionary of {len(rows)} pairs spans fewer than the {rows.shape[1]} units of the embeddings, which "
            "cannot be whitened; take narrower embeddings, a longer dictionary, or weighted=False")
    return right.T / values @ right


def learn_mapping(
    source: Float[np.ndarray, "v D"], target: Float[np.ndarray, "w D"], settings: MappingSettings | None = None,
    dictionary: Sequence[tuple[int, int]] | None = None, *, show: bool | None = None,
) -> Mapping:
    """Maps two spaces into one, from nothing or from a first dictionary.

    Args:
        source, target: static embeddings of words, most frequent first, of one width; rows of zeros count as absent.
        settings: default `MappingSettings()`.
        dictionary: pairs (source word, target word) to begin with; None: from sorted similarities alone.
        show: the progress bar, as `progress` has it.

    Raises:
        InputError: spaces of two widths, a dictionary with words that are not there or too few for the width.
    """
    settings = settings or MappingSettings()
    x, z = _checked(source, target)
    if dictionary is None:
        pairs = first_dictionary(x, z, settings)
    else:
        pairs = np.asarray(list(dictionary), np.int64).reshape(-1, 2)
        if not len(pairs) or pairs.min() < 0 or (pairs.max(0) >= (len(x), len(z))).any():
            raise InputError(
                f"the dictionary has {len(pairs)} pairs, words up to {pairs.max(0, initial=-1).tolist()}, of "
                f"vocabularies of {len(x)} and {len(z)}; give pairs of row numbers")
    most_x, most_z = (_present(side, settings.most) for side in (x, z))
    kept, best, since, key = settings.kept, -np.inf, 0, jax.random.key(settings.seed)
    found, done = pairs, 0
    with progress(total=settings.rounds, label="mapping", unit="rounds", show=show) as bar:
        for done in range(1, settings.rounds + 1):
            mapped = x @ orthogonal_map(x[pairs[:, 0]], z[pairs[:, 1]])
            forth, back, similarity = _translations(
                mapped[most_x], z[most_z], settings.neighbours, jax.random.fold_in(key, done), kept)
            pairs = np.concatenate([
                np.stack([most_x, most_z[forth]], 1), np.stack([most_x[back], most_z], 1)])
            bar.set_postfix_str(f"similarity {similarity:.4f}, kept {kept:.2f}", refresh=False)
            bar.update()
            if similarity - best >= settings.improvement:
                best, since, found = similarity, 0, pairs
            elif (since := since + 1) >= settings.patience:
                if kept >= 1:
                    break
                kept, since = min(kept * settings.growth, 1.0), 0
    if settings.weighted:
        both = weighted_maps(x, z, found)
    else:
        both = (x @ orthogonal_map(x[found[:, 0]], z[found[:, 1]]), z)
    return Mapping(*both, found, float(best), done)


def first_dictionary(
    x: Float[np.ndarray, "v D"], z: Float[np.ndarray, "w D"], settings: MappingSettings,
) -> Int[np.ndarray, "n 2"]:
    """Words whose similarities to all others of their language, sorted, are alike (both spaces normalised)."""
    count = min(settings.start, len(_present(x, settings.most)), len(_present(z, settings.most)))
    if count < 2:
        raise InputError(f"only {count} words have embeddings on both sides; a map needs some hundreds")
    words = [_present(side, settings.most)[:count] for side in (x, z)]
    sorted_ = []
    for side, chosen in zip((x, z), words):
        left, values, _ = scipy.linalg.svd(side[chosen], full_matrices=False)
        root = np.sort((left * values) @ left.T, axis=1)  # the root of the similarities, as VecMap takes it
        sorted_.append(normalised(root))
    forth, back, _ = _translations(sorted_[0], sorted_[1], settings.neighbours, jax.random.key(settings.seed), 1.0)
    return np.concatenate([np.stack([words[0], words[1][forth]], 1), np.stack([words[0][back], words[1]], 1)])


def nearest(
    x: Float[np.ndarray, "n D"], z: Float[np.ndarray, "w D"], neighbours: int = 10,
) -> Int[np.ndarray, "n"]:
    """The translation of each word: the target word most similar by CSLS (Conneau et al. 2018).

    CSLS is the cosine less half the mean cosine of each word with its k nearest of the other language, which keeps
    words that are near everything from being everybody's translation.

    >>> nearest(np.eye(3), np.eye(3)[[1, 2, 0]], neighbours=1).tolist()
    [2, 0, 1]
    """
    unit = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (x, z)]
    forth, _, _ = _translations(unit[0], unit[1], neighbours, jax.random.key(0), 1.0)
    return forth


def _checked(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise InputError(
            f"embeddings of shapes {source.shape} and {target.shape}; two tables of one width can be mapped")
    for name, table in (("source", source), ("target", target)):
        if not np.isfinite(table).all():
            raise InputError(f"the {name} embeddings are not all finite; train them with a lower learning rate")
    return normalised(source), normalised(target)


def _present(table: np.ndarray, most: int) -> np.ndarray:
    """The first words that have an embedding."""
    return np.flatnonzero((table != 0).any(1))[:most]


def _translations(
    x: np.ndarray, z: np.ndarray, neighbours: int, key: Key[Array, ""], kept: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Best words of z for each of x, of x for each of z, by CSLS; and the mean cosine of both bests.

    With `kept` below 1 each similarity is seen with that probability only; the mean cosine is that of what is seen.
    """
    x32, z32 = (jnp.asarray(side, jnp.float32) for side in (x, z))
    keys = jax.random.split(key)
    forth, seen = _best(x32, z32, min(neighbours, len(x)), keys[0], kept)
    back, seen_back = _best(z32, x32, min(neighbours, len(z)), keys[1], kept)
    similarity = (np.asarray(seen, np.float64).mean() + np.asarray(seen_back, np.float64).mean()) / 2
    return np.asarray(forth), np.asarray(back), float(similarity)


@functools.partial(jax.jit, static_argnums=2)
@full_precision
def _best(
    x: Float[Array, "v D"], z: Float[Array, "w D"], neighbours: int, key: Key[Array, ""], kept: Float[Array, ""],
) -> tuple[Int[Array, "v"], Float[Array, "v"]]:
    """For each of x the best of z that is seen, and its cosine, `ROWS` similarities of all others at a time."""

    def hubness(row: Float[Array, "D"]) -> Float[Array, ""]:
        return jax.lax.top_k(x @ row, neighbours)[0].mean()

    def best(number: Int[Array, ""], row: Float[Array, "D"]) -> tuple[Array, Array]:
        cosine = z @ row
        seen = jax.random.uniform(jax.random.fold_in(key, number), cosine.shape) < kept
        place = jnp.where(seen, cosine - hub / 2, -jnp.inf).argmax()
        return place, cosine[place]

    hub = jax.lax.map(hubness, z, batch_size=ROWS)
    return jax.lax.map(lambda given: best(*given), (jnp.arange(len(x)), x), batch_size=ROWS)
