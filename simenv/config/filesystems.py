"""File system of a folder: SQLite's live journal must not be on a network file system.

The mount table is text, and parsing it is a pure function.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

# File systems that several machines may see; SQLite's WAL needs memory shared by its users.
NETWORK = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "lustre", "gpfs", "mmfs", "beegfs", "pvfs2", "orangefs", "panfs"),
        *("cifs", "smb3", "smbfs", "ceph", "glusterfs", "9p", "afs", "ncpfs", "ocfs2", "gfs2"),
        *("virtiofs", "wekafs", "vastfs", "daos", "curvefs"),
    }
)
NETWORK_FUSE = (
    "sshfs",
    "ceph",
    "gluster",
    "beegfs",
    "s3fs",
    "gcsfuse",
    "juicefs",
    "dfuse",
    "rclone",
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def kind(folder: PurePath, mounts: str) -> str:
    """The type of the file system that holds an absolute folder, by the text of
    /proc/self/mountinfo; "" if that does not say."""
    best, result = -1, ""
    for line in mounts.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5 or not after:
            continue
        mount = PurePath(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if (folder == mount or mount in folder.parents) and len(mount.parts) >= best:
            best, result = len(mount.parts), after.split()[0]  # of two on one place the later holds
    return result


def is_network(kind: str) -> bool:
    """Is that type of file system one that other machines see too?"""
    name = kind.removeprefix("fuse.").lower()
    return kind in NETWORK or (
        kind.startswith("fuse.") and (name in NETWORK or name.startswith(NETWORK_FUSE))
    )


def kind_of(folder: Path) -> str:
    """The same of a folder here, which need not exist yet; "" if unknown."""
    try:
        return kind(folder.resolve(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return ""
