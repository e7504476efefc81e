"""Process of a plugin: `python -m simenv.qpm_check.fake_defw SOCKET FOLDER REVISION EXECUTABLE
RPC_TIMEOUT_S`.

The process ends when its first client ends, whatever the plugin has started. `sys.executable`
becomes EXECUTABLE, a link to the host's own program, as in a host that embeds Python.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from simenv.qpm_check.fake_defw.host import Host


def main() -> None:
    path, folder, revision, executable, rpc_timeout_s = sys.argv[1:]
    sys.executable = executable
    os.umask(0)  # like a host that is a daemon
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(64)
        host = Host(Path(folder), int(revision), float(rpc_timeout_s))
        host.load()
        host.serve(listening)
    os._exit(0)  # does not wait for threads and children of the plugin


main()
