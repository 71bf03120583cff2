"""One self-contained HTML form on which a person judges replies, offline, and saves the answers as CSV or JSON."""

import json
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from xlingjax.errors import InputError

TEMPLATE = "evaluation_form.html"
PLACE = "__DATA__"  # where the items stand in it


class Shown(NamedTuple):
    """One item: the turns before the reply, a line each, and the reply."""

    context: str
    reply: str


def evaluation_form(
    sheet: str, items: Sequence[Shown], categories: Sequence[str], explained: Sequence[str], title: str,
) -> str:
    """The page as a string.

    It holds no more than what is passed: who said a reply is not in it. Answers are kept in the browser (in memory
    where it keeps nothing, and the page says so) until they are saved as files with the columns sheet, item, judgement,
    annotator.

    Args:
        sheet: its code, which the saved files bear.
        categories: what a reply may be called, one of which is chosen; the keys 1, 2, 3 ... choose too.
        explained: when to choose each.
        title: heading.

    Raises:
        InputError: no item, fewer than two categories, more than nine, or one without explanation.
    """
    if not items:
        raise InputError(f"sheet {sheet!r} has no item; a form needs one")
    if not 2 <= len(categories) <= 9 or len(explained) != len(categories):
        raise InputError(f"a form needs two to nine categories, each explained; {len(categories)} categories have "
                         f"{len(explained)} explanations")
    data = {"sheet": sheet, "title": title, "categories": list(categories), "explained": list(explained),
            "items": [{"context": item.context.split("\n"), "reply": item.reply} for item in items]}
    page = (resources.files(__package__) / TEMPLATE).read_text(encoding="utf-8")
    return page.replace(PLACE, _inside_script(data))


def _inside_script(data: object) -> str:
    """JSON that cannot end the script element it stands in.

    >>> _inside_script("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(data)  # ASCII: U+2028 and lone surrogates are escaped
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
