"""Which sentences are translations of each other, and corpora that hold nothing else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from xlingjax.corpora.assemble import Sentence, assemble
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import choose, stem, table
from xlingjax.errors import InputError


def parallel_rows(corpus: Corpus, least: int = 10) -> Int[np.ndarray, "G n"]:
    """Rows of the sentences that every language has, column by column the same sentence.

    Args:
        least: sentences that must be there.

    Raises:
        InputError: fewer than two languages, a language without parallel ids, or too few common sentences, with what
            each language has.

    >>> from xlingjax.corpora import mini_world
    >>> corpus = mini_world(languages=("eng", "fin"))
    >>> rows = parallel_rows(corpus)
    >>> rows.shape, bool((corpus.parallel[rows[0]] == corpus.parallel[rows[1]]).all())
    ((2, 288), True)
    """
    names = corpus.language_names
    if len(names) < 2:
        raise InputError(f"corpus {corpus.name!r} has {len(names)} language; alignment needs two")
    homes: list[dict[str, int]] = []
    for name in names:
        rows = np.flatnonzero((corpus.languages == name) & (corpus.parallel != ""))
        homes.append({str(corpus.parallel[row]): int(row) for row in rows[::-1]})  # the first of several stays
    common = [one for one in homes[0] if all(one in home for home in homes)][::-1]
    if len(common) < least:
        held = ", ".join(f"{name} {len(home)}" for name, home in zip(names, homes))
        raise InputError(
            f"corpus {corpus.name!r} has {len(common)} sentences in all languages, and {least} are needed (with a "
            f"parallel id: {held}); leave out the language that lacks translations, or give more sentences")
    return np.array([[home[one] for one in common] for home in homes])


def read_parallel(path: str | Path, languages: Sequence[str] | None = None) -> Corpus:
    """A table of translations: tab-separated columns id, lang and text; sentences of one id are translations.

    Args:
        path: plain, .xz or .gz. A column `document` names what a sentence comes from, by default its id.
        languages: default all of the table.

    Raises:
        InputError: a column or language is missing.
    """
    rows = list(table(path, ("id", "lang", "text")))
    chosen = choose(languages, (row["lang"] for row in rows), "language", path)
    sentences = [Sentence(row["text"], row["lang"], row.get("document", row["id"]), row["id"])
                 for language in chosen for row in rows if row["lang"] == language]
    return assemble(sentences, {}, stem(Path(path)), absent=-1)
