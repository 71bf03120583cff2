"""Everything that decides the bytes of a training run, beside the text and the model's shape."""

import dataclasses

from xlingjax.errors import InputError, require_least
from xlingjax.training.objectives import OBJECTIVES
from xlingjax.training.optimiser import OptimiserSettings


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a pre-training run.

    Attributes:
        steps: updates in all.
        rows, length: B and T of a batch; rows * length tokens a step.
        objective: "causal" or "masked".
        vocabulary: pieces of the tokenizer, V.
        temperature: languages are sampled with p ~ tokens ** temperature.
        leave_out: languages that training never sees, evaluated all the same.
        held_out: share of every language's text held out by documents, where no validation text is
        given.
        evaluated: most held-out tokens per language in each evaluation.
        checkpoint_every: a model checkpoint every so many steps, beside 0, the powers of two and
        the last.
        save_every: the training state is saved, and a line of metrics written, every so many steps.
        seed: of parameters, batches, hidden tokens and held-out documents.
        optimiser: AdamW and its schedule.
    """

    steps: int = 1024
    rows: int = 32
    length: int = 64
    objective: str = "causal"
    vocabulary: int = 1024
    temperature: float = 0.5
    leave_out: tuple[str, ...] = ()
    held_out: float = 0.05
    evaluated: int = 2048
    checkpoint_every: int = 0
    save_every: int = 100
    seed: int = 0
    optimiser: OptimiserSettings = OptimiserSettings()

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"unknown objective {self.objective!r}; it is one of {', '.join(OBJECTIVES)}"
            )
        require_least(self, dict.fromkeys(("steps", "rows", "evaluated", "save_every"), 1))
        if self.checkpoint_every < 0:
            raise InputError(f"checkpoint_every is {self.checkpoint_every}; 0 turns it off")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed} is not between 0 and 2**32 - 1")

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step."""
        return self.rows * self.length


def checkpoint_steps(steps: int, every: int = 0) -> list[int]:
    """Steps whose model is kept: 0 (untrained), the powers of two, multiples of `every`, the last.

    >>> checkpoint_steps(10, 3)
    [0, 1, 2, 3, 4, 6, 8, 9, 10]
    """
    powers = {1 << n for n in range(steps.bit_length())}
    regular = set(range(every, steps + 1, every)) if every else set()
    return sorted(step for step in {0, steps} | powers | regular if step <= steps)
