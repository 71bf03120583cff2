"""Text with language, document, parallel id and labels; readers; tokenising and batching."""

from xlingjax.corpora.batching import (
    Batch,
    BatchPlan,
    bucket_lengths,
    counted,
    make_batch,
    plan_batches,
)
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, pieces, tokenise

__all__ = [
    "Batch", "BatchPlan", "Corpus", "Tokens", "bucket_lengths", "counted", "make_batch", "pieces",
    "plan_batches", "tokenise",
]
