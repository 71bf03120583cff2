"""Turning singular into plural while the model writes: latents set and zeroed, and what else that changes.

A change goes from one value of a feature to another one. In a language that did not choose them, the latents that other
languages share for the wanted value are set to their highest activation times a scale, and those of the value to be
given up to zero (Brinkmann et al. 2025, section 5), from the last token of the prompt on. The judge counts word forms
and knows no model, texts are the likeliest ones, and everything stands beside the same prompts unsteered and beside
random latents, as active and pushed as far.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int

from xlingjax.analyses.features.conditions import shared_latents
from xlingjax.corpora.prompts import Prompts
from xlingjax.errors import InputError, require_least
from xlingjax.judging.languages import LanguageJudge
from xlingjax.judging.values import ValueJudge
from xlingjax.kernels.universality import activity_matched
from xlingjax.models import Model
from xlingjax.models.generating import left_padded, positions
from xlingjax.sae import Dictionary, LatentEdit
from xlingjax.training.objectives import Objective, row_losses

UNSTEERED, STEERED, MATCHED = "unsteered", "shared", "matched"


@dataclasses.dataclass(frozen=True)
class SteeringSettings:
    """How latents are set while the model writes.

    Attributes:
        scales: what the highest activation is multiplied with, a condition each.
        latents: of the wanted value that are set, and of the other that are zeroed, at most.
        sharing: languages in whose tops such a latent has to be, the steered one not counted.
        prompts: of each language. prompt_words: of a prompt.
        new_tokens: of a text. batch_rows: texts written at once.
        shown: prompts of each language and change whose texts are kept to be read.
        bootstraps: draws of the prompts' documents.
        seed: of random latents and draws.
    """

    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    latents: int = 1
    sharing: int = 2
    prompts: int = 40
    prompt_words: int = 4
    new_tokens: int = 16
    batch_rows: int = 128
    shown: int = 2
    bootstraps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        require_least(self, {"latents": 1, "sharing": 1, "prompts": 1, "prompt_words": 1, "new_tokens": 1,
                             "batch_rows": 2, "shown": 0, "bootstraps": 20, "seed": 0})
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"scales are {self.scales}; give numbers above 0")


class Change(NamedTuple):
    """From one value of a feature to another."""

    feature: str
    given_up: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.feature}: {self.given_up} to {self.wanted}"


class Push(NamedTuple):
    """What is done to latents: those set to a value, and those set to zero."""

    up: Int[np.ndarray, "u"]
    value: Float[np.ndarray, "u"]
    down: Int[np.ndarray, "d"]


def changes(values: Sequence[str], used: Bool[np.ndarray, "V G"]) -> list[Change]:
    """Both directions between the two values of each feature that most languages have.

    Args:
        values: as "Number=Plur".

    >>> [str(one) for one in changes(["Number=Plur", "Number=Sing", "Case=Nom"], np.ones((3, 2), bool))]
    ['Number: Plur to Sing', 'Number: Sing to Plur']
    """
    of: dict[str, list[tuple[int, str]]] = {}
    for row, name in enumerate(values):
        feature, _, value = name.partition("=")
        of.setdefault(feature, []).append((int(used[row].sum()), value))
    out = []
    for feature, found in of.items():
        best = [value for _, value in sorted(found, key=lambda one: -one[0])[:2]]
        out += [Change(feature, *order) for order in itertools.permutations(best, 2)]
    return out


def steer_values(
    model: Model, dictionary: Dictionary, prompts: Prompts, values: ValueJudge, languages: LanguageJudge,
    latents: xr.Dataset, evidence: Float[np.ndarray, "V G M"], highest: Float[np.ndarray, "M"],
    activity: Float[np.ndarray, "G M 2"], settings: SteeringSettings = SteeringSettings(),
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, xr.Dataset]:
    """Every change in every language, with its controls.

    Args:
        model: a decoder with a tokenizer. dictionary: of its stream.
        prompts: of the languages; documents that chose no latent.
        values, languages: judges of the texts, which have not seen the prompts' documents.
        latents: of `grammatical_features`, with `top`. evidence: of every cell, NaN where there is none.
        highest: activation of each latent over text. activity: frequency and mean activation in each language.
        advance: told how many texts are written.

    Returns:
        `steering`, dimensions `change`, `language`, `condition`: `wanted`, of the words that carry a value of the
        feature the share with the wanted one, and `d_wanted` against unsteered with `_low`, `_high` (95 %, over
        documents); `words`, judged ones; `unwanted`, the largest change of a share of any other feature, and
        `unwanted_value`, which; `same_language`, share of texts in the prompt's language; `nats` a token of the text
        under the model without edits; `latent`, the first latent that is set. NaN where nothing can be steered. And
        `samples`, texts to read.

    Raises:
        InputError: no change is possible, or a prompt does not fit the model.
    """
    names = [str(name) for name in latents["language"].values]
    order = [str(name) for name in latents["value"].values]
    tops = latents["top"].transpose("value", "language", "rank").values
    used = np.asarray((tops >= 0).any(-1))
    todo = [one for one in changes(order, used) if _known(values, one)]
    if not todo:
        raise InputError(
            f"of {', '.join(order)} no feature has two values that the judge knows; nothing can be steered")
    conditions = [UNSTEERED, *(f"{kind} x{scale:g}" for kind in (STEERED, MATCHED) for scale in settings.scales)]
    shape = (len(todo), len(names), len(conditions))
    out = {name: np.full(shape, np.nan) for name in (
        "wanted", "d_wanted", "d_wanted_low", "d_wanted_high", "unwanted", "same_language", "nats", "words")}
    which = np.full(shape, "", object)
    first = np.full(shape[:2], -1)
    samples: list[tuple[str, ...]] = []
    for c, g in itertools.product(range(len(todo)), range(len(names))):
        rows = np.flatnonzero(prompts.languages == names[g])
        pushes = _pushes(todo[c], order, g, tops, evidence, used, highest, activity[g], settings)
        if pushes is None or not len(rows):
            continue
        first[c, g] = pushes[1].up[0]
        texts, nats = write(model, dictionary, [prompts.texts[row] for row in rows], pushes, settings, advance)
        found = judged(texts, names[g], prompts.documents[rows], values, languages, todo[c], settings)
        for name, one in found.items():
            if name == "unwanted_value":
                which[c, g] = one
            else:
                out[name][c, g] = one
        out["nats"][c, g] = nats.mean(1)
        for row, e in itertools.product(range(min(settings.shown, len(rows))), range(len(conditions))):
            if conditions[e] in (UNSTEERED, f"{STEERED} x{settings.scales[-1]:g}"):
                samples.append((str(todo[c]), names[g], conditions[e], prompts.texts[rows[row]], texts[e][row]))
    axes = ("change", "language", "condition")
    steering = xr.Dataset(
        {**{name: (axes, one) for name, one in out.items()}, "unwanted_value": (axes, which.astype(str)),
         "latent": (axes[:2], first)},
        coords={"change": [str(one) for one in todo], "language": names, "condition": conditions},
        attrs={"what": (
            f"Greedy texts of {settings.new_tokens} tokens after each prompt. The latents that other languages share "
            "for the wanted value are set to their highest activation times the factor, those of the other value to "
            "zero; matched: random latents as active, set to the same values. Shares are of word forms that the judge "
            "knows")})
    columns = dict(zip(("change", "language", "condition", "prompt", "text"), zip(*samples) if samples else [()] * 5))
    return {"steering": steering, "samples": xr.Dataset(
        {name: ("sample", np.array(column, str)) for name, column in columns.items()})}


def _known(judge: ValueJudge, change: Change) -> bool:
    return all((change.feature, value) in judge.values for value in (change.given_up, change.wanted))


def _pushes(
    change: Change, order: Sequence[str], tested: int, tops: np.ndarray, evidence: np.ndarray, used: np.ndarray,
    highest: np.ndarray, activity: np.ndarray, settings: SteeringSettings,
) -> list[Push] | None:
    """One for each condition; None where other languages share no latent for one of the two values."""
    sides = []
    for value in (change.wanted, change.given_up):
        v = order.index(f"{change.feature}={value}")
        others = np.flatnonzero(used[v] & (np.arange(used.shape[1]) != tested))
        effects = np.nan_to_num(evidence[v, others])
        sides.append(shared_latents(tops[v, others], effects, settings.sharing, tops.shape[-1]))
    up = np.setdiff1d(sides[0], sides[1], assume_unique=True)[:settings.latents]
    down = sides[1][~np.isin(sides[1], up)][:settings.latents]
    if not len(up) or not len(down) or not (highest[up] > 0).all():
        return None
    seed = settings.seed + 1000 * tested
    barred = np.unique(np.concatenate(sides))
    matched = activity_matched(activity, np.concatenate([up, down]), barred, 1, seed)[0]
    still = Push(np.empty(0, int), np.empty(0), np.empty(0, int))
    push = lambda chosen, scale: Push(chosen[:len(up)], highest[up] * scale, chosen[len(up):])
    both = (np.concatenate([up, down]), matched)
    return [still, *(push(chosen, scale) for chosen in both for scale in settings.scales)]


def write(
    model: Model, dictionary: Dictionary, texts: Sequence[str], pushes: Sequence[Push], settings: SteeringSettings,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[list[list[str]], Float[np.ndarray, "E n"]]:
    """What the model writes after each prompt under each push, and its nats a token without any edit."""
    tokens, mask = model.encode(texts)
    tokens, mask = left_padded(tokens, mask, int(mask.sum(1).max()))
    count, length = tokens.shape
    width, size = dictionary.config.latents, settings.batch_rows
    where = positions("last", length, settings.new_tokens)
    jobs = [(e, row) for e in range(len(pushes)) for row in range(count)]
    fill = (0, int(mask.sum(1).argmax()))  # in every batch: all have the slots of the longest prompt, and one program
    out = [[""] * count for _ in pushes]
    nats = np.zeros((len(pushes), count))
    for start in range(0, len(jobs), size - 1):
        part = jobs[start:start + size - 1]
        filled = part + [fill] * (size - len(part))
        chosen = np.zeros((size, 1, width), bool)
        value = np.zeros((size, 1, width), np.float32)
        for i, (e, _) in enumerate(filled):
            push = pushes[e]
            chosen[i, 0, push.up], value[i, 0, push.up] = True, push.value
            chosen[i, 0, push.down] = True
        rows = np.array([row for _, row in filled])
        edit = dictionary.edit(LatentEdit(mask=chosen, value=value), where)
        made = model.generate(tokens[rows], mask[rows], {dictionary.site: edit}, max_new_tokens=settings.new_tokens)
        losses = _nats(model, tokens[rows], mask[rows], made.tokens, made.lengths)
        assert made.texts is not None
        for i, (e, row) in enumerate(part):
            out[e][row], nats[e, row] = made.texts[i], losses[i]
        advance(len(part))
    return out, nats


def _nats(
    model: Model, prompt: Int[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"], new: Int[np.ndarray, "B n"],
    lengths: Int[np.ndarray, "B"],
) -> Float[np.ndarray, "B"]:
    written = np.arange(new.shape[1]) < lengths[:, None]
    total, count = _losses(model.params, model.config, np.concatenate([prompt, new], 1),
                           np.concatenate([mask, written], 1), np.concatenate([np.zeros_like(mask), written], 1))
    return np.asarray(total) / np.maximum(np.asarray(count), 1)


@functools.partial(jax.jit, static_argnums=(1,))
def _losses(
    params: Any, config: Any, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], new: Bool[Array, "B T"],
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    return row_losses(params, config, Objective("causal"), tokens, mask, jax.random.key(0), targets=new)


def judged(
    texts: Sequence[Sequence[str]], language: str, documents: np.ndarray, values: ValueJudge, languages: LanguageJudge,
    change: Change, settings: SteeringSettings,
) -> Mapping[str, Any]:
    """What the texts of each condition show; conditions first, unsteered the first of them.

    Args:
        texts: of each condition, one a prompt. documents: of the prompts.
    """
    counts = np.stack([values.counts(one, [language] * len(one)) for one in texts])  # [E, n, V]
    block = np.unique(documents, return_inverse=True)[1]
    rng = np.random.default_rng([settings.seed, 89])
    drawn = rng.multinomial(block.max() + 1, np.full(block.max() + 1, 1 / (block.max() + 1)), settings.bootstraps)
    weight = np.vstack([np.ones(len(block), int), drawn[:, block]])  # the first is the estimate
    pooled = np.einsum("rn,env->rev", weight, counts)
    shares = values.of_feature(pooled)  # [1 + draws, E, V]
    at = values.index(change.feature, change.wanted)
    names = np.array([feature for feature, _ in values.values])
    over = shares[..., at] - shares[:, :1, at]
    known = (~np.isnan(over[1:])).mean(0) >= 0.5
    low, high = np.nanquantile(np.where(known, over[1:], 0), (0.025, 0.975), axis=0)
    other = np.abs(shares[0] - shares[0, :1])
    other = np.where((names == change.feature) | np.isnan(other), -1, other)
    largest = other.argmax(1)
    some = other.max(1) >= 0
    said = np.array([np.asarray(languages.verdicts(one)) == language for one in texts])
    return {
        "wanted": shares[0, :, at], "d_wanted": over[0], "d_wanted_low": np.where(known, low, np.nan),
        "d_wanted_high": np.where(known, high, np.nan), "words": pooled[0][:, names == change.feature].sum(1),
        "unwanted": np.where(some, other.max(1), np.nan), "same_language": said.mean(1),
        "unwanted_value": np.where(some, ["=".join(values.values[v]) for v in largest], "")}
