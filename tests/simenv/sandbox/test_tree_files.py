"""Files of a tree of processes: none that takes space is missed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simenv.sandbox.tree_files import open_bytes

WRITER = """
import os, sys
name, log = sys.argv[1:]
os.posix_fallocate(os.open(log, os.O_WRONLY | os.O_CREAT), 0, 1 << 20)
if os.fork() == 0:
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT)
    os.unlink(name)
    os.posix_fallocate(descriptor, 0, 2 << 20)
    os.posix_fallocate(os.open(name, os.O_RDWR | os.O_CREAT), 0, 4 << 20)
    print("written", flush=True)
sys.stdin.read()
"""


def test_open_files_count_without_names_and_outside_the_folder(tmp_path: Path) -> None:
    """The process's own, and those of its children; a file in the folder is counted there."""
    folder = tmp_path / "folder"
    folder.mkdir()
    argv = [sys.executable, "-c", WRITER, str(folder / "x"), str(tmp_path / "log")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout.readline() == "written\n"
        found = open_bytes(it.pid, folder)
        it.communicate()
    assert found == pytest.approx(3 << 20, rel=0.1)
    assert open_bytes(it.pid, folder) == 0


HOLDERS = {
    "open for reading": "kept = os.open(name, os.O_RDONLY)",
    "mapped": "kept = libc.mmap(None, 4096, 1, 1, file, 0)",
}
HOLDER = """
import ctypes, os, sys
name = sys.argv[1]
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
file = os.open(name, os.O_RDWR | os.O_CREAT)
os.posix_fallocate(file, 0, 4 << 20)
{}
os.close(file)
os.unlink(name)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("way", HOLDERS)
def test_file_without_a_name_counts_until_nothing_holds_it(way: str, tmp_path: Path) -> None:
    source = HOLDER.format(HOLDERS[way])
    argv = [sys.executable, "-c", source, str(tmp_path / "x")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout.readline() == "held\n"
        found = open_bytes(it.pid, tmp_path)
        it.communicate()
    least = 4096 if way == "mapped" and os.geteuid() != 0 else 4 << 20
    assert least <= found < 5 << 20
