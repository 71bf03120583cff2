"""What we write as Hugging Face keeps it is read back, by us and by Hugging Face, bit for bit."""

import json

import numpy as np
import pytest
import torch
import transformers

from experiments import _parity_cases as families
from xlingjax.errors import InputError
from xlingjax.models.families import family_of
from xlingjax.models.loading import load_model
from xlingjax.models.weights import writing
from xlingjax.models.weights.writing import named_tensors, write_safetensors

FOUND = {case.name: case for case in families.CASES}


@pytest.mark.promise
@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("shard_bytes", [2**40, 20_000], ids=["whole", "shards"])
def test_the_round_trip_is_exact(tmp_path, name, shard_bytes) -> None:
    case = FOUND[name]
    config = getattr(transformers, case.config)(**case.options)
    torch.manual_seed(0)
    kind = getattr(transformers, case.model)
    kind(config).eval().save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    hf = json.loads((tmp_path / "theirs" / "config.json").read_text())
    family = family_of(hf)
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf))
    write_safetensors(folder, family.entries(ours.config), ours.params, shard_bytes=shard_bytes)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_bytes < 2**40)
    again = load_model(folder)
    assert again.fingerprint == ours.fingerprint
    state = kind.from_pretrained(tmp_path / "theirs").state_dict()
    for key, tensor in kind.from_pretrained(folder).state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[key].numpy(), err_msg=key)


def saved(folder):
    """A tiny model of ours, its table, and its config.json."""
    case = families.CASES[0]
    getattr(transformers, case.model)(getattr(transformers, case.config)(**case.options)).save_pretrained(folder)
    model, hf = load_model(folder), (folder / "config.json").read_text()
    return model, family_of(json.loads(hf)).entries(model.config), hf


def test_an_unfinished_set_of_shards_is_no_checkpoint(tmp_path, monkeypatch) -> None:
    """The index comes last."""
    model, entries, hf = saved(tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "config.json").write_text(hf)

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_json", broken)
    with pytest.raises(OSError):
        write_safetensors(folder, entries, model.params, shard_bytes=20_000)
    with pytest.raises(InputError, match="holds no weights"):
        load_model(folder)


def test_every_tensor_has_the_type_that_was_asked_for(tmp_path) -> None:
    model, entries, _ = saved(tmp_path)
    found = dict(named_tensors(entries, model.params, "float16"))
    assert {tensor.dtype for tensor in found.values()} == {np.dtype("float16")}
    assert all(tensor.flags.c_contiguous for tensor in found.values())
