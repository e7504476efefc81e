"""PMIx helper: a separate process that speaks PMIx for the launcher.

    python -P -m launcher.pmix.helper PID FILE LIBRARY...

The DVM writes its URI to FILE, which may be created later. The DVM listens in the network namespace
of the process PID; 0: in that of the helper. The libraries are loaded in order; libpmix is the
last. Requests and responses are frames (`helper_process`). The process ends with the launcher.

If the library hangs or crashes, only this process is lost: the launcher kills it and starts another
helper, which can end jobs of the previous one. When the connection is lost, the helper reports it
and ends; it never starts a process by other means.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NoReturn

from launcher.pmix import helper_process
from launcher.pmix.helper_process import HelperResponse
from launcher.pmix.tool import CONNECTION_LOST_CODES, PmixError, Tool
from launcher.process import network_namespace
from simenv.sandbox.parent import ParentChannel

WAIT_S = 0.005  # between two checks for the DVM's address
CONNECTION_CHECK_S = 0.25
QUERY_S = 1.0  # between two queries of live jobs: events of short jobs may be lost


class Helper:
    """Translator between the launcher and the PMIx tool."""

    def __init__(self, uri: str, libraries: list[Path], channel: ParentChannel) -> None:
        self._channel = channel
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

    def serve(self) -> None:
        """Serve requests until the connection is lost; the process ends with the launcher."""
        requests: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        checks = 0
        while self._tool.connected():
            try:
                body = requests.get(timeout=CONNECTION_CHECK_S)
            except Empty:
                checks += 1
                if checks * CONNECTION_CHECK_S >= QUERY_S:
                    checks = 0
                    self._execute(helper_process.HelperRequest("query"))
            else:
                self._execute(helper_process.decode(helper_process.HelperRequest, body))
        self._send(HelperResponse("lost", message="the connection to the DVM is lost"))

    def _read(self, requests: SimpleQueue[bytes]) -> None:
        while (body := self._channel.receive()) is not None:
            requests.put(body)

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
        self._channel.send(helper_process.encode(response))


def _read_uri(file: Path, channel: ParentChannel) -> str:
    """Wait for the first line of the file. Raises SystemExit if the launcher ends before. The file
    is written with one write, but not renamed into place."""
    while True:
        text = file.read_text() if file.exists() else ""
        if "\n" in text:
            return text.partition("\n")[0]
        if channel.has_ended(WAIT_S):
            raise SystemExit("the launcher has ended")


def main(argv: list[str]) -> NoReturn:
    """Serve, and exit without waiting for the library's threads, which may hang."""
    network_of, file, *libraries = argv
    channel = ParentChannel()
    try:
        uri = _read_uri(Path(file), channel)
        if int(network_of):  # the namespace exists as soon as the DVM has written its URI
            network_namespace.join(int(network_of))  # with one thread
        channel.end_with_parent()
        helper = Helper(uri, [Path(path) for path in libraries], channel)
        helper.serve()
    except (PmixError, OSError) as error:
        sys.stderr.write(f"launcher.pmix.helper: {error}\n")
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
