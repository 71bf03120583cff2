"""Latents ranked by what they do for a later layer's probe, and how far the estimates can be trusted."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.features.cells import CHOOSE, Cells
from xlingjax.analyses.features.downstream import WordLogit, attribute, exact_effects
from xlingjax.analyses.features.reading import FINAL, Reader
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.features.universality import strongest
from xlingjax.errors import InputError
from xlingjax.progress import progress


def downstream_effects(
    reader: Reader, cells: Cells, contrast: Float[np.ndarray, "V G M"], tops: Int[np.ndarray, "V G k"],
    trained: dict[int, Float[np.ndarray, "L V D+1"]], settings: FeatureSettings, show: bool | None = None,
) -> xr.Dataset:
    """Gradient and integrated-gradient attribution of the last later layer's probe, in every cell.

    Args:
        contrast, tops: at the dictionary's own layer. trained: language -> probes of its values at every layer.

    Returns:
        By `value` and `language`: `agreement`, the correlation of contrasts by integrated gradients with those at the
        own layer, over the latents active in the words; `common`, share of the own top among the k strongest
        downstream; `exact_gradient`, `exact_integrated`, Pearson's correlation with exact ablation over the latents
        taken out one by one (half of them the strongest downstream, half spread over the rest); `incomplete`, how
        far integrated effects miss what all latents do together, as a share of it. `top[value, language, rank]`, the
        strongest downstream. Attribute `layer`.
    """
    shape = (len(cells.values), len(cells.languages))
    found = {name: np.full(shape, np.nan) for name in (
        "agreement", "common", "exact_gradient", "exact_integrated", "incomplete")}
    ranked = np.full((*shape, settings.k), -1)
    place = len(reader.layers) - 1
    measure = WordLogit(final=reader.layers[place] == FINAL)
    todo = [(v, g) for v, g in zip(*np.nonzero(cells.used)) if np.isfinite(trained[g][place, v]).all()]
    if not todo:
        raise InputError("no probe of the last layer could be trained; give words of two sides in some language")
    asked = _ask(cells, todo, trained, place, settings)
    gradient, whole, missed = _estimates(reader, asked, measure, len(todo), contrast.shape[-1], settings, show)
    latents = np.stack([_taken(one, settings.exact) for one in whole])
    exact = _exact(reader, asked, measure, latents, show)
    for i, (v, g) in enumerate(todo):
        active = np.flatnonzero((gradient[i] != 0) | (whole[i] != 0))
        best = strongest(whole[i][None, None], settings.k, settings.seed)[0, 0]
        ranked[v, g] = best
        own = tops[v, g][tops[v, g] >= 0]
        found["agreement"][v, g] = _correlation(whole[i][active], contrast[v, g][active])
        found["common"][v, g] = np.isin(own, best).mean() if len(own) else np.nan
        real = latents[i] >= 0
        found["exact_gradient"][v, g] = _correlation(gradient[i][latents[i][real]], exact[i][real])
        found["exact_integrated"][v, g] = _correlation(whole[i][latents[i][real]], exact[i][real])
        found["incomplete"][v, g] = missed[i]
    cell = ("value", "language")
    return xr.Dataset(
        {name: (cell, values) for name, values in found.items()} | {"top": ((*cell, "rank"), ranked)},
        coords={"value": list(cells.values), "language": list(cells.languages)},
        attrs={"layer": reader.layers[place], "steps": settings.steps, "words": settings.attributed})


class _Asked(NamedTuple):
    """The words of all cells one after the other, so that batches are full whatever a cell holds."""

    cell: Int[np.ndarray, "n"]  # its place among the cells asked about
    word: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]  # in the cell's contrast: 1 / words with the value, or - 1 / words without
    probe: Float[np.ndarray, "n D+1"]


def _ask(
    cells: Cells, todo: list[tuple[int, int]], trained: dict[int, np.ndarray], place: int, settings: FeatureSettings,
) -> _Asked:
    parts = []
    for i, (v, g) in enumerate(todo):
        at, has = cells.of(v, g, CHOOSE)
        at = np.concatenate([at[has][:settings.attributed], at[~has][:settings.attributed]])
        side = cells.side[v, at] == 1
        weight = np.where(side, 1 / max(side.sum(), 1), -1 / max((~side).sum(), 1))
        parts.append((np.full(len(at), i), cells.words[at], weight, np.tile(trained[g][place, v], (len(at), 1))))
    return _Asked(*(np.concatenate(one) for one in zip(*parts)))


def _estimates(
    reader: Reader, asked: _Asked, measure: WordLogit, count: int, width: int, settings: FeatureSettings,
    show: bool | None,
) -> tuple[Float[np.ndarray, "n M"], Float[np.ndarray, "n M"], Float[np.ndarray, "n"]]:
    """Each cell's contrasts by gradient and by integrated gradients, and the share that the latter miss."""
    gradient, whole = np.zeros((2, count, width))
    missed, total = np.zeros((2, count))
    model, one = reader.model, reader.dictionary
    plans = reader.batches(reader.bank.row[asked.word])
    for bucket, rows in progress(plans, label="attribute", unit="batches", show=show):
        tokens, mask, where, data = _inputs(reader, asked, bucket, rows)
        rough = attribute(model, one, tokens, mask, measure, data, where)
        fine = attribute(model, one, tokens, mask, measure, data, where, settings.steps)
        real = rows >= 0
        cell, weight = asked.cell[rows[real]], asked.weight[rows[real]]
        np.add.at(gradient, cell, weight[:, None] * np.asarray(rough.effects, float)[real])
        effects = np.asarray(fine.effects, float)[real]
        np.add.at(whole, cell, weight[:, None] * effects)
        wanted = np.asarray(fine.whole - fine.silent, float)[real]
        np.add.at(missed, cell, np.abs(effects.sum(1) - wanted))
        np.add.at(total, cell, np.abs(wanted))
    return gradient, whole, np.where(total > 0, missed / np.where(total > 0, total, 1), np.nan)


def _taken(whole: Float[np.ndarray, "M"], count: int) -> Int[np.ndarray, "J"]:
    """Latents that are taken out: half of them the strongest, half spread over the rest; -1 = none is left."""
    order = np.argsort(-np.abs(whole), kind="stable")
    order = order[whole[order] != 0]
    rest = order[count // 2:]
    spread = rest[np.linspace(0, len(rest) - 1, count - count // 2).astype(int)] if len(rest) else rest
    chosen = np.concatenate([order[:count // 2], spread])
    return np.concatenate([chosen, np.full(count - len(chosen), -1)])


def _exact(
    reader: Reader, asked: _Asked, measure: WordLogit, latents: Int[np.ndarray, "n J"], show: bool | None,
) -> Float[np.ndarray, "n J"]:
    """Each cell's contrasts of the latents taken out one by one."""
    exact = np.zeros(latents.shape)
    plans = reader.batches(reader.bank.row[asked.word])
    for bucket, rows in progress(plans, label="take out", unit="batches", show=show):
        tokens, mask, where, data = _inputs(reader, asked, bucket, rows)
        taken = np.where(rows[:, None] >= 0, latents[asked.cell[rows]], -1)
        effects = np.asarray(exact_effects(
            reader.model, reader.dictionary, tokens, mask, measure, data, taken, where), float)
        real = rows >= 0
        np.add.at(exact, asked.cell[rows[real]], (effects * asked.weight[rows]).T[real])
    return exact


def _inputs(reader: Reader, asked: _Asked, bucket: int, rows: Int[np.ndarray, "B"]) -> tuple:
    """A batch whose rows are words, each with its sentence and its probe; -1 fills."""
    words, w = asked.word[rows], asked.probe[rows]
    made = reader.made(bucket, rows, reader.bank.row[asked.word])
    place = np.arange(made.tokens.shape[1])
    first, last = reader.first[words][:, None], reader.last[words][:, None]
    inside = (place >= first) & (place <= last) & (rows >= 0)[:, None]
    average = (inside / np.maximum(inside.sum(1, keepdims=True), 1)).astype(np.float32)
    layer = reader.later[-1] if reader.later else 0
    data = {"average": average, "w": w[:, :-1][:, :reader.model.config.width].astype(np.float32),
            "bias": w[:, -1].astype(np.float32), "layer": np.full(len(rows), layer)}
    return made.tokens, made.mask, made.where, data


def _correlation(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    if len(a) < 3 or not (np.std(a) > 0 and np.std(b) > 0):
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
