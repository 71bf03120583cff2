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
BELOW = 4.0  # standard deviations below held-out sentences at which text is no text of a language
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
    than 12 different n-grams, where no language has a posterior of 0.9, or where it is much less likely under its
    best language than held-out sentences are, four standard deviations (of means in standard errors, so that short
    texts are not rejected for their length): broken text.

    Attributes:
        names: G languages.
        log_probability: of each bucket.
        mean, sd: of the log-probability of an n-gram of held-out text. floor: least standardised mean.
    """

    names: tuple[str, ...]
    log_probability: Float[np.ndarray, "G buckets"]
    mean: Float[np.ndarray, "G"]
    sd: Float[np.ndarray, "G"]
    floor: Float[np.ndarray, "G"]

    def verdicts(self, texts: Sequence[str]) -> np.ndarray:
        """str[n]: a language, or "undetermined"."""
        out = []
        for text in texts:
            posterior, standing = self._scores(text)
            best = int(posterior.argmax())
            sure = posterior[best] >= SURE and standing[best] >= self.floor[best]
            out.append(self.names[best] if sure else UNDETERMINED)
        return np.array(out, str)

    def _scores(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Posterior, and how many standard errors the mean log-probability lies from held-out text's; both [G]."""
        found = distinct(text)
        if len(found) < LEAST or not any(character.isalpha() for character in text):
            return np.full(len(self.names), 1 / len(self.names)), np.full(len(self.names), -np.inf)
        each = self.log_probability[:, found]
        total = each.sum(1)
        posterior = np.exp(total - total.max())
        return posterior / posterior.sum(), (each.mean(1) - self.mean) / (self.sd / np.sqrt(len(found)))


def distinct(text: str) -> Int[np.ndarray, "n"]:
    """The buckets that a text's n-grams fall in, each once."""
    return np.unique(hashed_ngrams(text, ORDERS, BUCKETS))


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
            counts[g, distinct(corpus.texts[row])] += 1
        for which in range(3):
            if not ((corpus.languages == name) & (part == which)).any():
                raise InputError(f"language {name!r} has too few documents to judge it on others; give four or more")
    log_probability = np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)
    zero = np.zeros(len(names))
    judge = NgramLanguages(names, log_probability, zero, zero + 1, zero - np.inf)
    mean, sd, floor = zero.copy(), zero.copy(), zero.copy()
    for g, name in enumerate(names):
        rows = np.flatnonzero((corpus.languages == name) & (part == 1))
        each = [log_probability[g, distinct(corpus.texts[row])] for row in rows]
        every = np.concatenate(each)
        mean[g], sd[g] = every.mean(), max(float(every.std()), 1e-6)
        standing = [(one.mean() - mean[g]) / (sd[g] / np.sqrt(len(one))) for one in each if len(one)]
        floor[g] = np.mean(standing) - BELOW * np.std(standing)
    return dataclasses.replace(judge, mean=mean, sd=sd, floor=floor), corpus.rows(part == 2)


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


def confusion(judge: LanguageJudge, corpus: Corpus, each: int = 300) -> Int[np.ndarray, "G V"]:
    """Counts of verdicts, languages of the judge and "undetermined" last, on sentences of each language.

    Args:
        corpus: documents that the judge never saw. each: sentences of a language, at most, the first ones.
    """
    names = [*judge.names, UNDETERMINED]
    out = np.zeros((len(judge.names), len(names)), int)
    for g, name in enumerate(judge.names):
        rows = np.flatnonzero(corpus.languages == name)[:each]
        said = judge.verdicts([corpus.texts[row] for row in rows])
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
