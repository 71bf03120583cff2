"""Which latents of one dictionary are those of another: two checkpoints, two languages, two seeds.

Latents are matched one to one by the cosine of what they write, and by the correlation of their activations over the
same tokens. Beside it stands the same with one side turned at random (cosines) or its tokens shuffled in blocks
(correlations): in few dimensions, or where latents are active all alike, every latent has a look-alike.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from xlingjax.errors import InputError
from xlingjax.kernels import matching
from xlingjax.sae import Dictionary

MOST = 8192  # latents of a side; the assignment holds a matrix of their product


def match_latents(
    a: Dictionary, b: Dictionary, *, profiles: tuple[Float[np.ndarray, "n A"], Float[np.ndarray, "n B"]] | None = None,
    blocks: Shaped[np.ndarray, "n"] | None = None,
    latents: tuple[Int[np.ndarray, "p"], Int[np.ndarray, "q"]] | None = None, draws: int = 20, seed: int = 0,
) -> xr.Dataset:
    """Every latent of one dictionary with its counterpart in the other.

    Args:
        a, b: whose directions are compared; of one width.
        profiles: activations of all latents of each over the same tokens or words (or translations of them, in the
            same order).
        blocks: document of each of the n; whole documents are shuffled under the null. By default each is its own.
        latents: those compared of each side, for example the ones alive; all by default.
        draws: of the nulls.

    Returns:
        Along `latent` (those of the smaller side that are matched, in order of `a`): `a`, `b` by directions with
        `cosine`, and `best`, the highest cosine with any latent, whether taken or not. `cosine_null[draw, latent]`
        sorted falling, of a side turned at random; `p_cosine`, share of draws whose mean is as high. With
        profiles: `b_profile`, `correlation`, `correlation_null`, `p_correlation`, and attribute `agree`, the share of
        latents that both give the same counterpart.

    Raises:
        InputError: widths differ, profiles do not fit, or there are more than 8,192 latents to match.

    >>> from xlingjax.sae import DictionaryConfig
    >>> make = lambda rows: Dictionary({"decoder": {"kernel": rows}}, DictionaryConfig("relu", 3, 2))
    >>> rows = np.array([[1.0, 0, 0], [0, 1, 0]])
    >>> found = match_latents(make(rows), make(rows[::-1]), draws=3)
    >>> found["b"].values.tolist(), found["cosine"].values.tolist()
    ([1, 0], [1.0, 1.0])
    """
    sides = [np.asarray(one.directions, float) for one in (a, b)]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise InputError(f"the dictionaries write {sides[0].shape[1]} and {sides[1].shape[1]} units, so their "
                         "directions have no cosine; give two of one width")
    chosen = latents or (np.arange(len(sides[0])), np.arange(len(sides[1])))
    if max(map(len, chosen)) > MOST:
        raise InputError(f"{max(map(len, chosen)):,} latents cannot be matched one to one; choose at most {MOST:,} by "
                         "latents=, for example the ones alive")
    rows = [side[at] for side, at in zip(sides, chosen)]
    rng = np.random.default_rng([seed, 79])
    found = matching.cosines(rows[0], rows[1])
    first, second = matching.one_to_one(found)
    null = np.stack([_matched(matching.cosines(rows[0] @ matching.random_rotation(rows[0].shape[1], rng), rows[1]))
                     for _ in range(draws)])
    out = {"a": ("latent", chosen[0][first]), "b": ("latent", chosen[1][second]),
           "cosine": ("latent", found[first, second]), "best": ("latent", found[first].max(1)),
           "cosine_null": (("draw", "latent"), null),
           "p_cosine": ((), _p(found[first, second], null))}
    attrs: dict[str, float] = {}
    if profiles is not None:
        f, g = (np.asarray(one, float)[:, at] for one, at in zip(profiles, chosen))
        if len(f) != len(g):
            raise InputError(f"profiles are over {len(f)} and {len(g)} tokens; give the same tokens in both")
        alike = matching.correlations(f, g)
        one, other = matching.one_to_one(alike)
        shuffled = np.stack([_matched(matching.correlations(f, g[_shuffle(len(g), blocks, rng)]))
                             for _ in range(draws)])
        of = dict(zip(one.tolist(), other.tolist()))
        partner = np.array([of.get(row, -1) for row in first.tolist()])
        out |= {"b_profile": ("latent", np.where(partner >= 0, chosen[1][partner], -1)),
                "correlation": ("latent", np.where(partner >= 0, alike[first, partner], np.nan)),
                "correlation_null": (("draw", "latent"), shuffled),
                "p_correlation": ((), _p(alike[one, other], shuffled))}
        attrs["agree"] = float((partner == second).mean())
    return xr.Dataset(out, attrs=attrs | {"width": rows[0].shape[1], "draws": draws})


def _matched(similarity: Float[np.ndarray, "A B"]) -> Float[np.ndarray, "n"]:
    return np.sort(similarity[matching.one_to_one(similarity)])[::-1]


def _p(found: Float[np.ndarray, "n"], null: Float[np.ndarray, "draws n"]) -> float:
    return float((1 + (null.mean(1) >= found.mean()).sum()) / (1 + len(null)))


def _shuffle(count: int, blocks: Shaped[np.ndarray, "n"] | None, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    """A random order that keeps blocks together."""
    if blocks is None:
        return rng.permutation(count)
    block = np.unique(blocks, return_inverse=True)[1]
    return np.argsort(rng.permutation(block.max() + 1)[block], kind="stable")
