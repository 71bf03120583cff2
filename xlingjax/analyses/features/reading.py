"""What a model holds at words, under edits: states at the dictionary's layer and later ones, latents, losses.

A row of a batch is a sentence under one condition, so conditions fill batches together; the edit of a row is data.
Every batch of a length has the same shape, whatever is asked for, so that nothing compiles twice.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int, Shaped

from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.corpora.batching import Batch, BatchPlan, bucket_lengths, make_batch
from xlingjax.corpora.tokenising import Tokens
from xlingjax.corpora.words import Treebank
from xlingjax.errors import InputError
from xlingjax.models import Model, Splice
from xlingjax.models.transformer import forward
from xlingjax.precision import full_precision
from xlingjax.responses.stepping import run
from xlingjax.sae import Dictionary, EditLatents, LatentEdit, encode
from xlingjax.sharding import batch_sharding, batch_shards
from xlingjax.training.objectives import Objective, row_losses

OWN, FINAL = "own", "final"
BEGINS = ("resid",)  # sites from which the layers above can be run as a model of their own


class Activity(NamedTuple):
    """How active each latent is over the tokens of each language: share above 0, and mean."""

    frequency: np.ndarray  # [G, M]
    mean: np.ndarray  # [G, M]
    tokens: np.ndarray  # [G]


def later_layers(model: Model, dictionary: Dictionary, most: int) -> list[int]:
    """Layers of `resid` that lie after the dictionary, at most so many, evenly spread, the last one among them.

    >>> from xlingjax.models import init_params, TransformerConfig
    >>> from xlingjax.sae import DictionaryConfig
    >>> model = Model({}, TransformerConfig(vocab_size=11, layers=9, width=8, heads=2, mlp_width=32))
    >>> later_layers(model, Dictionary({}, DictionaryConfig("relu", 8, 16), "resid", 2), 3)
    [4, 6, 8]
    """
    first = {"embed": 0, "resid": dictionary.layer + 1}.get(dictionary.site, dictionary.layer)
    every = np.arange(first, model.config.layers)
    if len(every) <= most:
        return every.tolist()
    return every[np.ceil(np.arange(1, most + 1) * len(every) / most).astype(int) - 1].tolist()


class Reader:
    """A model, a dictionary of one of its layers, and the words of a treebank.

    Args:
        places: of every word of the treebank, as of `word_positions`.
        words: of which anything will be asked, at most.

    Attributes:
        layers: names of what `states` gives: "own", "resid 3", ..., "final" (after the last norm).

    Raises:
        InputError: the dictionary does not fit the model, or is a transcoder.
    """

    def __init__(self, model: Model, dictionary: Dictionary, bank: Treebank, tokens: Tokens,
                 places: Int[np.ndarray, "N 2"], words: Int[np.ndarray, "n"], settings: FeatureSettings) -> None:
        dictionary.require(model)
        if dictionary.target is not None:
            raise InputError("a transcoder reads one site and writes another, so what its latents carry at a site "
                             "cannot be taken away there; give a dictionary that reads and writes one site")
        self.model, self.dictionary, self.bank, self.tokens, self.settings = model, dictionary, bank, tokens, settings
        self.last = places[:, 0] if settings.align == "first" else places[:, 1]
        self.first = places[:, 0]
        self.later = later_layers(model, dictionary, settings.layers)
        norm = [FINAL] if model.config.final_norm and self.later else []
        self.layers = [OWN, *(f"resid {i}" for i in self.later), *norm]
        self.shards = batch_shards(model.params)
        self.ladder = bucket_lengths(int(tokens.lengths.max()))
        self.bucket = np.searchsorted(self.ladder, tokens.lengths)
        held = np.bincount(bank.row[words], minlength=len(tokens))
        self.slots = [max(1, int(held[self.bucket == i].max(initial=0))) for i in range(len(self.ladder))]

    @property
    def width(self) -> int:
        """M."""
        return self.dictionary.config.latents

    def batches(self, sentences: Int[np.ndarray, "R"]) -> list[tuple[int, np.ndarray]]:
        """(bucket, indices into `sentences`), -1 where a batch is filled up."""
        plans = []
        for i in range(len(self.ladder) - 1, -1, -1):
            members = np.flatnonzero(self.bucket[sentences] == i)
            rows = max(1, self.settings.batch_tokens // self.ladder[i] // self.shards) * self.shards
            for start in range(0, len(members), rows):
                part = members[start:start + rows]
                plans.append((i, np.concatenate([part, np.full(rows - len(part), -1)])))
        return plans

    def made(self, bucket: int, rows: np.ndarray, sentences: np.ndarray) -> Batch:
        """Tokens of a planned batch."""
        return self.batch(np.where(rows < 0, -1, sentences[rows]), self.ladder[bucket])

    def batch(self, sentences: Int[np.ndarray, "B"], length: int) -> Batch:
        """Tokens of sentences, -1 = an empty row, padded to a length."""
        return make_batch(self.tokens, BatchPlan(length, sentences))

    def silence(self, keep: Shaped[np.ndarray, "E M"]) -> Splice:
        """An edit with E conditions: latents times `keep`, where 0 takes a latent away; the error term stays."""
        return self.dictionary.edit(LatentEdit(scale=np.asarray(keep, np.float32)[:, None]))

    def states(self, words: Int[np.ndarray, "n"], edit: Splice | None = None) -> Float[np.ndarray, "E L n D"]:
        """The vector of each word at each of `layers` under each condition of an edit.

        Args:
            words: of the treebank.
            edit: whose rows lead with conditions; real tokens are edited, special ones left alone. None: one
                condition, nothing edited.
        """
        conditions = 1 if edit is None else len(jax.tree.leaves(edit.rows)[0])
        # What the dictionary reads may be narrower than the residual stream, and is filled up with zeros.
        widest = max(self.dictionary.config.inputs, self.model.config.width if self.later else 0)
        out = np.zeros((conditions, len(self.layers), len(words), widest), np.float32)
        sentences, of = np.unique(self.bank.row[words], return_inverse=True)
        by_row = np.argsort(of, kind="stable")
        cuts = np.searchsorted(of[by_row], np.arange(len(sentences) + 1))
        sentence = np.tile(np.arange(len(sentences)), conditions)
        condition = np.repeat(np.arange(conditions), len(sentences))
        plans = self.batches(sentences[sentence])
        at = lambda row: by_row[cuts[sentence[row]]:cuts[sentence[row] + 1]]
        # Up to the edit all conditions are alike: there they all begin, if the site allows it. What latents add there
        # is known too, so taking some away is a small product, and no dictionary is read again.
        once = edit is not None and self.dictionary.site in BEGINS and bool(self.later)
        begins = self._stream(sentences) if once else {}
        taken = _taken(edit) if once and edit is not None else None
        known = None if taken is None else self._known(sentences, taken)

        def inputs() -> Iterator[tuple[Any, ...]]:
            for bucket, rows in plans:
                made = self.made(bucket, rows, sentences[sentence])
                spans = np.tile(np.array([0, -1], np.int32), (len(rows), self.slots[bucket], 1))
                for i, row in enumerate(rows):
                    if row >= 0:
                        spans[i, :len(at(row))] = np.stack([self.first[words[at(row)]], self.last[words[at(row)]]], 1)
                keys = [sentence[row] if row >= 0 else -1 - bucket for row in rows]
                begun = [np.stack([begins[key] for key in keys])] if once else []
                if known is not None:
                    for i, row in enumerate(rows):
                        if row >= 0:
                            begun[0][i] -= known(int(sentence[row]), int(condition[row]))
                yield (*begun, made.tokens, made.mask, made.where, spans,
                       None if known is not None else self._rows(edit, condition, rows))

        step = functools.partial(_states_after if once else _states, self.model.params, self.model.config, self._place,
                                 tuple(self.later), None if known is not None else _without_rows(edit))
        for (_, rows), (own, later, final) in zip(plans, self._run(step, inputs())):
            found = [own, *later, *([final] if FINAL in self.layers else [])]
            for i, row in enumerate(rows):
                if row >= 0:
                    for layer, values in enumerate(found):
                        out[condition[row], layer, at(row), :values.shape[-1]] = values[i, :len(at(row))]
        return out

    def _stream(self, sentences: Int[np.ndarray, "R"]) -> dict[int, np.ndarray]:
        """Place among the sentences -> the residual stream [T, D] where the dictionary stands; zeros for `-1 - bucket`.
        """
        plans = self.batches(sentences)
        step = functools.partial(_own_stream, self.model.params, self.model.config, self.dictionary.layer)
        batches = (self.made(bucket, rows, sentences) for bucket, rows in plans)
        out: dict[int, np.ndarray] = {}
        for (bucket, rows), h in zip(plans, self._run(step, ((made.tokens, made.mask) for made in batches))):
            out[-1 - bucket] = np.zeros_like(h[0])
            out |= {int(row): values for row, values in zip(rows, h) if row >= 0}
        return out

    def _known(
        self, sentences: Int[np.ndarray, "R"], taken: list[np.ndarray],
    ) -> Callable[[int, int], Float[np.ndarray, "T D"]]:
        """(place among the sentences, condition) -> what the condition's latents add to the stream there."""
        union = np.unique(np.concatenate([np.empty(0, int), *taken]))
        rows = np.asarray(self.dictionary.params["decoder"]["kernel"], np.float32)
        held: dict[int, np.ndarray] = {}
        for places, (f, where) in self._encoded(sentences, _counted):
            held |= {int(place): f[i][:, union] * where[i][:, None] for i, place in enumerate(places) if place >= 0}
        own = [np.searchsorted(union, one) for one in taken]
        return lambda place, condition: held[place][:, own[condition]] @ rows[taken[condition]]

    def latents(self, words: Int[np.ndarray, "n"]) -> scipy.sparse.csr_matrix:
        """[n, M]: mean latents over the tokens of each word, block by block; as sparse as they are."""
        by_row = np.argsort(self.bank.row[words], kind="stable")
        sentences, starts = np.unique(self.bank.row[words][by_row], return_index=True)
        ends = np.append(starts[1:], len(words))
        blocks, order = [], []
        for rows, f in self._encoded(sentences, None):
            for i, row in enumerate(rows):
                if row >= 0:
                    order.append(by_row[starts[row]:ends[row]])
                    spans = zip(self.first[words[order[-1]]], self.last[words[order[-1]]])
                    blocks.append(scipy.sparse.csr_matrix(np.stack([f[i, a:b + 1].mean(0) for a, b in spans])))
        return scipy.sparse.vstack(blocks, format="csr")[np.argsort(np.concatenate(order))]

    def activity(self, sentences: Int[np.ndarray, "r"], language: Int[np.ndarray, "r"], count: int) -> Activity:
        """Over all real tokens of sentences, special ones left out; `language` is below `count`."""
        above, total = np.zeros((2, count, self.width))
        tokens = np.zeros(count)
        for rows, found in self._encoded(sentences, _totals):
            real = rows >= 0
            for sums, values in zip((above, total, tokens), found):
                np.add.at(sums, language[rows[real]], values[real])
        each = np.maximum(tokens, 1)[:, None]
        return Activity(above / each, total / each, tokens)

    def _encoded(self, sentences: np.ndarray, reduce: Any) -> Iterator[tuple[np.ndarray, Any]]:
        plans = self.batches(sentences)
        batches = (self.made(bucket, rows, sentences) for bucket, rows in plans)
        one = self.dictionary
        step = functools.partial(_latents, self.model.params, self.model.config, one.params, one.config, self._place,
                                 reduce)
        return zip((rows for _, rows in plans),
                   self._run(step, ((made.tokens, made.mask, made.where) for made in batches)))

    def losses(self, sentences: Int[np.ndarray, "r"], edit: Splice) -> tuple[np.ndarray, np.ndarray]:
        """Summed cross-entropy (nats) of each sentence's targets, and how many there are: [E, r] each."""
        config, tokenizer = self.model.config, self.model.tokenizer
        objective = Objective("causal")
        if not config.causal:
            hide = tokenizer.mask_token_id
            objective = Objective("masked", hide, 1 + max(i for i in tokenizer.all_special_ids if i != hide))
        conditions = len(jax.tree.leaves(edit.rows)[0])
        sentence = np.tile(np.arange(len(sentences)), conditions)
        condition = np.repeat(np.arange(conditions), len(sentences))
        if config.causal:
            plans = self.batches(sentences[sentence])
        else:  # a masked model hides by place in the batch: the same batches one condition after the other
            plans = [(bucket, np.where(rows < 0, -1, rows + e * len(sentences)))
                     for e in range(conditions) for bucket, rows in self.batches(sentences)]

        def inputs() -> Iterator[tuple[Any, ...]]:
            for bucket, rows in plans:
                made = self.made(bucket, rows, sentences[sentence])
                yield made.tokens, made.mask, made.where, self._rows(edit, condition, rows)

        step = functools.partial(_losses, self.model.params, config, objective, self.dictionary.site,
                                 _without_rows(edit))
        sums, counts = np.zeros((2, len(sentence)))
        for (_, rows), (loss, count) in zip(plans, self._run(step, inputs())):
            real = rows >= 0
            sums[rows[real]], counts[rows[real]] = loss[real], count[real]
        return sums.reshape(conditions, -1), counts.reshape(conditions, -1)

    @property
    def _place(self) -> tuple[str, int]:
        return self.dictionary.site, self.dictionary.layer

    @staticmethod
    def _rows(edit: Splice | None, condition: np.ndarray, rows: np.ndarray) -> Any:
        """What differs between conditions, for the rows of a batch."""
        of = np.where(rows >= 0, condition[rows], 0)
        return None if edit is None else jax.tree.map(lambda x: np.asarray(x)[of], edit.rows)

    def _run(self, step: Callable[..., Any], inputs: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
        return run(step, inputs, batch_sharding(self.model.params))


def _taken(edit: Splice) -> list[np.ndarray] | None:
    """The latents that each condition sets to zero, where an edit does nothing else."""
    rows = edit.rows
    if not isinstance(edit.function, EditLatents) or rows.mask is not None or rows.value is not None:
        return None
    scale = np.asarray(rows.scale)
    if scale.shape[1] != 1 or not np.isin(scale, (0, 1)).all():
        return None
    return [np.flatnonzero(one[0] == 0) for one in scale]


def _without_rows(edit: Splice | None) -> Splice | None:
    return None if edit is None else dataclasses.replace(edit, rows=None)


def _edits(site: str, edit: Splice | None, rows: Any, where: Array) -> dict[str, Splice] | None:
    return None if edit is None else {site: dataclasses.replace(edit, rows=rows, where=where)}


def averages(spans: Int[Array, "B P 2"], length: int) -> Float[Array, "B P T"]:
    """Weights of the mean over the tokens first to last; of no token where last lies before first."""
    place = jnp.arange(length)
    inside = (place >= spans[..., :1]) & (place <= spans[..., 1:])
    return inside.astype(jnp.float32) / jnp.maximum(inside.sum(-1, keepdims=True, dtype=jnp.float32), 1)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
@full_precision
def _states(
    params: Any, config: Any, place: tuple[str, int], later: tuple[int, ...], edit: Splice | None,
    tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], where: Bool[Array, "B T"], spans: Int[Array, "B P 2"],
    rows: Any,
) -> tuple[Array, list[Array], Array]:
    """Means over words: at the dictionary's own place, at each later layer, and after the final norm."""
    weight = averages(spans, tokens.shape[1])
    mean = lambda h: jnp.einsum("bpt,btd->bpd", weight, h.astype(jnp.float32))
    capture = {site: lambda h, _: mean(h) for site in {place[0], "resid"}}
    hidden, captured = forward(params, config, tokens, mask, capture=capture,
                               edits=_edits(place[0], edit, rows, where))
    return captured[place[0]][place[1]], [captured["resid"][i] for i in later], mean(hidden)


def _given(h: Array, params: Any, rows: Array) -> Array:
    return rows


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
@full_precision
def _states_after(
    params: Any, config: Any, place: tuple[str, int], later: tuple[int, ...], edit: Splice | None,
    h: Float[Array, "B T D"], tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], where: Bool[Array, "B T"],
    spans: Int[Array, "B P 2"], rows: Any,
) -> tuple[Array, list[Array], Array]:
    """`_states` from the residual stream at the dictionary's layer on, edited there: the layers above, as a model."""
    weight, first = averages(spans, tokens.shape[1]), place[1] + 1
    mean = lambda h: jnp.einsum("bpt,btd->bpd", weight, h.astype(jnp.float32))
    moved = h if edit is None else jnp.where(
        (mask & where)[..., None], edit.function(h, edit.params, rows).astype(h.dtype), h)
    above = {**params, "layers": jax.tree.map(lambda leaf: leaf[first:], params["layers"])}
    hidden, captured = forward(
        above, dataclasses.replace(config, layers=config.layers - first), tokens, mask,
        capture={"resid": lambda h, _: mean(h)}, edits={"embed": Splice(_given, rows=moved)})
    return mean(moved), [captured["resid"][i - first] for i in later], mean(hidden)


@functools.partial(jax.jit, static_argnums=(1, 2))
@full_precision
def _own_stream(
    params: Any, config: Any, layer: int, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
) -> Float[Array, "B T D"]:
    below = {**params, "layers": jax.tree.map(lambda leaf: leaf[:layer + 1], params["layers"])}
    _, captured = forward(
        below, dataclasses.replace(config, layers=layer + 1), tokens, mask, capture={"resid": None})
    return captured["resid"][layer]


@functools.partial(jax.jit, static_argnums=(1, 3, 4, 5))
@full_precision
def _latents(
    params: Any, config: Any, coder: Any, coder_config: Any, place: tuple[str, int], reduce: Any,
    tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], where: Bool[Array, "B T"],
) -> Any:
    _, captured = forward(params, config, tokens, mask, capture={place[0]: None})
    f = encode(coder, coder_config, captured[place[0]][place[1]]).astype(jnp.float32)
    return f if reduce is None else reduce(f, where)


def _counted(f: Float[Array, "B T M"], where: Bool[Array, "B T"]) -> tuple[Array, Array]:
    return f, where


def _totals(f: Float[Array, "B T M"], where: Bool[Array, "B T"]) -> tuple[Array, Array, Array]:
    kept = where[..., None]
    return ((f > 0) & kept).sum(1, dtype=jnp.int32), jnp.where(kept, f, 0).sum(1), where.sum(1, dtype=jnp.int32)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
@full_precision
def _losses(
    params: Any, config: Any, objective: Objective, site: str, edit: Splice, tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"], where: Bool[Array, "B T"], rows: Any,
) -> tuple[Array, Array]:
    edits: Any = _edits(site, edit, rows, where)
    return row_losses(params, config, objective, tokens, mask, jax.random.key(0), edits)
