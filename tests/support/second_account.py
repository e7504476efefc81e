"""Run a program as another user, who can enter the folders of this interpreter alone: by root.

    python second_account.py USER -- ARGV...

In a mount namespace of its own, folders that only root can enter, as /root, have nothing but the
interpreter and the source tree below them.
"""

import ctypes
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from simenv.sandbox import private_namespaces  # noqa: E402

_NEW_MOUNTS, _RECURSIVE, _PRIVATE = 0x2_0000, 16384, 1 << 18


def command_line(user: int, argv: list[str]) -> list[str]:
    return [sys.executable, "-B", "-P", __file__, str(user), "--", *argv]


def main() -> None:
    user, argv = int(sys.argv[1]), sys.argv[3:]
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) != 0:
        raise SystemExit("mount namespaces are forbidden here")
    private_namespaces._mount("", "/", "", _RECURSIVE | _PRIVATE)
    private_namespaces.reveal([Path(sys.prefix), Path(sys.base_prefix), ROOT])
    private_namespaces.switch_user(user)
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG: a service outlives its starter
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
