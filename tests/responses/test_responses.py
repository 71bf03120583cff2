"""Responses in memory and on disk look like one and the same array."""

import numpy as np
import pytest
import tiny
import xarray

from xlingjax.errors import InputError
from xlingjax.neurons import Neuron
from xlingjax.responses import collect, from_arrays, open_responses

SITES = ("embed", "mlp.up", "attn.out")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(in memory, on disk), of 30 sentences."""
    workdir, tokens = tmp_path_factory.mktemp("responses"), tiny.sentences(30)
    collect(tiny.model(), tokens, SITES, workdir=workdir, batch_tokens=128, block_sentences=7)
    return collect(tiny.model(), tokens, SITES, batch_tokens=128), open_responses(workdir)


def test_memory_and_disk_are_equal(pair):
    memory, disk = pair
    assert memory.shape == disk.shape == (30, 16 + 3 * 40 + 3 * 16)
    assert memory.sites == disk.sites == SITES
    for site in SITES:
        assert memory[site].shape == disk[site].shape and disk[site].dtype == np.float32
        np.testing.assert_array_equal(memory[site][...], disk[site][...])
    assert (
        memory.pieces.tolist()
        == disk.pieces.tolist()
        == [len(ids) - 1 for ids in tiny.sentences(30).ids]
    )
    assert {**memory.attrs, "block_sentences": 6} == disk.attrs


KEYS = [
    ...,
    1,
    -1,
    slice(1, None),
    (0, 3),
    (slice(None), slice(4, 20, 3)),
    (..., 5),
    (slice(None, None, -1), ..., slice(30, 10, -7)),
    (1, [4, 2, 2]),
    (slice(0, 2), np.arange(30) % 3 == 0),
    (0, slice(None), [7, 3]),
    (2, 29, 39),
    ([2, 0],),
    (slice(0, 0),),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_outer_indexing(pair, key):
    for responses in pair:
        whole = responses["mlp.up"][...]
        expected = xarray.DataArray(whole, dims=("layer", "sentence", "unit"))[key]
        found = responses["mlp.up"][key]
        np.testing.assert_array_equal(found, expected.values)
        assert found.shape == expected.shape


def test_bad_indices_are_errors(pair):
    for responses in pair:
        for key in [3, (0, 30), (0, 0, 40), (0, 0, 0, 0), (..., ...)]:
            with pytest.raises(IndexError):
                responses["mlp.up"][key]
        with pytest.raises(
            InputError, match="site 'mlp.down' was not collected; there are embed, mlp.up, attn.out"
        ):
            responses["mlp.down"]


def test_flat_order_is_that_of_the_neuron_index(pair):
    for responses in pair:
        matrix = responses.matrix()
        assert matrix.shape == responses.shape
        for flat in (0, 15, 16, 55, 56, 135, 136, 183):
            site, layer, unit = responses.neurons.neuron(flat)
            np.testing.assert_array_equal(matrix[:, flat], responses[site][layer, :, unit])
        assert responses.neurons.flat(Neuron("mlp.up", 1, 0)) == 56


@pytest.mark.parametrize("size", [1, 7, 40, 41, 184, 1000, None])
def test_blocks_cover_all_neurons_once(pair, size):
    for responses in pair:
        parts = list(responses.blocks(size))
        assert [block.start for block, _ in parts] == [0, *[block.stop for block, _ in parts[:-1]]]
        assert parts[-1][0].stop == 184
        np.testing.assert_array_equal(
            np.concatenate([part for _, part in parts], axis=1), responses.matrix()
        )


def test_chosen_neurons(pair):
    for responses in pair:
        matrix, chosen = responses.matrix(), np.array([183, 0, 20, 20, 136])
        np.testing.assert_array_equal(responses.matrix(chosen), matrix[:, chosen])
        np.testing.assert_array_equal(responses.matrix(slice(10, 180, 13)), matrix[:, 10:180:13])
        np.testing.assert_array_equal(responses.matrix(np.arange(184) % 5 == 0), matrix[:, ::5])
        assert responses.matrix(np.zeros(0, int)).shape == (30, 0)
        with pytest.raises(InputError, match=r"must lie in \[0, 184\)"):
            responses.matrix(np.array([184]))


def test_rows_of_rows(pair):
    chosen = np.array([7, 3, 3, 29])
    for responses in pair:
        part = responses.rows(chosen)
        np.testing.assert_array_equal(part.matrix(), responses.matrix()[chosen])
        np.testing.assert_array_equal(part["mlp.up"][1, 2:], responses["mlp.up"][1][chosen[2:]])
        assert part.pieces.tolist() == responses.pieces[chosen].tolist()
        np.testing.assert_array_equal(
            part.rows(np.array([False, True, False, True])).matrix(), responses.matrix()[[3, 29]]
        )


def test_dataset_is_lazy_labelled_and_can_be_saved(pair, tmp_path):
    for responses in pair:
        dataset = responses.dataset()
        assert dataset.response.dims == ("sentence", "neuron") and dataset.response.shape == (
            30,
            184,
        )
        assert (
            dataset.site.values[56] == "mlp.up"
            and dataset.layer.values[56] == 1
            and dataset.unit.values[56] == 0
        )
        for key in [(3, 5), (slice(2, 9), [5, 4]), (..., 7), ([1, 0], slice(20, 3, -4))]:
            np.testing.assert_array_equal(
                dataset.response[key].values,
                xarray.DataArray(responses.matrix(), dims=("s", "n"))[key].values,
            )
        dataset.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
        read = xarray.load_dataset(tmp_path / "result.nc", engine="h5netcdf")
        np.testing.assert_array_equal(read.response.values, responses.matrix())
        assert read.attrs["pool"] == "max" and '"fingerprint": "000' in read.attrs["model"]
        assert (
            read.attrs["tokens"] == responses.attrs["tokens"] and "jaxlib" in read.attrs["versions"]
        )


def test_arrays_of_others():
    arrays = {
        "mlp.up": np.arange(24, dtype=np.float32).reshape(2, 4, 3),
        "embed": np.ones((1, 4, 2), np.float32),
    }
    responses = from_arrays(arrays, attrs={"pool": "planted"})
    assert responses.shape == (4, 8) and responses.attrs["pool"] == "planted"
    np.testing.assert_array_equal(responses.matrix()[1], [3, 4, 5, 15, 16, 17, 1, 1])
    with pytest.raises(InputError, match=r"site 'b' have shape \(1, 5, 2\)"):
        from_arrays({"a": np.ones((1, 4, 2)), "b": np.ones((1, 5, 2))})
    with pytest.raises(InputError, match="at least one site"):
        from_arrays({})
