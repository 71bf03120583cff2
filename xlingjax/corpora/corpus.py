"""Sentences with language, document, parallel id and labels: what every reader returns."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np

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
    """

    texts: tuple[str, ...]
    languages: np.ndarray
    documents: np.ndarray
    parallel: np.ndarray
    labels: np.ndarray
    concepts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    name: str = "corpus"

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
        if len(set(self.concepts)) != len(self.concepts):
            raise InputError(
                f"corpus {self.name!r}: concept names occur twice; make them distinct")
        if not np.isin(self.labels, (-1, 0, 1)).all():
            raise InputError(f"corpus {self.name!r}: labels must be 1, 0 or -1 (not labelled)")

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
                    f"language {name!r} is not in corpus {self.name!r}; "
                    f"it has {', '.join(self.language_names)}")
        return self.rows(np.isin(self.languages, names))

    def with_concepts(self, names: Sequence[str]) -> "Corpus":
        """The same sentences with some of the concepts, in the order given."""
        for name in names:
            if name not in self.concepts:
                known = ", ".join(self.concepts[:20]) + (", ..." if len(self.concepts) > 20 else "")
                raise InputError(
                    f"concept {name!r} is not in corpus {self.name!r}; it has {known}")
        index = [self.concepts.index(name) for name in names]
        return dataclasses.replace(
            self, labels=self.labels[:, index], concepts=tuple(names),
            groups=tuple(self.groups[i] for i in index))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything but the name: equal corpora have equal fingerprints."""
        digest = hashlib.sha256()
        for field in (self.texts, self.languages, self.documents, self.parallel, self.concepts,
                      self.groups):
            encoded = json.dumps([str(item) for item in field], ensure_ascii=True)
            digest.update(encoded.encode() + b"\n")
        digest.update(np.ascontiguousarray(self.labels, np.int8).tobytes())
        return digest.hexdigest()
