"""Which grammatical values do the words of a text carry? A judge that counts word forms and knows no model.

A form carries a value if, in the documents the judge learned from, nearly all of its occurrences in the language have
that value; of other forms it says nothing. What it misses and how often it errs is counted on documents it never saw.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from xlingjax.corpora.words import ORDER, Treebank
from xlingjax.errors import InputError
from xlingjax.judging.concepts import words_of
from xlingjax.kernels.resampling import document_parts

LEARN_TEST = (3, 1)  # shares of the documents
LEAST = 3  # occurrences with the value
PURITY = 0.95  # of the occurrences of the form


@dataclasses.dataclass(frozen=True, eq=False)
class ValueJudge:
    """What the forms of G languages say of V values of F features.

    Attributes:
        languages: G names. features: F names. values: V pairs ("Number", "Plur"), by feature.
        forms: of each language, form -> the values it carries, as indices.
        coverage: of the words with a value of a feature in documents never seen, the share that is judged; NaN where
            the language has no such word.
        confusion: of these words, by their value, what is said: a value, or nothing (last column).
        spurious: of the words that are judged there, the share that has no value of the feature; NaN without any.
        share_error: mean absolute difference between `shares` of a sentence and the true share of the value among its
            words with a value of the feature, over sentences that have both; NaN without any.
    """

    languages: tuple[str, ...]
    features: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    forms: tuple[Mapping[str, tuple[int, ...]], ...]
    coverage: Float[np.ndarray, "G F"]
    confusion: Int[np.ndarray, "G V W"]
    spurious: Float[np.ndarray, "G F"]
    share_error: Float[np.ndarray, "G V"]

    def counts(self, texts: Sequence[str], languages: Sequence[str] | np.ndarray) -> Int[np.ndarray, "n V"]:
        """How many words of each text carry each value.

        Args:
            languages: of each text, the one it should be read as; a language that the judge does not know counts
                nothing.
        """
        at = {name: g for g, name in enumerate(self.languages)}
        out = np.zeros((len(texts), len(self.values)), int)
        for row, (text, language) in enumerate(zip(texts, languages, strict=True)):
            if str(language) in at:
                known = self.forms[at[str(language)]]
                for word in words_of(text):
                    for value in known.get(word, ()):
                        out[row, value] += 1
        return out

    def shares(self, texts: Sequence[str], languages: Sequence[str] | np.ndarray) -> Float[np.ndarray, "n V"]:
        """Of the words of each text that carry a value of a feature, the share of each value; NaN without any."""
        return self.of_feature(self.counts(texts, languages))

    def of_feature(self, counts: Int[np.ndarray, "... V"]) -> Float[np.ndarray, "... V"]:
        """Counts of values as shares of the feature's; NaN where it has none."""
        names = np.array([feature for feature, _ in self.values])
        total = counts @ (names[:, None] == names).astype(int)
        return np.where(total > 0, counts / np.maximum(total, 1), np.nan)

    def index(self, feature: str, value: str) -> int:
        """The column of a value.

        Raises:
            InputError: the judge does not know it.
        """
        if (feature, value) not in self.values:
            known = ", ".join("=".join(pair) for pair in self.values)
            raise InputError(f"the judge does not know {feature}={value}; it knows {known}")
        return self.values.index((feature, value))


def fit_values(
    bank: Treebank, features: Sequence[str] | None = None, seed: int = 0, least: int = LEAST, purity: float = PURITY,
) -> ValueJudge:
    """A judge of the values that the words of a treebank have.

    Three quarters of the documents teach it, on a quarter its errors are counted.

    Args:
        features: tasks of the treebank; default all but parts of speech and orders.
        seed: of the documents.
        least: occurrences with the value that a form needs. purity: their least share of the form's occurrences.

    Raises:
        InputError: the treebank has not the feature, or no form of any language carries it often enough.

    >>> from xlingjax.corpora import mini_world_words
    >>> judge = fit_values(mini_world_words(languages=("eng", "spa"), tasks=("Number", "Tense")))
    >>> judge.values
    (('Number', 'Plur'), ('Number', 'Sing'), ('Tense', 'Past'), ('Tense', 'Pres'))
    >>> judge.counts(["yesterday the dogs saw the horse", "la mujer"], ["eng", "spa"]).tolist()
    [[1, 2, 1, 0], [0, 2, 0, 0]]
    """
    chosen = tuple(features or (task for task in bank.labels if task != "upos" and not task.startswith(ORDER)))
    for feature in chosen:
        if feature not in bank.labels:
            raise InputError(f"the treebank has no labels of {feature!r}; it has {', '.join(bank.labels)}")
    if least < 1 or not 0.5 < purity <= 1:
        raise InputError(f"least is {least} and purity {purity}; give 1 or more, and more than a half")
    values = tuple((feature, value) for feature in chosen
                   for value in sorted(set(bank.labels[feature].tolist()) - {""}))
    names = tuple(dict.fromkeys(bank.languages.tolist()))
    part = document_parts(np.unique(bank.documents, return_inverse=True)[1], bank.languages, LEARN_TEST, seed)
    language, learned = bank.languages[bank.row], part[bank.row] == 0
    forms = [words_of(form) for form in bank.form.tolist()]
    words = np.array([form[0] if len(form) == 1 else "" for form in forms])
    tables = [_table(bank, values, words, np.flatnonzero((language == name) & learned), least, purity)
              for name in names]
    for feature in chosen:
        if not any(values[v][0] == feature for table in tables for held in table.values() for v in held):
            raise InputError(f"no form occurs {least} times with one value of {feature!r}, and nearly always with it; "
                             "give more text, or lower least= or purity=")
    tested = [np.flatnonzero((language == name) & ~learned) for name in names]
    errors = [_errors(bank, chosen, values, words, rows, table) for rows, table in zip(tested, tables)]
    coverage, confusion, spurious, share_error = (np.stack(column) for column in zip(*errors))
    return ValueJudge(names, chosen, values, tuple(tables), coverage, confusion, spurious, share_error)


def _table(
    bank: Treebank, values: Sequence[tuple[str, str]], words: np.ndarray, rows: Int[np.ndarray, "m"], least: int,
    purity: float,
) -> dict[str, tuple[int, ...]]:
    """Form -> the values that nearly all of its occurrences have."""
    total = collections.Counter(words[rows].tolist())
    found: dict[str, list[int]] = {}
    for v, (feature, value) in enumerate(values):
        with_it = collections.Counter(words[rows[bank.labels[feature][rows] == value]].tolist())
        for form, count in with_it.items():
            if form and count >= least and count >= purity * total[form]:
                found.setdefault(form, []).append(v)
    return {form: tuple(held) for form, held in sorted(found.items())}


def _errors(
    bank: Treebank, features: Sequence[str], values: Sequence[tuple[str, str]], words: np.ndarray,
    rows: Int[np.ndarray, "m"], table: Mapping[str, tuple[int, ...]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coverage, confusion, spurious calls and errors of shares of one language, on words never seen."""
    names = np.array([feature for feature, _ in values])
    truth = np.stack([bank.labels[feature][rows] == value for feature, value in values], 1)
    said = np.zeros((len(rows), len(values)), bool)
    for row, word in enumerate(words[rows].tolist()):
        said[row, list(table.get(word, ()))] = True
    same = names[:, None] == names
    judged, labelled = said @ same > 0, truth @ same > 0
    confusion = np.zeros((len(values), len(values) + 1), int)
    confusion[:, :-1] = (truth.T.astype(int) @ said) * same
    confusion[:, -1] = (truth & ~judged).sum(0)
    share = lambda count, total: np.where(total > 0, count / np.maximum(total, 1), np.nan)
    first = [int(np.flatnonzero(names == feature)[0]) for feature in features]
    coverage = share((judged & labelled).sum(0), labelled.sum(0))[first]
    spurious = share((judged & ~labelled).sum(0), judged.sum(0))[first]
    sentence = np.unique(bank.row[rows], return_inverse=True)[1]
    sums = [np.stack([np.bincount(sentence, one[:, v]) for v in range(len(values))], 1) for one in (said, truth)]
    shares = [share(one, one @ same) for one in sums]
    gap = np.abs(shares[0] - shares[1])
    known = ~np.isnan(gap)
    return coverage, confusion, spurious, share(np.where(known, gap, 0).sum(0), known.sum(0))
