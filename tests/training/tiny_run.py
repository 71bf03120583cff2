"""A training run of seconds, for the tests and for processes that they kill."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from xlingjax.corpora.corpus import Corpus  # noqa: E402
from xlingjax.models.config import TransformerConfig  # noqa: E402
from xlingjax.models.loading import load_model  # noqa: E402
from xlingjax.training.optimiser import OptimiserSettings  # noqa: E402
from xlingjax.training.settings import Settings  # noqa: E402

LETTERS = {
    "lat": "abcdefghijklmnop",
    "cyr": "абвгдежзиклмнопр",
    "gre": "αβγδεζηθικλμνξοπ",
    "arm": "աբգդեզէըթժիլխծկհ",
}


def corpus(
    documents: int = 24, sentences: int = 4, languages=("lat", "cyr", "gre", "arm")
) -> Corpus:
    """Sentences of made-up words, one alphabet a language, unequal amounts; no two languages share
    a letter."""
    random = np.random.default_rng(0)
    texts, codes, names = [], [], []
    for place, language in enumerate(languages):
        letters = list(LETTERS[language])
        words = ["".join(random.choice(letters, random.integers(2, 6))) for _ in range(40)]
        for document in range(documents // (1 + place)):
            for _ in range(sentences):
                texts.append(" ".join(random.choice(words, random.integers(3, 9))))
                codes.append(language)
                names.append(f"{document:03d}")
    return Corpus(
        tuple(texts),
        np.array(codes),
        np.array(names),
        np.full(len(texts), ""),
        np.zeros((len(texts), 0), np.int8),
        name="tiny",
    )


DECODER = TransformerConfig(vocab_size=1, layers=2, width=16, heads=2, mlp_width=32)
ENCODER = TransformerConfig(
    vocab_size=1,
    layers=2,
    width=16,
    heads=2,
    mlp_width=32,
    positions="learned",
    max_length=32,
    norm_place="after",
    embed_norm=True,
    final_norm=False,
    causal=False,
    head="masked",
)


def settings(**changes) -> Settings:
    return Settings(
        **{
            "steps": 24,
            "rows": 4,
            "length": 16,
            "vocabulary": 400,
            "evaluated": 64,
            "save_every": 5,
            "leave_out": ("arm",),
            "held_out": 0.2,
            "checkpoint_every": 10,
            "optimiser": OptimiserSettings(learning_rate=3e-3, warm_up=4),
        }
        | changes
    )


def contents(workdir: Path) -> dict[str, bytes | str]:
    """What a run leaves that a user reads: every parameter's bytes, tokenizers and metrics."""
    found: dict[str, bytes | str] = {"metrics": (workdir / "metrics.jsonl").read_bytes()}
    for folder in sorted((workdir / "checkpoints").iterdir()):
        found[f"{folder.name}/params"] = load_model(workdir, revision=folder.name).fingerprint
        found[f"{folder.name}/tokenizer"] = (folder / "tokenizer.json").read_bytes()
    return found
