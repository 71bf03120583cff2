"""A trace of seconds: checkpoints on disk, a labelled corpus, settings."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np

from xlingjax.analyses.language_probe import ProbeSettings
from xlingjax.analyses.sources import Source, sources
from xlingjax.analyses.trace.settings import TraceSettings
from xlingjax.corpora import Corpus, mini_world
from xlingjax.models import Model, init_params, save_model
from xlingjax.training.shapes import small_config
from xlingjax.training.tokenizer import train_tokenizer

LANGUAGES = ("eng", "spa", "rus")
SETTINGS = TraceSettings(
    k=5,
    permutations=4,
    halvings=1,
    minimum=4,
    ladder_pairs=1,
    unseen=("rus",),
    batch_tokens=2048,
    probe=ProbeSettings(tokens=60, seeds=1, sizes=(1.0,), bootstraps=10),
)


@functools.cache
def corpus() -> Corpus:
    """48 sentences in each of three languages, two words and two features."""
    whole = mini_world(sentences=48, languages=LANGUAGES)
    positives, _ = whole.counts()
    words = [
        name
        for name, group, count in zip(whole.concepts, whole.groups, positives.min(axis=0))
        if group == "own form" and count >= SETTINGS.minimum
    ]
    return whole.with_concepts([*words[:2], "Number=Plur", "Tense=Past"])


@functools.cache
def model(seed: int = 0) -> Model:
    """A random decoder of two layers with a tokenizer that reads the corpus."""
    tokenizer = train_tokenizer(mini_world("train", sentences=100, languages=LANGUAGES), 400)
    config = dataclasses.replace(small_config("bloom", 2, 16, 2), vocab_size=len(tokenizer))
    return Model(init_params(config, jax.random.key(seed)), config, tokenizer, "", "tiny", "bloom")


def russian_pieces(sound: Model, found: Corpus) -> np.ndarray:
    """bool[V]: pieces of the Russian sentences that no other language has."""
    rows = np.zeros(sound.config.vocab_size, bool)
    for name in sorted(found.language_names, key=lambda name: name != "rus"):
        for text in found.language(name).texts:
            rows[sound.tokenizer(text)["input_ids"]] = name == "rus"
    return rows


def with_nan(sound: Model) -> Model:
    """The model with one weight that is not a number, in the MLP of its second layer."""
    kernel = np.array(sound.params["layers"]["mlp"]["up"]["kernel"])
    kernel[1, 0, 0] = np.nan
    layers = sound.params["layers"]
    up = {**layers["mlp"]["up"], "kernel": jax.numpy.asarray(kernel)}
    params = {**sound.params, "layers": {**layers, "mlp": {**layers["mlp"], "up": up}}}
    return dataclasses.replace(sound, params=params)


def all_nan(sound: Model) -> Model:
    """The model with no finite response: the norm of its embedding is not a number."""
    embed = sound.params["embed"]
    norm = {**embed["norm"], "scale": jax.numpy.full_like(embed["norm"]["scale"], np.nan)}
    return dataclasses.replace(sound, params={**sound.params, "embed": {**embed, "norm": norm}})


def checkpoints(folder: Path, models: dict[str, Model]) -> tuple[Source, ...]:
    """The models saved as sub-folders by name, as a trace reads them."""
    for name, one in models.items():
        save_model(one, folder / name)
    return sources(str(folder), list(models), tokens_per_step=100)


def treebanks(folder: Path, found: Corpus) -> Path:
    """A corpus as treebanks, a file a language, whose part of speech is whether a word is long."""
    folder.mkdir(exist_ok=True)
    for name in found.language_names:
        part, lines = found.language(name), []
        for i, (text, document) in enumerate(zip(part.texts, part.documents)):
            lines += [f"# newdoc id = {document}", f"# sent_id = {i}", f"# text = {text}"]
            lines += ["\t".join([str(j + 1), word, word, "NOUN" if len(word) > 4 else "X", *"__", "0", "root", *"__"])
                      for j, word in enumerate(text.split())]
            lines.append("")
        (folder / f"{name}.conllu").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
