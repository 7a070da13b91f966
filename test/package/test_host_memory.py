# SPDX-License-Identifier: MIT
"""Settings of the C library's allocator for large blocks."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys, threading
from xmem_ros.host_memory import keep_large_blocks, release_freed_memory
if sys.argv[1] == 'keep':
    assert keep_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 100 << 20

def use():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def resident():
    return int(open('/proc/self/statm').read().split()[1])

def run():
    use()
    faults()
    held = resident()
    release_freed_memory()
    print(held - resident())

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def run(what: str) -> list[int]:
    """Return pages cleared for a reused block of 25 600 pages, and pages released afterwards."""
    done = subprocess.run([sys.executable, '-c', PROGRAM, what], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='this is about glibc')
def test_a_large_block_is_reused_and_can_be_released() -> None:
    cleared, given = run('keep')
    assert cleared < 100
    assert given > 20_000
