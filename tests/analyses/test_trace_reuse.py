"""What a trace reuses: a finished checkpoint while it is the same (P8), also in another list."""

import dataclasses
import os
import shutil

import pytest
import tiny_trace

from xlingjax.analyses import finished
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import sources
from xlingjax.analyses.trace import trace
from xlingjax.errors import InputError
from xlingjax.models import save_model
from xlingjax.training.tokenizer import train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.promise]
SETTINGS = dataclasses.replace(tiny_trace.SETTINGS, probe=None, ladder_pairs=0)


def corpus():
    return tiny_trace.corpus().with_concepts(["Number=Plur", "Tense=Past"])


@pytest.fixture(scope="module")
def finished_trace(tmp_path_factory):
    """A trace of a checkpoint of ours and one as Hugging Face writes it, and its folder."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("reuse")
    sound = tiny_trace.model()
    tiny_trace.checkpoints(folder / "model", {"step1": sound})
    shape = sound.config
    config = transformers.BloomConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.width, n_layer=shape.layers, n_head=2
    )
    transformers.set_seed(0)
    transformers.BloomForCausalLM(config).save_pretrained(folder / "model" / "step2")
    sound.tokenizer.save_pretrained(folder / "model" / "step2")
    found = sources(str(folder / "model"), ["step1", "step2"])
    trace(found, corpus(), SETTINGS, folder / "trace")
    return folder, found


@pytest.fixture
def run(finished_trace):
    """The finished trace, and afterwards its model and workdir as they were."""
    folder, found = finished_trace
    for name in ("model", "trace"):
        shutil.copytree(folder / name, folder / f"{name} kept")
    yield folder, found
    for name in ("model", "trace"):
        shutil.rmtree(folder / name)
        (folder / f"{name} kept").rename(folder / name)


def resume(folder, found):
    return trace(found, corpus(), SETTINGS, folder / "trace")


def results(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("checkpoint.nc")}


def flip_last_byte(path):
    """Changes one byte and leaves size and time of modification as they were."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_changed_byte_of_the_weights_is_refused(run):
    folder, found = run
    flip_last_byte(folder / "model" / "step2" / "model.safetensors")
    with pytest.raises(
        InputError,
        match=r"checkpoint 'step2' .*model\.weights was '\w+' and is '\w+'; take another "
        r"--workdir, or delete .*trace/step2 to compute",
    ):
        resume(folder, found)


def test_a_changed_byte_of_our_own_checkpoint_is_refused_by_file(run):
    folder, found = run
    file = max((folder / "model/step1/params").rglob("*"), key=lambda path: path.stat().st_size)
    flip_last_byte(file)
    with pytest.raises(InputError, match="checkpoint 'step1' has changed .* is damaged.*--workdir"):
        resume(folder, found)


def test_another_config_and_another_tokenizer_are_refused(run):
    folder, found = run
    path = folder / "model/step2/config.json"
    path.write_text(path.read_text().replace('"layer_norm_epsilon": 1e-05', '"layer_norm_epsilon": 0.1'))
    with pytest.raises(InputError, match="step2.*model.config.*norm_eps.* was 1e-05 and is 0.1"):
        resume(folder, found)
    shutil.rmtree(folder / "model/step2")
    shutil.copytree(folder / "model kept/step2", folder / "model/step2")
    shutil.rmtree(folder / "model/step1")
    other = train_tokenizer(corpus(), 400)
    save_model(dataclasses.replace(tiny_trace.model(), tokenizer=other), folder / "model/step1")
    with pytest.raises(InputError, match="step1.*model.tokenizer was"):
        resume(folder, found)


def test_what_was_copied_is_the_same_and_is_read_only_once(run, monkeypatch):
    folder, found = run
    shutil.rmtree(folder / "model")
    shutil.copytree(folder / "model kept", folder / "model", copy_function=shutil.copyfile)
    before = results(folder)
    loads = []
    load = finished.Model.__init__
    monkeypatch.setattr(finished.Model, "__init__", lambda *a, **k: (loads.append(1), load(*a, **k))[1])
    resume(folder, found)
    assert results(folder) == before and len(loads) == 2
    resume(folder, found)
    assert results(folder) == before and len(loads) == 2, "the signature was recorded again"


def test_the_result_of_another_version_is_made_again(run):
    folder, found = run
    before = results(folder)
    record = folder / "trace/step1/source.json"
    record.write_text(record.read_text().replace(f'"format": {finished.FORMAT}', '"format": 1'))
    resume(folder, found)
    changed = [path for path, time in results(folder).items() if before[path] != time]
    assert [path.parent.name for path in changed] == ["step1"]


def test_what_is_no_longer_there_is_reused(run):
    folder, found = run
    before = results(folder)
    shutil.rmtree(folder / "model" / "step1")
    resume(folder, found)
    assert results(folder) == before


def test_deleting_the_result_as_advised_computes_it_again(run):
    folder, found = run
    shutil.rmtree(folder / "model/step1")
    save_model(tiny_trace.model(1), folder / "model/step1")
    with pytest.raises(InputError, match="step1"):
        resume(folder, found)
    before = results(folder)
    shutil.rmtree(folder / "trace" / "step1")
    resume(folder, found)
    changed = {path.parent.name for path, time in results(folder).items() if before[path] != time}
    assert changed == {"step1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists") / "model"
    one, other = tiny_trace.model(), tiny_trace.model(1)
    tiny_trace.checkpoints(
        folder, {"step0": other, "step5": one, "step10": other, "step20": tiny_trace.with_nan(one)}
    )
    save_model(one, folder / "step30")
    return folder


class TestAnotherList:
    """Checkpoints join a finished trace: what comes out is what an unbroken trace gives."""

    def run(self, model, workdir, *labels):
        found = sources(str(model), labels, tokens_per_step=100)
        tree = trace(found, corpus(), SETTINGS, workdir)
        write_tree(workdir / "result.nc", tree)
        status = tree["health"]["status"].values.tolist()
        return status, tree.attrs["last_sound"], (workdir / "result.nc").read_bytes()

    @pytest.mark.filterwarnings("ignore:.*NaN or infinite responses")
    def test_added_before_between_and_after(self, model, tmp_path):
        short = self.run(model, tmp_path / "one", "step10", "step30")
        assert short[:2] == (["ok", "ok"], "step30")
        kept = results(tmp_path / "one")
        longer = self.run(model, tmp_path / "one", "step0", "step5", "step10", "step20", "step30")
        assert longer[:2] == (
            ["ok", "ok", "same weights as step0",
             "1 non-finite weights, the first 1 in layers/mlp/up/kernel[1]; "
             + longer[0][3].split("; ", 1)[1], "same weights as step5"], "step5")  # fmt: skip
        assert {path: results(tmp_path / "one")[path] for path in kept} == kept
        unbroken = self.run(model, tmp_path / "two", "step0", "step5", "step10", "step20", "step30")
        assert longer == unbroken
        assert self.run(model, tmp_path / "one", "step10", "step30") == short, "and back"

    def test_step_0_added_takes_the_place_of_random_parameters(self, model, tmp_path):
        self.run(model, tmp_path / "one", "step5")
        longer = self.run(model, tmp_path / "one", "step0", "step5")
        assert longer[1] == "step5"
        assert longer == self.run(model, tmp_path / "two", "step0", "step5")

    def test_a_label_of_another_source_is_refused(self, model, tmp_path):
        self.run(model, tmp_path / "one", "step5")
        shutil.copytree(model, tmp_path / "other")
        with pytest.raises(
            InputError, match=r"checkpoint 'step5' .*source\.name was '.*model' and is '.*other'"
        ):
            self.run(tmp_path / "other", tmp_path / "one", "step5", "step10")
        assert not (tmp_path / "one" / "step10").exists(), "before anything is computed"
