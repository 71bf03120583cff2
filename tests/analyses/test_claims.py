"""Class means, bands, rises: against hand-made traces whose answer is known."""

import numpy as np
import pytest
import xarray as xr

from xlingjax.analyses.trace.claims import claims, pair_classes

LANGUAGES = ["eng", "spa", "rus", "swh"]
SCRIPTS = {"eng": "LATIN", "spa": "LATIN", "rus": "CYRILLIC", "swh": "LATIN"}


def made(cross: np.ndarray, null: float = 0.05, draws: int = 20, ceiling: float = 0.8,
         names: float | np.ndarray = 0.02) -> xr.Dataset:
    """A trace with overlap `cross[K]` between any two languages, equal in all concepts but for noise.

    `names`: the overlap of one concept in a language with another of its kind in the other.
    """
    rng = np.random.default_rng(0)
    count, concepts, steps = len(LANGUAGES), 12, len(cross)
    overlap = np.broadcast_to(cross[:, None, None, None], (steps, count, count, concepts)).copy()
    overlap += rng.normal(0, 0.01, overlap.shape)
    overlap[:, range(count), range(count)] = ceiling
    pair = ("language", "language_b")
    chance = np.full((steps, count, count, concepts), 0.02)
    permuted = rng.normal(0, 0.005, (100, steps, count, count)) + np.broadcast_to(names, steps)[:, None, None]
    permuted[0] = overlap.mean(-1)
    return xr.Dataset(
        {"overlap": (("checkpoint", *pair, "concept", "k"), overlap[..., None]),
         "null_draws": (("checkpoint", "draw", *pair, "k"),
                        rng.normal(null, 0.01, (steps, draws, count, count, 1))),
         "same_half_overlap": (("checkpoint", *pair, "concept", "k"), overlap[..., None]),
         "name_draws": (("name_draw", "checkpoint", *pair), permuted),
         "chance_stratified": (("checkpoint", *pair, "concept"), chance),
         "chance_marginal": (("checkpoint", *pair, "concept"), chance)},
        coords={"checkpoint": [f"step{i}" for i in range(steps)], "language": LANGUAGES,
                "language_b": LANGUAGES, "k": [20]}, attrs={"k": 20})


def test_classes_part_seen_and_unseen_scripts() -> None:
    classes = pair_classes(LANGUAGES, SCRIPTS, ["swh"])
    counts = {name: int(pairs.sum()) for name, pairs in classes.items()}
    assert counts == {"seen": 3, "same script": 1, "cross script": 2, "unseen": 3}


def test_a_rise_is_found_and_placed() -> None:
    classes = pair_classes(LANGUAGES, SCRIPTS, ["swh"])
    found = claims(made(np.array([0.05, 0.05, 0.3, 0.5])), classes)
    assert found["emergence"].sel(pairs="seen") == 2
    assert found["rise_low"].sel(pairs="seen") > 0.4
    np.testing.assert_allclose(
        found["shared_fraction"].sel(pairs="seen", checkpoint="step3"), (0.5 - 0.05) / (0.8 - 0.05), atol=0.02)


@pytest.mark.promise
def test_what_marks_the_kind_and_not_the_concept_is_not_shared() -> None:
    """Neurons of a slot in the sentence serve all words that fill it: other names, the same overlap."""
    classes = pair_classes(LANGUAGES, SCRIPTS, ["swh"])
    cross = np.array([0.05, 0.3, 0.5])
    found = claims(made(cross, names=cross), classes)
    assert found["above"].sel(pairs="seen").values.tolist() == [False, True, True], "labels alone would say so"
    assert not found["shared"].any() and (found["emergence"] == -1).all()
    half = claims(made(cross, names=np.array([0.05, 0.3, 0.25])), classes)
    assert half["shared"].sel(pairs="seen").values.tolist() == [False, False, True]
    assert half["emergence"].sel(pairs="seen") == 2
    np.testing.assert_allclose(half["name_null"].sel(pairs="seen"), [0.05, 0.3, 0.25], atol=0.01)


def test_without_a_second_concept_of_a_kind_nothing_is_called_shared() -> None:
    trace = made(np.array([0.05, 0.5]))
    trace["name_draws"][:] = trace["name_draws"][0]
    found = claims(trace, pair_classes(LANGUAGES, SCRIPTS, []))
    assert found["above"].values[:, 1].all() and not found["shared"].any() and found["name_p"].isnull().all()
    assert found.attrs["smallest_name_p"] == 1
    trace = made(np.array([0.05, 0.5]))
    trace["name_draws"][1:50] = trace["name_draws"][0]  # as two concepts have it, which have two orders
    found = claims(trace, pair_classes(LANGUAGES, SCRIPTS, []))
    assert found.attrs["smallest_name_p"] == 0.5 and not found["shared"].any()


def test_names_are_permuted_at_the_spread_of_their_own_checkpoint() -> None:
    """As loanwords have it: overlap and the spread of its permutations fall together."""
    cross = np.array([0.5, 0.45, 0.4, 0.06])
    trace = made(cross, null=0.01)
    draws = np.random.default_rng(1).normal(0.2, 0.1, 99)[:, None] * cross  # of a full match, four standard deviations
    trace["name_draws"][1:] = xr.DataArray(draws, dims=("name_draw", "checkpoint"))
    found = claims(trace, pair_classes(LANGUAGES, SCRIPTS, []))
    assert found["shared"].sel(pairs="seen").all() and found["emergence"].sel(pairs="seen") == 0


def test_noise_is_no_claim() -> None:
    classes = pair_classes(LANGUAGES, SCRIPTS, [])
    found = claims(made(np.full(4, 0.05)), classes)
    assert (found["emergence"] == -1).all()
    assert not (found["overlap"] > found["band"]).any()


def test_a_rise_of_noise_alone_is_no_rise_of_the_shared_fraction() -> None:
    """Overlap that grows with its ceiling, as when AP becomes less noisy, is no rise."""
    classes = pair_classes(LANGUAGES, SCRIPTS, [])
    levels = [(0.2, 0.35), (0.3, 0.55), (0.425, 0.8)]  # (cross - null) / (ceiling - null) = 0.5
    parts = [made(np.array([cross]), ceiling=ceiling).assign_coords(checkpoint=[f"step{i}"])
             for i, (cross, ceiling) in enumerate(levels)]
    found = claims(xr.concat(parts, "checkpoint", combine_attrs="override"), classes)
    assert found["overlap"].sel(pairs="seen").values[-1] > 2 * found["overlap"].sel(pairs="seen").values[0]
    assert abs(float(found["rise"].sel(pairs="seen"))) < 0.05
    assert found["rise_low"].sel(pairs="seen") < 0 < found["rise_high"].sel(pairs="seen") or \
        abs(float(found["rise_low"].sel(pairs="seen"))) < 0.05


def test_below_its_null_a_ceiling_makes_the_fraction_not_estimable() -> None:
    classes = pair_classes(LANGUAGES, SCRIPTS, [])
    found = claims(made(np.array([0.05, 0.05]), ceiling=0.05), classes)
    assert found["shared_fraction"].isnull().all()
    assert (found["estimable"] == 0).all()


SOUND = np.array([True, True, False, True, True, False])
BROKEN = np.array([0.05, 0.3, 0.0, 0.4, 0.5, 0.0])  # two broken checkpoints share nothing


@pytest.mark.promise
class TestBrokenCheckpoints:
    def test_they_do_not_break_an_emergence(self) -> None:
        classes = pair_classes(LANGUAGES, SCRIPTS, ["swh"])
        found = claims(made(BROKEN), classes, sound=SOUND)
        assert found["emergence"].sel(pairs="seen") == 1
        assert (claims(made(BROKEN), classes)["emergence"] == -1).all(), "as they would"

    def test_nor_make_one(self) -> None:
        classes = pair_classes(LANGUAGES, SCRIPTS, [])
        trace = made(np.array([0.05, 0.05, 0.9, 0.05, 0.5, 0.9]))
        found = claims(trace, classes, sound=SOUND)
        assert found["emergence"].sel(pairs="seen") == 4, "an index among all checkpoints"
        quiet = claims(made(np.array([0.05, 0.05, 0.9, 0.05, 0.05, 0.9])), classes, sound=SOUND)
        assert (quiet["emergence"] == -1).all() and abs(float(quiet["rise"][0])) < 0.1

    def test_all_claims_are_those_of_the_sound_ones_alone(self) -> None:
        """Broken nulls are wild here: within the band they would widen it everywhere."""
        classes = pair_classes(LANGUAGES, SCRIPTS, ["swh"])
        trace = made(BROKEN)
        wild = np.random.default_rng(1).normal(0.5, 0.5, trace["null_draws"].shape)
        bad = xr.DataArray(~SOUND, dims="checkpoint")
        trace["null_draws"] = trace["null_draws"].where(~bad, wild)
        found = claims(trace, classes, sound=SOUND)
        alone = claims(trace.isel(checkpoint=SOUND), classes)
        for name in ("band", "p", "overlap", "shared_fraction", "overlap_low", "null", "name_band", "shared"):
            np.testing.assert_array_equal(found[name][:, SOUND], alone[name], name)
        for name in ("rise", "rise_low", "rise_high"):
            np.testing.assert_array_equal(found[name], alone[name], name)
        assert found["rise_from"].values.tolist() == [0] * 4
        everywhere = claims(trace, classes)
        assert (everywhere["band"][:, SOUND] > found["band"][:, SOUND]).all()

    def test_their_values_are_as_measured_and_their_band_is_none(self) -> None:
        found = claims(made(BROKEN), pair_classes(LANGUAGES, SCRIPTS, []), sound=SOUND)
        assert found["band"][:, ~SOUND].isnull().all() and found["p"][:, ~SOUND].isnull().all()
        np.testing.assert_allclose(found["overlap"][:, ~SOUND], 0, atol=0.01)
        assert found["band"][:, SOUND].notnull().all() and found["null"].notnull().all()

    def test_without_a_sound_one_nothing_is_claimed(self) -> None:
        found = claims(made(BROKEN), pair_classes(LANGUAGES, SCRIPTS, []), sound=np.zeros(6, bool))
        assert (found["emergence"] == -1).all() and found["band"].isnull().all()
        assert found["rise"].isnull().all() and (found["rise_from"] == -1).all()
