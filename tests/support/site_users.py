"""Local users of a test site, who have accounts on no other: their processes, and their accounts.

    python site_users.py UID SERVICE [LINE ...]      do what each line of stdin says, as that user

The accounts are in files that a mount namespace of the service alone has in the places of
/etc/passwd and /etc/group (`accounts`): nothing of the machine is changed, and nothing is left.
A process is started by root, loads what it needs, and gives all its rights away before it connects.
A line is [action, arguments...] in JSON; so is its answer, ["error", code] where it failed.
"""

import ctypes
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

FIRST_UID = 61_000
GROUP = "simlab"
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"
# Runs the service's Python where the accounts are those of the site.
WRAPPER = """#!/bin/sh
exec unshare --mount --propagation private sh -c '
mount --bind "{folder}/passwd" /etc/passwd && mount --bind "{folder}/group" /etc/group &&
exec "{python}" "$@"' sh "$@"
"""


class Accounts:
    """Accounts user0..userN of the group GROUP, for services that SIMENV_PYTHON starts. `names`:
    their names instead; `group`: another group."""

    def __init__(
        self, folder: Path, count: int, names: Sequence[str] = (), group: str = GROUP
    ) -> None:
        self.folder, self.group = folder, group
        names = names or [f"user{number}" for number in range(count)]
        self.uids = {name: FIRST_UID + number for number, name in enumerate(names)}
        lines = [f"{name}:x:{uid}:{uid}::/nonexistent:/bin/sh" for name, uid in self.uids.items()]
        own = Path("/etc/passwd").read_text()
        (folder / "passwd").write_text(own + "".join(f"{line}\n" for line in lines))
        self.set_members(self.uids)
        self.python = folder / "python"
        self.python.write_text(WRAPPER.format(folder=folder, python=sys.executable))
        self.python.chmod(0o755)

    def set_members(self, names: Iterable[str]) -> None:
        """Change the members of the group; in place, because the file is mounted."""
        own = Path("/etc/group").read_text()
        with (self.folder / "group").open("a") as file:
            os.truncate(file.fileno(), 0)
            file.write(f"{own}{self.group}:x:{FIRST_UID}:{','.join(names)}\n")

    def remove(self, name: str) -> None:
        """Remove an account."""
        path = self.folder / "passwd"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}:")]
        with path.open("a") as file:
            os.truncate(file.fileno(), 0)
            file.write("".join(f"{line}\n" for line in lines))


class User:
    """The process of one user."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, action: str, *arguments: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([action, *arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the user's process has ended"
        return json.loads(line)

    def do(self, action: str, *arguments: object) -> Any:
        self.begin(action, *arguments)
        return self.answer()


@contextmanager
def users(uids: Iterable[int], service: str, lines: Sequence[str] = ()) -> Iterator[list[User]]:
    """Processes of users, who connect when told. `lines`: what they type, and the owner before."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(uid), service, *lines],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOME": "/nonexistent"},
        )
        for uid in uids
    ]
    try:
        yield [User(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is ours again


class Actions:
    """What a user's process can do; each method is an action."""

    def __init__(self, service: str) -> None:
        import simenv

        self._connect: Callable[[], Any] = lambda: simenv.connect(service=service)
        self._client: Any = None

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def connect(self) -> str:
        return str(self.client.name)

    def again(self) -> str:
        """Connect anew."""
        with self._connect() as client:
            return str(client.name)

    def run(self, seed: int) -> int:
        return sum(self.client.run(BELL, shots=100, seed=seed).counts.values())

    def submit(self, text: str) -> str:
        return str(self.client.submit(text, shots=10).id)

    def owners(self) -> list[str]:
        tasks = self.client.queue()[1] + self.client.queue(done=True)[1]
        return sorted({task.owner for task in tasks})

    def result(self, task: str) -> int:
        return sum(self.client.task(task).result(60.0).counts.values())

    def cancel(self, task: str) -> list[str]:
        return list(self.client.cancel([task]))

    def keys(self) -> int:
        return len(self.client.keys.listed())

    def public_key(self) -> str:
        return str(self.client._address._public_key)

    def claim(self, public_key: str) -> str:
        """Ask for a certificate for the key of another."""
        return str(self.client._address._request(public_key).user)

    def type(self, line: str) -> int:
        """Return the exit status of a line of the shell, a command of simenv or an export."""
        from simenv.cli.app import run

        first, *words = shlex.split(line)
        if first == "export":
            os.environ.update(word.split("=", 1) for word in words)
            return 0
        with redirect_stdout(io.StringIO()):  # what is printed here is an answer
            return run(words)

    def ping(self) -> str:
        return str(self.client.status().name)


def serve(uid: int, service: str, lines: Sequence[str]) -> None:
    from simenv.errors import SimenvError

    preload = Actions(service)  # as the owner: all modules are loaded while they can be read
    preload.run(1)
    preload.owners()
    preload.client.close()
    for line in lines:
        assert preload.type(line) == 0, line
    become(uid)
    actions = Actions(service)
    for line in sys.stdin:
        action, *arguments = json.loads(line)
        try:
            answer = getattr(actions, action)(*arguments)
        except SimenvError as error:
            answer = ["error", error.code]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
