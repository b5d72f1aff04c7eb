"""How this process keeps the memory that it has given back."""

import ctypes
import os
import platform

ARENAS = 2
_M_ARENA_MAX = -8  # glibc, malloc.h


def few_arenas() -> None:
    """Let all threads share two pools of freed memory, before any of them has begun.

    glibc gives each thread its own, and pictures of many sizes leave holes in all of them: over a folder of some
    hundred photos the process would slowly grow. Nothing happens where there is no glibc, and nothing where the user
    has set MALLOC_ARENA_MAX.
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_ARENA_MAX" not in os.environ:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
