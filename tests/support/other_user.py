"""Attempts of a second local user, made by a process with another uid.

    python other_user.py connect PATH_OR_PORT...    which sockets and ports accept a connection
    python other_user.py files FOLDER...            what can be read or written below the folders
    python other_user.py pmix URI MARK OWNER [PID]  run `/bin/sh` through a PMIx server
    python other_user.py answer FOLDER MARK         answer in a service's place, until stdin ends

It is started by root, loads what it needs, and gives all its rights away before it tries anything.
It prints a list of what succeeded, as JSON. `pmix` claims to be the user OWNER, as an attacker can:
in a user namespace of its own every user has the number that it likes. With PID it stays root and
joins the network namespace of that process first: a control that shows that the attempt works where
there is nothing to stop it. `answer` takes the folder of a service's sockets as soon as that
is possible, listens there with no keys, with keys of its own and at the streams, and answers what
clients ask: to calls of functions with an object that makes MARK when it is unpickled, to circuits
with an outcome that is impossible. It prints `ready` when it waits, and at its end what it was
told.
"""

import ctypes
import json
import os
import pickle
import select
import socket
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from simenv.errors import SimenvError
from simenv.model import RESULT_FORMAT, Origin
from simenv.model.calls import CALL_FORMAT, FunctionAnswer
from simenv.model.task import ResultData, Timing
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.transport.zmq_transport import CLIENT_SOCKET, CLIENT_STREAM, WORKER_STREAM

UID = 12_345
HOST = os.uname().nodename
PATIENCE_S = 60.0
ANSWER_S = 5.0
READY = "ready\n"
_CLONE_NEWUSER = 0x1000_0000  # linux/sched.h


def skip_without_second_user() -> None:
    """A second user can be had by root only. CI must not skip this."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("a second local user is needed, and only root can become one")
        pytest.skip("only root can become a second local user")


def skip_without_mount_namespace() -> None:
    """A host with accounts of its own has a mount namespace. CI must not skip this."""
    skip_without_second_user()
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("mount namespaces are needed, and forbidden here")
        pytest.skip("mount namespaces are forbidden here")


def attempt(*words: str | Path | int) -> list[str]:
    """What succeeded of an attempt, made in a process of its own."""
    argv = [sys.executable, "-P", __file__, *map(str, words)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=PATIENCE_S, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    lines: list[str] = json.loads(done.stdout.splitlines()[-1])
    return lines


@contextmanager
def impostor(folder: Path, mark: Path) -> Iterator[Callable[[], list[str]]]:
    """Another user who waits for the name of a service's folder; returns what it was told."""
    argv = [sys.executable, "-P", __file__, "answer", str(folder), str(mark)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd="/") as process:

        def ended() -> list[str]:
            lines: list[str] = json.loads(process.communicate("\n", PATIENCE_S)[0])
            assert process.returncode == 0
            return lines

        try:
            assert process.stdout is not None
            assert process.stdout.readline() == READY  # else the folder may be gone and made again
            yield ended
        finally:
            process.kill()


def become_other_user() -> None:
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is ours again


def claim(owner: int) -> None:
    """From now on geteuid() tells the number of another user."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{owner} {UID} 1")
    Path("/proc/self/gid_map").write_text(f"{owner} {UID} 1")
    assert os.geteuid() == owner


def connected(targets: list[str]) -> list[str]:
    become_other_user()
    entries = []
    for target in targets:
        local = target.startswith("/")
        with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as probe:
            probe.settimeout(ANSWER_S)
            with suppress(OSError):
                probe.connect(target if local else ("127.0.0.1", int(target)))
                entries.append(target)
    return entries


def opened(folders: list[Path]) -> list[str]:
    """Files of the folders that open for reading, and places that take a new file or a link."""
    below = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    kinds = {}
    for path in below:  # listed with all rights
        with suppress(FileNotFoundError):  # of others, who come and go
            kinds[path] = path.lstat().st_mode
    become_other_user()
    entries = []
    for path, mode in kinds.items():
        with suppress(OSError):
            if stat.S_ISDIR(mode):
                (path / "planted").symlink_to("/dev/null")
                (path / "planted").unlink()
                entries.append(f"planted in {path}")
            elif stat.S_ISREG(mode):
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                entries.append(f"read {path}")
        with suppress(OSError):
            if stat.S_ISREG(mode):
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
                entries.append(f"written {path}")
    return entries


def run_through_pmix(uri: str, mark: Path, owner: int, pid: int) -> list[str]:
    """`mark` if the server ran a shell for us, which makes it."""
    from launcher.pmix.tool import PmixError, Tool
    from launcher.process import network_namespace
    from launcher.prte import installation

    prte = installation.find(os.environ)
    assert isinstance(prte, installation.Prte), prte
    for library in prte.preload:  # before the rights to find them are gone
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(prte.library))
    if pid:
        network_namespace.join(pid)
    else:
        become_other_user()
        claim(owner)
    # The library prints what it thinks, and it waits for servers that give no answer.
    threading.Timer(PATIENCE_S / 2, os._exit, (2,)).start()
    out = os.dup(1)
    os.dup2(2, 1)
    lines: list[str] = []
    try:
        tool = Tool(
            uri, prte.library, prte.preload, on_spawned=lambda *_: None, on_ended=lambda *_: None,
            on_listed=lambda _: None,
        )  # fmt: skip
        tool.spawn(1, ["/bin/sh", "-c", f"id >{mark}; sleep 0.5"], ["PATH=/bin"], "/", [HOST])
        deadline = time.monotonic() + ANSWER_S
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        lines += [str(mark)] if mark.exists() else []
    except PmixError as error:
        sys.stderr.write(f"{error}\n")
    os.write(out, json.dumps(lines).encode() + b"\n")
    os._exit(0)


class Planted:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


class Impostor:
    """Answers of somebody who is not the service."""

    EPOCH = 999_999_999  # later than any of the service: the client repeats all its requests

    def __init__(self, mark: Path) -> None:
        answer = FunctionAnswer(CALL_FORMAT, pickle.dumps(Planted(f"id >{mark}")))
        self._value = codec.encode(
            ResultData(RESULT_FORMAT, (), 0, 0, 0, value=codec.encode(answer))
        )
        self._false = codec.encode(
            ResultData(RESULT_FORMAT, (("c", 2),), 2, 1, 0, 1, b"\1", (1).to_bytes(4, "little"))
        )
        self.told: list[str] = []

    def answers(self, body: bytes) -> list[bytes]:
        message = codec.from_client(body)
        told, number = type(message).__name__, getattr(message, "request", 0)
        replies: list[m.ToClient] = []
        if isinstance(message, m.Hello):
            replies = [m.Welcome(self.EPOCH, message.version, "default")]
        elif isinstance(message, m.Ping):
            replies = [m.Pong(number, self.EPOCH)]
        elif isinstance(message, m.Submit):
            told += f" of {message.tasks[0].shots} shots"
            replies = [m.Accepted(number, self.EPOCH, 1), self._completed(self.EPOCH, self._false)]
        elif isinstance(message, m.WatchResults):
            replies = [self._completed(task, self._value) for task in message.tasks]
        self.told.append(told)
        return [codec.encode(reply) for reply in replies]

    def _completed(self, task: int, payload: bytes) -> m.Completed:
        done = m.Completion(
            task, m.STATES.index("DONE"), 1, 1, payload, zlib.crc32(payload), Timing(0, 0, 0)
        )
        return m.Completed(Origin("main-0", HOST, 1, "0"), "statevector", "", [done])


class StreamImpostor:
    """The impostor at the streams, whose messages have their length before them."""

    def __init__(self, impostor: Impostor) -> None:
        self._impostor = impostor
        self._listening: list[socket.socket] = []
        self._read: dict[socket.socket, bytes] = {}  # of each connection

    def bind(self, path: Path) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        path.chmod(0o777)
        listening.listen()
        self._listening.append(listening)

    def serve(self) -> None:
        """Accept, and answer all that has arrived."""
        for ready in select.select([*self._listening, *self._read], [], [], 0.0)[0]:
            if ready in self._listening:
                self._read[ready.accept()[0]] = b""
                self._impostor.told.append("connected to a stream")
                continue
            data = b""
            with suppress(ConnectionResetError):
                data = ready.recv(2**20)
            if not data:
                del self._read[ready]
                ready.close()
                continue
            self._read[ready] += data
            self._answer(ready)

    def _answer(self, connected: socket.socket) -> None:
        data = self._read[connected]
        while len(data) >= 4 + (size := int.from_bytes(data[:4], "little")):
            body, data = data[4 : 4 + size], data[4 + size :]
            replies: list[bytes] = []
            try:
                replies = self._impostor.answers(body)
            except SimenvError:  # the first message: the name of the peer
                self._impostor.told.append(f"named {body!r}")
            with suppress(OSError):
                for reply in replies:
                    connected.sendall(len(reply).to_bytes(4, "little") + reply)
        self._read[connected] = data


def answer(folder: Path, mark: Path) -> list[str]:
    become_other_user()
    impostor = Impostor(mark)
    streams = StreamImpostor(impostor)
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.set(zmq.LINGER, 0)
    router.set(zmq.CURVE_SERVER, 1)
    router.set(zmq.CURVE_SECRETKEY, zmq.curve_keypair()[1])
    path = folder / CLIENT_SOCKET
    sys.stdout.write(READY)
    sys.stdout.flush()
    listening = False
    while not select.select([sys.stdin], [], [], 0.0)[0]:
        if not listening:
            with suppress(OSError):
                for level in reversed((folder, *folder.parents)):
                    if not os.path.lexists(level):
                        level.mkdir()
                        level.chmod(0o755)
                if folder.stat().st_uid == UID:
                    router.bind(f"ipc://{path}")
                    path.chmod(0o777)
                    for name in (CLIENT_STREAM, WORKER_STREAM):
                        streams.bind(folder / name)
                    listening = True
            time.sleep(0.005)
            continue
        streams.serve()
        if router.poll(10):
            peer, body = router.recv_multipart()
            for reply in impostor.answers(body):
                router.send_multipart([peer, reply])
    context.destroy(linger=0)
    return [f"{'listened' if listening else 'kept out of'} {folder}", *impostor.told]


if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    if kind == "connect":
        sys.stdout.write(json.dumps(connected(words)))
    elif kind == "answer":
        sys.stdout.write(json.dumps(answer(Path(words[0]), Path(words[1]))))
    elif kind == "files":
        sys.stdout.write(json.dumps(opened([Path(word) for word in words])))
    else:
        address, made, user, *process = words
        run_through_pmix(address, Path(made), int(user), int(process[0]) if process else 0)
