"""What factors and scores will need, said before they start: bytes of each step, disk, and time of eigenbases."""

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from xlingjax.corpora.batching import plan_batches
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.influence.factors import FactorSettings
from xlingjax.influence.matrices import Matrix, matrices
from xlingjax.kernels.kronecker import GRADIENTS_AT_ONCE, QUERIES_AT_ONCE, eigenbases
from xlingjax.models.config import TransformerConfig
from xlingjax.sharding import device_memory
from xlingjax.training.objectives import LOGITS_AT_ONCE

WITHIN = 2.0  # bytes of a step lie within this factor of what the compiler says (tests)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `fit_factors` and `pairwise` will need; `str(plan)` is what the user reads.

    Attributes:
        parameter_bytes: of the model, on the device throughout.
        steps: step -> bytes on the device at its largest batch, parameters included, estimated within `WITHIN`.
        batch: sequences and tokens of the largest batch.
        disk_bytes: of a workdir's factors. host_bytes: of factors in memory.
        eigen_seconds: of all eigendecompositions on this machine.
        limit: bytes of the device, None where it does not say.
        remedies: what would make a step that does not fit smaller.
    """

    parameter_bytes: int
    steps: Mapping[str, int]
    batch: tuple[int, int]
    disk_bytes: int
    host_bytes: int
    eigen_seconds: float
    limit: int | None
    remedies: tuple[str, ...]

    @property
    def too_large(self) -> tuple[str, ...]:
        """Steps that need more than the device has."""
        return tuple(name for name, size in self.steps.items() if self.limit is not None and size > self.limit)

    def require(self) -> None:
        """`InputError` where a step does not fit, with what would."""
        if self.too_large:
            name = max(self.too_large, key=lambda step: self.steps[step])
            raise InputError(f"the {name} need about {_bytes(self.steps[name])} and the device has "
                             f"{_bytes(self.limit or 0)}; {', or '.join(self.remedies)}")

    def __str__(self) -> str:
        lines = [f"largest batch   {self.batch[0]:,} x {self.batch[1]:,} tokens",
                 f"parameters      {_bytes(self.parameter_bytes)}"]
        lines += [f"{name:<15} {_bytes(size)}{' (too large)' if name in self.too_large else ''}"
                  for name, size in self.steps.items()]
        lines += [f"device          {'unknown' if self.limit is None else _bytes(self.limit)}",
                  f"host            {_bytes(self.host_bytes)} of factors", f"disk            {_bytes(self.disk_bytes)}",
                  f"eigenbases      about {self.eigen_seconds:.2g} s"]
        if self.too_large:
            lines.append(f"would fit       {', or '.join(self.remedies)}")
        return "\n".join(lines)


def plan_influence(
    model: Any, tokens: Tokens, settings: FactorSettings | None = None, *, queries: int = 32, rank: int | None = None,
    device_limit: int | None = None, eigen_rate: float | None = None,
) -> Plan:
    """What factors of a corpus and scores of queries will need.

    Args:
        model: with parameters or their shapes. queries: at once. rank: of `low_rank`, None for whole gradients.
        device_limit: bytes; by default what the device here has.
        eigen_rate: seconds of one core for n = 1 of an eigendecomposition that takes n^3; measured here by default.
    """
    settings = settings or FactorSettings()
    config, chosen = model.config, matrices(model.config, settings.groups)
    rows, length = _largest(tokens, settings)
    limit = device_memory() if device_limit is None else device_limit
    resident = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(model.params))
    steps = {name: resident + size for name, size in _steps(config, chosen, rows, length, queries, rank).items()}
    squares, whole = (config.layers * sum(of(m) for m in chosen) for of in (
        lambda m: m.rows**2 + m.outputs**2, lambda m: m.rows * m.outputs))
    kinds = 1 + settings.diagonal
    rate = eigen_rate or measured_eigen_rate()
    plan = Plan(resident, steps, (rows, length), 8 * ((settings.parts + 1) * squares + settings.parts * kinds * whole),
                8 * (squares + kinds * whole), rate * _cubes(config, chosen, settings.blocks), limit, ())
    return dataclasses.replace(plan, remedies=_remedies(plan, model, tokens, settings, queries, rank))


def _largest(tokens: Tokens, settings: FactorSettings) -> tuple[int, int]:
    """Sequences and tokens of the largest batch."""
    shapes = [(len(one.rows), one.length) for one in plan_batches(tokens.lengths, settings.batch_tokens)]
    return max(shapes, key=lambda shape: (shape[0] * shape[1], shape))


def _steps(
    config: TransformerConfig, chosen: tuple[Matrix, ...], rows: int, length: int, queries: int, rank: int | None,
) -> dict[str, int]:
    """Bytes beside the parameters: what is given, what comes out, and what a backward pass keeps."""
    passing = _activations(config, rows, length)
    total = lambda of: 4 * config.layers * sum(of(m) for m in chosen)
    widest = max(m.rows + m.outputs for m in chosen)
    turned = 8 * rows * length * widest  # inputs and slopes of one matrix in other bases
    squares, whole = total(lambda m: m.rows**2 + m.outputs**2), total(lambda m: m.rows * m.outputs)
    held = queries * whole if rank is None else total(lambda m: queries * rank * (m.rows + m.outputs))
    largest = max(m.rows * m.outputs for m in chosen)
    placing = 4 * config.layers * queries * largest if rank is None else 0  # one matrix's, before they stand last
    together = 4 * min(rows * largest, max(largest, GRADIENTS_AT_ONCE))
    if rank is not None:  # whole queries are made of their parts where that is cheaper
        together += 4 * min(queries * largest, max(largest, QUERIES_AT_ONCE))
    return {"covariances": 2 * squares + turned + passing, "variances": squares + 2 * whole + turned + passing,
            "query gradients": 2 * queries * whole * min(rows, queries) // queries + passing,
            "scores": held + max(together + turned + passing, placing)}


def _activations(config: TransformerConfig, rows: int, length: int) -> int:
    """What the backward pass keeps of every layer, and the working memory of one layer and of the logits."""
    per_token = config.width * 4 + config.query_width * 2 + config.key_value_width * 2 + config.mlp_width * (
        1 + config.gated)
    layer = 3 * config.mlp_width + 8 * config.width + 3 * config.heads * length
    logits = 2 * min(rows * length * config.vocab_size, max(LOGITS_AT_ONCE, length * config.vocab_size))
    return 4 * (rows * length * (config.layers * per_token + layer) + logits)


def _cubes(config: TransformerConfig, chosen: tuple[Matrix, ...], blocks: int) -> float:
    """n^3 of all blocks, dealt out over the cores."""
    pieces = [(min(blocks, n), (n / min(blocks, n)) ** 3) for m in chosen for n in (m.rows, m.outputs)]
    total = config.layers * sum(count * cube for count, cube in pieces)
    return max(total / (os.cpu_count() or 1), max(cube for _, cube in pieces))


def measured_eigen_rate(n: int = 400) -> float:
    """Seconds of one core, over n^3, of an eigendecomposition of n x n."""
    x = np.random.default_rng(0).standard_normal((n, 2 * n))
    begin = time.perf_counter()
    eigenbases((x @ x.T)[None])
    return (time.perf_counter() - begin) / n**3


def _remedies(
    plan: Plan, model: Any, tokens: Tokens, settings: FactorSettings, queries: int, rank: int | None,
) -> tuple[str, ...]:
    """Single changes after which every step fits, else what makes the largest smaller."""
    if not plan.too_large:
        return ()
    longest = plan.batch[1]

    def fits(other: FactorSettings, asked: int, few: int | None) -> bool:
        sizes = _steps(model.config, matrices(model.config, other.groups), *_largest(tokens, other), asked, few)
        return plan.parameter_bytes + max(sizes.values()) <= (plan.limit or 0)

    found = []
    for few in (queries // 2, queries // 4, queries // 8, 1):
        if few and fits(settings, few, rank):
            found.append(f"{few} queries at once fit")
            break
    for share in (2, 4, 8, 16):
        few = max(longest, settings.batch_tokens // share)
        if fits(dataclasses.replace(settings, batch_tokens=few), queries, rank):
            found.append(f"batch_tokens={few} fits")
            break
    if rank is None and fits(settings, queries, 32):
        found.append("queries of rank 32 fit")
    if len(settings.groups) > 1 and fits(dataclasses.replace(settings, groups=("mlp",)), queries, rank):
        found.append("MLP matrices alone (groups=('mlp',)) fit")
    return tuple(found) or ("no single change fits; take fewer queries at once, a lower batch_tokens and a rank",)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
