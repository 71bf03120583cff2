"""Shares, rates and fluency of each condition, and what differs from the unforced texts of the same seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.steering.conditions import EXPERTS, UNFORCED
from xlingjax.analyses.steering.effects import Judged
from xlingjax.judging.concepts import ConceptJudge
from xlingjax.judging.languages import UNDETERMINED
from xlingjax.kernels.correction import corrected_rate, corrected_shares, paired_p


def summarise(
    judged: Mapping[str, Judged], names: Sequence[str], confusion: Int[np.ndarray, "G V"], concepts: ConceptJudge,
    concept: str, draws: int, seed: int,
) -> xr.Dataset:
    """Every measure of every condition with an interval, and its difference from unforced, paired by row.

    Args:
        judged: condition -> its texts' verdicts, "unforced" among them.
        names: G languages of the judge, as in `confusion` (counts on held-out sentences).
        draws: of the bootstrap over rows (seeds and prompts), the same rows in every condition.

    Returns:
        Dimensions `condition`, `verdict` (languages and "undetermined"), `language`. `share` of texts by verdict;
        `corrected`, shares of languages behind the verdicts; `segment`, of letters by the verdict of their segment;
        `present`, the rate of the concept in the texts with that verdict by the language's classifier, corrected
        for its errors; `hit`, the same by marker words; `joint`, P(language, concept) by classifier; `nats` a token
        under the unforced model; `repetition`. Each with `_low` and `_high`, and `d_` (minus unforced) with its own:
        95 % percentiles; the judges' errors are taken as known. `over_share` and `over_joint`, what the experts have
        more than a condition in texts as the judges call them, uncorrected, with `p_share` and `p_joint` over rows.
    """
    verdicts = [*names, UNDETERMINED]
    conditions = list(judged)
    rows = len(judged[UNFORCED].verdict)
    rate = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    column = concepts.concepts.index(concept)
    own = [concepts.languages.index(name) if name in concepts.languages else -1 for name in names]
    rng = np.random.default_rng([seed, 17])
    index = np.vstack([np.arange(rows), rng.integers(0, rows, (draws, rows))])  # the first is the estimate
    found = {name: _of_condition(one, index, rate, own, concepts, column) for name, one in judged.items()}
    out: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    dims = {"share": ("verdict",), "corrected": ("language",), "segment": ("verdict",), "present": ("language",),
            "hit": ("language",), "joint": ("language",), "nats": (), "repetition": ()}
    for what, axes in dims.items():
        values = np.stack([found[name][what] for name in conditions])  # [condition, 1 + draws, ...]
        for prefix, stack in (("", values), ("d_", values - found[UNFORCED][what])):
            low, high = _interval(stack[:, 1:])
            for end, array in (("", stack[:, 0]), ("_low", low), ("_high", high)):
                out[f"{prefix}{what}{end}"] = (("condition", *axes), array)
    for what, axis in (("share", "verdict"), ("joint", "language")):
        said = {name: _said(one, what, len(verdicts), own) for name, one in judged.items()}
        out[f"over_{what}"] = (("condition", axis), np.stack([
            said[EXPERTS].mean(0) - said[name].mean(0) for name in conditions]))
        out[f"p_{what}"] = (("condition", axis), np.stack([paired_p(said[EXPERTS], said[name]) for name in conditions]))
    out["texts"] = (("condition", "verdict"), np.array([
        np.bincount(judged[name].verdict, minlength=len(verdicts)) for name in conditions]))
    out["confusion"] = (("language", "verdict"), rate)
    out["tested"] = (("language",), confusion.sum(1))
    return xr.Dataset(out, coords={"condition": conditions, "verdict": verdicts, "language": list(names)},
                      attrs={"rows": rows, "draws": draws, "interval": "95 %, bootstrap over seeds and prompts"})


def _said(one: Judged, what: str, verdicts: int, own: Sequence[int]) -> np.ndarray:
    """bool[R, V or G]: rows with a verdict, or with that of a language whose classifier sees the concept."""
    said = one.verdict[:, None] == np.arange(verdicts)
    if what == "share":
        return said
    return np.stack([said[:, g] & one.called[:, of] if of >= 0 else np.zeros(len(said), bool)
                     for g, of in enumerate(own)], 1)


def _of_condition(
    one: Judged, index: np.ndarray, rate: np.ndarray, own: Sequence[int], concepts: ConceptJudge, column: int,
) -> dict[str, np.ndarray]:
    """Each measure on every resample of the rows, [1 + draws, ...]."""
    count = rate.shape[1]
    verdict = one.verdict[index]
    tables = np.stack([(verdict == v).sum(1) for v in range(count)], 1)
    share = tables / index.shape[1]
    segments = one.segments[index]
    known = ~np.isnan(segments[..., 0])
    segment = np.where(known[..., None], segments, 0).sum(1) / np.maximum(known.sum(1), 1)[:, None]
    present, hit, joint = (np.full((len(index), len(own)), np.nan) for _ in range(3))
    for g, of in enumerate(own):
        if of < 0:
            continue
        inside = verdict == g
        texts = inside.sum(1)
        for out, said, errors in ((present, one.called[:, of], concepts.classifier),
                                  (hit, one.hits[:, of], concepts.lexicon)):
            raw = (inside & said[index]).sum(1) / np.maximum(texts, 1)
            values = np.asarray(corrected_rate(raw, errors.sensitivity[of, column], errors.false_positives[of, column]))
            out[:, g] = np.where(texts > 0, values, np.nan)
        joint[:, g] = np.where(texts > 0, share[:, g] * present[:, g], 0)
    return {"share": share, "corrected": np.asarray(corrected_shares(tables, rate)), "segment": segment,
            "present": present, "hit": hit, "joint": joint, "nats": one.nats[index].mean(1),
            "repetition": one.repetition[index].mean(1)}


def _interval(draws: Float[np.ndarray, "condition draws ..."]) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentiles over draws; NaN where fewer than half of the draws have a value."""
    known = (~np.isnan(draws)).mean(1) >= 0.5
    with np.errstate(invalid="ignore"):
        low, high = (np.nanquantile(np.where(known[:, None], draws, 0), q, axis=1) for q in (0.025, 0.975))
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
