"""How analyses read sentences and responses: as long as a model can, and as much as memory holds."""

import numpy as np

from xlingjax.models import Model
from xlingjax.responses.responses import Responses

DENSE_BYTES = 2**30  # responses up to this size are held in memory while they are analysed
LONGEST = 512  # tokens of a sentence where the model sets no limit


def longest(model: Model) -> int:
    """Tokens that a sentence is cut to."""
    return model.config.max_length or LONGEST


class Matrix:
    """Responses as `concept_experts` reads them: `matrix[rows, neurons]` of two slices -> NumPy."""

    def __init__(self, responses: Responses) -> None:
        self.shape = responses.shape
        small = 4 * self.shape[0] * self.shape[1] <= DENSE_BYTES
        self._dense = responses.matrix() if small else None
        self._responses = responses

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        if self._dense is not None:
            return self._dense[key]
        rows, neurons = key
        return self._responses.rows(np.arange(self.shape[0])[rows]).matrix(neurons)
