"""A table as Markdown, as documents quote it."""

from collections.abc import Sequence


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """The table, a line a row.

    Args:
        right: columns that are set to the right.

    >>> print(markdown(["work", "s"], [["AP", "0.3"]], right=[1]), end="")
    | work | s |
    | --- | ---: |
    | AP | 0.3 |
    """
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, rule, *rows])
