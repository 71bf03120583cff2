"""What people said of replies: read from their sheets, checked against the key, and counted beside chance."""

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.stats import binom

from xlingjax.errors import InputError
from xlingjax.judging.human_items import CATEGORIES, HUMAN, Item, as_shown, rows_of
from xlingjax.kernels.agreement import (
    category_counts,
    fleiss_kappa,
    item_bootstrap,
    krippendorff_alpha,
    majority,
    shuffled_ratings,
    unanimous,
)

RULES = """An item that a judge left open is missing for that judge alone. Files of one judge for one sheet are joined;
two different answers to one item are an error. A judge is credible who calls more than half of the hidden human replies
human-like (one left open is not); everything is given for all judges and for the credible ones. An item's verdict is
what more than half of its judgements say, of two or more."""
WHO = ("all", "credible")
LEVEL = 0.95
DRAWS = 2000
FILLED_COLUMNS = ("sheet", "item", "judgement")
_SHORT = {"h": 0, "u": 1, "n": 2}


class Answers(NamedTuple):
    """One judge's answers to a sheet: item number -> position in `CATEGORIES`; `files` they came from."""

    sheet: str
    annotator: str
    answers: dict[int, int]
    files: tuple[str, ...]


def read_answers(paths: Iterable[str | Path], key: Mapping[str, Sequence[Item]]) -> list[Answers]:
    """Filled sheets, .csv (by hand or from the form) or the form's .json, joined by sheet and judge.

    A judge is named in the column `annotator`, once or in every row; without, the file's name stands in. Names that
    differ in capitals only are one judge.

    Raises:
        InputError: a sheet that is not of this key, or whose texts were changed; an unknown item or judgement; one
            item with two answers of one judge; two judges in one file's sheet; no answer at all.
    """
    found: dict[tuple[str, str], dict[int, tuple[int, str]]] = {}
    files: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    spelled: dict[str, str] = {}  # a name without capitals -> as first written
    for path in map(Path, paths):
        rows = _json_rows(path) if path.suffix.lower() == ".json" else list(rows_of(path, FILLED_COLUMNS))
        by_sheet: dict[str, list[tuple[int, dict[str, str]]]] = collections.defaultdict(list)
        for number, row in enumerate(rows, 1):
            by_sheet[row["sheet"].strip()].append((number, row))
        if not by_sheet:
            raise InputError(f"{path} has no row; give a filled sheet")
        for sheet, part in by_sheet.items():
            if sheet not in key:
                raise InputError(f"{path}: sheet {sheet!r} is not of this key ({', '.join(sorted(key)[:6])}); give "
                                 "the key that was written beside the sheet")
            names = {name for _, row in part if (name := as_shown(row.get("annotator", "")).strip())}
            if len(names) > 1:
                raise InputError(f"{path}: sheet {sheet} names the annotators {', '.join(sorted(names))}; one file "
                                 "holds one person's answers to a sheet")
            annotator = " ".join((names.pop() if names else path.stem).split())
            annotator = spelled.setdefault(annotator.casefold(), annotator)
            files[sheet, annotator].append(path.name)
            home = found.setdefault((sheet, annotator), {})
            for number, row in part:
                item, answer = _answer(path, number, row, key[sheet])
                if answer is None:
                    continue
                before = home.setdefault(item, (answer, path.name))
                if before[0] != answer:
                    raise InputError(
                        f"{annotator} judged item {item} of sheet {sheet} twice: {CATEGORIES[before[0]]} in {before[1]}"
                        f" and {CATEGORIES[answer]} in {path.name}; leave one of the files out")
    out = [Answers(*place, {item: answer for item, (answer, _) in home.items()}, tuple(files[place]))
           for place, home in found.items()]
    if not any(one.answers for one in out):
        raise InputError("no item of any sheet is judged; give filled sheets")
    return out


def _json_rows(path: Path) -> list[dict[str, str]]:
    try:
        held = json.loads(path.read_bytes().decode("utf-8-sig"))
        return [{"sheet": str(held["sheet"]), "annotator": str(held["annotator"]), "item": str(row["item"]),
                 "judgement": str(row["judgement"] or "")} for row in held["answers"]]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no file of answers that the form saved ({type(error).__name__}: {error}); save it "
                         "from the form again") from error


def _answer(path: Path, number: int, row: Mapping[str, str], items: Sequence[Item]) -> tuple[int, int | None]:
    place = f"{path}, row {number}"
    written = row["item"].strip()
    if not written.isdigit() or not 1 <= int(written) <= len(items):
        raise InputError(f"{place}: item {written!r} is not one of 1 to {len(items)}; leave the column as it was")
    item = items[int(written) - 1]
    for name, text in (("context", item.context), ("reply", item.reply)):
        if name in row and as_shown(row[name]).strip() != text.strip():
            raise InputError(
                f"{place}: the {name} is not what the key has for item {item.number} of sheet {item.sheet}; rows were "
                "moved or texts changed, so fill in the sheet as it was written")
    said = row["judgement"].strip().lower()
    if not said:
        return item.number, None
    if said in CATEGORIES:
        return item.number, CATEGORIES.index(said)
    if said in _SHORT:
        return item.number, _SHORT[said]
    raise InputError(f"{place}: judgement {row['judgement']!r}; write {', '.join(CATEGORIES)} (or H, U, N), or nothing")


def ratings(
    answers: Sequence[Answers], items: Sequence[Item], hidden: bool = False,
) -> Int[np.ndarray, "n J"]:
    """Answers of the judges of one sheet to its scored items, or to the hidden ones; -1 = open."""
    wanted = [item.number for item in items if (item.shown == HUMAN) == hidden]
    return np.array([[one.answers.get(number, -1) for one in answers] for number in wanted], int).reshape(
        len(wanted), len(answers))


def annotator_table(answers: Sequence[Answers], key: Mapping[str, Sequence[Item]]) -> xr.Dataset:
    """A row a judge and sheet: how much was answered, and the hidden human replies.

    Variables: `answered` of `items`; `hidden_human_like` of `hidden_answered`, of `hidden`; `credible`; `chance`: the
    probability that somebody who calls replies human-like as often as this judge does in the scored items, but blindly,
    passes the hidden ones.
    """
    rows: list[dict[str, Any]] = []
    for one in answers:
        items = key[one.sheet]
        hidden, scored = ratings([one], items, True)[:, 0], ratings([one], items)[:, 0]
        rate = (scored == 0).sum() / max((scored >= 0).sum(), 1)
        needed = len(hidden) // 2 + 1
        rows.append({
            "sheet": one.sheet, "annotator": one.annotator, "language": items[0].language, "system": items[0].system,
            "answered": len(one.answers), "items": len(items), "hidden": len(hidden),
            "hidden_answered": int((hidden >= 0).sum()), "hidden_human_like": int((hidden == 0).sum()),
            "credible": bool((hidden == 0).sum() >= needed),
            "chance": float(binom.sf(needed - 1, len(hidden), rate)), "files": ", ".join(one.files)})
    return xr.Dataset({name: ("judge", [row[name] for row in rows]) for name in rows[0]})


def evaluation_table(
    answers: Sequence[Answers], key: Mapping[str, Sequence[Item]], draws: int = DRAWS, seed: int = 0,
) -> xr.Dataset:
    """What the judges said of each language's systems, with intervals over items and chance beside.

    Dimensions: language, system, who ("all" judges or the "credible" ones), category. Variables, NaN where a language
    has no such system or no item has two judgements:
    `judges`; `items` with two judgements or more, of `shown`; `share` [category] of items by majority, `undecided`;
    `human_like` (its first category); `unanimous`, items on which all agree, `unanimous_human_like`; `kappa` (Fleiss),
    `alpha` (Krippendorff, categories unordered) and `alpha_ordered`; each of these five measures and `human_like` with
    `_low` and `_high` (95 %, items drawn with replacement) and `_chance` (every judge's answers dealt out anew over the
    items, mean of the draws); `ceiling`: share of the hidden human replies that the majority calls human-like.

    >>> from xlingjax.judging.human_items import Item
    >>> items = [Item("s", n, "pcm", "m", "human" if n > 32 else "model", f"c{n}", "r") for n in range(1, 36)]
    >>> said = {n: (0, 0, 0) if n <= 11 or n > 32 else (0, 0, 1) if n <= 25 else (2, 2, 1) for n in range(1, 36)}
    >>> judges = [Answers("s", f"j{j}", {n: said[n][j] for n in said}, ("f",)) for j in range(3)]
    >>> one = evaluation_table(judges, {"s": items}, draws=20).sel(language="pcm", system="m", who="all")
    >>> float(one["human_like"]), float(one["unanimous_human_like"]), float(one["ceiling"])  # 25/32 and 11/32
    (0.78125, 0.34375, 1.0)
    """
    if draws < 2:
        raise InputError(f"draws is {draws}; an interval needs 2 or more")
    languages, systems = ([*dict.fromkeys(getattr(key[one.sheet][0], name) for one in answers)]
                          for name in ("language", "system"))
    credible = annotator_table(answers, key)["credible"].values
    cells = {}
    for sheet in dict.fromkeys(one.sheet for one in answers):
        items = key[sheet]
        for who in WHO:
            judges = [one for one, passed in zip(answers, credible) if one.sheet == sheet and (passed or who == "all")]
            cells[items[0].language, items[0].system, who] = _cell(judges, items, draws, seed)
    grid = (languages, systems, WHO)
    out = {}
    for name, example in next(iter(cells.values())).items():
        values = np.full((*map(len, grid), *np.shape(example)), np.nan)
        for place, cell in cells.items():
            values[tuple(axis.index(one) for axis, one in zip(grid, place))] = cell[name]
        out[name] = (("language", "system", "who", *(("category",) if np.ndim(example) else ())), values)
    return xr.Dataset(out, {"language": languages, "system": systems, "who": list(WHO), "category": list(CATEGORIES)},
                      {"level": LEVEL, "draws": draws, "seed": seed, "rules": RULES})


def _cell(judges: Sequence[Answers], items: Sequence[Item], draws: int, seed: int) -> dict[str, Any]:
    """Every variable of `evaluation_table` for one sheet and some judges."""
    given = ratings(judges, items)
    counts = category_counts(given, len(CATEGORIES))
    weight = item_bootstrap(len(given), draws, seed)
    shuffled = shuffled_ratings(given, min(draws, 200), seed)
    out: dict[str, Any] = {"judges": float(len(judges)), "items": float((counts.sum(1) >= 2).sum()),
                           "shown": float(len(given))}
    verdict, once = majority(counts), np.ones(len(given))
    out["share"] = np.array([_share(verdict == c, counts, once) for c in range(len(CATEGORIES))])
    out["undecided"] = _share(verdict < 0, counts, once)
    measures = {
        "human_like": lambda found, times: _share(majority(found) == 0, found, times),
        "unanimous": lambda found, times: _share(unanimous(found) >= 0, found, times),
        "unanimous_human_like": lambda found, times: _share(unanimous(found) == 0, found, times),
        "kappa": fleiss_kappa, "alpha": krippendorff_alpha,
        "alpha_ordered": lambda found, times: krippendorff_alpha(found, times, ordered=True)}
    for name, measure in measures.items():
        low, high = _interval(measure(counts, weight))
        chance = [float(measure(category_counts(draw, len(CATEGORIES)), once)) for draw in shuffled]
        out |= {name: float(measure(counts, once)), f"{name}_low": low, f"{name}_high": high,
                f"{name}_chance": float(np.mean(chance)) if np.isfinite(chance).all() else np.nan}
    said = category_counts(ratings(judges, items, True), len(CATEGORIES))
    out["ceiling"] = _share(majority(said) == 0, said, np.ones(len(said)))
    return out


def _share(
    chosen: np.ndarray, counts: Int[np.ndarray, "n C"], weight: np.ndarray,
) -> Any:
    """Of items with two judgements or more."""
    usable = counts.sum(-1) >= 2
    total = (weight * usable).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (weight * (chosen & usable)).sum(-1) / total, np.nan)


def _interval(drawn: Float[np.ndarray, "draws"]) -> tuple[float, float]:
    """Percentiles of the draws that have a value; NaN where fewer than half of them do."""
    found = drawn[np.isfinite(drawn)]
    if 2 * len(found) < len(drawn):
        return np.nan, np.nan
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def item_table(answers: Sequence[Answers], key: Mapping[str, Sequence[Item]]) -> list[dict[str, object]]:
    """A row an item of a judged sheet: what it was, its texts, how often each category was named, the majority."""
    out = []
    for sheet in dict.fromkeys(one.sheet for one in answers):
        judges = [one for one in answers if one.sheet == sheet]
        for item in key[sheet]:
            said = np.array([[one.answers.get(item.number, -1) for one in judges]])
            counts = category_counts(said, len(CATEGORIES))
            found = int(majority(counts)[0])
            out.append({"sheet": sheet, "item": item.number, "language": item.language, "system": item.system,
                        "shown": item.shown, "context": item.context, "reply": item.reply,
                        **dict(zip(CATEGORIES, counts[0].tolist())),
                        "majority": CATEGORIES[found] if found >= 0 else "undecided"})
    return out


def evaluation_rows(table: xr.Dataset) -> list[dict[str, object]]:
    """`evaluation_table` as rows, one a language, system and group of judges that there is; a column a category."""
    out = []
    for place in np.argwhere(np.isfinite(table["judges"].values)):
        at = table.isel(dict(zip(("language", "system", "who"), place)))
        row: dict[str, object] = {axis: str(at[axis].item()) for axis in ("language", "system", "who")}
        row |= dict(zip(map(str, table["category"].values), at["share"].values.tolist()))
        out.append(row | {str(name): float(at[name]) for name in table.data_vars if name != "share"})
    return out


def summary(table: xr.Dataset, judges: xr.Dataset) -> list[str]:
    """The table in sentences, one a language, system and group of judges, then the judges who failed."""
    out = []
    for language in table["language"].values:
        for system in table["system"].values:
            for who in table["who"].values:
                at = table.sel(language=language, system=system, who=who)
                if np.isnan(at["judges"]):
                    continue
                if not at["items"]:
                    out.append(f"{language}, {system}, {who} judges ({int(at['judges'])}): no item has two judgements")
                    continue
                share = ", ".join(f"{name} {float(value):.1%}" for name, value in zip(
                    table["category"].values, at["share"].values))
                out.append(
                    f"{language}, {system}, {who} judges ({int(at['judges'])}), {int(at['items'])} of "
                    f"{int(at['shown'])} items: {share}, undecided {float(at['undecided']):.1%}; "
                    + "; ".join(f"{said} {_words(at, name)}" for name, said in SAID.items())
                    + f"; hidden human replies human-like {float(at['ceiling']):.1%}")
    failed = judges.isel(judge=np.flatnonzero(~judges["credible"].values))
    for sheet, name, passed, of in zip(*(failed[column].values for column in (
            "sheet", "annotator", "hidden_human_like", "hidden"))):
        out.append(f"not credible: {name} on sheet {sheet}, {passed} of {of} hidden human replies called human-like")
    for sheet, name, answered, of in zip(*(judges[column].values for column in (
            "sheet", "annotator", "answered", "items"))):
        if answered < of:
            out.append(f"filled in partly: {name} on sheet {sheet}, {answered} of {of} items")
    return out


SAID = {"human_like": "human-like", "unanimous": "unanimous", "unanimous_human_like": "unanimously human-like",
        "kappa": "kappa", "alpha": "alpha", "alpha_ordered": "alpha, ordered"}


def _words(at: xr.Dataset, name: str) -> str:
    value, low, high, chance = (float(at[f"{name}{end}"]) for end in ("", "_low", "_high", "_chance"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}], by chance {chance:.3f}"
