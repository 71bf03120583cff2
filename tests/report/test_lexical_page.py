"""The page of a lexical transfer says what the result holds, and nothing that it does not."""

import html

import numpy as np
import pytest
import xarray as xr

from xlingjax.report.lexical_page import lexical_summary, write_lexical_report

FLOORS = ["untrained embeddings", "random body", "bag of shared pieces"]
SYSTEMS = ["tokens", "start: overlap", "joint pair", *FLOORS]
ROLES = ["transfer", "start", "baseline", "floor", "floor", "floor"]


def result(gain: float, experts: bool = True) -> xr.DataTree:
    """Two languages and their mean; the transferred system stands `gain` above every floor."""
    languages, shape = ["spa", "tur", "all"], (6, 3)
    score = np.full(shape, 0.2)
    score[:3] += gain
    moved = ["tokens", "start: overlap"]
    axes = ("transfer", "floor", "language")
    gains = np.full((2, 3, 3), gain)
    scores = xr.Dataset(
        {"score": (("system", "language"), score), "low": (("system", "language"), score - 0.05),
         "high": (("system", "language"), score + 0.05), "spread": (("system", "language"), np.full(shape, np.nan)),
         "seed_score": (("system", "language", "seed"), score[..., None]), "chance": ("language", [0.2] * 3),
         "examples": ("language", [10, 10, 20]), "role": ("system", ROLES), "first": ("system", [0.8] * 5 + [np.nan]),
         "gain": (axes, gains), "gain_low": (axes, gains - 0.05), "gain_high": (axes, gains + 0.05),
         "above": (("transfer", "language"), (gains > 0.05).all(1))},
        {"system": SYSTEMS, "language": languages, "seed": [0], "transfer": moved, "floor": FLOORS}, {"level": 0.95})
    names = ["eng", "spa", "tur"]
    counts = {name: ("language", [7] * 3) for name in (
        "lines", "removed", "tokens", "pieces", "shared_pieces", "test_examples", "test_documents", "cut")}
    costs = {name: ("learned", [2.0, 1.0]) for name in (
        "operations", "temporary_bytes", "state_bytes", "seconds", "tokens_per_second")}
    parts = {
        "scores": scores, "text": xr.Dataset(counts, {"language": names}),
        "losses": xr.Dataset({"loss": (("seed", "system", "language"), np.ones((1, 6, 3)))},
                             {"system": SYSTEMS, "language": names}),
        "training": xr.Dataset({"loss": (("seed", "model"), [[2.0]])}, {"model": ["body-eng"]}),
        "costs": xr.Dataset(costs, {"learned": ["everything", "bank"]})}
    if experts:
        pair, conditions = ("condition", "language", "language_b", "k"), ["transferred", "untrained embeddings"]
        flat = {name: (pair, np.full((2, 3, 3, 1), 0.1)) for name in (
            "overlap_mean", "null_overlap", "null_overlap_sd", "p", "shared_fraction")}
        layered = {name: (("condition", "language", "language_b", "layer"), np.full((2, 3, 3, 2), 0.1))
                   for name in ("layer_overlap", "layer_null")}
        parts["experts"] = xr.Dataset(
            flat | layered | {"chance_uniform": ("k", [0.02]),
                              "ceiling": (("condition", "language", "concept", "k"), np.full((2, 3, 4, 1), 0.5))},
            {"condition": conditions, "language": names, "language_b": names, "k": [20], "layer": [0, 1],
             "concept": list("abcd")}, {"k": 20})
    tree = xr.DataTree.from_dict(parts)
    tree.attrs = {"first": "eng", "task": "topic <of> it", "measure": "accuracy",
                  "corpus": "c", "corpus_fingerprint": "f" * 64,
                  "settings": "{}", "config": "{}", "xlingjax": "0"}
    return tree


@pytest.mark.parametrize("gain, said", [(0.3, "above all three floors"), (0.02, "not above every floor")])
def test_the_verdict_is_the_results(gain, said):
    lines = lexical_summary(result(gain))
    assert said in lines[0] and f"{0.2 + gain:.3f} [{0.15 + gain:.3f}" in lines[0] and f"{gain:+.3f}" in lines[0]
    assert any(line.startswith("Floors: untrained embeddings 0.200") for line in lines)
    assert "nothing is said of other runs" in lines[-1]


@pytest.mark.parametrize("measure, chance", [("accuracy", "the most frequent class"), ("f1", "a span drawn at random"),
                                             ("own", "the task&#x27;s own chance")])
def test_the_task_s_own_chance_is_named(measure, chance, tmp_path):
    tree = result(0.3)
    tree.attrs["measure"] = measure
    assert any(f"{html.unescape(chance)} 0.200." in line for line in lexical_summary(tree))
    page = write_lexical_report(tree, tmp_path).read_text()
    assert f"dotted: {chance}." in page and f"<td>{chance}</td>" in page


@pytest.mark.parametrize("experts", [True, False])
def test_the_page_is_whole_and_escaped(experts, tmp_path):
    page = write_lexical_report(result(0.3, experts), tmp_path).read_text()
    assert "topic &lt;of&gt; it" in page and "<of>" not in page
    for section in ("Zero-shot scores", "Above the floors?", "What freezing saves", "Text"):
        assert section in page
    assert ("The same neurons?" in page) == experts == (tmp_path / "lexical_layers.png").exists()
    assert (tmp_path / "lexical_scores.png").exists()
