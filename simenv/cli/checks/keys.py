"""Files that hold secret keys: nobody else may open them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from simenv import config
from simenv.cli.checks.finding import Finding

_FILES = (
    "server-key.json",
    "keys.json",
    "connection.json",
    "worker.json",
    "keys/*.simenv",
    "worker-keys/*.json",
)


def modes() -> Iterator[Finding]:
    """Of each environment here, and of the file SIMENV_SERVICE names."""
    root = config.home_root()
    files = [path for name in _FILES for path in sorted(root.glob(f"*/{name}"))]
    named = config.service_file()
    if named is not None and named.exists() and named not in files:
        files.append(named)
    bad = [finding for path in files if (finding := _judged(path)) is not None]
    yield from bad
    if not bad:
        count = f"{len(files)} file{'s' if len(files) != 1 else ''}"
        yield Finding("ok", "keys", f"{count} with keys or addresses, ours alone")


def _judged(path: Path) -> Finding | None:
    try:
        info = path.stat()
    except FileNotFoundError:  # of a worker that has just ended
        return None
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.getuid():
        return Finding("fail", "keys", f"{path} belongs to user {info.st_uid}", f"rm {path}")
    if mode & 0o077:
        detail = f"{path} can be opened by others ({mode:04o})"
        return Finding("fail", "keys", detail, f"chmod 600 {path}")
    return None
