"""How well a dictionary explains activations, and how its latents fire, by language.

Everything is a sum over tokens: batches of any size, in any order, on one machine or several give the same. With x the
activation (of a transcoder: what it should write), x_hat the reconstruction, e = x - x_hat, E the mean over tokens:

    l0                    E of the number of latents that are not 0
    l1                    E sum |f|
    l2                    E |e|
    fvu                   sum |e|^2 / sum |x - E x|^2      fraction of variance unexplained, as sparsify has it
    variance_unexplained  sum |e - E e|^2 / sum |x - E x|^2      one minus `frac_variance_explained` of
                          dictionary_learning: forgives a constant error, which fvu counts
    relative_error        E (|e|^2 / |x|^2)                each token against itself
    cosine                E cos(x, x_hat)
    l2_ratio              E (|x_hat| / |x|)
    reconstruction_bias   E |x_hat|^2 / E x.x_hat          equation 10 of arXiv 2404.16014; below 1: shrinkage
    dead_share            latents that fire on none of the tokens
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.sae.coder import Params, decode, encode
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary

ALL = "(all)"  # the last entry of the language axis: tokens of every language as one set
EDGES = np.linspace(-8, 0, 33)  # of the histogram, log10 of the share of tokens
BLOCK_FLOATS = 1 << 24  # latents held at once


class Sums(NamedTuple):
    """Sums over tokens by language; float64 on the host.

    Attributes:
        centre: a point near the mean, from which deviations are counted, or large means would eat their digits.
        deviation, deviation2: of x - centre, and of its squared norm.
        error, error2: of e, and of |e|^2; distance: of |e|.
        product, output2: of x.x_hat and |x_hat|^2.
        relative, cosine, ratio: of |e|^2 / |x|^2, cos(x, x_hat), |x_hat| / |x|, over `directed` tokens, x != 0.
        active, strength: of latents that are not 0, and of |f|.
        fired, sums, highest: by latent, how often it is not 0, its sum, its maximum.
        broken: tokens left out because the norm of an activation or its reconstruction is NaN or infinite.
    """

    centre: Float[Any, "E"]
    tokens: Float[Any, "G"]
    broken: Float[Any, "G"]
    directed: Float[Any, "G"]
    active: Float[Any, "G"]
    strength: Float[Any, "G"]
    distance: Float[Any, "G"]
    error2: Float[Any, "G"]
    deviation2: Float[Any, "G"]
    product: Float[Any, "G"]
    output2: Float[Any, "G"]
    relative: Float[Any, "G"]
    cosine: Float[Any, "G"]
    ratio: Float[Any, "G"]
    error: Float[Any, "G E"]
    deviation: Float[Any, "G E"]
    fired: Float[Any, "G M"]
    sums: Float[Any, "G M"]
    highest: Float[Any, "G M"]


def token_sums(
    params: Params, config: DictionaryConfig, x: Float[Array, "n D"], target: Float[Array, "n E"],
    language: Int[Array, "n"], where: Bool[Array, "n"], centre: Float[Array, "E"], languages: int,
) -> Sums:
    """Sums of one block of tokens; for use inside `jit`, with `config` and `languages` static."""
    squared = lambda values: (values**2).sum(-1)
    finite = jnp.isfinite(squared(x)) & jnp.isfinite(squared(target))
    x, target = jnp.where(finite[:, None], x, 0), jnp.where(finite[:, None], target, 0)
    f = encode(params, config, x)
    out = decode(params, config, f, x)
    finite &= jnp.isfinite(squared(out))
    counted = where & finite
    f, out, target = (jnp.where(counted[:, None], values, 0) for values in (f, out, target))
    member = jax.nn.one_hot(language, languages, dtype=x.dtype)
    total = lambda values: jnp.einsum("ng,n...->g...", member, values.astype(x.dtype), precision="highest")
    fired = f != 0
    error, deviation = target - out, jnp.where(counted[:, None], target - centre, 0)
    error2, norm2, output2, product = squared(error), squared(target), squared(out), (target * out).sum(-1)
    directed = counted & (norm2 > 0)
    over = lambda top, bottom: jnp.where(directed & (bottom > 0), top / jnp.where(bottom > 0, bottom, 1), 0)
    norm, length = jnp.sqrt(norm2), jnp.sqrt(output2)
    highest = jax.ops.segment_max(f, jnp.where(counted, language, languages), languages + 1)[:languages]
    return Sums(
        centre, total(counted), total(where & ~finite), total(directed), total(fired.sum(-1)),
        total(jnp.abs(f).sum(-1)), total(jnp.sqrt(error2)), total(error2), total(squared(deviation)), total(product),
        total(output2), total(over(error2, norm2)), total(over(product, norm * length)), total(over(length, norm)),
        total(error), total(deviation), total(fired), total(f), jnp.maximum(highest, 0))


_token_sums = jax.jit(token_sums, static_argnames=("config", "languages"))


def merged(a: Sums, b: Sums) -> Sums:
    """Sums over both sets of tokens."""
    shift = b.centre - a.centre
    moved = b._replace(
        centre=a.centre, deviation=b.deviation + b.tokens[:, None] * shift,
        deviation2=b.deviation2 + 2 * b.deviation @ shift + b.tokens * (shift @ shift))
    both = Sums(*(one + other for one, other in zip(a, moved)))
    return both._replace(centre=a.centre, highest=np.maximum(a.highest, b.highest))


def pooled(sums: Sums) -> Sums:
    """All languages as one."""
    one = Sums(*(values.sum(0, keepdims=True) for values in sums))
    return one._replace(centre=sums.centre, highest=sums.highest.max(0, keepdims=True))


def measure_dictionary(
    dictionary: Dictionary, batches: Iterable[tuple[Any, ...]], languages: Sequence[str] = ("",), *,
    rows: int | None = None,
) -> xr.Dataset:
    """The measures of a dictionary over streamed activations.

    Args:
        batches: of (x float[n, D], language int[n]), of any n, and of a transcoder (x, language, target float[n, E]).
            Tokens that do not count (padding, special ones) are left out by who makes them.
        languages: their names; `language` is the place in it.
        rows: tokens at once on the device; by default as many as keep the latents at 64 MB.

    Returns:
        By `language`, whose last entry "(all)" is every token as one set: `tokens`, `broken` (left out because they
        are not finite), and the measures of the module's head; by `language` and `latent`: `density` (share of tokens
        on which it fires), `activation` (mean where it fires, NaN where it never does) and `maximum`; by `language`
        and `bin`: `density_histogram`, the number of latents that fire, by log10 of their density (`log_density`, a
        bin's lower edge). NaN where there is no token, or nothing to explain.

    Raises:
        InputError: shapes that do not fit, a language without a name, no batch.

    >>> from xlingjax.sae.coder import init_dictionary
    >>> config = DictionaryConfig("topk", 8, 32, k=3)
    >>> one = Dictionary(init_dictionary(config, jax.random.key(0)), config)
    >>> x = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    >>> found = measure_dictionary(one, [(x, np.arange(100) % 2)], ["eng", "swh"])
    >>> found.l0.values.tolist(), found.tokens.values.tolist()
    ([3.0, 3.0, 3.0], [50.0, 50.0, 100.0])
    """
    return as_dataset(sum_batches(dictionary, batches, len(languages), rows=rows), languages)


def sum_batches(
    dictionary: Dictionary, batches: Iterable[tuple[Any, ...]], languages: int, *, rows: int | None = None,
) -> Sums:
    """`Sums` over batches, as of `measure_dictionary`; those of several machines can be `merged`."""
    config = dictionary.config
    rows = rows or max(64, min(4096, BLOCK_FLOATS // config.latents))
    whole: Sums | None = None
    for batch in batches:
        x, language, target = _checked(config, batch, languages)
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            lacking = rows - len(x[part])
            filled = [np.pad(values[part], [(0, lacking)] + [(0, 0)] * (values.ndim - 1)) for values in (
                x, target, language)]
            if whole is None:
                sound = np.isfinite(target[part]).all(1)
                centre = np.median(target[part][sound], 0) if sound.any() else np.zeros(config.out, np.float32)
            made = _token_sums(dictionary.params, config, *filled, np.arange(rows) < rows - lacking, centre, languages)
            found = Sums(*(np.asarray(values, np.float64) for values in made))
            whole = found if whole is None else merged(whole, found)
    if whole is None:
        raise InputError("there is no activation to measure the dictionary on; give at least one batch")
    return whole


def as_dataset(sums: Sums, languages: Sequence[str]) -> xr.Dataset:
    """The measures, from sums; see `measure_dictionary`."""
    both = pooled(sums)
    full = Sums(*(np.concatenate([values, total]) for values, total in zip(sums, both)))
    n, over = full.tokens, full.directed
    squares = lambda values: (values**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = full.deviation2 - squares(full.deviation) / n
        variance = np.where(variance > 0, variance, np.nan)
        by_language = {
            "tokens": n, "broken": full.broken, "l0": full.active / n, "l1": full.strength / n, "l2": full.distance / n,
            "fvu": full.error2 / variance,
            "variance_unexplained": (full.error2 - squares(full.error) / n) / variance,
            "relative_error": full.relative / over, "cosine": full.cosine / over, "l2_ratio": full.ratio / over,
            "reconstruction_bias": full.output2 / np.where(full.product == 0, np.nan, full.product),
            "dead_share": np.where(n > 0, (full.fired == 0).mean(1), np.nan)}
        density = full.fired / n[:, None]
        activation = np.where(full.fired > 0, full.sums / full.fired, np.nan)
        counts = [np.histogram(np.log10(row[row > 0]), EDGES)[0] for row in density]
    found = {name: (("language",), values) for name, values in by_language.items()}
    axes = ("language", "latent")
    return xr.Dataset({
        **found, "density": (axes, density), "activation": (axes, activation), "maximum": (axes, full.highest),
        "density_histogram": (("language", "bin"), np.array(counts))},
        coords={"language": [*languages, ALL], "log_density": ("bin", EDGES[:-1])})


def _checked(
    config: DictionaryConfig, batch: tuple[Any, ...], languages: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(batch) not in (2, 3):
        raise InputError(f"a batch has {len(batch)} parts; give (x, language) or (x, language, target)")
    x, language = np.asarray(batch[0], np.float32), np.asarray(batch[1])
    target = x if len(batch) == 2 else np.asarray(batch[2], np.float32)
    shapes = ((x, "x", config.inputs), (target, "target", config.out))
    for values, name, width in shapes:
        if values.ndim != 2 or values.shape[1] != width or len(values) != len(x):
            raise InputError(f"{name} of a batch is of shape {list(values.shape)}; this dictionary takes "
                             f"[{len(x) if x.ndim else 'n'}, {width}]" + (
                                 ", so give what it should write as third part of the batch" if values is x
                                 and name == "target" else ""))
    if language.shape != x.shape[:1] or not np.issubdtype(language.dtype, np.integer) or (
            len(language) and not 0 <= language.min() <= language.max() < languages):
        raise InputError(f"language of a batch is {language.dtype} of shape {list(language.shape)}; give a number from "
                         f"0 to {languages - 1} for each of {len(x)} tokens")
    return x, language.astype(np.int32), target
