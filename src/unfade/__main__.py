"""The program: `unfade`, and `python -m unfade` for where the command is not on the path."""

import os
import signal
import sys
from types import FrameType

from unfade.errors import STOPPED

came: list[int] = []  # Ctrl-C, as often as it came


def start() -> None:
    """Run the command line. Ctrl-C while libraries are imported, which may make any error of it, ends it as later."""
    _fill_streams()
    signal.signal(signal.SIGINT, _interrupted)
    try:
        from unfade.cli import start as begin

        begin()
    except SystemExit:
        raise
    except BaseException:
        if not came:
            raise
        sys.stderr.write(f"{STOPPED}\n")
        sys.exit(130)


def _interrupted(number: int, frame: FrameType | None) -> None:
    came.append(number)
    signal.default_int_handler(number, frame)


def _fill_streams() -> None:
    """Standard streams that are closed lead nowhere; else the next file that is opened would be taken for one.

    Whatever is printed on a closed standard output fails, as on a full disk; errors are lost.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if handle != number:
                os.dup2(handle, number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for as long as the process lives


if __name__ == "__main__":
    start()
