"""From losses of windows to perplexity, bits per character and per turn, with intervals over dialogues and runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped

from xlingjax.analyses.dialogue_transfer.settings import BEFORE, LEVEL, TUNED
from xlingjax.kernels.traces import holm

TURNS = ("without leaks", "all")
BITS = 1 / np.log(2)


class Cell(NamedTuple):
    """What one language, kind of model and split has.

    Attributes:
        nats: condition -> [runs, n]. tokens, characters: of each reply. documents: of each window.
        leaked: training has the reply too.
    """

    nats: Mapping[str, Float[np.ndarray, "R n"]]
    tokens: Int[np.ndarray, "n"]
    characters: Int[np.ndarray, "n"]
    documents: Shaped[np.ndarray, "n"]
    leaked: Bool[np.ndarray, "n"]

    def take(self, index: np.ndarray) -> "Cell":
        """Some of the windows."""
        return Cell({name: values[:, index] for name, values in self.nats.items()}, self.tokens[index],
                    self.characters[index], self.documents[index], self.leaked[index])


def rates(
    nats: Mapping[str, Float[np.ndarray, "R n"]], per: Float[np.ndarray, "n"], documents: Shaped[np.ndarray, "n"],
    draws: int, seed: int,
) -> dict[str, Float[np.ndarray, "1+draws"]]:
    """Nats per unit of each condition: the estimate first, then draws of dialogues and, of several runs, of runs.

    Conditions are drawn on the same dialogues, so that differences between them are paired.

    >>> found = rates({"a": np.array([[2.0, 4.0]])}, np.array([1, 1]), np.array(["x", "y"]), 100, 0)
    >>> float(found["a"][0]), len(found["a"]), bool((found["a"] <= 4).all())
    (3.0, 101, True)
    """
    _, at = np.unique(documents, return_inverse=True)
    count = int(at.max()) + 1
    rng = np.random.default_rng([seed, 53])
    weight = np.vstack([np.ones(count), rng.multinomial(count, np.full(count, 1 / count), size=draws)])
    whole = weight @ np.bincount(at, per, count)
    out = {}
    for name, values in nats.items():
        runs = len(values)
        chosen = np.vstack([np.ones(runs), rng.multinomial(runs, np.full(runs, 1 / runs), size=draws)]) / runs
        by_document = np.stack([np.bincount(at, row, count) for row in values])
        out[name] = np.einsum("dr,rc,dc->d", chosen, by_document, weight) / whole
    return out


def interval(draws: Float[np.ndarray, "draws"]) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws."""
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def summarise(
    cells: Mapping[tuple[str, str, str], Cell], conditions: Sequence[str], draws: int, seed: int,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Tables of every (language, kind, split): figures by condition, and fine-tuned against each other condition.

    Returns:
        `scores` by `language`, `kind`, `split`, `turns`, `condition`: perplexity, bits_per_character, each with `_low`,
            `_high` and `_sd` (between runs), and of the windows replies, tokens, characters, leaked.
        `differences` by `against` as well, bits per character of the fine-tuned model minus those of the condition:
            `change`, `low`, `high`, `p` (bootstrap, two-sided), `q` (Holm over languages, kinds and conditions).
    """
    languages, kinds, splits = (list(dict.fromkeys(key[i] for key in cells)) for i in range(3))
    against = [name for name in conditions if name != TUNED]
    where = ("language", "kind", "split", "turns")
    shape = (len(languages), len(kinds), len(splits), len(TURNS))
    named = [f"{what}{end}" for what in ("perplexity", "bits_per_character") for end in ("", "_low", "_high", "_sd")]
    of = {name: np.full((*shape, len(conditions)), np.nan) for name in named}
    sizes = {name: np.zeros(shape, int) for name in ("replies", "tokens", "characters", "leaked", "dialogues")}
    change = {name: np.full((*shape, len(against)), np.nan) for name in ("change", "low", "high", "p")}
    for (language, kind, split), cell in cells.items():
        for t, which in enumerate(TURNS):
            part = cell if which == TURNS[1] else cell.take(np.flatnonzero(~cell.leaked))
            at = (languages.index(language), kinds.index(kind), splits.index(split), t)
            for name, value in (("replies", len(part.tokens)), ("tokens", part.tokens.sum()),
                                ("characters", part.characters.sum()), ("leaked", cell.leaked.sum()),
                                ("dialogues", len(set(part.documents.tolist())))):
                sizes[name][at] = value
            by_token = rates(part.nats, part.tokens, part.documents, draws, seed)
            by_character = rates(part.nats, part.characters, part.documents, draws, seed)
            for c, name in enumerate(conditions):
                per_run = part.nats[name].sum(1)
                for what, found, unit in (
                        ("perplexity", np.exp(by_token[name]), np.exp(per_run / part.tokens.sum())),
                        ("bits_per_character", BITS * by_character[name], BITS * per_run / part.characters.sum())):
                    low, high = interval(found[1:])
                    sd = unit.std(ddof=1) if len(unit) > 1 else np.nan
                    for end, value in (("", found[0]), ("_low", low), ("_high", high), ("_sd", sd)):
                        of[f"{what}{end}"][(*at, c)] = value
            for c, name in enumerate(against):
                drawn = BITS * (by_character[TUNED] - by_character[name])
                low, high = interval(drawn[1:])
                beyond = min((drawn[1:] <= 0).sum(), (drawn[1:] >= 0).sum())
                for end, value in (("change", drawn[0]), ("low", low), ("high", high),
                                   ("p", min(1.0, 2 * (1 + beyond) / (1 + draws)))):
                    change[end][(*at, c)] = value
    coordinates = {"language": languages, "kind": kinds, "split": splits, "turns": list(TURNS)}
    scores = xr.Dataset(
        {**{name: ((*where, "condition"), values) for name, values in of.items()},
         **{name: (where, values) for name, values in sizes.items()}},
        coords={**coordinates, "condition": list(conditions)})
    differences = xr.Dataset({name: ((*where, "against"), values) for name, values in change.items()},
                             coords={**coordinates, "against": against})
    q = np.full(change["p"].shape, np.nan)
    for s in range(len(splits)):
        for t in range(len(TURNS)):
            q[:, :, s, t] = holm(change["p"][:, :, s, t])
    differences["q"] = (*where, "against"), q
    return scores, differences


def per_turn(
    cells: Mapping[tuple[str, str, str], Cell], rows: Mapping[str, Int[np.ndarray, "n"]], conditions: Sequence[str],
    draws: int, seed: int, split: str = "test",
) -> xr.Dataset | None:
    """Bits of a turn that is a translation of the same turn in the other languages; None where no turns are.

    The same things are said, so that neither tokenizers nor how long a language's words are enter.
    """
    if not rows:
        return None
    languages = list(rows)
    kinds = list(dict.fromkeys(key[1] for key in cells))
    of = {name: np.full((len(languages), len(kinds), len(conditions)), np.nan) for name in (
        "bits_per_turn", "bits_per_turn_low", "bits_per_turn_high")}
    for i, language in enumerate(languages):
        for k, kind in enumerate(kinds):
            part = cells[language, kind, split].take(rows[language])
            found = rates(part.nats, np.ones(len(part.tokens)), part.documents, draws, seed)
            for c, name in enumerate(conditions):
                values = BITS * found[name]
                for what, value in zip(of, (values[0], *interval(values[1:]))):
                    of[what][i, k, c] = value
    return xr.Dataset(
        {name: (("language", "kind", "condition"), values) for name, values in of.items()},
        coords={"language": languages, "kind": kinds, "condition": list(conditions)},
        attrs={"turns": len(next(iter(rows.values()))), "split": split})


def transfer(differences: xr.Dataset) -> xr.Dataset:
    """The rule of a claim, on test replies without leaks: `claimed` where Holm's q is below 5 %.

    "helps": fine-tuned needs fewer bits than the condition it is set against; the start helps where that condition is
    the model from scratch.
    """
    found = differences.sel(split="test", turns=TURNS[0], drop=True)
    claimed = found["q"] < LEVEL
    return found.assign(claimed=claimed, helps=claimed & (found["change"] < 0), harms=claimed & (found["change"] > 0),
                        ).assign_attrs(level=LEVEL, before=BEFORE)
