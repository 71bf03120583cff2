"""Latents ranked by what they do for a later layer's probe, and how far the estimates can be trusted."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.features.cells import CHOOSE, Cells
from xlingjax.analyses.features.downstream import WordLogit, attribute, exact_effects
from xlingjax.analyses.features.reading import FINAL, Reader
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.features.universality import strongest
from xlingjax.corpora.batching import bucket_lengths
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
    todo = list(zip(*np.nonzero(cells.used)))
    for v, g in progress(todo, label="attribute", unit="cells", show=show):
        at, has = cells.of(v, g, CHOOSE)
        at = np.concatenate([at[has][:settings.attributed], at[~has][:settings.attributed]])
        side = cells.side[v, at] == 1
        w = trained[g][place, v]
        if not np.isfinite(w).all():
            continue
        effects, taken = _effects(reader, cells.words[at], measure, w, contrast.shape[-1], side, settings)
        gradient, whole = effects
        active = np.flatnonzero((gradient != 0) | (whole != 0))
        best = strongest(whole[None, None], settings.k, settings.seed)[0, 0]
        ranked[v, g] = best
        own = tops[v, g][tops[v, g] >= 0]
        found["agreement"][v, g] = _correlation(whole[active], contrast[v, g][active])
        found["common"][v, g] = np.isin(own, best).mean() if len(own) else np.nan
        latents, exact, missed = taken
        found["exact_gradient"][v, g] = _correlation(gradient[latents], exact)
        found["exact_integrated"][v, g] = _correlation(whole[latents], exact)
        found["incomplete"][v, g] = missed
    cell = ("value", "language")
    return xr.Dataset(
        {name: (cell, values) for name, values in found.items()} | {"top": ((*cell, "rank"), ranked)},
        coords={"value": list(cells.values), "language": list(cells.languages)},
        attrs={"layer": reader.layers[place], "steps": settings.steps, "words": settings.attributed})


def _effects(
    reader: Reader, words: Int[np.ndarray, "n"], measure: WordLogit, w: Float[np.ndarray, "D+1"], width: int,
    side: np.ndarray, settings: FeatureSettings,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, float]]:
    """Contrasts by gradient and integrated gradients; latents taken out, their exact contrasts, what is missed."""
    length = bucket_lengths(int(reader.tokens.lengths.max()))[-1]
    rows = max(1, settings.batch_tokens // length)
    sign = np.where(side, 1 / max(side.sum(), 1), -1 / max((~side).sum(), 1))
    gradient, whole = np.zeros((2, width))
    missed, total = 0.0, 0.0
    batches = []
    for start in range(0, len(words), rows):
        part = np.arange(start, min(start + rows, len(words)))
        filled = np.concatenate([part, np.full(rows - len(part), -1)])
        batches.append((_inputs(reader, words, filled, length, w), np.where(filled >= 0, sign[filled], 0)))
    model, one = reader.model, reader.dictionary
    for (tokens, mask, where, data), weight in batches:
        rough = attribute(model, one, tokens, mask, measure, data, where)
        fine = attribute(model, one, tokens, mask, measure, data, where, settings.steps)
        gradient += weight @ np.asarray(rough.effects, float)
        whole += weight @ np.asarray(fine.effects, float)
        wanted = np.asarray(fine.whole - fine.silent, float)
        real = weight != 0
        missed += np.abs(np.asarray(fine.effects, float).sum(1) - wanted)[real].sum()
        total += np.abs(wanted)[real].sum()
    order = np.argsort(-np.abs(whole), kind="stable")
    order = order[whole[order] != 0]
    half = settings.exact // 2
    rest = order[half:]
    spread = rest[np.linspace(0, len(rest) - 1, settings.exact - half).astype(int)] if len(rest) else rest
    latents = np.concatenate([order[:half], spread])
    exact = np.zeros(len(latents))
    for (tokens, mask, where, data), weight in batches:
        if len(latents):
            exact += np.asarray(exact_effects(model, one, tokens, mask, measure, data, latents, where), float) @ weight
    return (gradient, whole), (latents, exact, missed / total if total > 0 else np.nan)


def _inputs(reader: Reader, words: np.ndarray, rows: np.ndarray, length: int, w: np.ndarray) -> tuple:
    """A batch whose rows are words, each with its sentence; -1 fills."""
    bank = reader.bank
    sentences = np.where(rows >= 0, bank.row[words[rows]], -1)
    made = reader.batch(sentences, length)
    place = np.arange(length)
    first, last = reader.first[words[rows]][:, None], reader.last[words[rows]][:, None]
    inside = (place >= first) & (place <= last) & (rows >= 0)[:, None]
    average = (inside / np.maximum(inside.sum(1, keepdims=True), 1)).astype(np.float32)
    each = np.ones((len(rows), 1), np.float32)
    direction = w[:-1][:reader.model.config.width].astype(np.float32)
    layer = reader.later[-1] if reader.later else 0
    data = {"average": average, "w": each * direction, "bias": each[:, 0] * np.float32(w[-1]),
            "layer": np.full(len(rows), layer)}
    return made.tokens, made.mask, made.where, data


def _correlation(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    if len(a) < 3 or not (np.std(a) > 0 and np.std(b) > 0):
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
