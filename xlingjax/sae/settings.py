"""How dictionaries are trained: what all runs of one call share, and what is each run's own."""

import dataclasses
import math

from xlingjax.errors import InputError, require_least
from xlingjax.sae.config import K_KINDS, DictionaryConfig

STARTS = ("median", "mean", "zero")
NO_MOMENTUM = ("gated", "jumprelu")  # their papers train with beta_1 = 0


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Settings of one training, for all its dictionaries.

    Attributes:
        steps: updates in all; each reads one batch of the stream.
        warm_up: steps in which the learning rate rises from 0.
        decay: last steps, in which it falls to 0 in a line.
        sparsity_warm_up: steps in which the penalty of "relu", "gated" and "jumprelu" rises from 0.
        clip: highest norm of a run's gradient; 0 = not clipped. By default 1 for kinds with k and "jumprelu", 0 for
            the others.
        beta_1, beta_2: decays of Adam's moments; `beta_1` by default 0 for "gated" and "jumprelu", 0.9 for others.
        start: of the decoder's bias: "median" (geometric) of the first batch, "mean" of the first batches, "zero".
        scale_batches: first batches from which the mean squared norm of the activations is estimated; training
            sees it as D, the finished dictionary reads raw activations. 0 = activations are taken as they are.
        dead_after: tokens without being active after which a latent is dead.
        aux_weight: of the loss in which dead latents explain the residual, of kinds with k; 0 turns it off.
        aux_k: latents of a token in that loss; 0 = half the width that is written.
        resample_at: steps after which dead latents start anew from badly explained activations.
        threshold_decay: of the moving average of the smallest active value ("batch_topk", "matryoshka").
        threshold_from: step from which it is averaged; at most half of `steps`.
        bandwidth: of the kernel that stands for the derivative of a jump ("jumprelu").
        first_threshold: of every latent of "jumprelu".
        report_every: steps between two lines of metrics.
        save_every: steps between two saves of the training state.
    """

    steps: int = 10_000
    warm_up: int = 1000
    decay: int = 2000
    sparsity_warm_up: int = 2000
    clip: float | None = None
    beta_1: float | None = None
    beta_2: float = 0.999
    start: str = "median"
    scale_batches: int = 16
    dead_after: int = 10_000_000
    aux_weight: float = 1 / 32
    aux_k: int = 0
    resample_at: tuple[int, ...] = ()
    threshold_decay: float = 0.999
    threshold_from: int = 1000
    bandwidth: float = 0.05
    first_threshold: float = 0.01
    report_every: int = 100
    save_every: int = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "resample_at", tuple(self.resample_at))
        require_least(self, dict.fromkeys(("steps", "dead_after", "report_every", "save_every"), 1) | dict.fromkeys(
            ("warm_up", "decay", "sparsity_warm_up", "clip", "scale_batches", "aux_weight", "aux_k",
             "threshold_from", "first_threshold"), 0))
        if self.warm_up + self.decay > self.steps or self.sparsity_warm_up > self.steps:
            raise InputError(
                f"warm_up {self.warm_up}, decay {self.decay} and sparsity_warm_up {self.sparsity_warm_up} do not fit "
                f"into {self.steps} steps; shorten them or train longer")
        if self.start not in STARTS:
            raise InputError(f"start is {self.start!r}; choose among {', '.join(STARTS)}")
        for name in ("beta_1", "beta_2", "threshold_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{name} is {value}; it must be at least 0 and below 1")
        if not self.bandwidth > 0:
            raise InputError(f"bandwidth is {self.bandwidth}; it must be above 0")
        outside = [step for step in self.resample_at if not 1 <= step <= self.steps]
        if outside:
            raise InputError(f"resample_at names step {outside[0]}; the steps are 1 to {self.steps}")

    def rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied with at step 1, 2, ..., `steps`."""
        done = step - 1
        if done < self.warm_up:
            return done / self.warm_up
        return min(1.0, (self.steps - done) / self.decay) if self.decay else 1.0

    def penalty_factor(self, step: int) -> float:
        """What the penalty is multiplied with at a step."""
        return min(1.0, (step - 1) / self.sparsity_warm_up) if self.sparsity_warm_up else 1.0


@dataclasses.dataclass(frozen=True)
class DictionarySpec:
    """One dictionary to be trained.

    Args:
        config: its kind and sizes.
        activation: which of the stream's A activations it reads.
        seed: of its first parameters and of what is resampled.
        sparsity: weight of the penalty, on activations of mean squared norm D: of the L1 norm of the latents ("relu",
            "gated"), or of the number of active latents ("jumprelu").
        learning_rate: None = 2e-4 sqrt(2^14 / M) for kinds with k (Gao et al. 2024, figure 3), 3e-4 for the others.
        target_l0: of "jumprelu": the penalty becomes sparsity (L0 / target_l0 - 1)^2; 0 = sparsity L0.

    Raises:
        InputError: numbers that do not fit the kind.

    >>> DictionarySpec(DictionaryConfig("topk", 8, 2**12, k=4)).rate
    0.0004
    """

    config: DictionaryConfig
    activation: int = 0
    seed: int = 0
    sparsity: float = 0.0
    learning_rate: float | None = None
    target_l0: float = 0.0

    def __post_init__(self) -> None:
        kind = self.config.kind
        if (kind in K_KINDS) == (self.sparsity > 0) or self.sparsity < 0:
            raise InputError(f"sparsity of a {kind} dictionary is {self.sparsity}; " + (
                "leave it out, k makes it sparse" if kind in K_KINDS else "give the weight of its penalty, above 0"))
        if not self.rate > 0 or not math.isfinite(self.rate):
            raise InputError(f"learning rate {self.learning_rate} of a dictionary is not above 0")
        if self.target_l0 < 0 or (self.target_l0 and kind != "jumprelu"):
            raise InputError(f"target_l0 of a {kind} dictionary is {self.target_l0}; only jumprelu takes one, above 0")
        if self.activation < 0 or not 0 <= self.seed < 2**32:
            raise InputError(f"activation {self.activation} or seed {self.seed} of a dictionary is out of range; give "
                             "a place among the stream's activations and a seed from 0 to 2**32 - 1")

    @property
    def rate(self) -> float:
        """The learning rate after warm-up."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 * (2**14 / self.config.latents) ** 0.5 if self.config.kind in K_KINDS else 3e-4
