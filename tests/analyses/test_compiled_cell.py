"""The one compiled program against the streaming path, and no program for another concept or seed."""

import numpy as np
import tiny_trace

import xlingjax as xl
from xlingjax.analyses.compiled_cell import compiled_cell, one_step, stack_rows
from xlingjax.responses.stepping import pooled_step

K = 7


def test_it_gives_the_streaming_paths_numbers() -> None:
    model, corpus = tiny_trace.model(), tiny_trace.corpus()
    found = compiled_cell(model, corpus, K, batch_tokens=512)
    rows = stack_rows(model, corpus, 512)
    capture = tuple((site, "max") for site in model.neuron_sites)
    # The same batches: buckets of another length change last digits, and with them the order of a few.
    batches = [pooled_step(model.params, model.config, capture, *batch)[0]
               for batch in zip(rows.tokens, rows.mask, rows.where)]  # fmt: skip
    responses = np.concatenate([
        np.concatenate([np.moveaxis(np.asarray(one[site]), 1, 0).reshape(len(one[site][0]), -1)
                        for site, _ in capture], axis=1) for one in batches])  # fmt: skip
    ap = np.stack([
        xl.kernels.average_precision(responses[of], rows.labels[of], rows.counts[of])
        for of in (rows.language == number for number in range(3))])  # fmt: skip
    assert np.isclose(found.ap, ap, atol=2e-6).mean() > 0.995
    streamed = xl.collect(model, corpus)
    order = np.argsort(np.flatnonzero(rows.language >= 0))
    assert np.allclose(responses[rows.language >= 0][order], streamed.matrix(), atol=1e-5)
    sets = xl.kernels.expert_sets(np.asarray(found.ap), K)
    np.testing.assert_array_equal(found.sets, sets)
    wanted = xl.kernels.set_overlap(sets[:, None], sets[None], total=ap.shape[-1])
    np.testing.assert_allclose(found.overlap, wanted.overlap, atol=1e-6)
    np.testing.assert_allclose(found.chance, wanted.chance, atol=1e-6)
    assert np.allclose(np.einsum("ggc->gc", found.overlap), 1), "a language with itself"


def test_fillers_and_unlabelled_sentences_count_nothing() -> None:
    model, corpus = tiny_trace.model(), tiny_trace.corpus().rows(np.arange(143))
    rows = stack_rows(model, corpus, 640)
    assert (rows.language == -1).any(), "the last batch is filled up"
    assert not rows.counts[rows.language == -1].any()
    wide = stack_rows(model, corpus, 1 << 14)
    capture = tuple((site, "max") for site in model.neuron_sites)
    one, other = (
        one_step(model.params, model.config, capture, 3, K, each, np.uint32(0)) for each in (rows, wide)
    )
    assert np.isclose(one.ap, other.ap, atol=1e-5).mean() > 0.99


def test_another_concept_or_seed_compiles_nothing() -> None:
    model, corpus = tiny_trace.model(), tiny_trace.corpus()
    compiled_cell(model, corpus, K, batch_tokens=512)
    programs = one_step._cache_size()
    other = corpus.with_concepts(corpus.concepts[::-1])
    compiled_cell(model, other, K, batch_tokens=512, seed=3)
    assert one_step._cache_size() == programs
