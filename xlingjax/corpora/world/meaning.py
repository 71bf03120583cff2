"""What a sentence says, before any language says it."""

from typing import NamedTuple


class Meaning(NamedTuple):
    """One clause: who does what, to whom or what, when and where. Concepts by name, "" = none.

    Every noun phrase is definite, except that a numeral replaces the article.
    """

    subject: str
    verb: str
    object: str = ""
    subject_plural: bool = False
    object_plural: bool = False
    past: bool = False
    numeral: str = ""
    subject_adjective: str = ""
    object_adjective: str = ""
    time: str = ""
    place: str = ""
