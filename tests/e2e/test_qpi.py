"""Compiled programs against a real environment: examples, documentation, every call."""

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fortran
import numpy as np
import pytest
from emulated import DEVICE
from live import Live, environment, trusted_gateway
from other_user import UID, skip_without_second_user
from qpi_calls import AllOptions, Config, Library
from qpi_programs import built, environ, linked, run, sanitized, token

import simenv
from simenv.config import GatewayFile
from simenv.frontends.qpi import InstalledLibrary

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "qpi.md"
BELL = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];'
    " h q[0]; cx q[0], q[1]; measure q -> c;"
)


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment(gateway="127.0.0.1:0") as live:
        yield live


@pytest.fixture(scope="module")
def gateway(up: Live) -> Iterator[GatewayFile]:
    with trusted_gateway(up) as found:
        yield found


@pytest.fixture(scope="module")
def secret(up: Live) -> str:
    with up.client() as client:
        return token(client)


@pytest.fixture
def service(up: Live, gateway: GatewayFile, secret: str, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(up.home / "connection.json")
    monkeypatch.setenv("SIMENV_SERVICE", path)
    monkeypatch.setenv("SIMENV_TOKEN", secret)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> InstalledLibrary:
    return built(tmp_path_factory.mktemp("qpi"))


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
    other = NATIVE.replace("sx q[2]", "h q[2]")
    lines = run([str(drill), "device", DEVICE, NATIVE, other], env=environ()).splitlines()
    with simenv.connect(service=service) as client:
        for line, noise in zip(lines, ("on", {"qubit.readout": 3.0}, "off"), strict=False):
            options = {"device": DEVICE, "noise": noise, "compile": "never"}
            counts = client.run(NATIVE, shots=4000, seed=5, **options).counts
            pairs = [f"{bits}={count}" for bits, count in sorted(counts.items())]
            assert line.split()[2:] == pairs
        options = {"device": DEVICE, "noise": {"gate.depolarizing": 1e9}, "compile": "never"}
        (warning,) = client.run(NATIVE, shots=4000, seed=5, **options).warnings
        counts = client.run(other, shots=4000, seed=5, device=DEVICE).counts
    assert lines[3] == f"1 {warning}"
    assert lines[4].split()[2:] == [f"{bits}={count}" for bits, count in sorted(counts.items())]
    assert len(lines) == 5
    wrong = [line.count("0=") for line in lines[:3]]  # outcomes with clbit 0 unset
    assert wrong[2] == 0 < wrong[0]


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
            qpi.qpi_options_init_sized(
                ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options))
            )
            options.account, options.qos = account, qos
            job = qpi.run(session, BELL, options)
            *_, row = client.history.tasks()
            terms = client.history.submitted(row.id).terms
            assert (terms.account, terms.qos) == expected
            qpi.qpi_job_free(job)
        for appended in (AllOptions.account, AllOptions.reservation):
            earlier = AllOptions()  # of a program compiled before that field was
            qpi.qpi_options_init_sized(ctypes.byref(earlier), ctypes.c_size_t(appended.offset))
            qpi.qpi_job_free(qpi.run(session, BELL, earlier))
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
            qpi.qpi_options_init_sized(ctypes.byref(options), size)
            options.device, options.reservation = pool, given
            job = qpi.run(session, BELL, options)
            *_, row = client.history.tasks()
            terms = client.history.submitted(row.id).terms
            assert (terms.pool, terms.reservation) == expected
            qpi.qpi_job_free(job)
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
        qpi.qpi_job_free(job)
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
    assert qpi.counts(job) == expected
    qpi.end(session, job)


def run_until_refused(qpi: Library, session: ctypes.c_void_p) -> None:
    while True:
        qpi.qpi_job_free(qpi.run(session, BELL, qpi.options(shots=100)))


def test_url_and_token_reach_the_gateway_until_the_token_is_revoked(
    up: Live, gateway: GatewayFile, library: InstalledLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    qpi = Library(library)
    with up.client() as client:
        made = client.tokens.add("ann", purpose="test of the C library")
        fields = (None, gateway.url.encode(), made.secret.encode(), 30.0, 30.0)
        config = Config(ctypes.sizeof(Config), *fields)
        monkeypatch.setenv("CURL_CA_BUNDLE", os.environ["SSL_CERT_FILE"])
        session = qpi.made("qpi_init", ctypes.byref(config))
        job = qpi.run(session, BELL, qpi.options(shots=100))
        *_, row = client.history.tasks()
        assert row.owner == "ann"
        client.tokens.revoke(made.token.number)
        with pytest.raises(RuntimeError, match=r"^10: "):  # QPI_KEY_REFUSED
            run_until_refused(qpi, session)  # the gateway asks for a token again after 5 s
        qpi.end(session, job)
    with pytest.raises(RuntimeError, match=r"^10: .*token"):
        qpi.made("qpi_init", ctypes.byref(config))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(ROOT / "pyproject.toml"))
    with pytest.raises(RuntimeError, match=r"^3: the certificate of https"):  # QPI_CONFIG
        qpi.made("qpi_init", ctypes.byref(config))
    config.url = b"ftp://host"
    with pytest.raises(RuntimeError, match=r"^3: the URL is 'ftp://host'"):
        qpi.made("qpi_init", ctypes.byref(config))


def test_variables_of_the_gateway_name_it_and_its_socket_is_preferred(
    up: Live, gateway: GatewayFile, library: InstalledLibrary, secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    qpi = Library(library)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)  # SSL_CERT_FILE is of `trusted_gateway`
    monkeypatch.setenv("SIMENV_TOKEN", secret)
    monkeypatch.setenv("SIMENV_URL", gateway.url)
    qpi.end(qpi.made("qpi_init", None))  # `default` is not up: by the URL
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(RuntimeError, match=r"^3: the certificate of https"):
        qpi.made("qpi_init", None)
    monkeypatch.setenv("SIMENV_SERVICE", up.name)
    qpi.end(qpi.made("qpi_init", None))  # it is the URL of this one: by the socket
    monkeypatch.delenv("SIMENV_URL")
    qpi.end(qpi.made("qpi_init", None))
    monkeypatch.delenv("SIMENV_TOKEN")
    with pytest.raises(RuntimeError, match=r"^3: there is no token"):
        qpi.made("qpi_init", None)
    monkeypatch.setenv("SIMENV_SERVICE", "local:ann/default")
    with pytest.raises(RuntimeError, match=r"^3: SIMENV_SERVICE is 'local:ann/default'"):
        qpi.made("qpi_init", None)


LISTEN = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
made.listen()
print("ready", flush=True)
print(made.accept()[0].recv(4096), flush=True)
"""


@pytest.mark.parametrize(("uid", "mode"), [(UID, 0o700), (0, 0o777), (0, 0o700)])
def test_token_is_not_sent_to_the_socket_of_another_user(
    uid: int, mode: int, library: InstalledLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_second_user()
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        Path(shared).chmod(mode)
        os.chown(shared, uid, uid)
        path = f"{shared}/socket"
        argv = [sys.executable, "-c", LISTEN, path, str(uid)]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, cwd="/", text=True, stdout=pipe) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "ready\n"
            folder = tmp_path / "home" / "gateway"
            folder.mkdir(parents=True)
            file = {"format": 1, "url": "http://x", "pid": os.getpid(), "socket": path}
            (folder / "gateway.json").write_text(json.dumps(file))
            monkeypatch.setenv("SIMENV_SERVICE", str(tmp_path / "home" / "connection.json"))
            monkeypatch.setenv("SIMENV_TOKEN", "a" * 43)
            config = Config(ctypes.sizeof(Config), None, None, None, 0.3, 0.3)
            is_own = (uid, mode) == (0, 0o700)
            expected = "14: no service answers" if is_own else "3: others can write the folder of"
            with pytest.raises(RuntimeError, match=f"^{expected}"):
                Library(library).made("qpi_init", ctypes.byref(config))
            if not is_own:
                with socket.socket(socket.AF_UNIX) as last:
                    last.connect(path)
            assert ("Bearer aaa" in listener.stdout.readline()) is is_own


def test_circuit_is_compiled_for_the_device_of_its_pool(
    library: InstalledLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [{"name": "chip", "min": 1, "max": 1, "device": "superconducting-lattice"}]
    with (
        environment(pools=pools, gateway="127.0.0.1:0") as live,
        trusted_gateway(live),
        live.client() as client,
    ):
        monkeypatch.setenv("SIMENV_SERVICE", live.name)
        monkeypatch.setenv("SIMENV_TOKEN", token(client))
        qpi = Library(library)
        session = qpi.made("qpi_init", None)
        job = qpi.run(session, BELL, qpi.options(device=b"chip", shots=100, has_seed=1, seed=3))
        *_, row = client.history.tasks()
        assert client.task(row.id).result().compiled
        qpi.end(session, job)


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
