"""What each condition writes: the same seeds in all of them, judged by judges that do not know which it was."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.analyses.steering.conditions import Condition, edits_of, scaled
from xlingjax.analyses.steering.settings import SteerSettings
from xlingjax.judging.concepts import ConceptJudge
from xlingjax.judging.languages import UNDETERMINED, LanguageJudge, segment_shares
from xlingjax.models import Model
from xlingjax.models.generating import beginning, left_padded, positions
from xlingjax.models.transformer import forward
from xlingjax.training.objectives import Objective, row_losses

MATCHINGS = 3  # corrections of the random neurons' displacement
GRAMS = 2  # of the measure of repetition
TEMPERATURES, BISECTIONS = (0.05, 8.0), 7  # between which texts as perplexed are looked for, and how often


class Written(NamedTuple):
    """The texts of one condition, a row for each prompt and seed."""

    texts: tuple[str, ...]
    tokens: Int[np.ndarray, "R new"]
    lengths: Int[np.ndarray, "R"]


class Prompts(NamedTuple):
    """Left-padded prompts."""

    tokens: Int[np.ndarray, "P T"]
    mask: Bool[np.ndarray, "P T"]


def read_prompts(model: Model, settings: SteerSettings) -> Prompts:
    """The prompts as tokens; without any, the beginning of a text."""
    if settings.prompts:
        tokens, mask = model.encode(settings.prompts)
    else:
        tokens = np.array([beginning(model)], np.int32)
        mask = np.ones(tokens.shape, bool)
    return Prompts(*left_padded(tokens, mask, int(mask.sum(1).max())))


def write(
    model: Model, conditions: Mapping[str, Condition], settings: SteerSettings, advance: Callable[[int], None],
) -> dict[str, Written]:
    """Texts of every condition; rows of all conditions fill the batches, so that few shapes are compiled.

    Row r of a condition has the noise of row r of every other: differences between conditions are paired.
    """
    prompts = read_prompts(model, settings)
    count, length = prompts.tokens.shape
    each = [(name, prompt, seed) for name in conditions for prompt in range(count) for seed in range(settings.seeds)]
    where = positions(settings.positions, length, settings.max_new_tokens)
    neurons = model.neurons(settings.sites)
    tokens: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    texts: list[str] = []
    for start in range(0, len(each), settings.batch_rows):
        part = each[start:start + settings.batch_rows]
        filled = part + part[:1] * (settings.batch_rows - len(part))
        rows = np.array([prompt for _, prompt, _ in filled])
        made = model.generate(
            prompts.tokens[rows], prompts.mask[rows],
            edits_of(neurons, [conditions[name] for name, _, _ in filled], settings.value, where),
            seeds=[row_seed(settings.seed, prompt, seed) for _, prompt, seed in filled],
            max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, top_k=settings.top_k,
            top_p=settings.top_p)
        assert made.texts is not None
        tokens.append(made.tokens[:len(part)])
        lengths.append(made.lengths[:len(part)])
        texts += made.texts[:len(part)]
        advance(len(part))
    rows_each = count * settings.seeds
    joined, ends = np.concatenate(tokens), np.concatenate(lengths)
    cut = lambda values, i: values[i * rows_each:(i + 1) * rows_each]
    return {name: Written(tuple(cut(texts, i)), cut(joined, i), cut(ends, i)) for i, name in enumerate(conditions)}


def row_seed(seed: int, prompt: int, number: int) -> int:
    """The noise of one row, the same in every condition."""
    return int(np.random.SeedSequence([seed, prompt, number]).generate_state(1)[0])


# How far an edit moves the residual stream


@functools.partial(jax.jit, static_argnums=(1,))
def _displacement(
    params: Any, config: Any, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], edits: Any,
) -> Float[Array, "B"]:
    """Mean norm, over real tokens, of what the edit changes in the last residual stream."""
    last = lambda edits: forward(params, config, tokens, mask, capture=("resid",), edits=edits)[1]["resid"][-1]
    moved = jnp.linalg.norm((last(edits) - last(None)).astype(jnp.float32), axis=-1)
    return jnp.where(mask, moved, 0).sum(1) / jnp.maximum(mask.sum(1), 1)


def displacement(
    model: Model, condition: Condition, unforced: Written, settings: SteerSettings, rows: int = 16,
) -> float:
    """The norm by which a condition moves the last residual stream on texts of the unforced model."""
    tokens, mask = _whole(model, unforced, settings, rows)
    where = positions(settings.positions, tokens.shape[1] - unforced.tokens.shape[1], unforced.tokens.shape[1])
    edits = edits_of(model.neurons(settings.sites), [condition] * len(tokens), settings.value, where)
    return float(np.asarray(_displacement(model.params, model.config, tokens, mask, edits)).mean())


def with_matched_norm(
    model: Model, condition: Condition, wanted: float, unforced: Written, settings: SteerSettings,
) -> tuple[Condition, float]:
    """The condition with its displacement scaled until it moves the residual stream as far as `wanted`.

    Returns: it, and how far it moves the stream.
    """
    base = _resting(model, condition, unforced, settings)
    factor, found = 1.0, displacement(model, condition, unforced, settings)
    best = (abs(np.log(found / wanted)) if found > 0 and wanted > 0 else np.inf, condition, found)
    for _ in range(MATCHINGS):
        if not (found > 0 and wanted > 0):
            break
        factor *= wanted / found
        tried = scaled(condition, base, factor, settings.value)
        found = displacement(model, tried, unforced, settings)
        best = min(best, (abs(np.log(found / wanted)) if found > 0 else np.inf, tried, found), key=lambda x: x[0])
    return best[1], best[2]


def _resting(model: Model, condition: Condition, unforced: Written, settings: SteerSettings) -> np.ndarray:
    """The mean of each of the condition's neurons over the tokens of unforced texts."""
    tokens, mask = _whole(model, unforced, settings, 16)
    neurons = model.neurons(settings.sites)
    out = model(tokens, mask, capture=dict.fromkeys(neurons.shapes, "mean"))
    flat = np.concatenate([np.asarray(out.captured[site]).transpose(1, 0, 2).reshape(len(tokens), -1)
                           for site in neurons.shapes], axis=1)
    return flat.mean(0)[condition.neurons]


def _whole(model: Model, written: Written, settings: SteerSettings, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and new tokens of the first rows, and which are real."""
    prompts = read_prompts(model, settings)
    rows = min(rows, len(written.tokens))
    of = np.arange(len(written.tokens)) // settings.seeds
    chosen = np.linspace(0, len(written.tokens) - 1, rows).astype(int)
    new = np.arange(written.tokens.shape[1]) < written.lengths[chosen, None]
    return (np.concatenate([prompts.tokens[of[chosen]], written.tokens[chosen]], 1),
            np.concatenate([prompts.mask[of[chosen]], new], 1))


# Texts as broken as the forced ones


def equal_temperature(
    model: Model, nothing: Condition, wanted: float, settings: SteerSettings, advance: Callable[[int], None],
) -> float:
    """The temperature at which the unforced model writes texts of `wanted` nats a token, as it sees them itself.

    Judges err on broken text, and forcing breaks text: what they say of unforced texts that are broken as much is no
    effect of the neurons. Where no temperature reaches that far, the nearest.
    """
    few = tries(settings)
    low, high = np.log(TEMPERATURES)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        tried = dataclasses.replace(few, temperature=float(np.exp(middle)))
        texts = write(model, {"": nothing}, tried, advance)[""]
        low, high = (middle, high) if nats_per_token(model, texts, few).mean() < wanted else (low, middle)
    return float(np.exp((low + high) / 2))


def tries(settings: SteerSettings) -> SteerSettings:
    """The settings with as many seeds as one batch holds, at least two rows."""
    prompts = max(1, len(settings.prompts))
    seeds = max(1, min(settings.seeds, settings.batch_rows // prompts), -(-2 // prompts))
    return dataclasses.replace(settings, seeds=seeds, temperature=settings.temperature or 1.0)


# What was written


class Judged(NamedTuple):
    """Of each row of one condition."""

    verdict: Int[np.ndarray, "R"]  # index into the languages, the last one "undetermined"
    segments: Float[np.ndarray, "R V"]  # share of letters by verdict of their segment; NaN without letters
    called: Bool[np.ndarray, "R G"]  # the forced concept, by each language's classifier
    hits: Bool[np.ndarray, "R G"]  # by each language's marker words
    nats: Float[np.ndarray, "R"]  # a token, under the unforced model
    repetition: Float[np.ndarray, "R"]  # share of bigrams that occurred before


def judge(
    model: Model, written: Written, languages: LanguageJudge, concepts: ConceptJudge, settings: SteerSettings,
) -> Judged:
    """Language, concept and fluency of each text; nothing here knows the condition."""
    names = [*languages.names, UNDETERMINED]
    column = concepts.concepts.index(settings.concept)
    return Judged(
        np.array([names.index(str(name)) for name in languages.verdicts(written.texts)]),
        segment_shares(languages, written.texts), concepts.called(written.texts)[..., column],
        concepts.hits(written.texts)[..., column],
        nats_per_token(model, written, settings), np.array([
            repetition(row[:length]) for row, length in zip(written.tokens, written.lengths)]))


def nats_per_token(model: Model, written: Written, settings: SteerSettings) -> Float[np.ndarray, "R"]:
    """Mean cross-entropy of the new tokens under the model without any edit; exp of it is perplexity."""
    out = []
    rows = len(written.tokens)
    prompts = read_prompts(model, settings)
    of = np.arange(rows) // settings.seeds
    for start in range(0, rows, settings.batch_rows):
        part = np.arange(start, min(start + settings.batch_rows, rows))
        filled = np.concatenate([part, np.repeat(part[:1], settings.batch_rows - len(part))])
        new = np.arange(written.tokens.shape[1]) < written.lengths[filled, None]
        tokens = np.concatenate([prompts.tokens[of[filled]], written.tokens[filled]], 1)
        mask = np.concatenate([prompts.mask[of[filled]], new], 1)
        pad = np.zeros(prompts.tokens[of[filled]].shape, bool)
        total, count = _new_nats(model.params, model.config, tokens, mask, np.concatenate([pad, new], 1))
        out.append((np.asarray(total) / np.maximum(count, 1))[:len(part)])
    return np.concatenate(out)


@functools.partial(jax.jit, static_argnums=(1,))
def _new_nats(
    params: Any, config: Any, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], new: Bool[Array, "B T"],
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    return row_losses(params, config, Objective("causal"), tokens, mask, jax.random.key(0), targets=new)


def repetition(tokens: Sequence[int] | np.ndarray) -> float:
    """The share of a text's bigrams of tokens that occurred before in it; 0 with fewer than two.

    >>> repetition([1, 2, 1, 2, 1])
    0.5
    """
    grams = [tuple(int(token) for token in tokens[i:i + GRAMS]) for i in range(len(tokens) - GRAMS + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
