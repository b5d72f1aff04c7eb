"""Threads of the command share few pools of freed memory, and whole photos go back to the system."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

START = """
import ctypes, sys, threading
from unfade.cli import start
sys.argv = ["unfade", *sys.argv[1:]]
try:
    start()
except SystemExit:
    pass
"""

# malloc_info() tells of every pool; the threads wait for each other, so that none takes the pool of one that ended.
POOLS = (
    START
    + """
together = threading.Barrier(6)
def work():
    together.wait()
    kept = bytes(100_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""
)

# What was mapped and freed makes glibc keep as much of later memory, unless it is told a limit.
MAPPED = (
    START
    + """
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
for size in (30_000_000, 20_000_000):
    before = libc.mallinfo2().hblkhd
    kept = bytearray(size)
    mapped = libc.mallinfo2().hblkhd - before
    del kept
print("mapped:", mapped >= 20_000_000)
"""
)


def pools(**environment: str) -> int:
    return begun(POOLS, "models", "list", "--quiet", **environment).count("<heap nr=")


def begun(code: str, *command: str, **environment: str) -> str:
    """What a process prints that the command has begun."""
    left = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", code, *command], env={**left, **environment}, capture_output=True, text=True, check=True
    )
    return run.stdout


on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is arranged")


@on_glibc
def test_threads_share_two_pools_unless_the_user_says_otherwise() -> None:
    assert pools() == 2
    assert pools(MALLOC_ARENA_MAX="4") == 4


@on_glibc
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_restoring_gives_pictures_back_and_a_training_keeps_their_memory() -> None:
    assert "mapped: True" in begun(MAPPED, "restore", "--help")
    assert "mapped: False" in begun(MAPPED, "train", "--help")
    assert "mapped: False" in begun(MAPPED, "restore", "--help", MALLOC_MMAP_THRESHOLD_="30000001")
