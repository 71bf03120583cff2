"""Several runs as one: Student's t between runs, and nothing said that one run carries alone."""

import json

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from statsmodels.stats.multitest import multipletests

from xlingjax.analyses.trace.replicates import combine, t_interval
from xlingjax.errors import InputError

CHECKPOINTS = ["0", "8", "64"]


def run(
    number: int, overlap=(0.05, 0.1, 0.3), fraction=(np.nan, 0.1, 0.4), band=0.1, names=0.03, **attrs
) -> xr.DataTree:
    """A trace's result in miniature: one group, two classes of pairs, three checkpoints."""
    dims = ("pairs", "checkpoint")
    both = lambda values: (dims, np.stack([np.broadcast_to(values, 3), np.broadcast_to(0.05, 3)]))
    claims = xr.Dataset(
        {
            "overlap": both(overlap),
            "null": both(0.05),
            "band": both(band),
            "p": both(0.05),
            "name_null": both(names),
            "name_band": both(np.asarray(names) + 0.01),
            "name_p": both(0.05),
            "ceiling": both(0.6),
            "shared_fraction": (dims, np.stack([fraction, np.full(3, np.nan)])),
            "members": (("pairs", "language", "language_b"), np.ones((2, 2, 2), bool)),
        },
        coords={"pairs": ["seen", "unseen"], "checkpoint": CHECKPOINTS},
        attrs={"group": "topic", "concepts": 4, "k": 20},
    )
    health = xr.Dataset(
        {
            "bits_per_character": (("checkpoint", "language"), np.full((3, 2), 2.0 + number)),
            "fingerprint": ("checkpoint", [f"{number}-{at}" for at in range(3)]),
            "status": ("checkpoint", ["ok"] * 3),
        },
        coords={"checkpoint": CHECKPOINTS, "language": ["eng", "spa"]},
    )
    tree = xr.DataTree.from_dict({"claims/topic": claims, "health": health})
    tree.attrs = {
        "corpus": "c", "corpus_fingerprint": "f", "unseen": "[]", "scripts": "{}", "classes": "{}",
        "settings": json.dumps({"k": 20, "seed": number}), "dropped_concepts": "[]",
        "last_sound": "64", "model": "m", "replicates": "one run, descriptive",
    } | attrs  # fmt: skip
    return tree


def three(**options) -> dict[str, xr.DataTree]:
    shifts = {"a": 0.0, "b": 0.02, "c": -0.02}
    return {
        name: run(i, np.array([0.05, 0.1, 0.3]) + by, np.array([np.nan, 0.1, 0.4]) + by, **options)
        for i, (name, by) in enumerate(shifts.items())
    }


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    mean, low, high = t_interval(values)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [theirs.low, theirs.high], rtol=1e-12)
    np.testing.assert_allclose(mean, values.mean(0))


def test_the_interval_covers_the_mean_of_runs_in_19_of_20() -> None:
    draws = np.random.default_rng(1).normal(0.2, 0.1, size=(3, 4000))
    _, low, high = t_interval(draws)
    assert 0.94 < ((low < 0.2) & (0.2 < high)).mean() < 0.96


class TestCombine:
    def test_means_intervals_and_each_run(self) -> None:
        one = combine(three())["claims/topic"].to_dataset(inherit=False).sel(pairs="seen")
        np.testing.assert_allclose(one["overlap"], [0.05, 0.1, 0.3])
        values = np.array([0.3, 0.32, 0.28])
        wanted = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert one["overlap_low"].values[-1] == pytest.approx(wanted.low)
        assert one["overlap_high"].values[-1] == pytest.approx(wanted.high)
        np.testing.assert_allclose(one["overlap_runs"].sel(checkpoint="64"), values)
        assert one["run"].values.tolist() == ["a", "b", "c"]

    def test_p_is_a_one_sided_t_test_by_holm(self) -> None:
        one = combine(three())["claims/topic"]
        excess = np.array([0.25, 0.27, 0.23])
        raw = scipy.stats.ttest_1samp(excess, 0, alternative="greater").pvalue
        # The pairs that never saw training do not vary here, have no p and take no part.
        assert one["p"].sel(pairs="seen", checkpoint="64").item() == pytest.approx(
            multipletests([raw], method="holm")[1][0]
        )
        assert np.isnan(one["p"].sel(pairs="unseen")).all()

    def test_a_rise_is_of_runs(self) -> None:
        one = combine(three())["claims/topic"].sel(pairs="seen")
        assert one["rise"].item() == pytest.approx(0.3) and int(one["rise_from"]) == 1
        assert one["rise_low"].item() == pytest.approx(0.3), "every run rose alike"
        assert bool(one["above"].sel(checkpoint="64")) and int(one["emergence"]) == 2
        assert one["runs_above"].values.tolist() == [0, 1, 3]

    def test_what_other_concepts_of_the_kind_share_as_well_is_not_shared(self) -> None:
        one = combine(three(names=(0.03, 0.03, 0.29)))["claims/topic"].sel(pairs="seen")
        assert bool(one["above"].sel(checkpoint="64")) and not one["shared"].any()
        assert int(one["emergence"]) == -1
        excess = np.array([0.01, 0.03, -0.01])
        raw = scipy.stats.ttest_1samp(excess, 0, alternative="greater").pvalue
        assert one["name_p"].sel(checkpoint="64").item() == pytest.approx(raw)
        assert bool(combine(three())["claims/topic"]["shared"].sel(pairs="seen", checkpoint="64"))

    def test_one_run_alone_carries_no_claim(self) -> None:
        runs = {name: run(i) for i, name in enumerate("ab")}
        flat = run(2, overlap=(0.05, 0.05, 0.05), fraction=(np.nan, 0.0, 0.0))
        still = run(3, overlap=(0.05, 0.05, 0.05), fraction=(np.nan, 0.0, 0.0))
        one = combine({"a": runs["a"], "c": flat, "d": still})["claims/topic"].sel(pairs="seen")
        assert one["overlap"].values[-1] > one["band"].values[-1], "the mean alone would say so"
        assert not one["above"].any() and int(one["emergence"]) == -1

    def test_noise_of_runs_is_seldom_above(self) -> None:
        rng = np.random.default_rng(3)
        said = 0
        for _ in range(40):
            runs = {
                str(i): run(i, overlap=rng.normal(0.05, 0.01, 3), band=0.05 + 1.64 * 0.01)
                for i in range(3)
            }
            said += bool(combine(runs)["claims/topic"]["above"].any())
        assert said <= 2

    def test_a_fraction_that_one_run_lacks_is_not_estimable(self) -> None:
        runs = three() | {"c": run(2, fraction=(np.nan, np.nan, 0.4))}
        one = combine(runs)["claims/topic"].sel(pairs="seen")
        assert np.isnan(one["shared_fraction"].values).tolist() == [True, True, False]
        assert np.isnan(one["rise"]), "one checkpoint is left, which is no rise"

    def test_a_checkpoint_is_as_sound_as_its_worst_run(self) -> None:
        broken = run(2, last_sound="8")
        health = broken["health"].to_dataset(inherit=False)
        health["status"] = ("checkpoint", ["ok", "ok", "NaN weights"])
        broken["health"] = xr.DataTree(health)
        tree = combine(three() | {"c": broken})
        assert tree.attrs["last_sound"] == "8"
        assert tree["health"]["status"].values.tolist() == ["ok", "ok", "c: NaN weights"]
        one = tree["claims/topic"].sel(pairs="seen")
        assert np.isnan(one["band"].values).tolist() == [False, False, True]
        assert not one["above"].values[2] and np.isnan(one["p"].values[2])
        assert np.isnan(one["rise"]), "the broken checkpoint is no end of a rise"

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (run(9, corpus_fingerprint="g"), "corpus fingerprint"),
            (run(9, settings=json.dumps({"k": 30, "seed": 9})), "differ in --k (20 and 30)"),
            (run(0), "same weights"),
        ],
    )
    def test_what_cannot_be_laid_side_by_side_is_refused(self, other, said) -> None:
        with pytest.raises(InputError) as error:
            combine({"a": run(0), "b": other})
        assert said in str(error.value) and "a" in str(error.value)

    def test_one_run_is_refused(self) -> None:
        with pytest.raises(InputError, match="from two on"):
            combine({"a": run(0)})

    def test_other_checkpoints_are_refused(self) -> None:
        shorter = run(1)
        cut = xr.DataTree.from_dict({
            name: shorter[name].to_dataset(inherit=False).isel(checkpoint=slice(2))
            for name in ("claims/topic", "health")})  # fmt: skip
        cut.attrs = shorter.attrs
        with pytest.raises(InputError, match="other checkpoints"):
            combine({"a": run(0), "b": cut})
