"""Which rows of two tables are translations of each other, from the numbers in them: no dictionary, no model."""

import re
from collections.abc import Mapping

REACH = 3  # rows that one table may have slipped against the other
NEAR = 30  # rows to the next anchor, at most
LEAST = 10  # anchors that two tables need to be translations at all
SHARE = 0.5  # of the rows with a number in both tables, standing at the same place, that must share one


def numbers(text: str) -> frozenset[str]:
    """Words with a digit, of three characters and more: a telephone number, a time, a train, a postcode.

    >>> sorted(numbers("TR3128 leaves at 20:40, for 2"))
    ['20:40', 'tr3128']
    """
    found = re.findall(r"\w+(?:[.:]\w+)*", text.casefold())
    return frozenset(word for word in found if len(word) >= 3 and any(c.isdigit() for c in word))


def translated_rows(ours: Mapping[int, str], theirs: Mapping[int, str]) -> dict[int, int]:
    """Row of `ours` -> row of `theirs` that translates it.

    A number that stands in one row only, within three rows, is an anchor. A row is taken for a translation at the shift
    of the nearest anchors before and after it, at most 30 rows away, where these two agree; before the first and after
    the last anchor, of the one there is, where both tables begin or end together. Tables with fewer than ten anchors,
    or in which fewer than half of the rows at one place that both have numbers share one, are no translations: empty.

    >>> ours = {i: f"at 1{i:02d}7 o'clock" for i in range(12)}
    >>> translated_rows(ours, {i + 1: f"um 1{i:02d}7 Uhr" for i in range(12)}) == {i: i + 1 for i in range(12)}
    True
    """
    mine, other = ({row: numbers(text) for row, text in table.items()} for table in (ours, theirs))
    shifts: dict[int, int] = {}
    for row, found in mine.items():
        if found:
            fits = [k for k in range(-REACH, REACH + 1) if found & other.get(row + k, frozenset())]
            if len(fits) == 1:
                shifts[row] = fits[0]
    comparable = [bool(found & other[row + k]) for row, found in mine.items() if found
                  for k in [_nearest(shifts, row)] if k is not None and other.get(row + k)]
    if len(shifts) < LEAST or sum(comparable) < SHARE * len(comparable):
        return {}
    anchors = sorted(shifts)
    out: dict[int, int] = {}
    for row in ours:
        before = max((a for a in anchors if row - NEAR <= a <= row), default=None)
        after = min((a for a in anchors if row <= a <= row + NEAR), default=None)
        if before is None and after is None:
            continue
        if before is not None and after is not None:
            if shifts[before] != shifts[after]:
                continue
            shift = shifts[before]
        elif row < anchors[0] and min(ours) + shifts[anchors[0]] == min(theirs):
            shift = shifts[anchors[0]]
        elif row > anchors[-1] and max(ours) + shifts[anchors[-1]] == max(theirs):
            shift = shifts[anchors[-1]]
        else:
            continue
        if row + shift in theirs:
            out[row] = row + shift
    used = list(out.values())
    return {row: found for row, found in out.items() if used.count(found) == 1}


def _nearest(shifts: Mapping[int, int], row: int) -> int | None:
    near = min(shifts, key=lambda anchor: abs(anchor - row), default=None)
    return None if near is None else shifts[near]
