"""File system of a folder: SQLite's live journal must not be on a network file system.

The mount table is text, and parsing it is a pure function.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

# File systems that several machines may mount; SQLite's WAL needs memory shared by its users.
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
    """Return the type of the file system of an absolute folder, from `mounts`, the text of
    /proc/self/mountinfo; "" if no mount contains the folder."""
    best, result = -1, ""
    for line in mounts.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5 or not after:
            continue
        mount = PurePath(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if (folder == mount or mount in folder.parents) and len(mount.parts) >= best:
            best, result = len(mount.parts), after.split()[0]  # a later mount hides an earlier one
    return result


def is_network(kind: str) -> bool:
    """Return whether a file system type is one that other machines can mount too."""
    name = kind.removeprefix("fuse.").lower()
    return kind in NETWORK or (
        kind.startswith("fuse.") and (name in NETWORK or name.startswith(NETWORK_FUSE))
    )


def kind_of(folder: Path) -> str:
    """Return the file system type of a folder, which need not exist yet; "" if unknown."""
    try:
        return kind(folder.resolve(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return ""
