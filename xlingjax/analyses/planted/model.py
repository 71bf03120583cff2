"""A transformer in which the truth is known: the whole path from texts to calls must recover it.

The transformer is random; only chosen columns of `mlp.up` are written. Every token's embedding is
noise plus one direction for its role: the words of a concept in a language (carriers) share one,
all other words share another, so that all embeddings are equally long. A *detector* reads the
carriers of one concept in one language (specific) or in all (shared). No other neuron reads these
directions, and no detector writes to the residual stream, so the detectors are all there is to
find at `mlp.up`. (At other sites random units read the roles a little, and rightly so.)
Vocabularies are disjoint but for names, which run in documents and know nothing of labels, and for
the carriers of *loan* concepts, whose detectors are experts everywhere because of the word alone.
"""

from typing import NamedTuple

import jax
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from xlingjax.analyses.planted.responses import Truth, World
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.models import Model, TransformerConfig, init_params
from xlingjax.responses import Responses, collect

LANGUAGES = ("qaa", "qab", "qac", "qad", "qae", "qaf")  # ISO 639-2 reserves these for local use
SPECIAL = ("<pad>", "<s>", "<unk>")
LETTERS = "abcdefghijklm", "абвгдежзиклмн"  # every third language is Cyrillic
SHORTEST, LONGEST = 7, 23  # words of a sentence
SITE = "mlp.up"
SCALE = 50.0  # of the embeddings; their table is as small as a random one, and so are logits
NOISE, ROLE = 1.5, 3.0  # of an embedding: sd of each of its noise units, length along its role
ROWS = 4096  # vocabularies are filled up to a multiple of it, again for equal programs
GAIN = 0.3  # of the written columns


class Words(NamedTuple):
    """The ids of the words."""

    fillers: np.ndarray  # [G, types]
    carriers: np.ndarray  # [G, C, types]; those of a loan concept are the same in every language
    names: np.ndarray  # [types]
    texts: tuple[str, ...]  # of every id


class Directions(NamedTuple):
    """Orthogonal directions of the residual stream; rows."""

    common: np.ndarray  # [D], in every word
    filler: np.ndarray  # [D], in every word that carries no concept
    carrier: np.ndarray  # [G, C, D]
    noise: np.ndarray  # [n, D], what is free of the others, of positions and of the mean
    ramp: np.ndarray  # [D], grows by one a position


class Observed(NamedTuple):
    """What analyses see of a model and its corpus."""

    world: World
    tokens: Tokens
    responses: Responses


def plant_model(
    languages: int = 3,
    concepts: int = 3,
    loans: int = 1,
    sentences: int = 240,
    documents: int = 60,
    shared: int = 8,
    specific: int = 8,
    identity: int = 24,
    length_neurons: int = 24,
    constant: float = 0.05,
    fillers: int = 3000,
    names: int = 40,
    name_share: float = 0.6,
    strength: float = 8.0,
    prevalence: float = 0.12,
    clustering: float = 0.3,
    length_link: float = 0.0,
    layers: int = 3,
    width: int = 96,
    mlp_width: int = 512,
    seed: int = 0,
) -> tuple[Model, Corpus, Truth]:
    """A model, the labelled parallel sentences to trace it with, and what was planted.

    Neurons are planted in the first and the last layer. Lengths of sentences do not depend
    on the seed, so that worlds of one size compile to the same programs.

    Args:
        concepts: with disjoint carriers; after them `loans` with carriers common to all languages.
        sentences: parallel sentences a language, in `documents` of equal size.
        shared, specific: detectors for each concept; specific ones for each language as well. Those
            of a loan concept are shared + specific in number, and all shared.
        identity, length_neurons: neurons that read names, or the position, in all.
        constant: share of all neurons.
        fillers: types of words that carry no concept, in each language. Where they are few, each
            is said often, and some neurons rightly know a concept by a carrier they like better.
        names: types; each document has one, in `name_share` of its sentences.
        strength: height of a carrier over other words, in sds of a detector's own noise. The
            strongest of a sentence's other words reaches about 1.7.
        prevalence: share of positive sentences.
        clustering: correlation of the labels' latent variable within a document.
        length_link: correlation of every second concept's latent variable with sentence length.

    Returns:
        The truth's neurons are those of `mlp.up`, in flat order; concepts are those of the corpus.

    Raises:
        InputError: where the neurons or the width do not suffice.
    """
    rng = np.random.default_rng([seed, 0])
    count = concepts + loans
    positives = round(sentences * prevalence)
    words = _words(languages, concepts, loans, names, positives, fillers)
    corpus = _corpus(
        np.random.default_rng([seed, 1]), words, sentences, documents, name_share,
        clustering, length_link, concepts)
    config = TransformerConfig(
        vocab_size=-(-len(words.texts) // ROWS) * ROWS, layers=layers, width=width, heads=4,
        mlp_width=mlp_width, positions="sinusoidal", embed_scale=SCALE)
    params = jax.tree.map(np.array, init_params(config, jax.random.key(seed)))
    directions = _directions(rng, config, languages, concepts, loans)
    embedding = _embedding(rng, words, directions, config.vocab_size, width)
    params["embed"]["tokens"]["embedding"] = (embedding / SCALE).astype(np.float32)

    each = shared + specific
    needed = {"detectors": concepts * (shared + specific * languages) + loans * each,
              "identity": identity, "length": length_neurons,
              "constant": int(constant * layers * mlp_width)}
    places = np.concatenate([layer * mlp_width + rng.permutation(mlp_width)
                             for layer in sorted({0, layers - 1})])
    if sum(needed.values()) > len(places):
        raise InputError(f"the planted layers' {len(places)} neurons cannot hold "
                         f"{sum(needed.values())} planted ones; plant fewer or widen the MLP")
    places = rng.permutation(places)
    detectors, readers, rulers, dead = np.split(
        places[:sum(needed.values())], np.cumsum(list(needed.values()))[:-1])

    planted = np.concatenate([
        directions.carrier.reshape(-1, width), directions.common[None], directions.filler[None]])
    basis = np.linalg.qr(planted.T)[0]
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    kernel -= basis @ (basis.T @ kernel)
    columns = kernel.transpose(0, 2, 1).reshape(-1, width)  # a copy, [N, D]
    experts = np.zeros((languages, count, len(columns)), bool)
    free = iter(detectors)
    for concept in range(count):
        everywhere = each if concept >= concepts else shared
        sets = [tuple(range(languages))] * everywhere + [
            (g,) for g in range(languages) for _ in range(each - everywhere)]
        for number, members in enumerate(sets):
            neuron = next(free)
            experts[list(members), concept, neuron] = True
            # Every second detector stays below zero even at its words, as most neurons of trained
            # models do: there padding, at which all are 0, would pass for the strongest word.
            below = strength + 4 if number % 2 else strength / 2
            read = np.unique(directions.carrier[list(members), concept], axis=0).sum(0)
            columns[neuron] = GAIN * (
                strength * NOISE / ROLE * read - below * NOISE / ROLE * directions.common
                + _unit(directions.noise.T @ rng.normal(size=len(directions.noise))))
    for neuron in readers:
        own = embedding[rng.permutation(words.names)[:4]] @ directions.noise.T
        columns[neuron] = GAIN * _unit(own.sum(0) @ directions.noise)
    for neuron in rulers:
        columns[neuron] = GAIN * (
            0.5 * NOISE * directions.ramp
            + _unit(directions.noise.T @ rng.normal(size=len(directions.noise))))
    columns[dead] = 0
    params["layers"]["mlp"]["up"]["kernel"] = np.ascontiguousarray(
        columns.reshape(layers, mlp_width, width).transpose(0, 2, 1))
    down = params["layers"]["mlp"]["down"]["kernel"].reshape(-1, width)
    down[places[:sum(needed.values())]] = 0
    params["layers"]["mlp"]["down"]["kernel"] = down.reshape(layers, mlp_width, width)
    mark = lambda index: np.isin(np.arange(len(columns)), index)
    model = Model(jax.device_put(params), config, tokenizer=_tokenizer(words), name="planted")
    return model, corpus, Truth(experts, mark(readers), mark(rulers), mark(dead))


def observe(model: Model, corpus: Corpus, batch_tokens: int = 4096) -> Observed:
    """The responses of `mlp.up` with what an analysis needs beside them."""
    tokens = tokenise(model.tokenizer, corpus.texts, LONGEST + 1)
    responses = collect(model, corpus, (SITE,), batch_tokens=batch_tokens, show=False)
    return Observed(
        World(responses.matrix(), corpus.labels, corpus.languages, corpus.documents,
              corpus.parallel, tokens.real_lengths, np.array([len(text) for text in corpus.texts])),
        tokens, responses)


def untrained(model: Model, seed: int = 0) -> Model:
    """The same architecture with random parameters and the same tokenizer."""
    return Model(init_params(model.config, jax.random.key(seed + 1)), model.config,
                 tokenizer=model.tokenizer, name="untrained")


def _words(
    languages: int, concepts: int, loans: int, names: int, carriers: int, fillers: int,
) -> Words:
    texts = list(SPECIAL)

    def more(amount: int, stem: str) -> np.ndarray:
        texts.extend(f"{stem}{i}" for i in range(amount))
        return np.arange(len(texts) - amount, len(texts))

    stems = [LETTERS[g % 3 == 2][g] * 2 for g in range(languages)]
    ordinary = np.array([more(fillers, stem) for stem in stems])
    own = [[more(carriers, f"{stem}k{c}x") for c in range(concepts)] for stem in stems]
    common = [more(carriers, f"loan{c}x") for c in range(loans)]
    return Words(ordinary, np.array([row + common for row in own]), more(names, "Name"),
                 tuple(texts))


def _corpus(
    rng: np.random.Generator, words: Words, sentences: int, documents: int, name_share: float,
    clustering: float, length_link: float, concepts: int,
) -> Corpus:
    if sentences % documents:
        raise InputError(f"{sentences} sentences do not fill {documents} documents of equal size")
    languages, count = words.carriers.shape[:2]
    document = np.repeat(np.arange(documents), sentences // documents)
    lengths = np.random.default_rng(sentences)
    base = lengths.normal(size=sentences)
    sizes = np.exp(2.5 + 0.35 * (0.93 * base + 0.36 * lengths.normal(size=(languages, sentences))))
    sizes = np.clip(np.round(sizes), SHORTEST, LONGEST).astype(int)
    own, topic = rng.normal(size=(sentences, count)), rng.normal(size=(documents, count))
    latent = own * np.sqrt(1 - clustering) + topic[document] * np.sqrt(clustering)
    link = np.where(np.arange(count) % 2, length_link, 0)
    drive = latent * np.sqrt(1 - link**2) + base[:, None] * link
    # Each carrier is said in one sentence: none can be told by knowing a few words.
    carrier = drive.argsort(0).argsort(0) - (sentences - words.carriers.shape[2])
    labels = carrier >= 0
    of_document = words.names[rng.permutation(documents) % len(words.names)][document]
    name = [[one] if rng.random() < name_share else [] for one in of_document]
    meaning = rng.integers(0, words.fillers.shape[1], (sentences, LONGEST))
    texts = []
    for g in range(languages):
        for row in range(sentences):
            shown = np.flatnonzero(labels[row])
            said = [*words.carriers[g, shown, carrier[row, shown]], *name[row]]
            said += words.fillers[g, meaning[row, :sizes[g, row] - len(said)]].tolist()
            texts.append(" ".join(words.texts[i] for i in rng.permutation(said)))
    every = lambda letter, index: np.tile(np.char.add(letter, index.astype(str)), languages)
    return Corpus(
        tuple(texts), np.repeat(LANGUAGES[:languages], sentences), every("d", document),
        every("s", np.arange(sentences)), np.tile(labels, (languages, 1)).astype(np.int8),
        tuple(f"concept {c}" if c < concepts else f"loan {c - concepts}" for c in range(count)),
        ("planted",) * count, name="planted world")


def _tokenizer(words: Words) -> PreTrainedTokenizerFast:
    """One token a word, after `<s>`."""
    backend = Tokenizer(models.WordLevel(
        {text: i for i, text in enumerate(words.texts)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", unk_token="<unk>")


def _directions(
    rng: np.random.Generator, config: TransformerConfig, languages: int, concepts: int, loans: int,
) -> Directions:
    width = config.width
    half = np.exp(np.arange(width // 2) * -(np.log(10_000) / (width // 2 - 1)))
    angles = np.arange(LONGEST + 1)[:, None] * half
    positions = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # as the model adds them
    positions -= positions.mean(1, keepdims=True)
    _, size, span = np.linalg.svd(positions, full_matrices=False)
    span = span[size > 1e-3 * size[0]]
    taken = np.concatenate([np.ones((1, width)), span])
    roles = 2 + languages * concepts + loans
    needed = len(taken) + 2 * roles
    if needed > width:
        raise InputError(f"width {width} is too small for {roles} roles; give {needed}")
    random = rng.normal(size=(width - len(taken), width))
    full = np.linalg.qr(np.concatenate([taken, random]).T)[0].T
    common, filler, *rest = full[len(taken):len(taken) + roles]
    own = np.array(rest[:languages * concepts]).reshape(languages, concepts, width)
    loan = np.array(rest[languages * concepts:]).reshape(1, loans, width)
    carrier = np.concatenate([own, np.repeat(loan, languages, axis=0)], axis=1)
    centred = positions - positions.mean(0)
    ramp = np.linalg.lstsq(centred, np.arange(LONGEST + 1) - LONGEST / 2, rcond=1e-2)[0]
    return Directions(common, filler, carrier, full[len(taken) + roles:], ramp)


def _embedding(
    rng: np.random.Generator, words: Words, directions: Directions, rows: int, width: int,
) -> np.ndarray:
    """float[V, D]: noise, the common direction, and the role's."""
    noise = rng.normal(size=(rows, len(directions.noise)))
    noise *= np.sqrt(noise.shape[1]) / np.linalg.norm(noise, axis=1, keepdims=True)
    roles = np.tile(directions.filler, (rows, 1))
    roles[words.carriers.reshape(-1)] = np.repeat(
        directions.carrier.reshape(-1, width), words.carriers.shape[2], axis=0)
    return NOISE * noise @ directions.noise + ROLE * (roles + directions.common)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)
