"""Amplitudes, memory and sweeps of a client."""

import asyncio
import copy
import json
import pickle
from collections import Counter
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import Statevector

import simenv
from simenv import errors
from simenv.client.submission.prepare import prepare_one
from simenv.model import Observable, TaskOptions, TaskState
from simenv.service import program_rules

STRINGS = ["0101", "1111", "0000", "1000"]


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


def assert_copied(result: simenv.Result) -> None:
    """Assert that a copy has the amplitudes itself."""
    again = copy.copy(result)
    assert (again.receipt, again._decoded.bulk, again._decoded.data.file) == (None, None, None)
    assert again.amplitudes == result.amplitudes


def test_saved_and_copied_results_have_the_amplitudes(env: simenv.Client, tmp_path: Path) -> None:
    result = env.run(plain(), amplitudes=STRINGS, precision="single")
    pairs = {text: [value.real, value.imag] for text, value in result.amplitudes.items()}
    assert result.to_dict()["amplitudes"] == pairs
    assert "amplitudes" not in env.run(plain(), outputs="statevector").to_dict()
    assert_copied(result)
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
    task = env.submit(circuit, amplitudes=[format(k, "016b") for k in range(65_536)])
    result = task.result()
    assert result._decoded.data.bit_strings == b""  # no part of the message
    state = Statevector(circuit).data
    np.testing.assert_allclose(list(result.amplitudes.values()), state, atol=1e-12)
    assert_copied(result)
    assert env.task(task.id).result().amplitudes == result.amplitudes


WRONG: dict[str, tuple[object, type[errors.SimenvError], str]] = {
    "none": ([], errors.OptionError, "go together"),
    "narrow": (["010"], errors.OptionError, "'010' has 3 bits, the circuit 4"),
    "wide": (["0101", "01010"], errors.OptionError, "'01010' has 5 bits"),
    "empty": (["0101", ""], errors.OptionError, "'' is not made of 0 and 1"),
    "spaces": (["01 01"], errors.OptionError, "'01 01' is not made of 0 and 1"),
    "letters": (["01x1"], errors.OptionError, "'01x1' is not made of 0 and 1"),
    "twice": (["0101", "1111", "0101"], errors.OptionError, "'0101' is there twice"),
    "number": (5, errors.OptionError, "amplitudes=5"),
    "numbers": ([5, 6], errors.OptionError, r"amplitudes=\(5, 6\)"),
    "many": (["0"] * 65_537, errors.LimitExceededError, "65537 bit strings .* 65536 and 4194304"),
    "long": (["0" * 60_000] * 70, errors.LimitExceededError, "4200000 bits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_strings_are_named(name: str) -> None:
    strings, kind, text = WRONG[name]
    fails(kind, text, prepare_one, plain(), {"amplitudes": strings})


def test_circuits_and_engines_without_amplitudes_are_refused(env: simenv.Client) -> None:
    measured = plain().measure_all(inplace=False)
    with pytest.raises(errors.ProgramError, match=r"'amplitudes'.* a circuit that measures"):
        env.submit(measured, amplitudes=STRINGS)
    fails(errors.OptionError, "go together", env.submit, plain(), outputs="amplitudes")
    with pytest.raises(errors.InfeasibleError, match="'stabilizer' has no output 'amplitudes'"):
        env.submit(plain(), amplitudes=STRINGS, engine="stabilizer")
    reset = QuantumCircuit(4)
    reset.h(0)
    reset.cx(0, 1)
    reset.reset(0)
    reset.h(0)
    with pytest.raises(errors.OptionError, match=r"'amplitudes'.* a circuit that measures, re"):
        env.submit(reset, amplitudes=STRINGS)
    with pytest.raises(errors.SimenvError, match="the amplitudes are for 4 qubits, this has 5"):
        env.submit_many([plain(), QuantumCircuit(5)], amplitudes=STRINGS)


def terms(*strings: str, outputs: tuple[str, ...] = ("amplitudes",)) -> TaskOptions:
    return TaskOptions(outputs=outputs, observables=(Observable(strings, b""),))


def test_service_checks_strings_of_any_client() -> None:
    program_rules.check_terms(terms("01", "10"))
    pair = Observable(("ZZ",), np.ones(1).tobytes())
    both = TaskOptions(
        outputs=("expectation", "amplitudes"), observables=(pair, Observable(("01",), b""))
    )
    program_rules.check_terms(both)
    assert (both.pauli_sums, both.bit_strings) == ((pair,), ("01",))
    for wrong, text in (
        (terms("0x"), "'0x' is not made"),
        (terms("01", "01"), "twice"),
        (terms("01", outputs=("counts",)), "go together"),
        (TaskOptions(outputs=("amplitudes",)), "go together"),
        (msgspec.structs.replace(both, observables=both.observables[::-1]), "go together"),
        (terms("01", outputs=("expectation", "amplitudes")), "'expectation' and observables"),
    ):
        fails(errors.OptionError, text, program_rules.check_terms, wrong)


def teleported(angle: float | Parameter) -> QuantumCircuit:
    """Teleportation; the bits of `mid` decide corrections, so `end` depends on neither."""
    mid, end = ClassicalRegister(2, "mid"), ClassicalRegister(1, "end")
    circuit = QuantumCircuit(QuantumRegister(3, "q"), mid, end)
    circuit.ry(angle, 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], mid)
    with circuit.if_test((mid[1], 1)):
        circuit.x(2)
    with circuit.if_test((mid[0], 1)):
        circuit.z(2)
    circuit.ry(-angle, 2)
    circuit.measure(2, end)
    return circuit


def test_memory_keeps_registers_joined_in_each_shot(env: simenv.Client) -> None:
    result = env.run(teleported(0.7), shots=400, outputs=("counts", "memory"))
    assert (result.registers, result.memory.shape) == ((("mid", 2), ("end", 1)), (400, 1))
    assert (result.memory.dtype, Counter(result.memory_strings())) == (np.uint8, result.counts)
    assert ({key[0] for key in result.counts}, len(result.counts)) == ({"0"}, 4)


def test_memory_of_sweep_does_not_depend_on_its_split(env: simenv.Client) -> None:
    circuit = teleported(Parameter("x"))
    values = np.linspace(0.0, 3.0, 1500).reshape(-1, 1)
    options = {"shots": 20, "seed": 5, "outputs": ("memory",)}
    tasks = env.submit_many((circuit, values), **options)
    assert len({task.id.partition(".")[0] for task in tasks}) > 1
    for k in (0, 777, 1499):
        alone = env.run(circuit, parameter_values=values[k], binding_index=k, **options)
        np.testing.assert_array_equal(tasks[k].result().memory, alone.memory)


def test_large_memory_goes_into_a_file_and_can_be_saved(env: simenv.Client, tmp_path: Path) -> None:
    circuit = QuantumCircuit(40, 40)
    circuit.h(0)
    circuit.cx(0, 39)
    circuit.measure(range(40), range(40))
    result = env.run(circuit, shots=300_000, outputs=("memory",), seed=3)
    memory = result.memory  # 1.5 MB: above what a message may carry
    assert memory.shape == (300_000, 5)
    assert set(map(tuple, memory[:1000].tolist())) == {(0, 0, 0, 0, 0), (1, 0, 0, 0, 128)}
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    np.testing.assert_array_equal(again.memory, memory)
    result.save(tmp_path / "found.h5")
    with h5py.File(tmp_path / "found.h5") as file:
        np.testing.assert_array_equal(file["memory"][()], memory)


def test_memory_is_in_json_as_text(env: simenv.Client, tmp_path: Path) -> None:
    result = env.run(teleported(0.1), shots=5, outputs=("memory",))
    result.save(tmp_path / "found.json")
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["memory"] == result.memory_strings()
    assert document["counts"] is None
    with pytest.raises(errors.OptionError, match="has no counts"):
        _ = result.counts


def test_memory_on_an_emulated_device_is_noisy_and_reproducible(env: simenv.Client) -> None:
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.measure_all()
    for engine in ("densitymatrix", "statevector"):
        options = {"shots": 2000, "seed": 11, "device": "fez", "engine": engine}
        both = env.run(circuit, outputs=("counts", "memory"), **options)
        assert both.counts == env.run(circuit, **options).counts
        assert Counter(both.memory_strings()) == both.counts
        assert len(both.counts) > 2


def test_memory_of_nothing_or_too_much_is_refused(env: simenv.Client) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    with pytest.raises(errors.ProgramError, match=r"memory was .* that measures nothing"):
        env.submit(circuit, outputs=("memory",))
    circuit.measure(0, 0)
    fails(errors.OptionError, "no memory", env.submit, circuit, outputs=("memory",), shots=None)
    circuit = QuantumCircuit(1, 100)
    circuit.measure(0, 0)
    with pytest.raises(errors.LimitExceededError, match=r"30000000 .*13 bytes.*256\.0") as caught:
        env.submit(circuit, shots=30_000_000, outputs=("memory",))
    assert "at most 20648881 shots" in caught.value.hint


ANGLES = ParameterVector("a", 6)
VALUES = np.random.default_rng(5).uniform(-3, 3, (200, 6))


def circuit(num_qubits: int = 3, layers: int = 1) -> QuantumCircuit:
    quantum_circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for k, angle in enumerate(ANGLES):
            quantum_circuit.ry(angle, k % num_qubits)
            quantum_circuit.cx(k % num_qubits, (k + 1) % num_qubits)
    quantum_circuit.measure_all()
    return quantum_circuit


def test_each_binding_has_its_own_id_and_many_share_a_task(env: simenv.Client) -> None:
    done = env.status().done
    tasks = env.submit_many((circuit(), VALUES), seed=3)
    results = [task.result(60) for task in tasks]
    assert len(tasks) == len({task.id for task in tasks}) == 200
    assert len({task.handle for task in tasks}) == env.status().done - done < 10
    assert [result.binding_index for result in results] == list(range(200))
    assert [result.task for result in results] == [task.id for task in tasks]
    assert all(sum(result.counts.values()) == 1024 for result in results)


def test_as_completed_and_await_return_every_binding(env: simenv.Client) -> None:
    tasks = env.submit_many((circuit(), VALUES), seed=4)
    assert set(simenv.as_completed(tasks, timeout_s=60)) == set(tasks)

    async def gathered() -> list[simenv.Result]:
        return list(await asyncio.gather(*env.submit_many((circuit(), VALUES), seed=4)))

    counts = [result.counts for result in asyncio.run(gathered())]
    assert counts == [task.result().counts for task in tasks]


def test_binding_is_fetched_again_by_its_id(env: simenv.Client) -> None:
    task = env.submit_many((circuit(), VALUES), seed=5)[70]
    counts = task.result(60).counts
    assert "." in task.id
    path = Path(env.service)
    with simenv.connect(service=path) as other:
        assert other.task(task.id).result(60).counts == counts
        result = other.task(task.id.partition(".")[0])
        assert result.results(60)[int(task.id.partition(".")[2])].counts == counts
        fails(errors.OptionError, "carries", result.result)
        fails(errors.NotFoundError, "no number 999", other.task(result.id + ".999").result, 60)
        fails(errors.NotFoundError, "", other.task, result.id + ".x")


def test_completions_return_results_of_all_bindings_of_task(env: simenv.Client) -> None:
    since = max((c.seq for c in env.completions(follow=False)), default=0)
    tasks = env.submit_many((circuit(), VALUES), seed=6)
    expected = [task.result(60).counts for task in tasks]
    table = {c.task.id: c.results() for c in env.completions(since=since, follow=False)}
    counts = [
        r.counts
        for name in sorted(table, key=lambda n: table[n][0].binding_index)
        for r in table[name]
    ]
    assert counts == expected


def test_sweeps_have_their_own_seeds_and_a_bad_one_is_named(env: simenv.Client) -> None:
    seeds = list(range(100, 104))
    results = [t.result(60) for t in env.submit_many((circuit(), VALUES[:4]), seed=seeds)]
    assert [result.seed for result in results] == seeds
    wide = circuit(4)
    work = [(circuit(), VALUES[:3]), (wide, VALUES[3:5]), (circuit(), VALUES[5:6])]
    tasks = env.submit_many(work, shots=[100, 200, 300], seed=9)
    results = [task.result(60) for task in tasks]
    assert [result.shots for result in results] == [100] * 3 + [200] * 2 + [300]
    assert [result.binding_index for result in results] == [0, 1, 2, 0, 1, 0]
    assert len({result.seed for result in results}) == 3
    again = env.submit_many((wide, VALUES[3:5]), shots=200, seed=results[3].seed)
    assert [task.result(60).counts for task in again] == [result.counts for result in results[3:5]]
    with pytest.raises(errors.BatchRefusedError) as caught:
        env.submit_many([(circuit(), VALUES[:2]), (circuit(), VALUES[:2, :4])])
    assert [error.index for error in caught.value.errors] == [1]


def test_cancelling_one_binding_ends_its_task(env: simenv.Client) -> None:
    tasks = env.submit_many((circuit(17, 3_000), VALUES), shots=16, seed=1)  # minutes
    assert tasks[-1].cancel()
    assert tasks[-1].wait(timeout_s=60) is TaskState.CANCELLED
    together = [task for task in tasks if task.handle is tasks[-1].handle]
    for task in together:
        fails(errors.TaskCancelledError, "", task.result)
    env.cancel(tasks)


@pytest.mark.parametrize(
    ("work", "shots"),
    [
        ([(circuit(), VALUES[:2]), (circuit(), VALUES[:2])], [100]),
        ((circuit(), VALUES[:2]), [100, 200]),
        ([circuit(), circuit()], [100, 200]),
    ],
    ids=["too few", "of one sweep", "of circuits"],
)
def test_shots_are_one_number_or_many(work: object, shots: list[int], env: simenv.Client) -> None:
    fails(errors.OptionError, "shots", env.submit_many, work, shots=shots)
