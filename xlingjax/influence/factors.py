"""EK-FAC factors of a model's training loss: the eigenbases of inputs and gradients, and variances in them.

    A = E[a a^T], S = E[g g^T] over scored tokens     = P diag(alpha) P^T, R diag(sigma) R^T
    Lambda = E[(P^T dW R)^2] over sequences           (George et al. 2018; Grosse et al. 2023, section 2.2.3)
    G^-1 V ~ P [(P^T V R) / (Lambda + lambda)] R^T,   lambda = 0.1 mean(Lambda) of the matrix

dW is the gradient of the summed loss of a whole sequence, with labels drawn from the model.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from xlingjax import hosts
from xlingjax.corpora.batching import Batch
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError, require_least
from xlingjax.files import claim
from xlingjax.influence.kept import kept
from xlingjax.influence.losses import LABELS, Scored, batches_of, measured, over_layers
from xlingjax.influence.matrices import Matrix, matrices
from xlingjax.kernels.kronecker import eigenbases, inverse_product, inverse_weight
from xlingjax.models import Model
from xlingjax.progress import progress
from xlingjax.responses.jobs import params_fingerprint, tokens_fingerprint

METHODS = ("ekfac", "kfac", "diagonal", "dot")


@dataclasses.dataclass(frozen=True)
class FactorSettings:
    """Everything that decides factors beside model and corpus.

    Attributes:
        groups: of `matrices`.
        labels: "sampled" from the model, or "true" next tokens (then it is the empirical Fisher).
        blocks: diagonal blocks that covariances are cut into; several make eigenbases of wide matrices affordable.
        diagonal: whether variances of single weights are held too, for the method "diagonal".
        batch_tokens: of a batch. parts: of the corpus, after each of which the sums are kept.
        seed: of labels.
    """

    groups: tuple[str, ...] = ("mlp",)
    labels: str = "sampled"
    blocks: int = 1
    diagonal: bool = False
    batch_tokens: int = 4096
    parts: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.labels not in LABELS:
            raise InputError(f"labels are {self.labels!r}; choose among {', '.join(LABELS)}")
        require_least(self, {"blocks": 1, "batch_tokens": 1, "parts": 1, "seed": 0})


@dataclasses.dataclass(frozen=True)
class Factors:
    """What `fit_factors` makes; arrays by name of a matrix, each leading with the layers.

    Attributes:
        left, right: eigenbases P [L, J, J] and R [L, O, O], columns in rising order.
        alpha, sigma: their eigenvalues [L, J] and [L, O].
        squares: Lambda [L, J, O]. diagonal: E[dW^2] [L, J, O], or empty.
        tokens, sequences: that they are means over.
        model: fingerprint of the weights. described: settings and corpus.
    """

    matrices: tuple[Matrix, ...]
    left: Mapping[str, np.ndarray]
    right: Mapping[str, np.ndarray]
    alpha: Mapping[str, np.ndarray]
    sigma: Mapping[str, np.ndarray]
    squares: Mapping[str, np.ndarray]
    diagonal: Mapping[str, np.ndarray]
    tokens: int
    sequences: int
    model: str
    described: Mapping[str, Any]

    def require(self, model: Model) -> None:
        """`InputError` where the factors are of another model."""
        own = model.fingerprint or params_fingerprint(model.params)
        if own != self.model:
            raise InputError(f"these factors are of the model {self.model[:12]}, and {model.name or 'this one'} is "
                             f"{own[:12]}; fit factors for it")

    def variances(self, method: str) -> dict[str, Float[np.ndarray, "L J O"]]:
        """Variances of a sequence's gradient, in the basis of the method; "dot" has none."""
        if method == "ekfac":
            return dict(self.squares)
        if method == "kfac":  # tokens as independent: a sequence sums tokens / sequences of them
            each = self.tokens / max(self.sequences, 1)
            return {name: each * alpha[:, :, None] * self.sigma[name][:, None] for name, alpha in self.alpha.items()}
        if method == "diagonal":
            if not self.diagonal:
                raise InputError("these factors hold no diagonal; fit them with diagonal=True")
            return dict(self.diagonal)
        raise InputError(f"method {method!r} has no variances; choose among {', '.join(METHODS[:-1])}")

    def precondition(
        self, gradients: Mapping[str, Float[np.ndarray, "*q L J O"]], method: str = "ekfac",
        damping: float | None = None,
    ) -> dict[str, Float[np.ndarray, "*q L J O"]]:
        """G^-1 times gradients, by one of `METHODS`.

        Args:
            damping: lambda, the same for all matrices; by default `DAMPING` times the mean variance of each.
        """
        if method == "dot":
            return {name: np.asarray(one) for name, one in gradients.items()}
        made = {}
        for name, variance in self.variances(method).items():
            bases = () if method == "diagonal" else (self.left[name], self.right[name])
            made[name] = inverse_product(np.asarray(gradients[name]), inverse_weight(variance, damping), *bases)
        return made


def fit_factors(
    model: Model, tokens: Tokens, settings: FactorSettings | None = None, workdir: str | Path | None = None, *,
    scored: Scored | None = None, show: bool | None = None,
) -> Factors:
    """Factors of a decoder's loss on a corpus; with a workdir, killed and called again, it goes on where it was.

    Args:
        tokens: the corpus, each sentence a training sequence.
        scored: S x bool[t], tokens whose prediction is part of the loss; all by default.

    Raises:
        InputError: the model is no decoder, the corpus scores nothing, a covariance is not finite, or the workdir holds
            other factors.
    """
    settings = settings or FactorSettings()
    if not model.config.causal or not model.config.head:
        raise InputError(f"model {model.name!r} is no decoder with a head, so it has no loss on text")
    batches = batches_of(model, tokens, scored, settings.batch_tokens)
    counted = sum(int(batch.where[:, 1:].sum()) for batch in batches)
    if not counted:
        raise InputError("the corpus has no token that is predicted; give sequences of two tokens or more")
    identity = {"settings": dataclasses.asdict(settings) | {"groups": list(settings.groups)},
                "model": model.fingerprint or params_fingerprint(model.params), "corpus": tokens_fingerprint(tokens),
                "scored": "all" if scored is None else hashlib.sha256(np.concatenate(scored).tobytes()).hexdigest()}
    if workdir is None:
        return _fit(model, batches, len(tokens), counted, settings, identity, None, show)
    with claim(Path(workdir), identity, "factors") as folder:
        return _fit(model, batches, len(tokens), counted, settings, identity, folder, show)


def _fit(
    model: Model, batches: list[Batch], sequences: int, counted: int, settings: FactorSettings,
    identity: dict[str, Any], folder: Path | None, show: bool | None,
) -> Factors:
    own = matrices(model.config, settings.groups)
    parts = [part for part in np.array_split(np.arange(len(batches)), settings.parts) if len(part)]
    layers = model.config.layers

    def summed(label: str, watched: Callable[[], Mapping[Matrix, tuple[str, Any]]]) -> dict[str, np.ndarray]:
        total: dict[str, np.ndarray] = {}
        with progress(total=len(batches), label=label, unit="batches", show=show) as bar:
            for number, part in enumerate(parts):
                path = None if folder is None else folder / label / f"{number:04d}.npz"
                found = kept(path, functools.partial(
                    _sums, model, watched(), [batches[i] for i in part], part, settings))
                total = {name: total.get(name, 0) + value for name, value in found.items()}
                bar.update(len(part))
        return total

    zeros = lambda *shape: np.zeros((layers, *shape), np.float32)
    sums = summed("covariances", lambda: {
        m: ("covariances", {"inputs": zeros(m.rows, m.rows), "outputs": zeros(m.outputs, m.outputs)}) for m in own})
    bases = kept(None if folder is None else folder / "bases.npz", lambda: {
        f"{m.name} {side} {what}": value for m in own
        for side, key in (("left", "inputs"), ("right", "outputs"))
        for what, value in zip(("values", "vectors"), eigenbases(sums[f"{m.name} {key}"] / counted, settings.blocks,
                                                                 f"{key} of {m.name}"))})
    held = lambda side, what: {m.name: bases[f"{m.name} {side} {what}"] for m in own}
    left, right = held("left", "vectors"), held("right", "vectors")
    squares = summed("variances", lambda: {
        m: ("squares", {"squares": zeros(m.rows, m.outputs), "left": left[m.name], "right": right[m.name]})
        for m in own})
    diagonal = {} if not settings.diagonal else summed("diagonal", lambda: {
        m: ("squares", {"squares": zeros(m.rows, m.outputs), "left": np.tile(np.eye(m.rows), (layers, 1, 1)),
                        "right": np.tile(np.eye(m.outputs), (layers, 1, 1))}) for m in own})
    mean = lambda found: {m.name: found[f"{m.name} squares"] / sequences for m in own} if found else {}
    return Factors(own, left, right, held("left", "values"), held("right", "values"), mean(squares), mean(diagonal),
                   counted, sequences, identity["model"], identity)


def _sums(
    model: Model, watched: Mapping[Matrix, tuple[str, Any]], batches: list[Batch], numbers: np.ndarray,
    settings: FactorSettings,
) -> dict[str, np.ndarray]:
    """Statistics of some batches, summed in float32 where they are made; "name statistic" -> array in float64."""
    kinds = tuple((matrix, kind) for matrix, (kind, _) in watched.items())
    sums = over_layers(model, {matrix.name: given for matrix, (_, given) in watched.items()})
    wanted = {"covariances": ("inputs", "outputs"), "squares": ("squares",)}
    total: dict[str, Any] = {}
    for number, batch in zip(numbers.tolist(), batches):
        found = measured(model, kinds, settings.labels, sums, batch, number, settings.seed)
        chosen = {f"{matrix.name} {key}": found[matrix.name][key] for matrix, kind in kinds for key in wanted[kind]}
        total = _added(total, chosen) if total else chosen
    return {name: one.astype(np.float64) for name, one in hosts.to_host(total).items()}


@functools.partial(jax.jit, donate_argnums=0)
def _added(total: dict[str, jax.Array], found: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(jnp.add, total, found)
