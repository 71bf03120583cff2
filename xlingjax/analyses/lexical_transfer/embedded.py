"""The experiment's text and task from the embedded corpus: what is a short document about?"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from xlingjax.analyses.lexical_transfer.data import TransferData
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.world import mini_world
from xlingjax.corpora.world.lexicon import lexicon
from xlingjax.tasks.classification import Classification
from xlingjax.tasks.reading import topic_examples

TOGETHER = 4  # sentences of a text to be classified, as many as a document of probes has
NOT_FORMS = ("gender", "class", "object", "ergative", "noun", "words")
PROBES = 1200  # sentences a language to test on; a quarter of them for the experts


def embedded(first: str, others: Sequence[str], dose: float, sentences: int, seed: int = 0) -> TransferData:
    """The world told in several languages: training text that no two have in common, test documents that all have.

    Args:
        first, others: languages.
        dose: share of the nouns with one form in all languages; 0: no word in common.
        sentences: of running text in each.
        seed: of the world.

    >>> data = embedded("eng", ["spa"], 0.0, 40)
    >>> data.others, len(data.task.labels), data.examples[0].texts[0].count(" ") > 12
    (('spa',), 6, True)
    """
    chosen = (first, *others)
    texts = mini_world("train", dose, seed, chosen, sentences)
    probe = mini_world("probe", dose, seed, chosen, PROBES)
    task = Classification("topic of a document", tuple(
        name for name, group in zip(texts.concepts, texts.groups) if group == "topic"))
    examples = (*topic_examples(joined(texts.language(first), TOGETHER), split="train"),
                *topic_examples(joined(probe, TOGETHER), split="test"))
    quarter = set(list(dict.fromkeys(probe.documents.tolist()))[:PROBES // TOGETHER // 4])
    concepts = probe.rows(np.isin(probe.documents, list(quarter)))
    words = [i for i, group in enumerate(concepts.groups) if group == "own form"]
    return TransferData(texts, first, task, examples, {name: _pairs(first, name) for name in others},
                        concepts.with_concepts([concepts.concepts[i] for i in words]))


def joined(corpus: Corpus, size: int) -> Corpus:
    """Every `size` sentences of a document as one text; the topic is the document's, other labels are dropped."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(corpus.languages.tolist(), corpus.documents.tolist())):
        groups.setdefault(key, []).append(row)
    parts = [rows[i:i + size] for rows in groups.values() for i in range(0, len(rows) - size + 1, size)]
    firsts = np.array([rows[0] for rows in parts])
    topics = [name for name, group in zip(corpus.concepts, corpus.groups) if group == "topic"]
    texts = tuple(" ".join(corpus.texts[row] for row in rows) for rows in parts)
    return dataclasses.replace(corpus.rows(firsts).with_concepts(topics), texts=texts)


def _pairs(first: str, other: str) -> list[tuple[str, str]]:
    """Words with one meaning: the first form of each in the tables of the world."""
    pairs = []
    for entry in lexicon().values():
        forms = [next((form for column, form in entry["forms"][name].items()
                       if form and column not in NOT_FORMS), "") for name in (first, other)]
        if all(forms):
            pairs.append((forms[0], forms[1]))
    return pairs
