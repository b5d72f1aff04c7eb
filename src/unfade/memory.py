"""How this process keeps the memory that it has given back."""

import ctypes
import os
import platform

ARENAS = 2
LARGE = 16_000_000  # bytes: a photo of 2 megapixels as float32, and no layer of a network at 128 px
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # glibc, malloc.h


def few_arenas() -> None:
    """Let all threads share two pools of freed memory, before any of them has begun.

    glibc gives each thread its own, and pictures of many sizes leave holes in all of them: over a folder of some
    hundred photos the process would slowly grow. Nothing happens where there is no glibc, and nothing where the user
    has set MALLOC_ARENA_MAX.
    """
    _set(_M_ARENA_MAX, ARENAS, unless="MALLOC_ARENA_MAX")


def return_large() -> None:
    """Let pictures go back to the system at once, for work on many photos.

    Else glibc keeps what had up to 32 MB, and whole photos of other sizes do not fit into the holes. A training asks
    for as much at every step, and would be slower for getting it anew.
    """
    _set(_M_MMAP_THRESHOLD, LARGE, unless="MALLOC_MMAP_THRESHOLD_")


def _set(parameter: int, value: int, *, unless: str) -> None:
    if platform.libc_ver()[0] == "glibc" and unless not in os.environ:
        ctypes.CDLL(None).mallopt(parameter, value)
