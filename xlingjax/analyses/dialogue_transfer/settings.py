"""Everything that decides the result beside models and dialogues."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from xlingjax.corpora.dialogues import EARLIER, LONG
from xlingjax.errors import InputError, require_least
from xlingjax.training.fitting import FitSettings
from xlingjax.training.optimiser import OptimiserSettings
from xlingjax.training.replies import SCORED, Config, Layout

BEFORE, TUNED, SCRATCH = "before", "fine-tuned", "from scratch"
CONTROLS = ("shuffled context", "reply only")  # variants of the input, for training and test alike
LEVEL = 0.05  # of claims and intervals


@dataclasses.dataclass(frozen=True)
class DialogueSettings:
    """What is trained and measured, and how.

    Attributes:
        source_language: the language of the models before fine-tuning; never a target.
        languages: targets; () = all others of the dialogues.
        controls: of `CONTROLS`, models fine-tuned on and tested with such inputs.
        scratch: a model of the same shape, tokenizer and updates, from random parameters.
        seeds: runs of each fine-tuned and scratch model. control_seeds: of each control.
        source_updates: on the source's dialogues, before fine-tuning; 0: the models are used as they are.
        updates: of every fine-tuning. evaluations: on validation, evenly spaced; the best parameters are kept.
        patience: evaluations without improvement that end a training; 0: none does.
        validation: windows at most that parameters are chosen by; all held-out ones are scored in the end.
        rows: windows of a batch. accumulate: parts that a batch is cut into. compute: "float32" or "bfloat16".
        learning_rate: of decoder and encoder-decoder. lstm_learning_rate: of the LSTM.
        warm_up: updates. schedule, optimiser, weight_decay, clip: as of `OptimiserSettings`.
        earlier: turns before a reply. text, label, scored: as of `Layout`; figures are always of the reply.
        leak_words: words that a test turn has at least to count as leaked when training has it too.
        padded_rows: windows of a batch in the perplexity as the original computed it; 0 leaves it out.
        replies: test windows of each language that are answered. conversations: dialogues that are gone on with.
        turns: of a conversation that models write.
        max_new_tokens, temperature, top_k, top_p, no_repeat_ngram: of replies.
        sharing: trace whether experts are shared with the source language. permutations: of its null. k: experts; None:
            in proportion to 500 of 221,184, at least 20.
        draws: of the bootstrap over dialogues and seeds; p reaches down to 2 / (draws + 1), which Holm's method
            multiplies by the number of comparisons.
        seed: of everything; run r has seed + r.
    """

    source_language: str = "eng"
    languages: tuple[str, ...] = ()
    controls: tuple[str, ...] = CONTROLS
    scratch: bool = True
    seeds: int = 2
    control_seeds: int = 1
    source_updates: int = 200
    updates: int = 150
    evaluations: int = 3
    patience: int = 0
    validation: int = 200
    rows: int = 16
    accumulate: int = 1
    compute: str = "float32"
    learning_rate: float = 1e-3
    lstm_learning_rate: float = 5e-3
    warm_up: int = 10
    schedule: str = "linear"
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    earlier: int = EARLIER
    text: int = 96
    label: int = 32
    scored: str = "reply"
    leak_words: int = LONG
    padded_rows: int = 2
    replies: int = 40
    conversations: int = 3
    turns: int = 4
    max_new_tokens: int = 24
    temperature: float = 0.8
    top_k: int = 100
    top_p: float = 0.7
    no_repeat_ngram: int = 3
    sharing: bool = True
    permutations: int = 19
    k: int | None = None
    draws: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, {
            "seeds": 1, "control_seeds": 1, "source_updates": 0, "updates": 1, "evaluations": 1, "patience": 0,
            "validation": 1, "rows": 1, "accumulate": 1, "warm_up": 0, "earlier": 1, "text": 1, "label": 2,
            "leak_words": 1, "padded_rows": 0, "replies": 0, "conversations": 0, "turns": 1, "max_new_tokens": 1,
            "temperature": 0, "top_k": 0, "no_repeat_ngram": 0, "permutations": 3, "k": 1, "draws": 100, "seed": 0})
        unknown = [name for name in self.controls if name not in CONTROLS]
        if unknown:
            raise InputError(f"control {unknown[0]!r} is unknown; choose among {', '.join(CONTROLS)}")
        if self.control_seeds > self.seeds:
            raise InputError(f"control_seeds is {self.control_seeds}, more than the {self.seeds} seeds; lower it")
        if self.evaluations > self.updates:
            raise InputError(f"{self.evaluations} evaluations in {self.updates} updates; lower evaluations")
        if self.rows % self.accumulate:
            raise InputError(f"accumulate {self.accumulate} does not divide the {self.rows} rows of a batch")
        if self.scored not in SCORED:
            raise InputError(f"scored is {self.scored!r}; choose among {', '.join(SCORED)}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give a number above 0 and at most 1")
        if self.source_language in self.languages:
            raise InputError(f"{self.source_language} is the source language and a target too; leave it out of one")
        for kind in ("decoder", "lstm"):
            self.fit(kind, self.updates, 0)  # names what the optimiser cannot use

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is measured of each language and kind of model."""
        return (BEFORE, TUNED, *((SCRATCH,) if self.scratch else ()), *self.controls)

    def seeds_of(self, condition: str) -> range:
        """The runs of a condition; before fine-tuning there is one."""
        return range(1 if condition == BEFORE else self.control_seeds if condition in CONTROLS else self.seeds)

    def layout(self, kind: str, start: int) -> Layout:
        """How training rows are made."""
        return Layout(kind, self.text, self.label, self.scored if kind == "decoder" else "reply", start)

    def fit(self, kind: str, updates: int, seed: int) -> FitSettings:
        """Of one training."""
        rate = self.lstm_learning_rate if kind == "lstm" else self.learning_rate
        every = max(1, updates // self.evaluations)
        return FitSettings(
            updates, OptimiserSettings(rate, self.warm_up, self.schedule, self.weight_decay, self.clip, 0.999,
                                       self.optimiser),
            save_every=every, evaluate_every=every, patience=self.patience, accumulate=self.accumulate,
            compute=self.compute, seed=self.seed + seed)

    def sampling(self) -> dict[str, Any]:
        """As `generate` and `reply` take it."""
        return {name: getattr(self, name) for name in (
            "max_new_tokens", "temperature", "top_k", "top_p", "no_repeat_ngram")}


def targets(languages: Sequence[str], settings: DialogueSettings) -> tuple[str, ...]:
    """The languages that are fine-tuned on, of those that dialogues have.

    Raises:
        InputError: one is not there, or none is left.
    """
    missing = [name for name in settings.languages if name not in languages]
    if missing:
        raise InputError(f"the dialogues have no language {missing[0]!r}; there are {', '.join(languages)}")
    found = settings.languages or tuple(name for name in languages if name != settings.source_language)
    if not found:
        raise InputError(f"the dialogues are in {settings.source_language} alone, the source language; give others")
    return found


def describe(config: Config) -> dict[str, Any]:
    """A model's config as JSON values."""
    return {"type": type(config).__name__, **dataclasses.asdict(config)}
