"""Minimal pairs: two sentences that differ in one word, whose grammatical value is right in one and wrong in the other.

Those of treebanks swap a word that agrees with another for a form of its own paradigm that differs in one value, as the
treebank itself attests it; `world.pairs` makes those of the embedded corpus.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped

from xlingjax.corpora.conllu import TreebankSentence, parse_conllu, treebank_language
from xlingjax.corpora.files import choose, files_in
from xlingjax.corpora.words import word_places
from xlingjax.errors import InputError

VERB, ADJECTIVE, DETERMINER, TIME = "verb", "adjective", "determiner", "verb and time"
MINIMUM = 20  # pairs of a language and feature
FEATURES = ("Number", "Gender")
SINGULAR_WILL_DO = ("tur",)  # a plural subject may take a singular verb
DOTTED = ("tur", "aze", "azj")  # i and ı have capitals of their own


@dataclasses.dataclass(frozen=True, eq=False)
class MinimalPairs:
    """n pairs of sentences.

    Attributes:
        right, wrong: the sentences. span_right, span_wrong: the characters of the word that differs.
        languages, documents: of each pair.
        features: which value differs, "Number". values: the right one, "Plur".
        kinds: what agrees: "verb", "adjective", "determiner", or "verb and time".
        counts: how often the right and the wrong form occur in the text that `name` says, the pair itself left out.
    """

    right: tuple[str, ...]
    wrong: tuple[str, ...]
    span_right: Int[np.ndarray, "n 2"]
    span_wrong: Int[np.ndarray, "n 2"]
    languages: Shaped[np.ndarray, "n"]
    documents: Shaped[np.ndarray, "n"]
    features: Shaped[np.ndarray, "n"]
    values: Shaped[np.ndarray, "n"]
    kinds: Shaped[np.ndarray, "n"]
    counts: Int[np.ndarray, "n 2"]
    name: str

    def __len__(self) -> int:
        return len(self.right)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything in it."""
        held = [list(value) if isinstance(value, tuple) else value.tolist() if isinstance(value, np.ndarray) else value
                for value in (getattr(self, field.name) for field in dataclasses.fields(self))]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()

    def rows(self, index: np.ndarray) -> "MinimalPairs":
        """The pairs at an int or bool index."""
        index = np.arange(len(self))[index]
        part: dict[str, Any] = {
            field.name: tuple(value[i] for i in index) if isinstance(value, tuple) else value[index]
            for field in dataclasses.fields(self) if not isinstance(value := getattr(self, field.name), str)}
        return dataclasses.replace(self, **part)

    def few(self, count: int, seed: int = 0) -> "MinimalPairs":
        """At most so many pairs of each language and feature, drawn by the seed."""
        order = np.random.default_rng([seed, 97]).permutation(len(self))
        cell = [f"{language} {feature}" for language, feature in zip(self.languages.tolist(), self.features.tolist())]
        kept: list[int] = []
        taken: dict[str, int] = {}
        for index in order.tolist():
            taken[cell[index]] = taken.get(cell[index], 0) + 1
            if taken[cell[index]] <= count:
                kept.append(index)
        return self.rows(np.sort(kept))

    def table(self) -> xr.DataArray:
        """How many pairs each language has of each feature and kind."""
        axes = [list(dict.fromkeys(given.tolist())) for given in (self.features, self.kinds, self.languages)]
        out = np.zeros([len(axis) for axis in axes], int)
        for place in zip(self.features.tolist(), self.kinds.tolist(), self.languages.tolist()):
            out[tuple(axis.index(item) for axis, item in zip(axes, place))] += 1
        return xr.DataArray(out, coords=list(zip(("feature", "kind", "language"), axes)), name="pairs")


class Pair(NamedTuple):
    """One pair, before it is one of many."""

    text: str
    span: tuple[int, int]
    wrong: str  # the form put in its place
    language: str
    document: str
    feature: str
    value: str
    kind: str
    counts: tuple[int, int]


def collected(pairs: Sequence[Pair], name: str) -> MinimalPairs:
    """Pairs as columns."""
    strings = lambda field: np.array([getattr(pair, field) for pair in pairs], str)
    span = np.array([pair.span for pair in pairs], np.int64).reshape(-1, 2)
    length = np.array([len(pair.wrong) for pair in pairs], np.int64)
    return MinimalPairs(
        tuple(pair.text for pair in pairs),
        tuple(pair.text[:pair.span[0]] + pair.wrong + pair.text[pair.span[1]:] for pair in pairs),
        span, np.stack([span[:, 0], span[:, 0] + length], 1), strings("language"), strings("document"),
        strings("feature"), strings("value"), strings("kind"),
        np.array([pair.counts for pair in pairs], np.int64).reshape(-1, 2), name)


def require_enough(pairs: Sequence[Pair], features: Sequence[str] | None, minimum: int, where: str) -> list[Pair]:
    """Without the languages that have fewer than `minimum` pairs of a feature.

    Raises:
        InputError: nothing is left of a feature that was asked for, or where none was asked for, of any.
    """
    found = collections.Counter((pair.feature, pair.language) for pair in pairs)
    kept = {cell for cell, count in found.items() if count >= minimum}
    for feature in features or ():
        if all(one != feature for one, _ in kept):
            held = ", ".join(f"{language} {count}" for (one, language), count in found.items() if one == feature)
            raise InputError(f"no language of {where} has {minimum} minimal pairs in {feature!r} (found: "
                             f"{held or 'none at all'}); leave the feature out, lower minimum=, or give more text")
    if not kept:
        raise InputError(f"no language of {where} has {minimum} minimal pairs in any feature; lower minimum=, or give "
                         "more text")
    return [pair for pair in pairs if (pair.feature, pair.language) in kept]


def read_pairs(
    paths: str | Path | Sequence[str | Path], features: Sequence[str] | None = None,
    languages: Sequence[str] | None = None, minimum: int = MINIMUM,
) -> MinimalPairs:
    """Minimal pairs of treebanks.

    A finite verb or auxiliary agrees with its subject, an adjective (amod) and a determiner (det) with its noun, where
    both have the same value. The word is swapped for the most frequent form of the same lemma and part of speech, and
    of the same values but this one, that the language's files attest, in the casing of the original. Left out is what
    would be right after all, or may be: one of the two forms is attested with both values; the subject or noun is
    written alike with another value; it is coordinated, counted, or one of several subjects; the singular verb of a
    plural Turkish subject. Only words that stand alone in the text are swapped, letters only.

    Args:
        paths: files `<language>...conllu`, or a folder of them.
        features: in which words agree, "Number", "Gender", also "Case" or "Definite"; default Number and Gender, as far
            as there are enough pairs.
        languages: default all.
        minimum: pairs that a language needs in a feature, or the feature is left out in it.

    Raises:
        InputError: a file is malformed, a language unknown, or no language has enough pairs in a feature.

    >>> import tempfile
    >>> rows = {"dogs": "dog NOUN Number=Plur 2 nsubj", "bark": "bark VERB Number=Plur 0 root",
    ...         "dog": "dog NOUN Number=Sing 2 nsubj", "barks": "bark VERB Number=Sing 0 root"}
    >>> def sentence(*forms):
    ...     lines = [f"# sent_id = {forms[0]}", f"# text = {' '.join(forms)}"]
    ...     for number, form in enumerate(forms, 1):
    ...         lemma, upos, feats, head, relation = rows[form].split()
    ...         lines.append("\\t".join([str(number), form, lemma, upos, "_", feats, head, relation, "_", "_"]))
    ...     return "\\n".join([*lines, "", ""])
    >>> path = Path(tempfile.mkdtemp()) / "eng.conllu"
    >>> _ = path.write_text(sentence("dogs", "bark") + sentence("dog", "barks"))
    >>> pairs = read_pairs(path, ["Number"], minimum=2)
    >>> pairs.right, pairs.wrong
    (('dogs bark', 'dog barks'), ('dogs barks', 'dog bark'))
    """
    files: dict[str, list[Path]] = {}
    for path in files_in(paths, (".conllu",)):
        files.setdefault(treebank_language(path), []).append(path)
    pairs: list[Pair] = []
    chosen = choose(languages, files, "language", "the treebanks")
    for language in chosen:
        sentences = [sentence for path in files[language] for sentence in parse_conllu(path)]
        wanted = FEATURES if features is None else features
        attested = _Attested(sentences, wanted, language)
        for sentence in sentences:
            pairs += _pairs(sentence, language, wanted, attested)
    return collected(require_enough(pairs, features, minimum, ", ".join(chosen)), "treebanks")


def values_of(word: tuple[str, ...], language: str) -> Mapping[str, str]:
    """The FEATS of a word of a treebank.

    Older English treebanks mark the number of verbs in the third person singular only; what they leave is the plural.
    """
    feats = _parsed(word[5])
    if language == "eng" and feats.get("Mood") == "Ind" and feats.get("VerbForm") == "Fin" and "Number" not in feats:
        if feats.get("Tense") == "Pres" or word[2] == "be":
            return {**feats, "Number": "Plur", "Person": "3"}
    return feats


@functools.lru_cache(maxsize=65536)
def _parsed(feats: str) -> Mapping[str, str]:
    return dict(pair.split("=", 1) for pair in feats.split("|") if "=" in pair)


class _Attested:
    """What the files of a language show: forms by paradigm and value, values by form, and counts of forms."""

    def __init__(self, sentences: Sequence[TreebankSentence], features: Sequence[str], language: str) -> None:
        self.count: collections.Counter[str] = collections.Counter()
        self.forms: dict[tuple, dict[str, collections.Counter[str]]] = {}
        self.values: dict[tuple[str, str, str], set[str]] = {}
        self.chosen: dict[tuple, str] = {}
        for sentence in sentences:
            for word in sentence.words:
                form, values = lower(word[1], language), values_of(word, language)
                self.count[form] += 1
                for feature in features:
                    if feature in values and "Typo" not in values:
                        cell = self.forms.setdefault(_key(word, values, feature), {})
                        cell.setdefault(values[feature], collections.Counter())[form] += 1
                        self.values.setdefault((feature, word[3], form), set()).add(values[feature])

    def instead(self, key: tuple, form: str, value: str) -> str:
        """The most frequent form of a paradigm with another value, "" where either form has both values."""
        if (key, form, value) not in self.chosen:
            right = self.forms[key][value]
            others: collections.Counter[str] = collections.Counter()
            for other, forms in self.forms[key].items():
                if other != value:
                    others.update(forms)
            found = [other for other in others if other not in right and _letters(other)]
            clear = found and form not in others and _letters(form)
            self.chosen[key, form, value] = min(found, key=lambda one: (-others[one], one)) if clear else ""
        return self.chosen[key, form, value]


def _key(word: tuple[str, ...], values: Mapping[str, str], feature: str) -> tuple:
    return feature, word[2], word[3], frozenset(item for item in values.items() if item[0] != feature)


def _letters(form: str) -> bool:
    return all(unicodedata.category(character)[0] in "LM" for character in form)


def _pairs(
    sentence: TreebankSentence, language: str, features: Sequence[str], attested: _Attested,
) -> Iterator[Pair]:
    places = word_places(sentence)
    for index, controller, kind in _agreeing(sentence, language):
        word, other = sentence.words[index], sentence.words[controller]
        values, theirs = values_of(word, language), values_of(other, language)
        for feature in features:
            value = values.get(feature, "")
            if not value or "," in value or value != theirs.get(feature) or "Typo" in values or index not in places:
                continue
            if attested.values.get((feature, other[3], lower(other[1], language))) != {value}:
                continue
            if kind == VERB and value != "Sing" and language in SINGULAR_WILL_DO:
                continue
            form = lower(word[1], language)
            wrong = attested.instead(_key(word, values, feature), form, value)
            if wrong:
                yield Pair(sentence.text, places[index], cased(word[1], wrong, language), language,
                           sentence.document or f"{language}/{sentence.sent_id}", feature, value, kind,
                           (attested.count[form] - 1, attested.count[wrong]))


def _agreeing(sentence: TreebankSentence, language: str) -> Iterator[tuple[int, int, str]]:
    """(word, what it agrees with, kind), by index, of all words of a sentence that may agree."""
    at = {word[0]: index for index, word in enumerate(sentence.words)}
    children: dict[str, list[tuple[str, ...]]] = {}
    for word in sentence.words:
        children.setdefault(word[6], []).append(word)
    relations = lambda number: {_relation(child) for child in children.get(number, ())}
    for index, word in enumerate(sentence.words):
        relation = _relation(word)
        if relation in ("amod", "det") and word[6] in at and word[3] in ("ADJ", "DET"):
            noun = at[word[6]]
            if sentence.words[noun][3] in ("NOUN", "PROPN") and not relations(word[6]) & {"nummod", "conj"}:
                yield index, noun, ADJECTIVE if relation == "amod" else DETERMINER
        elif word[3] in ("VERB", "AUX") and values_of(word, language).get("VerbForm", "Fin") == "Fin":
            predicate = word[6] if relation in ("aux", "cop") else word[0]
            subjects = [child for child in children.get(predicate, ()) if _relation(child) == "nsubj"]
            if len(subjects) == 1 and not relations(subjects[0][0]) & {"nummod", "conj"}:
                yield index, at[subjects[0][0]], VERB


def _relation(word: tuple[str, ...]) -> str:
    return word[7].split(":")[0]


def lower(form: str, language: str) -> str:
    """Lower case, as the language has it.

    >>> lower("ISI", "tur"), lower("ISI", "eng")
    ('ısı', 'isi')
    """
    return (form.replace("İ", "i").replace("I", "ı") if language in DOTTED else form).lower()


def cased(like: str, form: str, language: str) -> str:
    """A lower-case form in the casing of another.

    >>> cased("Ist", "sind", "deu"), cased("IS", "are", "eng"), cased("Iyi", "iyiler", "tur")
    ('Sind', 'ARE', 'İyiler')
    """
    upper = lambda text: (text.replace("i", "İ") if language in DOTTED else text).upper()
    if len(like) > 1 and like.isupper():
        return upper(form)
    return upper(form[:1]) + form[1:] if like[:1].isupper() else form
