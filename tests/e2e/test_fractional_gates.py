"""Fractional gates of a device, through an environment."""

import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from shell import Shell

from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.errors import BatchRefusedError, InfeasibleError, NoDeviceError, OptionError
from simenv.frontends.qiskit import SimenvBackend

ON_FEZ = {"device": "fez", "fractional_gates": True}


def ising(angle: float | Parameter = 0.4, width: int = 3) -> QuantumCircuit:
    circuit = QuantumCircuit(width)
    for _ in range(2):
        circuit.rx(0.6, range(width))
        for first in range(width - 1):
            circuit.rzz(angle, first, first + 1)
    circuit.measure_all()
    return circuit


def gates(task: Task) -> set[str]:
    return {each.name for each in task.circuit().data} - {"measure", "barrier"}


def native(angle: float | Parameter) -> QuantumCircuit:
    circuit = QuantumCircuit(156, 2)  # where fez has them
    circuit.rx(0.3, 1)
    circuit.rzz(angle, 1, 2)
    circuit.measure([1, 2], [0, 1])
    return circuit


def test_compiled_circuits_have_fractional_gates_on_request(env: Client) -> None:
    task = env.submit(ising(), seed=2, **ON_FEZ)
    result = task.result()
    assert {"rx", "rzz"} <= gates(task)
    assert "fractional gates" in result.to_dict()["compiled"]
    without = env.submit(ising(), device="fez", seed=2)
    assert gates(without).isdisjoint({"rx", "rzz"})
    assert "fractional" not in without.result().to_dict()["compiled"]
    assert sum(result.counts.values()) == 1024


def test_each_value_of_a_sweep_is_within_the_limits_of_rzz(env: Client) -> None:
    angle = Parameter("a")
    values = [[-3.0], [-0.2], [0.4], [2.5]]
    options = {"shots": None, "observables": ["ZIZ"], "noise": "off", **ON_FEZ}
    circuit = ising(angle).remove_final_measurements(inplace=False)
    tasks = env.submit_many((circuit, values), **options)
    assert "rzz" in gates(tasks[0])
    for (value,), task in zip(values, tasks, strict=True):
        one = circuit.assign_parameters([value])
        expected = env.run(one, shots=None, observables=["ZIZ"]).expectations
        assert task.result().expectations == pytest.approx(expected, abs=1e-9)


def test_circuit_in_fractional_gates_runs_as_it_is_written(env: Client) -> None:
    for options in ({}, {"compile": "never"}):
        task = env.submit(native(0.5), device="fez", **options)
        assert gates(task) == {"rx", "rzz"}
        task.result()
    with pytest.raises(InfeasibleError, match="rzz"):
        env.submit(native(-0.5), device="fez", compile="never")
    with pytest.raises(BatchRefusedError, match=r"binding 1.*rzz"):
        env.submit_many((native(Parameter("a")), [[0.5], [2.0]]), device="fez", compile="never")


def test_request_without_such_gates_is_refused_by_name(env: Client) -> None:
    with pytest.raises(OptionError, match=r"fractional_gates for device superconducting-lattice"):
        env.submit(ising(), device="superconducting-lattice", fractional_gates=True)
    with pytest.raises(NoDeviceError, match="fractional_gates needs an emulated device"):
        env.submit(ising(), fractional_gates=True)
    with pytest.raises(OptionError, match="fractional_gates=1"):
        env.submit(ising(), device="fez", fractional_gates=1)
    with pytest.raises(OptionError, match="fractional_gates for device manila"):
        env.transpile(ising(), "manila", fractional_gates=True)


def test_transpile_and_the_backend_of_qiskit_have_them_on_request(env: Client) -> None:
    for level, name in ((None, "rzz"), (2, "rx")):
        compiled = env.transpile(ising(), "fez", level=level, fractional_gates=True)
        assert name in compiled.count_ops()
        assert name not in env.transpile(ising(), "fez", level=level).count_ops()
    backend = SimenvBackend("fez", env, fractional_gates=True)
    assert {"rx", "rzz"} <= set(backend.target.operation_names)
    assert {"rx", "rzz"}.isdisjoint(SimenvBackend("fez", env).target.operation_names)
    circuit = transpile(ising(), backend, optimization_level=1, seed_transpiler=1)
    assert {"rx", "rzz"} <= set(circuit.count_ops())
    assert sum(backend.run(circuit, shots=100).result().get_counts().values()) == 100


def test_command_line_names_them(shell: Shell, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from qiskit import qasm3

    file = tmp_path / "ising.qasm"
    file.write_text(qasm3.dumps(ising()))
    answer = shell("submit", str(file), "--device", "fez", "--fractional-gates", "--wait", "--json")
    assert "fractional gates" in answer.out
    assert "rx, rzz" in shell("devices", "show", "fez").out
