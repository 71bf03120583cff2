"""What decides the result of a lexical transfer, beside text, task and the body's shape."""

import dataclasses

from xlingjax.errors import InputError, require_least
from xlingjax.training.objectives import Objective
from xlingjax.training.optimiser import OptimiserSettings
from xlingjax.training.tokenizer import SPECIAL

BASELINES = ("joint", "pair", "apart", "static")


@dataclasses.dataclass(frozen=True)
class LexicalSettings:
    """Settings of the four steps, of what stands beside them, and of the intervals.

    Attributes:
        vocabulary: rows of every bank, V; the most pieces of each tokenizer.
        length, rows: T and B of a batch of running text; tasks have rows of `length` too.
        body_steps: of masked LM with everything learned (step 1, and the joint baselines).
        bank_steps: of masked LM with the body frozen (step 2).
        task_steps, task_rows: of fine-tuning with all embeddings frozen (step 3).
        body_rate, bank_rate, task_rate: highest learning rates.
        optimiser: "adamw", "adam" or "lamb", in all steps.
        share, unit: of the tokens that are hidden, and what is hidden at once ("token", "word", "span").
        next_sentence: masked LM is learned together with whether one half of a row follows the other.
        noise: standard deviation of the noise on embeddings in fine-tuning.
        adapter_width: units of the adapters.
        restarts: banks learned from different draws, of which the one with the lowest held-out loss in its own
            language is kept; no label is looked at.
        seeds: runs from the first weight to the last.
        beside: of them those, the first ones, in which baselines and other starts are made; they cost more than the
            transfer itself.
        baselines: of `BASELINES` those that are made: one model of all languages, of each pair with one vocabulary,
            of each pair with two, and mapped static embeddings.
        starts, traced: whether other starts of embeddings, and experts of concepts, are made.
        held_out: share of each language's documents for held-out losses.
        clean: lines of the first language are taken out of the others' text.
        draws: of documents, for intervals. permutations: of labels, for the experts' null.
        compute: "float32" or "bfloat16", in training.
        save_every: steps between saves.
    """

    vocabulary: int = 800
    length: int = 40
    rows: int = 24
    body_steps: int = 2000
    bank_steps: int = 1200
    task_steps: int = 300
    task_rows: int = 32
    body_rate: float = 6e-3
    bank_rate: float = 1e-2
    task_rate: float = 1e-3
    optimiser: str = "adamw"
    share: float = 0.2
    unit: str = "token"
    next_sentence: bool = False
    noise: float = 0.075
    adapter_width: int = 16
    restarts: int = 1
    seeds: int = 2
    beside: int = 1
    baselines: tuple[str, ...] = BASELINES
    starts: bool = True
    traced: bool = True
    held_out: float = 0.05
    clean: bool = True
    draws: int = 1000
    permutations: int = 20
    compute: str = "float32"
    save_every: int = 500

    def __post_init__(self) -> None:
        require_least(self, dict.fromkeys((
            "rows", "body_steps", "bank_steps", "task_steps", "task_rows", "adapter_width", "restarts", "seeds",
            "beside", "save_every"), 1))
        require_least(self, {"length": 8, "draws": 20, "permutations": 4, "noise": 0.0})
        unknown = sorted(set(self.baselines) - set(BASELINES))
        if unknown:
            raise InputError(f"baseline {unknown[0]!r} is unknown; choose among {', '.join(BASELINES)}")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out is {self.held_out}; give a share of the documents between 0 and 1")
        self.objective(SPECIAL.index("<mask>"))
        for rate in (self.body_rate, self.bank_rate, self.task_rate):
            self.optimise(rate, 1)

    def objective(self, mask_id: int) -> Objective:
        """Masked LM as these settings have it."""
        return Objective("masked", mask_id, len(SPECIAL), self.share, self.unit)

    def optimise(self, rate: float, steps: int) -> OptimiserSettings:
        """A tenth of the steps for warm-up, then a linear fall to 0."""
        return OptimiserSettings(rate, max(1, steps // 10), "linear", 0.01, kind=self.optimiser)
