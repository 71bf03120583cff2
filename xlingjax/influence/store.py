"""Training gradients on disk: the components that vary most, from which scores and neighbours are looked up.

In the eigenbases of EK-FAC the inverse is diagonal, so with r(z) = (P^T dW R) / sqrt(Lambda + lambda)

    I(q, z) = sum over components of r(q) r(z)

and the expected square of r is Lambda / (Lambda + lambda): the components with the largest Lambda carry most of it. A
new query then costs one product with what is stored and no pass over the corpus.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from xlingjax.corpora.batching import Batch
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.files import claim
from xlingjax.influence.factors import Factors
from xlingjax.influence.kept import kept
from xlingjax.influence.losses import Scored, batches_of, layer_zeros, measure, over_layers
from xlingjax.influence.scoring import grouped
from xlingjax.kernels.kronecker import inverse_weight
from xlingjax.models import Model
from xlingjax.progress import progress
from xlingjax.responses.jobs import tokens_fingerprint


@dataclasses.dataclass(frozen=True)
class GradientStore:
    """What `store_gradients` made.

    Attributes:
        folder: blocks of float32[rows, W], W = matrices x layers x components, if all have as many. count: n, sequences
        in all. places: by name of a matrix int[L, m], flat places in [J, O]. scale: their 1 / sqrt(Lambda + lambda).
        captured: share of the expected influence of a sequence on itself that the components carry.
    """

    folder: Path
    count: int
    blocks: int
    factors: Factors
    places: Mapping[str, Int[np.ndarray, "L m"]]
    scale: Mapping[str, Float[np.ndarray, "L m"]]
    captured: float

    def project(self, gradients: Mapping[str, Float[np.ndarray, "Q L J O"]]) -> Float[np.ndarray, "Q W"]:
        """Plain gradients (`sequence_gradients`) as the store holds them."""
        parts = []
        for name, places in self.places.items():
            turned = np.swapaxes(self.factors.left[name], -1, -2) @ gradients[name] @ self.factors.right[name]
            flat = turned.reshape(*turned.shape[:2], -1)
            found = np.take_along_axis(flat, places[None], -1) * self.scale[name]
            parts.append(found.reshape(len(found), -1))
        return np.concatenate(parts, 1)

    def scores(self, queries: Mapping[str, Float[np.ndarray, "Q L J O"]]) -> Float[np.ndarray, "Q n"]:
        """I of every stored sequence, by the stored components."""
        asked = self.project(queries)
        out = np.empty((len(asked), self.count))
        for number in range(self.blocks):
            held = kept(self.folder / f"{number:05d}.npz", dict)
            out[:, held["rows"]] = asked @ held["components"].T
        return out

    def nearest(
        self, queries: Mapping[str, Float[np.ndarray, "Q L J O"]], count: int,
    ) -> tuple[Int[np.ndarray, "Q count"], Float[np.ndarray, "Q count"]]:
        """The sequences with the highest scores, best first, and these."""
        found = self.scores(queries)
        order = np.argsort(-found, axis=1, kind="stable")[:, :count]
        return order, np.take_along_axis(found, order, axis=1)


def store_gradients(
    model: Model, factors: Factors, tokens: Tokens, folder: str | Path, scored: Scored | None = None, *,
    components: int = 256, block: int = 4096, batch_tokens: int = 4096,
) -> GradientStore:
    """Computes and keeps the gradient of every sequence by its `components` largest variances in each matrix.

    Killed and called again, it goes on with the block it was at.

    Raises:
        InputError: the factors are of another model, or the folder holds other gradients.
    """
    factors.require(model)
    if components < 1:
        raise InputError(f"components is {components}; keep at least 1 of each matrix")
    places, scale, carried, whole = {}, {}, 0.0, 0.0
    for name, variance in factors.squares.items():
        flat, weight = (of.reshape(len(variance), -1) for of in (variance, inverse_weight(variance)))
        places[name] = np.argsort(-flat, axis=1, kind="stable")[:, :min(components, flat.shape[1])]
        scale[name] = np.sqrt(np.take_along_axis(weight, places[name], 1))
        carried += float(np.take_along_axis(flat * weight, places[name], 1).sum())
        whole += float((flat * weight).sum())
    identity = {"factors": dict(factors.described), "model": factors.model, "corpus": tokens_fingerprint(tokens),
                "components": components, "block": block, "scored": scored is not None}
    with claim(Path(folder), identity, "gradients") as home:
        groups = grouped(batches_of(model, tokens, scored, batch_tokens), block)
        store = GradientStore(
            home, len(tokens), len(groups), factors, places, scale, carried / whole if whole else 1.0)
        with progress(total=len(tokens), label="gradients", unit="sequences") as bar:
            for number, group in enumerate(groups):
                made = kept(home / f"{number:05d}.npz", functools.partial(_components, model, store, group))
                bar.update(len(made["rows"]))
    return store


def _components(model: Model, store: GradientStore, batches: Sequence[Batch]) -> dict[str, np.ndarray]:
    """`rows` of the sequences, and their `components` [rows, W]."""
    factors = store.factors
    held = {}
    for name, places in store.places.items():
        row, column = np.divmod(places, factors.squares[name].shape[2])
        held[name] = over_layers(model, {
            "left": factors.left[name], "right": factors.right[name], "row": row, "column": column})
    rows, found = [], []
    for batch in batches:
        made = measure(model, tuple((m, "components") for m in factors.matrices), "true", {
            name: one | {"components": layer_zeros(model, len(batch.rows), store.places[name].shape[1])}
            for name, one in held.items()}, batch)
        scaled = [np.moveaxis(made[name]["components"], 1, 0) * store.scale[name] for name in held]
        real = batch.rows >= 0
        rows.append(batch.rows[real])
        found.append(np.concatenate([one[real].reshape(real.sum(), -1) for one in scaled], 1))
    return {"rows": np.concatenate(rows), "components": np.concatenate(found).astype(np.float32)}
