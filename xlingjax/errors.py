"""The error a user can act on.

Everything that enters from outside (a flag, a file, a corpus, a checkpoint) is checked where it
enters. What is refused raises `InputError`: one sentence that names the thing, its value and the
remedy. `experiments` print that sentence and exit with 1; any other exception is our defect.
"""


from collections.abc import Mapping
from typing import Any


class InputError(ValueError):
    """Something given from outside cannot be used; the message names it and says what to do."""


def require_least(settings: Any, least: Mapping[str, float]) -> None:
    """`InputError` where a field of `settings` that is given lies below its bound.

    >>> import types
    >>> require_least(types.SimpleNamespace(k=None, seeds=1), {"k": 1, "seeds": 2})
    Traceback (most recent call last):
    ...
    xlingjax.errors.InputError: seeds is 1; it must be 2 or more
    """
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise InputError(f"{name} is {value}; it must be {bound} or more")
