"""The C library: its binary interface, its build, and its readers of answers."""

import re
import shutil
import struct
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from failing import fails
from qpi_programs import HERE, WARNINGS, built, environ, linked, run, sanitized

from simenv.client.result import Result
from simenv.client.result_data import DecodedResult, Provenance, Stages
from simenv.errors import BatchRefusedError, ConfigError, ProgramError
from simenv.frontends.qpi import ABI, InstalledLibrary, build
from simenv.gateway.native.results import to_json
from simenv.gateway.native.schemas import AcceptedSweep, AcceptedTask, ResultPage, SweepPart
from simenv.gateway.problems import problem_of
from simenv.model import Origin, ResultData
from simenv.model.task import RESULT_FORMAT, DeviceRecord

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
qpi_config.url 16
qpi_config.token 24
qpi_config.timeout_s 32
qpi_config.patience_s 40
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
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> InstalledLibrary:
    return built(tmp_path_factory.mktemp("qpi"))


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


def test_machine_without_headers_of_libcurl_is_told_their_package(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"  # which finds the headers of a folder without curl alone
    compiler.write_text('#!/bin/sh\nexec cc -nostdinc "$@"\n')
    compiler.chmod(0o755)
    error = fails(ConfigError, "finds no headers of libcurl", build, tmp_path, str(compiler))
    assert "libcurl4-openssl-dev" in error.hint


TURNS = 4_000
STAGES = Stages(*[0.0] * len(Stages.__struct_fields__))
PROVENANCE = Provenance(
    "t-1", "", "statevector", "", Origin("main-0", "vm", 7, "0.1.0"), 1, 1, STAGES
)


def result(qubits: int = 3, **arrays: object) -> Result:
    registers = (("a", 2), ("b", 1))
    data = ResultData(RESULT_FORMAT, registers, qubits, 100, 1, **arrays)  # type: ignore[arg-type]
    return Result(DecodedResult.of(data, "t-1"), PROVENANCE)


def array(*values: float, kind: str = "<f8") -> bytes:
    return np.array(values, kind).tobytes()


COUNTED = result(outcome_width=1, outcomes=bytes([0, 3, 7]), counts=array(40, 60, 100, kind="<u4"))
EXACT = result(
    probability_width=1,
    probability_outcomes=bytes([0, 7]),
    probabilities=array(0.5, 0.5),
    expectations=array(0.5, 0.0, -0.5, 0.0),
)
WARNED = result(
    outcome_width=1,
    outcomes=bytes([3]),
    counts=array(40, kind="<u4"),
    device=DeviceRecord("fez", "ab", warnings=("one", 'a "second" in ä')),
)
STATE = result(statevector=array(*[0.25] * 16))
RESULTS = (COUNTED, EXACT, WARNED, STATE)


def page(*results: Result) -> bytes:
    content = ResultPage("t-1", len(results), 0, [])
    records = [to_json(each) for each in results]
    return msgspec.json.encode(msgspec.to_builtins(content) | {"results": records})


def beyond_the_end() -> bytes:
    """A file of numpy whose metadata are no text of 2000000 characters, at the end of the file."""
    name = b"metadata.npy"
    header = b"{'descr': '<U2000000', 'fortran_order': False, 'shape': (0,), }"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 46 + len(name), 0, 0)
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + len(end)) + header + end
    local = struct.pack("<4s22x2H", b"PK\3\4", len(name), 0) + name
    sizes = zlib.crc32(array), len(array), len(array), len(name)
    entry = struct.pack("<4s12x3IH12xI", b"PK\1\2", *sizes, 46 + len(name)) + name
    return entry + local + array


PROBLEM = problem_of(ProgramError("no gate", hint="a gate", line=3, column=5))
DOCUMENTS = [
    ("t", msgspec.json.encode(AcceptedTask("t-8k2f"))),
    ("t", msgspec.json.encode(to_json(COUNTED))),  # with its result
    ("s", msgspec.json.encode(AcceptedSweep(2, [SweepPart("t-1", 0, 1), SweepPart("t-2", 1, 1)]))),
    *(("r", msgspec.json.encode(to_json(each))) for each in RESULTS),
    *(("z", b"".join(each.parts(".npz")[1])) for each in RESULTS),
    ("z", beyond_the_end()),
    ("p", page(COUNTED, EXACT)),
    ("e", msgspec.json.encode(PROBLEM)),
    ("e", msgspec.json.encode(problem_of(BatchRefusedError("two", (ProgramError("one"),))))),
    (
        "q",
        b"OPENQASM 3.0; /* c */ input float[64] a; qubit[2] q; bit[n + 1] c; // x\nc = measure q;",
    ),
]


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized("fuzz", tmp_path_factory.mktemp("fuzz"))


def test_mutated_answers_and_programs_are_read_without_a_fault(fuzz: Path) -> None:
    corpus = fuzz.with_name("corpus")
    bodies = [
        kind.encode() + len(body).to_bytes(4, "little") + bytes(body) for kind, body in DOCUMENTS
    ]
    corpus.write_bytes(b"".join(bodies))
    results, refused = map(int, run([str(fuzz), str(corpus), str(TURNS)], env=environ()).split())
    readable = sum({"r": 1, "z": 1, "p": 2}.get(kind, 0) for kind, _ in DOCUMENTS)
    assert TURNS < results < readable * TURNS
    assert refused > TURNS
