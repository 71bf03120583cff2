"""The weight matrices whose training gradients are asked about: what each reads, and where its output stands."""

from collections.abc import Sequence
from typing import NamedTuple

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.taps import site_shapes

GROUPS = ("mlp", "attention")


class Matrix(NamedTuple):
    """One matrix of every layer: `out = read @ kernel + bias`.

    Attributes:
        name: path in the parameters of a block, "mlp/up". reads, site: sites of its input and its output.
        inputs, outputs: I and O. bias: whether it has one, which counts as the weight of an input of 1.
    """

    name: str
    reads: str
    site: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def rows(self) -> int:
        """J: I, and one more for a bias."""
        return self.inputs + self.bias


def matrices(config: TransformerConfig, groups: Sequence[str] = ("mlp",)) -> tuple[Matrix, ...]:
    """The matrices of a model, in the order of the computation.

    Args:
        groups: "mlp", as Grosse et al. 2023, and "attention".

    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> [(one.name, one.reads, one.rows) for one in matrices(config)]
    [('mlp/up', 'mlp.in', 9), ('mlp/down', 'mlp.act', 33)]
    """
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups:
        raise InputError(f"groups are {tuple(groups)}; choose among {', '.join(GROUPS)}")
    shapes = site_shapes(config)
    out_bias = config.attention_bias if config.out_bias is None else config.out_bias
    found = []
    if "attention" in groups:
        names = ("qkv",) if config.fused else ("q", "k", "v")
        found += [(f"attn/{name}", "attn.in", f"attn.{name}", config.attention_bias) for name in names]
        found.append(("attn/out", "attn.heads", "attn.out", out_bias))
    if "mlp" in groups:
        found += [("mlp/gate", "mlp.in", "mlp.gate", config.mlp_bias)] if config.gated else []
        found += [("mlp/up", "mlp.in", "mlp.up", config.mlp_bias), ("mlp/down", "mlp.act", "mlp.down", config.mlp_bias)]
    return tuple(Matrix(name, reads, site, shapes[reads][1], shapes[site][1], bool(bias))
                 for name, reads, site, bias in found)
