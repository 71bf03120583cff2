"""Text with language, document, parallel id and labels; readers; tokenising and batching."""

from xlingjax.corpora.anchors import (
    concept_anchors,
    shared_pieces,
    token_detectors,
    without_pieces,
    wordless,
)
from xlingjax.corpora.batching import (
    Batch,
    BatchPlan,
    bucket_lengths,
    counted,
    make_batch,
    plan_batches,
)
from xlingjax.corpora.concepts import read_concepts, write_concepts
from xlingjax.corpora.conllu import parse_conllu, read_conllu
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.minimal_pairs import MinimalPairs, read_pairs
from xlingjax.corpora.parallel import parallel_rows, read_parallel
from xlingjax.corpora.running_text import read_text, read_xquad
from xlingjax.corpora.tables import read_afriwoz, read_senses, read_sib200, read_tatoeba
from xlingjax.corpora.tokenising import Tokens, pieces, tokenise
from xlingjax.corpora.world import mini_world, mini_world_pairs, mini_world_words

__all__ = [
    "Batch", "BatchPlan", "Corpus", "MinimalPairs", "Tokens", "bucket_lengths", "concept_anchors",
    "counted", "make_batch", "mini_world", "mini_world_pairs", "mini_world_words", "parallel_rows", "parse_conllu",
    "pieces", "plan_batches", "read_afriwoz", "read_concepts", "read_conllu", "read_pairs", "read_parallel",
    "read_senses", "read_sib200", "read_tatoeba", "read_text", "read_xquad", "shared_pieces",
    "token_detectors", "tokenise", "without_pieces", "wordless", "write_concepts",
]
