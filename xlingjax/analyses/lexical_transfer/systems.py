"""What is compared: the transferred banks, models that saw both languages, and the floors.

A system is a body with the bank of the first language and that of another; its body is fine-tuned through the first
and read through the other.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from xlingjax.analyses.lexical_transfer.data import (
    Cleaned,
    Language,
    TransferData,
    read_apart,
    read_jointly,
)
from xlingjax.analyses.lexical_transfer.stages import Stage, drawn, learn_bank, learn_body, random_body
from xlingjax.analyses.lexical_transfer.static import Mapped, static_spaces
from xlingjax.models.config import TransformerConfig
from xlingjax.training.tokenizer import encode_texts
from xlingjax.transfer.banks import Bank, Body, fresh_bank
from xlingjax.transfer.starts import by_dictionary, by_similarity, overlap_copied

TOKENS, POSITIONS, NOISE, ADAPTERS = "tokens", "+ positions", "+ noise", "+ adapters"
UNTRAINED, RANDOM_BODY, BAG = "untrained embeddings", "random body", "bag of shared pieces"
JOINT, PAIR, APART, STATIC = "joint, all languages", "joint pair", "joint pair, vocabularies apart", "static, mapped"
OVERLAP, DICTIONARY, SIMILAR = "start: overlap", "start: dictionary", "start: static neighbours"
ROLES = {
    **dict.fromkeys((TOKENS, POSITIONS, NOISE, ADAPTERS), "transfer"),
    **dict.fromkeys((OVERLAP, DICTIONARY, SIMILAR), "start"),
    **dict.fromkeys((JOINT, PAIR, APART, STATIC), "baseline"),
    **dict.fromkeys((UNTRAINED, RANDOM_BODY, BAG), "floor"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """One way to read another language.

    Attributes:
        name: a key of `ROLES`.
        other: the language.
        tuned: names the fine-tuning, which systems of one body and first bank share.
        noise: on embeddings in fine-tuning.
    """

    name: str
    other: str
    body: Body
    first: Bank
    bank: Bank
    tuned: str
    noise: float = 0.0


def build(
    data: TransferData, cleaned: Cleaned, languages: dict[str, Language], config: TransformerConfig, stage: Stage,
) -> list[System]:
    """All systems of one seed but the bag, which has no body."""
    first = languages[data.first]
    body, own = learn_body(stage, f"body-{data.first}", *random_body(config, first, stage.settings, stage.seed), first)
    made = []
    noise, beside = stage.settings.noise, stage.seed < stage.settings.beside
    unlearned, _ = random_body(config, first, stage.settings, stage.seed + (1 << 16))
    on_unlearned = learn_bank(stage, f"random body-{data.first}", unlearned, first)
    for other in data.others:
        language = languages[other]

        def bank(name: str, language: Language = language, **options: Any) -> Bank:
            return learn_bank(stage, f"{name}-{language.name}", body, language, like=own, **options)

        placed = bank("positions", positions=True)
        fresh = fresh_bank(body, language.tokenizer, _key(stage), other, vocabulary=language.vocabulary,
                           start=drawn(own, language, 1000 * stage.seed))
        made += [
            System(TOKENS, other, body, own, bank("tokens"), "own"),
            System(POSITIONS, other, body, own, placed, "own"),
            System(NOISE, other, body, own, placed, "own, noise", noise),
            System(ADAPTERS, other, body, own, bank("adapters", positions=True, adapters=True), "own, noise", noise),
            System(UNTRAINED, other, body, own, fresh, "own"),
            System(RANDOM_BODY, other, unlearned, on_unlearned,
                   learn_bank(stage, f"random body-{other}", unlearned, language, like=on_unlearned), "random body"),
        ]
        if stage.settings.starts and beside:
            made += _starts(data, languages, other, body, own, stage)
    if beside:
        made += _joint(data, cleaned, languages, config, stage)
    if beside and "static" in stage.settings.baselines:
        made += _static(data, languages, config, stage)
    return sorted(made, key=lambda one: list(ROLES).index(one.name))


def _key(stage: Stage) -> Any:
    return jax.random.fold_in(jax.random.key(stage.seed), 3000)


def _starts(
    data: TransferData, languages: dict[str, Language], other: str, body: Body, own: Bank, stage: Stage,
) -> list[System]:
    """The token variant from other starts than random ones, with the same steps."""
    language, first = languages[other], languages[data.first]
    source = np.asarray(own.params["embed"]["tokens"]["embedding"])
    starts = {OVERLAP: overlap_copied(source, _pieces(first), _pieces(language), seed=stage.seed)[0]}
    pairs = _piece_pairs(data, first, language, other)
    if pairs:
        starts[DICTIONARY] = by_dictionary(source, pairs, language.vocabulary, seed=stage.seed)[0]
    mapped = static_spaces(data.first, languages, other, body.config.width, stage)
    starts[SIMILAR] = by_similarity(source, mapped.first, mapped.other, seed=stage.seed)[0]
    return [System(name, other, body, own, learn_bank(stage, f"{name}-{other}", body, language, start=start), "own")
            for name, start in starts.items()]


def _pieces(language: Language) -> list[str]:
    """The piece of every row; rows that the tokenizer does not fill have a name that no other language has."""
    found = [f"<{language.name} {row}>" for row in range(language.vocabulary)]
    for piece, number in language.tokenizer.get_vocab().items():
        found[number] = piece
    return found


def _piece_pairs(
    data: TransferData, first: Language, language: Language, other: str,
) -> list[tuple[int, int, float]]:
    """Pairs of pieces from pairs of words: each piece of one word with each of the other, of weight 1 together."""
    words = data.dictionaries.get(other, ())
    if not words:
        return []
    ours, theirs = (encode_texts(one.tokenizer, tuple(pair[side] for pair in words))
                    for side, one in enumerate((first, language)))
    return [(int(a), int(b), 1 / (len(x) * len(y))) for x, y in zip(ours, theirs) for a in x for b in y]


def _joint(
    data: TransferData, cleaned: Cleaned, languages: dict[str, Language], config: TransformerConfig, stage: Stage,
) -> list[System]:
    """Models that are trained on both languages, or all of them, from the start, for as many steps as a body."""
    settings = stage.settings

    def learn(name: str, language: Language) -> tuple[Body, Bank]:
        return learn_body(stage, name, *random_body(config, language, settings, stage.seed), language)

    wanted, made = settings.baselines, []
    if "joint" in wanted:
        everything = read_jointly((data.first, *data.others), cleaned, stage.settings)
        body, bank = learn("joint", everything)
        made += [System(JOINT, other, body, bank, bank, "joint") for other in data.others]
    for other in data.others:
        if "pair" in wanted:
            pair = read_jointly((data.first, other), cleaned, stage.settings)
            body, bank = learn(f"pair-{other}", pair)
            made.append(System(PAIR, other, body, bank, bank, f"pair {other}"))
        if "apart" in wanted:
            apart, *rows = read_apart(languages[data.first], languages[other], stage.settings)
            body, bank = learn(f"apart-{other}", apart)
            own, theirs = (_rows(bank, at, languages[name]) for at, name in zip(rows, (data.first, other)))
            made.append(System(APART, other, body, own, theirs, f"apart {other}"))
    return made


def _rows(bank: Bank, rows: np.ndarray, language: Language) -> Bank:
    """Of a bank some rows, as the bank of one language."""
    return Bank({
        "embed": {"tokens": {"embedding": bank.params["embed"]["tokens"]["embedding"][rows]}},
        "head": {"bias": bank.params["head"]["bias"][rows]}}, language.tokenizer, language.name)


def _static(
    data: TransferData, languages: dict[str, Language], config: TransformerConfig, stage: Stage,
) -> list[System]:
    """Static embeddings of both languages in one space; the body learns on those of the first, which stay."""
    first, made = languages[data.first], []
    for other in data.others:
        mapped = static_spaces(data.first, languages, other, config.width, stage)
        body, start = random_body(config, first, stage.settings, stage.seed)
        start = _with_tokens(start, mapped, "first", first)
        body, own = learn_body(stage, f"static-{data.first}", body, start, first, frozen_tokens=True)
        bank = fresh_bank(body, languages[other].tokenizer, _key(stage), other, vocabulary=languages[other].vocabulary)
        made.append(System(STATIC, other, body, own, _with_tokens(bank, mapped, "other", languages[other]), "static"))
    return made


def _with_tokens(bank: Bank, mapped: Mapped, side: str, language: Language) -> Bank:
    embed = {**bank.params["embed"], "tokens": {"embedding": getattr(mapped, side)}}
    return Bank({**bank.params, "embed": embed}, language.tokenizer, language.name)
