"""Which words stand for a grammatical value in a language, and what each document is for.

Examples are words that carry the feature: positives have the value, negatives another value of the same feature. So
neither the length of a sentence nor "has at least one such word" can stand in for it. Documents choose latents, train
probes or test; translations share a document, so the split is one and the same in all languages.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Int8

from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.corpora.files import near
from xlingjax.corpora.words import ORDER, Treebank
from xlingjax.errors import InputError
from xlingjax.kernels.resampling import document_parts

PARTS = ("choose", "train", "test")
CHOOSE, TRAIN, TEST = range(3)


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """V values in G languages, and the n words that stand for any of them.

    Attributes:
        values: "Number=Plur". features: "Number".
        used: cells with enough words.
        words: indices into the treebank's words, rising. language, part, document: of each, as numbers.
        side: 1 = has the value, 0 = has another one, -1 = is no example of it, in its own language.
        counts: words by value, language, part and side.
        left_out: what was left out, and why, a sentence each.
    """

    values: tuple[str, ...]
    features: tuple[str, ...]
    languages: tuple[str, ...]
    used: Bool[np.ndarray, "V G"]
    words: Int[np.ndarray, "n"]
    language: Int[np.ndarray, "n"]
    part: Int[np.ndarray, "n"]
    document: Int[np.ndarray, "n"]
    side: Int8[np.ndarray, "V n"]
    counts: Int[np.ndarray, "V G 3 2"]
    left_out: tuple[str, ...]

    def of(self, value: int, language: int, part: int) -> tuple[Int[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
        """Places among `words` of a cell's examples in one part, and which of them have the value."""
        at = np.flatnonzero((self.side[value] >= 0) & (self.language == language) & (self.part == part))
        return at, self.side[value][at] == 1

    def any_of(self, language: int, *parts: int) -> Int[np.ndarray, "m"]:
        """Places among `words` of the examples of any value that the language has."""
        values = np.flatnonzero(self.used[:, language])
        inside = (self.side[values] >= 0).any(0)
        return np.flatnonzero(inside & (self.language == language) & np.isin(self.part, parts))


def wanted_values(bank: Treebank, settings: FeatureSettings) -> list[str]:
    """The values asked for, or all of the features that the treebank was read with.

    Raises:
        InputError: a value does not occur.
    """
    every = [f"{task}={value}" for task, labels in bank.labels.items() if task != "upos" and not task.startswith(ORDER)
             for value in np.unique(labels) if value]
    for value in settings.values:
        if value not in every:
            raise InputError(f"value {value!r} occurs with no word of the treebanks{near(value, every)}")
    if not every:
        raise InputError(f"the treebanks were read with the tasks {', '.join(bank.labels)}, none of them a feature; "
                         "read them with features, for example Number")
    return list(settings.values) or every


def make_cells(bank: Treebank, known: Bool[np.ndarray, "N"], settings: FeatureSettings) -> Cells:
    """The cells of a treebank that have enough words in all three parts of the documents.

    Args:
        known: words of the treebank that have tokens.

    Raises:
        InputError: a value does not occur, fewer than three documents, or no value is left in two languages.
    """
    values = wanted_values(bank, settings)
    languages = tuple(dict.fromkeys(bank.languages.tolist()))
    language = np.array([languages.index(name) for name in bank.languages.tolist()])[bank.row]
    block = np.unique(bank.documents, return_inverse=True)[1]
    part = document_parts(block, bank.languages, settings.shares, settings.seed)[bank.row]
    order = np.random.default_rng([settings.seed, 51]).permutation(len(bank.row))
    least = (settings.minimum, settings.minimum, settings.tested)
    side = np.full((len(values), len(bank.row)), -1, np.int8)
    counts = np.zeros((len(values), len(languages), 3, 2), int)
    left_out = []
    for v, name in enumerate(values):
        feature, _, value = name.partition("=")
        labels = bank.labels[feature]
        for g, code in enumerate(languages):
            inside = known & (labels != "") & (language == g)
            for p in range(3):
                for has in (0, 1):
                    rows = np.flatnonzero(inside & (part == p) & ((labels == value) == bool(has)))
                    counts[v, g, p, has] = len(rows)
                    side[v, rows[np.argsort(order[rows])[:settings.words]]] = has
            few = [f"{counts[v, g, p, has]} {('without', 'with')[has]} it in documents that {PARTS[p]}"
                   for p in range(3) for has in (1, 0) if counts[v, g, p, has] < least[p]]
            if few and counts[v, g, :, 1].any():
                left_out.append(f"{name} in {code}: {few[0]}, fewer than {least[0 if 'test' not in few[0] else 2]}")
    used = np.all(counts >= np.array(least)[:, None], axis=(2, 3))
    alone = used.any(1) & (used.sum(1) < 2)
    left_out += [f"{values[v]}: only {languages[int(used[v].argmax())]} has enough words"
                 for v in np.flatnonzero(alone)]
    kept = np.flatnonzero(used.sum(1) >= 2)
    if not len(kept):
        raise InputError(
            f"no value has {settings.minimum} words with it and {settings.minimum} with another one in two languages, "
            f"in both parts of the documents that need them ({settings.tested} in the third); "
            f"{left_out[0] if left_out else 'the treebanks are small'}: give more text or a smaller minimum")
    used, side, counts = used[kept], side[kept], counts[kept]
    side = np.where(used[:, language], side, -1).astype(np.int8)
    words = np.flatnonzero((side >= 0).any(0))
    names = tuple(values[v] for v in kept)
    return Cells(names, tuple(name.partition("=")[0] for name in names), languages, used, words, language[words],
                 part[words], block[bank.row[words]], side[:, words], counts, tuple(left_out))
