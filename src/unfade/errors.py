"""The errors a user can meet. Each message is one sentence: what was expected, what was found, what to do.

A setting is named in backquotes, as `min_face`, and never as a flag: the command line shows the flag it has for it. It
prints that sentence without a traceback; any other exception is a bug and crashes loudly.
"""


class UnfadeError(Exception):
    """Base of everything that is the input's fault and not the program's."""


class UnreadableImage(UnfadeError):
    """A file that is not a picture, or only part of one. The message starts with its path."""


class BadInput(UnfadeError, ValueError):
    """A folder, file or argument that cannot be worked on as it is."""


class BadCheckpoint(UnfadeError):
    """Weights that are damaged, or of another architecture than the one asked for."""


class UnknownModel(UnfadeError):
    """A model name that is not in the table and not a file. The message lists the names there are."""


class OutputConflict(UnfadeError):
    """Output that is there already and was made otherwise, or that would overwrite the input."""


class Diverged(UnfadeError):
    """A training whose loss is no number any more; nothing of it is kept but its last checkpoint."""


class DiskFull(UnfadeError):
    """There is no room to write a result. What was written before is kept, and a second run goes on from there."""
