"""One identity for a neuron everywhere: (site, layer, unit) <-> flat index.

Flat order is site by site in the order given, within a site layer by layer, within a layer unit by
unit, so that a site's `[L, S, F]` responses become its block of `[S, N]` by one transpose.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from xlingjax.errors import InputError


class Neuron(NamedTuple):
    """One output unit of one site in one layer."""

    site: str
    layer: int
    unit: int


@dataclasses.dataclass(frozen=True)
class NeuronIndex:
    """The neurons of a model at chosen sites.

    Args:
        shapes: site -> (layers, units per layer), in flat order.
        modules: site -> the family's own module name with `{layer}`, for example
            `"transformer.h.{layer}.mlp.dense_h_to_4h"`; sites left out are named by `site.layer`.

    >>> index = NeuronIndex({"mlp.up": (2, 4), "mlp.down": (2, 3)})
    >>> index.total
    14
    >>> index.neuron(9)
    Neuron(site='mlp.down', layer=0, unit=1)
    >>> index.flat(Neuron("mlp.down", 0, 1))
    9
    """

    shapes: Mapping[str, tuple[int, int]]
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """N, the number of neurons."""
        return sum(layers * units for layers, units in self.shapes.values())

    @property
    def starts(self) -> dict[str, int]:
        """Site -> flat index of its first neuron."""
        starts, start = {}, 0
        for site, (layers, units) in self.shapes.items():
            starts[site] = start
            start += layers * units
        return starts

    def flat(self, neuron: Neuron) -> int:
        """The flat index of a neuron; `InputError` where the model has no such neuron."""
        if neuron.site not in self.shapes:
            raise InputError(
                f"site {neuron.site!r} is not among {', '.join(self.shapes)}; choose one of these")
        layers, units = self.shapes[neuron.site]
        if not (0 <= neuron.layer < layers and 0 <= neuron.unit < units):
            raise InputError(
                f"{neuron} lies outside its site, which has {layers} layers of {units} units")
        return self.starts[neuron.site] + neuron.layer * units + neuron.unit

    def neuron(self, flat: int) -> Neuron:
        """The neuron at a flat index in [0, total)."""
        for site, start in self.starts.items():
            layers, units = self.shapes[site]
            if start <= flat < start + layers * units:
                layer, unit = divmod(int(flat) - start, units)
                return Neuron(site, layer, unit)
        raise InputError(f"neuron {flat} lies outside [0, {self.total})")

    @property
    def sites(self) -> np.ndarray:
        """str[N], the site of every neuron."""
        return np.concatenate([np.full(n * f, site) for site, (n, f) in self.shapes.items()])

    @property
    def layers(self) -> np.ndarray:
        """int[N], the layer of every neuron, from 0."""
        return np.concatenate([np.repeat(np.arange(n), f) for n, f in self.shapes.values()])

    @property
    def units(self) -> np.ndarray:
        """int[N], the unit of every neuron within its layer, from 0."""
        return np.concatenate([np.tile(np.arange(f), n) for n, f in self.shapes.values()])

    @property
    def strata(self) -> np.ndarray:
        """int[N], one number for each (site, layer): the strata of chance overlap."""
        strata, start = [], 0
        for layers, units in self.shapes.values():
            strata.append(start + np.repeat(np.arange(layers), units))
            start += layers
        return np.concatenate(strata)

    def module(self, site: str, layer: int) -> str:
        """The module's name as ml-selfcond writes it in its tables."""
        if site in self.modules:
            return self.modules[site].format(layer=layer)
        return f"{site}.{layer}"
