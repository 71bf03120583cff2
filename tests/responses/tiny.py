"""A tiny model and ragged sentences for the tests of responses; as a script, one `collect` in its own process."""

import functools
import os
import sys
import types
from pathlib import Path

import jax
import numpy as np

from xlingjax.corpora.tokenising import Tokens
from xlingjax.models.config import TransformerConfig
from xlingjax.models.taps import neuron_sites, site_shapes
from xlingjax.models.transformer import init_params
from xlingjax.neurons import NeuronIndex

CONFIG = TransformerConfig(vocab_size=67, layers=3, width=16, heads=2, mlp_width=40, fused="by_head")


@functools.cache
def model(config: TransformerConfig = CONFIG, seed: int = 0):
    return types.SimpleNamespace(
        params=init_params(config, jax.random.key(seed)), config=config, tokenizer=None, name=f"tiny-{seed}",
        fingerprint=f"{seed:064d}", neuron_sites=neuron_sites(config),
        neurons=lambda sites: NeuronIndex({site: site_shapes(config)[site] for site in sites}))


def sentences(count: int, longest: int = 40, seed: int = 0) -> Tokens:
    """Ragged sentences that begin with a special token."""
    draw = np.random.default_rng(seed)
    ids = tuple(draw.integers(2, 67, draw.integers(2, longest + 1)).astype(np.int32) for _ in range(count))
    for row in ids:
        row[0] = 1
    return Tokens(ids, tuple(row == 1 for row in ids))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    # python tiny.py WORKDIR SENTENCES: tests kill it at random points.
    from xlingjax.responses import collect
    print("ready", flush=True)
    collect(model(), sentences(int(sys.argv[2])), workdir=Path(sys.argv[1]), batch_tokens=128, block_sentences=8)
    print("done", flush=True)
    os._exit(0)
