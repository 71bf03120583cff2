"""AdamW, Adam or LAMB with a warm-up, gradient clipping, and no decay of biases and norms."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from xlingjax.errors import InputError

SCHEDULES = ("cosine", "linear", "constant")
KINDS = ("adamw", "adam", "lamb")


@dataclasses.dataclass(frozen=True)
class OptimiserSettings:
    """What the optimiser does.

    Attributes:
        learning_rate: the highest, after warm-up.
        warm_up: steps of linear rise from 0.
        schedule: "cosine" falls to a tenth of `learning_rate` at the last step, "linear" to 0 after it,
            "constant" stays.
        weight_decay: of AdamW and LAMB, on weight matrices and embeddings only; Adam has none.
        clip: highest global norm of the gradient.
        beta_2: decay of the second moment.
        kind: "adamw" (Loshchilov & Hutter 2019), "adam" (Kingma & Ba 2015) or "lamb" (You et al. 2020).
    """

    learning_rate: float = 3e-3
    warm_up: int = 50
    schedule: str = "cosine"
    weight_decay: float = 0.1
    clip: float = 1.0
    beta_2: float = 0.98
    kind: str = "adamw"

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise InputError(f"learning rate {self.learning_rate} is not above 0")
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"unknown schedule {self.schedule!r}; it is one of {', '.join(SCHEDULES)}"
            )
        if self.kind not in KINDS:
            raise InputError(f"unknown optimiser {self.kind!r}; it is one of {', '.join(KINDS)}")
        for name in ("warm_up", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)} is below 0")
        if not self.clip > 0 or not 0 < self.beta_2 < 1:
            raise InputError(
                f"clip {self.clip} must be above 0 and beta_2 {self.beta_2} between 0 and 1"
            )


def schedule(settings: OptimiserSettings, steps: int) -> Callable:
    """Learning rate at each step 0, 1, ..., steps - 1."""
    rise = min(settings.warm_up, steps)
    warm = optax.linear_schedule(settings.learning_rate / (rise + 1), settings.learning_rate, rise)
    if settings.schedule == "constant":
        rest = optax.constant_schedule(settings.learning_rate)
    elif settings.schedule == "linear":
        rest = optax.linear_schedule(settings.learning_rate, 0.0, max(steps - rise, 1))
    else:
        rest = optax.cosine_decay_schedule(settings.learning_rate, max(steps - rise, 1), alpha=0.1)
    return optax.join_schedules([warm, rest], [rise])


def decayed(params: dict) -> dict:
    """True for the leaves that decay: every weight matrix and embedding, no bias, no norm."""

    def is_weight(path: tuple, leaf: jax.Array) -> bool:
        name = str(getattr(path[-1], "key", path[-1]))
        return name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_weight, params)


def make_optimiser(settings: OptimiserSettings, steps: int) -> optax.GradientTransformation:
    """The optax transformation for a run of `steps` steps."""
    rate = schedule(settings, steps)
    options: dict[str, Any] = {"b2": settings.beta_2}
    if settings.kind != "adam":
        options |= {"weight_decay": settings.weight_decay, "mask": decayed}
    kind = {"adamw": optax.adamw, "adam": optax.adam, "lamb": optax.lamb}[settings.kind]
    return optax.chain(optax.clip_by_global_norm(settings.clip), kind(rate, **options))
