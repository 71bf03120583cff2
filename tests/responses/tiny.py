"""A tiny model and ragged sentences for the tests of responses; as a script, one `collect`."""

import functools
import os
import sys
from pathlib import Path

import jax
import numpy as np

from xlingjax.corpora.tokenising import Tokens
from xlingjax.models.config import TransformerConfig
from xlingjax.models.model import Model
from xlingjax.models.transformer import init_params

CONFIG = TransformerConfig(
    vocab_size=67, layers=3, width=16, heads=2, mlp_width=40, fused="by_head"
)


@functools.cache
def model(config: TransformerConfig = CONFIG, seed: int = 0):
    return Model(
        init_params(config, jax.random.key(seed)),
        config,
        fingerprint=f"{seed:064d}",
        name=f"tiny-{seed}",
    )


def sentences(
    count: int, longest: int = 40, seed: int = 0, lengths: tuple[int, ...] = ()
) -> Tokens:
    """Ragged sentences that begin with a special token; with few `lengths`, few shapes."""
    draw = np.random.default_rng(seed)
    ids = tuple(
        draw.integers(2, 67, draw.choice(lengths or range(2, longest + 1))).astype(np.int32)
        for _ in range(count)
    )
    for row in ids:
        row[0] = 1
    return Tokens(ids, tuple(row == 1 for row in ids))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    # python tiny.py WORKDIR SENTENCES: tests kill it at random points.
    from xlingjax.responses import collect

    print("ready", flush=True)
    collect(
        model(),
        sentences(int(sys.argv[2])),
        workdir=Path(sys.argv[1]),
        batch_tokens=128,
        block_sentences=8,
    )
    print("done", flush=True)
    os._exit(0)
