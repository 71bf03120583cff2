"""Vocabulary banks: one body, and for each language what of the model is its own.

A bank holds the token embedding and what the head knows of tokens, and may hold positions and adapters. The body is
all else. Special tokens are the body's: banks must have the same ones at the same ids, and read the body's rows there.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from xlingjax.errors import InputError
from xlingjax.files import slug, write_whole
from xlingjax.models.config import TransformerConfig
from xlingjax.models.loading import load_model, save_model
from xlingjax.models.model import Model
from xlingjax.models.transformer import init_params
from xlingjax.models.weights import fingerprint_params

Tree = Mapping[str, Any]
# Leaves that count tokens, and the axis that does.
BY_TOKEN = {"embed/tokens/embedding": 0, "head/kernel": 1, "head/bias": 0}
POSITIONS = "embed/positions/embedding"
ADAPTERS = ("layers/attn_adapter", "layers/mlp_adapter")
LISTED = "banks.json"
NEXT = "next"  # the head of next sentences, where a body has one; no part of a model


@dataclasses.dataclass(frozen=True)
class Body:
    """What all languages share.

    Attributes:
        params: as of a model, without what counts tokens; under `specials` the ids of the special tokens and their
            rows. Positions stay here, for banks that have none of their own.
        config: as of the model it was split from, without adapters.
        specials: special token -> id, what a bank's tokenizer must have.
        family: as of `Model`.
    """

    params: Tree = dataclasses.field(repr=False)
    config: TransformerConfig
    specials: Mapping[str, int]
    family: str = ""


@dataclasses.dataclass(frozen=True)
class Bank:
    """What of a model is one language's own.

    Attributes:
        params: a part of a model's parameters.
        tokenizer: gives the ids that the token embedding has rows for.
        name: of the language, or what else it is.
    """

    params: Tree = dataclasses.field(repr=False)
    tokenizer: Any = dataclasses.field(repr=False)
    name: str = ""

    @property
    def vocabulary(self) -> int:
        """Rows of the token embedding, V."""
        return self.params["embed"]["tokens"]["embedding"].shape[0]

    @property
    def own_positions(self) -> bool:
        """Whether it has positions of its own."""
        return "positions" in self.params["embed"]

    @property
    def adapter_width(self) -> int:
        """Units of its adapters, 0 where it has none."""
        adapters = self.params.get("layers", {}).get("attn_adapter")
        return 0 if adapters is None else adapters["down"]["kernel"].shape[-1]


def special_ids(tokenizer: Any, what: str) -> dict[str, int]:
    """Special token -> id.

    Raises:
        InputError: no tokenizer, or none with special tokens.
    """
    if tokenizer is None:
        raise InputError(f"{what} has no tokenizer; a bank needs the one that gives its ids")
    found = {str(token): int(number) for token, number in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids)}
    if not found:
        raise InputError(f"the tokenizer of {what} names no special tokens; name them in its special_tokens_map.json")
    return dict(sorted(found.items(), key=lambda item: item[1]))


def split(model: Model, name: str = "", *, positions: bool = False) -> tuple[Body, Bank]:
    """A model as a body and the bank of its language.

    Args:
        model: an encoder or a decoder with its tokenizer.
        name: of the bank; the model's by default.
        positions: whether the bank takes the positions too (the body keeps a copy, for other banks).

    Raises:
        InputError: the model has no tokenizer, or no learned positions to take.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"<s>": 0, "dog": 1}, unk_token="<s>"))
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    >>> config = TransformerConfig(vocab_size=2, layers=2, width=8, heads=2, mlp_width=32)
    >>> body, bank = split(Model(init_params(config, jax.random.key(0)), config, tokenizer))
    >>> bank.vocabulary, dict(body.specials), sorted(body.params)
    (2, {'<s>': 0}, ['layers', 'norm', 'specials'])
    """
    specials = special_ids(model.tokenizer, f"model {model.name!r}")
    ids = np.array(list(specials.values()), np.int32)
    if positions and model.config.positions != "learned":
        raise InputError(f"model {model.name!r} has {model.config.positions} positions, which no bank can own; "
                         "leave positions out")
    flat = flatten(model.params)
    own = {path: leaf for path, leaf in flat.items() if path in BY_TOKEN or path.startswith(ADAPTERS)}
    if positions:
        own[POSITIONS] = flat[POSITIONS]
    shared = {path: leaf for path, leaf in flat.items() if path not in own or path == POSITIONS}
    rows = {path.replace("/", "."): jnp.take(flat[path], ids, axis) for path, axis in BY_TOKEN.items() if path in flat}
    body = Body(
        unflatten(shared) | {"specials": {"ids": jnp.asarray(ids), **rows}},
        dataclasses.replace(model.config, adapter_width=0), specials, model.family)
    return body, Bank(unflatten(own), model.tokenizer, name or model.name)


def join_params(body: Tree, bank: Tree) -> dict[str, Any]:
    """The parameters of a model from those of a body and a bank; pure, for use inside `jit` and `grad`.

    The rows of special tokens are the body's, so that no gradient reaches those of the bank.
    """
    flat = flatten(bank)
    specials = body["specials"]
    for path, axis in BY_TOKEN.items():
        if path in flat:
            place = (slice(None),) * axis + (specials["ids"],)
            table = jnp.asarray(flat[path])
            flat[path] = table.at[place].set(specials[path.replace("/", ".")].astype(table.dtype))
    shared = flatten({name: part for name, part in body.items() if name not in ("specials", NEXT)})
    return unflatten(shared | flat)


def joined_config(body: Body, bank: Bank) -> TransformerConfig:
    """The config of a body with a bank."""
    return dataclasses.replace(body.config, vocab_size=bank.vocabulary, adapter_width=bank.adapter_width)


def require_fit(body: Body, bank: Bank) -> None:
    """`InputError` where a bank cannot stand beside a body: other special tokens, other widths, other shapes."""
    named = f"bank {bank.name!r}"
    found = special_ids(bank.tokenizer, named)
    if found != dict(body.specials):
        off = sorted(set(found.items()) ^ set(body.specials.items()))[0][0]
        raise InputError(
            f"the tokenizer of {named} has the special token {off!r} at {found.get(off, 'no id')}, the body at "
            f"{body.specials.get(off, 'no id')}; banks share special tokens, so train it with the same ones first")
    width = bank.params["embed"]["tokens"]["embedding"].shape[1]
    if width != body.config.width:
        raise InputError(f"{named} has embeddings of width {width}, the body of {body.config.width}; learn it on this "
                         "body, or give the body it belongs to")
    if max(bank.tokenizer.get_vocab().values()) >= bank.vocabulary:
        raise InputError(f"{named} has {bank.vocabulary} rows, fewer than its tokenizer has pieces; give the tokenizer "
                         "it was learned with")
    target = _shapes(joined_config(body, bank))
    for path, leaf in flatten(bank.params).items():
        if path not in target or target[path].shape != leaf.shape:
            raise InputError(f"{named} holds {path} of shape {leaf.shape}, and its body takes "
                             f"{target[path].shape if path in target else 'nothing there'}; learn it on this body")


@functools.lru_cache(maxsize=64)
def _shapes(config: TransformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    return flatten(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))


_join = jax.jit(join_params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fresh(config: TransformerConfig, paths: tuple[str, ...], key: Key[Array, ""]) -> dict[str, Any]:
    """Of random parameters those under some paths; the others are not computed."""
    return unflatten({path: leaf for path, leaf in flatten(init_params(config, key)).items() if path in paths})


def join(body: Body, bank: Bank) -> Model:
    """The model of a body and a bank, checked.

    Raises:
        InputError: as of `require_fit`.
    """
    require_fit(body, bank)
    params = _join(body.params, bank.params)
    return Model(params, joined_config(body, bank), bank.tokenizer, fingerprint_params(params), bank.name, body.family)


def fresh_bank(
    body: Body, tokenizer: Any, key: Key[Array, ""], name: str, *, vocabulary: int = 0, positions: bool = False,
    adapter_width: int = 0, start: Float[Array, "V D"] | None = None,
) -> Bank:
    """A bank to be learned on a body.

    Args:
        body: what it is for.
        tokenizer: its own, with the body's special tokens.
        key: of random embeddings (normal, sd 0.02).
        name: of the language.
        vocabulary: rows V, at least the tokenizer's pieces, which is the default; a number that languages have in
            common lets them share their programs.
        positions: it gets positions of its own, which start as a copy of the body's.
        adapter_width: it gets adapters, which start without effect.
        start: token embeddings to start from, instead of random ones.

    Raises:
        InputError: as of `require_fit`; a start of another shape; positions that cannot be owned.
    """
    special_ids(tokenizer, f"bank {name!r}")
    rows = vocabulary or max(tokenizer.get_vocab().values()) + 1
    config = dataclasses.replace(body.config, vocab_size=rows, adapter_width=adapter_width)
    own = _fresh(config, tuple(p for p in _shapes(config) if p in BY_TOKEN or p.startswith(ADAPTERS)), key)
    if positions:
        if POSITIONS not in flatten(body.params):
            raise InputError(f"the body has {config.positions} positions, which no bank can own; leave positions out")
        own["embed"]["positions"] = {"embedding": jnp.copy(body.params["embed"]["positions"]["embedding"])}
    if start is not None:
        if start.shape != own["embed"]["tokens"]["embedding"].shape:
            raise InputError(f"the start of bank {name!r} is of shape {start.shape}; give one row for each of {rows} "
                             f"pieces, {config.width} numbers each")
        own["embed"]["tokens"]["embedding"] = jnp.asarray(start, own["embed"]["tokens"]["embedding"].dtype)
    bank = Bank(own, tokenizer, name)
    require_fit(body, bank)
    return bank


def adapted(bank: Bank, body: Body, width: int) -> Bank:
    """The bank with adapters that do nothing, so that it stands in one program with banks that have adapters."""
    if bank.adapter_width or not width:
        return bank
    made = fresh_bank(body, bank.tokenizer, jax.random.key(0), bank.name, vocabulary=bank.vocabulary,
                      adapter_width=width)
    return dataclasses.replace(bank, params={**bank.params, "layers": made.params["layers"]})


class Banks:
    """One body and its banks by name; `model(name)` swaps one in.

    Args:
        body: the body.
        banks: name -> bank.

    Raises:
        InputError: as of `require_fit`.
    """

    def __init__(self, body: Body, banks: Mapping[str, Bank]) -> None:
        for bank in banks.values():
            require_fit(body, bank)
        self.body, self.banks = body, dict(banks)
        self.model: Callable[[str], Model] = functools.lru_cache(self._model)  # a second swap costs nothing

    def _model(self, name: str) -> Model:
        if name not in self.banks:
            raise InputError(f"there is no bank {name!r}; there are {', '.join(self.banks)}")
        return join(self.body, self.banks[name])


def save_banks(banks: Banks, folder: str | Path) -> None:
    """Writes the model of every bank as a checkpoint: `load_model(folder, revision=NAME)` reads body and bank.

    Raises:
        InputError: a checkpoint of that name is there already, or two names that are one on disk.
    """
    folder = Path(folder)
    names = {slug(name): name for name in banks.banks}
    if len(names) < len(banks.banks):
        raise InputError(f"the names {', '.join(banks.banks)} are not different on disk; rename a bank")
    for stored, name in names.items():
        save_model(banks.model(name), folder / "checkpoints" / stored)
    listed = {stored: {"name": name, "positions": banks.banks[name].own_positions} for stored, name in names.items()}
    write_whole(folder / LISTED, json.dumps(listed, indent=1).encode())


def load_banks(folder: str | Path) -> Banks:
    """What `save_banks` wrote.

    Raises:
        InputError: nothing of the kind there, a damaged checkpoint, or checkpoints whose bodies differ.
    """
    path = Path(folder) / LISTED
    if not path.is_file():
        raise InputError(f"{folder} holds no banks; give a folder that save_banks wrote")
    try:
        listed = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON; save the banks again") from error
    body, banks, first = None, {}, ""
    for stored, about in listed.items():
        model = load_model(folder, revision=stored)
        found, bank = split(model, about["name"], positions=about["positions"])
        if about["positions"]:  # the body's own were not part of this checkpoint
            found = dataclasses.replace(found, params={
                **found.params, "embed": {k: v for k, v in found.params["embed"].items() if k != "positions"}})
        digest = fingerprint_params({k: v for k, v in flatten(found.params).items() if k != POSITIONS})
        if body is None or POSITIONS not in flatten(body.params):
            body = found
        first = first or digest
        if digest != first:
            raise InputError(f"the checkpoints in {folder} have different bodies; {stored} is not of the first one's")
        banks[about["name"]] = bank
    if body is None:
        raise InputError(f"{path} lists no bank; save the banks again")
    return Banks(body, banks)


def combined(*parts: Tree | None) -> dict[str, Any]:
    """Trees of different leaves as one: what is learned, and what is frozen.

    >>> combined({"body": {"a": 1}}, {"body": {"b": 2}}, None)
    {'body': {'a': 1, 'b': 2}}
    """
    flat: dict[str, Any] = {}
    for part in parts:
        flat |= flatten(part or {})
    return unflatten(flat)


def parted(body: Body, learned: Callable[[str], bool] = lambda path: True) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body's parameters whose path `learned` names, and the rest; ids are never learned."""
    flat = flatten(body.params)
    chosen = {path: leaf for path, leaf in flat.items() if path != "specials/ids" and learned(path)}
    return unflatten(chosen), unflatten({path: leaf for path, leaf in flat.items() if path not in chosen})


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as "/"-joined path -> leaf.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a/b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, part in tree.items():
        flat |= flatten(part, f"{prefix}{name}/") if isinstance(part, Mapping) else {f"{prefix}{name}": part}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`.

    >>> unflatten({"a/b": 1, "c": 2})
    {'a': {'b': 1}, 'c': 2}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[name] = leaf
    return tree
