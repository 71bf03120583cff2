"""Measures of replies that need no person: variety, overlap with what a person said, length, repetition, language.

None of them says that a reply is good: a reply may be apt and share no word with the person's. They are read beside the
person's own replies and beside replies dealt out to other dialogues, which is what is returned.
"""

import collections
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.corpora.dialogues import same_turn
from xlingjax.errors import InputError
from xlingjax.judging.languages import UNDETERMINED, LanguageJudge

HUMAN = "human"
LEVEL = 0.95
DRAWS = 1000
SHUFFLES = 5  # of references, for BLEU and chrF by chance
HALVES = 40  # random halves of the documents, for distinct-n
ORDERS = (1, 2)  # of distinct-n
CHAR_ORDER, BETA = 6, 2  # of chrF


class Exchange(NamedTuple):
    """Where a reply was given: the turn before it, what the person said, and the document (episode)."""

    before: str
    reference: str
    document: str


def distinct(texts: Sequence[str], order: int, words: int | None = None) -> float:
    """Different n-grams as a share of all n-grams of the texts' first `words` words (distinct-n, Li et al. 2016).

    The share falls with the amount of text, so only equal numbers of words compare. NaN without an n-gram.

    >>> distinct(["yes yes", "yes no"], 1), distinct(["a b a b"], 2), distinct(["yes yes", "yes no"], 1, words=2)
    (0.5, 0.6666666666666666, 0.5)
    """
    left = words
    found: list[tuple[str, ...]] = []
    for text in texts:
        parts = same_turn(text).split()[:left]
        if left is not None:
            left -= len(parts)
        found += _ngrams(parts, order)
    return len(set(found)) / len(found) if found else np.nan


def repetition(text: str, order: int = 2) -> float:
    """Share of a reply's n-grams of words that occurred before in it; NaN without an n-gram.

    >>> repetition("I dey go I dey go"), repetition("yes")
    (0.4, nan)
    """
    found = _ngrams(same_turn(text).split(), order)
    return 1 - len(set(found)) / len(found) if found else np.nan


def _ngrams(parts: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(parts[i:i + order]) for i in range(len(parts) - order + 1)]


def measure_replies(
    systems: Mapping[str, Sequence[str]], exchanges: Sequence[Exchange], language: str,
    judge: LanguageJudge | None = None, draws: int = DRAWS, seed: int = 0,
) -> xr.Dataset:
    """Every measure of each system's replies in one language, and of the person's own ("human").

    Dimension `replies`. Variables, most with `_low` and `_high` (95 %, documents drawn with replacement):
    `words`, `characters`: means of a reply; `repetition`: mean share of bigrams that occurred before in the reply;
    `repeated`: share of replies that another dialogue got too; `copied`: share that say the turn before once more;
    `empty`: share without a letter or digit; `bleu`, `chrf`: of sacrebleu, over all replies, NFC, in 0 to 100;
    `distinct_1`, `distinct_2`: at equal words (attribute `distinct_words`), mean and interval over random halves of the
    documents; `right_language`, `undetermined`: shares of the judge's verdicts (the person's row is its ceiling).
    `bleu_chance`, `chrf_chance`, `copied_chance`: the same replies beside exchanges of other documents. BLEU and chrF
    of the person are NaN, as the reference is the same person's.

    Raises:
        InputError: numbers of replies differ, no exchange, one document, or a language that the judge does not know.
    """
    if not systems or not exchanges:
        raise InputError(f"replies in {language}: no system or no exchange to measure")
    if HUMAN in systems:
        raise InputError(f"a system is called {HUMAN!r}, which is the person's row; name it otherwise")
    for name, said in systems.items():
        if len(said) != len(exchanges):
            raise InputError(
                f"{name} has {len(said)} replies to {len(exchanges)} exchanges in {language}; give one to each")
    names, document = np.unique([one.document for one in exchanges], return_inverse=True)
    if len(names) < 2:
        raise InputError(f"replies in {language} come from one document; intervals and chance need two or more")
    if judge is not None and language not in judge.names:
        raise InputError(f"the judge does not know {language!r}; it knows {', '.join(judge.names)}")
    every = {**systems, HUMAN: [one.reference for one in exchanges]}
    counts = np.random.default_rng([seed, 53]).multinomial(len(names), np.full(len(names), 1 / len(names)), draws)
    others = _others(document, seed)
    least = min(sum(len(same_turn(text).split()) for text in said) for said in every.values())
    limit = least // 2
    rows = []
    for name, said in every.items():
        texts = [unicodedata.normalize("NFC", text) for text in said]
        row = _means(texts, exchanges, document, counts, language, judge)
        row |= _overlap(texts, exchanges, document, counts, others, name == HUMAN)
        for order in ORDERS:
            row |= _interval(f"distinct_{order}", *_halved(texts, document, order, limit, seed))
        rows.append(row)
    return xr.Dataset(
        {name: ("replies", [row[name] for row in rows]) for name in rows[0]}, {"replies": list(every)},
        {"language": language, "distinct_words": limit, "level": LEVEL, "draws": draws, "seed": seed, **_signatures()})


def _means(
    texts: Sequence[str], exchanges: Sequence[Exchange], document: Int[np.ndarray, "n"],
    counts: Int[np.ndarray, "draws d"], language: str, judge: LanguageJudge | None,
) -> dict[str, float]:
    """Means over replies, resampled by document."""
    plain = [same_turn(text) for text in texts]
    homes: dict[str, set[int]] = collections.defaultdict(set)
    for text, home in zip(plain, document.tolist()):
        homes[text].add(home)
    values = {
        "words": [len(text.split()) for text in plain], "characters": [len(text) for text in texts],
        "repetition": [repetition(text) for text in texts], "repeated": [len(homes[text]) > 1 for text in plain],
        "copied": [text != "" and text == same_turn(one.before) for text, one in zip(plain, exchanges)],
        "empty": [not any(map(str.isalnum, text)) for text in texts]}
    if judge is not None:
        said = judge.verdicts(texts)
        values |= {"right_language": (said == language).tolist(), "undetermined": (said == UNDETERMINED).tolist()}
    out: dict[str, float] = {}
    for name, found in values.items():
        value = np.array(found, float)
        there = np.isfinite(value)
        total, size = (np.bincount(document, weights, counts.shape[1]) for weights in (
            np.where(there, value, 0), there.astype(float)))
        with np.errstate(invalid="ignore", divide="ignore"):
            out |= _interval(name, float(total.sum() / size.sum()), counts @ total / (counts @ size))
    return out


def _overlap(
    texts: Sequence[str], exchanges: Sequence[Exchange], document: Int[np.ndarray, "n"],
    counts: Int[np.ndarray, "draws d"], others: Int[np.ndarray, "shuffles n"], human: bool,
) -> dict[str, float]:
    """BLEU and chrF with intervals; by chance, where each reply stands beside the exchange of another document."""
    from sacrebleu.metrics import BLEU, CHRF

    references = [unicodedata.normalize("NFC", one.reference) for one in exchanges]
    before = [same_turn(one.before) for one in exchanges]
    bleu, chrf = BLEU(), CHRF(char_order=CHAR_ORDER, beta=BETA)
    out: dict[str, float] = {}
    if human:
        for name in ("bleu", "chrf"):
            out |= _interval(name, np.nan, np.full(2, np.nan))
    else:
        parts = _by_document(bleu_parts(texts, references), document)
        out |= _interval("bleu", bleu.corpus_score(texts, [references]).score, bleu_of(counts @ parts))
        parts = _by_document(chrf_parts(texts, references), document)
        out |= _interval("chrf", chrf.corpus_score(texts, [references]).score, chrf_of(counts @ parts))
    shuffled = [[references[i] for i in row] for row in others]
    out["bleu_chance"] = float(np.mean([bleu.corpus_score(texts, [row]).score for row in shuffled]))
    out["chrf_chance"] = float(np.mean([chrf.corpus_score(texts, [row]).score for row in shuffled]))
    out["copied_chance"] = float(np.mean([
        text != "" and text == before[i] for row in others for text, i in zip(map(same_turn, texts), row)]))
    return out


def bleu_parts(texts: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "n 10"]:
    """Matches and n-grams of orders 1 to 4, then words of reply and reference: what corpus BLEU is a function of."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(text, [reference]) for text, reference in zip(texts, references)]
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in scores], float)


def bleu_of(parts: Float[np.ndarray, "draws 10"]) -> Float[np.ndarray, "draws"]:
    """Corpus BLEU of summed parts, by sacrebleu."""
    from sacrebleu.metrics import BLEU

    return np.array([BLEU.compute_bleu(
        correct=[int(x) for x in row[:4]], total=[int(x) for x in row[4:8]], sys_len=int(row[8]), ref_len=int(row[9]),
        smooth_method="exp").score for row in parts])


def chrf_parts(texts: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "n 18"]:
    """Character n-grams of replies, references and common to both, orders 1 to 6, without blanks.

    A reply shorter than an order, or a reference, gives that order no n-grams at all, as in sacrebleu.
    """
    out = np.zeros((len(texts), CHAR_ORDER, 3))
    for row, pair in enumerate(zip(texts, references)):
        ours, theirs = ("".join(text.split()) for text in pair)
        for order in range(1, CHAR_ORDER + 1):
            said, wanted = (collections.Counter(text[i:i + order] for i in range(len(text) - order + 1))
                            for text in (ours, theirs))
            out[row, order - 1] = said.total() if wanted else 0, wanted.total(), (said & wanted).total()
    return out.reshape(len(texts), -1)


def chrf_of(parts: Float[np.ndarray, "draws 18"]) -> Float[np.ndarray, "draws"]:
    """Corpus chrF of summed parts (Popovic 2015): F of mean precision and recall over the orders that both have."""
    said, wanted, both = np.moveaxis(parts.reshape(len(parts), CHAR_ORDER, 3), 2, 0)
    there = (said > 0) & (wanted > 0)
    orders = np.maximum(there.sum(1), 1)
    precision, recall = (np.where(there, both / np.maximum(size, 1), 0).sum(1) / orders for size in (said, wanted))
    below = BETA**2 * precision + recall
    return 100 * np.where(below > 0, (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1), 0)


def _by_document(parts: Float[np.ndarray, "n p"], document: Int[np.ndarray, "n"]) -> Float[np.ndarray, "d p"]:
    out = np.zeros((document.max() + 1, parts.shape[1]))
    np.add.at(out, document, parts)
    return out


def _others(document: Int[np.ndarray, "n"], seed: int) -> Int[np.ndarray, "shuffles n"]:
    """For each exchange one of another document."""
    generator = np.random.default_rng([seed, 59])
    rows = np.arange(len(document))
    pools = {one: rows[document != one] for one in np.unique(document).tolist()}
    return np.array([[generator.choice(pools[one]) for one in document.tolist()] for _ in range(SHUFFLES)])


def _halved(
    texts: Sequence[str], document: Int[np.ndarray, "n"], order: int, words: int, seed: int,
) -> tuple[float, Float[np.ndarray, "halves"]]:
    """distinct-n of the first `words` words of random orders of the documents, about half of them."""
    generator = np.random.default_rng([seed, 67])
    rows = [np.argsort(generator.permutation(document.max() + 1)[document], kind="stable") for _ in range(HALVES)]
    found = np.array([distinct([texts[i] for i in row], order, words) for row in rows])
    return float(found.mean()), found


def _interval(name: str, value: float, drawn: Float[np.ndarray, "draws"]) -> dict[str, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if np.isfinite(drawn).all() else (np.nan, np.nan)
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def _signatures() -> dict[str, str]:
    from sacrebleu import __version__

    return {"bleu_signature": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{__version__}",
            "chrf_signature": f"nrefs:1|case:mixed|eff:yes|nc:{CHAR_ORDER}|nw:0|space:no|version:{__version__}"}
