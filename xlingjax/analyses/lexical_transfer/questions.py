"""The experiment's text and task from files: running text, and questions on paragraphs in SQuAD's layout."""

import dataclasses
from collections.abc import Sequence

from xlingjax.analyses.lexical_transfer.data import SHARES, TransferData, text_beside
from xlingjax.judging.languages import LIBRARY
from xlingjax.tasks.reading import read_squad
from xlingjax.tasks.spans import SpanAnswers
from xlingjax.tasks.task import split_by_documents


def read_questions(
    paths: Sequence[str], files: Sequence[str], first: str, others: Sequence[str], length: int,
) -> TransferData:
    """Running text of several languages, and parallel questions such as XQuAD's, whose articles none of it holds.

    Articles are drawn into training and test, the same in all languages; paragraphs that stand in the running text are
    taken out of it.

    Args:
        paths: files and folders of running text, as `corpora.read_text` reads them.
        files: files and folders of `xquad.<language>.json`, as `tasks.read_squad` reads them; two letters name the
            languages that the running text names by three.
        first, others: languages as the running text names them.
        length: tokens of a row; a quarter of them at most are a question, and windows are a third apart.
    """
    chosen = (first, *others)
    named = {LIBRARY.get(language, language): language for language in chosen}
    examples = tuple(dataclasses.replace(e, language=named[e.language]) for e in read_squad(files, list(named)))
    texts = text_beside(paths, chosen, (text for e in examples for text in e.texts))
    task = SpanAnswers("answers in paragraphs", stride=max(1, length // 3), longest_question=max(1, length // 4))
    return TransferData(texts, first, task, split_by_documents(examples, SHARES))
