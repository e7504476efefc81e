"""PMIx helper: a separate process that speaks PMIx for the launcher.

    python -P -m launcher.pmix.helper PID FILE LIBRARY...

The DVM writes its URI to FILE, which may be created later. The DVM listens in the network namespace
of the process PID; 0: in that of the helper. The libraries are loaded in order; libpmix is the
last. Requests come as lines on stdin, responses go as lines to stdout (`protocol`). The process
ends with its stdin.

If the library hangs or crashes, only this process is lost: the launcher kills it and starts another
helper, which can end jobs of the previous one. When the connection is lost, the helper reports it
and ends; it never starts a process by other means.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path
from typing import NoReturn

from launcher.pmix import helper_process
from launcher.pmix.helper_process import HelperResponse
from launcher.pmix.tool import CONNECTION_LOST_CODES, PmixError, Tool
from launcher.process import network_namespace

WAIT_S = 0.005  # between two checks for the DVM's address
CONNECTION_CHECK_S = 0.25
QUERY_S = 1.0  # between two queries of live jobs: events of short jobs may be lost


class Helper:
    """Translator between the pipes and the PMIx tool."""

    def __init__(self, uri: str, libraries: list[Path], out: int) -> None:
        self._out = out
        self._write_lock = threading.Lock()
        self._tool = Tool(
            uri,
            libraries[-1],
            libraries[:-1],
            on_spawned=self._on_spawned,
            on_ended=lambda name, code, message: self._send(
                HelperResponse("ended", namespace=name, code=code, message=message)
            ),
            on_listed=lambda names: self._send(HelperResponse("listed", namespaces=tuple(names))),
        )
        self._send(HelperResponse("ready"))

    def serve(self, source: int) -> None:
        """Serve requests until the source ends or the connection is lost."""
        partial = b""
        checks = 0
        while self._tool.connected():
            readable, _, _ = select.select([source], [], [], CONNECTION_CHECK_S)
            if readable:
                data = os.read(source, 1 << 16)
                if not data:
                    return
                *lines, partial = (partial + data).split(b"\n")
                for line in lines:
                    self._execute(helper_process.decode(helper_process.HelperRequest, line))
            else:
                checks += 1
                if checks * CONNECTION_CHECK_S >= QUERY_S:
                    checks = 0
                    self._execute(helper_process.HelperRequest("query"))
        self._send(HelperResponse("lost", message="the connection to the DVM is lost"))

    def _execute(self, request: helper_process.HelperRequest) -> None:
        try:
            if request.operation == "spawn":
                self._tool.spawn(request.key, request.argv, request.env, "/", request.hosts)
            elif request.operation == "add_nodes":
                self._tool.add_nodes(request.key, request.hosts)
            elif request.operation == "kill":
                self._tool.kill(request.namespace)
            elif request.operation == "query":
                self._tool.query()
        except PmixError as error:
            if request.operation in ("spawn", "add_nodes"):
                self._on_spawned(request.key, error.code, "", str(error))

    def _on_spawned(self, key: int, code: int, namespace: str, message: str) -> None:
        not_sent = code in CONNECTION_LOST_CODES
        kind = "not_sent" if not_sent else "failed" if code else "spawned"
        self._send(HelperResponse(kind, key=key, namespace=namespace, code=code, message=message))

    def _send(self, response: HelperResponse) -> None:
        data = helper_process.encode(response)
        with self._write_lock:
            while data:
                data = data[os.write(self._out, data) :]


def _read_uri(file: Path) -> str:
    """Wait for the first line of the file. Raises SystemExit if stdin ends before. The file is
    written with one write, but not renamed into place."""
    while True:
        text = file.read_text() if file.exists() else ""
        if "\n" in text:
            return text.partition("\n")[0]
        readable, _, _ = select.select([0], [], [], WAIT_S)
        if readable and not os.read(0, 1):
            raise SystemExit("the launcher has ended")


def main(argv: list[str]) -> NoReturn:
    """Serve, and exit without waiting for the library's threads, which may hang."""
    network_of, file, *libraries = argv
    out = os.dup(1)
    os.dup2(2, 1)  # messages of the library must not mix with responses
    try:
        uri = _read_uri(Path(file))
        if int(network_of):  # the namespace exists as soon as the DVM has written its URI
            network_namespace.join(int(network_of))
        helper = Helper(uri, [Path(path) for path in libraries], out)
        helper.serve(0)
    except (PmixError, OSError) as error:
        sys.stderr.write(f"launcher.pmix.helper: {error}\n")
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
