"""What a batch must be before a model reads it."""

import numpy as np
from jax.typing import ArrayLike

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig


def check_batch(
    config: TransformerConfig, tokens: ArrayLike, mask: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens as int32 and mask as bool, both `[B, T]`, of a batch that this model can read."""
    return check_ids(config.vocab_size, config.max_length, tokens, mask)


def check_ids(
    vocab_size: int, max_length: int, tokens: ArrayLike, mask: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """The same for any model of V tokens that reads at most `max_length` (0: any number)."""
    ids = np.asarray(tokens)
    if ids.ndim != 2 or 0 in ids.shape or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"tokens are {ids.dtype} of shape {ids.shape}; give whole numbers [B, T], not empty"
        )
    real = np.ones(ids.shape, bool) if mask is None else as_bool("mask", mask, ids.shape)
    outside = ids[real & ((ids < 0) | (ids >= vocab_size))]
    if outside.size:
        raise InputError(
            f"token {outside[0]} lies outside the vocabulary of {vocab_size}; "
            "use the tokenizer that belongs to this model"
        )
    longest = int(real.sum(axis=1).max())
    if max_length and longest > max_length:
        raise InputError(
            f"a sentence has {longest} tokens, the model {max_length} positions; "
            "shorten the sentence"
        )
    return np.where(real, ids, 0).astype(np.int32), real


def as_bool(name: str, given: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(given)
    if np.issubdtype(array.dtype, np.integer) and np.isin(array, (0, 1)).all():
        array = array.astype(bool)
    if array.shape != shape or array.dtype != bool:
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}; give bool of {shape}")
    return array
