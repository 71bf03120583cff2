"""The result as files that other programs read: tables, replies for people to judge, conversations to read."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.analyses.dialogue_transfer.settings import TUNED
from xlingjax.files import write_whole
from xlingjax.judging.human_items import REPLY_COLUMNS

SCORES = ("perplexity", "perplexity_low", "perplexity_high", "perplexity_sd", "bits_per_character",
          "bits_per_character_low", "bits_per_character_high", "bits_per_character_sd")
SIZES = ("replies", "tokens", "characters", "leaked", "dialogues")


def write_tables(tree: xr.DataTree, folder: Path) -> None:
    """Writes scores.csv, claims.csv, replies.csv (of the fine-tuned models) and conversations.txt."""
    held = {}
    for name in ("scores", "claims", "replies", "conversations"):
        node = tree[name]
        assert isinstance(node, xr.DataTree)
        held[name] = node.to_dataset(inherit=False)
    for name, text in (("scores.csv", scores_csv(held["scores"])), ("claims.csv", claims_csv(held["claims"])),
                       ("replies.csv", replies_csv(held["replies"], TUNED)),
                       ("conversations.txt", conversations_text(held["conversations"]))):
        write_whole(folder / name, text.encode("utf-8", "replace"))


def scores_csv(scores: xr.Dataset) -> str:
    """A row each language, kind of model, split, with or without leaks, and condition."""
    keys = ("language", "kind", "split", "turns", "condition")
    rows = []
    for index in np.ndindex(*(scores.sizes[key] for key in keys)):
        one = scores.isel(dict(zip(keys, index)))
        rows.append([*(str(one[key].item()) for key in keys), *(f"{float(one[name]):.6g}" for name in SCORES),
                     *(int(one[name]) for name in SIZES)])
    return table([*keys, *SCORES, *SIZES], rows)


def claims_csv(claims: xr.Dataset) -> str:
    """A row each language, kind of model and condition that the fine-tuned model is set against."""
    keys, numbers, verdicts = ("language", "kind", "against"), ("change", "low", "high", "p", "q"), (
        "claimed", "helps", "harms")
    rows = []
    for index in np.ndindex(*(claims.sizes[key] for key in keys)):
        one = claims.isel(dict(zip(keys, index)))
        rows.append([*(str(one[key].item()) for key in keys), *(f"{float(one[name]):.6g}" for name in numbers),
                     *(bool(one[name]) for name in verdicts)])
    return table([*keys, *numbers, *verdicts], rows)


def replies_csv(replies: xr.Dataset, condition: str) -> str:
    """The replies of one condition as `experiments.judge_replies` reads them; a system is a kind of model."""
    held = replies.isel(row=replies["condition"].values == condition)
    rows = zip(held["language"].values.tolist(), [f"{kind}, {condition}" for kind in held["kind"].values.tolist()],
               *(held[name].values.tolist() for name in ("context", "reply", "reference")))
    return table(REPLY_COLUMNS, rows)


def conversations_text(conversations: xr.Dataset) -> str:
    """Every conversation, a turn a line; the model's lines begin with ">"."""
    parts = []
    for row in range(conversations.sizes["row"]):
        at = {name: str(values.values[row]) for name, values in conversations.data_vars.items()}
        said = [f"  {turn}" for turn in at["said"].splitlines()] + [f"> {turn}" for turn in at["written"].splitlines()]
        parts.append("\n".join([f"{at['language']}, {at['kind']}, {at['condition']}", *said]))
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with a line of names."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
