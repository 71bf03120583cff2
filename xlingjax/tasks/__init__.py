"""Downstream tasks on hidden states: classes of sentences and pairs, spans that answer questions, probing tasks."""

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
    "Answer", "Batch", "Encoded", "Example", "Scores", "Task", "evaluate", "mean_loss", "predict", "select",
    "split_by_documents",
]
