"""Does a model of one language read another through new embeddings alone? (Artetxe, Ruder, Yogatama, ACL 2020.)"""

from xlingjax.analyses.lexical_transfer.data import TransferData
from xlingjax.analyses.lexical_transfer.run import lexical_transfer
from xlingjax.analyses.lexical_transfer.settings import LexicalSettings

__all__ = ["LexicalSettings", "TransferData", "lexical_transfer"]
