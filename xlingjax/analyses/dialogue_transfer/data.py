"""The windows of each language, as said and as the controls have them, and which of their replies training had too."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from xlingjax.analyses.dialogue_transfer.settings import CONTROLS, DialogueSettings
from xlingjax.corpora.dialogues import Dialogues, Windows, leaks, reply_only, shuffle_contexts, windows
from xlingjax.errors import InputError

HELD_OUT = ("valid", "test")


class Part(NamedTuple):
    """One language's windows.

    Attributes:
        splits: split -> its windows. leaked: held-out split -> bool[n], replies that training has too.
    """

    splits: dict[str, Windows]
    leaked: dict[str, Bool[np.ndarray, "n"]]


def read_part(dialogues: Dialogues, language: str, settings: DialogueSettings) -> Part:
    """The windows of a language.

    Raises:
        InputError: a split is missing or has no reply.
    """
    turns = {split: dialogues.only(language, split) for split in ("train", *HELD_OUT)}
    found = {}
    for split, part in turns.items():
        try:
            found[split] = windows(part, settings.earlier)
        except InputError as error:
            raise InputError(f"{language} {split}: {error}") from error
    leaked = {}
    for split in HELD_OUT:
        twice = [leak.test for leak in leaks(turns["train"], turns[split], settings.leak_words)]
        leaked[split] = np.isin(found[split].turns, twice)
        if leaked[split].all():
            raise InputError(f"{language} {split}: training has every one of its replies; give other dialogues, or "
                             "count longer turns alone (leak_words)")
    return Part(found, leaked)


def as_condition(found: Windows, condition: str, seed: int) -> Windows:
    """The windows as a condition reads them: only controls change them."""
    if condition == CONTROLS[0]:
        return shuffle_contexts(found, seed)
    return reply_only(found) if condition == CONTROLS[1] else found


def parallel_rows(parts: dict[str, Part], split: str = "test") -> dict[str, Int[np.ndarray, "n"]]:
    """Of each language the windows whose replies are translations of each other, row by row, leaked ones left out.

    Languages that share nothing with the first are left out; {} where fewer than two are left.
    """
    held = {}
    for language, part in parts.items():
        found, leaked = part.splits[split], part.leaked[split]
        held[language] = {str(name): row for row, name in reversed(list(enumerate(found.parallel.tolist())))
                          if name and not leaked[row]}
    names = list(held)
    while len(names) > 1:
        common = [one for one in held[names[0]] if all(one in held[name] for name in names[1:])]
        if common:
            return {name: np.array([held[name][one] for one in common]) for name in names}
        shared = [sum(one in held[names[0]] for one in held[name]) for name in names[1:]]
        names.pop(1 + int(np.argmin(shared)))
    return {}


def only_scored(found: Windows, most: int, leaked: np.ndarray, seed: int) -> Windows:
    """At most so many windows to answer, drawn among those without leaks, in their order."""
    free = np.flatnonzero(~leaked)
    chosen = np.sort(np.random.default_rng([seed, 97]).permutation(free)[:most])
    return found.take(chosen)
