"""The plugin's process: `python -m simenv.qpm_check.standin SOCKET FOLDER REVISION`.

It ends when its first client (the kit) does, whatever the plugin has started.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from simenv.qpm_check.standin.host import Host


def main() -> None:
    path, folder, revision = sys.argv[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(64)
        host = Host(Path(folder), int(revision))
        host.load()
        host.serve(listening)
    os._exit(0)  # threads and children of the plugin do not hold it up


main()
