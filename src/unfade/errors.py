"""The errors a user can meet. Each message is one sentence: what was expected, what was found, what to do.

A setting is named in backquotes, as `min_face`, and never as a flag: the command line shows the flag it has for it. It
prints that sentence without a traceback; any other exception is a bug and crashes loudly.
"""

import math

STOPPED = "Stopped. What was finished is kept; run the same command again to resume."  # what Ctrl-C gets for an answer


class UnfadeError(Exception):
    """Base of all errors that the input causes, not the program."""


class UnreadableImage(UnfadeError):
    """A file that is not a picture, or only part of one. The message starts with its path."""


class BadInput(UnfadeError, ValueError):
    """A folder, file or argument that cannot be worked on as it is."""


class BadCheckpoint(UnfadeError):
    """Weights, or a fitted degradation, that are damaged or of another kind than the one asked for."""


class UnknownModel(UnfadeError):
    """A name that is neither a model in the table nor a file. The message lists the known names."""


class OutputConflict(UnfadeError):
    """Output that already exists and was made with other settings, or that would overwrite the input."""


class Diverged(UnfadeError):
    """A training whose loss is no longer a number; only its last checkpoint is kept."""


class OutOfMemory(UnfadeError):
    """A network and what it works on do not fit into the memory of their device."""


class DiskFull(UnfadeError):
    """The disk is full. What was written before is kept, and the same command continues from there."""


def refuse_below(least: float, settings: object, *names: str) -> None:
    """Raises BadInput, naming it, for the first of these settings that is below `least`, infinite or not a number."""
    for name in names:
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= least):
            raise BadInput(f"Expected `{name}` to be {least:g} or more, got {value}.")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if it has none, as a MemoryError of Python's."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
