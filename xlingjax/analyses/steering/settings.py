"""Everything that decides a steering experiment beside its checkpoints and its corpus."""

import dataclasses

from xlingjax.errors import InputError, require_least
from xlingjax.responses.jobs import BATCH_TOKENS

VALUES = ("median", "mean", "p90", "zero", "add", "scale")
POSITIONS = ("every", "prompt", "generated", "last")
SWITCHES = ("both_ends", "lape", "none")


@dataclasses.dataclass(frozen=True)
class SteerSettings:
    """Everything that decides a steering experiment beside its checkpoints and its corpus.

    Attributes:
        concept: whose experts are forced.
        source_language: in which they are found; values are those over its positive sentences.
        other_language: whose experts are set apart as shared and its own; None = the first other one.
        other_concept: of the control; None = the first other concept of the same group, else of any.
        k: neurons forced; None = in proportion to 500 of 221,184, at least 20.
        ks: of the dose response; None = 1 to 2,000 by factors, as far as there are neurons.
        value: what they are forced to: "median", "mean" or "p90" of the responses to positive sentences, "zero", or
            the present value plus `amount` standard deviations ("add") or times `amount` ("scale").
        amount: of "add" and "scale".
        positions: "every", "prompt", "generated", or from the "last" prompt token on.
        sites, pool: as in a trace.
        prompts: texts that are continued; () = from the beginning of a text.
        seeds: texts a condition and prompt.
        max_new_tokens, temperature, top_k, top_p: of generation.
        switch: neurons of each language that are switched on, "both_ends" of average precision or "lape"; or "none".
        batch_rows: rows generated at once. batch_tokens: of a batch of sentences.
        dtype: of the forward pass.
        draws: of the bootstrap. seed: of splits, ties, controls and noise.
    """

    concept: str
    source_language: str
    other_language: str | None = None
    other_concept: str | None = None
    k: int | None = None
    ks: tuple[int, ...] | None = None
    value: str = "median"
    amount: float = 1.0
    positions: str = "every"
    sites: tuple[str, ...] | None = None
    pool: str = "max"
    prompts: tuple[str, ...] = ()
    seeds: int = 100
    max_new_tokens: int = 64
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    switch: str = "both_ends"
    batch_rows: int = 50
    batch_tokens: int = BATCH_TOKENS
    dtype: str = "float32"
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("value", VALUES), ("positions", POSITIONS), ("pool", ("max", "mean", "last")),
                              ("switch", SWITCHES)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose among {', '.join(choices)}")
        least = {"k": 1, "seeds": 1, "max_new_tokens": 1, "batch_rows": 1, "batch_tokens": 1, "draws": 1, "seed": 0}
        require_least(self, least)
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise InputError(f"temperature is {self.temperature:g}, top_p {self.top_p:g} and top_k {self.top_k}; give "
                             "at least 0, a share above 0 and at most 1, and at least 0")
        if self.rows < 2:
            raise InputError("seeds is 1, and no differing prompts; give two rows or more to compare")
        if self.temperature == 0 and self.seeds > 1:
            raise InputError(f"temperature is 0, so that {self.seeds} seeds change nothing; give prompts and one seed, "
                             "or a temperature")
        if self.ks is not None and (not self.ks or min(self.ks) < 1):
            raise InputError(f"ks are {self.ks}; name sizes of at least 1")
        if self.other_language == self.source_language:
            raise InputError(f"other_language {self.other_language!r} is the source; name another one")
        if self.other_concept == self.concept:
            raise InputError(f"other_concept {self.other_concept!r} is the concept itself; name another one")

    @property
    def rows(self) -> int:
        """Texts of a condition."""
        return self.seeds * max(1, len(self.prompts))
