"""Several jobs on one workdir end as one: part by part, at once, and refused where they collide."""

import dataclasses
import fcntl
import gc
import os
import weakref

import jax
import pytest
import tiny_trace

from xlingjax.analyses import sources as sources_of
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.trace import trace, trace_part
from xlingjax.errors import InputError
from xlingjax.files import locked

pytestmark = [pytest.mark.slow, pytest.mark.promise]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    models = {f"step{seed}": tiny_trace.model(seed) for seed in range(3)}
    return tiny_trace.checkpoints(tmp_path_factory.mktemp("model"), models)


def test_parts_end_as_one_run(sources, tmp_path) -> None:
    corpus, settings = tiny_trace.corpus(), tiny_trace.SETTINGS
    write_tree(tmp_path / "whole.nc", trace(sources, corpus, settings, tmp_path / "whole"))
    assert trace_part(sources, corpus, settings, tmp_path / "parts", 2, 2) == ["step1"]
    assert trace_part(sources, corpus, settings, tmp_path / "parts", 1, 2) == ["step0", "step2"]
    said: list[str] = []
    joined = trace(sources, corpus, settings, tmp_path / "parts", say=said.append)
    write_tree(tmp_path / "joined.nc", joined)
    assert (tmp_path / "joined.nc").read_bytes() == (tmp_path / "whole.nc").read_bytes()


def test_jobs_that_collide_are_refused(sources, tmp_path) -> None:
    corpus, settings = tiny_trace.corpus(), tiny_trace.SETTINGS
    with locked(tmp_path / "w", shared=True):
        with pytest.raises(InputError, match="in use by another process"):
            trace(sources, corpus, settings, tmp_path / "w")  # joins nothing while a part is at work
        with locked(tmp_path / "w" / "step1"):
            with pytest.raises(InputError, match="step1 is in use by another process"):
                trace_part(sources, corpus, settings, tmp_path / "w", 2, 3)
        assert trace_part(sources, corpus, settings, tmp_path / "w", 2, 3) == ["step1"]
    with pytest.raises(InputError, match="part 4 of 3 is none"):
        trace_part(sources, corpus, settings, tmp_path / "w", 4, 3)
    handle = os.open(tmp_path / "w" / "lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # every part has let go
    os.close(handle)


@pytest.mark.parametrize("other", ["setting", "corpus"])
def test_a_part_of_another_experiment_is_refused_and_loses_nothing(sources, tmp_path, other) -> None:
    corpus, settings = tiny_trace.corpus(), dataclasses.replace(tiny_trace.SETTINGS, probe=None, ladder_pairs=0)
    assert trace_part(sources, corpus, settings, tmp_path, 2, 3) == ["step1"]
    before = (tmp_path / "step1" / "checkpoint.nc").read_bytes()
    if other == "setting":
        settings = dataclasses.replace(settings, k=6)
    else:
        corpus = corpus.with_concepts(corpus.concepts[:3])
    with pytest.raises(InputError, match=r"settings\.k was 5 and is 6" if other == "setting" else "corpus was"):
        trace_part(sources, corpus, settings, tmp_path, 1, 3)
    assert not (tmp_path / "step0").exists() and (tmp_path / "step1" / "checkpoint.nc").read_bytes() == before


def test_one_checkpoint_is_freed_before_the_next_is_loaded(sources, tmp_path, monkeypatch) -> None:
    """P5: two checkpoints of a large model do not fit beside each other."""
    real, held, alive = sources_of.load_model, [], []

    def load(*arguments, **options):
        gc.collect()
        alive.append(sum(reference() is not None for reference in held))
        model = real(*arguments, **options)
        held.extend(weakref.ref(leaf) for leaf in jax.tree.leaves(model.params))
        return model

    monkeypatch.setattr(sources_of, "load_model", load)
    settings = dataclasses.replace(tiny_trace.SETTINGS, probe=None, ladder_pairs=0)
    trace(sources, tiny_trace.corpus(), settings, tmp_path)
    assert len(alive) >= 3 and alive == [0] * len(alive)
