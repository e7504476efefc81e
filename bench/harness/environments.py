"""Environments, their command line and their processes, as benchmarks of a service use them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from qiskit import qasm2

from simenv import config
from simenv.cli.admin.gateway import variables
from simenv.client import environments
from simenv.client.client import Client, connect
from simenv.client.environments import read
from simenv.client.result import Result
from simenv.qpm_check.plugin import PluginTarget
from testbed.waiting import until

SIMENV = Path(sys.executable).with_name("simenv")


def simenv(
    args: Iterable[str], environ: Mapping[str, str] | None = None, *, code: int = 0,
    program: Iterable[str | Path] = (SIMENV,), **more: Any,
) -> str:  # fmt: skip
    """Run a command as typed; return its output. Raises SystemExit for another exit status."""
    how = {"env": environ, "capture_output": True, "text": True, "check": False, **more}
    done = subprocess.run([*program, *args], **how)
    if done.returncode != code:
        raise SystemExit(f"simenv {' '.join(args)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout or done.stderr


@contextmanager
def home(*, cold: bool = False) -> Iterator[Path]:
    """Give this process a new, empty SIMENV_HOME, with the kernels of the previous one. `cold`:
    without them."""
    before = dict(os.environ)
    if not cold:
        os.environ["SIMENV_KERNELS"] = str(config.kernel_folder())
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as name:
        os.environ["SIMENV_HOME"] = name
        try:
            yield Path(name)
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def started(settings: Mapping[str, object], timeout_s: float = 60.0) -> Iterator[Client]:
    """Start an environment with a name in a home of its own; yield a client of it."""
    name = str(settings["name"])
    with home():
        environments.up(settings)
        try:
            with connect(name, timeout_s=timeout_s) as client:
                yield client
        finally:
            environments.down(name, now=True)


@contextmanager
def served(users: int, *pools: str) -> Iterator[tuple[Client, str, list[str]]]:
    """Start the environment `bench` with a gateway in a home of its own; yield a client, the URL,
    and tokens, one for each user. `pools`: as for --pool, in place of two workers."""
    with home() as folder:
        file = folder / "simenv.toml"
        file.write_text('[gateway]\nlisten = "127.0.0.1:0"\ntls = false\nrequests_per_s = 0\n')
        workers = [word for pool in pools for word in ("--pool", pool)] or ["--workers", "2"]
        simenv(["up", "--name", "bench", *workers, "--config", str(file)])
        try:
            tokens = [token("bench", f"user{k}") for k in range(users)]
            with connect("bench") as client:
                yield client, gateway_status("bench")["url"], tokens
        finally:
            simenv(["down", "--name", "bench"])


def restart(client: Client, settings: Mapping[str, object]) -> None:
    """Kill the service of an environment, wait until it has ended, and start it again."""
    service = service_process(client)
    service.kill()
    until(lambda: not environments.still_running([service], 0.0), 60.0)
    environments.up(settings)


def token(name: str, user: str) -> str:
    words = ["gateway", "tokens", "add", "--name", name, "--json", "--user", user]
    secret: str = json.loads(simenv(words))["secret"]
    return secret


def gateway_status(name: str) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(simenv(["gateway", "status", "--name", name, "--json"]))
    return status


class HttpConnection:
    def __init__(self, url: str, token: str) -> None:
        self.address = address_of(url)
        self._socket = socket.create_connection(self.address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} {self._head}Content-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def request(self, method: str, path: str, body: bytes = b"", status: int = 2) -> bytes:
        """Return the body of the answer. Raises SystemExit unless its status begins so."""
        self.send(method, path, body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.read()
        head, _, data = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(data) < size:
            data += self.read()
        if not head.startswith(b"HTTP/1.1 %d" % status):
            raise SystemExit(f"{method} {path}: {head.decode()}\n{data.decode()}")
        return data

    def read(self) -> bytes:
        part = self._socket.recv(65_536)
        if not part:
            raise SystemExit("the gateway hung up")
        return part

    def close(self) -> None:
        self._socket.close()


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


@contextmanager
def qpm_plugin(folder: Path | None, revision: int, **environ: str) -> Iterator[Any]:
    """Open a QPM plugin behind the stand-in host of the conformance kit, in a process of its own;
    yield its remote methods. `folder`: None: simenv's; `environ`: its variables."""
    own = Path(simenv(["qfw", "path"]).strip()).parent
    plugin = PluginTarget((folder or own).name, folder or own, environ)
    plugin.registers = plugin.registers and folder is None
    with plugin.open(revision) as subject:
        yield subject.connect().methods


def qpm_s(client: Client, pool: str, circuit: Any, shots: int) -> float:
    """Return the seconds of a circuit's second run through simenv's QPM plugin."""
    where = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_POOL": pool}
    info = {"num_qubits": circuit.num_qubits, "num_shots": shots, "qasm": qasm2.dumps(circuit)}
    with qpm_plugin(None, 2, **where, SIMENV_QPM_RESERVATIONS="optional") as methods:
        for _ in range(2):
            begin_s = time.perf_counter()
            answer = methods.sync_run(info | {"seed": 1})
            seconds = time.perf_counter() - begin_s
    assert sum(answer["result"]["result"]["counts"].values()) == shots
    return seconds


PRIMITIVES = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
from qiskit import qasm2
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService, SamplerV2
backend = QiskitRuntimeService().backend(BACKEND)
circuit = qasm2.loads(sys.stdin.read(), custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
bare = circuit.remove_final_measurements(inplace=False)
every = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], bare.num_qubits)
         for q in range(bare.num_qubits)]
work = {"sampler_s": (SamplerV2, {"pubs": [circuit], "shots": SHOTS})}
if WITH_VALUES:
    work["estimator_s"] = EstimatorV2, {"pubs": [(bare, every)]}
seconds, found = {}, {}
for name, (primitive, asked) in work.items():
    for _ in range(2):
        begun = time.perf_counter()
        found[name] = primitive(mode=backend).run(**asked).result()[0].data
        seconds[name] = time.perf_counter() - begun
assert sum(found["sampler_s"].c.get_counts().values()) == SHOTS
assert not WITH_VALUES or found["estimator_s"].evs.shape == (bare.num_qubits,)
print(json.dumps(seconds))
"""


def ibm_seconds(
    url: str, token: str, backend: str, circuit: Any, shots: int, *, values: bool = False
) -> dict[str, float]:
    """Return the seconds of a circuit's second run by SamplerV2 and, with `values`, of all its <Z>
    by EstimatorV2, with IBM's unmodified client in a process that knows the gateway's address
    alone. Raises SystemExit."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    program = f"BACKEND, SHOTS, WITH_VALUES = {(backend, shots, values)}\n{PRIMITIVES}"
    found: dict[str, float] = json.loads(simenv(
        [program], environ | variables(url, "bench", token, []), program=(sys.executable, "-c"),
        input=qasm2.dumps(circuit),
    ).splitlines()[-1])  # fmt: skip
    return found


def service_process(client: Client) -> psutil.Process:
    return psutil.Process(read(Path(client.service)).pid)


def cpu_s(*processes: psutil.Process) -> float:
    """Return the CPU seconds of some processes together."""
    times = [each.cpu_times() for each in processes]
    return float(sum(each.user + each.system for each in times))


def cores(seconds: float, *processes: psutil.Process) -> list[float]:
    """Return how many cores each process uses in this time."""
    before, begin_s = [cpu_s(each) for each in processes], time.perf_counter()
    time.sleep(seconds)
    took_s = time.perf_counter() - begin_s
    return [(cpu_s(each) - old) / took_s for each, old in zip(processes, before, strict=True)]


def threads_cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process's present threads, to the microsecond: those of `cpu_s`
    come in ticks of 10 ms, a quarter of what a short round takes."""
    paths = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in paths) / 1e9


def waited_s(result: Result) -> float:
    """Return the seconds from the acceptance of a task to its begin."""
    return float(result.timing.queued_s + result.timing.sent_s)
