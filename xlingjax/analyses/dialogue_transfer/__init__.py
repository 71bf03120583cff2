"""Does a dialogue model of one language carry over to another? (AfriWOZ, Adewumi et al. 2022.)"""

from xlingjax.analyses.dialogue_transfer.run import Transfer, chat, dialogue_transfer
from xlingjax.analyses.dialogue_transfer.settings import DialogueSettings

__all__ = ["DialogueSettings", "Transfer", "chat", "dialogue_transfer"]
