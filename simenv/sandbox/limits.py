"""Limits of this process, which it and what it starts cannot raise (setrlimit(2)).

Invariant: a hard limit of the site that is lower holds instead, as only root can raise it.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path


def limit_process(
    *, more_bytes: int = 0, address_bytes: int = 0, data_bytes: int = 0, file_bytes: int = 0
) -> None:
    """Limit this process; 0: no limit. It leaves no core dump.

    `more_bytes`: of address space, above what it has now. `address_bytes`: of all address space.
    `data_bytes`: of memory that is no mapped file. `file_bytes`: of each file that it writes.
    """
    if more_bytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        address_bytes = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    for kind, limit in (
        (resource.RLIMIT_AS, address_bytes),
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
    ):
        if limit:
            set_limit(kind, limit)
    forbid_core_dumps()


def set_limit(kind: int, limit: int) -> None:
    """Set a limit, resource.RLIMIT_*, to `limit` or to the lower hard limit that holds."""
    hard = resource.getrlimit(kind)[1]
    least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (least, least))


def forbid_core_dumps() -> None:
    """Let no process from here on leave a core dump. A limit of 1 byte is too small for any file
    and, unlike 0, also keeps the kernel from piping it to a program (core(5))."""
    set_limit(resource.RLIMIT_CORE, 1)
