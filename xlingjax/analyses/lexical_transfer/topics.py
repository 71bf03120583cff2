"""The experiment's text and task from files: running text, and topics of sentences in SIB-200's form."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xlingjax.analyses.lexical_transfer.data import SHARES, TransferData, text_beside
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import existing, find
from xlingjax.corpora.files import table as read_table
from xlingjax.corpora.tables import read_sib200
from xlingjax.errors import InputError
from xlingjax.tasks.classification import Classification
from xlingjax.tasks.reading import topic_examples
from xlingjax.tasks.task import split_by_documents

FLORES = {"ara": "arb", "fas": "pes", "zho": "zho", "est": "ekk"}  # where SIB-200's code is another one


def read_topics(paths: Sequence[str], table: str, first: str, others: Sequence[str]) -> TransferData:
    """Running text of several languages, and the topics of sentences that none of it holds.

    SIB-200's own splits share documents, so its documents (blocks of 20 sentences) are drawn into training and test
    anew, the same in all languages. Sentences that stand in the running text are taken out of it.

    Args:
        paths: files and folders of running text, as `corpora.read_text` reads them.
        table: SIB-200's table or folder.
        first, others: languages as the running text names them; SIB-200's are those of their code ("deu": "deu_Latn").
    """
    chosen = (first, *others)
    topics = _renamed(read_sib200(Path(table), _codes(Path(table), chosen)), chosen)
    texts = text_beside(paths, chosen, topics.texts)
    task = Classification("topic of a sentence", topics.concepts)
    return TransferData(texts, first, task, split_by_documents(topic_examples(topics), SHARES), concepts=topics)


def _codes(table: Path, languages: Sequence[str]) -> list[str]:
    """SIB-200's code of each language."""
    whole = find(table, "sib200.tsv") if table.is_dir() else existing(table)
    if whole is not None:
        there = sorted({row["lang"] for row in read_table(whole, ("lang", "index_id", "text"))})
    else:
        there = sorted(folder.name for folder in table.iterdir() if folder.is_dir())
    found = []
    for language in languages:
        named = [code for code in there if code.split("_")[0] == FLORES.get(language, language)]
        if not named:
            raise InputError(f"{table} has no language {language!r}; it has {', '.join(there[:20])}, ...")
        found.append(named[0])
    return found


def _renamed(topics: Corpus, languages: Sequence[str]) -> Corpus:
    """The corpus with languages named as the running text names them."""
    back = {FLORES.get(language, language): language for language in languages}
    names = np.array([back[code.split("_")[0]] for code in topics.languages.tolist()])
    return dataclasses.replace(topics, languages=names)
