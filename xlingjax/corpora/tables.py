"""Corpora that come as one table: SIB-200, WordNet senses, AfriWOZ, Tatoeba."""

from collections.abc import Sequence
from pathlib import Path

from xlingjax.corpora.assemble import Sentence, assemble, frequent
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import choose, existing, find, number, stem, table
from xlingjax.errors import InputError

BLOCK = 20  # neighbouring SIB-200 ids come from one article; blocks of so many make a document
_SIB_SPLITS = ("train", "dev", "test")


def read_sib200(
    path: str | Path, languages: Sequence[str] | None = None, splits: Sequence[str] | None = None,
) -> Corpus:
    """SIB-200: the same sentences in many languages, seven topics as concepts.

    Documents are blocks of 20 consecutive `index_id`, shared by all languages: the data set's own
    splits are not document-disjoint.

    Args:
        path: folder of `sib200.tsv` (lang, index_id, text) and `sib200_index.tsv` (index_id, split,
            category), the former file itself, or the original folder of `<lang>/<split>.tsv`
            (index_id, category, text). Files may be .xz or .gz.
        languages: FLORES codes such as "eng_Latn"; default all.
        splits: of train, dev, test; default all.

    Raises:
        InputError: a file, column, language or split is missing; a sentence has no topic.
    """
    path = Path(path)
    wanted = choose(splits, _SIB_SPLITS, "split", "SIB-200")
    whole = find(path, "sib200.tsv") if path.is_dir() else existing(path)
    rows = _sib_table(whole, languages, wanted) if whole else _sib_folders(path, languages, wanted)
    sentences = []
    for language in rows:
        for i, text, topic in sorted(rows[language]):
            sentences.append(Sentence(text, language, f"{i // BLOCK:04d}", str(i), {topic: 1}))
    topics = sorted({topic for found in rows.values() for _, _, topic in found})
    return assemble(sentences, dict.fromkeys(topics, "topic"), "sib200", absent=0)


_SibRows = dict[str, list[tuple[int, str, str]]]  # language -> (index_id, text, topic)


def _sib_table(path: Path, languages: Sequence[str] | None, splits: Sequence[str]) -> _SibRows:
    index = find(path.parent, "sib200_index.tsv")
    if index is None:
        raise InputError(
            f"{path.parent} has no sib200_index.tsv, the topics, beside {path.name}; add it")
    topics = {}
    for n, row in enumerate(table(index, ("index_id", "split", "category")), 1):
        topics[number(index, n, "index_id", row["index_id"])] = (row["split"], row["category"])
    rows: _SibRows = {}
    for n, row in enumerate(table(path, ("lang", "index_id", "text")), 1):
        found = rows.setdefault(row["lang"], [])
        if languages is not None and row["lang"] not in languages:
            continue
        i = number(path, n, "index_id", row["index_id"])
        if i not in topics:
            raise InputError(f"{path}, line {n + 1}: index_id {i} is not in {index}; add its topic")
        split, topic = topics[i]
        if split in splits:
            found.append((i, row["text"], topic))
    return {language: rows[language] for language in choose(languages, rows, "language", path)}


def _sib_folders(folder: Path, languages: Sequence[str] | None, splits: Sequence[str]) -> _SibRows:
    inside = sorted(p.name for p in folder.glob("*") if find(p, *(f"{s}.tsv" for s in _SIB_SPLITS)))
    if not inside:
        raise InputError(
            f"{folder} has neither sib200.tsv nor <language>/train.tsv; name the folder that has")
    rows: _SibRows = {}
    for language in choose(languages, inside, "language", folder):
        rows[language] = []
        for split in splits:
            path = find(folder / language, f"{split}.tsv")
            if path is None:
                raise InputError(
                    f"{folder / language} has no {split}.tsv; add it or choose splits=")
            for n, row in enumerate(table(path, ("index_id", "category", "text")), 1):
                i = number(path, n, "index_id", row["index_id"])
                rows[language].append((i, row["text"], row["category"]))
    return rows


def read_senses(
    path: str | Path, minimum: int = 20, languages: Sequence[str] | None = None,
    everywhere: bool = True,
) -> Corpus:
    """A table of sentences with WordNet senses, each sense a concept.

    Args:
        path: columns lang, doc, sent, text, senses; `senses` has one entry a token, divided by
            blanks, "O" = none. Documents and parallel ids are `doc` and `doc`/`sent`.
        minimum: sentences with and without a sense that a language needs for it to be a concept.
        languages: default all of the table.
        everywhere: the minimum holds in every language, or in at least one.

    Raises:
        InputError: a column or language is missing; no sense is frequent enough.
    """
    rows = list(table(path, ("lang", "doc", "sent", "text", "senses")))
    chosen = choose(languages, (row["lang"] for row in rows), "language", path)
    sentences = [
        Sentence(row["text"], row["lang"], row["doc"], f"{row['doc']}/{row['sent']}",
                 {sense: 1 for sense in row["senses"].split() if sense != "O"})
        for language in chosen for row in rows if row["lang"] == language]
    concepts = frequent(sentences, minimum, everywhere)
    if sentences and not concepts:
        raise InputError(
            f"{path}: no sense has {minimum} sentences with and without it in "
            f"{'each' if everywhere else 'one'} of {', '.join(chosen)}; lower minimum=")
    return assemble(sentences, dict.fromkeys(concepts, "sense"), stem(Path(path)), absent=0)


def read_afriwoz(
    path: str | Path, languages: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Corpus:
    """AfriWOZ dialogues, a turn a row: columns lang, split, n, episode (-1 = no flag), text.

    A document is an episode where the flags exist, else a block of 20 turns; both ids are shared by
    the languages, since most translate the same dialogues, and begin with the split.
    """
    rows = list(table(path, ("lang", "split", "n", "episode", "text")))
    chosen = choose(languages, (row["lang"] for row in rows), "language", path)
    wanted = choose(splits, (row["split"] for row in rows), "split", path)
    sentences, unflagged = [], dict.fromkeys(chosen, 0)
    for n, row in enumerate(rows, 1):
        turn, episode = (number(path, n, column, row[column]) for column in ("n", "episode"))
        if row["lang"] in chosen and row["split"] in wanted:
            unflagged[row["lang"]] += episode < 0
            part = f"episode {episode}" if episode >= 0 else f"block {turn // BLOCK}"
            sentences.append(Sentence(row["text"], row["lang"], f"{row['split']}/{part}"))
    notes = [f"{language}: {count} turns have no episode flag; blocks of {BLOCK} are documents"
             for language, count in unflagged.items() if count]
    return assemble(sentences, {}, "afriwoz", absent=-1, notes=notes)


def read_tatoeba(path: str | Path, languages: Sequence[str] | None = None) -> Corpus:
    """Sentences paired with English (columns lang, text, english), without labels.

    Translations of one English sentence share its parallel id, which is their document too; of
    several translations into one language the first stands. English means the sentences paired
    with the other languages chosen, or all when chosen alone.
    """
    rows = list(table(path, ("lang", "text", "english")))
    known = [*dict.fromkeys(row["lang"] for row in rows), "eng"]
    chosen = choose(languages, known, "language", path)
    ids: dict[str, str] = {}
    texts: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["lang"] in chosen or chosen == ["eng"]:
            i = ids.setdefault(row["english"], str(len(ids)))
            for language, text in ((row["lang"], row["text"]), ("eng", row["english"])):
                if language in chosen:
                    texts.setdefault((language, i), text)
    sentences = [Sentence(text, language, i, i) for (language, i), text in texts.items()]
    return assemble(sentences, {}, "tatoeba", absent=-1)
