"""What a confined process can and cannot do, tried by real processes."""

import json
import os
import re
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import user_programs
from confined import skip_without_confinement
from interpreter import python

from simenv.sandbox import confinement, restricted_calls, system_calls

PRELUDE = """
import ctypes, errno, json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
from simenv.sandbox.confinement import FileRules, filter_calls, restrict_files

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
    done = python("-c", code, *arguments, cwd=root, check=False)
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
            filter_calls()
            go.set(); thread.join()
            (answers,) = results
        """,
        "child": """
            filter_calls()
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
        filter_calls()
        one, two = socket.socketpair()
        answers = {"sent": peer.send(b"x"), "pair": one.send(b"x")}
        """,
        port,
    )
    assert answers == {"sent": 1, "pair": 1}


def test_only_ports_of_the_service_are_reached_over_tcp(own: Path, port: int, unix: str) -> None:
    """Workers on other nodes must be able to connect to the service again."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        source = f"""
            other_port = {other.getsockname()[1]}
            restrict_files(RULES, [int(port)])
            filter_calls(allow_tcp=True)
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

        filter_calls()
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


MOVES = """
from simenv.sandbox import confinement
for name in ("one", "two"):
    os.mkdir(f"{own}/{name}")
for name in ("renamed", "linked", "alone"):
    Path(own, "one", name).touch()

def tried():
    return {
        "rename": attempt(lambda: os.rename(f"{own}/one/renamed", f"{own}/two/renamed")),
        "link": attempt(lambda: os.link(f"{own}/one/linked", f"{own}/two/linked")),
        "in one folder": attempt(lambda: os.rename(f"{own}/one/alone", f"{own}/one/alone-2")),
        "fifo": attempt(lambda: os.mkfifo(f"{own}/two/fifo")),
        "environ": attempt(lambda: len(open(f"/proc/{victim}/environ", "rb").read())),
    }
"""


@pytest.mark.parametrize("abi", [2, 4, 5, 7])
def test_files_move_between_folders_where_processes_alone_are_restricted(
    own: Path, victim: int, abi: int
) -> None:
    """As on kernels with these versions of Landlock."""
    abi = min(abi, confinement.landlock_abi())
    source = f"""
        confinement.landlock_abi = lambda: {abi}
        confinement.restrict_processes()
        answers = tried()
    """
    answers = run(own, MOVES + textwrap.dedent(source), victim=victim)
    assert answers.pop("environ") in ("EACCES", "EPERM")
    assert set(answers.values()) == {"ok"}, answers


def test_landlock_that_refuses_to_move_files_is_not_applied(own: Path) -> None:
    source = """
        confinement.landlock_abi = lambda: 1
        answers = {"restricted": attempt(confinement.restrict_processes)} | tried()
    """
    answers = run(own, MOVES + textwrap.dedent(source), victim=os.getpid())
    assert answers.pop("restricted") == "ENOTSUP"
    assert answers.pop("environ") != "EACCES"
    assert set(answers.values()) == {"ok"}, answers


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
    source = OTHERS + "filter_calls()\nanswers = {**tried(), **own_work()}"
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

        filter_calls()
        answers = {
            "clone with a user namespace": call(CLONE, 0x10000000 | 17, 0, 0, 0, 0),
            "clone3": call(435, 0, 0),
            "later": call(463, 0), "much later": call(900, 0),
        }
    """
    column = system_calls.MACHINES.index(os.uname().machine)
    number = restricted_calls.RESTRICTED["clone"].numbers[column]
    answers = run(own, source.replace("CLONE", str(number)))
    refused = {"clone3": "ENOSYS", "later": "ENOSYS", "much later": "ENOSYS"}
    assert answers == {"clone with a user namespace": "EACCES", **refused}


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
# All numbers up to Linux 6.10. On arm64 those from 244 on are of other machines, from 403 on of
# machines with 32 bits.
NUMBERS = {
    "x86_64": {*range(335), *range(424, 463)},
    "aarch64": {*range(244), 260, 261, *range(262, 295), *range(424, 463)},
}
NAMED = {"fstatat": "newfstatat", "sync_file_range2": "sync_file_range"}  # of arm64 in the header


def tables(column: int) -> list[dict[str, int]]:
    """Numbers of the calls that this machine has: allowed, restricted, refused and absent ones."""
    allowed, refused = (
        {name: each for group in table.values() for name, each in group.items()}
        for table in (system_calls.ALLOWED, system_calls.REFUSED)
    )
    restricted = {
        name: each.numbers
        for name, each in (restricted_calls.RESTRICTED | restricted_calls.TCP).items()
    }
    return [
        {name: numbers[column] for name, numbers in table.items() if numbers[column] >= 0}
        for table in (allowed, restricted, refused, system_calls.ABSENT)
    ]


@pytest.mark.parametrize(("column", "machine"), list(enumerate(system_calls.MACHINES)))
def test_every_call_of_the_kernel_is_in_one_table(column: int, machine: str) -> None:
    numbers = [number for table in tables(column) for number in table.values()]
    assert len(numbers) == len(set(numbers)), "a call is in two tables"
    assert set(numbers) == NUMBERS[machine]


@pytest.mark.parametrize(("column", "machine"), list(enumerate(system_calls.MACHINES)))
def test_calls_have_the_numbers_of_the_kernels_headers(column: int, machine: str) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    kernel = {NAMED.get(name, name): int(number) for name, number in defined}
    kernel = {name: number for name, number in kernel.items() if number in NUMBERS[machine]}
    known = {name: number for table in tables(column) for name, number in table.items()}
    missing = {name for name in kernel if name not in known}
    assert missing <= {"syscalls", "arch_specific_syscall"}
    assert {name: number for name, number in kernel.items() if name in known} == {
        name: number for name, number in known.items() if name in kernel
    }


def test_filter_answers_each_number_as_its_table_says(own: Path) -> None:
    """Call every number up to 600 but the allowed ones, with arguments that no kernel takes, and of
    the allowed ones some that end nothing and wait for nothing."""
    source = """
        libc = ctypes.CDLL(None, use_errno=True)

        def code(number):
            result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
            return errno.errorcode[ctypes.get_errno()] if result == -1 else "ok"

        filter_calls()
        answers = {number: code(number) for number in CALLED}
    """
    column = system_calls.MACHINES.index(os.uname().machine)
    allowed, restricted, refused, _ = (set(table.values()) for table in tables(column))
    of_kernel = {335, 336}  # uretprobe and uprobe of x86-64, which no filter sees
    called = sorted(set(range(600)) - allowed - restricted - of_kernel)
    answers = run(own, source.replace("CALLED", str(called)))
    expected = {str(n): "EACCES" if n in refused else "ENOSYS" for n in called}
    assert answers == expected
    harmless = ("lseek", "fstat", "readv", "dup", "msync", "munlock", "timer_delete", "getsockname")
    numbers = {name: tables(column)[0][name] for name in harmless}
    answers = run(own, source.replace("CALLED", str(list(numbers.values()))))
    assert not {"EACCES", "ENOSYS"} & set(answers.values()), answers


ARGUMENTS = """
import fcntl, pty, resource, termios, tempfile
libc = ctypes.CDLL(None, use_errno=True)

def result(name, *arguments):
    ctypes.set_errno(0)
    value = getattr(libc, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if value == -1 else "ok"

file = open(Path(own, "file"), "w")
read, write = os.pipe()
"""


def test_arguments_that_reach_others_are_refused_and_others_work(own: Path) -> None:
    source = """
        def refused():
            return {
                "child of the parent": result("syscall", CLONE, 0x8000 | 17, 0, 0, 0, 0),
                "signal to all": attempt(lambda: os.kill(-1, 15)),
                "limit of another": attempt(
                    lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU) and None
                ),
                "priority of another": attempt(lambda: os.setpriority(0, os.getppid(), 19)),
                "owner of signals": attempt(lambda: fcntl.fcntl(write, fcntl.F_SETOWN, 1)),
                "lease": attempt(lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)),
                "notification": attempt(lambda: fcntl.fcntl(os.open(own, 0), fcntl.F_NOTIFY, 1)),
                "input to a terminal": attempt(lambda: fcntl.ioctl(0, 0x5412, b"x")),
                "attributes": attempt(lambda: fcntl.ioctl(file, 0x40086602, b"0" * 8)),
                "no dump": result("prctl", 4, 0, 0, 0, 0),
                "tracer": result("prctl", 0x59616D61, -1, 0, 0, 0),
                "outlive the parent": result("prctl", 1, 0, 0, 0, 0),
                "datagrams": attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)),
                "set-user-id": attempt(lambda: os.open(own + "/s", os.O_CREAT | os.O_RDWR, 0o4755)),
                "set-group-id": attempt(lambda: os.open(own, os.O_TMPFILE | os.O_RDWR, 0o2755)),
                "personality": result("personality", 0x40000),
                "listen": attempt(lambda: pair.listen()),
                "larger pipe": attempt(lambda: fcntl.fcntl(write, 1031, 2**20) and None),
                **{f"buffer {option}": attempt(lambda: pair.setsockopt(1, option, 2**20))
                   for option in (7, 8, 32, 33)},
            }

        def work():
            return {
                "child": attempt(lambda: os.waitpid(os.fork() or os._exit(0), 0) and None),
                "signal": attempt(lambda: os.kill(os.getpid(), 0)),
                "limit": attempt(lambda: resource.prlimit(0, resource.RLIMIT_CPU) and None),
                "nice": attempt(lambda: os.nice(1) and None),
                "flags": attempt(lambda: fcntl.fcntl(write, fcntl.F_SETFL, 0) or None),
                "lock": attempt(lambda: fcntl.flock(file, fcntl.LOCK_EX)),
                "to read": attempt(lambda: fcntl.ioctl(read, termios.FIONREAD, b"0000") and None),
                "name": result("prctl", 15, b"worker", 0, 0, 0),
                "die with the parent": result("prctl", 1, 9, 0, 0, 0),
                "pair": attempt(lambda: socket.socketpair()[0]),
                "patience": attempt(lambda: pair.setsockopt(1, socket.SO_SNDTIMEO, bytes(16))),
            }

        pair = socket.socketpair()[0]
        filter_calls()
        answers = refused() | work()
    """
    clone = str(restricted_calls.RESTRICTED["clone"].numbers[os.uname().machine == "aarch64"])
    answers = run(own, ARGUMENTS + textwrap.dedent(source.replace("CLONE", clone)))
    fine = {name for name, answer in answers.items() if answer == "ok"}
    assert fine == {
        "child", "signal", "limit", "nice", "flags", "lock", "to read", "name",
        "die with the parent", "pair", "patience",
    }  # fmt: skip
    assert {answer for name, answer in answers.items() if name not in fine} == {"EACCES"}, answers


def test_datagram_of_a_pair_reaches_any_socket_without_the_filter(own: Path) -> None:
    """The attack that the refusal of such pairs prevents: a confined process can open no socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as victim:
        victim.bind(str(own.parent / "victim"))
        source = f"""
            def tried():
                one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                one.sendto(b"x", {str(own.parent / "victim")!r})

            restrict_files(RULES)
            FILTER
            answers = {{"sent": attempt(tried)}}
        """
        assert run(own, source.replace("FILTER", "")) == {"sent": "ok"}
        assert run(own, source.replace("FILTER", "filter_calls()")) == {"sent": "EACCES"}


@pytest.mark.parametrize("name", user_programs.NAMES)
def test_what_programs_of_users_do_works(own: Path, name: str) -> None:
    source = f"""
        sys.path.insert(0, {str(Path(user_programs.__file__).parent)!r})
        os.chdir(own)
        os.environ["TMPDIR"] = os.environ["HOME"] = own
        import user_programs
        restrict_files(RULES)
        filter_calls()
        user_programs.{name}()
        answers = {{"done": True}}
    """
    assert run(own, source) == {"done": True}
