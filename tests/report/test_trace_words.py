"""What the summary says is decided by rules on the numbers: each rule on a tree made by hand."""

import json

import numpy as np
import pytest
import xarray as xr

from xlingjax.report.trace_words import NOTHING, summary

LANGUAGES = ["eng", "spa", "rus"]  # eng-spa in one script, eng-rus and spa-rus in two
RUNGS = ["trained", "no anchor sentences", "anchors not pooled"]


def ladder(over: float, null: float, of_names: float, sd: float = 0.01) -> xr.Dataset:
    pair = ("rung", "language", "language_b")
    full = lambda value: (pair, np.full((len(RUNGS), 3, 3), value))
    return xr.Dataset(
        {"overlap": full(over), "null_overlap": full(null), "null_overlap_sd": full(sd),
         "name_null": full(of_names), "name_null_sd": full(sd)},
        coords={"rung": RUNGS, "language": LANGUAGES, "language_b": LANGUAGES})  # fmt: skip


def tree(
    *, overlap: float = 0.2, band: float = 0.1, name_band: float = 0.1, smallest_name_p: float = 0.01,
    rise: tuple[float, float, float] = (0.1, 0.05, 0.15), rungs: xr.Dataset | None = None,
) -> xr.DataTree:  # fmt: skip
    """One group over two checkpoints, the first without sharing."""
    pairs = ["seen", "same script", "cross script"]
    members = np.zeros((3, 3, 3), bool)
    for row, (a, b) in ((0, (0, 1)), (0, (0, 2)), (0, (1, 2)), (1, (0, 1)), (2, (0, 2)), (2, (1, 2))):
        members[row, a, b] = True
    over_time = lambda first, last: (("pairs", "checkpoint"), np.tile([first, last], (3, 1)))
    per_pair = lambda value: ("pairs", np.full(3, value))
    above, shared = overlap > band, overlap > band and overlap > name_band
    claims = xr.Dataset(
        {
            "overlap": over_time(0.01, overlap),
            "overlap_low": over_time(0.0, overlap - 0.02),
            "overlap_high": over_time(0.03, overlap + 0.02),
            "null": over_time(0.01, 0.01),
            "band": over_time(band, band),
            "p": over_time(0.9, 0.02 if above else 0.5),
            "name_null": over_time(0.01, 0.01),
            "name_band": over_time(name_band, name_band),
            "name_p": over_time(0.9, 0.02 if shared else 0.5),
            "above": over_time(False, above),
            "shared": over_time(False, shared),
            "ceiling": over_time(0.5, 0.5),
            "shared_fraction": over_time(-0.0001, 0.4),
            "shared_fraction_low": over_time(-0.1, 0.3),
            "shared_fraction_high": over_time(0.1, 0.5),
            "emergence": per_pair(1 if shared else -1),
            "rise": per_pair(rise[0]),
            "rise_low": per_pair(rise[1]),
            "rise_high": per_pair(rise[2]),
            "rise_from": per_pair(0),
            "members": (("pairs", "language", "language_b"), members),
        },
        coords={"pairs": pairs, "checkpoint": ["0", "8"], "language": LANGUAGES, "language_b": LANGUAGES},
        attrs={"group": "own form", "k": 20, "level": 0.05, "smallest_name_p": smallest_name_p, "p": "max-T"},
    )
    health = xr.Dataset({"status": ("checkpoint", ["ok", "ok"])}, coords={"checkpoint": ["0", "8"]})
    parts = {"claims/own_form": claims, "health": health}
    if rungs is not None:
        parts["ladder/own_form"] = rungs
    out = xr.DataTree.from_dict(parts)
    out.attrs = {"last_sound": "8", "unseen": json.dumps([]), "replicates": "one run"}
    return out


def test_what_exceeds_both_nulls_is_reported_with_its_figures() -> None:
    text = " ".join(summary(tree()))
    assert NOTHING not in text
    assert "overlap by 0.200 of k = 20 [0.180, 0.220]" in text
    assert "above the joint null (0.010, band 0.100; p = 0.020 by max-T)" in text
    assert "above permuted concept names (0.010, band 0.100; p = 0.020), for good since checkpoint 8" in text
    assert "shared fraction 0.400 [0.300, 0.500]" in text
    assert "since checkpoint 0 it rose (+0.10 [+0.05, +0.15])" in text


@pytest.mark.parametrize(
    ("interval", "word"), [((-0.1, -0.2, -0.05), "it fell"), ((0.1, -0.05, 0.25), "no change can be told")]
)
def test_a_change_is_claimed_only_where_its_interval_leaves_zero_out(interval, word) -> None:
    assert word in " ".join(summary(tree(rise=interval)))


def test_what_does_not_exceed_the_joint_null_is_nothing_found() -> None:
    words = summary(tree(band=0.3))
    assert words[0] == NOTHING and "overlap 0.200 is not above its null" in words[1]


def test_what_exceeds_the_joint_null_alone_is_nothing_found_and_why() -> None:
    words = summary(tree(name_band=0.3))
    assert words[0] == NOTHING and "not above concept names permuted within a kind" in words[1]


def test_too_few_concepts_of_a_kind_cannot_tell() -> None:
    words = summary(tree(name_band=0.3, smallest_name_p=0.5))
    assert words[0] == NOTHING and "cannot be told, because there are too few concepts of one kind" in words[1]


@pytest.mark.parametrize(
    ("null", "of_names", "said"),
    [(0.1, 0.1, "above both"), (0.19, 0.1, "not above both"), (0.1, 0.19, "not above both")],
)
def test_abstraction_needs_both_nulls_left_behind(null, of_names, said) -> None:
    (sentence,) = (x for x in summary(tree(rungs=ladder(0.2, null, of_names))) if "anchors do not explain" in x)
    assert sentence == (
        f"own form, sharing that anchors do not explain: same script pairs: {said} nulls on both anchor-free rungs; "
        f"cross script pairs: {said} nulls on both anchor-free rungs.")  # fmt: skip


def test_abstraction_needs_both_rungs() -> None:
    one = ladder(0.2, 0.1, 0.1)
    one["overlap"].loc[{"rung": "anchors not pooled"}] = 0.105
    assert "above both nulls on both" not in " ".join(summary(tree(rungs=one))).replace("not above both", "")
    one["overlap"].loc[{"rung": "anchors not pooled"}] = np.nan
    assert "same script pairs: not estimable" in " ".join(summary(tree(rungs=one)))
