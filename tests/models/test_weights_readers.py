"""The readers of checkpoint files against torch and safetensors, and what they refuse."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xlingjax.errors import InputError
from xlingjax.models.weights import open_checkpoint
from xlingjax.models.weights.files import is_inside

pytestmark = pytest.mark.promise

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.uint16,
]


def tensors():
    generator = torch.Generator().manual_seed(0)
    made = {
        f"{kind}"[6:]: torch.randint(0, 2, (3, 4), generator=generator).to(kind) for kind in TYPES
    }
    made["normal"] = torch.randn(5, 7, generator=generator)
    made["half"] = made["normal"].half()
    made["brain"] = made["normal"].bfloat16()
    made["scalar"] = torch.tensor(2.5)
    made["empty"] = torch.zeros(0, 3)
    return made


def to_numpy(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.contiguous().numpy()


def check(folder, expected):
    checkpoint = open_checkpoint(folder)
    assert checkpoint.names == tuple(sorted(expected))
    for name, tensor in expected.items():
        theirs, ours = to_numpy(tensor.detach()), checkpoint.read(name)
        assert ours.dtype == theirs.dtype == checkpoint.dtype(name), name
        assert ours.shape == theirs.shape == checkpoint.shape(name), name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_safetensors_of_every_type(tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors")
    check(tmp_path, tensors())


@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}]
)
def test_torch_of_every_type(tmp_path, options):
    torch.save(tensors(), tmp_path / "pytorch_model.bin", **options)
    check(tmp_path, tensors())


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_views_share_storages_with_strides_and_offsets(tmp_path, zipped):
    base = torch.arange(60.0).reshape(5, 12)
    state = {
        "whole": base,
        "rows": base[1:3],
        "columns": base[:, 2:9:3],
        "transposed": base.T,
        "last": base[4, 11],
        "parameter": torch.nn.Parameter(base[2:]),
    }
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    check(tmp_path, state)


def test_a_state_dict_with_its_attributes(tmp_path):
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(layers.state_dict(), tmp_path / "pytorch_model.bin")
    check(tmp_path, dict(layers.state_dict()))


def shard(folder, name, save, state, pieces=3):
    """Shards and their index, tensors dealt out in turn."""
    stem, ending = name.split(".")
    weight_map = {
        key: f"{stem}-{i % pieces + 1:05d}-of-{pieces:05d}.{ending}" for i, key in enumerate(state)
    }
    for file in set(weight_map.values()):
        save({key: state[key] for key in state if weight_map[key] == file}, folder / file)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


SHARDED = [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)]


@pytest.mark.parametrize("name, save", SHARDED)
def test_shards(tmp_path, name, save):
    shard(tmp_path, name, save, tensors())
    check(tmp_path, tensors())


@pytest.mark.parametrize("name, save", SHARDED)
def test_a_broken_set_of_shards_is_refused(tmp_path, name, save):
    weight_map = shard(tmp_path, name, save, tensors())
    index = tmp_path / f"{name}.index.json"
    middle = tmp_path / sorted(set(weight_map.values()))[1]
    kept = middle.read_bytes()

    def refuse(*words):
        with pytest.raises(InputError) as error:
            open_checkpoint(tmp_path)
        for word in words:
            assert word in str(error.value)

    middle.unlink()
    refuse(middle.name, "missing")
    middle.write_bytes(b"")
    refuse(middle.name, "empty")
    middle.write_bytes(kept[: len(kept) // 2])
    refuse(middle.name)
    middle.write_bytes(kept)
    moved = next(key for key, file in weight_map.items() if file == middle.name)
    other = next(file for file in weight_map.values() if file != middle.name)
    index.write_text(json.dumps({"weight_map": weight_map | {moved: other}}))
    refuse(other, moved, "lacks")
    index.write_text(
        json.dumps({"weight_map": {k: v for k, v in weight_map.items() if k != moved}})
    )
    refuse(middle.name, moved, "does not list")
    for broken in (
        "",
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        "[" * 100_000,
    ):
        index.write_text(broken)
        refuse(index.name)


@pytest.mark.parametrize(
    "path",
    [
        "../out.safetensors",
        "a/../../out.safetensors",
        "/out.safetensors",
        "C:\\out.safetensors",
        "C:out.safetensors",
        "\\\\host\\out.safetensors",
        "",
        "./out.safetensors",
        "..",
        "a\0b",
        "link.safetensors",
        "linked/out.safetensors",
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "out.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "out.safetensors")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": path}}))
    with pytest.raises(InputError, match="outside"):
        open_checkpoint(folder)


def test_links_of_the_hub_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "sub"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file({"a": torch.ones(1)}, blobs / "123")
    (snapshot / "one.safetensors").symlink_to(blobs / "123")
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "one.safetensors"}})
    )
    check(snapshot, {"a": torch.ones(1)})


def header(content, body=b"", length=None):
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + body


def spec(start, end, shape=(2,), kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        header({}, length=2**63),
        header({"a": spec(0, 8)}, bytes(8), length=3),
        header(b"not json"),
        header(b'{"a": '),
        header([]),
        header(b"\xff\xfe"),
        header({"a": spec(0, 8), "b": spec(4, 12)}, bytes(12)),  # overlap
        header({"a": spec(0, 8), "b": spec(12, 20)}, bytes(20)),  # hole
        header({"a": spec(0, 8)}, bytes(16)),  # bytes that nobody owns
        header({"a": spec(0, 8)}, bytes(4)),  # cut off
        header({"a": spec(0, 2**64 - 4, (2**62, 2**62))}, bytes(8)),  # overflow
        header({"a": spec(0, 0, (2**32, 2**32))}),
        header({"a": spec(8, 0)}, bytes(8)),
        header({"a": spec(0, 8, (3,))}, bytes(8)),
        header({"a": spec(0, 8, (-2,))}, bytes(8)),
        header({"a": spec(0, 8, kind="F31")}, bytes(8)),
        header({"a": {"dtype": "F32"}}),
        header({"a": spec(0, 8, kind="C64", shape=(1,))}, bytes(8)),
    ],
    ids=range(20),
)
def test_malformed_safetensors_are_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        open_checkpoint(tmp_path)


class Hostile:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(path, pickled, members=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in members:
            file.writestr(name, content)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "name, function, arguments",
    [
        ("system", os.system, ("touch {}",)),
        ("eval", eval, ("open({!r}, 'w')",)),
        ("open", open, ("{}", "w")),
        ("_load_from_bytes", torch.storage._load_from_bytes, (b"",)),
        ("getattr", getattr, (os, "system")),
        ("load", torch.load, ("{}",)),
        ("Linear", torch.nn.Linear, (1, 1)),
    ],
)
def test_poisoned_pickles_do_nothing_but_raise(tmp_path, legacy, name, function, arguments):
    target = tmp_path / "executed"
    arguments = tuple(a.format(str(target)) if isinstance(a, str) else a for a in arguments)
    hostile = Hostile(function, *arguments) if name != "getattr" else Hostile(getattr, "x", "upper")
    pickled = pickle.dumps({"weight": hostile}, protocol=2)
    path = tmp_path / "pytorch_model.bin"
    if legacy:
        path.write_bytes(
            b"".join(
                pickle.dumps(part, 2)
                for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
            )
            + pickled
        )
    else:
        archive(path, pickled)
    with pytest.raises(InputError, match=rf"pytorch_model\.bin names .*{name}"):
        open_checkpoint(tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"\x80\x02}",
        b"cos\nsystem\n.",
        b"(S'touch x'\nios\nsystem\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x00.",
        b"\x80\x02Nb.",
        b"\x80\x02u.",
        b"\x80\x02}}K\x01s.",
        b"\x80\x02NQ.",
        b"\x80\x02X\x01\0\0\0aR.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02h\x05.",
        b"\x80\x02)q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0K\x01s.",  # a key whose hash never ends
    ],
    ids=range(16),
)
def test_broken_pickles_are_refused(tmp_path, pickled):
    archive(tmp_path / "pytorch_model.bin", pickled)
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        open_checkpoint(tmp_path)


def test_a_giant_memo_number_allocates_nothing(tmp_path):
    archive(tmp_path / "pytorch_model.bin", b"\x80\x02}r\xff\xff\xff\x7f.")
    assert open_checkpoint(tmp_path).names == ()


def tensor_pickle(offset, shape, strides, key="0"):
    """The pickle of one tensor whose place we choose, written with torch's own names."""
    storage = object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return ("storage", torch.FloatStorage, key, "cpu", 4) if thing is storage else None

    stream = io.BytesIO()
    call = torch._utils._rebuild_tensor_v2
    Pickler(stream, 2).dump({"a": Hostile(call, storage, offset, shape, strides, False, None)})
    return stream.getvalue()


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    members = [("archive/data/0", np.arange(4, dtype=np.float32).tobytes())]
    archive(path, tensor_pickle(1, (3,), (1,)), members)
    np.testing.assert_array_equal(open_checkpoint(tmp_path).read("a"), [1, 2, 3])
    for place in [
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (10**12,), (0,)),
        (2**64, (1,), (1,)),
        (5, (0,), (1,)),
        (0, (1,) * 70, (1,) * 70),
        (0, (2,), ()),
        ("0", (2,), (1,)),
        (0, [2], (1,)),
    ]:
        archive(path, tensor_pickle(*place), members)
        with pytest.raises(InputError, match=r"pytorch_model\.bin"):
            open_checkpoint(tmp_path)
    archive(path, tensor_pickle(0, (1,), (1,), key="7"), members)
    with pytest.raises(InputError, match="missing"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "member", ["../evil", "/evil", "archive/../../evil", "C:/evil", "archive\\..\\evil"]
)
def test_archive_members_cannot_lead_out(tmp_path, member):
    archive(tmp_path / "pytorch_model.bin", pickle.dumps({}, 2), [(member, b"x")])
    with pytest.raises(InputError, match="leads out"):
        open_checkpoint(tmp_path)


def test_archive_members_cannot_be_links(tmp_path):
    link = zipfile.ZipInfo("archive/data/0")
    link.external_attr = 0o120777 << 16
    archive(tmp_path / "pytorch_model.bin", pickle.dumps({}, 2), [(link, b"/etc/hostname")])
    with pytest.raises(InputError, match="leads out"):
        open_checkpoint(tmp_path)


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    for thing in ([torch.zeros(1)], {"a": 1}, {1: torch.zeros(1)}, {"a": {"b": torch.zeros(1)}}):
        torch.save(thing, path)
        with pytest.raises(InputError, match=r"pytorch_model\.bin"):
            open_checkpoint(tmp_path)
    np.savez(path.open("wb"), a=np.zeros(1))
    with pytest.raises(InputError, match=r"data\.pkl is missing"):
        open_checkpoint(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(InputError, match="compressed"):
        open_checkpoint(tmp_path)


def test_a_flipped_byte_in_a_torch_file_is_found(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    at = content.index(np.float32(500).tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"pytorch_model\.bin is damaged: the bytes of 'a'"):
        open_checkpoint(tmp_path).read("a")


def test_a_folder_without_weights(tmp_path):
    np.savez(tmp_path / "model.npz", a=np.zeros(1))
    with pytest.raises(InputError, match="holds no weights"):
        open_checkpoint(tmp_path)


def test_torch_is_not_imported(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    program = (
        "import sys; from xlingjax.models.weights import open_checkpoint; "
        f"open_checkpoint({str(tmp_path)!r}).read('a'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_names_of_every_system():
    assert is_inside("folder/model-1.safetensors")
    assert not any(map(is_inside, ["a//b", "a/", "/a", "~\\a", "a:b", "a/../b", "."]))
