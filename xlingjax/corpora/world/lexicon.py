"""The hand-made lexicon: concepts, and their forms in each language.

`tables/concepts.tsv` says for every concept its part of speech, the topics it is spoken of in
("*": all), what it combines with, how often it is used, and the form that all languages use when
the concept is shared. `tables/<language>.tsv` holds the inflected forms, one section for each part
of speech; a section's header names its columns. Phrases of place and time do not inflect: their
column `words` says of each word its part of speech and what it shows ("ADP NOUN|Number=Sing").
"""

import dataclasses
import functools
from importlib import resources

TOPICS = ("home", "food", "animals", "school", "city", "art")


@dataclasses.dataclass(frozen=True)
class Language:
    """A language: its name, family (with its branch), script and order of words."""

    name: str
    family: str
    script: str
    order: str


LANGUAGES = {
    "eng": Language("English", "Indo-European (Germanic)", "Latin", "SVO"),
    "spa": Language("Spanish", "Indo-European (Romance)", "Latin", "SVO"),
    "deu": Language("German", "Indo-European (Germanic)", "Latin", "V2"),
    "rus": Language("Russian", "Indo-European (Slavic)", "Cyrillic", "SVO"),
    "tur": Language("Turkish", "Turkic", "Latin", "SOV"),
    "fin": Language("Finnish", "Uralic", "Latin", "SVO"),
    "hin": Language("Hindi", "Indo-European (Indo-Aryan)", "Devanagari", "SOV"),
    "swh": Language("Swahili", "Niger-Congo", "Latin", "SVO"),
}


@dataclasses.dataclass(frozen=True)
class Concept:
    """One concept of the world.

    Attributes:
        name: an English gloss, each once.
        part: part of speech: noun, name, verb, adjective, place, time or numeral.
        topics: the topics it is spoken of in.
        tags: nouns and names: what they are ("person", "opens", "mass", ...); verbs: what their
            subject must be; time adverbs: the tenses they go with.
        fits: verbs: what their object must be (empty = no object); adjectives: what they describe.
            A tag or the name of a concept.
        weight: how often it is used, relative to its alternatives.
        shared: the common singular and plural (numerals and names: one form), or empty.
    """

    name: str
    part: str
    topics: tuple[str, ...]
    tags: frozenset[str]
    fits: frozenset[str]
    weight: int
    shared: tuple[str, ...]


Forms = dict[str, dict[str, str]]  # concept -> column of the table -> form

NOT_FORMS = ("gender", "class", "object", "ergative", "noun", "words")  # columns that steer the grammar


def _rows(table: str) -> list[list[str]]:
    text = (resources.files(__package__) / "tables" / f"{table}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


def _items(cell: str) -> tuple[str, ...]:
    return () if cell == "-" else tuple(cell.split(","))


@functools.cache
def concepts() -> dict[str, Concept]:
    """Every concept by name, in the order of the table."""
    found = {}
    for name, part, topics, tags, fits, weight, shared in _rows("concepts")[1:]:
        number = {"count"} if part == "noun" and "mass" not in _items(tags) else set()
        found[name] = Concept(
            name, part, TOPICS if topics == "*" else _items(topics),
            frozenset(_items(tags)) | number, frozenset(_items(fits)), int(weight),
            () if shared == "-" else tuple(shared.split()))
    return found


@functools.cache
def names() -> frozenset[str]:
    """The concepts that are persons' names."""
    return frozenset(c.name for c in concepts().values() if c.part == "name")


@functools.cache
def animates() -> frozenset[str]:
    """The nouns for persons and animals."""
    return frozenset(c.name for c in concepts().values()
                     if c.part == "noun" and c.tags & {"person", "animal"})


@functools.cache
def humans() -> frozenset[str]:
    """The nouns for persons."""
    return frozenset(c.name for c in concepts().values() if c.part == "noun" and "person" in c.tags)


@functools.cache
def own_forms(language: str) -> Forms:
    """The language's own forms of every concept; "" where it lacks one."""
    found: Forms = {}
    columns: list[str] = []
    for first, *cells in _rows(language):
        if first.startswith("# "):
            columns = cells
        else:
            found[first] = {column: "" if cell == "-" else cell
                            for column, cell in zip(columns, cells, strict=True)}
    for name in names():
        found[name]["gender"] = "f" if "f" in concepts()[name].tags else "m"
    return found


def forms(language: str, shared: frozenset[str]) -> Forms:
    """The forms of a language in which some concepts take their common form.

    A common form does not decline for case: the singular stands in every singular cell, the plural
    in every plural cell. Gender and noun class stay those of the language's own word.
    """
    found = dict(own_forms(language))
    for name in shared:
        common = concepts()[name].shared
        found[name] = {
            column: form if column in NOT_FORMS else common[-1 if "pl" in column.split() else 0]
            for column, form in found[name].items()}
    return found


def lexicon() -> dict[str, dict]:
    """The whole lexicon: concept -> part of speech, topics, common form and forms by language.

    Example:
        >>> entry = lexicon()["dog"]
        >>> entry["part"], entry["topics"], entry["shared"]
        ('noun', ('animals', 'home'), ())
        >>> entry["forms"]["deu"]
        {'gender': 'm', 'nom sg': 'Hund', 'acc sg': 'Hund', 'pl': 'Hunde'}
    """
    return {c.name: {"part": c.part, "topics": c.topics, "shared": c.shared,
                     "forms": {code: dict(own_forms(code)[c.name]) for code in LANGUAGES}}
            for c in concepts().values()}


def facts() -> dict[str, int]:
    """How large the world is, counted from its tables.

    Example:
        >>> facts()
        {'concepts': 223, 'nouns': 109, 'verbs': 51,
         'languages': 8, 'families': 4, 'scripts': 3, 'topics': 6}
    """
    parts = [c.part for c in concepts().values()]
    return {"concepts": len(parts), "nouns": parts.count("noun"), "verbs": parts.count("verb"),
            "languages": len(LANGUAGES),
            "families": len({item.family.split(" (")[0] for item in LANGUAGES.values()}),
            "scripts": len({item.script for item in LANGUAGES.values()}), "topics": len(TOPICS)}
