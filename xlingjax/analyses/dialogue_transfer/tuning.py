"""One training: a model on windows, kept where validation is best; and its scores on held-out windows."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xlingjax.analyses.dialogue_transfer.settings import DialogueSettings
from xlingjax.analyses.dialogue_transfer.starts import Start
from xlingjax.corpora.dialogues import Windows
from xlingjax.models import TransformerConfig
from xlingjax.training.fitting import fit
from xlingjax.training.replies import (
    Epochs,
    ReplyLoss,
    Scores,
    Turns,
    check_layout,
    encode_windows,
    padded_perplexity,
    score_windows,
)


class Trained(NamedTuple):
    """A model after training, the update at which it was best, and the epochs that all updates are."""

    start: Start
    step: int
    epochs: float


def encoded(start: Start, found: Windows, settings: DialogueSettings) -> Turns:
    """The windows as this model's tokens."""
    return encode_windows(start.tokenizer, found, settings.text, settings.label)


def train(
    start: Start, found: Windows, validation: Windows, settings: DialogueSettings, updates: int, seed: int,
    folder: Path, about: Mapping[str, Any],
) -> Trained:
    """Fine-tunes, or goes on where it stopped; a finished training is read back.

    Args:
        found, validation: windows to learn from, and to choose parameters by (nats a token of their replies).
        about: what this training is, JSON values.
    """
    layout = settings.layout(start.kind, start.start)
    check_layout(start.config, layout)
    batches = Epochs(layout, encoded(start, found, settings), settings.rows, settings.seed + seed)
    order = np.random.default_rng([settings.seed, 89]).permutation(len(validation))
    held = encoded(start, validation.take(np.sort(order[:settings.validation])), settings)

    def evaluate(params: Any) -> dict[str, float]:
        scores = score(start.with_params(params), held, settings)
        return {"nats": float(scores.nats.sum() / scores.tokens.sum())}

    fitted = fit(
        ReplyLoss(start.config), start.params, batches, settings.fit(start.kind, updates, seed), folder,
        about={**about, "layout": dataclasses.asdict(layout), "train": found.fingerprint,
               "validation": validation.fingerprint, "rows": settings.rows}, evaluate=evaluate)
    return Trained(start.with_params(fitted.params), fitted.step, updates / batches.steps)


def score(
    start: Start, turns: Turns, settings: DialogueSettings, advance: Callable[[int], None] = lambda count: None,
) -> Scores:
    """The loss of every window's reply."""
    layout = dataclasses.replace(settings.layout(start.kind, start.start), scored="reply")
    return score_windows(start.params, start.config, layout, turns, settings.rows, advance)


def as_the_original(start: Start, turns: Turns, settings: DialogueSettings) -> float:
    """The decoder's perplexity with padding scored; NaN for other kinds, whose originals masked it, and where off."""
    if not settings.padded_rows or not isinstance(start.config, TransformerConfig):
        return float(np.nan)
    return padded_perplexity(start.params, start.config, turns, settings.padded_rows)
