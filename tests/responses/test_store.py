"""Files have the size that was announced; whatever is done to them is noticed and named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from xlingjax.errors import InputError
from xlingjax.responses import collect, ledger, open_responses, store

SHAPES = {"mlp.up": (3, 7), "embed": (1, 4)}


def values(layout, block, seed=0):
    rows = layout.rows(block)
    draw = np.random.default_rng(seed)
    return {
        site: draw.normal(size=(layers, rows.stop - rows.start, units)).astype(np.float32)
        for site, (layers, units) in layout.shapes.items()
    }


@pytest.mark.parametrize(
    "sentences, block_sentences, chunk_bytes", [(10, 4, 2**20), (10, 4, 40), (1, 1, 16), (9, 3, 50)]
)
def test_sizes_are_exact_and_values_come_back(
    tmp_path, monkeypatch, sentences, block_sentences, chunk_bytes
):
    monkeypatch.setattr(store, "CHUNK_BYTES", chunk_bytes)
    layout = store.layout(SHAPES, sentences, block_sentences=block_sentences)
    arrays = store.open_arrays(tmp_path, layout, create=True)
    written = {}
    for block in range(layout.blocks):
        given = values(layout, block, block)
        given["mlp.up"][1] = np.nan  # a block of fill values is stored like any other
        files = store.write_block(arrays, tmp_path, layout, block, given)
        assert {name: size for name, (size, _) in files.items()} == {
            store.shard_name(site, block): layout.shard_bytes(site) for site in SHAPES
        }
        written[block] = given
    assert layout.disk_bytes == sum(path.stat().st_size for path in tmp_path.rglob("c.*"))
    for site in SHAPES:
        expected = np.concatenate([written[block][site] for block in range(layout.blocks)], axis=1)
        np.testing.assert_array_equal(arrays[site][...].read().result(), expected)


def test_layout_bounds_blocks():
    big = store.layout({"mlp.up": (30, 4096)}, 100_000)
    assert big.block_sentences * 30 * 4096 * 4 <= store.BLOCK_BYTES
    assert store.layout({"mlp.up": (2, 8)}, 100_000).block_sentences <= store.BLOCK_SENTENCES
    assert store.layout({"mlp.up": (30, 400_000)}, 5).block_sentences == 2
    width, pieces = big.chunks("mlp.up")
    assert (
        width * big.block_sentences * 4 <= store.CHUNK_BYTES
        and (pieces - 1) * width < 4096 <= pieces * width
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished workdir of 4 blocks; copy it before damaging it."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    collect(tiny.model(), tiny.sentences(40), workdir=workdir, batch_tokens=128, block_sentences=10)
    return workdir


def flip(place):
    def damage(path):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2 if place is None else place] ^= 1
        path.write_bytes(raw)

    return damage


DAMAGES = {
    "flipped first byte": flip(0),
    "flipped middle byte": flip(None),
    "flipped index": flip(-30),
    "flipped end": flip(-1),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "missing": os.remove,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.promise
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["arrays/mlp.up/c.0.1.0", "arrays/mlp.up/c.0.3.0", "arrays/mlp.up/zarr.json"]
)
def test_damage_is_an_error_naming_the_file(finished, tmp_path, damage, name):
    shutil.copytree(finished, tmp_path / "run")
    place = tmp_path / "run" / name
    DAMAGES[damage](place)
    with pytest.raises(InputError, match=name):
        np.asarray(open_responses(tmp_path / "run")["mlp.up"])
    with pytest.raises(InputError, match=name):
        collect(
            tiny.model(),
            tiny.sentences(40),
            workdir=tmp_path / "run",
            batch_tokens=128,
            block_sentences=10,
        ).matrix()


@pytest.mark.promise
@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "empty"])
def test_wrong_sizes_are_noticed_before_anything_is_read(finished, tmp_path, damage):
    shutil.copytree(finished, tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "arrays/mlp.up/c.0.1.0")
    with pytest.raises(InputError, match="arrays/mlp.up/c.0.1.0"):
        open_responses(tmp_path / "run")


@pytest.mark.promise
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped middle byte"])
def test_damage_after_opening_is_noticed_too(finished, tmp_path, damage):
    shutil.copytree(finished, tmp_path / "run")
    responses = open_responses(tmp_path / "run")
    responses.matrix()
    DAMAGES[damage](tmp_path / "run" / "arrays/mlp.up/c.0.1.0")
    with pytest.raises(InputError, match="arrays/mlp.up/c.0.1.0"):
        responses.matrix()


@pytest.mark.promise
@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "longer"])
def test_a_damaged_manifest_is_an_error(finished, tmp_path, damage):
    shutil.copytree(finished, tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "manifest.json")
    with pytest.raises(InputError, match="manifest.json"):
        open_responses(tmp_path / "run")


@pytest.mark.promise
def test_a_damaged_block_is_redone_when_asked(finished, tmp_path):
    """The remedy that the error names: delete the manifest, collect again."""
    shutil.copytree(finished, tmp_path / "run")
    flip(None)(tmp_path / "run" / "arrays/mlp.up/c.0.1.0")
    os.remove(tmp_path / "run" / "manifest.json")
    with pytest.warns(UserWarning, match=r"c.0.1.0 was altered.*; its block is collected again"):
        collect(
            tiny.model(),
            tiny.sentences(40),
            workdir=tmp_path / "run",
            batch_tokens=128,
            block_sentences=10,
        )
    assert tiny.tree(tmp_path / "run") == tiny.tree(finished)


@pytest.mark.promise
def test_an_unfinished_run_cannot_be_read(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    os.remove(tmp_path / "run" / "manifest.json")
    with pytest.raises(InputError, match="has not finished"):
        open_responses(tmp_path / "run")
    with pytest.raises(InputError, match="has not finished"):
        open_responses(tmp_path / "nowhere")


@pytest.mark.promise
def test_a_short_write_is_an_error(tmp_path, monkeypatch):
    layout = store.layout(SHAPES, 10, block_sentences=4)
    arrays = store.open_arrays(tmp_path, layout, create=True)
    real = ledger.sync_file

    def short(path, root):
        os.truncate(path, path.stat().st_size - 3)
        return real(path, root)

    monkeypatch.setattr(store, "sync_file", short)
    with pytest.raises(InputError, match=r"mlp.up/c.0.0.0 was written short"):
        store.write_block(arrays, tmp_path, layout, 0, values(layout, 0))


@pytest.mark.promise
def test_a_refusal_of_the_kernel_is_an_error(tmp_path):
    """A limit on file size, which fails writes as a full disk does, in a process of its own."""
    script = """
import resource, sys; sys.path.insert(0, sys.argv[1])
import tiny
from xlingjax.errors import InputError
from xlingjax.responses import collect, store
made = store.open_arrays
def limited(*args, **kw):
    arrays = made(*args, **kw)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    return arrays
store.open_arrays = limited
try:
    collect(tiny.model(), tiny.sentences(40), workdir=sys.argv[2], batch_tokens=128,
    block_sentences=10)
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(tiny.__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert (
        "cannot write" in done.stdout
        and "c.0.0.0" in done.stdout
        and "free some space" in done.stdout
    )
    assert not (tmp_path / "manifest.json").exists() and not (tmp_path / "ledger").exists()
