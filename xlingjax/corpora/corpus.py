"""Sentences with language, document, parallel id and labels: what every reader returns."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from xlingjax.corpora.files import near
from xlingjax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """S sentences in G languages, labelled by C concepts.

    Documents are the unit of independence: splits, folds, permutations and bootstraps move whole
    documents. Translations of one document bear one document id, in every language.

    Attributes:
        texts: the S sentences.
        languages: str[S], one code a sentence, the source's own (ISO 639-3 where it has them).
        documents: str[S], document id, shared by translations.
        parallel: str[S], parallel id, shared by translations of one sentence; "" = no translation.
        labels: int8[S, C]; 1 = shows the concept, 0 = does not, -1 = not labelled, does not count.
        concepts: the C names, each once.
        groups: the group of each concept ("topic", "sense", "Number", ...), C of them.
        name: what the corpus is, for reports.
        notes: what a reader of results has to know about how the corpus was read.
        kinds: C of them: among which others a concept has to be told apart. Words of one part of speech
            stand in the same places, and a detector of the place is no detector of the word. Empty =
            all are of one kind.
    """

    texts: tuple[str, ...]
    languages: np.ndarray
    documents: np.ndarray
    parallel: np.ndarray
    labels: np.ndarray
    concepts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    name: str = "corpus"
    notes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.texts)
        for field in ("languages", "documents", "parallel"):
            shape = np.shape(getattr(self, field))
            if shape != (count,):
                raise InputError(f"corpus {self.name!r}: {field} has shape {shape}, not ({count},)")
        if np.shape(self.labels) != (count, len(self.concepts)):
            raise InputError(
                f"corpus {self.name!r}: labels have shape {np.shape(self.labels)}, not "
                f"({count}, {len(self.concepts)}): one row a sentence, one column a concept")
        if len(self.groups) != len(self.concepts):
            raise InputError(
                f"corpus {self.name!r}: {len(self.groups)} groups for {len(self.concepts)} "
                "concepts; give one a concept")
        if len(self.kinds) not in (0, len(self.concepts)):
            raise InputError(
                f"corpus {self.name!r}: {len(self.kinds)} kinds for {len(self.concepts)} "
                "concepts; give one a concept, or none at all")
        if len(set(self.concepts)) != len(self.concepts):
            raise InputError(
                f"corpus {self.name!r}: concept names occur twice; make them distinct")
        if not np.isin(self.labels, (-1, 0, 1)).all():
            raise InputError(f"corpus {self.name!r}: labels must be 1, 0 or -1 (not labelled)")
        self._check_documents()

    def _check_documents(self) -> None:
        """Translations in two documents would stand on both sides of a split by documents."""
        home: dict[str, str] = {}
        for parallel, document in zip(self.parallel.tolist(), self.documents.tolist(), strict=True):
            if not document:
                raise InputError(
                    f"corpus {self.name!r}: a sentence has an empty document id; give each its own "
                    "where nothing is known")
            if parallel and home.setdefault(parallel, document) != document:
                raise InputError(
                    f"corpus {self.name!r}: translations {parallel!r} lie in documents "
                    f"{home[parallel]!r} and {document!r}; translations share one document id")

    def __len__(self) -> int:
        return len(self.texts)

    @functools.cached_property
    def language_names(self) -> tuple[str, ...]:
        """The G languages in order of first appearance."""
        return tuple(dict.fromkeys(self.languages.tolist()))

    def rows(self, index: np.ndarray) -> "Corpus":
        """The sentences at an int or bool index, in that order."""
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return dataclasses.replace(
            self, texts=tuple(self.texts[i] for i in index), languages=self.languages[index],
            documents=self.documents[index], parallel=self.parallel[index],
            labels=self.labels[index])

    def language(self, *names: str) -> "Corpus":
        """The sentences of some languages."""
        for name in names:
            if name not in self.language_names:
                raise InputError(
                    f"language {name!r} is not in corpus {self.name!r}"
                    f"{near(name, self.language_names)}")
        return self.rows(np.isin(self.languages, names))

    def with_concepts(self, names: Sequence[str]) -> "Corpus":
        """The same sentences with some of the concepts, in the order given."""
        for name in names:
            if name not in self.concepts:
                raise InputError(
                    f"concept {name!r} is not in corpus {self.name!r}{near(name, self.concepts)}")
        index = [self.concepts.index(name) for name in names]
        return dataclasses.replace(
            self, labels=self.labels[:, index], concepts=tuple(names),
            groups=tuple(self.groups[i] for i in index),
            kinds=tuple(self.kinds[i] for i in index) if self.kinds else ())

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Sentences that show each concept and that do not: two int[G, C]."""
        parts = [self.labels[self.languages == name] for name in self.language_names]
        shape = (len(parts), len(self.concepts))
        positives = np.array([(part == 1).sum(0) for part in parts], np.int64).reshape(shape)
        negatives = np.array([(part == 0).sum(0) for part in parts], np.int64).reshape(shape)
        return positives, negatives

    def check(self, minimum: int = 1) -> None:
        """Raises `InputError` where a language has too few sentences with or without a concept."""
        if not len(self):
            raise InputError(f"corpus {self.name!r} is empty; it needs sentences")
        if not self.concepts:
            raise InputError(f"corpus {self.name!r} has no concepts; it needs labelled sentences")
        positives, negatives = self.counts()
        few = np.argwhere(np.minimum(positives, negatives) < minimum)
        if len(few):
            named = "; ".join(
                f"{self.concepts[c]!r} in {self.language_names[g]} "
                f"({positives[g, c]} with, {negatives[g, c]} without)" for g, c in few[:5])
            more = f"; and {len(few) - 5} more" if len(few) > 5 else ""
            raise InputError(
                f"corpus {self.name!r}: fewer than {minimum} sentences with or without a concept: "
                f"{named}{more}; leave these concepts or languages out")

    def summary(self) -> str:
        """What the corpus holds, a line a language, then the notes of its reader."""
        positives, negatives = self.counts()
        documents = len(set(self.documents.tolist()))
        text = [f"{self.name}: {len(self)} sentences, {documents} documents, "
                f"{len(self.language_names)} languages, {len(self.concepts)} concepts"]
        for g, name in enumerate(self.language_names):
            rows = self.languages == name
            line = (f"  {name}: {rows.sum()} sentences, {len(np.unique(self.documents[rows]))} "
                    f"documents, {(self.parallel[rows] != '').sum()} with a parallel id")
            if self.concepts:
                line += (f"; positives {positives[g].min()}-{positives[g].max()}, "
                         f"negatives {negatives[g].min()}-{negatives[g].max()}")
            text.append(line)
            missing = [self.concepts[c] for c in
                       np.flatnonzero((positives[g] == 0) | (negatives[g] == 0))]
            if missing:
                text.append(f"    without positives or negatives: {', '.join(missing[:10])}"
                            + (f" and {len(missing) - 10} more" if len(missing) > 10 else ""))
        return "\n".join(text + [f"  note: {note}" for note in self.notes])

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything but name and notes: equal corpora have equal fingerprints."""
        digest = hashlib.sha256()
        for field in (self.texts, self.languages, self.documents, self.parallel, self.concepts,
                      self.groups):
            encoded = json.dumps([str(item) for item in field], ensure_ascii=True)
            digest.update(encoded.encode() + b"\n")
        digest.update(np.ascontiguousarray(self.labels, np.int8).tobytes())
        if self.kinds:
            digest.update(json.dumps(self.kinds).encode())
        return digest.hexdigest()
