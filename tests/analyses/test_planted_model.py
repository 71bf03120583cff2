"""Planted truth in a transformer, from texts to the report's words, and mutants that fail it."""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from xlingjax.analyses.planted import model as planted_model
from xlingjax.analyses.planted import model_table as table
from xlingjax.analyses.planted import responses as planted
from xlingjax.analyses.sources import sources
from xlingjax.analyses.trace import trace
from xlingjax.analyses.trace.settings import TraceSettings
from xlingjax.errors import InputError
from xlingjax.kernels import resampling
from xlingjax.models import save_model, taps
from xlingjax.report.trace_words import NOTHING, summary
from xlingjax.responses import stepping

SIZE = table.SIZES["small"]


def missed(rows):
    """Bars missed by more than three sampling sds and half a percent."""
    frame = planted.as_table(rows, {}).to_dataframe()
    barred = frame[frame.barred]
    slack = np.where(np.isnan(barred.sd) | barred.index.str.contains("fraction"), 0,
                     3 * barred.sd + 0.005)
    low = ~(barred.measured >= barred.low - slack)  # NaN is missed as well
    return barred[low | (barred.measured > barred.high + slack)]


@pytest.mark.promise
@pytest.mark.parametrize(
    "part", [table.calibrated_rows, table.fraction_rows, table.call_rows, table.name_rows])
def test_small_table_meets_its_bars_within_sampling_error(part):
    rows = part(SIZE)
    assert len(rows) >= 2 and missed(rows).empty, missed(rows)


@pytest.mark.slow
def test_full_table_meets_its_bars():
    size = table.SIZES["full"]
    rows = [row for part in (table.calibrated_rows, table.fraction_rows, table.call_rows,
                             table.name_rows) for row in part(size)]
    assert missed(rows).empty, missed(rows)


@pytest.mark.promise
def test_mutant_independent_null_is_caught(monkeypatch):
    """Labels permuted anew in each language: names then pass for shared experts."""
    original = resampling.joint_permutations

    def independent(blocks, parallel, languages, draws, seed, within=None):
        source = original(blocks, parallel, languages, draws, seed, within)
        for number, name in enumerate(np.unique(languages)):
            own = original(blocks, parallel, languages, draws, seed + 1 + number, within)
            source[:, languages == name] = own[:, languages == name]
        return source

    monkeypatch.setattr(resampling, "joint_permutations", independent)
    assert "names only, median p in the same half" in missed(table.name_rows(SIZE)).index


@pytest.mark.promise
def test_mutant_sentence_split_is_caught(monkeypatch):
    """Halves of sentences, not documents: the names of a document lie in both."""
    def by_sentence(blocks, languages, seed):
        names, counts = np.unique(languages, return_counts=True)
        half = np.random.default_rng(seed).permutation(np.arange(counts[0]) % 2)
        return np.tile(half, len(names))

    monkeypatch.setattr(resampling, "document_halves", by_sentence)
    assert "names only, median p across halves" in missed(table.name_rows(SIZE)).index


@pytest.mark.promise
def test_mutant_dropped_mask_is_caught(monkeypatch):
    """Padding counted in the maximum: detectors that stay below zero drown in it."""
    monkeypatch.setitem(taps.REDUCTIONS, "max", lambda h, where: jnp.max(h, axis=1))
    stepping.pooled_step.clear_cache()
    try:
        lost = missed(table.calibrated_rows(SIZE._replace(worlds=1)))
    finally:
        monkeypatch.undo()
        stepping.pooled_step.clear_cache()
    assert lost.index.str.contains("recall").any(), lost


@functools.cache
def world(**settings):
    """A smaller world than the table's, whose bars need rare words and many neurons."""
    return planted_model.plant_model(**(dict(
        sentences=160, documents=40, fillers=1000, mlp_width=256, identity=12, length_neurons=12,
        prevalence=0.15) | settings))


def traced(folder, model, corpus, **settings):
    """The trace of an untrained model and the planted one, saved and loaded."""
    steps = {"step0": planted_model.untrained(model), "step8": model}
    for name, one in steps.items():
        save_model(one, Path(folder) / "run" / name)
    options = dict(sites=(planted_model.SITE,), k=table.EACH, permutations=20, ladder_pairs=1,
                   batch_tokens=4096, probe=None) | settings
    return trace(sources(str(folder / "run"), list(steps)), corpus, TraceSettings(**options),
                 folder / "trace")


@pytest.mark.promise
@pytest.mark.slow
def test_trace_finds_what_was_planted_and_says_so(tmp_path):
    model, corpus, truth = world()
    tree = traced(tmp_path, model, corpus)
    said = summary(tree)
    assert said[0] != NOTHING and "above the joint null" in said[0], said
    assert "for good since checkpoint step8" in said[0], said
    assert "cross script pairs: above both nulls on both" in " ".join(said), said
    sets = tree["experts/planted"]["expert"].values[-1, 0]  # [G, C, k]
    right = [truth.experts[g, c, sets[g, c]].mean() for g in range(3) for c in range(4)]
    assert min(right) == 1
    calls = tree["calls/planted"]
    upper = np.triu(np.ones((3, 3), bool), 1)
    count = {name: calls[name].transpose("concept", ...).values[:, upper].sum(1)
             for name in ("anchor", "length", "abstract")}
    np.testing.assert_array_equal(count["abstract"], [24, 24, 24, 0])  # 8 shared in 3 pairs
    np.testing.assert_array_equal(count["anchor"], [0, 0, 0, 48])


@pytest.mark.promise
@pytest.mark.parametrize("kind", [
    "shuffled labels", *(pytest.param(kind, marks=pytest.mark.slow)
                         for kind in ("untrained", "disjoint"))])
@pytest.mark.slow
def test_trace_of_nothing_says_nothing_found(tmp_path, kind):
    """Disjoint: each language has its own words, names and detectors, so nothing is shared."""
    model, corpus, _ = (world() if kind == "shuffled labels" else world(loans=0)
                        if kind == "untrained" else
                        world(loans=0, shared=0, specific=table.EACH, name_share=0.0))
    if kind == "untrained":
        model = planted_model.untrained(model, seed=7)
    said = summary(traced(tmp_path, model, corpus, shuffle=kind == "shuffled labels"))
    assert said[0] == NOTHING, said


def test_truth_is_where_it_was_planted():
    model, corpus, truth = world()
    seen = planted_model.observe(model, corpus).world
    assert [len({*corpus.language(name).texts[0].split()} & {*other.texts[0].split()})
            for name in corpus.language_names[:1]
            for other in [corpus.language("qac")]][0] <= 2  # at most a name and a loan
    for g, name in enumerate(corpus.language_names):
        rows = corpus.languages == name
        for c in range(4):
            shown = seen.labels[rows, c] == 1
            block = seen.responses[rows]
            gap = block[shown].mean(0) - block[~shown].mean(0)
            mine = truth.experts[g, c]
            assert mine.sum() == table.EACH
            assert gap[mine].min() > 4 * np.abs(gap[~mine & ~truth.experts.any((0, 1))]).max()
    below = seen.responses[:, truth.experts.any((0, 1))].max(0) < 0
    assert 0.4 < below.mean() < 0.6
    assert (seen.responses[:, truth.constant] == 0).all()
    with pytest.raises(InputError, match="cannot hold"):
        planted_model.plant_model(mlp_width=64)
    with pytest.raises(InputError, match="equal size"):
        planted_model.plant_model(sentences=241)
    with pytest.raises(InputError, match="width 32"):
        planted_model.plant_model(width=32)
