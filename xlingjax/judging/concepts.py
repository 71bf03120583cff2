"""Is the concept in this text? Two judges that know neither the model nor the condition, checked against each other.

A classifier over hashed n-grams, one for each language and concept, and hits of marker words. Both learn from
the documents they are given, which must not be those that found the experts; how often each errs is counted on
documents that it never saw, and corrects every rate (`kernels.correction.corrected_rate`).
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.judging import TRAIN_SET_TEST
from xlingjax.judging.ngrams import ngram_counts, normalised
from xlingjax.kernels.probing import fit_probes
from xlingjax.kernels.resampling import document_parts, independent_blocks

ORDERS, BUCKETS = (2, 3, 4, 5), 2**11
PENALTY = 1.0
FALSE_POSITIVES = 0.05  # share of held-out sentences without the concept that a threshold may call
MARKERS, LEAST_Z = 10, 3.0  # words a concept, and how far their log-odds stand out
PRIOR = 0.1  # weight of the prior, as a share of the text that it is counted on


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """How a judge errs on documents that it never saw; NaN where one of the classes is missing there.

    Attributes:
        sensitivity: P(called | present) of each language and concept. false_positives: P(called | absent).
        present, absent: sentences that this was counted on.
    """

    sensitivity: Float[np.ndarray, "G C"]
    false_positives: Float[np.ndarray, "G C"]
    present: Int[np.ndarray, "G C"]
    absent: Int[np.ndarray, "G C"]


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptJudge:
    """Both judges of C concepts in G languages.

    Attributes:
        weights: of the classifier, its bias last. threshold: scores from here on are called.
        markers: of each language and concept, words that stand out among its positives; may be empty.
        classifier, lexicon: how either errs.
        agreement: Cohen's kappa of the two on held-out sentences, [G, C].
    """

    languages: tuple[str, ...]
    concepts: tuple[str, ...]
    weights: Float[np.ndarray, "G C buckets+1"]
    threshold: Float[np.ndarray, "G C"]
    markers: tuple[tuple[tuple[str, ...], ...], ...]
    classifier: Errors
    lexicon: Errors
    agreement: Float[np.ndarray, "G C"]

    def called(self, texts: Sequence[str]) -> Bool[np.ndarray, "n G C"]:
        """Concepts that the classifier of each language sees in each text."""
        score = np.einsum("nd,gcd->ngc", features(texts), self.weights[..., :-1], optimize=True)
        return score + self.weights[..., -1] >= self.threshold

    def hits(self, texts: Sequence[str]) -> Bool[np.ndarray, "n G C"]:
        """Concepts of which each text has a marker word of each language."""
        return np.stack([marker_hits(texts, markers) for markers in self.markers], axis=1)


def features(texts: Sequence[str]) -> Float[np.ndarray, "n buckets"]:
    """Damped counts of n-grams, of unit length, so that long texts do not show everything."""
    counts = np.log1p(ngram_counts(texts, ORDERS, BUCKETS))
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)


def fit_concepts(corpus: Corpus, seed: int = 0) -> ConceptJudge:
    """Both judges of all concepts of a corpus in all its languages.

    Half of the documents train them, a quarter sets thresholds, on a quarter their errors are counted.

    Args:
        corpus: documents that found no expert.

    Raises:
        InputError: a concept lacks positives or negatives in the training or threshold documents of a language.
    """
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    part = document_parts(blocks, corpus.languages, TRAIN_SET_TEST, seed)
    weights, thresholds, markers, called, hits = [], [], [], [], []
    for name in corpus.language_names:
        rows = [np.flatnonzero((corpus.languages == name) & (part == which)) for which in range(3)]
        x = [features([corpus.texts[row] for row in index]) for index in rows]
        y = [corpus.labels[index] for index in rows]
        _require(corpus, name, y)
        known = (y[0] >= 0).astype(np.float32).T
        share = ((y[0] == 1).sum(0) / np.maximum((y[0] >= 0).sum(0), 1))[:, None]
        balanced = known * np.where(y[0].T == 1, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)
        w = np.asarray(fit_probes(x[0][None], (y[0] == 1).astype(int).T, balanced, 2, PENALTY))[0]  # [C, D + 1, 2]
        weight = w[..., 1] - w[..., 0]
        score = [one @ weight[:, :-1].T + weight[:, -1] for one in x]
        cut = np.array([np.quantile(score[1][y[1][:, c] == 0, c], 1 - FALSE_POSITIVES)
                        for c in range(len(corpus.concepts))])
        words = marker_words([corpus.texts[row] for row in rows[0]], y[0])
        weights.append(weight)
        thresholds.append(np.nextafter(cut, np.inf))
        markers.append(words)
        called.append((score[2] >= thresholds[-1], y[2]))
        hits.append((marker_hits([corpus.texts[row] for row in rows[2]], words), y[2]))
    agreement = np.array([[kappa(one[:, c], other[:, c]) for c in range(len(corpus.concepts))]
                          for (one, _), (other, _) in zip(called, hits)])
    return ConceptJudge(corpus.language_names, corpus.concepts, np.stack(weights), np.stack(thresholds), tuple(markers),
                        _errors(called), _errors(hits), agreement)


def _require(corpus: Corpus, language: str, labels: Sequence[np.ndarray]) -> None:
    for which, values in zip(("training", "threshold"), labels):
        for value, what in ((1, "positive"), (0, "negative")):
            lacks = np.flatnonzero(~(values == value).any(0))
            if len(lacks):
                raise InputError(
                    f"concept {corpus.concepts[lacks[0]]!r} has no {what} sentence in the {which} documents of "
                    f"{language}; leave it out or give more documents")


def _errors(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Errors:
    rates = []
    for value in (1, 0):
        count = np.array([(y == value).sum(0) for _, y in found])
        said = np.array([(calls & (y == value)).sum(0) for calls, y in found])
        rates.append((np.where(count > 0, said / np.maximum(count, 1), np.nan), count))
    (sensitivity, present), (false_positives, absent) = rates
    return Errors(sensitivity, false_positives, present, absent)


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return normalised(text).split()


def marker_words(texts: Sequence[str], labels: Int[np.ndarray, "S C"]) -> tuple[tuple[str, ...], ...]:
    """Of each concept, at most ten words whose log-odds among its positives stand out from its negatives.

    The z-score of log-odds with an informative prior, the words of all texts (Monroe, Colaresi & Quinn 2008, eq. 22).
    """
    counts = [collections.Counter(words_of(text)) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*counts)))}
    table = np.zeros((len(texts), len(vocabulary)))
    for row, one in enumerate(counts):
        for word, count in one.items():
            table[row, vocabulary[word]] = count
    prior = PRIOR * table.sum(0) + 1e-9
    total = prior.sum()
    names = np.array(list(vocabulary))
    out = []
    for c in range(labels.shape[1]):
        y, n = table[labels[:, c] == 1].sum(0), table[labels[:, c] == 0].sum(0)
        odds = [np.log((x + prior) / (x.sum() + total - x - prior)) for x in (y, n)]
        z = (odds[0] - odds[1]) / np.sqrt(1 / (y + prior) + 1 / (n + prior))
        order = np.lexsort((np.arange(len(z)), -z))[:MARKERS]
        out.append(tuple(str(names[i]) for i in order if z[i] >= LEAST_Z and y[i] > 0))
    return tuple(out)


def marker_hits(texts: Sequence[str], markers: Sequence[Sequence[str]]) -> Bool[np.ndarray, "n C"]:
    """Which texts have a marker word of each concept."""
    sets = [set(one) for one in markers]
    return np.array([[bool(one & set(words_of(text))) for one in sets] for text in texts], bool).reshape(len(texts), -1)


def kappa(one: Bool[np.ndarray, "n"], other: Bool[np.ndarray, "n"]) -> float:
    """Agreement above chance (Cohen 1960); NaN where both say the same of everything.

    >>> kappa(np.array([True, True, False, False]), np.array([True, False, False, False]))
    0.5
    """
    a, b, same = float(one.mean()), float(other.mean()), float((one == other).mean())
    chance = a * b + (1 - a) * (1 - b)
    return (same - chance) / (1 - chance) if chance < 1 else float("nan")
