"""Several jobs on one workdir end as one: part by part, at once, and refused where they collide."""

import fcntl
import os

import pytest
import tiny_trace

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
