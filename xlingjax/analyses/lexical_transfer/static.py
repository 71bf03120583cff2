"""Static embeddings of the first language and another in one space, kept in the run's folder."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from xlingjax.analyses.lexical_transfer.data import Language
from xlingjax.analyses.lexical_transfer.stages import Stage
from xlingjax.files import write_whole
from xlingjax.training.streams import TokenText
from xlingjax.transfer.mapping import MappingSettings, learn_mapping
from xlingjax.transfer.static import StaticSettings, train_static

ROUNDS, PATIENCE = 150, 5  # of the map; small vocabularies settle soon
EPOCHS, WINDOW = 8, 4


class Mapped(NamedTuple):
    """Rows of unit length, or 0 where a piece does not occur."""

    first: Float[np.ndarray, "V D"]  # the same whatever the other language
    other: Float[np.ndarray, "W D"]


def static_spaces(first: str, languages: dict[str, Language], other: str, width: int, stage: Stage) -> Mapped:
    """Skip-gram on each language's pieces, and an orthogonal map of the other's into the first's, from nothing.

    Equal seeds give equal bytes; what is made is kept in `static/`, and made again where it is not there.
    """
    path = stage.folder / "static" / f"{other}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return Mapped(kept["first"], kept["other"])
    # Pieces by frequency, as the map wants them; `order` leads back.
    tables, orders = zip(*(_table(languages[name], width, stage) for name in (other, first)))
    settings = MappingSettings(rounds=ROUNDS, patience=PATIENCE, weighted=False, seed=stage.seed)
    mapping = learn_mapping(tables[0], tables[1], settings, show=False)
    spaces = []
    for mapped, order, name in zip((mapping.source, mapping.target), orders, (other, first)):
        rows = np.zeros((languages[name].vocabulary, width), np.float32)
        rows[order] = mapped
        spaces.append(rows)
    made = Mapped(spaces[1], spaces[0])
    buffer = io.BytesIO()
    np.savez(buffer, first=made.first, other=made.other)
    write_whole(path, buffer.getvalue())
    stage.say(f"  static-{other}: mapped, mean cosine {mapping.similarity:.3f} after {mapping.rounds} rounds")
    return made


def _table(language: Language, width: int, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """Static embeddings of the pieces, most frequent first, and the piece of each row."""
    (text,) = language.texts.values()
    count = np.bincount(text.tokens, minlength=language.vocabulary)
    order = np.argsort(-count, kind="stable")
    table = train_static(
        _documents(text, language.tokenizer.eos_token_id), language.vocabulary,
        StaticSettings(width=width, window=WINDOW, epochs=EPOCHS, seed=stage.seed), show=False)
    return table[order], order


def _documents(text: TokenText, mark: int) -> list[np.ndarray]:
    """The tokens between the marks that begin documents."""
    parts = np.split(text.tokens, np.flatnonzero(text.tokens == mark))
    return [part[part != mark] for part in parts]
