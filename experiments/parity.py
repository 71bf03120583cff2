"""How far our forward pass lies from Hugging Face's, by family, dtype and site, on tiny random models.

    python -m experiments.parity

builds a random model of every supported family on torch, reads it into ours by the family's own table, and prints
the largest difference anywhere in a batch with padding, beside the largest value. No weights are downloaded; biases and
norms are random too, so that none can be left out unseen. Needs `pip install xlingjax[test]`.
"""

from typing import Any

import numpy as np
from absl import flags

from experiments._machine import machine
from experiments._main import run
from experiments._parity_cases import CASES
from xlingjax.errors import InputError
from xlingjax.markdown import markdown
from xlingjax.progress import progress

FLAGS = flags.FLAGS
flags.DEFINE_list("families", [], "cases by name; all by default")
flags.DEFINE_list("dtypes", ["float32", "float64", "bfloat16"], "of weights and of the forward pass")
flags.DEFINE_integer("length", 48, "tokens of the longer of two sentences", lower_bound=8)
flags.DEFINE_bool("sites", False, "a column for every site, instead of groups of them")

DTYPES = ("float32", "float64", "bfloat16")
GROUPS = {
    "embedding": ("embed",), "attention": ("attn.in", "attn.qkv", "attn.q", "attn.k", "attn.v", "attn.pattern",
                                           "attn.heads", "attn.out"),
    "MLP": ("mlp.in", "mlp.gate", "mlp.up", "mlp.act", "mlp.down"), "residual stream": ("resid.mid", "resid"),
    "last hidden": ("hidden",), "logits": ("logits",)}


def rows_of(pairs: dict[str, Any], groups: dict[str, tuple[str, ...]]) -> list[str]:
    """The largest difference of each group, and the largest value of all."""
    apart = {site: float(np.abs(ours.astype(float) - theirs).max()) for site, (ours, theirs) in pairs.items()}
    of = lambda sites: max((apart[site] for site in sites if site in apart), default=np.nan)
    largest = max(float(np.abs(theirs).max()) for _, theirs in pairs.values())
    return ["" if np.isnan(of(sites)) else f"{of(sites):.1e}" for sites in groups.values()] + [f"{largest:.3g}"]


def main() -> None:
    try:
        from experiments._parity_oracle import both
    except ImportError as error:
        raise InputError(f"{error.name} is not installed, and parity is measured against it; pip install "
                         "'xlingjax[test]'") from None
    known = {case.name: case for case in CASES}
    for name in FLAGS.families:
        if name not in known:
            raise InputError(f"--families has {name!r}; choose among {', '.join(known)}")
    for dtype in FLAGS.dtypes:
        if dtype not in DTYPES:
            raise InputError(f"--dtypes has {dtype!r}; choose among {', '.join(DTYPES)}")
    names = FLAGS.families or list(known)
    every = dict.fromkeys(site for case in CASES for site in (*case.sites, "hidden", "logits"))
    groups: dict[str, tuple[str, ...]] = {site: (site,) for site in every} if FLAGS.sites else GROUPS
    table = []
    with progress(total=len(names) * len(FLAGS.dtypes), label="parity", unit="models") as bar:
        for name in names:
            for dtype in FLAGS.dtypes:
                found = both(known[name], dtype, FLAGS.length, shorter=FLAGS.length // 3)
                table.append([name, dtype, *rows_of(found, groups)])
                bar.update(1)
    print(machine())
    print(markdown(["model", "dtype", *groups, "largest value"], table, right=tuple(range(2, 3 + len(groups)))))


if __name__ == "__main__":
    run(main)
