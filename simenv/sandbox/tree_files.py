"""Files that a process and all that it has started hold on a disk or in memory (proc(5))."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from simenv.sandbox.process_tree import descendants

_Sizes = dict[tuple[int, int], int]  # bytes by device and inode


def open_bytes(pid: int, folder: Path) -> int:
    """Return the bytes, on disk or in memory, of the regular files outside a folder that a process
    and its descendants have open for writing, and of those without a name that they have open or,
    on the file system of the folder, mapped; 0 if it has ended."""
    found = _Sizes()
    with suppress(OSError):
        device = folder.stat().st_dev
        for each in (pid, *descendants(pid)):
            with suppress(OSError):
                _add_open(f"/proc/{each}", folder, found)
            with suppress(OSError):
                _add_mapped(f"/proc/{each}", device, found)
    return sum(found.values())


def _add_open(process: str, folder: Path, found: _Sizes) -> None:
    with os.scandir(f"{process}/fd") as descriptors:
        for each in descriptors:
            with suppress(OSError):
                info = each.stat()
                if not stat.S_ISREG(info.st_mode):
                    continue
                is_written = each.stat(follow_symlinks=False).st_mode & stat.S_IWUSR
                inside = info.st_nlink and Path(os.readlink(each.path)).is_relative_to(folder)
                if not info.st_nlink or (is_written and not inside):
                    found[info.st_dev, info.st_ino] = 512 * info.st_blocks


def _add_mapped(process: str, device: int, found: _Sizes) -> None:
    """Add files without a name that may be mapped and not open. Only root is told their size: for
    other users it is the end of what is mapped, at least."""
    number = f"{os.major(device):02x}:{os.minor(device):02x}"
    with open(f"{process}/maps") as maps:
        for line in maps:
            addresses, _, offset, on_device, inode = line.split(maxsplit=5)[:5]
            key = device, int(inode)
            if on_device != number or not line.endswith(" (deleted)\n"):
                continue
            begin, end = (int(each, 16) for each in addresses.split("-"))
            try:
                blocks = os.stat(f"{process}/map_files/{begin:x}-{end:x}").st_blocks
                found[key] = 512 * blocks
            except OSError:
                mapped = int(offset, 16) + end - begin
                found[key] = max(found.get(key, 0), mapped)
