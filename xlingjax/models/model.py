"""A model with its tokenizer and identity: the eager door, compiled inside."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models import taps
from xlingjax.models.batches import as_bool, check_batch
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import FAMILIES
from xlingjax.models.generating import generate
from xlingjax.models.transformer import Params, forward, unembed
from xlingjax.neurons import NeuronIndex


@dataclasses.dataclass(frozen=True)
class Output:
    """What a model gives for one batch.

    Attributes:
        hidden: after the final norm. Values at padding are finite and mean nothing.
        captured: site -> captured array or pytree, leading with the layer axis.
        edited: site -> number of positions in each row that its edit reached.
    """

    hidden: Float[Array, "B T D"]
    captured: dict[str, Any]
    edited: dict[str, Int[Array, "B"]]
    _params: Params = dataclasses.field(repr=False)
    _config: TransformerConfig = dataclasses.field(repr=False)

    def logits(self, positions: ArrayLike | None = None) -> Float[Array, "B P V"]:
        """Scores of the vocabulary at token positions `[B, P]`, by default at all of them.

        They are computed here and kept nowhere: 8 x 512 tokens of BLOOM take 4 GB.

        Errors: `InputError` where the model has no head or a position lies outside the batch.
        """
        hidden = self.hidden
        if positions is not None:
            at = np.asarray(positions)
            batch, length, _ = hidden.shape
            if at.ndim != 2 or at.shape[0] != batch or not np.issubdtype(at.dtype, np.integer):
                raise InputError(
                    f"positions are {at.dtype} of shape {at.shape}; give whole numbers [{batch}, P]"
                )
            if at.size and not (0 <= at.min() and at.max() < length):
                raise InputError(f"positions reach outside [0, {length}), the tokens of this batch")
            hidden = jnp.take_along_axis(hidden, jnp.asarray(at)[..., None], axis=1)
        return _logits(self._params, self._config, hidden)


@dataclasses.dataclass(frozen=True)
class Model:
    """Parameters, config and tokenizer, with a name and a fingerprint for results.

    Args:
        params: as `init_params` makes them or a checkpoint holds them.
        config: what the parameters mean.
        tokenizer: callable on texts as those of Hugging Face; None where nobody needs text.
        fingerprint: SHA-256 of the weights as hex digits.
        name: as loaded, `name@revision`.
        family: key of `families.FAMILIES`, or "".
        health: tensor -> how many of its values are NaN or infinite, as counted at loading.

    >>> from xlingjax.models import init_params
    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> model = Model(init_params(config, jax.random.key(0)), config)
    >>> silent = {"mlp.up": taps.Edit(value=0.0)}
    >>> out = model(np.ones((3, 5), int), capture=("resid",), edits=silent)
    >>> out.captured["resid"].shape, out.edited["mlp.up"].tolist()
    ((2, 3, 5, 8), [5, 5, 5])
    >>> out.logits([[4], [4], [4]]).shape
    (3, 1, 11)
    """

    params: Params = dataclasses.field(repr=False)
    config: TransformerConfig
    tokenizer: Any = dataclasses.field(default=None, repr=False)
    fingerprint: str = ""
    name: str = ""
    family: str = ""
    health: Mapping[str, int] = dataclasses.field(default_factory=dict)

    generate = generate

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site that can be captured, in the order of the computation."""
        return tuple(taps.site_shapes(self.config))

    @property
    def neuron_sites(self) -> tuple[str, ...]:
        """The outputs of the checkpoint's own linear maps, each once."""
        return taps.neuron_sites(self.config)

    def neurons(self, sites: Sequence[str] | None = None) -> NeuronIndex:
        """The identity of every unit of `sites`, by default of `neuron_sites`."""
        sites = self.neuron_sites if sites is None else sites
        taps.check_sites(self.config, sites)
        shapes = taps.site_shapes(self.config)
        modules = FAMILIES[self.family].modules if self.family in FAMILIES else {}
        return NeuronIndex({site: shapes[site] for site in sites}, modules)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts -> tokens int32 `[B, T]` and mask bool `[B, T]`, padded on the right.

        Special tokens are added as the tokenizer does; nothing is cut off.
        """
        if self.tokenizer is None:
            raise InputError(
                f"model {self.name!r} has no tokenizer, so it reads no text; "
                "load it with tokenizer= or give token ids"
            )
        if isinstance(texts, str):
            raise InputError(f"texts is the string {texts[:40]!r}; give a list of strings")
        rows = self.tokenizer(list(texts))["input_ids"] if len(texts) else []
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        tokens = np.zeros(mask.shape, np.int32)
        tokens[mask] = [token for row in rows for token in row]
        return tokens, mask

    def __call__(
        self,
        tokens: ArrayLike,
        mask: ArrayLike | None = None,
        capture: taps.Capture = (),
        edits: taps.Edits | None = None,
        where: ArrayLike | None = None,
    ) -> Output:
        """One batch through the model, compiled once a shape, capture and set of edit fields.

        Args:
            tokens: whole numbers `[B, T]`; what stands under a False mask is never read.
            mask: bool `[B, T]`, True at real tokens; by default all are real.
            capture, edits, where: as in `forward`.

        Errors: `InputError` for shapes and types that do not fit, a token outside the vocabulary,
            a sentence longer than the learned positions, an unknown site.
        """
        checked_tokens, checked_mask = check_batch(self.config, tokens, mask)
        counted = checked_mask if where is None else as_bool("where", where, checked_mask.shape)
        wanted = taps.read_capture(self.config, capture)
        positions = {site: how for site, how in wanted.items() if isinstance(how, jax.Array)}
        program = tuple((site, None if site in positions else how) for site, how in wanted.items())
        hidden, captured, edited = _run(
            self.params, self.config, checked_tokens, checked_mask, program, positions,
            taps.edit_arrays(self.config, edits or {}), counted,
        )  # fmt: skip
        captured = {site: captured[site] for site in wanted}  # jit sorts its dicts
        return Output(hidden, captured, edited, self.params, self.config)


@functools.partial(jax.jit, static_argnames=("config", "program"))
def _run(
    params: Params,
    config: TransformerConfig,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    program: tuple[tuple[str, Any], ...],
    positions: dict[str, Array],
    edits: dict[str, taps.Edit | taps.Splice],
    where: Bool[Array, "B T"],
) -> tuple[Array, dict[str, Any], dict[str, Array]]:
    capture = dict(program) | positions
    hidden, captured = forward(
        params, config, tokens, mask, capture=capture, edits=edits, where=where
    )
    reached = {s: mask if getattr(edit, "where", None) is None else mask & edit.where for s, edit in edits.items()}
    return hidden, captured, {site: real.sum(axis=1) for site, real in reached.items()}


_logits = jax.jit(unembed, static_argnums=1)
