"""The error a user can act on.

Everything that enters from outside (a flag, a file, a corpus, a checkpoint) is checked where it
enters. What is refused raises `InputError`: one sentence that names the thing, its value and the
remedy. `experiments` print that sentence and exit with 1; any other exception is our defect.
"""


class InputError(ValueError):
    """Something given from outside cannot be used; the message names it and says what to do."""
