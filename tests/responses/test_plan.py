"""What the plan says is what happens."""

import dataclasses
import re
import shutil

import jax
import pytest
import tiny

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.placing import abstract_model
from xlingjax.responses import collect, plan, planning
from xlingjax.responses.jobs import prepare
from xlingjax.responses.planning import device_bytes
from xlingjax.responses.stepping import pooled_step

WIDE = TransformerConfig(vocab_size=67, layers=4, width=64, heads=4, mlp_width=256, fused="by_head")


@pytest.mark.promise
@pytest.mark.parametrize("config", [tiny.CONFIG, WIDE], ids=["tiny", "wide"])
def test_device_bytes(config):
    """Resident bytes exact; temporary within 25 % of the compiler's largest over all shapes."""
    model, tokens = tiny.model(config), tiny.sentences(200, lengths=(6, 20, 60, 100))
    planned = plan(model, tokens, batch_tokens=1024)
    job = prepare(model, tokens, None, "max", None, 1024, None, in_memory=True)
    inputs, temporary = [], []
    for batch in range(len(job.batches)):
        arrays = job.inputs(batch)
        abstract = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
        analysis = (
            pooled_step.lower(model.params, config, job.capture, *abstract)
            .compile()
            .memory_analysis()
        )
        inputs.append(analysis.argument_size_in_bytes - sum(array.nbytes for array in arrays))
        temporary.append(analysis.temp_size_in_bytes)
    # The final norm is resident, but no capture reads it, so the compiler leaves it out.
    unread = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params["norm"]))
    assert set(inputs) == {planned.parameter_bytes - unread}
    assert 0.75 * max(temporary) <= planned.temporary_bytes <= 1.25 * max(temporary)


@pytest.mark.promise
def test_a_model_without_weights_is_planned_as_the_one_with_them():
    config = dataclasses.replace(WIDE, vocab_size=tiny.CONFIG.vocab_size)
    model, tokens = tiny.model(config), tiny.sentences(200, lengths=(6, 20, 60, 100))
    known, thought = (
        plan(one, tokens, batch_tokens=1024, measure="memory")
        for one in (model, abstract_model(config, name=model.name))
    )
    assert known == thought and known.temporary_bytes > 0 and known.seconds is None


def test_what_is_not_measured_and_how_large_a_device_is_are_arguments():
    model, tokens = abstract_model(tiny.CONFIG), tiny.sentences(50)
    with pytest.raises(InputError, match="measure is 'all'; choose among nothing, memory, time"):
        plan(model, tokens, measure="all")
    with pytest.raises(InputError, match="has no weights, so it cannot be timed"):
        plan(model, tokens)
    with pytest.raises(InputError, match="a device has 20 kB"):
        plan(model, tokens, measure="memory", device_limit=20_000)


@pytest.mark.promise
@pytest.mark.parametrize("count, pool", [(1, "max"), (100, "max"), (333, "argmax")])
def test_disk_bytes_are_exact(tmp_path, count, pool):
    model, tokens = tiny.model(), tiny.sentences(count)
    planned = plan(model, tokens, pool=pool, workdir=tmp_path, batch_tokens=512, measure="nothing")
    collect(model, tokens, pool=pool, workdir=tmp_path, batch_tokens=512)
    assert planned.disk_bytes == sum(
        path.stat().st_size for path in (tmp_path / "arrays").rglob("c.*")
    )
    assert planned.disk_bytes >= 4 * planned.neurons * planned.sentences


def test_batches_and_text():
    model, tokens = tiny.model(), tiny.sentences(200)
    planned = plan(model, tokens, batch_tokens=256)
    job = prepare(model, tokens, None, "max", None, 256, None, in_memory=True)
    assert planned.batches == len(job.batches)
    assert planned.tokens == sum(batch.length * len(batch.rows) for batch in job.batches)
    assert planned.seconds > 0
    text = str(planned)
    assert "360 neurons at attn.qkv, attn.out, mlp.up, mlp.down" in text and "200" in text
    assert "unknown (no batch was timed)" in str(plan(model, tokens, measure="nothing"))


def test_a_batch_too_large_for_the_device_is_refused_with_one_that_fits(monkeypatch):
    model, tokens = tiny.model(WIDE), tiny.sentences(200, lengths=(6, 20, 60, 100))
    monkeypatch.setattr(planning, "device_memory", lambda: device_bytes(model.params) + 5_000_000)
    with pytest.raises(InputError, match="tokens needs .* batches of") as error:
        plan(model, tokens, batch_tokens=8192)
    fits = int(re.search(r"batches of (\d+) tokens", str(error.value))[1])
    assert plan(model, tokens, batch_tokens=fits).batches > 1
    monkeypatch.setattr(planning, "device_memory", lambda: device_bytes(model.params) + 100)
    with pytest.raises(InputError, match=r"--mesh=model:2"):
        plan(model, tokens, batch_tokens=8192)


def test_a_disk_with_too_little_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    for call in (plan, collect):
        with pytest.raises(InputError, match="1 kB free, the run needs"):
            call(tiny.model(), tiny.sentences(10), workdir=tmp_path / "run")
