"""The C library and its messages."""

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from failing import fails
from qpi_programs import HERE, WARNINGS, environ, linked, run, sanitized

from simenv.errors import ConfigError
from simenv.frontends.qpi import ABI, InstalledLibrary, build
from simenv.model import Origin, ResultData, Timing
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.task import RESULT_FORMAT, DeviceRecord, ResultFile, StoredArray
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import Devices, ResultChunk, VerifyReply

# Symbols of ABI 1, with the version of simenv that brought them. One that is here stays.
SYMBOLS = """
qpi_abi_version qpi_cancel qpi_circuit_clbits qpi_circuit_free qpi_circuit_from_qasm
qpi_circuit_parameter qpi_circuit_parameters qpi_circuit_qubits qpi_config_init qpi_counts_entry
qpi_counts_size qpi_devices qpi_error_column qpi_error_hint qpi_error_line qpi_error_maybe_accepted
qpi_error_message
qpi_error_retry_after_s qpi_error_string qpi_expectation qpi_finalize qpi_init qpi_job_free
qpi_job_rows qpi_options_init qpi_options_init_sized qpi_poll qpi_probabilities_entry
qpi_probabilities_size
qpi_row_status qpi_statevector qpi_status_name qpi_submit qpi_task_id qpi_version qpi_wait
qpi_warning qpi_warnings_size
"""
LAYOUT = """
qpi_config 48
qpi_config.environment 8
qpi_config.file 16
qpi_config.timeout_s 24
qpi_config.patience_s 32
qpi_config.libzmq 40
qpi_device 232
qpi_device.kind 72
qpi_device.model 144
qpi_device.num_qubits 216
qpi_device.max_shots 224
qpi_observable 24
qpi_observable.coefficients 8
qpi_observable.terms 16
qpi_options 160
qpi_options.shots 8
qpi_options.has_seed 16
qpi_options.seed 24
qpi_options.outputs 32
qpi_options.observables 40
qpi_options.num_observables 48
qpi_options.device 56
qpi_options.engine 64
qpi_options.single_precision 72
qpi_options.priority 80
qpi_options.queue_timeout_s 88
qpi_options.run_timeout_s 96
qpi_options.name 104
qpi_options.idempotency_key 112
qpi_options.noise 120
qpi_options.num_noise 128
qpi_options.account 136
qpi_options.qos 144
qpi_options.reservation 152
qpi_noise_factor 16
qpi_noise_factor.factor 8
QPI_COUNTS 1
QPI_PROBABILITIES 2
QPI_STATEVECTOR 4
QPI_EXPECTATION 8
0 ok
1 error
2 option
3 config
4 program
5 limit
6 infeasible
7 insufficient
8 queue_full
9 reservation
10 key_refused
11 not_allowed
12 key_conflict
13 not_found
14 no_service
15 service_lost
16 version
17 protocol
18 result_store
19 task_failed
20 task_cancelled
21 task_expired
22 timeout
23 no_data
24 pending
25 memory
26 no_libzmq
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> InstalledLibrary:
    return build(tmp_path_factory.mktemp("qpi"))


def test_exported_symbols_are_those_of_the_abi_and_of_the_header(library: InstalledLibrary) -> None:
    listed = run(["nm", "-D", "--defined-only", str(library.library)])
    exported = {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    assert exported == set(SYMBOLS.split())
    header = (library.folder / "include" / "simenv_qpi.h").read_text()
    assert set(re.findall(r"\b(qpi_\w+)\(", header)) == exported
    assert f"#define QPI_ABI_VERSION {ABI}\n" in header


def test_layout_and_constants_are_of_the_abi(library: InstalledLibrary, tmp_path: Path) -> None:
    assert run([str(linked(HERE / "layout.c", library, tmp_path))]).split() == LAYOUT.split()


def test_earlier_header_writes_its_options_only(library: InstalledLibrary, tmp_path: Path) -> None:
    source = tmp_path / "earlier.c"
    source.write_text(
        "#include <simenv_qpi.h>\n#include <string.h>\n#undef qpi_options_init\n"
        "int main(void) { unsigned char memory[sizeof(qpi_options)];\n"
        "memset(memory, 7, sizeof memory); qpi_options_init((qpi_options *)memory);\n"
        "size_t first = 120, size; memcpy(&size, memory, sizeof size);\n"
        "for (size_t at = first; at < sizeof memory; at++) if (memory[at] != 7) return 1;\n"
        "return size != first; }\n"
    )
    run([str(linked(source, library, tmp_path))])


def test_library_has_soname_and_version(library: InstalledLibrary, tmp_path: Path) -> None:
    assert f"[libsimenv_qpi.so.{ABI}]" in run(["readelf", "-d", str(library.library)])
    program = linked(HERE / "layout.c", library, tmp_path)
    assert f"[libsimenv_qpi.so.{ABI}]" in run(["readelf", "-d", str(program)])


@pytest.mark.parametrize("language", ["c", "c++"])
def test_header_compiles_alone(library: InstalledLibrary, language: str, tmp_path: Path) -> None:
    compiler = {"c": "cc", "c++": "c++"}[language]
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    source = tmp_path / "alone.x"
    source.write_text("#include <simenv_qpi.h>\nint main(void) { return qpi_abi_version(); }\n")
    standard = [flag for flag in WARNINGS if language == "c" or not flag.startswith("-std")]
    flags = [*library.cflags, "-x", language, str(source), "-x", "none", *library.libs]
    run([compiler, *standard, *flags, "-o", str(tmp_path / "alone")])


def test_pkg_config_and_fortran_agree_with_the_header(library: InstalledLibrary) -> None:
    text = (library.pkg_config / "simenv_qpi.pc").read_text()
    plain = text.replace("${prefix}", str(library.folder))
    assert f"Cflags: {' '.join(library.cflags)}\n" in plain
    libs = re.search(r"^Libs: (.*)$", plain, re.MULTILINE)
    assert sorted(libs[1].split()) == sorted(library.libs)
    header = (library.folder / "include" / "simenv_qpi.h").read_text()
    declared = re.findall(r"(?:function|subroutine) (qpi_\w+)\(", library.fortran.read_text())
    bound = [name for name in declared if name != "qpi_error_text"]
    assert bound
    assert set(bound) <= set(re.findall(r"\b(qpi_\w+)\(", header))


def test_second_build_replaces_the_library(library: InstalledLibrary) -> None:
    before = library.library.resolve().stat().st_ino
    build(library.folder)
    assert library.library.resolve().stat().st_ino != before


def test_missing_and_failing_compiler_is_refused(tmp_path: Path) -> None:
    fails(ConfigError, "no C compiler 'no-such-cc'", build, tmp_path, compiler="no-such-cc")
    fails(ConfigError, "false failed", build, tmp_path, compiler="false")
    assert not (tmp_path / "lib" / "libsimenv_qpi.so").exists()


def test_lines_of_the_library_fit_a_screen() -> None:
    from simenv.frontends.qpi import HERE as FOLDER

    files = [path for path in FOLDER.rglob("*") if path.suffix in {".c", ".h", ".f90"}]
    assert len(files) > 15
    assert not {p.name for p in files for line in p.read_text().splitlines() if len(line) > 100}


def test_library_without_libzmq_names_package(library: InstalledLibrary, tmp_path: Path) -> None:
    source = tmp_path / "lost.c"
    source.write_text(
        "#include <simenv_qpi.h>\n#include <stdio.h>\n"
        "int main(void) { qpi_session *session; int status = qpi_init(NULL, &session);\n"
        'printf("%s %s", qpi_status_name(status), qpi_error_hint()); return session != NULL; }\n'
    )
    program = linked(source, library, tmp_path)
    done = subprocess.run(
        [str(program)],
        env={"SIMENV_LIBZMQ": str(source)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("no_libzmq name it:")
    assert "libzmq5" in done.stdout


TURNS = 4_000
ORIGIN = Origin("main-0", "vm", 7, "0.1.0")
TASKS = 4  # that the session of fuzz.c has submitted, of two rows each


def result(**arrays: object) -> bytes:
    registers = (("a", 2), ("b", 1))
    data = ResultData(RESULT_FORMAT, registers, 3, 100, 1, count=2, **arrays)  # type: ignore[arg-type]
    return codec.encode(data)


def array(*values: float, kind: str = "<f8") -> bytes:
    return np.array(values, kind).tobytes()


COUNTED = result(
    outcome_width=1,
    outcomes=bytes([0, 3, 7]),
    counts=array(40, 60, 100, kind="<u4"),
    rows=array(2, 1, kind="<u4"),
)
EXACT = result(
    probability_width=1,
    probability_outcomes=bytes([0, 7, 0]),
    probabilities=array(0.5, 0.5, 1.0),
    probability_rows=array(2, 1, kind="<u4"),
    expectations=array(0.5, 0.0, -0.5, 0.0),
)
WARNED = result(
    outcome_width=1,
    outcomes=bytes([0, 3]),
    counts=array(40, 60, kind="<u4"),
    rows=array(1, 1, kind="<u4"),
    device=DeviceRecord("fez", "ab", warnings=("one", "another")),
)
STATES = result(statevector=array(*[0.25] * 32))
FILED = result(
    file=ResultFile("a.bin", 512, 1, (StoredArray("statevector", "<c16", (2, 8), 64, 256, 5),))
)
FAILED = codec.encode(m.Failure("engine", "no", "way out"))


def completion(task: int, state: int, payload: bytes) -> m.Completion:
    return m.Completion(task, state, 1, 1, payload, zlib.crc32(payload), Timing(1, 2, 3))


def completed(*parts: m.Completion) -> m.Completed:
    return m.Completed(ORIGIN, "statevector", "", list(parts))


DEVICE = DeviceInfo(
    "main", DeviceKind.IDEAL, "simenv", "statevector", "1", "simulator", 30, 1000, (), True
)
ACCEPTED = [
    m.Welcome(5, "0.1.0", "default"),
    completed(completion(20, 2, COUNTED), completion(99, 2, COUNTED)),  # before its acceptance
    m.Accepted(1, 20, TASKS),
    completed(completion(21, 2, EXACT), completion(22, 2, STATES)),
    completed(completion(21, 2, WARNED)),
    ResultChunk(2, b"abc"),
    VerifyReply(3, "again"),
    m.UnknownTasks(0, [21, 77], [77]),
    m.Pong(0, 6),
    m.Welcome(6, "0.1.0", "default"),
    completed(completion(23, 2, FILED)),
    Devices(2, [DEVICE]),
    m.Cancelled(4, ["final"]),
]
REFUSED = [
    m.Welcome(5, "0.1.0", "default"),
    m.Accepted(1, 20, TASKS, repeated=True),
    completed(completion(20, 3, FAILED), completion(21, 4, FAILED), completion(22, 5, FAILED)),
    m.Refused(2, [m.Refusal("option", "wrong", "right")]),
    m.Refused(1, [m.Refusal("queue_full", "full", "later", 0, 2.5)]),
    m.Refused(0, [m.Refusal("version", "of another build")]),
]


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized("fuzz", tmp_path_factory.mktemp("fuzz"))


def read(fuzz: Path, messages: list[object], turns: int) -> tuple[int, int]:
    """Rows that ended, and rows with a result, of all turns."""
    corpus = fuzz.with_name("corpus")
    bodies = [codec.encode(message) for message in messages]  # type: ignore[arg-type]
    corpus.write_bytes(b"".join(len(body).to_bytes(4, "little") + body for body in bodies))
    ended, results = run([str(fuzz), str(corpus), str(turns)], env=environ()).split()
    return int(ended), int(results)


def test_mutated_answers_and_failures_are_read_without_a_fault(fuzz: Path) -> None:
    ended, results = read(fuzz, ACCEPTED, TURNS)
    assert TURNS < results <= 2 * ended  # read twice where the session ends first
    assert ended < 2 * TASKS * TURNS  # some were refused
    ended, _ = read(fuzz, REFUSED, TURNS)
    assert ended > TURNS
