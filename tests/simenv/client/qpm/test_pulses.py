"""Pulse sequences of a host: run, polled, pushed and described; annealing is refused by name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from failing import fails
from hosts import Endpoint, completion
from live import Live, environment
from waiting import until

import simenv
from simenv.client.qpm.provider import QPM
from simenv.client.submission import untrusted_pulses
from simenv.qpm.contract import ExecutionError, InProgressError
from simenv.qpm_check.circuits import FIRST_ATOM

pulser = pytest.importorskip("pulser")


ENDLESS = FIRST_ATOM["data"].replace('"duration": 500', f'"duration": {10**9}')


def info(circuit: Any = FIRST_ATOM, **more: Any) -> dict[str, Any]:
    return {"circuit": circuit, "num_qubits": 3, "num_shots": 200, "seed": 5, **more}


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    untrusted_pulses.SEQUENCES.close()


def sequence(atoms: int = 3, rabi: Any = 7.0, spacing_um: float = 5.5) -> Any:
    """A resonant pulse on a chain of atoms in blockade of their neighbours."""
    register = pulser.Register.from_coordinates(
        [(spacing_um * k, 0) for k in range(atoms)], prefix="a"
    )
    result = pulser.Sequence(register, pulser.MockDevice)
    result.declare_channel("laser", "rydberg_global")
    if isinstance(rabi, str):
        rabi = result.declare_variable(rabi)
    result.add(pulser.Pulse.ConstantPulse(150, rabi, 1.0, 0.3), "laser")
    return result


def test_counts_equal_those_of_a_client_in_every_delivery(qpm: QPM, env: simenv.Client) -> None:
    direct: Any = env.run(sequence(), shots=200, seed=5)
    asked = info({"format": "pulser-abstract", "data": sequence().to_abstract_repr()})
    envelope = qpm.sync_run(asked)
    record = envelope["result"]
    assert record["result"] == {"counts": direct.counts}
    facts = record["metadata"]["pulses"]
    assert facts["atoms"] == list(direct.atoms) == ["a0", "a1", "a2"]
    assert facts["occupations"] == direct.occupations.tolist()
    assert facts["error"] == direct.error > 0
    assert (facts["basis"], facts["trajectories"]) == ("ground-rydberg", 1)
    accepted = qpm.async_run(asked)
    assert accepted["outcome"] == "ACCEPTED"
    assert completion(qpm, accepted["cid"])["result"] == record["result"]
    endpoint = Endpoint()
    qpm.register_event_notification(endpoint, 1, "queue")
    cid = qpm.async_run(asked)["cid"]
    pushed = endpoint.get().payload
    assert (pushed["cid"], pushed["result"]) == (cid, record["result"])
    read = qpm.get_task_metadata(task_id=accepted["qtask_id"])["provider_metadata"]
    assert (read["engine"], read["seed"], read["shots"]) == ("rydberg", 5, 200)
    single = qpm.revision1
    assert single.sync_run(asked)["result"] == direct.counts
    cid = single.async_run(asked)
    assert until(lambda: _peeked(single, cid))["result"] == direct.counts
    assert single.sync_run(info(sequence()))["result"] == direct.counts, "the object itself"


def _peeked(single: Any, cid: str) -> Any:
    try:
        return single.peek_cq(cid)
    except InProgressError:
        return None


def test_amplitudes_have_the_last_atom_as_least_index_bit(qpm: QPM) -> None:
    result = qpm.sync_run(info(return_statevector=True))["result"]["result"]
    vector = result["statevector"]
    assert (vector["num_qubits"], vector["num_amplitudes"]) == (3, 8)
    weights = [re**2 + im**2 for re, im in vector["data"]]
    assert weights[0b100] == pytest.approx(1.0, abs=1e-4)
    assert set(result["counts"]) <= {"100", "000"}
    wide = info(sequence(21), return_statevector=True)
    fails(ExecutionError, "return_statevector of 21 qubits", qpm.sync_run, wide)


def test_variables_noise_and_options_of_the_engine_reach_the_task(qpm: QPM) -> None:
    parametrized = sequence(2, "rabi")
    still = qpm.sync_run(info(parametrized, parameter_values={"rabi": 0.0}))
    assert still["result"]["result"]["counts"] == {"00": 200}
    model = pulser.NoiseModel(p_false_pos=0.3, p_false_neg=0.0)
    for noise in (model.to_abstract_repr(), json.loads(model.to_abstract_repr())):
        values = {"parameter_values": {"rabi": 0.0}, "options": {"trajectories": 4}}
        record = qpm.sync_run(info(parametrized, noise=noise, **values))["result"]
        assert record["result"]["counts"]["00"] < 150, "errors of detection"
        assert record["metadata"]["pulses"]["trajectories"] == 4
    assert "warnings" not in record["metadata"]
    warned = qpm.sync_run(info(frequency=3))["result"]["metadata"]["warnings"]
    assert warned == ["info: unknown fields have no effect: frequency"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"circuit": {"format": "pulser-abstract", "data": "{}"}}, "refused by pulser"),
        ({"circuit": {"format": "pulser-abstract", "data": 4}}, "to_abstract_repr"),
        ({"circuit": {"format": "pulser-abstract"}}, "to_abstract_repr"),
        ({"circuit": {"format": "pulser-abstract", "data": ENDLESS}}, "the limit is"),
        ({"noise": {"gate.depolarizing": 2}}, "noise="),
        ({"noise": '{"noise_types": ["weather"]}'}, "the noise model: "),
        ({"verbatim": True}, "verbatim"),
        ({"qubit_mapping": [0, 1, 2]}, "qubit_mapping"),
        ({"prefer": "hardware"}, "prefer"),
        ({"parameter_values": 4}, "parameter_values=4"),
        ({"options": {"bond": 4}}, "no option 'bond'"),
        ({"options": {"tolerance": "x"}}, "tolerance"),
    ],
)
def test_invalid_sequences_and_fields_are_refused_by_name(
    qpm: QPM, more: dict[str, Any], message: str
) -> None:
    fails(ExecutionError, message, qpm.sync_run, info(**more))


def test_refused_sequence_has_a_completion(qpm: QPM) -> None:
    accepted = qpm.async_run(info({"format": "pulser-abstract", "data": '{"version": "1"}'}))
    assert accepted["outcome"] == "FAILED"
    record = completion(qpm, accepted["cid"])
    assert (record["rc"], record["reason"]) == (1, "provider-submission-failed")
    assert "refused by pulser" in record["message"]


@pytest.mark.parametrize("form", ["bqm", "QUBO", "ising", "ocean"])
def test_annealing_is_refused_with_the_reason_and_the_package(qpm: QPM, form: str) -> None:
    problem = {"circuit": {"format": form, "data": "{}"}, "num_shots": 10}
    for call in (qpm.sync_run, qpm.async_run, qpm.revision1.async_run):
        error = fails(ExecutionError, "annealing is not emulated", call, problem)
        assert form in error.message
        assert "dwave-samplers" in error.hint
    refused = fails(
        ExecutionError, "neither qasm nor circuit", qpm.sync_run, {"num_shots": 1, "analog": "{}"}
    )
    assert "pulser-abstract" in refused.hint


def test_capability_map_has_paradigms_with_pools_and_reasons(live: Live, qpm: QPM) -> None:
    table = qpm.capability_map()["paradigms"]
    assert table["gate"]["libraries"] == table["analog"]["libraries"] == ["main"]
    assert table["analog"]["formats"] == ["pulser-abstract"]
    assert (table["annealing"]["libraries"], table["annealing"]["formats"]) == ([], [])
    assert "no physics" in table["annealing"]["reason"]
    assert "dwave-samplers" in table["annealing"]["hint"]
    record = qpm.get_device_info(lib="main")
    assert record["metadata"]["paradigms"] == ["gate", "analog"]
    assert "pulser-abstract" in qpm.query().properties["circuit_formats"]


def test_pool_of_atoms_is_described_and_checks_sequences_by_its_machine() -> None:
    pools = [{"name": "atoms", "device": "neutral-atoms-analog"}, {"name": "gates", "min": 0}]
    with environment(pools=pools, durability="process") as live, live.client() as env:
        atoms = env.qpm_with(pool="atoms")
        assert atoms.query().properties["circuit_formats"] == ["pulser-abstract"]
        record = atoms.get_device_info()
        assert (record["device"]["technology"], record["metadata"]["paradigms"]) == (
            "neutral-atom",
            ["analog"],
        )
        machine = record["extensions"]["simenv"]["analog"]
        assert pulser.devices.Device.from_abstract_repr(machine["pulser_device"]).max_atom_num
        snapshot = atoms.get_calibration_snapshot()
        told = snapshot["extensions"]["simenv"]["analog_metrics"]
        assert snapshot["calibration"]["observation_count"] == len(told) > 2
        close = info(sequence(2, spacing_um=2.0))
        fails(ExecutionError, "minimal distance between atoms", atoms.sync_run, close)
        text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; measure q -> c;'
        fails(ExecutionError, "pulse sequences", atoms.sync_run, {"qasm": text, "num_shots": 1})
        table = env.qpm.capability_map()["paradigms"]
        assert table["analog"]["libraries"] == ["atoms", "gates"]
        assert table["gate"]["libraries"] == ["gates"]
