"""Downstream tasks on hidden states: classes of sentences and pairs, spans that answer questions, probing tasks."""

from xlingjax.tasks.classification import PAWSX, XNLI, Classification
from xlingjax.tasks.probing import AGREEMENT, WORDS_IN_CONTEXT, agreement_examples, words_in_context
from xlingjax.tasks.reading import read_pawsx, read_squad, read_xnli, topic_examples
from xlingjax.tasks.spans import SpanAnswers
from xlingjax.tasks.task import (
    Answer,
    Batch,
    Encoded,
    Example,
    Scores,
    Task,
    evaluate,
    mean_loss,
    predict,
    select,
    split_by_documents,
)

__all__ = [
    "AGREEMENT", "Answer", "Batch", "Classification", "Encoded", "Example", "PAWSX", "Scores", "SpanAnswers", "Task",
    "WORDS_IN_CONTEXT", "XNLI", "agreement_examples", "evaluate", "mean_loss", "predict", "read_pawsx", "read_squad",
    "read_xnli", "select", "split_by_documents", "topic_examples", "words_in_context",
]
