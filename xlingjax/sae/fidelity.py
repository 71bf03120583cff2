"""What the model loses when a site holds a dictionary's reconstruction, by language.

Four conditions on the same tokens: "original"; "replaced", the site holds the reconstruction; "zero", it holds zeros;
"mean", it holds its mean over the counted tokens of all languages, which is the fairer floor where a site has a large
constant part. With H the mean cross-entropy (nats):

    recovered       (H_zero - H_replaced) / (H_zero - H_original)     against zero ablation
    kl_recovered    1 - KL(original || replaced) / KL(original || zero)
    recovered_mean, kl_recovered_mean     likewise against mean ablation

Only counted positions (without padding, and without special tokens if those who made the batches left them out, as they
do in training) are replaced and scored: a position is scored by the next token, where that is real. What the model says
at other positions, and the site there, stay as they are.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int

from xlingjax.corpora.batching import Batch
from xlingjax.errors import InputError
from xlingjax.models import Model, Splice, TransformerConfig, forward, unembed
from xlingjax.progress import progress
from xlingjax.sae.coder import Replace, reconstruct
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.measures import ALL

CONDITIONS = ("original", "replaced", "zero", "mean")
LOGITS_AT_ONCE = 1 << 24  # floats, of all conditions


def measure_in_model(
    model: Model, dictionary: Dictionary, batches: Sequence[Batch], language: Int[np.ndarray, "S"],
    languages: Sequence[str], *, show: bool | None = None,
) -> xr.Dataset:
    """Cross-entropy and KL under reconstruction and ablation, and the share that the reconstruction recovers.

    Of a transcoder the site that it writes is replaced by what it makes of the site that it reads.

    Args:
        batches: of `make_batch`; they are gone through twice, the first time for the mean.
        language: of each sentence, its place in `languages`.
        show: progress, as of `progress`.

    Returns:
        `cross_entropy` and `kl` (nats a token, from the original) by `condition` and `language`, whose last entry
        "(all)" is all tokens; the four shares of the module's head, `tokens` scored and `broken` (left out because
        some condition is not finite there) by `language`. NaN where nothing is scored, or ablation costs nothing.

    Raises:
        InputError: the model predicts no next token, or lacks the dictionary's site, layer or width.

    >>> from xlingjax.models import init_params
    >>> from xlingjax.sae.coder import init_dictionary
    >>> small = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=16)
    >>> config = DictionaryConfig("topk", 8, 32, k=3)
    >>> one = Dictionary(init_dictionary(config, jax.random.key(0)), config, "resid", 1)
    >>> text = Batch(np.arange(10).reshape(2, 5), np.ones((2, 5), bool), np.ones((2, 5), bool), np.arange(2))
    >>> found = measure_in_model(Model(init_params(small, jax.random.key(0)), small), one, [text], np.array([0, 0]),
    ...                          ["eng"])
    >>> found.tokens.values.tolist(), float(found.kl.sel(condition="original", language="eng"))
    ([8, 8], 0.0)
    """
    if model.config.head != "lm" or not model.config.causal:
        raise InputError(f"model {model.name!r} predicts no next token, so nothing can be recovered; give a decoder "
                         "with its head")
    dictionary.require(model)
    site, layer = dictionary.target or (dictionary.site, dictionary.layer)
    mean = _site_mean(model, site, layer, batches)
    zero, cost, skipped = np.zeros_like(mean), np.zeros((2, len(CONDITIONS), len(languages))), np.zeros(len(languages))
    tokens = np.zeros(len(languages))
    for batch in progress(batches, label="replaced sites", unit="batches", show=show):
        kept = np.asarray(batch.where) & batch.mask
        if dictionary.target is None:
            replaced = Splice(Replace(dictionary.config), dictionary.params, layer, None, kept)
        else:
            written = _written(model.params, model.config, batch.tokens, batch.mask, dictionary.params,
                               dictionary.config, dictionary.site, dictionary.layer)
            replaced = Splice(_given, None, layer, written, kept)
        splices = (replaced, Splice(_filled, zero, layer, None, kept), Splice(_filled, mean, layer, None, kept))
        scores = np.asarray(_scores(model.params, model.config, batch.tokens, batch.mask, site, splices), np.float64)
        counted = kept[:, :-1] & batch.mask[:, 1:]
        sound = counted & np.isfinite(scores).all((0, 1))
        of = np.where(batch.rows >= 0, language[batch.rows], -1)  # fillers are of no language
        member = of[:, None] == np.arange(len(languages))
        tokens += sound.sum(1) @ member
        skipped += (counted & ~sound).sum(1) @ member
        cost += np.where(sound, scores, 0).sum(-1) @ member
    return _dataset(cost, tokens, skipped, languages)


def _dataset(
    cost: Float[np.ndarray, "2 4 G"], tokens: Float[np.ndarray, "G"], broken: Float[np.ndarray, "G"],
    languages: Sequence[str],
) -> xr.Dataset:
    with_all = lambda values: np.concatenate([values, values.sum(-1, keepdims=True)], -1)
    tokens = with_all(tokens)
    with np.errstate(invalid="ignore", divide="ignore"):
        entropy, kl = with_all(cost) / tokens
        share = lambda part, whole: part / np.where(whole == 0, np.nan, whole)
        shares = {
            "recovered": share(entropy[2] - entropy[1], entropy[2] - entropy[0]),
            "recovered_mean": share(entropy[3] - entropy[1], entropy[3] - entropy[0]),
            "kl_recovered": 1 - share(kl[1], kl[2]), "kl_recovered_mean": 1 - share(kl[1], kl[3])}
    axes = ("condition", "language")
    return xr.Dataset(
        {"cross_entropy": (axes, entropy), "kl": (axes, kl), **{name: (axes[1:], x) for name, x in shares.items()},
         "tokens": (axes[1:], tokens.astype(int)), "broken": (axes[1:], with_all(broken).astype(int))},
        coords={"condition": list(CONDITIONS), "language": [*languages, ALL]})


def _filled(h: Float[Array, "B T F"], params: Float[Array, "F"], rows: None) -> Float[Array, "B T F"]:
    return jnp.broadcast_to(params, h.shape)


def _given(h: Float[Array, "B T F"], params: None, rows: Float[Array, "B T F"]) -> Float[Array, "B T F"]:
    return rows


def _site_mean(model: Model, site: str, layer: int, batches: Sequence[Batch]) -> Float[np.ndarray, "F"]:
    """Mean of a site over the counted tokens; a sentence that is not finite there is left out."""
    total, count = 0.0, 0
    for batch in batches:
        where = np.asarray(batch.where) & batch.mask
        sums = np.asarray(_sums(model.params, model.config, batch.tokens, batch.mask, where, site, layer), np.float64)
        sound = where.any(1) & np.isfinite(sums).all(1)
        total = total + sums[sound].sum(0)
        count += int(where[sound].sum())
    if not count:
        raise InputError("no token of the batches counts, so nothing can be replaced; give text with other than "
                         "special tokens")
    return np.asarray(total / count, np.float32)


@functools.partial(jax.jit, static_argnames=("config", "site"))
def _sums(
    params: Any, config: TransformerConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
    where: Bool[Array, "B T"], site: str, layer: Int[Array, ""],
) -> Float[Array, "B F"]:
    return forward(params, config, tokens, mask, capture={site: "sum"}, where=where)[1][site][layer]


@functools.partial(jax.jit, static_argnames=("config", "dictionary", "site"))
def _written(
    params: Any, config: TransformerConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], coder: Any,
    dictionary: DictionaryConfig, site: str, layer: Int[Array, ""],
) -> Float[Array, "B T E"]:
    """What a transcoder makes of the site that it reads, in the unedited model."""
    x = forward(params, config, tokens, mask, capture=(site,))[1][site][layer]
    return reconstruct(coder, dictionary, x)


@functools.partial(jax.jit, static_argnames=("config", "site"))
def _scores(
    params: Any, config: TransformerConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], site: str,
    splices: tuple[Splice, ...],
) -> Float[Array, "2 4 B T-1"]:
    """Cross-entropy of the next token, and KL from the unedited model, in every condition."""
    hidden = jnp.stack([forward(params, config, tokens, mask, edits=edits)[0][:, :-1] for edits in (
        None, *({site: one} for one in splices))])
    count, batch, length, width = hidden.shape
    places = batch * length
    at_once = max(1, min(places, LOGITS_AT_ONCE // (count * config.vocab_size)))
    lacking = -places % at_once
    flat = jnp.pad(hidden.reshape(count, places, width), ((0, 0), (0, lacking), (0, 0)))
    following = jnp.pad(jnp.where(mask, tokens, 0)[:, 1:].reshape(-1), (0, lacking))

    def piece(part: tuple[Array, Array]) -> Float[Array, "2 4 c"]:
        states, after = part
        logits = jax.nn.log_softmax(unembed(params, config, states).astype(jnp.float32))
        chosen = jnp.take_along_axis(logits, after[None, :, None], axis=-1)[..., 0]
        first = logits[:1]
        kl = jnp.where(jnp.exp(first) > 0, jnp.exp(first) * (first - logits), 0).sum(-1)
        return jnp.stack([-chosen, kl])

    parts = (flat.reshape(count, -1, at_once, width).swapaxes(0, 1), following.reshape(-1, at_once))
    made = jax.lax.map(piece, parts)  # [pieces, 2, 4, at_once]
    return jnp.moveaxis(made, 0, 2).reshape(2, count, -1)[..., :places].reshape(2, count, batch, length)
