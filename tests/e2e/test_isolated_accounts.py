"""Isolation of accounts in a real environment: what one leaves for the next, and what code of users
can reach. Without configured accounts each owner of a key is an account."""

import os
import socket
import struct
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import user_programs
from circuits import bell
from confined import skip_without_confinement
from failing import fails
from live import Live, environment, with_keys
from user_programs import by_value

import simenv
from simenv.client.client import Client
from simenv.client.connection import address
from simenv.errors import NotAllowedError, TaskFailedError
from simenv.model import TaskState
from simenv.sandbox import confinement, private_namespaces

PATIENCE_S = 120.0
BELL = "OPENQASM 2.0; qreg q[2]; creg c[2]; U(1.5707963267948966,0,3.14159) q[0]; CX q[0],q[1];"
BELL += "measure q -> c;"
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "tools", "engine": "functions", "min": 1, "max": 1},
]
OPTIONS = {"pools": POOLS, "listen": "tcp://127.0.0.1:0", "isolation": "account"}


@pytest.fixture(scope="module", autouse=True)
def confined() -> None:
    skip_without_confinement()


@pytest.fixture(scope="module")
def keys(env: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Clients of two accounts."""
    with with_keys(env, tmp_path_factory.mktemp("keys"), "ana", "ben") as clients:
        yield clients


@by_value
def plant(first: str, second: str, kernels: str) -> dict[str, str]:
    """Leave a secret wherever a function can; returns what was refused, by place."""
    import builtins
    import ctypes
    import os
    import subprocess
    import sys
    import tempfile
    import threading
    from functools import partial

    secret, refused = first + second, {}

    def attempt(place: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, it was refused
            refused[place] = type(error).__name__

    def write(path: str) -> None:
        with open(path, "w") as file:
            file.write(secret)

    def segment() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmget(0x51AE, 4096, 0o1600) == -1:
            raise PermissionError(ctypes.get_errno())

    for place in (os.getcwd(), tempfile.gettempdir(), os.environ["HOME"]):
        attempt(f"file in {place}", partial(write, f"{place}/{secret}"))
    for place in ("/tmp", "/var/tmp", "/dev/shm", kernels, os.path.dirname(kernels)):
        attempt(f"shared {place}", partial(write, f"{place}/{secret}"))
    os.environ["PLANTED"] = secret
    builtins.planted = secret  # type: ignore[attr-defined]
    sys.modules["planted"] = sys
    os.mkdir(f"{tempfile.gettempdir()}/{secret}.folder")
    os.chdir(f"{tempfile.gettempdir()}/{secret}.folder")
    sys.stdout.write(f"log {secret}\n")
    descriptor = os.open(f"{tempfile.gettempdir()}/{secret}.open", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, secret.encode())
    threading.Thread(target=threading.Event().wait, name=secret[:15], daemon=True).start()
    attempt("segment", segment)
    argv = [sys.executable, "-c", "import time; time.sleep(600)", secret]
    attempt("process", lambda: subprocess.Popen(argv, start_new_session=True, env={}))
    import simenv.worker.runner

    simenv.worker.runner.planted = secret  # type: ignore[attr-defined]
    return refused


@by_value
def remember(first: str, second: str) -> None:
    """Leave a secret in the process alone, with nothing that ends it."""
    import builtins

    builtins.planted = first + second  # type: ignore[attr-defined]


@by_value
def search(first: str, second: str, kernels: str) -> tuple[int, list[str]]:
    """The pid, and the places where the secret can be found. The secret is given in two parts, so
    that the search itself does not put it into memory."""
    import builtins
    import os
    import sys
    import tempfile
    import threading

    places = []

    def holds(text: Any) -> bool:
        value = text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")
        at = value.find(first.encode())
        while at >= 0:
            if value[at + len(first) : at + len(first) + len(second)] == second.encode():
                return True
            at = value.find(first.encode(), at + 1)
        return False

    if any(holds(value) for value in os.environ.values()):
        places.append("environment")
    if hasattr(builtins, "planted") or "planted" in sys.modules:
        places.append("modules")
    if holds(os.getcwd()):
        places.append("working directory")
    if any(first[:15] in thread.name for thread in threading.enumerate()):
        places.append("threads")
    for folder in {tempfile.gettempdir(), os.environ["HOME"], "/tmp", "/dev/shm", kernels}:
        try:
            for _, folders, files in os.walk(folder):
                for name in (*folders, *files):
                    if holds(name):
                        places.append(f"files in {folder}")
        except OSError:
            continue
    for name in os.listdir("/proc/self/fd"):
        try:
            if holds(os.readlink(f"/proc/self/fd/{name}")):
                places.append("descriptors")
        except OSError:
            continue
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline") as file:
                    if holds(file.read()):
                        places.append("processes")
            except OSError:
                continue
    with open("/proc/sysvipc/shm") as file:
        if str(0x51AE) in file.read().split():
            places.append("segments")
    with open("/proc/self/maps") as file:
        regions = [line.split() for line in file]
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for region in regions:
            begin, end = (int(part, 16) for part in region[0].split("-"))
            if not region[1].startswith("rw") or end - begin > 2**30:
                continue
            try:
                memory.seek(begin)
                if holds(memory.read(end - begin)):
                    places.append("memory")
            except (OSError, ValueError, OverflowError):
                continue
    return int(os.environ.get("PID_OUTSIDE", os.getpid())), sorted(set(places))


def test_a_worker_leaves_nothing_for_the_next_account(
    up: Live, env: Client, keys: dict[str, Client]
) -> None:
    parts, kernels = (uuid.uuid4().hex, uuid.uuid4().hex), os.environ["SIMENV_KERNELS"]
    refused = keys["ana"].call(plant, *parts, kernels).result(PATIENCE_S)
    assert {place for place in refused if place.startswith("file")} == set()
    shared = {"/tmp", "/var/tmp", "/dev/shm", kernels, os.path.dirname(kernels)}
    assert {place.removeprefix("shared ") for place in refused} >= shared, refused
    assert "segment" in refused
    pid, places = keys["ana"].call(search, *parts, kernels).result(PATIENCE_S)
    # What it left in its process went with that, since it left threads and processes there too.
    assert {place.split(" in ")[0] for place in places} == {"files"}, "its own, for its account"
    keys["ana"].call(remember, *parts).result(PATIENCE_S)
    pid, places = keys["ana"].call(search, *parts, kernels).result(PATIENCE_S)
    assert {"memory", "modules"} <= set(places), "the search finds what is there"
    other_pid, left = keys["ben"].call(search, *parts, kernels).result(PATIENCE_S)
    assert left == []
    assert other_pid != pid
    events = [event.message for event in env.events(kinds=["worker.retired"])]
    assert "serves another account now" in events
    folders = list((up.home / "results" / "workers").glob("tools-*"))
    assert len(folders) <= 1, "the folder of the first worker is gone"
    assert not [path for path in up.home.rglob("*") if parts[0] in path.name]


def angles_circuit(qubits: int, angle: float) -> str:
    """Rotations by one angle, entangled."""
    gates = [f"U({angle!r},{angle!r},0) q[{k}];" for k in range(qubits)] * 3
    gates += [f"CX q[{k}],q[{k + 1}];" for k in range(qubits - 1)]
    return f"OPENQASM 2.0; qreg q[{qubits}]; creg c[{qubits}]; {' '.join(gates)} measure q -> c;"


def bits_circuit(qubits: int, bits: int) -> str:
    """One outcome: these bits."""
    gates = [f"U(pi,0,pi) q[{k}];" for k in range(qubits) if bits >> k & 1]
    return f"OPENQASM 2.0; qreg q[{qubits}]; creg c[{qubits}]; {' '.join(gates)} measure q -> c;"


SECRET_ANGLE, SECRET_BITS = 1.2345678912345678, 0x9D3C_A5E1_7B42_F86D
# By engine: a circuit with a secret, the secret's bytes, and another circuit of the same width.
SECRETS: dict[str, tuple[str, bytes, str]] = {
    name: (angles_circuit(width, SECRET_ANGLE), struct.pack("<d", SECRET_ANGLE),
           angles_circuit(width, 0.4))
    for name, width in (("statevector", 18), ("aer", 16))
}  # fmt: skip
SECRETS["stabilizer"] = (
    bits_circuit(64, SECRET_BITS), struct.pack("<Q", SECRET_BITS), bits_circuit(64, 0b1011)
)  # fmt: skip


def memory_holds(pid: int, secret: bytes) -> bool:
    """Search all memory that a process can write, from outside."""
    if not os.access(f"/proc/{pid}/mem", os.R_OK):
        pytest.skip("this user may not read the memory of processes")
    regions = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for region in regions:
            begin, end = (int(part, 16) for part in region[0].split("-"))
            if region[1].startswith("rw"):
                with suppress(OSError, OverflowError):
                    memory.seek(begin)
                    if secret in memory.read(end - begin):
                        return True
    return False


def answers(client: Client, engine: str, circuit: str) -> tuple[int, list[Any]]:
    """The worker's pid, and all that a user gets: counts, samples, and amplitudes if there are."""
    result = client.submit(circuit, shots=500, seed=3, engine=engine).result(PATIENCE_S)
    values: list[Any] = [result.counts]
    if engine != "stabilizer":
        unmeasured = circuit.replace("measure q -> c;", "")
        task = client.submit(unmeasured, shots=None, outputs="statevector", engine=engine)
        values.append(task.result(PATIENCE_S).statevector.tobytes())
    return result._provenance.origin.pid, values


@pytest.mark.parametrize("isolation", ["account", "none"])
def test_circuits_leave_nothing_for_the_next_account(tmp_path: Path, isolation: str) -> None:
    """Of the engines with a state: no answer depends on what another account ran before in the
    same pool, also if its worker and its buffers are used again. Isolated, the memory, the files
    and the environment of the next worker have none of it."""
    options = {"listen": "tcp://127.0.0.1:0", "isolation": isolation}
    with simenv.local(workers=1) as client:
        expected = {name: answers(client, name, SECRETS[name][2])[1] for name in SECRETS}
    with (
        environment(pools=POOLS[:1], **options) as live,
        live.client() as own,
        with_keys(own, tmp_path, "ana", "ben") as clients,
    ):
        for engine, (circuit, secret, other) in SECRETS.items():
            pid, _ = answers(clients["ana"], engine, circuit)
            environ = psutil.Process(pid).environ()
            assert memory_holds(pid, secret), "the search finds what is there"
            other_pid, values = answers(clients["ben"], engine, other)
            assert values == expected[engine]
            assert (other_pid == pid) == (isolation == "none")
            if isolation == "account":
                assert not memory_holds(other_pid, secret)
                assert psutil.Process(other_pid).environ().keys() == environ.keys()
                files = (live.home / "results" / "workers").rglob("*")
                assert not [
                    path for path in files if path.is_file() and secret in path.read_bytes()
                ]


@by_value
def reach(files: list[str], port: int, sockets: list[str], pids: list[int]) -> dict[str, str]:
    """What a function can reach: name -> "" or the error."""
    import os
    import socket
    from functools import partial

    outcomes = {}

    def attempt(name: str, call: Callable[[], Any]) -> None:
        try:
            call()
            outcomes[name] = ""
        except Exception as error:  # noqa: BLE001 - its kind is the outcome
            outcomes[name] = type(error).__name__

    def read(path: str) -> None:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            open(path, "rb").close()

    def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> None:
        with socket.socket(family, kind) as peer:
            peer.connect(address)

    for path in files:
        attempt(path, partial(read, path))
    attempt("tcp", lambda: connect(socket.AF_INET, ("127.0.0.1", port)))
    attempt("udp", lambda: connect(socket.AF_INET, ("127.0.0.1", port), socket.SOCK_DGRAM))
    for path in sockets:
        attempt(path, partial(connect, socket.AF_UNIX, path))
    for pid in pids:
        attempt(f"kill {pid}", partial(os.kill, pid, 0))
        attempt(f"environ {pid}", partial(read, f"/proc/{pid}/environ"))
    return outcomes


@pytest.fixture
def targets(up: Live, tmp_path: Path) -> Iterator[tuple[list[str], int, list[str], list[int]]]:
    """Files, a port, sockets and processes that no function may reach."""
    secret = tmp_path / "of-a-user"
    secret.write_text("secret")
    names = ("journal.db", "server-key.json", "keys.json", "connection.json", "worker.json")
    files = [str(secret), *(str(up.home / name) for name in names)]
    files += [str(up.home), str(up.home / "results"), str(up.home / "logs"), str(tmp_path)]
    assert all(os.path.exists(path) for path in files)
    folder = Path(address.read(up.home / "connection.json").sockets)
    sockets = [str(path) for path in folder.glob("*.sock")]
    assert len(sockets) >= 2
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield files, listener.getsockname()[1], sockets, [up.service().pid]


def test_function_reaches_no_port_no_files_and_no_process(
    keys: dict[str, Client], targets: tuple[list[str], int, list[str], list[int]]
) -> None:
    assert set(reach(*targets).values()) == {""}, "the attempts themselves work"
    outcomes = keys["ana"].call(reach, *targets).result(PATIENCE_S)
    processes = {name for name in outcomes if name.startswith(("kill", "environ"))}
    why = {outcomes.pop(name) for name in processes}
    if not private_namespaces.unavailable_reason():
        assert why == {"ProcessLookupError", "FileNotFoundError"}, "there is no such process there"
    elif confinement.landlock_abi() >= confinement.SCOPED_ABI:
        assert why == {"PermissionError"}
    assert {name for name, why in outcomes.items() if why != "PermissionError"} == set()


@pytest.mark.parametrize("name", ["numbers", "processes"])
def test_programs_of_users_work_in_isolated_functions(keys: dict[str, Client], name: str) -> None:
    keys["ana"].call(by_value(getattr(user_programs, name))).result(PATIENCE_S)


@by_value
def attack_worker(victim: str) -> list[str]:
    """What succeeds of attempts to speak for the worker, and to touch its files and those of
    others."""
    import gc
    import os
    import sys

    frame, reached = sys._getframe(), list(gc.get_objects())
    while frame is not None:
        reached += list(frame.f_locals.values())
        frame = frame.f_back  # type: ignore[assignment]
    of_worker = ("worker.session", "unix_streams", "zmq_transport", "keyfiles")
    names = {f"{type(each).__module__}.{type(each).__name__}" for each in reached}
    done = [name for name in names if any(part in name for part in of_worker)]
    own = os.path.realpath(os.environ["HOME"])
    worker = os.path.dirname(own)
    attempts = {
        "remove": lambda: os.unlink(victim),
        "read": lambda: open(victim).close(),
        "hard link": lambda: os.link(victim, f"{own}/linked"),
        "read by a link": lambda: (os.symlink(victim, f"{own}/l"), open(f"{own}/l").close()),
        "folder of results": lambda: os.makedirs(f"{worker}/0/t-1.10001.h5/d"),
        "link for results": lambda: os.symlink("/", f"{worker}/0"),
        "checkpoints": lambda: os.mkdir(f"{worker}/checkpoints"),
        "token": lambda: open(f"{worker}/token").close(),
        "list of the worker's folder": lambda: os.listdir(worker),
        "environment": lambda: open(f"/proc/{os.getppid()}/environ").close(),
        "memory": lambda: open(f"/proc/{os.getppid()}/mem").close(),
        "signal": lambda: os.kill(os.getppid(), 0),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            continue
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                done.append(f"descriptor {name}")
        except OSError:
            continue
    return done


def test_function_cannot_speak_for_its_worker(keys: dict[str, Client], tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("of somebody else")
    assert keys["ana"].call(attack_worker, str(tmp_path / "victim")).result(PATIENCE_S) == []
    assert (tmp_path / "victim").read_text() == "of somebody else"


PROGRAM = """#!{python}
import json, os, socket, sys
port, files, shots = {port}, {files!r}, int(sys.argv[2])
reached = []
for path in files:
    try:
        open(path).close()
        reached.append(path)
    except IsADirectoryError:
        reached.append(path)
    except PermissionError:
        pass
try:
    socket.create_connection(("127.0.0.1", port)).close()
    reached.append("tcp")
except PermissionError:
    pass
open("left", "w").close()
if reached:
    sys.exit("reached " + ", ".join(reached))
print(json.dumps({{"00": shots}}))
"""


@pytest.mark.parametrize("isolation", ["account", "none"])
def test_external_engine_reaches_no_port_and_no_files(tmp_path: Path, isolation: str) -> None:
    """Without isolation the same program reaches all of it."""
    secret, program = tmp_path / "of-a-user", tmp_path / "simulator"
    secret.write_text("secret")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        files = [str(secret), str(tmp_path)]
        program.write_text(PROGRAM.format(python=sys.executable, port=port, files=files))
        program.chmod(0o700)
        pool = {"name": "sim", "engine": "external", "command": f"{program} {{circuit}} {{shots}}"}
        with simenv.local(pools=[pool], isolation=isolation) as client:
            task = client.submit(BELL, shots=100, pool="sim")
            if isolation == "account":
                assert task.result(PATIENCE_S).counts == {"00": 100}
            else:
                with pytest.raises(TaskFailedError, match=f"reached {secret}, {tmp_path}, tcp"):
                    task.result(PATIENCE_S)


def test_circuits_of_both_accounts_run_with_large_results(keys: dict[str, Client]) -> None:
    """All engines' paths that need files: a result of 4 MiB goes through the worker's folder."""
    circuit = "OPENQASM 2.0; qreg q[18]; " + " ".join(f"U(0.3,0.1,0) q[{k}];" for k in range(18))
    for name in ("ana", "ben", "ana"):
        task = keys[name].submit(circuit, shots=None, outputs="statevector")
        assert abs(sum(abs(task.result(PATIENCE_S).statevector) ** 2) - 1) < 1e-9
        assert keys[name].run(BELL, shots=100).shots == 100
        assert keys[name].run(BELL, shots=100, device="fez").shots == 100, "with noise"
        (circuit_of_qiskit,) = keys[name].transpile([bell()], "sherbrooke")
        assert circuit_of_qiskit.num_qubits == 127, "QPY of others is read in a process of its own"


def test_value_of_another_account_is_not_unpickled(env: Client, keys: dict[str, Client]) -> None:
    """A pickle is code: the environment's own user must not run that of an account."""
    task = keys["ana"].call(pow, 2, 5)
    assert task.wait() is TaskState.DONE
    fails(NotAllowedError, "is a call of another user", env.functions().task, task.id)
    assert keys["ana"].functions().task(task.id).result(PATIENCE_S) == 32


def test_isolated_gang_runs_and_is_restarted_for_another_account(tmp_path: Path) -> None:
    pools = [{"name": "main", "min": 1, "max": 1, "ranks": 2}]
    options = {"listen": "tcp://127.0.0.1:0", "isolation": "account"}
    with environment(pools=pools, **options) as live, live.client() as own:
        pids = []
        with with_keys(own, tmp_path, "ana") as keys:
            for client in (own, keys["ana"]):
                task = client.submit(BELL, shots=100, pool="main")
                assert set(task.result(PATIENCE_S).counts) <= {"00", "11"}
                pids.append(own.workers()[0].pid)
        assert pids[0] != pids[1]


def test_configured_accounts_share_no_worker_whoever_their_users_are(tmp_path: Path) -> None:
    """Tasks of both accounts wait in one queue, in turns, before the first of them runs."""
    accounts = {"chem": {"users": ["ana", "ben"]}, "bio": {"users": ["ben", "cleo"]}}
    options = {"listen": "tcp://127.0.0.1:0", "isolation": "account", "accounts": accounts}
    pools = [{"name": "main", "min": 2, "max": 2}]
    pids: dict[str, set[int]] = {"chem": set(), "bio": set()}
    with (
        environment(pools=pools, **options) as live,
        live.client() as own,
        with_keys(own, tmp_path, "ana", "ben", "cleo") as clients,
    ):
        own.qpm.pause_execution_target(device_id="main", reason="a test")
        tasks = [
            (account, clients[name].submit(BELL, shots=100, account=account))
            for _ in range(50)
            for account, table in accounts.items()
            for name in table["users"]
        ]
        own.qpm.resume_execution_target(device_id="main")
        for account, task in tasks:
            result = task.result(PATIENCE_S)
            assert set(result.counts) <= {"00", "11"}
            pids[account].add(result._provenance.origin.pid)
    assert pids["chem"]
    assert pids["bio"]
    assert not pids["chem"] & pids["bio"]


def test_status_tells_isolation(env: Client) -> None:
    assert env.status().isolation == "account"
