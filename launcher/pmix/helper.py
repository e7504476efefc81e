"""A process of its own that speaks PMIx for the launcher.

    python -m launcher.pmix.helper PID FILE LIBRARY...

FILE is where the DVM writes its URI; it may come later. PID is the process in whose network
namespace the DVM listens, 0 where that is ours. The libraries are loaded in turn, libpmix is the
last. Orders come as lines on stdin, answers go as lines to stdout (`protocol`); it ends
with its stdin.

A library that hangs or crashes takes nobody along: the launcher kills this process and starts
another, which can end jobs of the one before it. Without its connection it says so and ends:
nothing is ever started in another way.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path
from typing import NoReturn

from launcher.pmix.protocol import Answer, Order, answer_line, read_order
from launcher.pmix.tool import LOST, PmixError, Tool
from launcher.process import network_namespace

WAIT_S = 0.005  # between two looks for the DVM's address
LOOK_S = 0.25  # between two looks at the connection
ASK_S = 1.0  # between two questions which jobs live: events of short jobs get lost


class Helper:
    """Between the pipes and the tool."""

    def __init__(self, uri: str, libraries: list[Path], out: int) -> None:
        self._out = out
        self._writing = threading.Lock()
        self._tool = Tool(
            uri,
            libraries[-1],
            libraries[:-1],
            spawned=self._spawned,
            ended=lambda name, code, words: self._tell(
                Answer("ended", namespace=name, code=code, words=words)
            ),
            listed=lambda names: self._tell(Answer("listed", alive=tuple(names))),
        )
        self._tell(Answer("ready"))

    def serve(self, source: int) -> None:
        """Until the source ends or the connection is lost."""
        waiting = b""
        looks = 0
        while self._tool.connected():
            readable, _, _ = select.select([source], [], [], LOOK_S)
            if readable:
                data = os.read(source, 1 << 16)
                if not data:
                    return
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    self._obey(read_order(line))
            else:
                looks += 1
                if looks * LOOK_S >= ASK_S:
                    looks = 0
                    self._obey(Order("ask"))
        self._tell(Answer("lost", words="the connection to the DVM is lost"))

    def _obey(self, order: Order) -> None:
        try:
            if order.do == "spawn":
                self._tool.spawn(order.key, order.argv, order.env, "/", order.hosts)
            elif order.do == "grow":
                self._tool.grow(order.key, order.hosts)
            elif order.do == "kill":
                self._tool.kill(order.namespace)
            elif order.do == "ask":
                self._tool.ask()
        except PmixError as error:
            if order.do in ("spawn", "grow"):
                self._spawned(order.key, error.code, "", str(error))

    def _spawned(self, key: int, code: int, namespace: str, words: str) -> None:
        tells = "unasked" if code in LOST else "failed" if code else "spawned"
        self._tell(Answer(tells, key=key, namespace=namespace, code=code, words=words))

    def _tell(self, answer: Answer) -> None:
        data = answer_line(answer)
        with self._writing:
            while data:
                data = data[os.write(self._out, data) :]


def _uri(file: Path) -> str:
    """The first line of the file, as soon as that is whole. It is written in one go, but not moved
    into place. SystemExit when stdin ends before."""
    while True:
        text = file.read_text() if file.exists() else ""
        if "\n" in text:
            return text.partition("\n")[0]
        readable, _, _ = select.select([0], [], [], WAIT_S)
        if readable and not os.read(0, 1):
            raise SystemExit("the launcher is gone")


def main(argv: list[str]) -> NoReturn:
    """Never returns: the library's threads may not be waited for."""
    network_of, file, *libraries = argv
    out = os.dup(1)
    os.dup2(2, 1)  # what the library prints is no answer
    try:
        uri = _uri(Path(file))
        if int(network_of):  # it is there as soon as the DVM has written its URI
            network_namespace.join(int(network_of))
        helper = Helper(uri, [Path(path) for path in libraries], out)
        helper.serve(0)
    except (PmixError, OSError) as error:
        sys.stderr.write(f"launcher.pmix.helper: {error}\n")
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
