"""Threads of the command share few pools of freed memory."""

import os
import platform
import subprocess
import sys

import pytest

# malloc_info() tells of every pool; the threads wait for each other, so that none takes the pool of one that ended.
POOLS = """
import ctypes, threading
import sys
from unfade.cli import start
sys.argv = ["unfade", "models", "list", "--quiet"]
try:
    start()
except SystemExit:
    pass
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


def pools(**environment: str) -> int:
    left = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    run = subprocess.run(
        [sys.executable, "-c", POOLS], env={**left, **environment}, capture_output=True, text=True, check=True
    )
    return run.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has pools for threads")
def test_threads_share_two_pools_unless_the_user_says_otherwise() -> None:
    assert pools() == 2
    assert pools(MALLOC_ARENA_MAX="4") == 4
