"""What of a corpus a trace can use, and its control with permuted labels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.kernels.resampling import independent_blocks, joint_permutations


def usable(corpus: Corpus, unseen: Sequence[str], minimum: int) -> tuple[Corpus, list[str]]:
    """`usable_concepts` of a corpus in two or more seen languages, and in the unseen ones.

    Raises:
        InputError: the corpus is empty, has fewer languages, lacks an unseen one, or no concept is
            left.
    """
    if not len(corpus):
        raise InputError(f"corpus {corpus.name!r} is empty; it needs sentences")
    if len(corpus.language_names) < 2:
        raise InputError(
            f"corpus {corpus.name!r} has one language, {corpus.language_names[0]}; sharing needs two")
    for name in unseen:
        corpus.language(name)
    seen = [name for name in corpus.language_names if name not in unseen]
    if len(seen) < 2:
        raise InputError(
            f"of corpus {corpus.name!r} {len(seen)} of {len(corpus.language_names)} languages were seen in "
            "pre-training; sharing needs two, so name fewer as unseen or trace more")
    return usable_concepts(corpus, minimum)


def usable_concepts(corpus: Corpus, minimum: int) -> tuple[Corpus, list[str]]:
    """The corpus with the concepts that have enough positives and negatives in every language.

    Returns:
        The corpus, and the names of the concepts left out.

    Raises:
        InputError: none is left; the best concept's counts are named.
    """
    counts = np.array([[[np.count_nonzero(corpus.labels[corpus.languages == name, c] == value)
                         for value in (1, 0)] for name in corpus.language_names]
                       for c in range(len(corpus.concepts))]).reshape(-1, len(corpus.language_names), 2)
    least = counts.min(axis=(1, 2)) if len(counts) else np.zeros(0, int)
    kept = [name for name, count in zip(corpus.concepts, least) if count >= minimum]
    if not kept:
        most = int(least.max(initial=0))
        raise InputError(
            f"no concept of corpus {corpus.name!r} has {minimum} positive and {minimum} negative "
            f"sentences in every language (the best has {most}); lower --minimum, leave out a "
            "language or add sentences")
    return corpus.with_concepts(kept), [name for name in corpus.concepts if name not in kept]


def shuffled(corpus: Corpus, seed: int) -> Corpus:
    """The corpus with labels permuted by parallel id, whole documents together, alike everywhere."""
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    source = joint_permutations(blocks, corpus.parallel, corpus.languages, 1, seed)[0]
    return dataclasses.replace(corpus, labels=corpus.labels[source], name=f"{corpus.name}, shuffled")
