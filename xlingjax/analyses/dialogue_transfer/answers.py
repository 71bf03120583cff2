"""Replies to test windows, conversations, and a conversation as it goes on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlingjax.analyses.dialogue_transfer.settings import DialogueSettings
from xlingjax.analyses.dialogue_transfer.starts import Start
from xlingjax.corpora.dialogues import Windows
from xlingjax.training.tokenizer import encode_texts

AT_ONCE = 16  # replies of a batch; the last batch is filled up


def answer(
    start: Start, contexts: Sequence[Sequence[str]], settings: DialogueSettings, seeds: Sequence[int],
) -> list[str]:
    """A reply to each context, drawn with its own seed; "" where the model ends at once.

    Contexts are cut to their last tokens, as in training, and to what leaves room for a reply.
    """
    end = start.tokenizer.eos_token_id
    turns = list(dict.fromkeys(turn for context in contexts for turn in context))
    closed = {turn: np.append(ids, end) for turn, ids in zip(turns, encode_texts(start.tokenizer, tuple(turns)))}
    room = settings.text
    limit = getattr(start.config, "max_length", 0)
    if limit:
        room = min(room, limit - settings.max_new_tokens)
    out: list[str] = []
    for first in range(0, len(contexts), AT_ONCE):
        part = list(range(first, min(first + AT_ONCE, len(contexts))))
        rows = (part + part[-1:] * AT_ONCE)[:AT_ONCE]
        tokens, mask = np.zeros((AT_ONCE, room), np.int32), np.zeros((AT_ONCE, room), bool)
        for row, i in enumerate(rows):
            ids = np.concatenate([closed[turn] for turn in contexts[i]] or [np.array([end])])[-room:]
            tokens[row, room - len(ids):], mask[row, room - len(ids):] = ids, True
        made = start.answer(tokens, mask, seeds=[seeds[i] for i in rows], **settings.sampling())
        assert made.texts is not None
        out += [" ".join(text.split()) for text in made.texts[:len(part)]]
    return out


def answer_windows(start: Start, found: Windows, settings: DialogueSettings) -> list[str]:
    """A reply to each window's context; window i with seed + i."""
    return answer(start, found.contexts, settings, [settings.seed + i for i in range(len(found))])


class Conversation(NamedTuple):
    """How a dialogue went on: `turns` said by people, then `written` by the model."""

    turns: tuple[str, ...]
    written: tuple[str, ...]


def converse(start: Start, found: Windows, settings: DialogueSettings) -> list[Conversation]:
    """The model goes on with the first windows of so many dialogues, each turn after the last seven."""
    firsts: dict[str, int] = {}
    for row, document in enumerate(found.documents.tolist()):
        firsts.setdefault(document, row)
    rows = list(firsts.values())[:settings.conversations]
    opening = [tuple(found.contexts[row]) + (found.replies[row],) for row in rows]
    said = [list(turns) for turns in opening]
    for turn in range(settings.turns if rows else 0):
        new = answer(start, [turns[-settings.earlier:] for turns in said], settings,
                     [settings.seed + 1000 * (turn + 1) + i for i in range(len(said))])
        for turns, text in zip(said, new):
            turns.append(text or "…")
    return [Conversation(first, tuple(turns[len(first):])) for first, turns in zip(opening, said)]


class Chat:
    """A conversation with one model: keeps the last turns, answers each with a seed of its own.

    Args:
        start: the model. settings: how it answers, `earlier` turns kept.
    """

    def __init__(self, start: Start, settings: DialogueSettings) -> None:
        self.start, self.settings = start, settings
        self.turns: list[str] = []
        self.count = 0

    def say(self, text: str) -> str:
        """The model's reply to a turn; both are remembered."""
        self.turns.append(" ".join(text.split()))
        [reply] = answer(self.start, [self.turns[-self.settings.earlier:]], self.settings,
                         [self.settings.seed + self.count])
        self.count += 1
        if reply:
            self.turns.append(reply)
        return reply

    def forget(self) -> None:
        """Begins anew."""
        self.turns.clear()
