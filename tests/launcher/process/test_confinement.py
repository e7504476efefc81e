"""What a confined process can and cannot do, tried by real processes."""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from confined import skip_without_confinement

from launcher.process import confinement

PRELUDE = """
import ctypes, errno, json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
from launcher.process.confinement import (
    FileRules, forbid_core_dumps, forbid_sockets, restrict_files)

def attempt(call):
    try:
        value = call()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok" if value is None or hasattr(value, "fileno") else value

own, other, port, unix, victim = sys.argv[1:]
prefixes = (Path(sys.prefix), Path(sys.base_prefix), Path(os.getcwd()))
RULES = FileRules(prefixes, (), (Path(own),)).with_system
"""


@pytest.fixture(scope="module", autouse=True)
def confined() -> None:
    skip_without_confinement()


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of the same user outside."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_text("secret")
    return tmp_path / "own"


def run(
    own: Path, source: str, port: int = 1, unix: str = "", victim: int = 1
) -> dict[str, object]:
    """What a process printed; `source` ends with `answers = {...}`."""
    code = PRELUDE + textwrap.dedent(source) + "\nprint(json.dumps(answers))"
    arguments = [str(own), str(own.parent / "other"), str(port), unix, str(victim)]
    root = Path(__file__).parents[3]
    argv = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, object] = json.loads(done.stdout)
    return answers


FILES = """
def tried():
    return {
        "write own": attempt(lambda: Path(own, "new").write_text("x")),
        "rename own": attempt(lambda: Path(own, "new").rename(Path(own, "renamed")) and None),
        "read other": attempt(lambda: Path(other, "secret").read_text()),
        "list other": attempt(lambda: os.listdir(other)),
        "write other": attempt(lambda: Path(other, "new").write_text("x")),
        "append other": attempt(lambda: open(Path(other, "secret"), "a").close()),
        "truncate other": attempt(lambda: os.truncate(Path(other, "secret"), 0)),
        "remove other": attempt(lambda: os.unlink(Path(other, "secret"))),
        "link other": attempt(lambda: os.link(Path(other, "secret"), Path(own, "linked"))),
        "symlink": attempt(lambda: os.symlink(other, own + "/to") or os.listdir(own + "/to")),
        "shared memory": attempt(lambda: open("/dev/shm/simenv-test-left", "w").close()),
        "system": attempt(lambda: bool(os.listdir("/usr/bin"))),
        "null": attempt(lambda: open("/dev/null", "w").close()),
    }
"""
ALLOWED = {"write own": 1, "rename own": "ok", "system": True, "null": "ok"}


@pytest.mark.parametrize("where", ["thread", "child"])
def test_files_of_others_are_out_of_reach_of_threads_and_children(own: Path, where: str) -> None:
    calls = {
        "thread": """
            results = []
            restrict_files(RULES)
            thread = threading.Thread(target=lambda: results.append(tried()))
            thread.start(); thread.join()
            (answers,) = results
        """,
        "child": """
            restrict_files(RULES)
            read, write = os.pipe()
            if os.fork() == 0:
                os.write(write, json.dumps(tried()).encode())
                os._exit(0)
            os.wait()
            answers = json.loads(os.read(read, 2**16))
        """,
    }
    answers = run(own, FILES + textwrap.dedent(calls[where]))
    allowed = {name: answers[name] for name in ALLOWED}
    assert allowed == ALLOWED
    rest = {name: answer for name, answer in answers.items() if name not in ALLOWED}
    assert set(rest.values()) <= {"EACCES", "EXDEV"}, rest
    assert (own.parent / "other" / "secret").read_text() == "secret"


def test_the_same_attempts_succeed_without_confinement(own: Path) -> None:
    """The attempts themselves work, so that their failure says something."""
    answers = run(own, FILES + "answers = tried()")
    os.unlink("/dev/shm/simenv-test-left")
    assert answers["read other"] == "secret"
    assert answers["list other"] == ["secret"]
    assert not {"EACCES", "EXDEV"} & {str(answer) for answer in answers.values()}


NETWORK = """
def reach(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as peer:
        peer.connect(address)

def listen(family, address):
    with socket.socket(family) as peer:
        peer.bind(address)

def tried():
    return {
        "tcp": attempt(lambda: reach(socket.AF_INET, ("127.0.0.1", int(port)))),
        "bind": attempt(lambda: listen(socket.AF_INET, ("127.0.0.1", 0))),
        "udp": attempt(lambda: reach(socket.AF_INET, ("127.0.0.1", 9), socket.SOCK_DGRAM)),
        "unix": attempt(lambda: reach(socket.AF_UNIX, unix)),
        "abstract": attempt(lambda: reach(socket.AF_UNIX, "\\0simenv-" + port)),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
    }
"""


@pytest.fixture
def unix(tmp_path: Path, port: int) -> Iterator[str]:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(path)
        abstract.bind(f"\0simenv-{port}")
        named.listen()
        abstract.listen()
        yield path


def test_network_can_be_reached_without_confinement(own: Path, port: int, unix: str) -> None:
    answers = run(own, NETWORK + "answers = tried()", port, unix)
    assert set(answers.values()) == {"ok"}, answers


@pytest.mark.parametrize("when", ["earlier thread", "child"])
def test_no_socket_can_be_made(own: Path, port: int, unix: str, when: str) -> None:
    """Also by a thread that was there before."""
    calls = {
        "earlier thread": """
            go, results = threading.Event(), []
            thread = threading.Thread(target=lambda: go.wait() and results.append(tried()))
            thread.start()
            forbid_sockets()
            go.set(); thread.join()
            (answers,) = results
        """,
        "child": """
            forbid_sockets()
            source = "import socket; socket.socket(socket.AF_UNIX)"
            done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
            answers = {"child": "EACCES" if "Permission" in done.stderr else done.stderr}
            answers |= tried()
        """,
    }
    answers = run(own, NETWORK + textwrap.dedent(calls[when]), port, unix)
    assert set(answers.values()) == {"EACCES"}, answers


def test_open_sockets_and_pairs_go_on(own: Path, port: int) -> None:
    answers = run(
        own,
        """
        peer = socket.create_connection(("127.0.0.1", int(port)))
        restrict_files(RULES)
        forbid_sockets()
        one, two = socket.socketpair()
        answers = {"sent": peer.send(b"x"), "pair": one.send(b"x")}
        """,
        port,
    )
    assert answers == {"sent": 1, "pair": 1}


def test_only_the_ports_of_the_service_are_reached_over_tcp(
    own: Path, port: int, unix: str
) -> None:
    """Workers on other nodes must be able to connect to the service again."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        source = f"""
            other_port = {other.getsockname()[1]}
            restrict_files(RULES, [int(port)])
            forbid_sockets(allow_tcp=True)
            answers = tried()
            answers["other"] = attempt(lambda: reach(socket.AF_INET, ("127.0.0.1", other_port)))
        """
        answers = run(own, NETWORK + textwrap.dedent(source), port, unix)
    assert answers.pop("tcp") == "ok"
    assert set(answers.values()) == {"EACCES"}, answers


def test_objects_that_outlive_a_process_cannot_be_made(own: Path) -> None:
    source = """
        libc = ctypes.CDLL(None, use_errno=True)

        def call(name, *arguments):
            ctypes.set_errno(0)
            result = getattr(libc, name)(*arguments)
            return errno.errorcode[ctypes.get_errno()] if result == -1 else "ok"

        def tried():
            return {
                "shmget": call("shmget", 0, 4096, 0o1600),
                "semget": call("semget", 0, 1, 0o1600),
                "msgget": call("msgget", 0, 0o1600),
                "mq_open": call("mq_open", b"/simenv-test", os.O_CREAT | os.O_RDWR, 0o600, None),
                "keyctl": call("syscall", ctypes.c_long(248), b"user", b"simenv-test", b"x", 1, -2),
            }

        forbid_sockets()
        answers = tried()
    """
    assert set(run(own, source).values()) == {"EACCES"}


def test_processes_outside_are_not_traced_or_signalled(own: Path, victim: int) -> None:
    source = """
        restrict_files(RULES)
        answers = {
            "environ": attempt(lambda: len(open(f"/proc/{victim}/environ", "rb").read())),
            "memory": attempt(lambda: open(f"/proc/{victim}/mem", "rb").close()),
            "folder": attempt(lambda: os.listdir(f"/proc/{victim}/cwd/")),
            "signal": attempt(lambda: os.kill(int(victim), signal.SIGTERM)),
            "own signal": attempt(lambda: os.kill(os.getpid(), 0)),
            "fork": attempt(lambda: subprocess.run(["true"]).returncode),
        }
    """
    answers = run(own, source, victim=victim)
    assert (answers.pop("own signal"), answers.pop("fork")) == ("ok", 0)
    if confinement.landlock_abi() < confinement.SCOPED_ABI:
        answers.pop("signal")
    assert set(answers.values()) <= {"EACCES", "EPERM"}, answers


def test_core_dumps_are_off(own: Path) -> None:
    source = """
        import resource
        forbid_core_dumps()
        answers = {"limit": resource.getrlimit(resource.RLIMIT_CORE)}
    """
    assert run(own, source) == {"limit": [1, 1]}


def test_kernel_without_landlock_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 0)
    assert confinement.unavailable_reason().startswith("this kernel has no Landlock")
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 3)
    assert "(version 3) knows no TCP: Linux 6.7 does" in confinement.unavailable_reason()
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 4)
    monkeypatch.setattr(confinement.platform, "machine", lambda: "riscv64")
    assert "no filter of system calls for riscv64" in confinement.unavailable_reason()


OTHERS = """
import resource, threading
cpu = resource.getrlimit(resource.RLIMIT_CPU)
outside = Path(other)

def tried():
    return {
        "chmod": attempt(lambda: os.chmod(outside, 0o755)),
        "fchmod": attempt(lambda: os.fchmod(os.open(own, os.O_RDONLY), 0o755)),
        "chown": attempt(lambda: os.chown(outside, os.getuid(), os.getgid())),
        "utime": attempt(lambda: os.utime(outside, (1, 1))),
        "xattr": attempt(lambda: os.setxattr(outside, "user.simenv", b"x")),
        "mkfifo": attempt(lambda: os.mknod(own + "/fifo", 0o600 | 0o010000)),
        "prlimit": attempt(
            lambda: resource.prlimit(int(victim), resource.RLIMIT_CPU, cpu) and None
        ),
        "setpriority": attempt(lambda: os.setpriority(os.PRIO_PROCESS, int(victim), 19)),
        "affinity": attempt(lambda: os.sched_setaffinity(int(victim), os.sched_getaffinity(0))),
        "scheduler": attempt(
            lambda: os.sched_setscheduler(int(victim), os.SCHED_IDLE, os.sched_param(0))
        ),
        "pidfd": attempt(lambda: os.close(os.pidfd_open(int(victim)))),
    }

def own_work():
    thread = threading.Thread(target=lambda: None)
    thread.start(); thread.join()
    return {
        "own limit": attempt(lambda: resource.setrlimit(resource.RLIMIT_CPU, cpu)),
        "own affinity": attempt(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
        "child": attempt(lambda: subprocess.run(["true"]).returncode),
    }
"""


def test_calls_that_reach_files_and_processes_of_the_same_user_are_refused(
    own: Path, victim: int
) -> None:
    source = OTHERS + "forbid_sockets()\nanswers = {**tried(), **own_work()}"
    answers = run(own, source, victim=victim)
    works = {name: answers.pop(name) for name in ("own limit", "own affinity", "child")}
    assert works == {"own limit": "ok", "own affinity": "ok", "child": 0}
    assert set(answers.values()) == {"EACCES"}, answers
    free = run(own, OTHERS + "answers = tried()", victim=victim)
    assert set(free.values()) <= {"ok", "EOPNOTSUPP"}, "without the filter they all work"


def test_namespaces_and_later_calls_of_the_kernel_are_refused(own: Path) -> None:
    source = """
        libc = ctypes.CDLL(None, use_errno=True)

        def call(number, *arguments):
            ctypes.set_errno(0)
            result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
            return errno.errorcode[ctypes.get_errno()] if result == -1 else "ok"

        forbid_sockets()
        answers = {
            "clone with a user namespace": call(CLONE, 0x10000000 | 17, 0, 0, 0, 0),
            "clone3": call(435, 0, 0),
            "later": call(463, 0), "much later": call(900, 0),
        }
    """
    number = confinement._MACHINES[os.uname().machine][4]
    answers = run(own, source.replace("CLONE", str(number)))
    refused = {"clone3": "ENOSYS", "later": "ENOSYS", "much later": "ENOSYS"}
    assert answers == {"clone with a user namespace": "EACCES", **refused}


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_table_of_refused_calls_has_the_numbers_of_the_kernel(machine: str, column: int) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in defined}
    tables = confinement.REFUSED.values()
    refused = {name: each[column] for table in tables for name, each in table.items()}
    known = {name: number for name, number in refused.items() if name in numbers}
    assert known == {name: numbers[name] for name in known}
    later = {name for name in refused if name not in known and refused[name] >= 0}
    assert later <= {"fchmodat2", "process_mrelease", "mount_setattr"}, "not of an older kernel"
    assert all(number < confinement._UNKNOWN for number in refused.values())


def test_each_refused_call_of_the_table_is_refused(own: Path) -> None:
    """All rows of this machine's column, and calls that the table does not know yet."""
    source = """
        import platform
        from launcher.process.confinement import REFUSED
        column = ["x86_64", "aarch64"].index(platform.machine())
        libc = ctypes.CDLL(None, use_errno=True)

        def code(number):
            result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
            return errno.errorcode[ctypes.get_errno()] if result == -1 else "ok"

        forbid_sockets()
        rows = [row for group in REFUSED.values() for row in group.items()]
        answers = {name: code(each[column]) for name, each in rows if each[column] >= 0}
        answers |= {number: code(number) for number in (435, *range(463, 520))}
    """
    answers = run(own, source)
    late = {answers.pop(str(number)) for number in (435, *range(463, 520))}
    assert (set(answers.values()), late) == ({"EACCES"}, {"ENOSYS"}), answers
