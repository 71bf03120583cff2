"""Class means, bands, rises: against hand-made traces whose answer is known."""

import numpy as np
import xarray as xr

from xlingjax.analyses.claims import claims, pair_classes

LANGUAGES = ["eng", "spa", "rus", "swh"]
SCRIPTS = {"eng": "LATIN", "spa": "LATIN", "rus": "CYRILLIC", "swh": "LATIN"}


def made(cross: np.ndarray, null: float = 0.05, draws: int = 20, ceiling: float = 0.8) -> xr.Dataset:
    """A trace with overlap `cross[K]` between any two languages, equal in all concepts but for noise."""
    rng = np.random.default_rng(0)
    count, concepts, steps = len(LANGUAGES), 12, len(cross)
    overlap = np.broadcast_to(cross[:, None, None, None], (steps, count, count, concepts)).copy()
    overlap += rng.normal(0, 0.01, overlap.shape)
    overlap[:, range(count), range(count)] = ceiling
    pair = ("language", "language_b")
    chance = np.full((steps, count, count, concepts), 0.02)
    return xr.Dataset(
        {"overlap": (("checkpoint", *pair, "concept", "k"), overlap[..., None]),
         "null_draws": (("checkpoint", "draw", *pair, "k"),
                        rng.normal(null, 0.01, (steps, draws, count, count, 1))),
         "same_half_overlap": (("checkpoint", *pair, "concept", "k"), overlap[..., None]),
         "name_null": (("checkpoint", *pair), chance[..., 0]),
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
