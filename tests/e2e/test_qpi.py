"""Compiled programs against a real environment: examples, documentation, every call."""

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fortran
import numpy as np
import pytest
from emulated import DEVICE
from live import Live, environment
from qpi_programs import environ, linked, run, sanitized

import simenv
from simenv.client.administration.keys import issue_key
from simenv.frontends.qpi import InstalledLibrary, build

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "qpi.md"
BELL = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];'
    " h q[0]; cx q[0], q[1]; measure q -> c;"
)


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment() as live:
        yield live


@pytest.fixture
def service(up: Live, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(up.home / "connection.json")
    monkeypatch.setenv("SIMENV_SERVICE", path)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> InstalledLibrary:
    return build(tmp_path_factory.mktemp("qpi"))


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized("drill", tmp_path_factory.mktemp("drill"))


def bell_counts(service: str) -> list[str]:
    with simenv.connect(service=service) as client:
        counts = client.run(BELL, shots=1000, seed=7).counts
    return [f"{bits} {count}" for bits, count in sorted(counts.items())]


def test_c_example_prints_the_counts_of_the_python_client_and_a_minimum(
    service: str, library: InstalledLibrary, tmp_path: Path
) -> None:
    source = ROOT / "examples" / "qpi" / "sweep.c"
    lines = run([str(linked(source, library, tmp_path))]).splitlines()
    assert lines[:2] == bell_counts(service)
    energies = [float(line.split()[-1]) for line in lines[2:]]
    assert len(energies) == 9
    assert np.argmin(energies) == 2  # theta -0.2
    assert energies[2] == pytest.approx(-1.857, abs=1e-3)  # of the ground state


def test_fortran_example_prints_the_counts_of_the_python_client(
    service: str, library: InstalledLibrary, tmp_path: Path
) -> None:
    compiler = fortran.compiler()
    program = tmp_path / "bell"
    argv = [*compiler.argv, "-Wall", "-Wextra", "-Werror", f"-J{tmp_path}", str(library.fortran)]
    argv += [str(ROOT / "examples" / "qpi" / "bell.f90"), *library.libs, "-o", str(program)]
    run(argv, env=compiler.environ)
    assert run([str(program)], env=compiler.environ).splitlines() == bell_counts(service)


def test_c_snippets_of_the_guide_compile_and_print_what_it_says(
    service: str, library: InstalledLibrary, tmp_path: Path
) -> None:
    page = GUIDE.read_text()
    snippets = re.findall(r"^```c\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    promised = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == len(promised) > 0
    for number, (snippet, text) in enumerate(zip(snippets, promised, strict=True)):
        source = tmp_path / f"snippet{number}.c"
        source.write_text(snippet)
        assert run([str(linked(source, library, tmp_path))]) == text


@pytest.mark.parametrize("part", ["errors", "cancel", "threads"])
def test_calls_behave_as_the_header_says(service: str, drill: Path, part: str) -> None:
    run([str(drill), part], env=environ())


NATIVE = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; creg c[2];'
    " x q[1]; sx q[2]; cz q[1],q[2]; measure q[1] -> c[0]; measure q[2] -> c[1];"
)


def test_emulated_device_and_its_noise_are_options(service: str, drill: Path) -> None:
    refused = NATIVE.replace("sx q[2]", "h q[2]")
    lines = run([str(drill), "device", DEVICE, NATIVE, refused], env=environ()).splitlines()
    with simenv.connect(service=service) as client:
        for line, noise in zip(lines, ("on", {"qubit.readout": 3.0}, "off"), strict=False):
            options = {"device": DEVICE, "noise": noise, "compile": "never"}
            counts = client.run(NATIVE, shots=4000, seed=5, **options).counts
            pairs = [f"{bits}={count}" for bits, count in sorted(counts.items())]
            assert line.split()[2:] == pairs
        options = {"device": DEVICE, "noise": {"gate.depolarizing": 1e9}, "compile": "never"}
        (warning,) = client.run(NATIVE, shots=4000, seed=5, **options).warnings
    assert lines[3] == f"1 {warning}"
    assert len(lines) == 5
    wrong = [line.count("0=") for line in lines[:3]]  # outcomes with clbit 0 unset
    assert wrong[2] == 0 < wrong[0]
    assert "(h on qubit 2) is no native gate" in lines[4]


def test_command_builds_a_library_and_prints_its_flags(service: str, tmp_path: Path) -> None:
    simenv_command = [sys.executable, "-m", "simenv", "qpi"]
    missing = subprocess.run(
        [*simenv_command, "flags", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 4
    assert "simenv qpi build" in missing.stderr
    run([*simenv_command, "build", str(tmp_path)])
    flags = run([*simenv_command, "flags", str(tmp_path)]).split()
    program = tmp_path / "sweep"
    run(["cc", str(ROOT / "examples" / "qpi" / "sweep.c"), *flags, "-o", str(program)])
    assert len(run([str(program)]).splitlines()) == 11
    document = json.loads(run([*simenv_command, "--json", "flags", str(tmp_path)]))
    assert [*document["cflags"], *document["libs"]] == flags


# --- the library in this process ---------------------------------------------------------------


class Options(ctypes.Structure):
    """`qpi_options`."""

    _fields_ = (
        ("struct_bytes", ctypes.c_size_t), ("shots", ctypes.c_int64), ("has_seed", ctypes.c_int),
        ("seed", ctypes.c_uint64), ("outputs", ctypes.c_uint), ("observables", ctypes.c_void_p),
        ("num_observables", ctypes.c_size_t), ("device", ctypes.c_char_p),
        ("engine", ctypes.c_char_p), ("single_precision", ctypes.c_int),
        ("priority", ctypes.c_int64), ("queue_timeout_s", ctypes.c_double),
        ("run_timeout_s", ctypes.c_double), ("name", ctypes.c_char_p),
        ("idempotency_key", ctypes.c_char_p),
    )  # fmt: skip


class Library:
    """Calls of the library; those that fail raise with its words."""

    def __init__(self, library: InstalledLibrary) -> None:
        self._lib = ctypes.CDLL(str(library.library))
        self._lib.qpi_error_message.restype = ctypes.c_char_p
        self._lib.qpi_submit.argtypes = [
            *[ctypes.c_void_p] * 4, ctypes.c_size_t, ctypes.c_double, ctypes.c_void_p,
        ]  # fmt: skip
        self._lib.qpi_wait.argtypes = [ctypes.c_void_p, ctypes.c_double]

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            raise RuntimeError(f"{status}: {self._lib.qpi_error_message().decode()}")

    def made(self, name: str, *arguments: object) -> ctypes.c_void_p:
        pointer = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(pointer))
        return pointer

    def options(self, **values: object) -> Options:
        options = Options()
        self._lib.qpi_options_init(ctypes.byref(options))
        for name, value in values.items():
            setattr(options, name, value)
        return options

    def run(
        self, session: ctypes.c_void_p, text: str, options: Options, rows: np.ndarray | None = None
    ) -> ctypes.c_void_p:
        """A job that has ended."""
        circuit = self.made("qpi_circuit_from_qasm", text.encode())
        value = None if rows is None else rows.ctypes.data
        count = 1 if rows is None else len(rows)
        job = self.made(
            "qpi_submit", session, circuit, ctypes.addressof(options), value, count, 60.0
        )
        self.call("qpi_wait", job, 120.0)
        self._lib.qpi_circuit_free(circuit)
        return job

    def statevector(self, job: ctypes.c_void_p, row: int, qubits: int) -> np.ndarray:
        array = np.empty(1 << qubits, np.complex128)
        self.call(
            "qpi_statevector", job, ctypes.c_size_t(row), ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(len(array)),
        )  # fmt: skip
        return array

    def end(self, session: ctypes.c_void_p, *jobs: ctypes.c_void_p) -> None:
        for job in jobs:
            self._lib.qpi_job_free(job)
        self._lib.qpi_finalize(session)


class AllOptions(ctypes.Structure):
    """`qpi_options` with the fields that were appended."""

    _fields_ = (
        *Options._fields_, ("noise", ctypes.c_void_p), ("num_noise", ctypes.c_size_t),
        ("account", ctypes.c_char_p), ("qos", ctypes.c_char_p), ("reservation", ctypes.c_int64),
    )  # fmt: skip


def test_account_and_class_are_options(
    service: str, library: InstalledLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    qpi = Library(library)
    session = qpi.made("qpi_init", None)
    options = AllOptions()
    with simenv.connect(service=service) as client:
        client.qos.set("idle")
        client.accounts.set("bio", users=["ana"])
        for account, qos, variable, expected in (
            (b"bio", b"idle", "", ("bio", "idle")),
            (None, b"idle", "bio", ("bio", "idle")),
            (b"root", None, "bio", ("root", "")),
            (None, None, "", ("", "")),
        ):
            monkeypatch.setenv("SIMENV_ACCOUNT", variable)
            qpi._lib.qpi_options_init_sized(
                ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options))
            )
            options.account, options.qos = account, qos
            job = qpi.run(session, BELL, options)
            *_, row = client.history.tasks()
            terms = client.history.submitted(row.id).terms
            assert (terms.account, terms.qos) == expected
            qpi._lib.qpi_job_free(job)
        for appended in (AllOptions.account, AllOptions.reservation):
            earlier = AllOptions()  # of a program compiled before that field was
            qpi._lib.qpi_options_init_sized(ctypes.byref(earlier), ctypes.c_size_t(appended.offset))
            qpi._lib.qpi_job_free(qpi.run(session, BELL, earlier))
        options.account = b"geo"
        with pytest.raises(RuntimeError, match="there is no account 'geo'"):
            qpi.run(session, BELL, options)
        options.account = b"Not a name"
        with pytest.raises(RuntimeError, match="account is 'Not a name'"):
            qpi.run(session, BELL, options)
        client.accounts.remove("bio")
        client.qos.remove("idle")
    qpi.end(session)


def test_reservation_is_an_option(
    service: str, library: InstalledLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    qpi = Library(library)
    session = qpi.made("qpi_init", None)
    options, size = AllOptions(), ctypes.c_size_t(ctypes.sizeof(AllOptions))
    with simenv.connect(service=service) as client, client.reserve("main", shots=9) as reservation:
        number = reservation.id
        for pool, given, variable, expected in (
            (None, number, "", ("", number)),
            (b"main", number, "main:99", ("main", number)),
            (None, 0, f"main:{number},gpu:7", ("main", number)),
            (b"main", 0, f"gpu:7,main:{number}", ("main", number)),
            (b"main", 0, "gpu:7", ("main", 0)),
        ):
            monkeypatch.setenv("SIMENV_RESERVATION", variable)
            qpi._lib.qpi_options_init_sized(ctypes.byref(options), size)
            options.device, options.reservation = pool, given
            job = qpi.run(session, BELL, options)
            *_, row = client.history.tasks()
            terms = client.history.submitted(row.id).terms
            assert (terms.pool, terms.reservation) == expected
            qpi._lib.qpi_job_free(job)
        for wrong in ("main", "main:", "main:0", "main:1x", ":", "m" * 65 + ":1", ","):
            monkeypatch.setenv("SIMENV_RESERVATION", wrong)
            with pytest.raises(RuntimeError, match="SIMENV_RESERVATION is '"):
                qpi.run(session, BELL, options)
        monkeypatch.delenv("SIMENV_RESERVATION")
        options.reservation = -1
        with pytest.raises(RuntimeError, match="reservation is -1"):
            qpi.run(session, BELL, options)
        options.reservation = number + 1
        with pytest.raises(RuntimeError, match=f"no reservation {number + 1}"):
            qpi.run(session, BELL, options)
    qpi.end(session)


def test_states_of_a_sweep_are_the_python_clients(service: str, library: InstalledLibrary) -> None:
    text = (
        'OPENQASM 3.0; include "stdgates.inc"; input float a; input float b; qubit[3] q;'
        " rx(2*a - b/3) q[0]; ry(-a) q[1]; rz(a*b + 1) q[0]; cx q[0], q[1]; u3(a,b,a) q[2];"
    )
    rows = np.linspace(-3.0, 3.0, 600).reshape(300, 2)  # more than travel as one task
    qpi = Library(library)
    session = qpi.made("qpi_init", None)
    job = qpi.run(session, text, qpi.options(shots=0, outputs=4), rows)
    with simenv.connect(service=service) as client:
        tasks = client.submit_many((text, rows), shots=None, outputs="statevector")
        for row in (0, 1, 255, 256, 299):
            expected = tasks[row].result().statevector
            assert np.allclose(qpi.statevector(job, row, 3), expected, atol=1e-12)
    qpi.end(session, job)


def test_state_beyond_a_message_comes_in_parts(service: str, library: InstalledLibrary) -> None:
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[20]; h q; rz(0.3) q[7]; cx q[0], q[19];'
    qpi = Library(library)
    session = qpi.made("qpi_init", None)
    for single, tolerance in ((0, 1e-12), (1, 1e-6)):
        options = qpi.options(shots=0, outputs=4, single_precision=single)
        job = qpi.run(session, text, options)
        result = qpi.statevector(job, 0, 20)
        with simenv.connect(service=service) as client:
            expected = client.run(text, shots=None, outputs="statevector").statevector
        assert np.allclose(result, expected, atol=tolerance)
        qpi._lib.qpi_job_free(job)
    qpi.end(session)


def test_counts_of_wide_registers_equal_those_of_the_python_client(
    service: str, library: InstalledLibrary
) -> None:
    text = (
        'OPENQASM 2.0; include "qelib1.inc"; qreg q[70]; creg a[3]; creg b[67];'
        " h q[0]; cx q[0],q[69]; h q[5]; measure q[0] -> a[1]; measure q[69] -> b[66];"
        " measure q[5] -> b[0];"
    )
    qpi = Library(library)
    session = qpi.made("qpi_init", None)
    job = qpi.run(session, text, qpi.options(shots=500, has_seed=1, seed=11))
    with simenv.connect(service=service) as client:
        expected = client.run(text, shots=500, seed=11).counts
    outcomes, table = ctypes.c_size_t(), {}
    qpi.call("qpi_counts_size", job, ctypes.c_size_t(0), ctypes.byref(outcomes))
    for index in range(outcomes.value):
        bits, count = ctypes.create_string_buffer(100), ctypes.c_uint64()
        qpi.call(
            "qpi_counts_entry", job, ctypes.c_size_t(0), ctypes.c_size_t(index), bits,
            ctypes.c_size_t(len(bits)), ctypes.byref(count),
        )  # fmt: skip
        table[bits.value.decode()] = count.value
    assert table == expected
    qpi.end(session, job)


class Config(ctypes.Structure):
    """`qpi_config`."""

    _fields_ = (
        ("struct_bytes", ctypes.c_size_t), ("environment", ctypes.c_char_p),
        ("file", ctypes.c_char_p), ("timeout_s", ctypes.c_double), ("patience_s", ctypes.c_double),
        ("libzmq", ctypes.c_char_p),
    )  # fmt: skip


def test_key_file_connects_by_tcp_until_revoked(library: InstalledLibrary, tmp_path: Path) -> None:
    file = tmp_path / "ann.simenv"
    qpi = Library(library)
    config = Config(ctypes.sizeof(Config), None, str(file).encode(), 30.0, 30.0, None)
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as env:
        issue_key(env.keys, "ann", "client", file)
        session = qpi.made("qpi_init", ctypes.byref(config))
        job = qpi.run(session, BELL, qpi.options(shots=100))
        assert [row.owner for row in env.history.tasks()] == ["ann"]
        env.keys.revoke("ann")
        with pytest.raises(RuntimeError, match=r"^10: "):  # QPI_KEY_REFUSED
            qpi.run(session, BELL, qpi.options(shots=100))
        qpi.end(session, job)
        with pytest.raises(RuntimeError, match=r"^10: .*does not know the key"):
            qpi.made("qpi_init", ctypes.byref(config))
        file.chmod(0o640)
        with pytest.raises(RuntimeError, match=r"^3: .*can be opened by others"):  # QPI_CONFIG
            qpi.made("qpi_init", ctypes.byref(config))


def test_circuit_that_does_not_fit_device_of_its_pool_is_refused(library: InstalledLibrary) -> None:
    pools = [{"name": "chip", "min": 1, "max": 1, "device": "superconducting-lattice"}]
    with environment(pools=pools) as live:
        os.environ["SIMENV_SERVICE"] = str(live.home / "connection.json")
        try:
            qpi = Library(library)
            session = qpi.made("qpi_init", None)
            with pytest.raises(RuntimeError, match=r"\(h on qubit 0\) is no native gate of device"):
                qpi.run(session, BELL, qpi.options(device=b"chip"))
            qpi.end(session)
        finally:
            del os.environ["SIMENV_SERVICE"]


def test_submit_without_an_answer_says_that_it_may_have_been_accepted(
    service: str, library: InstalledLibrary, tmp_path: Path
) -> None:
    with simenv.connect(service=service) as client:
        pid = client.status().pid
    program = linked(ROOT / "tests" / "support" / "qpi" / "unanswered.c", library, tmp_path)
    unanswered, refused = run([str(program), str(pid)]).splitlines()
    assert unanswered.startswith("timeout 1 no acceptance within")
    assert unanswered.endswith("; its tasks may have been accepted")
    assert refused == "option 0"
