"""Which language is this text in? Judges that may say "undetermined", and how often each errs.

`NgramLanguages` is trained on a corpus at hand and knows its languages only; `LibraryLanguages` is py3langid,
offline, restricted to the languages that are asked for. Both are measured on held-out documents: their
confusion matrix corrects every share that is computed from their verdicts (`kernels.correction`).
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.judging import TRAIN_SET_TEST
from xlingjax.judging.ngrams import hashed_ngrams, normalised
from xlingjax.kernels.resampling import document_parts, independent_blocks

UNDETERMINED = "undetermined"
ORDERS, BUCKETS = (1, 2, 3), 2**15
SMOOTHING = 0.05  # of a count, for n-grams that a language was not seen with
SURE = 0.9  # posterior that a verdict needs
LEAST = 12  # different n-grams that a verdict needs, two or three short words
SEGMENT = 40  # characters, at least, of a segment


class LanguageJudge(Protocol):
    """What says a language."""

    @property
    def names(self) -> tuple[str, ...]: ...
    def verdicts(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class NgramLanguages:
    """Naive Bayes over character n-grams, each counted once a text, for a closed set of languages.

    Once, because text that repeats itself says nothing new. A text is undetermined where it has no letter or fewer
    than 12 different n-grams, where no language has a posterior of 0.9, or where its n-grams, all of them, are under
    its best language nearer to sentences with their letters shuffled than to sentences: broken text.

    Attributes:
        names: G languages.
        log_probability: of each bucket.
        floor: least mean log-probability of an n-gram, halfway between held-out sentences and shuffled ones.
    """

    names: tuple[str, ...]
    log_probability: Float[np.ndarray, "G buckets"]
    floor: Float[np.ndarray, "G"]

    def verdicts(self, texts: Sequence[str]) -> np.ndarray:
        """str[n]: a language, or "undetermined"."""
        out = []
        for text in texts:
            posterior, mean = self._scores(text)
            best = int(posterior.argmax())
            sure = posterior[best] >= SURE and mean[best] >= self.floor[best]
            out.append(self.names[best] if sure else UNDETERMINED)
        return np.array(out, str)

    def _scores(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Posterior, and mean log-probability of a text's n-grams; both [G]."""
        every = hashed_ngrams(text, ORDERS, BUCKETS)
        found = np.unique(every)
        if len(found) < LEAST or not any(character.isalpha() for character in text):
            return np.full(len(self.names), 1 / len(self.names)), np.full(len(self.names), -np.inf)
        total = self.log_probability[:, found].sum(1)
        posterior = np.exp(total - total.max())
        return posterior / posterior.sum(), self.log_probability[:, every].mean(1)


def shuffled(text: str, seed: int) -> str:
    """A text with its letters in random order and its blanks where they were: no text of any language.

    >>> shuffled("two dogs", 0)
    'tso godw'
    """
    characters = np.array(list(text))
    letters = np.flatnonzero(characters != " ")
    characters[letters] = np.random.default_rng([seed, len(text)]).permutation(characters[letters])
    return "".join(characters)


def fit_languages(corpus: Corpus, seed: int = 0) -> tuple[NgramLanguages, Corpus]:
    """A judge of a corpus's languages, and the documents that it never saw, to be tested on.

    Half of the documents train it, a quarter sets its floor, a quarter is left.

    Raises:
        InputError: fewer than two languages, or a language without text in one of the parts.
    """
    names = corpus.language_names
    if len(names) < 2:
        raise InputError(f"corpus {corpus.name!r} has {len(names)} languages; telling languages apart needs two")
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    part = document_parts(blocks, corpus.languages, TRAIN_SET_TEST, seed)
    counts = np.full((len(names), BUCKETS), SMOOTHING)
    for g, name in enumerate(names):
        rows = np.flatnonzero((corpus.languages == name) & (part == 0))
        for row in rows:
            counts[g, np.unique(hashed_ngrams(corpus.texts[row], ORDERS, BUCKETS))] += 1
        for which in range(3):
            if not ((corpus.languages == name) & (part == which)).any():
                raise InputError(f"language {name!r} has too few documents to judge it on others; give four or more")
    log_probability = np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)
    floor = np.zeros(len(names))
    for g, name in enumerate(names):
        texts = [corpus.texts[row] for row in np.flatnonzero((corpus.languages == name) & (part == 1))]
        every = [hashed_ngrams(version, ORDERS, BUCKETS) for text in texts for version in (text, shuffled(text, seed))]
        floor[g] = np.mean([log_probability[g, found].mean() for found in every if len(found)] or [-np.inf])
    return NgramLanguages(names, log_probability, floor), corpus.rows(part == 2)


# ISO 639-3 (or its macrolanguage) -> the two letters that py3langid says.
LIBRARY = dict(pair.split(":") for pair in (
    "afr:af amh:am arb:ar ara:ar asm:as aze:az bel:be bul:bg ben:bn bre:br bos:bs cat:ca ces:cs cym:cy dan:da deu:de "
    "ell:el eng:en epo:eo spa:es est:et eus:eu fas:fa pes:fa fin:fi fao:fo fra:fr gle:ga glg:gl guj:gu heb:he hin:hi "
    "hrv:hr hat:ht hun:hu hye:hy ind:id isl:is ita:it jpn:ja jav:jv kat:ka kaz:kk khm:km kan:kn kor:ko kur:ku kir:ky "
    "lat:la ltz:lb lao:lo lit:lt lav:lv lvs:lv mlg:mg mkd:mk mal:ml mon:mn mar:mr msa:ms zsm:ms mlt:mt nob:nb nep:ne "
    "nld:nl nno:nn nor:no oci:oc ori:or pan:pa pol:pl pus:ps por:pt que:qu ron:ro rus:ru kin:rw sme:se sin:si slk:sk "
    "slv:sl sqi:sq srp:sr swe:sv swa:sw swh:sw tam:ta tel:te tha:th tgl:tl tur:tr uig:ug ukr:uk urd:ur vie:vi vol:vo "
    "wln:wa xho:xh yor:yo zho:zh zul:zu").split())


@dataclasses.dataclass(frozen=True, eq=False)
class LibraryLanguages:
    """py3langid (Barbaresi, after Lui & Baldwin 2012), restricted to some languages; no connection, no training.

    Args:
        names: as corpora name them, "eng" or "eng_Latn".
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        missing = [name for name in self.names if name.split("_")[0] not in LIBRARY]
        if missing:
            raise InputError(f"language {missing[0]!r} is unknown to py3langid; train a judge on your corpus instead")

    @functools.cached_property
    def _identifier(self) -> object:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        found.set_languages(sorted({LIBRARY[name.split("_")[0]] for name in self.names}))
        return found

    def verdicts(self, texts: Sequence[str]) -> np.ndarray:
        """str[n]: a language, or "undetermined" without letters or below a probability of 0.9."""
        of = {LIBRARY[name.split("_")[0]]: name for name in self.names}
        out = []
        for text in texts:
            said, probability = self._identifier.classify(text)  # type: ignore[attr-defined]
            sure = probability >= SURE and any(character.isalpha() for character in text)
            out.append(of[said] if sure else UNDETERMINED)
        return np.array(out, str)


def confusion(
    judge: LanguageJudge, corpus: Corpus, each: int = 300, broken: bool = False,
) -> Int[np.ndarray, "G V"]:
    """Counts of verdicts, languages of the judge and "undetermined" last, on sentences of each language.

    Args:
        corpus: documents that the judge never saw. each: sentences of a language, at most, the first ones.
        broken: the sentences with their letters shuffled, of which none should have a language.
    """
    names = [*judge.names, UNDETERMINED]
    out = np.zeros((len(judge.names), len(names)), int)
    for g, name in enumerate(judge.names):
        rows = np.flatnonzero(corpus.languages == name)[:each]
        texts = [corpus.texts[row] for row in rows]
        said = judge.verdicts([shuffled(text, number) for number, text in enumerate(texts)] if broken else texts)
        out[g] = [(said == verdict).sum() for verdict in names]
    return out


def segments(text: str) -> list[str]:
    """A text in pieces of at least 40 characters, cut after sentences where they end, else between words.

    >>> segments("One two three. Four five six seven eight nine ten eleven twelve. Short.")
    ['One two three. Four five six seven eight nine ten eleven twelve.', 'Short.']
    """
    out, held = [], ""
    for piece in re.findall(r"\S+\s*", text):
        held += piece
        ends = bool(re.search(r"[.!?\u0964\u06d4\u3002]\s*$", held))
        if len(held) >= SEGMENT and (ends or len(held) >= 2 * SEGMENT):
            out.append(held.strip())
            held = ""
    return out + ([held.strip()] if held.strip() else [])


def segment_shares(judge: LanguageJudge, texts: Sequence[str]) -> Float[np.ndarray, "n V"]:
    """Of each text, the share of its letters in segments of each verdict; NaN without letters."""
    names = [*judge.names, UNDETERMINED]
    out = np.zeros((len(texts), len(names)))
    for row, text in enumerate(texts):
        parts = segments(text)
        sizes = [len(normalised(part).replace(" ", "")) for part in parts]
        for size, verdict in zip(sizes, judge.verdicts(parts)):
            out[row, names.index(str(verdict))] += size
    total = out.sum(1, keepdims=True)
    return np.where(total > 0, out / np.maximum(total, 1), np.nan)
