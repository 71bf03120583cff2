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
from xlingjax.corpora.dialogue_files import read_dialogues
from xlingjax.corpora.dialogues import (
    Dialogues,
    Windows,
    leaks,
    parallel_turns,
    reply_only,
    shuffle_contexts,
    windows,
    without_leaks,
)
from xlingjax.corpora.minimal_pairs import MinimalPairs, read_pairs
from xlingjax.corpora.parallel import parallel_rows, read_parallel
from xlingjax.corpora.running_text import read_text, read_xquad
from xlingjax.corpora.tables import read_afriwoz, read_senses, read_sib200, read_tatoeba
from xlingjax.corpora.tokenising import Tokens, pieces, tokenise
from xlingjax.corpora.world import mini_dialogues, mini_world, mini_world_pairs, mini_world_words

__all__ = [
    "Batch", "BatchPlan", "Corpus", "Dialogues", "MinimalPairs", "Tokens", "Windows", "bucket_lengths",
    "concept_anchors", "counted", "leaks", "make_batch", "mini_dialogues", "mini_world", "mini_world_pairs",
    "mini_world_words", "parallel_rows", "parallel_turns", "parse_conllu", "pieces", "plan_batches", "read_afriwoz",
    "read_concepts", "read_conllu", "read_dialogues", "read_pairs", "read_parallel", "read_senses", "read_sib200",
    "read_tatoeba", "read_text", "read_xquad", "reply_only", "shared_pieces", "shuffle_contexts", "token_detectors",
    "tokenise", "windows", "without_leaks", "without_pieces", "wordless", "write_concepts",
]
