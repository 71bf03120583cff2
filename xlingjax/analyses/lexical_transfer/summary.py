"""Scores of all systems with intervals over documents and the spread over seeds, and what stands above the floors."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from xlingjax.kernels.resampling import document_bootstrap
from xlingjax.tasks.task import Example

LEVEL = 0.95
ALL = "all"  # the mean over the other languages
Right = Mapping[tuple[str, str], Float[np.ndarray, "R e"]]  # (system, language) -> of each seed and example


def table(
    right: Right, examples: Mapping[str, Sequence[Example]], roles: Mapping[str, str], chance: Mapping[str, float],
    draws: int,
) -> xr.Dataset:
    """Means of every system and language.

    Args:
        right: what each test example scores, a row a seed; NaN where a system has no such seed.
        examples: language -> its test examples.
        roles: of the systems, in the order of the table.
        chance: language -> score of the task's own baseline, such as the most frequent class.
        draws: bootstrap samples of documents.

    Returns:
        [system, language]: `score` (mean over seeds and examples), `low` and `high` (percentiles over samples of
        documents, the same documents in all systems and languages), `spread` (standard deviation over seeds), and by
        seed `seed_score`; [transfer, floor, language]: `gain` with `gain_low`, `gain_high`; [transfer, language]:
        `above`: the gain over every floor lies above 0. The language "all" is the mean over the others.
    """
    languages = list(examples)
    systems = [name for name in roles if any(key[0] == name for key in right)]
    seeds = next(iter(right.values())).shape[0]
    weights = _weights(examples, draws)
    shape = (len(systems), len(languages) + 1)
    means = np.full((*shape, seeds), np.nan)
    sampled = np.full((*shape, draws), np.nan)
    for s, system in enumerate(systems):
        for g, language in enumerate(languages):
            if (system, language) in right:
                values = right[system, language]
                means[s, g] = values.mean(1)
                here = ~np.isnan(values[:, 0])
                sampled[s, g] = weights[language] @ values[here].mean(0) / np.maximum(weights[language].sum(1), 1)
        if all((system, language) in right for language in languages):
            means[s, -1], sampled[s, -1] = means[s, :-1].mean(0), sampled[s, :-1].mean(0)
    made = ~np.isnan(means)
    score = np.where(made, means, 0).sum(-1) / np.maximum(made.sum(-1), 1)
    score[~made.any(-1)] = np.nan
    square = np.where(made, means - score[..., None], 0) ** 2
    spread = np.where(made.sum(-1) > 1, np.sqrt(square.sum(-1) / np.maximum(made.sum(-1) - 1, 1)), np.nan)
    low, high = _interval(sampled)
    axes = ("system", "language")
    out = xr.Dataset(
        {"score": (axes, score), "low": (axes, low), "high": (axes, high),
         "spread": (axes, spread),
         "seed_score": ((*axes, "seed"), means),
         "chance": ("language", [*(chance[name] for name in languages), np.mean([chance[n] for n in languages])]),
         "examples": ("language", [*(len(examples[name]) for name in languages), sum(map(len, examples.values()))]),
         "role": ("system", [roles[name] for name in systems])},
        {"system": systems, "language": [*languages, ALL], "seed": np.arange(seeds)}, {"level": LEVEL, "draws": draws})
    return out.merge(_gains(systems, roles, score, sampled, [*languages, ALL]))


def _gains(
    systems: Sequence[str], roles: Mapping[str, str], score: np.ndarray, sampled: np.ndarray, languages: Sequence[str],
) -> xr.Dataset:
    transfer = [i for i, name in enumerate(systems) if roles[name] in ("transfer", "start")]
    floor = [i for i, name in enumerate(systems) if roles[name] == "floor"]
    gain = score[transfer][:, None] - score[floor][None]
    low, high = _interval(sampled[transfer][:, None] - sampled[floor][None])
    axes = ("transfer", "floor", "language")
    return xr.Dataset(
        {"gain": (axes, gain), "gain_low": (axes, low), "gain_high": (axes, high),
         "above": (("transfer", "language"), (low > 0).all(1))},
        {"transfer": [systems[i] for i in transfer], "floor": [systems[i] for i in floor], "language": list(languages)})


def _weights(examples: Mapping[str, Sequence[Example]], draws: int) -> dict[str, np.ndarray]:
    """language -> [draws, e]: how often each example's document was drawn; a document counts alike everywhere."""
    documents = sorted({e.document for found in examples.values() for e in found})
    place = {name: i for i, name in enumerate(documents)}
    drawn = np.stack([document_bootstrap(np.arange(len(documents)), draw) for draw in range(draws)])
    return {name: drawn[:, [place[e.document] for e in found]] for name, found in examples.items()}


def _interval(sampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(sampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return low, high
