"""Small activations, specs of every kind and a training of seconds; as a script, one training that tests kill."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from xlingjax.sae.config import K_KINDS, DictionaryConfig  # noqa: E402
from xlingjax.sae.settings import DictionarySpec, TrainSettings  # noqa: E402
from xlingjax.sae.stream import ArrayStream  # noqa: E402
from xlingjax.sae.training import train_dictionaries  # noqa: E402

KINDS = ("relu", "gated", "topk", "batch_topk", "matryoshka", "jumprelu")


def spec(kind: str, inputs: int = 12, latents: int = 40, *, k: int = 4, sparsity: float = 0.5, config=None, **options):
    """A spec of a kind, with what that kind needs."""
    sizes = {"k": k} if kind in K_KINDS else {}
    if kind == "matryoshka":
        sizes["groups"] = (latents // 4, latents)
    made = DictionaryConfig(kind, inputs, latents, **sizes, **(config or {}))
    return DictionarySpec(made, sparsity=0 if kind in K_KINDS else sparsity, **{"learning_rate": 3e-3} | options)


def planted(tokens: int = 8192, width: int = 24, directions: int = 32, seed: int = 0, activations: int = 1):
    """(float32[A, n, D], float[A, F, D]): sparse sums of unit directions, off the origin."""
    draw = np.random.default_rng(seed)
    true = draw.standard_normal((activations, directions, width))
    true /= np.linalg.norm(true, axis=-1, keepdims=True)
    code = (draw.random((activations, tokens, directions)) < 2 / directions) * (
        1 + draw.random((activations, tokens, directions)))
    return (3 * code @ true + 0.5).astype(np.float32), true


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"steps": 30, "warm_up": 3, "decay": 6, "sparsity_warm_up": 6, "dead_after": 256,
                            "bandwidth": 0.5, "report_every": 4, "save_every": 7, "scale_batches": 4} | changes)


def stream(**options) -> ArrayStream:
    return ArrayStream(planted(512, 12, 16, activations=2)[0], **{"batch_tokens": 64} | options)


def specs() -> list[DictionarySpec]:
    return [spec("topk"), spec("gated", activation=1, seed=1), spec("topk", latents=24, k=2, seed=3)]


def contents(workdir: Path) -> dict[str, bytes]:
    """What a user reads of a finished run."""
    return {path.relative_to(workdir).as_posix(): path.read_bytes()
            for path in [workdir / "metrics.jsonl", *(workdir / "dictionaries").glob("*/*")]}


if __name__ == "__main__":
    train_dictionaries(stream(), specs(), settings(steps=int(sys.argv[2]), save_every=3), Path(sys.argv[1]))
