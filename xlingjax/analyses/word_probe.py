"""What a layer knows of words, and whether a probe for it that was trained in one language works in another.

One linear probe for each language and layer, tested on held-out documents of every language (the transfer matrix).
Beside it: the most frequent class, a look-up of word forms, words whose form the probe never saw, and a control task
with a random label for each form (Hewitt & Liang 2019), which a probe can only solve by knowing the form. How easily
the task is learned is a code length (Voita & Titov 2020); how few units carry it, and whether they are the same in two
languages, is asked of probes on nested sets of units.
"""

import dataclasses
import fractions
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped

from xlingjax.analyses.checkpoints import join_checkpoints, over_checkpoints
from xlingjax.analyses.reading import longest
from xlingjax.analyses.sources import Source
from xlingjax.corpora.tokenising import tokenise
from xlingjax.corpora.words import Treebank, word_positions
from xlingjax.errors import InputError, require_least
from xlingjax.files import claim, slug
from xlingjax.kernels.probing import fit_probes
from xlingjax.kernels.resampling import document_parts
from xlingjax.models import Model
from xlingjax.responses.jobs import BATCH_TOKENS
from xlingjax.responses.states import collect_tokens

ALIGNMENTS = ("first", "mean")
SIZES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training words, where the code's blocks end
NESTED = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # units of the nested probes
COVER = 0.01  # of the uniform distribution in the code
COMPARED = 20  # units whose overlap between languages is counted


@dataclasses.dataclass(frozen=True)
class WordProbeSettings:
    """How words are sampled and probes trained.

    Attributes:
        words: of each language and task, at most; drawn among all that have a label.
        minimum: words that a class needs in a language, and a language needs two such classes.
        held_out: share of the documents that probes are tested on, in tenths.
        align: a word's vector is that of its "first" token, or the "mean" of its tokens.
        l2: penalty on squared weights against the sum of losses, on features of unit variance.
        bootstraps: draws of documents for the intervals.
        seed: of words, documents and control labels.
        batch_tokens: of a batch of sentences.
    """

    words: int = 800
    minimum: int = 20
    held_out: float = 0.3
    align: str = "first"
    l2: float = 1.0
    bootstraps: int = 200
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        if self.align not in ALIGNMENTS:
            raise InputError(f"align {self.align!r} is unknown; choose among {', '.join(ALIGNMENTS)}")
        require_least(self, {"words": 50, "minimum": 2, "l2": 0, "bootstraps": 0, "seed": 0, "batch_tokens": 1})
        if not 0.1 <= self.held_out <= 0.9:
            raise InputError(f"held_out is {self.held_out}; give a share of documents from 0.1 to 0.9")


def probe_words(
    sources: Sequence[Source], bank: Treebank, settings: WordProbeSettings, workdir: str | Path, *,
    dtype: str = "float32", tokenizer: Any = None, say: Callable[[str], None] | None = None,
) -> xr.DataTree:
    """`word_probes` of every checkpoint. Killed and called again, it goes on with the one it was at.

    Args:
        dtype: of the forward pass.
        tokenizer: folder or repository of the tokenizer, where the checkpoints bring none.
        say: gets one line a checkpoint.

    Returns:
        `words/TASK` along `checkpoint`.

    Raises:
        InputError: checkpoints, treebanks and settings do not fit, or the workdir holds another experiment.
    """
    say = say or (lambda text: None)
    identity = {"treebanks": bank.fingerprint, "settings": dataclasses.asdict(settings), "dtype": dtype,
                "tokenizer": str(tokenizer)}
    with claim(Path(workdir), identity, "words") as folder:
        found = over_checkpoints(
            sources, folder, lambda model, home: {
                f"words/{slug(task)}": one for task, one in word_probes(model, bank, settings).items()},
            dtype, tokenizer, lambda number, source, made: say(f"{number + 1}/{len(sources)} {source.label}"))
    tree = xr.DataTree.from_dict(join_checkpoints(found, sources))
    tree.attrs = {"model": sources[0].name, "corpus_fingerprint": bank.fingerprint,
                  "settings": json.dumps(dataclasses.asdict(settings))}
    return tree


def word_probes(
    model: Model, bank: Treebank, settings: WordProbeSettings = WordProbeSettings(),
) -> dict[str, xr.Dataset]:
    """Task -> `word_probe` of the embedding and every layer of a model.

    Raises:
        InputError: the tokenizer is missing or slow, or a task has fewer than two languages with two classes.
    """
    if model.tokenizer is None:
        raise InputError(f"model {model.name!r} has no tokenizer; name one with tokenizer=")
    tokens = tokenise(model.tokenizer, bank.texts, longest(model))
    places = word_positions(model.tokenizer, bank, tokens)
    language = bank.languages[bank.row]
    chosen = {task: sample_words(labels, language, places[:, 0] >= 0, settings, number)
              for number, (task, labels) in enumerate(bank.labels.items())}
    words = np.unique(np.concatenate(list(chosen.values())))
    states = word_states(model, tokens, bank, places, words, settings)
    blocks = np.unique(bank.documents, return_inverse=True)[1][bank.row]
    out = {}
    for task, index in chosen.items():
        at = np.searchsorted(words, index)
        out[task] = word_probe(states[:, at], bank.labels[task][index], language[index], blocks[index],
                               bank.form[index], settings).assign_attrs(task=task)
    return out


def sample_words(
    labels: Shaped[np.ndarray, "n"], language: Shaped[np.ndarray, "n"], known: Bool[np.ndarray, "n"],
    settings: WordProbeSettings, number: int,
) -> Int[np.ndarray, "m"]:
    """Words of a task: equally many in every language that has two classes often enough.

    Args:
        labels: "" where the task does not apply. known: words with tokens. number: of the task, for its own draw.

    Raises:
        InputError: fewer than two languages have two such classes.
    """
    rng = np.random.default_rng([settings.seed, 37, number])
    found = {}
    for name in dict.fromkeys(language.tolist()):
        rows = np.flatnonzero((language == name) & known & (labels != ""))
        values, counts = np.unique(labels[rows], return_counts=True)
        kept = values[counts >= settings.minimum]
        if len(kept) > 1:
            found[name] = rows[np.isin(labels[rows], kept)]
    if len(found) < 2:
        raise InputError(
            f"{len(found)} languages have two classes of this task with {settings.minimum} words each, and two are "
            f"needed (labels: {', '.join(sorted(set(labels.tolist()) - {''})[:8])}); leave the task out, or give more "
            "text")
    size = min(settings.words, *(len(rows) for rows in found.values()))
    return np.sort(np.concatenate([rng.permutation(rows)[:size] for rows in found.values()]))


def word_states(
    model: Any, tokens: Any, bank: Treebank, places: Int[np.ndarray, "n 2"], words: Int[np.ndarray, "m"],
    settings: WordProbeSettings,
) -> Float[np.ndarray, "L m D"]:
    """A vector for each word at the embedding and after every layer."""
    first, last = places[words].T
    count = np.ones(len(words), int) if settings.align == "first" else last - first + 1
    of = np.repeat(np.arange(len(words)), count)
    place = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    row = bank.row[words][of]
    wanted = [np.empty(0, np.int64)] * len(bank.texts)
    order = np.lexsort((place, row))
    cuts = np.searchsorted(row[order], np.arange(len(bank.texts) + 1))
    for sentence in np.unique(row):
        wanted[sentence] = np.unique(place[order[cuts[sentence]:cuts[sentence + 1]]])
    found = collect_tokens(model, tokens, wanted, batch_tokens=settings.batch_tokens)
    widest = max(len(ids) for ids in tokens.ids)
    at = np.searchsorted(found.rows * widest + found.positions, row * widest + place)
    sums = np.add.reduceat(found.states[:, at], np.cumsum(count) - count, axis=1)
    return sums / count[:, None].astype(np.float32)


def word_probe(
    states: Float[np.ndarray, "L n D"], labels: Shaped[np.ndarray, "n"], language: Shaped[np.ndarray, "n"],
    documents: Int[np.ndarray, "n"], forms: Shaped[np.ndarray, "n"],
    settings: WordProbeSettings = WordProbeSettings(),
) -> xr.Dataset:
    """Probes of one task in every language and layer, and what stands beside them.

    Args:
        states: equally many words of every language.
        documents: of each word; translations share one, and a held-out document is held out in all languages.
        forms: as written; types of the control task and of the look-up.

    Returns:
        `accuracy[layer, language, language_b]`: balanced (mean recall over the classes that both languages have),
        trained in `language`, tested on held-out documents of `language_b`; with `_low`, `_high` over documents;
        `chance`. By `layer` and `language`: `unseen`, accuracy on forms that training lacks; `control`, that of the
        control task, and `selectivity`, accuracy minus it, both over words whose form training has; `compression` of
        the labels by the prequential code. By `language`:
        `majority`, `lookup`, `tested` and `tested_unseen` words. `nested[layer, language, units]` and
        `units_shared[layer, language, language_b]` of the 20 units with the largest weights, `units_chance`. NaN where
        a layer is not finite or a subset empty.
    """
    names = list(dict.fromkeys(language.tolist()))
    classes, y = np.unique(labels, return_inverse=True)
    out_of = fractions.Fraction(settings.held_out).limit_denominator(10)
    shares = (out_of.denominator - out_of.numerator, out_of.numerator)
    part = document_parts(documents, language, shares, settings.seed)
    finite = np.isfinite(states).all((1, 2))
    scale = np.where(finite, states.std(1).mean(1), 1).astype(np.float32)[:, None, None]
    unit = states.std(1, keepdims=True)
    x = np.where(finite[:, None, None], (states - states.mean(1, keepdims=True)) / np.where(unit > 0, unit, scale), 0)
    train = [np.flatnonzero((language == name) & (part == 0)) for name in names]
    test = [np.flatnonzero((language == name) & (part == 1)) for name in names]
    size = min(map(len, train))
    rng = np.random.default_rng([settings.seed, 41])
    train = [rng.permutation(rows)[:size] for rows in train]
    _, kinds = np.unique(forms, return_inverse=True)
    ends = np.unique(np.maximum(len(classes), np.rint(np.array(SIZES) * size).astype(int)))
    fitted = [_fit(x[:, rows], y[rows], _control(y[rows], kinds[rows], rng), ends, len(classes), settings.l2)
              for rows in train]  # one compiled program: every language has as many words
    out: dict[str, Any] = _transfer(x, y, fitted, test, train, documents, settings)
    out |= _beside(x, y, kinds, fitted, train, test, ends, len(classes))
    out |= _nested(x, y, fitted, train, test, settings.l2)
    for name, (dims, values) in out.items():
        if "layer" in dims:
            out[name] = (dims, np.where(finite.reshape(-1, *[1] * (len(dims) - 1)), values, np.nan))
    return xr.Dataset(out, coords={
        "layer": np.arange(len(states)), "language": names, "language_b": names,
        "units": [k for k in NESTED if k <= states.shape[-1]]}).assign_attrs(
        classes=json.dumps(classes.tolist()), settings=json.dumps(dataclasses.asdict(settings)), trained=size,
        units_chance=min(COMPARED, states.shape[-1]) / states.shape[-1],
        interval=f"95 % over documents, {settings.bootstraps} draws")


@dataclasses.dataclass(frozen=True, eq=False)
class _Fitted:
    """Probes of one language: on all its training words, on the first of them, and of the control task."""

    full: np.ndarray  # [L, D + 1, C]
    first: np.ndarray  # [L, blocks, D + 1, C]
    control: np.ndarray
    control_labels: np.ndarray  # of the training words


def _control(y: Int[np.ndarray, "n"], kinds: Int[np.ndarray, "n"], rng: np.random.Generator) -> np.ndarray:
    """A random label for each form, drawn as often as the task's own labels occur."""
    return rng.permutation(y)[np.unique(kinds, return_inverse=True)[1] % len(y)]


def _fit(
    x: Float[np.ndarray, "L m D"], y: Int[np.ndarray, "m"], control: Int[np.ndarray, "m"], ends: Int[np.ndarray, "b"],
    classes: int, l2: float,
) -> _Fitted:
    """The words are in random order, so the first of them are a random sample of any size."""
    runs = np.stack([y] * len(ends) + [control])
    weight = np.ones(runs.shape, np.float32)
    for row, end in enumerate(ends):
        weight[row, end:] = 0
    w = np.asarray(fit_probes(x.astype(np.float32), runs, weight, classes, l2))
    return _Fitted(w[:, len(ends) - 1], w[:, :len(ends)], w[:, -1], control)


def _predicted(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class of each word by layer, and the log-probability of every class."""
    logits = np.einsum("lnd,ldc->lnc", x, w[:, :-1], optimize=True) + w[:, None, -1]
    logits -= logits.max(-1, keepdims=True)
    return logits.argmax(-1), logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _recall(
    right: np.ndarray, y: np.ndarray, wanted: Sequence[int] | np.ndarray, weight: np.ndarray | None = None,
) -> np.ndarray:
    """Mean over classes of the share that is right, [..., draws] with weights [n, draws]; NaN for a missing class."""
    weight = np.ones((len(y), 1)) if weight is None else weight
    each = []
    for one in wanted:
        rows = y == one
        total = weight[rows].sum(0)
        each.append(np.where(total > 0, right[..., rows] @ weight[rows] / np.maximum(total, 1e-9), np.nan))
    with np.errstate(invalid="ignore"):
        return np.mean(each, axis=0) if each else np.full((*right.shape[:-1], weight.shape[1]), np.nan)


def _transfer(
    x: np.ndarray, y: np.ndarray, fitted: Sequence[_Fitted], test: Sequence[np.ndarray], train: Sequence[np.ndarray],
    documents: np.ndarray, settings: WordProbeSettings,
) -> dict[str, Any]:
    layers, count = len(x), len(fitted)
    found, low, high = (np.full((layers, count, count), np.nan) for _ in range(3))
    chance = np.full((count, count), np.nan)
    blocks, block = np.unique(documents, return_inverse=True)
    rng = np.random.default_rng([settings.seed, 43])
    drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), max(settings.bootstraps, 1)).T
    for b, rows in enumerate(test):
        for a, probe in enumerate(fitted):
            common = np.intersect1d(y[train[a]], y[rows])
            if len(common) < 2:
                continue
            right = _predicted(x[:, rows], probe.full)[0] == y[rows]
            found[:, a, b] = _recall(right, y[rows], common)[:, 0]
            chance[a, b] = 1 / len(common)
            if settings.bootstraps:
                draws = _recall(right, y[rows], common, drawn[block[rows]].astype(float))
                with np.errstate(invalid="ignore"):
                    low[:, a, b], high[:, a, b] = np.nanquantile(draws, (0.025, 0.975), axis=1)
    axes = ("layer", "language", "language_b")
    return {"accuracy": (axes, found), "accuracy_low": (axes, low), "accuracy_high": (axes, high),
            "chance": (axes[1:], chance)}


def _beside(
    x: np.ndarray, y: np.ndarray, kinds: np.ndarray, fitted: Sequence[_Fitted], train: Sequence[np.ndarray],
    test: Sequence[np.ndarray], ends: np.ndarray, classes: int,
) -> dict[str, Any]:
    """What stands beside a language's own probe."""
    by: dict[str, list[Any]] = {name: [] for name in (
        "unseen", "control", "selectivity", "compression", "majority", "lookup", "tested", "tested_unseen")}
    for probe, learned, held in zip(fitted, train, test):
        common = np.intersect1d(y[learned], y[held])
        right = _predicted(x[:, held], probe.full)[0] == y[held]
        new = ~np.isin(kinds[held], kinds[learned])
        own = np.intersect1d(common, y[held][new])
        unseen = _recall(right[:, new], y[held][new], own)[:, 0] if len(own) > 1 else np.full(len(x), np.nan)
        by["unseen"].append(unseen)
        table = dict(zip(kinds[learned].tolist(), probe.control_labels.tolist()))
        known = np.array([kind in table for kind in kinds[held].tolist()], bool)
        wanted = np.array([table.get(kind, -1) for kind in kinds[held].tolist()])
        with np.errstate(invalid="ignore"):
            control, same = (np.where(known.any(), hit[:, known].sum(1) / known.sum(), np.nan) for hit in (
                _predicted(x[:, held], probe.control)[0] == wanted, right))
        by["control"].append(control)
        by["selectivity"].append(same - control)
        by["compression"].append(_compression(x[:, learned], y[learned], probe, ends, classes))
        values, counts = np.unique(y[learned], return_counts=True)
        most = values[counts.argmax()]
        by["majority"].append(_recall((np.full(len(held), most) == y[held])[None], y[held], common)[0, 0])
        votes: dict[int, np.ndarray] = {}
        for kind, label in zip(kinds[learned].tolist(), y[learned].tolist()):
            votes.setdefault(kind, np.zeros(classes))[label] += 1
        said = np.array([votes[kind].argmax() if kind in votes else most for kind in kinds[held].tolist()])
        by["lookup"].append(_recall((said == y[held])[None], y[held], common)[0, 0])
        by["tested"].append(len(held))
        by["tested_unseen"].append(int(new.sum()))
    layered = {"unseen", "control", "selectivity", "compression"}
    return {name: (("layer", "language"), np.stack(values, 1)) if name in layered else (("language",), np.array(values))
            for name, values in by.items()}


def _compression(
    x: np.ndarray, y: np.ndarray, probe: _Fitted, ends: np.ndarray, classes: int,
) -> Float[np.ndarray, "L"]:
    """How many times shorter the labels are by the prequential code than without a model.

    The first block costs log2 of the number of classes a word; each further block what the probe trained on
    all before it says of it (Voita & Titov 2020, section 3.2).
    """
    uniform = np.log2(classes)
    bits = np.full(len(x), ends[0] * uniform)
    for block, (start, end) in enumerate(zip(ends[:-1], ends[1:])):
        _, log_p = _predicted(x[:, start:end], probe.first[:, block])
        # A class that no word has shown has probability 0 in the probe: a share of the uniform code covers it.
        chosen = np.take_along_axis(log_p, y[None, start:end, None], 2)[..., 0]
        covered = np.logaddexp(chosen + np.log(1 - COVER), np.log(COVER / classes))
        bits += -covered.sum(1) / np.log(2)
    return ends[-1] * uniform / bits


def _nested(
    x: np.ndarray, y: np.ndarray, fitted: Sequence[_Fitted], train: Sequence[np.ndarray], test: Sequence[np.ndarray],
    l2: float,
) -> dict[str, Any]:
    """Probes on the units with the largest weights, and whether two languages have the same ones."""
    layers, _, width = x.shape
    count, ks = len(fitted), [k for k in NESTED if k <= width]
    order = np.stack([np.argsort(-np.abs(probe.full[:, :-1]).sum(-1), axis=1, kind="stable") for probe in fitted], 1)
    found = np.full((layers, count, len(ks)), np.nan)
    for g, (learned, held) in enumerate(zip(train, test)):
        common = np.intersect1d(y[learned], y[held])
        classes = int(y.max()) + 1
        for i, k in enumerate(ks):
            units = order[:, g, :k]
            of = lambda rows, units=units: np.take_along_axis(x[:, rows], units[:, None], 2).astype(np.float32)
            every = np.ones((1, len(learned)), np.float32)
            w = np.asarray(fit_probes(of(learned), y[learned][None], every, classes, l2))
            found[:, g, i] = _recall(_predicted(of(held), w[:, 0])[0] == y[held], y[held], common)[:, 0]
    top = order[..., :COMPARED]
    shared = (top[:, :, None, :, None] == top[:, None, :, None, :]).any(-1).mean(-1)
    return {"nested": (("layer", "language", "units"), found),
            "units_shared": (("layer", "language", "language_b"), shared)}
