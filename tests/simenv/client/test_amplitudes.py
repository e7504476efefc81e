"""The output `amplitudes` through a real environment: engines, sweeps, files, limits."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import Statevector

import simenv
from simenv.client.submission.prepare import prepare_one
from simenv.errors import (
    InfeasibleError,
    LimitExceededError,
    OptionError,
    ProgramError,
    SimenvError,
)
from simenv.model import Observable, TaskOptions
from simenv.model.result import AmplitudeResultData, ResultData
from simenv.service.admission import rules

STRINGS = ["0101", "1111", "0000", "1000"]


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=2) as client:
        yield client


def plain() -> QuantumCircuit:
    return random_circuit(4, 6, max_operands=2, seed=11)


def assert_are(result: simenv.Result, circuit: QuantumCircuit, strings: list[str]) -> None:
    state = Statevector(circuit)
    assert list(result.amplitudes) == strings
    for text, value in result.amplitudes.items():
        assert value == pytest.approx(state[int(text, 2)], abs=1e-10)


@pytest.mark.parametrize("engine", ["auto", "statevector", "mps", "contraction"])
def test_amplitudes_are_in_the_order_of_the_strings(env: simenv.Client, engine: str) -> None:
    if engine == "contraction":
        pytest.importorskip("cotengra")
    result = env.run(plain(), amplitudes=STRINGS, engine=engine)
    assert_are(result, plain(), STRINGS)
    assert result.has("amplitudes")
    html = result._repr_html_()
    assert all(f"<td>{text}</td><td>{result.amplitudes[text]:.6g}</td>" in html for text in STRINGS)
    assert not result.has("counts")


def test_one_string_alone_is_a_list_of_one(env: simenv.Client) -> None:
    assert list(env.run(plain(), amplitudes="0110").amplitudes) == ["0110"]


def test_bindings_have_amplitudes_of_their_own(env: simenv.Client) -> None:
    angle = Parameter("a")
    circuit = plain()
    circuit.rx(angle, 2)
    values = np.linspace(0.0, 3.0, 150)
    tasks = env.submit_many(
        (circuit, {angle: values}), amplitudes=STRINGS, observables="ZZIZ", shots=None
    )
    for task, value in zip(tasks, values.tolist(), strict=True):
        result, bound = task.result(), circuit.assign_parameters({angle: value})
        assert_are(result, bound, STRINGS)
        expected = Statevector(bound).expectation_value(_zziz()).real
        assert result.expectation == pytest.approx(expected, abs=1e-10)


def _zziz() -> object:
    from qiskit.quantum_info import Pauli

    return Pauli("ZZIZ")


def test_saved_and_copied_results_have_the_amplitudes(env: simenv.Client, tmp_path: Path) -> None:
    result = env.run(plain(), amplitudes=STRINGS, precision="single")
    pairs = {text: [value.real, value.imag] for text, value in result.amplitudes.items()}
    assert result.to_dict()["amplitudes"] == pairs
    assert "amplitudes" not in env.run(plain(), outputs="statevector").to_dict()
    assert copy.copy(result).amplitudes == result.amplitudes
    for ending in ("h5", "npz", "json"):
        result.save(tmp_path / f"r.{ending}")
    assert json.loads((tmp_path / "r.json").read_text())["amplitudes"] == pairs
    values = np.array(list(result.amplitudes.values()), np.complex64)
    bits = np.array([[int(bit) for bit in text] for text in STRINGS], np.uint8)
    with h5py.File(tmp_path / "r.h5") as file, np.load(tmp_path / "r.npz") as arrays:
        for saved in (file, arrays):
            np.testing.assert_array_equal(np.asarray(saved["amplitudes/values"]), values)
            np.testing.assert_array_equal(np.asarray(saved["amplitudes/bitstrings"]), bits)


def test_many_strings_travel_in_a_file(env: simenv.Client) -> None:
    circuit = QuantumCircuit(16)
    circuit.ry(0.3, range(16))
    strings = [format(k, "016b") for k in range(65_536)]
    task = env.submit(circuit, amplitudes=strings)
    result = task.result()
    assert result._decoded.data.bit_strings == b""  # no part of the message
    state = Statevector(circuit).data
    np.testing.assert_allclose(list(result.amplitudes.values()), state, atol=1e-12)
    assert copy.copy(result).amplitudes == result.amplitudes
    assert env.task(task.id).result().amplitudes == result.amplitudes


WRONG: dict[str, tuple[object, type[SimenvError], str]] = {
    "none": ([], OptionError, "go together"),
    "narrow": (["010"], OptionError, "'010' has 3 bits, the circuit 4"),
    "wide": (["0101", "01010"], OptionError, "'01010' has 5 bits"),
    "empty": (["0101", ""], OptionError, "'' is not made of 0 and 1"),
    "spaces": (["01 01"], OptionError, "'01 01' is not made of 0 and 1"),
    "letters": (["01x1"], OptionError, "'01x1' is not made of 0 and 1"),
    "twice": (["0101", "1111", "0101"], OptionError, "'0101' is there twice"),
    "number": (5, OptionError, "amplitudes=5"),
    "numbers": ([5, 6], OptionError, r"amplitudes=\(5, 6\)"),
    "many": (["0"] * 65_537, LimitExceededError, "65537 bit strings .* 65536 and 4194304"),
    "long": (["0" * 60_000] * 70, LimitExceededError, "4200000 bits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_strings_are_named(name: str) -> None:
    strings, kind, text = WRONG[name]
    with pytest.raises(kind, match=text):
        prepare_one(plain(), {"amplitudes": strings})


def test_circuits_and_engines_without_amplitudes_are_refused(env: simenv.Client) -> None:
    measured = plain().measure_all(inplace=False)
    with pytest.raises(ProgramError, match="'amplitudes' was asked of a circuit that measures"):
        env.submit(measured, amplitudes=STRINGS)
    with pytest.raises(OptionError, match="go together"):
        env.submit(plain(), outputs="amplitudes")
    with pytest.raises(InfeasibleError, match="'stabilizer' has no output 'amplitudes'"):
        env.submit(plain(), amplitudes=STRINGS, engine="stabilizer")
    reset = QuantumCircuit(4)
    reset.h(0)
    reset.cx(0, 1)
    reset.reset(0)
    reset.h(0)
    with pytest.raises(OptionError, match="'amplitudes' was asked of a circuit that measures, re"):
        env.submit(reset, amplitudes=STRINGS)
    with pytest.raises(SimenvError, match="the amplitudes are for 4 qubits, this has 5"):
        env.submit_many([plain(), QuantumCircuit(5)], amplitudes=STRINGS)


def terms(*strings: str, outputs: tuple[str, ...] = ("amplitudes",)) -> TaskOptions:
    return TaskOptions(outputs=outputs, observables=(Observable(strings, b""),))


def test_service_checks_strings_of_any_client() -> None:
    rules.check_terms(terms("01", "10"))
    pair = Observable(("ZZ",), np.ones(1).tobytes())
    both = TaskOptions(
        outputs=("expectation", "amplitudes"), observables=(pair, Observable(("01",), b""))
    )
    rules.check_terms(both)
    assert (both.pauli_sums, both.bit_strings) == ((pair,), ("01",))
    for wrong, text in (
        (terms("0x"), "'0x' is not made"),
        (terms("01", "01"), "twice"),
        (terms("01", outputs=("counts",)), "go together"),
        (TaskOptions(outputs=("amplitudes",)), "go together"),
        (msgspec.structs.replace(both, observables=both.observables[::-1]), "go together"),
        (terms("01", outputs=("expectation", "amplitudes")), "'expectation' and observables"),
    ):
        with pytest.raises(OptionError, match=text):
            rules.check_terms(wrong)


def test_bytes_of_tasks_and_results_without_amplitudes_are_those_of_before() -> None:
    prepared = prepare_one(plain(), {"amplitudes": STRINGS, "observables": "ZZII", "seed": 3})
    without = prepare_one(plain(), {"observables": "ZZII", "seed": 3})
    fields = msgspec.structs.astuple(prepared.terms)
    assert len(fields) == len(msgspec.structs.astuple(without.terms)) == 24
    assert without.terms.bit_strings == ()
    packed = msgspec.msgpack.encode(ResultData(2, (), 2, 0, 0))
    decoded = msgspec.msgpack.decode(packed, type=AmplitudeResultData)
    assert (decoded.bit_strings, decoded.amplitudes) == (b"", b"")
