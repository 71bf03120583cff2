"""Every kernel of the table equals its trusted implementation, eagerly and compiled."""

import numpy as np
import pytest
from references import TABLE
from tolerances import close


@pytest.mark.promise
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_trusted_implementation(name, seed):
    pair = TABLE[name]
    inputs = pair.inputs(np.random.default_rng(seed))
    close(pair.ours(*inputs), pair.theirs(*inputs), pair.tolerance, name)
