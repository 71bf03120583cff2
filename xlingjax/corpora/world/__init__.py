"""The embedded corpus: a small world told in eight languages, written for this project."""

from xlingjax.corpora.world.annotated import mini_world_words
from xlingjax.corpora.world.dialogues import mini_dialogues
from xlingjax.corpora.world.lexicon import LANGUAGES, TOPICS, facts, lexicon
from xlingjax.corpora.world.pairs import mini_world_pairs
from xlingjax.corpora.world.sampling import TRACED
from xlingjax.corpora.world.world import mini_world, shared_concepts

__all__ = ["LANGUAGES", "TOPICS", "TRACED", "facts", "lexicon", "mini_dialogues", "mini_world", "mini_world_pairs",
           "mini_world_words", "shared_concepts"]
