"""Encoder-decoders: two transformers, of which the second also reads the first's output.

The encoder is an ordinary `Model` (`load_model` gives it alone), so everything that is computed of models is computed
of it. Sites of the pair are those of its halves, "encoder.resid", "decoder.cross.out".
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from xlingjax.errors import InputError
from xlingjax.models import taps
from xlingjax.models.batches import check_batch
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import family_of
from xlingjax.models.families.entry import Entry, Family
from xlingjax.models.hub import resolve
from xlingjax.models.loading import check_dtype, tokenizer_of
from xlingjax.models.model import Model
from xlingjax.models.transformer import Params, forward, init_params, unembed
from xlingjax.models.weights import Checkpoint, load_params, open_checkpoint
from xlingjax.models.weights.files import read_json

HALVES = ("encoder", "decoder")
HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """The configs of both halves; they share a vocabulary and a width."""

    encoder: TransformerConfig
    decoder: TransformerConfig

    def __post_init__(self) -> None:
        if (self.encoder.vocab_size, self.encoder.width) != (self.decoder.vocab_size, self.decoder.width):
            raise InputError("encoder and decoder share one embedding, but differ in vocabulary or width")
        if not self.decoder.cross or self.encoder.cross:
            raise InputError("the decoder of a pair reads the encoder's output; give it cross=True, not the encoder")


def init_pair(config: PairConfig, key: PRNGKeyArray, dtype: str = "float32") -> dict[str, Any]:
    """Random parameters of both; the token embedding is the encoder's."""
    one, other = jax.random.split(key)
    decoder = init_params(config.decoder, other, dtype)
    embed = {name: part for name, part in decoder.pop("embed").items() if name != "tokens"}
    return {"encoder": init_params(config.encoder, one, dtype),
            "decoder": ({"embed": embed} if embed else {}) | decoder}


def decoder_params(params: Params) -> dict[str, Any]:
    """The decoder's parameters with the token embedding that it shares."""
    own = dict(params["decoder"])
    own["embed"] = {**own.get("embed", {}), "tokens": params["encoder"]["embed"]["tokens"]}
    return own


def forward_pair(
    params: Params,
    config: PairConfig,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    targets: Int[Array, "B U"],
    target_mask: Bool[Array, "B U"],
    *,
    capture: taps.Capture = (),
    edits: taps.Edits | None = None,
) -> tuple[Float[Array, "B U D"], dict[str, Any]]:
    """From the tokens of both sides to the decoder's last hidden state; for use inside `jit` and `grad`.

    Args:
        tokens, mask: what is read. targets, target_mask: what is written so far, its start token first.
        capture, edits: as of `forward`, under "encoder." and "decoder." names.

    >>> encoder = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32, causal=False, head="")
    >>> config = PairConfig(encoder, dataclasses.replace(encoder, causal=True, cross=True, head="lm"))
    >>> params = init_pair(config, jax.random.key(0))
    >>> ones, real = np.ones((3, 5), int), np.ones((3, 5), bool)
    >>> hidden, captured = forward_pair(params, config, ones, real, ones[:, :2], real[:, :2],
    ...                                 capture={"decoder.cross.out": "mean"})
    >>> hidden.shape, captured["decoder.cross.out"].shape
    ((3, 2, 8), (2, 3, 8))
    """
    wanted = dict(capture) if isinstance(capture, Mapping) else dict.fromkeys(capture)
    inner = {half: ({site.removeprefix(f"{half}."): how for site, how in wanted.items() if site.startswith(f"{half}.")},
                    {site.removeprefix(f"{half}."): edit for site, edit in (edits or {}).items()
                     if site.startswith(f"{half}.")}) for half in HALVES}
    strange = [site for site in (*wanted, *(edits or {})) if site.split(".")[0] not in HALVES]
    if strange:
        raise InputError(f"site {strange[0]!r} is of neither half; write \"encoder.\" or \"decoder.\" before it")
    memory, first = forward(params["encoder"], config.encoder, tokens, mask, capture=inner["encoder"][0],
                            edits=inner["encoder"][1])
    hidden, second = forward(decoder_params(params), config.decoder, targets, target_mask, capture=inner["decoder"][0],
                             edits=inner["decoder"][1], memory=(memory, mask))
    found = {f"encoder.{site}": value for site, value in first.items()}
    found |= {f"decoder.{site}": value for site, value in second.items()}
    return hidden, {site: found[site] for site in wanted}


@functools.partial(jax.jit, static_argnames=("config", "names"))
def _run(
    params: Params, config: PairConfig, tokens: Array, mask: Array, targets: Array, target_mask: Array,
    edits: dict[str, taps.Edit | taps.Splice], names: tuple[tuple[str, str | None], ...],
) -> tuple[Array, dict[str, Any]]:
    return forward_pair(params, config, tokens, mask, targets, target_mask, capture=dict(names), edits=edits)


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
    """Parameters, configs and tokenizer of a pair.

    Args:
        params, config: as of `init_pair`. tokenizer, fingerprint, name, family, health: as of `Model`.
        start: token that what is written begins with.
    """

    params: Params = dataclasses.field(repr=False)
    config: PairConfig
    tokenizer: Any = dataclasses.field(default=None, repr=False)
    fingerprint: str = ""
    name: str = ""
    family: str = ""
    health: Mapping[str, int] = dataclasses.field(default_factory=dict)
    start: int = 0

    @property
    def encoder(self) -> Model:
        """The encoder as a model of its own."""
        return Model(self.params["encoder"], self.config.encoder, self.tokenizer, self.fingerprint, self.name,
                     self.family, self.health)

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site of both halves, in the order of the computation."""
        return tuple(f"{half}.{site}" for half in HALVES for site in taps.site_shapes(getattr(self.config, half)))

    def __call__(
        self, tokens: ArrayLike, targets: ArrayLike, mask: ArrayLike | None = None,
        target_mask: ArrayLike | None = None, capture: Mapping[str, str | None] | Sequence[str] = (),
        edits: taps.Edits | None = None,
    ) -> tuple[Float[Array, "B U V"], dict[str, Any]]:
        """Logits at every target, and site -> what was captured there.

        Args:
            tokens: ids [B, T] that are read. targets: ids [B, U] written so far, their start token first.
            capture: sites, or site -> None or the name of a reduction.

        Raises:
            InputError: ids, masks, sites or edits that do not fit.
        """
        read, real = check_batch(self.config.encoder, tokens, mask)
        written, own = check_batch(self.config.decoder, targets, target_mask)
        if len(read) != len(written):
            raise InputError(f"{len(read)} rows are read and {len(written)} written; give as many of both")
        wanted = dict(capture) if isinstance(capture, Mapping) else dict.fromkeys(capture)
        hidden, captured = _run(self.params, self.config, read, real, written, own, dict(edits or {}),
                                tuple(wanted.items()))
        return unembed(decoder_params(self.params), self.config.decoder, hidden), captured


def pair_entries(family: Family, config: PairConfig) -> tuple[Entry, ...]:
    """The tensors of both halves."""
    assert family.decoder is not None
    of = lambda half, found: tuple(dataclasses.replace(one, ours=f"{half}/{one.ours}") for one in found)
    return *of("encoder", family.entries(config.encoder)), *of("decoder", family.decoder.entries(config.decoder))


def _tied(checkpoint: Checkpoint, said: bool) -> bool:
    """Whether the head is the embedding: as the config says, unless the checkpoint holds both and they differ."""
    shared = next((name for name in ("shared.weight", "model.shared.weight") if name in checkpoint.names), None)
    if not said or shared is None or HEAD not in checkpoint.names:
        return said
    return np.array_equal(checkpoint.read(HEAD), checkpoint.read(shared), equal_nan=True)


def load_pair(
    name_or_folder: str | Path, revision: str | None = None, subfolder: str | None = None, dtype: str = "float32",
    tokenizer: Any = None,
) -> EncoderDecoder:
    """An encoder-decoder with its weights, from the hub or a folder; on the default device.

    Args and errors: as of `load_model`; also an `InputError` for a model that is no encoder-decoder.
    """
    check_dtype(dtype)
    folder = resolve(name_or_folder, revision, subfolder)
    name = str(name_or_folder) + (f"@{revision}" if revision else "") + (f"/{subfolder}" if subfolder else "")
    hf = read_json(folder / "config.json")
    family = family_of(hf)
    if family.decoder is None:
        raise InputError(f"{name} is a {family.name} model, which is no encoder-decoder; load it with load_model")
    checkpoint = open_checkpoint(folder)
    decoder = family.decoder.read_config(hf)
    config = PairConfig(family.read_config(hf), dataclasses.replace(decoder, tied=_tied(checkpoint, decoder.tied)))
    for tensor in family.decoder.zero:
        if tensor in checkpoint.names and np.any(checkpoint.read(tensor)):
            raise InputError(
                f"tensor {tensor} of {name} is not zero, which is not supported; use a checkpoint without it")
    entries = pair_entries(family, config)
    unused = tuple(pattern for pattern in family.unused if not pattern.endswith("decoder.*")) + tuple(
        pattern.replace("encoder", "decoder") for pattern in family.unused)
    loaded = load_params(
        checkpoint, entries, jax.eval_shape(lambda: init_pair(config, jax.random.key(0), dtype)), dtype,
        prefixes=family.prefixes, unused=unused, spellings=family.spellings, vocab_size=config.encoder.vocab_size)
    chosen = tokenizer_of(folder, tokenizer, config.encoder.vocab_size, name)
    start = hf.get("decoder_start_token_id")
    start = hf.get("bos_token_id") if start is None else start
    return EncoderDecoder(loaded.params, config, chosen, loaded.fingerprint, name, family.name, loaded.health,
                          start if isinstance(start, int) else 0)
