"""What all readers share: sentences in, a Corpus out, concepts chosen by how often they occur."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError


class Sentence(NamedTuple):
    """One row of a corpus on its way there."""

    text: str
    language: str
    document: str
    parallel: str = ""
    labels: Mapping[str, int] = {}


def assemble(
    sentences: Iterable[Sentence], concepts: Mapping[str, str], name: str, absent: int,
    notes: Sequence[str] = (),
) -> Corpus:
    """The corpus of these sentences.

    Args:
        sentences: its rows, in order.
        concepts: concept -> group, in order; labels of other concepts are dropped.
        name: for reports and errors.
        absent: label of a concept that a sentence's `labels` do not name: 0 or -1.
        notes: what a reader of results has to know about how the corpus was read.
    """
    rows = list(sentences)
    if not rows:
        raise InputError(f"corpus {name!r} is empty: no sentence was found")
    column = {concept: i for i, concept in enumerate(concepts)}
    labels = np.full((len(rows), len(concepts)), absent, np.int8)
    for row, sentence in enumerate(rows):
        for concept, label in sentence.labels.items():
            if concept in column:
                labels[row, column[concept]] = label
    return Corpus(
        texts=tuple(row.text for row in rows),
        languages=np.array([row.language for row in rows], str),
        documents=np.array([row.document for row in rows], str),
        parallel=np.array([row.parallel for row in rows], str),
        labels=labels, concepts=tuple(concepts), groups=tuple(concepts.values()), name=name,
        notes=tuple(notes))


def frequent(sentences: Sequence[Sentence], minimum: int, everywhere: bool) -> list[str]:
    """Concepts that at least `minimum` sentences show and as many do not, most frequent first.

    Args:
        sentences: rows whose `labels` name the concepts they show.
        minimum: sentences with and without the concept that a language needs.
        everywhere: in every language, or in at least one.
    """
    total = Counter(sentence.language for sentence in sentences)
    shown: dict[str, Counter[str]] = {language: Counter() for language in total}
    for sentence in sentences:
        shown[sentence.language].update(c for c, label in sentence.labels.items() if label == 1)
    overall = sum(shown.values(), Counter())
    need = all if everywhere else any
    return [
        concept for concept, _ in sorted(overall.items(), key=lambda item: (-item[1], item[0]))
        if need(minimum <= shown[g][concept] <= total[g] - minimum for g in total)]
