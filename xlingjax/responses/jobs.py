"""A run before it starts: sentences as tokens, their batches and blocks, the identity of it all."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xlingjax.corpora.batching import BatchPlan, counted, make_batch, plan_batches
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.models.taps import site_shapes
from xlingjax.neurons import NeuronIndex
from xlingjax.responses import store
from xlingjax.responses.stepping import Capture
from xlingjax.sharding import batch_shards

POOLS = ("max", "mean", "last", "sum", "argmax", "positive", "position")
BATCH_TOKENS = 8192
LONGEST = 2048  # tokens of a sentence where the model itself sets no limit
VERSIONS = ("jax", "jaxlib", "flax", "numpy", "tensorstore")

Where = Mapping[str, Any] | Sequence[np.ndarray] | None


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that fixes a run: sentences as tokens, their batches, and the identity of it all.

    Attributes:
        tokens: the sentences.
        where: S arrays bool[t], counted tokens.
        batches: in the order they are run.
        capture: (site, pool) of each site.
        neurons: the index of all neurons collected.
        layout: blocks and chunks.
        order: int64[S], the sentence of each stored row.
        starts: int64[batches], the stored row of each batch's first sentence.
        pieces: int32[S], counted tokens of each sentence.
        identity: what must be equal for a run to be resumed.
    """

    tokens: Tokens
    where: tuple[np.ndarray, ...]
    batches: tuple[BatchPlan, ...]
    capture: Capture
    neurons: NeuronIndex
    layout: store.Layout
    order: np.ndarray
    starts: np.ndarray
    pieces: np.ndarray
    identity: Mapping[str, Any]

    def inputs(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """tokens int32[B, T], mask bool[B, T], where bool[B, T] of one batch."""
        made = make_batch(self.tokens, self.batches[batch], self.where)
        return made.tokens, made.mask, made.where


def prepare(
    model: Any,
    corpus: Corpus | Tokens,
    sites: Sequence[str] | None,
    pool: str,
    where: Where,
    batch_tokens: int,
    max_length: int | None,
    in_memory: bool,
    block_sentences: int | None = None,
) -> Job:
    """Checks the arguments and fixes batches, blocks and identity of a run.

    Raises:
        InputError: names the argument that cannot be used.
    """
    if pool not in POOLS:
        raise InputError(f"pool {pool!r} is unknown; choose among {', '.join(POOLS)}")
    chosen = tuple(model.neuron_sites) if sites is None else read_sites(model, sites)
    tokens, max_length = read_tokens(model, corpus, max_length)
    counts, rule = _counted(tokens, corpus, where)
    batches = plan_batches(tokens.lengths, batch_tokens, batch_shards(model.params))
    order = np.concatenate([batch.rows[batch.rows >= 0] for batch in batches])
    sizes = np.array([(batch.rows >= 0).sum() for batch in batches])
    neurons = model.neurons(chosen)
    layout = store.layout(
        neurons.shapes,
        len(tokens),
        "int32" if pool == "argmax" else "float32",
        len(tokens) if in_memory else block_sentences,
    )
    # What a user changes comes first, what follows from it last: errors name the first differences.
    identity = {
        "pool": pool,
        "sites": list(chosen),
        "where": rule,
        "batch_tokens": batch_tokens,
        "max_length": max_length,
        "model": model_identity(model),
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "corpus": corpus.fingerprint if isinstance(corpus, Corpus) else "tokens",
        "versions": {
            "xlingjax": _version("xlingjax"),
            **{name: _version(name) for name in VERSIONS},
        },
        "mesh": _mesh(model.params),
        "tokens": tokens_fingerprint(tokens),
        "counted": _hash(counts),
        "batches": _hash(*([np.array([batch.length]), batch.rows] for batch in batches)),
        "block_sentences": layout.block_sentences,
    }
    pieces = np.array([np.count_nonzero(row) for row in counts], np.int32)
    return Job(
        tokens,
        counts,
        batches,
        tuple((site, pool) for site in chosen),
        neurons,
        layout,
        order,
        np.concatenate([[0], np.cumsum(sizes)[:-1]]),
        pieces,
        identity,
    )


def read_tokens(model: Any, corpus: Corpus | Tokens, max_length: int | None) -> tuple[Tokens, int]:
    """The sentences as tokens that the model can read, and the length they were cut to.

    Raises:
        InputError: no sentence, no tokenizer, or tokens that the model does not know.
    """
    limit = model.config.max_length or LONGEST
    if max_length is None:
        max_length = limit
    elif max_length > limit and model.config.max_length:
        raise InputError(
            f"max_length {max_length} exceeds the context of {model.name}; give at most {limit}"
        )
    if len(corpus) == 0:
        raise InputError("the corpus has no sentences; give one with at least one")
    if isinstance(corpus, Tokens):
        tokens = corpus
        if tokens.lengths.max() > max_length:
            raise InputError(
                f"sentence {tokens.lengths.argmax()} has {tokens.lengths.max()} tokens; the most "
                f"here is {max_length}, cut it or give a larger max_length"
            )
    else:
        if model.tokenizer is None:
            raise InputError(
                f"model {model.name} was loaded without a tokenizer; load it with "
                "tokenizer=NAME, or give tokens in place of texts"
            )
        tokens = tokenise(model.tokenizer, corpus.texts, max_length)
    largest = max((int(ids.max()) for ids in tokens.ids if len(ids)), default=0)
    if largest >= model.config.vocab_size:
        raise InputError(
            f"the tokenizer gives token {largest}, but {model.name} knows "
            f"{model.config.vocab_size} "
            "tokens; load the tokenizer that belongs to the model"
        )
    return tokens, max_length


def model_identity(model: Any) -> dict[str, Any]:
    """JSON values of what decides a model's activations."""
    return {
        "fingerprint": model.fingerprint or params_fingerprint(model.params),
        "dtype": _dtype(model),
        "config": model.config.to_dict(),
    }


def tokens_fingerprint(tokens: Tokens) -> str:
    """SHA-256 of the sentences as tokens."""
    return _hash(tokens.ids, tokens.special)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of the tokenizer's rules and vocabulary, without its padding of the moment."""
    if tokenizer is None:
        return "none"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.pop("padding", None)
        rules.pop("truncation", None)
    else:
        rules = [type(tokenizer).__name__, tokenizer.get_vocab()]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def params_fingerprint(params: Any) -> str:
    """SHA-256 of the parameters themselves, for a model that was not loaded from files."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return _hash(
        *([np.array(jax.tree_util.keystr(path)), jax.device_get(leaf)] for path, leaf in leaves)
    )


def read_sites(model: Any, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites as a tuple; `InputError` where the model has no such site or one is named twice."""
    if isinstance(sites, str):
        raise InputError(f"sites is the string {sites!r}; give a tuple of sites, ({sites!r},)")
    chosen = tuple(sites)
    shapes = site_shapes(model.config)
    for site in chosen:
        if site not in shapes:
            raise InputError(
                f"site {site!r} is not in {model.name}; choose among {', '.join(shapes)}"
            )
    if "attn.pattern" in chosen:
        raise InputError(
            "site 'attn.pattern' has no pooled responses: its units are pairs of tokens; leave it "
            "out"
        )
    if not chosen or len(set(chosen)) != len(chosen):
        raise InputError(f"sites are {chosen}; name at least one, each once")
    return chosen


def _counted(
    tokens: Tokens, corpus: Corpus | Tokens, where: Where
) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Counted tokens of each sentence, and the rule as it stands in the result."""
    if where is None or isinstance(where, Mapping):
        rule = {"special": False, "first": True, "leave_out": None} | dict(where or {})
        if set(rule) != {"special", "first", "leave_out"}:
            raise InputError(
                f"where has the keys {', '.join(where or ())}; it takes special, first and "
                f"leave_out"
            )
        languages = corpus.languages if isinstance(corpus, Corpus) else None
        counts = counted(tokens, languages=languages, **rule)
        left_out = rule["leave_out"] or {}
        return counts, {
            "given": False,
            **rule,
            "leave_out": {name: len(ids) for name, ids in left_out.items()},
        }
    if len(where) != len(tokens) or any(
        np.shape(a) != np.shape(b) for a, b in zip(where, tokens.ids)
    ):
        raise InputError(
            "where has another shape than the tokens; give one bool for each token of each sentence"
        )
    return tuple(np.asarray(row, bool) for row in where), {"given": True}


def _mesh(params: Any) -> dict[str, Any]:
    sharding = jax.tree.leaves(params)[0].sharding
    device = sorted(sharding.device_set, key=lambda device: device.id)[0]
    axes = dict(sharding.mesh.shape) if isinstance(sharding, jax.sharding.NamedSharding) else {}
    return {
        "devices": len(sharding.device_set),
        "platform": device.platform,
        "kind": device.device_kind,
        "axes": axes,
    }


def _dtype(model: Any) -> str:
    return str(jax.tree.leaves(model.params)[0].dtype)


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _hash(*groups: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for group in groups:
        for array in group:
            digest.update(
                f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
            )
    return digest.hexdigest()
