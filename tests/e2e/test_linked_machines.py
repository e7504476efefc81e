"""Circuits on several QPUs as one device, through an environment."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from shell import Shell

import simenv
from simenv.client.client import Client
from simenv.errors import NotFoundError, OptionError
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

HALVES = ["a", "a", "b", "b"]
LINK = simenv.Link("a.1", "b.0", fidelity=0.95, rate_hz=1e5)
MACHINE = simenv.Machine({"a": "trapped-ions", "b": "ideal"}, [LINK])


def ghz() -> QuantumCircuit:
    result = QuantumCircuit(4)
    result.h(0)
    for qubit in range(3):
        result.cx(qubit, qubit + 1)
    return result


def measured() -> QuantumCircuit:
    result = ghz()
    result.measure_all()
    return result


@pytest.mark.parametrize("engine", ["statevector", "densitymatrix", "stabilizer", "mps"])
def test_counts_show_the_registers_of_the_program_alone(env: Client, engine: str) -> None:
    result = env.run(
        measured(), device=MACHINE, partition=HALVES, noise="off", engine=engine, seed=3
    )
    assert set(result.counts) == {"0000", "1111"}
    assert result.registers == (("meas", 4),)
    assert (result.pairs, result.modules) == ({"a.1-b.0": 1}, tuple(HALVES))
    assert result.wait_s == pytest.approx(1e-5)
    assert set(result.to_dict()) >= {"pairs", "modules", "wait_s"}


def test_the_loss_of_a_circuit_is_that_of_its_pair(env: Client) -> None:
    """Of a Werner pair of F = 0.95, ZZ between the modules has 1 - 4/3 (1 - F)."""
    device = simenv.Machine({"a": "ideal", "b": "ideal"}, [LINK])
    result = env.run(
        ghz(), device=device, partition=HALVES, shots=None, observables=["ZIIZ", "IIZZ", "XXXX"]
    )
    assert result.expectations == pytest.approx([1 - 0.2 / 3, 1.0, 1 - 0.2 / 3])


def test_two_runs_of_a_seed_are_equal_and_memory_has_the_program_s_bits(env: Client) -> None:
    options = {"device": MACHINE, "partition": HALVES, "seed": 9, "shots": 200}
    first = env.run(measured(), outputs=("counts", "memory"), **options)
    assert first.counts == env.run(measured(), **options).counts
    assert {len(each) for each in first.memory_strings()} == {4}


def test_a_sweep_is_compiled_once(env: Client) -> None:
    angles = ParameterVector("t", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(angles[0], 0)
    circuit.crx(angles[1], 0, 1)
    circuit.measure_all()
    values = np.array([[np.pi, np.pi], [np.pi, 0.0], [0.0, np.pi]])
    tasks = env.submit_many(
        (circuit, values), device=MACHINE, partition=["a", "b"], noise="off", seed=1, shots=50
    )
    assert [task.result().counts for task in tasks] == [{"11": 50}, {"01": 50}, {"00": 50}]


def test_frontends_of_qiskit_run_on_the_name_of_a_machine(env: Client) -> None:
    name = env.device_name(MACHINE)
    backend = SimenvBackend(device=name, env=env)
    counts = backend.run(measured(), shots=100, noise="off", seed_simulator=5).result().get_counts()
    assert set(counts) == {"0000", "1111"}
    pub = SimenvSampler(backend).run([measured()], shots=100).result()[0]
    assert pub.data.meas.num_bits == 4
    values = SimenvEstimator(backend).run([(ghz(), "ZZZZ")]).result()[0].data.evs
    assert float(values) > 0.8


def test_show_knows_the_name_of_a_machine(env: Client, shell: Shell) -> None:
    name = env.device_name(MACHINE)
    outcome = shell("devices", "show", name, code=0)
    assert f"{name} (stored)" in outcome.out
    assert "a: 32 qubits (1 for links), b: 32 qubits (1 for links)" in outcome.out
    found = shell("devices", "show", name, "--json", code=0).object
    assert found["digest"] == env.device(name).calibration_id
    assert found["snapshot"]["links"][0]["fidelity"] == LINK.fidelity
    assert "no device 'machine-x'" in shell("devices", "show", "machine-x", code=4).err


def test_a_transpiled_circuit_is_that_of_a_submission(env: Client) -> None:
    name = env.device_name(MACHINE)
    wide = QuantumCircuit(40)  # more than one module holds
    wide.h(0)
    for qubit in range(1, 40):
        wide.cx(0, qubit)
    wide.measure_all()
    compiled = env.transpile(wide, name)
    result = env.run(compiled, device=name, compile="never", seed=4, shots=20, noise="off")
    same = env.run(wide, device=name, seed=4, shots=20, noise="off")
    assert result.counts == same.counts
    assert result.pairs == same.pairs == {"a.1-b.0": 1}
    assert len(compiled.layout.final_index_layout()) == 40


def test_explain_states_pairs_waits_and_the_cost_of_cuts(env: Client) -> None:
    answer = env.explain(measured(), device=MACHINE, partition=HALVES)
    (use,) = answer.links
    assert (use.link, use.pairs, use.fidelity) == ("a.1-b.0", 1, pytest.approx(0.95))
    assert (answer.remote_gates, answer.cutting_overhead) == (1, 9.0)
    assert env.explain(measured(), device="trapped-ions").links == ()


def test_one_qpu_has_no_pairs_and_takes_no_partition(env: Client) -> None:
    result = env.run(measured(), device="ideal", seed=1)
    assert (result.pairs, result.modules, result.wait_s) == (None, None, None)
    with pytest.raises(OptionError, match="which is one QPU"):
        env.run(measured(), device="ideal", partition=HALVES)


@pytest.mark.parametrize(
    ("machine", "error", "text"),
    [
        (simenv.Machine({"a": "nosuch", "b": "ideal"}, [LINK]), NotFoundError, "device 'nosuch'"),
        (simenv.Machine({"a": "ideal"}, [LINK]), OptionError, "1 modules"),
        (
            simenv.Machine({"a": "ideal", "b": "neutral-atoms"}, [LINK]),
            OptionError,
            "has no measurements and conditions inside a circuit",
        ),
        (
            simenv.Machine({"a": "ideal", "b": "ideal"}, [simenv.Link("a.1", "b.0", rate_hz=0)]),
            OptionError,
            "one of fidelity and paulis",
        ),
    ],
)
def test_bad_machines_are_refused_by_name(
    env: Client, machine: simenv.Machine, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        env.run(measured(), device=machine)


def test_names_of_machines_that_were_not_stored_are_refused(env: Client) -> None:
    with pytest.raises(NotFoundError, match="there is no device 'machine-0"):
        env.run(measured(), device="machine-" + "0" * 32)
