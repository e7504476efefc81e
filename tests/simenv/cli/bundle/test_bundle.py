"""Bundles of a task, and their container format."""

import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import live
import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit, qasm3
from qiskit.circuit import Parameter
from shell import Shell

from simenv import errors
from simenv.cli.tasks import bundle
from simenv.client.circuits import load as load_circuit
from simenv.model import decode_program

POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "trap", "engine": "fault", "min": 0, "max": 1},
]
EXITS = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; rx(1000006) q[0]; measure q->c;'
RAISES = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; rx(1000004) q[0]; measure q->c;'


def ansatz() -> QuantumCircuit:
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2, 2)
    circuit.ry(a, 0)
    circuit.ry(a + b, 1)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


@pytest.fixture(params=["folder", "file.zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def bundled(environment: live.Live, task: str, place: Path) -> None:
    with environment.client() as client:
        bundle.collect(client, client.task(task), place)


def manifest(place: Path) -> Any:
    if place.suffix == ".zip":
        return json.loads(zipfile.ZipFile(place).read("bundle.json"))
    return json.loads((place / "bundle.json").read_text())


def test_bundle_of_failed_task_fails_the_same(shell: Shell, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "raises.qasm"
    file.write_text(RAISES)
    entries = ("--engine", "fault", "--shots", "33", "--seed", "4", "--wait", "--json")
    first = shell("submit", str(file), *entries)
    error = first.object["error"]
    assert first.code == 1
    assert f"simenv result {first.object['task']} --bundle" in error["hint"]
    result = shell("result", first.object["task"], "--bundle", str(place), "--json")
    assert result.code == 1, "how the task ended is how the command ends"
    outcome = manifest(place)
    assert (outcome["engine"], outcome["shots"], outcome["seed"]) == ("fault", 33, 4)
    assert outcome["failure"]["message"] == error["message"]
    assert outcome["versions"]["simenv"] == outcome["versions"]["service"]
    again = shell("submit", str(place), "--wait", "--json")
    assert (again.code, again.object["state"]) == (1, "FAILED")
    assert again.object["task"] != first.object["task"]
    same = [each["error"]["message"].partition(": ")[2] for each in (first.object, again.object)]
    assert same[0] == same[1] != ""


def test_bundle_of_poison_is_poison(environment: live.Live, shell: Shell, tmp_path: Path) -> None:
    with environment.client() as client:
        task = client.submit(EXITS, engine="fault", shots=10)
        first = task.exception(120)
    assert isinstance(first, errors.TaskFailedError)
    bundled(environment, task.id, tmp_path / "made")
    got = manifest(tmp_path / "made")
    assert (got["failure"]["reason"], got["attempts"], len(got["lost"])) == ("poison", 3, 2)
    again = shell("submit", str(tmp_path / "made"), "--wait", "--json").object
    assert again["error"]["reason"] == "poison"
    assert again["error"]["message"].partition(": ")[2] == first.message.partition(": ")[2]


def test_bundle_of_one_binding_is_same(environment: live.Live, shell: Shell, place: Path) -> None:
    values = np.array([[0.1, 0.2], [1.1, 1.2], [2.1, 2.2]])
    with environment.client() as client:
        tasks = client.submit_many((ansatz(), values), shots=500, seed=11, name="sweep")
        counts = [task.result(60).counts for task in tasks]
        last = tasks[2].id
    bundled(environment, last, place)
    assert (manifest(place)["binding"], manifest(place)["bindings"]) == (2, 1)
    again = shell("submit", str(place), "--wait", "--json", code=0)
    assert again.object["counts"] == counts[2]
    assert (again.object["binding"], again.object["seed"]) == (2, 11)


def test_bundle_of_sweep_gives_same_expectations(environment: live.Live, place: Path) -> None:
    values = np.arange(10.0).reshape(5, 2)
    observables = [{"ZZ": 0.1, "XI": 0.7}, "IZ"]
    with environment.client() as client:
        tasks = client.submit_many(
            (ansatz().remove_final_measurements(inplace=False), values),
            observables=observables,
            shots=None,
        )
        entries = [task.result(60).expectations for task in tasks]
        bundled(environment, tasks[0].id.partition(".")[0], place)
        again = client.history.resubmit(bundle.load(place))
        assert [task.result(60).expectations for task in again] == entries


def test_resubmitted_bundle_gives_same_amplitudes(environment: live.Live, place: Path) -> None:
    bare = ansatz().remove_final_measurements(inplace=False)
    with environment.client() as client:
        task = client.submit(
            bare, parameter_values=[0.3, 0.4], amplitudes=["10", "00"], observables="ZZ"
        )
        amplitudes = task.result(60).amplitudes
        bundled(environment, task.id, place)
        (again,) = client.history.resubmit(bundle.load(place))
        assert again.result(60).amplitudes == amplitudes


def test_bundled_text_and_program_give_task_counts(environment: live.Live, tmp_path: Path) -> None:
    circuit = ansatz()
    with environment.client() as client:
        task = client.submit(circuit, parameter_values=[0.3, 0.4], shots=100, seed=3)
        counts = task.result(60).counts
    bundled(environment, task.id, tmp_path / "made")
    text = (tmp_path / "made" / "program.qasm").read_text()
    with environment.client() as client:
        assert client.run(text, shots=100, seed=3).counts == counts
    packed = (tmp_path / "made" / "program.bin").read_bytes()
    assert decode_program(packed) == load_circuit(circuit).program
    assert qasm3.loads(text).num_qubits == 2
    assert json.loads((tmp_path / "made" / "result.json").read_text())["counts"] == counts
    assert "simenv run made" in (tmp_path / "made" / "README.txt").read_text()


def test_existing_bundle_is_not_overwritten(environment: live.Live, place: Path) -> None:
    with environment.client() as client:
        task = client.submit(RAISES, engine="fault")
        assert isinstance(task.exception(60), errors.TaskFailedError)
    bundled(environment, task.id, place)
    fails(errors.OptionError, "--bundle", bundled, environment, task.id, place)


def test_submit_options_with_bundle_are_refused(shell: Shell, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "raises.qasm"
    file.write_text(RAISES)
    task = shell("submit", str(file), "--engine", "fault", "--json").object["task"]
    shell("result", task, "--bundle", str(place))
    for each in (("--shots", "3"), ("--engine", "auto"), ("--task-name", "x")):
        result = shell("submit", str(place), *each)
        assert (result.code, each[0] in result.err) == (2, True)
    assert shell("submit", str(place)).out.startswith("t-")


def spoilt(name: str, body: bytes) -> dict[str, bytes]:
    return {"bundle.json": b"{}", "program.bin": b"", "bindings.npy": b"", name: body}


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, errors.ProgramError),
        ({"bundle.json": b"{}"}, errors.ProgramError),
        (spoilt("bundle.json", b"{}"), errors.ProgramError),
        (spoilt("bundle.json", b"\xff\x00"), errors.ProgramError),
        (spoilt("program.bin", bytes(bundle.MAX_BYTES + 1)), errors.LimitExceededError),
    ],
    ids=["empty", "no program", "no fields", "no text", "too large"],
)
def test_bad_bundle(place: Path, files: dict[str, bytes], error: type[errors.SimenvError]) -> None:
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in files.items():
                archive.writestr(name, body)
    else:
        bundle.write(place, files)
    fails(error, "", bundle.load, place)


def test_zip_suffix_on_file_that_is_no_archive_is_a_program_error(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_text("not at all")
    fails(errors.ProgramError, "cannot be read", bundle.load, tmp_path / "no.zip")


def test_malformed_bindings_file_is_a_program_error(environment: live.Live, tmp_path: Path) -> None:
    with environment.client() as client:
        task = client.submit(ansatz(), parameter_values=[0.3, 0.4], shots=100, seed=3)
        task.result(60)
    bundled(environment, task.id, tmp_path / "made")
    file = tmp_path / "made" / "bindings.npy"
    for body in (b"", b"\x93NUMPY", file.read_bytes()[:-1]):
        file.write_bytes(body)
        fails(errors.ProgramError, r"bindings\.npy", bundle.load, tmp_path / "made")
    np.save(file, np.zeros((2, 2)))
    fails(errors.ProgramError, "expected 1 rows", bundle.load, tmp_path / "made")


ENOUGH = 3 * 2**20  # of memory, beside the member itself


def zipped(path: Path, method: int, body: bytes, name: str = bundle.PROGRAM) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(bundle.MANIFEST, b"{}")
        archive.writestr(name, body)
    return path


def lying(path: Path, size: int) -> None:
    """Say in both headers of the last member that it has this size."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(bundle.PROGRAM)
    body = bytearray(path.read_bytes())
    claim = size.to_bytes(4, "little")
    for head, offset in ((info.header_offset, 22), (body.rindex(b"PK\x01\x02"), 24)):
        body[head + offset : head + offset + 4] = claim
    path.write_bytes(bytes(body))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bzip2_and_lzma_members_are_refused_unread(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "bomb.zip", method, bytes(80 * 2**20))
    assert path.stat().st_size < 20_000
    lying(path, 100)
    tracemalloc.start()
    try:
        fails(errors.ProgramError, "stored or deflated", bundle.read, path)
        assert tracemalloc.get_traced_memory()[1] < ENOUGH
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("claimed", [None, 100])
def test_large_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: int | None) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 10_000)
    path = zipped(tmp_path / "large.zip", zipfile.ZIP_DEFLATED, bytes(20_000))
    if claimed is not None:
        lying(path, claimed)
    fails((errors.LimitExceededError, errors.ProgramError), "large", bundle.read, path)


def test_corrupt_deflate_stream_is_a_program_error(tmp_path: Path) -> None:
    path = zipped(tmp_path / "torn.zip", zipfile.ZIP_DEFLATED, bytes(range(256)) * 40)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(bundle.PROGRAM)
    body = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(bundle.PROGRAM)
    body[start : start + 8] = b"\xff" * 8  # no block of deflate begins so
    path.write_bytes(bytes(body))
    fails(errors.ProgramError, "cannot be unpacked", bundle.read, path)
