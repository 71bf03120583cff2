"""What a language's later layers still know of a value once latents are gone, beside every control.

Outcomes of each condition on test documents: AUROC of probes at the dictionary's own layer (by `attribution` nearly
algebra, hence a sanity check), at later layers with probes as they were and with probes trained anew on what is left,
of other values' probes, and the cross-entropy of the model.
"""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.features import probes
from xlingjax.analyses.features.cells import TEST, TRAIN, Cells
from xlingjax.analyses.features.conditions import (
    ELSEWHERE,
    LEACE,
    MATCHED,
    NO_OP,
    SHARED,
    SPECIFIC,
    Sets,
    erase_at,
)
from xlingjax.analyses.features.reading import OWN, Reader
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.kernels.erasure import Eraser
from xlingjax.models import Splice

STATE_BYTES = 2**28  # of states under several conditions held at once
BAND = 0.95  # of the matched draws, which the shared latents have to exceed
CONTROLS = (NO_OP, MATCHED, SPECIFIC)


class Unit(NamedTuple):
    """One value in one language, and what its test needs."""

    value: int
    language: int
    sets: Sets
    erasers: tuple[Eraser, Eraser]


def run_unit(
    reader: Reader, cells: Cells, unit: Unit, trained: Float[np.ndarray, "L V D+1"], rows: int,
    settings: FeatureSettings,
) -> xr.Dataset:
    """All conditions for one value in one language.

    Args:
        trained: probes of the language's values at every layer, as they are without any edit.
        rows: words that training arrays are filled up to.

    Returns:
        Dimensions `condition`, `layer`, `other` (values), `control`. AUROC over test words by `frozen` and
        `refitted` probes, each with `_low`, `_high` (95 % over documents), and `drop_frozen`, `drop_refitted`, the
        mean over later layers of no-op minus condition, with intervals; `others`, how far AUROC of other values'
        frozen probes falls at later layers; `loss`, nats a token, and `d_loss`, condition minus no-op, with
        intervals; `moved`, how far words move at the own layer; `taken`, latents or directions taken away.
        `excess`, by how much `drop_refitted` of the shared latents exceeds a control's, with `excess_se` over
        documents; of the matched draws their 95 % quantile, taken anew in each bootstrap draw. `documents` tested.
    """
    v, g = unit.value, unit.language
    train, train_has = cells.of(v, g, TRAIN)
    test = cells.any_of(g, TEST)
    at = np.concatenate([train, test])
    words, size = cells.words[at], len(train)
    draws = probes.document_draws(cells, settings.bootstraps, settings.seed)
    names = [*unit.sets.names, LEACE, ELSEWHERE]
    kinds = [*unit.sets.kinds, LEACE, ELSEWHERE]
    own_test, has = cells.of(v, g, TEST)
    inside = np.searchsorted(test, own_test)
    weight = draws[cells.document[own_test]]
    layers, wide = len(reader.layers), trained.shape[-1] - 1
    frozen, refitted = np.full((2, len(names), layers, weight.shape[1]), np.nan)
    others = np.full((len(names), layers, len(cells.values)), np.nan)
    moved = np.full(len(names), np.nan)
    base: np.ndarray | None = None
    done = 0
    for edit in _groups(reader, unit, len(at) * layers * wide * 4):
        states = reader.states(words, edit)
        trains = states[:, :, :size].reshape(-1, size, wide)
        anew = probes.fit(trains, train_has[None].astype(int), rows, settings.l2)[:, 0]
        for shown, again in zip(states[:, :, size:], anew.reshape(len(states), layers, -1)):
            base = shown[0] if base is None else base
            moved[done] = np.linalg.norm(shown[0] - base, axis=-1).mean()
            frozen[done] = probes.areas(probes.logits(shown[:, inside], trained[:, v]), has, weight)
            refitted[done] = probes.areas(probes.logits(shown[:, inside], again), has, weight)
            for u in np.flatnonzero(cells.used[:, g]).tolist():
                if u != v:
                    places, other_has = cells.of(u, g, TEST)
                    scores = probes.logits(shown[:, np.searchsorted(test, places)], trained[:, u])
                    others[done, :, u] = probes.areas(scores, other_has, np.ones((len(places), 1), int))[:, 0]
            done += 1
    later = np.array([name != OWN for name in reader.layers])
    out: dict[str, Any] = {"moved": ("condition", moved), "taken": ("condition", [
        *map(len, unit.sets.latents), *(one.rank for one in unit.erasers)])}
    drops = {}
    for name, areas in (("frozen", frozen), ("refitted", refitted)):
        out |= _interval(name, ("condition", "layer"), areas)
        drops[name] = (areas[:1] - areas)[:, later].mean(1) if later.any() else np.full(areas.shape[::2], np.nan)
        out |= _interval(f"drop_{name}", ("condition",), drops[name])
    fallen = (others[:1] - others)[:, later].mean(1) if later.any() else others[:, 0] * np.nan
    out["others"] = (("condition", "other"), fallen)
    excess, se = _excess(drops["refitted"], kinds)
    out |= {"excess": ("control", excess), "excess_se": ("control", se),
            "documents": ((), len(np.unique(cells.document[own_test])))}
    if settings.losses and reader.model.config.head:
        out |= _losses(reader, cells, unit, draws, test, settings)
    return xr.Dataset(out, coords={
        "condition": names, "kind": ("condition", kinds), "layer": reader.layers, "other": list(cells.values),
        "control": list(CONTROLS)})


def _groups(reader: Reader, unit: Unit, bytes_each: int) -> list[Splice]:
    """Edits with as many conditions as fit into memory: latents first, then erasers."""
    keep = unit.sets.keep(reader.width)
    most = max(1, STATE_BYTES // bytes_each)
    return [*(reader.silence(keep[i:i + most]) for i in range(0, len(keep), most)),
            erase_at(reader.dictionary.layer, unit.erasers)]


def _excess(drop: Float[np.ndarray, "E R"], kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    of = lambda kind: drop[[i for i, name in enumerate(kinds) if name == kind]]
    with np.errstate(invalid="ignore"):
        against = {NO_OP: of(NO_OP)[0], MATCHED: np.quantile(of(MATCHED), BAND, axis=0), SPECIFIC: of(SPECIFIC)[0]}
        over = np.stack([of(SHARED)[0] - against[name] for name in CONTROLS])
    known = ~np.isnan(over[:, 1:])
    mean = np.where(known, over[:, 1:], 0).sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
    square = np.where(known, np.square(over[:, 1:] - mean), 0).sum(1) / np.maximum(known.sum(1) - 1, 1)
    return over[:, 0], np.where(known.mean(1) >= 0.5, np.sqrt(square), np.nan)


def _losses(
    reader: Reader, cells: Cells, unit: Unit, draws: np.ndarray, test: Int[np.ndarray, "m"], settings: FeatureSettings,
) -> dict[str, Any]:
    sentences, first = np.unique(reader.bank.row[cells.words[test]], return_index=True)
    few = np.unique(np.linspace(0, len(sentences) - 1, min(settings.losses, len(sentences))).astype(int))
    weight = draws[cells.document[test[first[few]]]]
    keep = unit.sets.keep(reader.width)
    edits = (reader.silence(keep), erase_at(reader.dictionary.layer, unit.erasers))
    sums, counts = (np.concatenate(part) for part in zip(*(reader.losses(sentences[few], edit) for edit in edits)))
    with np.errstate(invalid="ignore", divide="ignore"):
        loss = (sums @ weight) / (counts @ weight)
    return _interval("loss", ("condition",), loss) | _interval("d_loss", ("condition",), loss - loss[:1])


def _interval(name: str, axes: tuple[str, ...], values: Float[np.ndarray, "*axes R"]) -> dict[str, Any]:
    """The estimate and its 95 % percentiles over draws; NaN where fewer than half of the draws have a value."""
    drawn = values[..., 1:]
    known = (~np.isnan(drawn)).mean(-1) >= 0.5
    low, high = np.nanquantile(np.where(known[..., None], drawn, 0), (0.025, 0.975), axis=-1)
    return {name: (axes, values[..., 0]), f"{name}_low": (axes, np.where(known, low, np.nan)),
            f"{name}_high": (axes, np.where(known, high, np.nan))}
