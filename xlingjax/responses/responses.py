"""Responses of named neurons to sentences, in memory or on disk, in the order of the corpus."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from xlingjax.errors import InputError
from xlingjax.neurons import NeuronIndex
from xlingjax.responses import store
from xlingjax.responses.ledger import file_fault, read_record

BLOCK_BYTES = 2**26  # of one block of `Responses.blocks`, unless a size is given

Read = Callable[[tuple[slice, slice, slice]], np.ndarray]  # a part of [L, S, F] in stored order


class SiteArray:
    """The responses of one site: looks like an array [L, S, F], reads what is asked for.

    Indices are outer: `array[0, [3, 1], 5:9]` takes sentences 3 and 1 of layer 0, units 5 to 8.
    `array[...]` and `np.asarray(array)` read everything.
    """

    def __init__(
        self, read: Read, shape: tuple[int, int, int], dtype: str, rows: np.ndarray
    ) -> None:
        self._read, self._rows = read, rows
        self.shape = (shape[0], len(rows), shape[2])
        self.dtype = np.dtype(dtype)
        self.ndim = 3

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("responses are read into a new array; copy=False cannot be honoured")
        return self[...].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        layers, sentences, units = (
            np.arange(size)[index] for index, size in zip(_expand(key, 3), self.shape)
        )
        layer_span, units_span = _span(layers), _span(units)
        part = self._read((layer_span, slice(None), units_span))
        part = np.take(part, self._rows[sentences], axis=1)
        # From the last axis to the first, so that an axis taken away by a number moves no other.
        part = np.take(part, units - units_span.start, axis=-1)
        return np.take(part, layers - layer_span.start, axis=0)


class Responses:
    """S sentences by N neurons: `responses["mlp.up"]` is array-like [L, S, F].

    Attributes:
        neurons: which neuron has which flat index (`NeuronIndex`), N in all.
        pieces: int32[S], the tokens of each sentence that were counted; 0 = its responses are NaN
            (-1 for "argmax").
        attrs: hashes of model, tokenizer and corpus, settings, versions, and what was noticed:
            `nonfinite` (site -> NaN and infinite responses by layer), `empty` (rows without a
            counted token), `truncated` (sentences cut to the model's context).
    """

    def __init__(
        self,
        reads: Mapping[str, Read],
        neurons: NeuronIndex,
        dtype: str,
        rows: np.ndarray,
        pieces: np.ndarray,
        attrs: Mapping[str, Any],
    ) -> None:
        self._reads, self._dtype, self._stored = dict(reads), dtype, np.asarray(rows)
        self.neurons, self.pieces, self.attrs = neurons, np.asarray(pieces), dict(attrs)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites, in flat order."""
        return tuple(self.neurons.shapes)

    @property
    def shape(self) -> tuple[int, int]:
        """(S, N)."""
        return len(self._stored), self.neurons.total

    def __getitem__(self, site: str) -> SiteArray:
        """The responses of one site, [L, S, F]; `InputError` where it was not collected."""
        if site not in self._reads:
            raise InputError(f"site {site!r} was not collected; there are {', '.join(self.sites)}")
        layers, units = self.neurons.shapes[site]
        return SiteArray(
            self._reads[site], (layers, len(self._stored), units), self._dtype, self._stored
        )

    def rows(self, index: np.ndarray) -> "Responses":
        """The sentences at an int or bool index, in that order; nothing is read."""
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return Responses(
            self._reads,
            self.neurons,
            self._dtype,
            self._stored[index],
            self.pieces[index],
            {**self.attrs, "empty": np.flatnonzero(self.pieces[index] == 0).tolist()},
        )

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """All neurons, a block at a time: (flat neurons, their responses [S, n]).

        Args:
            size: neurons a block; by default as many as make 64 MiB.

        >>> import numpy as np
        >>> responses = from_arrays({"mlp.up": np.zeros((2, 5, 3), np.float32)})
        >>> [(neurons.start, neurons.stop, part.shape) for neurons, part in responses.blocks(4)]
        [(0, 4, (5, 4)), (4, 6, (5, 2))]
        """
        sentences, total = self.shape
        size = size or max(1, BLOCK_BYTES // (4 * max(1, sentences)))
        for start in range(0, total, size):
            block = slice(start, min(start + size, total))
            yield block, self._flat(block)

    def matrix(self, neurons: np.ndarray | slice | None = None) -> np.ndarray:
        """[S, N] in memory: all neurons, or those at some flat indices, in that order."""
        if neurons is None:
            neurons = slice(None)
        if isinstance(neurons, slice):
            start, stop, step = neurons.indices(self.neurons.total)
            if step == 1:
                return self._flat(slice(start, max(start, stop)))
            neurons = np.arange(start, stop, step)
        chosen = np.asarray(neurons)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.neurons.total):
            raise InputError(
                f"flat neurons must lie in [0, {self.neurons.total}); "
                f"got {chosen.min()} to {chosen.max()}"
            )
        matrix = np.empty((len(self._stored), len(chosen)), self._dtype)
        for site, layer, first, units in self._runs():
            here = np.flatnonzero((chosen >= first) & (chosen < first + units))
            if len(here):
                matrix[:, here] = self[site][layer, :, chosen[here] - first]
        return matrix

    def dataset(self) -> xarray.Dataset:
        """`response` [sentence, neuron], read when asked for; hashes and settings as attributes.

        Coordinates: `site`, `layer` and `unit` of each neuron, `pieces` of each sentence.
        Attributes that are not numbers or strings are written as JSON, so that it can be saved.
        """
        lazy = indexing.LazilyIndexedArray(_LazyMatrix(self))
        plain = {
            name: value
            if isinstance(value, (str, int, float)) and not isinstance(value, bool)
            else json.dumps(value, sort_keys=True)
            for name, value in self.attrs.items()
        }
        return xarray.Dataset(
            {"response": (("sentence", "neuron"), lazy)},
            coords={
                "site": ("neuron", self.neurons.sites),
                "layer": ("neuron", self.neurons.layers),
                "unit": ("neuron", self.neurons.units),
                "pieces": ("sentence", self.pieces),
            },
            attrs=plain,
        )

    def _runs(self) -> Iterator[tuple[str, int, int, int]]:
        """(site, layer, flat index of its first unit, units) of each layer, in flat order."""
        for site, first in self.neurons.starts.items():
            layers, units = self.neurons.shapes[site]
            for layer in range(layers):
                yield site, layer, first + layer * units, units

    def _flat(self, block: slice) -> np.ndarray:
        matrix = np.empty((len(self._stored), block.stop - block.start), self._dtype)
        for site, layer, first, units in self._runs():
            start, stop = max(block.start, first), min(block.stop, first + units)
            if start < stop:
                matrix[:, start - block.start : stop - block.start] = self[site][
                    layer, :, start - first : stop - first
                ]
        return matrix


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    pieces: np.ndarray | None = None,
    attrs: Mapping[str, Any] | None = None,
    neurons: NeuronIndex | None = None,
    rows: np.ndarray | None = None,
) -> Responses:
    """Responses from arrays [L, S, F] in memory: other toolkits' captures, planted worlds.

    Args:
        arrays: site -> [L, S, F], all of one dtype and one S.
        pieces: int[S], counted tokens; 1 each where left out.
        attrs: what the result should say about its origin.
        neurons: their index, with module names; by default made from the shapes.
        rows: int[S'], the row of the arrays for each sentence; by default as they stand.
    """
    if not arrays:
        raise InputError("responses need at least one site; the mapping of arrays is empty")
    shapes = {site: np.shape(array) for site, array in arrays.items()}
    for site, shape in shapes.items():
        if len(shape) != 3 or shape[1] != next(iter(shapes.values()))[1]:
            raise InputError(
                f"responses of site {site!r} have shape {shape}; all sites need [L, S, F] "
                "with one S"
            )
    sentences = next(iter(shapes.values()))[1]
    rows = np.arange(sentences) if rows is None else np.asarray(rows)
    return Responses(
        {site: np.asarray(array).__getitem__ for site, array in arrays.items()},
        neurons or NeuronIndex({site: (shape[0], shape[2]) for site, shape in shapes.items()}),
        str(np.asarray(next(iter(arrays.values()))).dtype),
        rows,
        np.ones(len(rows), np.int32) if pieces is None else pieces,
        attrs or {},
    )


def open_responses(workdir: str | Path) -> Responses:
    """The finished responses of a workdir.

    Every file is checked for its size here, and every chunk against its CRC when it is read.

    Raises:
        InputError: the run has not finished, or a file is missing, cut short or altered; it is
            named.
    """
    workdir = Path(workdir)
    if not (workdir / store.MANIFEST).exists():
        raise InputError(
            f"{workdir / store.MANIFEST} does not exist: the run in this workdir has not finished; "
            "run collect with the same workdir and settings, it goes on where it stopped"
        )
    manifest = read_record(workdir / store.MANIFEST)
    files = manifest["files"]
    for name, (size, digest) in files.items():
        small = name.endswith("zarr.json")
        fault = file_fault(workdir / name, size, digest if small else None)
        if fault:
            raise store.damaged_file(workdir / name, fault)
    neurons = NeuronIndex(
        {site: (layers, units) for site, layers, units in manifest["sites"]}, manifest["modules"]
    )
    layout = store.Layout(
        neurons.shapes, manifest["sentences"], manifest["block_sentences"], manifest["dtype"]
    )
    arrays = store.open_arrays(workdir, layout)

    def reader(site: str) -> Read:
        mine = {
            name: entry
            for name, entry in files.items()
            if name.startswith(f"{store.ARRAYS}/{site}/")
        }
        return lambda index: store.read(arrays[site], index, workdir, mine)

    rows = np.empty(layout.sentences, np.int64)
    rows[np.asarray(manifest["order"], np.int64)] = np.arange(layout.sentences)
    return Responses(
        {site: reader(site) for site in neurons.shapes},
        neurons,
        layout.dtype,
        rows,
        np.asarray(manifest["pieces"], np.int32),
        manifest["attrs"],
    )


class _LazyMatrix(BackendArray):
    """[S, N] for xarray, read in parts."""

    def __init__(self, responses: Responses) -> None:
        self.responses = responses
        self.shape = responses.shape
        self.dtype = np.dtype(responses._dtype)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple) -> np.ndarray:
        sentences, neurons = (np.arange(size)[index] for index, size in zip(key, self.shape))
        part = self.responses.rows(np.atleast_1d(sentences)).matrix(np.atleast_1d(neurons))
        if np.ndim(neurons) == 0:
            part = part[:, 0]
        return part if np.ndim(sentences) else part[0]


def _expand(key: Any, ndim: int) -> Sequence[Any]:
    keys = key if isinstance(key, tuple) else (key,)
    if (
        sum(part is Ellipsis for part in keys) > 1
        or len(keys) - any(part is Ellipsis for part in keys) > ndim
    ):
        raise IndexError(f"too many indices for [L, S, F]: {key!r}")
    if not any(part is Ellipsis for part in keys):
        keys = (*keys, Ellipsis)
    place = next(i for i, part in enumerate(keys) if part is Ellipsis)
    return (*keys[:place], *[slice(None)] * (ndim - len(keys) + 1), *keys[place + 1 :])


def _span(chosen: np.ndarray) -> slice:
    """The smallest slice that holds all chosen indices."""
    if np.size(chosen) == 0:
        return slice(0, 0)
    return slice(int(np.min(chosen)), int(np.max(chosen)) + 1)
