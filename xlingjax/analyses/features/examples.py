"""Words that show what a latent does: those in which it is most active, in each language."""

import numpy as np
import scipy.sparse
import xarray as xr
from jaxtyping import Int

from xlingjax.analyses.features.cells import Cells
from xlingjax.corpora.words import Treebank


def top_words(
    latents: dict[int, tuple[Int[np.ndarray, "n"], scipy.sparse.csr_matrix]], shown: Int[np.ndarray, "V E"],
    bank: Treebank, cells: Cells, count: int,
) -> xr.Dataset:
    """The words that activate each shown latent most, in every language.

    Args:
        latents: language -> words of the treebank, and their latents [n, M].
        shown: of each value, -1 = none.

    Returns:
        Dimensions `value`, `entry`, `language`, `example`. `activation`, falling, NaN where there is none; `text`, the
        sentence; `start`, `end`, the word's characters in it; `has`, 1 where the word has the value, 0 where it has
        another one, -1 where it is no example.
    """
    shape = (*shown.shape, len(cells.languages), count)
    activation, word = np.full(shape, np.nan), np.full(shape, -1)
    side = np.full((len(cells.values), len(bank.row)), -1, np.int8)
    side[:, cells.words] = cells.side
    for g, (words, values) in latents.items():
        columns = values.tocsc()
        for v, e in zip(*np.nonzero(shown >= 0)):
            column = columns[:, [shown[v, e]]].tocoo()
            best = np.argsort(-column.data, kind="stable")[:count]
            activation[v, e, g, :len(best)], word[v, e, g, :len(best)] = column.data[best], words[column.row[best]]
    at = np.maximum(word, 0)
    texts = np.array(bank.texts, object)[bank.row[at]]
    axes = ("value", "entry", "language", "example")
    has = np.where(word >= 0, np.take_along_axis(side, at.reshape(len(side), -1), 1).reshape(shape), -1)
    return xr.Dataset(
        {"activation": (axes, activation), "text": (axes, np.where(word >= 0, texts, "").astype(str)),
         "start": (axes, np.where(word >= 0, bank.span[at, 0], -1)),
         "end": (axes, np.where(word >= 0, bank.span[at, 1], -1)), "has": (axes, has)},
        coords={"value": list(cells.values), "language": list(cells.languages)})
