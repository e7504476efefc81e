"""The class SimenvQPU over a base and jobs that are named and shaped as myQLM's.

The real classes are checked by `scripts/check_myqlm.py` alone, where a licensee has them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import myqlm_stand_in as qat
import numpy as np
import pytest
import simenv_myqlm
from failing import fails
from simenv_myqlm import GatewayConnection, handler
from simenv_myqlm.errors import UnsupportedError
from simenv_myqlm.records import PulseJob
from simenv_myqlm.runner import Runner

TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
GATES = {
    "H": qat.definition("H"), "X": qat.definition("X"), "CNOT": qat.definition("CNOT"),
    "RY": qat.definition("RY", (0.5,)), "_1": qat.definition(matrix=TURN),
    "_2": qat.definition("TURN", (0.3,), TURN), "_3": qat.definition(subgate="_2"),
    "_4": qat.definition("D-TURN", (0.3,), TURN.T), "_5": qat.definition(subgate="RY"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    qat.install(monkeypatch)
    handler.qpu_class.cache_clear()
    yield
    handler.qpu_class.cache_clear()


@pytest.fixture
def qpu(connection: GatewayConnection) -> Any:
    made = simenv_myqlm.SimenvQPU(url=connection.url, token=connection._token, seed=5)
    yield made
    made._runner.connection.close()


def circuit(*ops: Any, nbqbits: int = 2, gates: Any = GATES) -> qat.Circuit:
    return qat.Circuit(nbqbits, list(ops), gates)


BELL = (("H", [0]), ("CNOT", [0, 1]))


def test_a_job_gives_samples_and_a_batch_gives_results_in_order(qpu: Any) -> None:
    result = qpu.submit(qat.job(circuit(*BELL), nbshots=1_000))
    assert [sample.state for sample in result.raw_data] == [0, 3]
    assert sum(sample.probability for sample in result.raw_data) == pytest.approx(1)
    assert all(sample.err > 0 for sample in result.raw_data)
    assert result.meta_data["engine"]
    turned = [
        qat.job(circuit(("RY", [0]), nbqbits=1, gates={"RY": qat.definition("RY", (0.1 * k,))}))
        for k in range(10)
    ]
    found = qpu.submit(SimpleNamespace(jobs=turned)).results
    for k, each in enumerate(found):
        assert each.raw_data[0].probability == pytest.approx(np.cos(0.05 * k) ** 2)
    assert len({each.meta_data["task"].partition(".")[0] for each in found}) == 1


def test_batches_of_two_threads_run_once_each(qpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, sent, both = qpu._runner.run, [], Barrier(2)
    base = type(qpu).__mro__[1]
    submit = base.submit

    def counted(records: Any) -> Any:
        sent.append(len(records))
        return run(records)

    def together(*given: Any) -> Any:
        both.wait(60)
        return submit(*given)

    monkeypatch.setattr(qpu._runner, "run", counted)
    monkeypatch.setattr(base, "submit", together)
    batches = [
        SimpleNamespace(jobs=[qat.job(circuit((gate, [0]))), qat.job(circuit((gate, [1])))])
        for gate in ("X", "H")
    ]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(qpu.submit, batches))
    assert sent == [2, 2]
    assert [[len(each.raw_data) for each in batch.results] for batch in found] == [[1, 1], [2, 2]]


def test_gates_of_matrices_have_the_controls_of_their_definitions(qpu: Any) -> None:
    ops = [("X", [1]), ("_3", [1, 0]), ("_1", [0]), ("_4", [0]), ("_5", [1, 0])]
    (record,) = [handler.record_of(qat.job(circuit(*ops)))]
    assert [each.name for each in record.circuit.instructions] == [
        "X", "C-TURN", "_1", "TURN", "C-RY"
    ]  # fmt: skip
    shares = {each.state: each.probability for each in qpu.submit(qat.job(circuit(*ops))).raw_data}
    ry = np.array([[np.cos(0.25), -np.sin(0.25)], [np.sin(0.25), np.cos(0.25)]])
    state = ry @ TURN.T @ TURN @ TURN @ [1, 0]
    assert [shares[1], shares[3]] == pytest.approx(list(state**2))


def test_observables_have_value_and_error(qpu: Any) -> None:
    terms = [SimpleNamespace(op="ZZ", qbits=[0, 1], coeff=2), SimpleNamespace(op="X", qbits=[0],
             coeff=1)]  # fmt: skip
    observable = SimpleNamespace(terms=terms, constant_coeff=1, _ising=None)
    more = {"type": qat.ProcessingType.OBSERVABLE, "observable": observable}
    exact = qpu.submit(qat.job(circuit(*BELL), **more))
    assert (exact.value, exact.error) == (pytest.approx(3.0), None)
    assert qpu.submit(qat.job(circuit(*BELL), nbshots=1_000, **more)).error > 0


def test_measurements_and_conditions_become_instructions(qpu: Any) -> None:
    kinds = qat.OpType
    ops = [
        ("H", [0]), qat.op("", [0], kinds.MEASURE, cbits=[0]),
        qat.op("", [], kinds.CLASSIC, cbits=[1], formula="NOT 0"), qat.op("", [1], kinds.LOCK),
        qat.op("X", [1], kinds.CLASSICCTRL, cbits=[1]), qat.op("", [0], kinds.RESET, cbits=[0]),
        qat.op("", [], kinds.BREAK, formula="0"),
    ]  # fmt: skip
    result = qpu.submit(qat.job(circuit(*ops), nbshots=100))
    assert {
        (each.state, each.intermediate_measurements[0].cbits[0]) for each in result.raw_data
    } == {(0, True), (1, False)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"circuit": None}, "neither a circuit nor a schedule"),
        ({"psi_0": "01"}, "psi_0"), ({"type": 7}, "type 7"),
        ({"type": qat.ProcessingType.OBSERVABLE}, "no sum of Pauli terms"),
        ({"circuit": circuit(qat.op("", [0], 9))}, "type 9"),
    ],
)  # fmt: skip
def test_jobs_that_cannot_run_are_refused(changes: dict[str, Any], text: str) -> None:
    job = qat.job(**{"circuit": circuit(*BELL)} | changes)
    assert text in fails(UnsupportedError, "", handler.record_of, job).message


def test_free_parameters_are_named(connection: GatewayConnection) -> None:
    free = SimpleNamespace(get_variables=lambda: ["theta"])
    made = handler.record_of(
        qat.job(circuit(("RY", [0]), gates={"RY": qat.definition("RY", (free,))}))
    )
    fails(UnsupportedError, "free parameter", Runner(connection).run, [made])


def test_stored_parameters_are_angles() -> None:
    stored = SimpleNamespace(double_p=0.25, int_p=None)
    gates = {"RY": qat.definition("RY", (stored,)), "RX": qat.definition("RX", (1,))}
    found = handler.record_of(qat.job(circuit(("RY", [0]), ("RX", [0]), gates=gates)))
    assert [each.params for each in found.circuit.instructions] == [(0.25,), (1.0,)]


def test_schedules_carry_sequences() -> None:
    schedule = SimpleNamespace(_other=json.dumps({"abstr_seq": "{}", "modulation": True}).encode())
    job = qat.job(None, schedule=schedule, nbshots=10)
    assert handler.record_of(job) == PulseJob("{}", 10, modulation=True)


def hardware(**more: Any) -> SimpleNamespace:
    kraus = [np.sqrt(0.97) * np.eye(2), *(np.sqrt(0.01) * np.asarray(each) for each in (
        [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]))]  # fmt: skip
    channel = SimpleNamespace(kraus_operators=kraus)
    times = {"H": 35, "RX": lambda _: 35.0, "measure": 4_000}
    idle = [SimpleNamespace(T_1=5e4), lambda *_: SimpleNamespace(T_phi=1e5)]
    return SimpleNamespace(
        **{"gates_specification": SimpleNamespace(gate_times=times), "idle_noise": idle,
           "gate_noise": {"H": channel, "RX": lambda *_: channel}} | more
    )  # fmt: skip


def test_hardware_model_becomes_a_snapshot() -> None:
    found = simenv_myqlm.device_of(hardware(), "chip", 2, readout_error=0.02)
    assert {gate["name"]: gate["error"] for gate in found["gates"]} == {
        "h": pytest.approx(0.02), "rx": pytest.approx(0.02)
    }  # fmt: skip
    assert found["qubits"][1] == {
        "t1_us": 50.0, "t2_us": pytest.approx(50.0), "readout_error": 0.02, "readout_ns": 4_000
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gate_noise": {"H": {0: None}}}, "noise of single qubits"),
        ({"gate_noise": {"H": SimpleNamespace()}}, "no Kraus operators"),
        ({"idle_noise": [SimpleNamespace(x=1)]}, "idle noise SimpleNamespace"),
        (
            {"gates_specification": SimpleNamespace(gate_times={"RX": lambda angle: angle})},
            "depends on the angle",
        ),
    ],
)
def test_hardware_that_a_device_cannot_have_is_refused(changes: Any, text: str) -> None:
    model = hardware(**changes)
    assert text in fails(UnsupportedError, "", simenv_myqlm.device_of, model, "chip", 2).message
