"""What a family file is made of: a table of tensors and a reader of `config.json`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of ours and its source in a checkpoint.

    Args:
        ours: "/"-joined path in our parameters.
        theirs: name in the checkpoint; with `{layer}`, one tensor a layer, stacked in ours.
        transpose: a torch Linear weight `[out, in]` that becomes our kernel `[in, out]`.
    """

    ours: str
    theirs: str
    transpose: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
    """How checkpoints of one family become ours.

    Args:
        name: as it stands in results.
        model_types: `model_type` of the `config.json` files that the family reads.
        read_config: the parsed `config.json` -> our config; `InputError` names an option that we
            do not honour.
        entries: every tensor of a model with that config, each once.
        modules: site -> the family's own module name with `{layer}`, as ml-selfcond names it.
        prefixes: prefix of the names in `theirs` that a checkpoint may lack (saved without its
            head), all names together.
        unused: `fnmatch` patterns of tensors that a checkpoint may hold beside the entries and that
            carry nothing (tied copies, buffers, poolers); matched with or without the prefix.
        spellings: parts of names as some checkpoints have them -> as the entries do.
        decoder: of an encoder-decoder, whose encoder is what the rest of this record describes; see
            `models.pair`.
    """

    name: str
    model_types: tuple[str, ...]
    read_config: Callable[[Mapping[str, Any]], TransformerConfig]
    entries: Callable[[TransformerConfig], tuple[Entry, ...]]
    modules: Mapping[str, str]
    prefixes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    spellings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decoder: "Decoder | None" = None


@dataclasses.dataclass(frozen=True)
class Decoder:
    """The other half of an encoder-decoder family.

    Args:
        read_config: the parsed `config.json` -> the decoder's config, with cross-attention.
        entries: its tensors but the token embedding, which is the encoder's.
        modules: site -> module, as of `Family`.
        zero: tensors that must be zero, as they are in every published model; they are not ours.
    """

    read_config: Callable[[Mapping[str, Any]], TransformerConfig]
    entries: Callable[[TransformerConfig], tuple[Entry, ...]]
    modules: Mapping[str, str]
    zero: tuple[str, ...] = ()


def linear(ours: str, theirs: str, bias: bool = True, transpose: bool = True) -> tuple[Entry, ...]:
    """The entries of a torch Linear; with `transpose=False`, of a map that is kept as `[in, out]`."""
    weight = Entry(f"{ours}/kernel", f"{theirs}.weight", transpose)
    return (weight, Entry(f"{ours}/bias", f"{theirs}.bias")) if bias else (weight,)


def layer_norm(ours: str, theirs: str) -> tuple[Entry, ...]:
    """The entries of a torch LayerNorm."""
    return Entry(f"{ours}/scale", f"{theirs}.weight"), Entry(f"{ours}/bias", f"{theirs}.bias")
