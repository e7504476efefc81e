"""Emulated devices through Python and the command line."""

from pathlib import Path
from typing import Any

import live
import numpy as np
import pytest
from emulated import DEVICE, far, ghz, stored
from failing import fails
from qiskit import QuantumCircuit, qasm2
from qiskit.circuit import Parameter
from shell import Shell

from noise_models import document, library
from simenv.client.client import Client
from simenv.errors import (
    BatchRefusedError,
    InfeasibleError,
    NoDeviceError,
    NotFoundError,
    OptionError,
)
from simenv.frontends.qiskit import SimenvBackend
from simenv.model.accounts import Used
from simenv.model.devices import DeviceKind

THETA = Parameter("theta")


def test_result_names_device_snapshot_layout_and_native_gates(env: Client) -> None:
    result = env.run(ghz(), device=DEVICE, shots=2000, seed=3)
    assert result.device == DEVICE
    assert result.snapshot == document.digest(document.dump(library.load(DEVICE))).hex()
    assert result.compiled is not None
    assert result.compiled.startswith("qiskit")
    assert result.layout is not None
    assert (len(set(result.layout)), result.num_qubits) == (3, 3)
    assert result.gates is not None
    assert set(result.gates) <= {"cz", "rz", "sx", "x", "id"}
    assert result.warnings == ()
    assert set(result.counts) > {"000", "111"}, "noise leaves more than two outcomes"
    outcome = result.to_dict()
    assert (outcome["device"], outcome["layout"]) == (DEVICE, list(result.layout))
    assert outcome["initial_layout"] == list(result.initial_layout or ())
    assert (outcome["gates"], outcome["warnings"]) == (result.gates, [])


def test_counts_of_pool_and_simulate_are_equal(env: Client, shell: Shell, tmp_path: Path) -> None:
    named = env.run(ghz(), device=DEVICE, shots=500, seed=3)
    pool = env.run(ghz(), pool="lattice", shots=500, seed=3)
    preferred = env.run(ghz(), prefer=["emulator"], shots=500, seed=3)
    assert named.counts == pool.counts == preferred.counts
    assert (named.worker, pool.worker, preferred.worker) == ("main-0", "lattice-0", "lattice-0")
    assert preferred.device == DEVICE
    assert preferred.engine_reason.startswith("preferred emulator: pool lattice")
    path = tmp_path / "ghz.qasm"
    path.write_text(qasm2.dumps(ghz()))
    line = (str(path), "--device", DEVICE, "--shots", "500", "--seed", "3", "--json")
    assert shell("simulate", *line).object["counts"] == named.counts
    submitted = shell("submit", *line, "--wait").object
    assert (submitted["counts"], submitted["device"]) == (named.counts, DEVICE)


def test_usage_by_device_is_the_sum_over_the_receipts_of_its_tasks(env: Client) -> None:
    def sums() -> tuple[int, ...]:
        rows = [row for row in env.usage(("device",)).rows if row.key == (DEVICE,)]
        shots = sum(row.shots for row in rows)
        return sum(row.tasks for row in rows), shots, *amounts([row.used for row in rows])

    def amounts(used: list[Used]) -> list[int]:
        return [sum(getattr(each, name) for each in used) for name in Used.__struct_fields__]

    before = sums()
    ways: list[dict[str, Any]] = [
        {"device": DEVICE}, {"pool": "lattice"}, {"prefer": ["emulator"]},
    ]  # fmt: skip
    tasks = [env.submit(ghz(), shots=100, **way) for way in ways]
    ideal = env.submit(ghz(), shots=100, pool="main")
    assert all(task.result().counts for task in (*tasks, ideal))
    receipts = [env.receipt(task) for task in tasks]
    assert all(each.used.device_us > 0 for each in receipts)
    expected = [3, 300, *amounts([each.used for each in receipts])]
    assert [after - each for after, each in zip(sums(), before, strict=True)] == expected
    assert env.receipt(ideal).used.device_us == 0


def test_pool_of_device_takes_no_other_task_and_simulator_is_ideal(env: Client) -> None:
    ideal = env.run(ghz(), shots=500, seed=3)
    assert (ideal.device, ideal.snapshot, ideal.gates, ideal.layout) == (None, None, None, None)
    assert ideal.worker == "main-0"
    other = env.run(ghz(), prefer=["simulator", "emulator"], shots=500, seed=3)
    assert other.device is None
    assert other.counts == ideal.counts
    with pytest.raises(OptionError, match="holds device 'superconducting-lattice', not 'fez'"):
        env.submit(ghz(), pool="lattice", device="fez")


@pytest.mark.parametrize("noise", ["off", {"all": 0}])
def test_noise_of_zero_gives_ideal_counts(env: Client, noise: Any) -> None:
    result = env.run(ghz(), device=DEVICE, noise=noise, shots=500, seed=3)
    assert (result.counts, result.noise) == (env.run(ghz(), shots=500, seed=3).counts, {"all": 0.0})


def test_observables_follow_qubits_through_swaps(env: Client) -> None:
    entries = ["IIIZ", "IZII", "ZIIX", "YZXI"]
    expected = env.run(far(), observables=entries, shots=None)
    result = env.run(far(), device=DEVICE, noise="off", observables=entries, shots=None)
    assert result.layout is not None
    assert np.allclose(result.expectations, expected.expectations, atol=1e-9)
    noisy = env.run(far(), device=DEVICE, observables=entries, shots=20_000, seed=1)
    assert 0.0 < np.abs(np.subtract(noisy.expectations, expected.expectations)).max() < 0.2
    assert min(noisy.std_errors) > 0.0


def test_sweep_is_compiled_once_and_each_binding_equals_its_own_submit(env: Client) -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.ry(THETA, 0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    values = np.array([[0.0], [1.5], [3.0]])
    tasks = env.submit_many((circuit, values), device=DEVICE, shots=400, seed=9)
    for number, task in enumerate(tasks):
        alone = env.run(
            circuit, device=DEVICE, parameter_values=values[number], binding_index=number,
            shots=400, seed=9,
        )  # fmt: skip
        assert task.result().counts == alone.counts
    assert tasks[0].result().counts["00"] > 350
    assert tasks[2].result().counts["11"] > 350


def test_verbatim_circuit_runs_on_its_own_qubits(env: Client) -> None:
    circuit = QuantumCircuit(8, 2)
    circuit.sx(4)
    circuit.x(7)
    circuit.measure([4, 7], [0, 1])
    result = env.run(circuit, device=DEVICE, compile="never", shots=500)
    assert (result.compiled, result.layout) == (None, None)
    assert result.gates == {"sx": 1, "x": 1}
    assert env.run(circuit, device=DEVICE, shots=500).compiled is None
    assert env.run(circuit, device=DEVICE, compile="always", shots=500).compiled is not None


def test_mapping_places_circuit_on_named_qubits(env: Client) -> None:
    result = env.run(ghz(), device=DEVICE, qubit_mapping=[2, 1, 0], shots=500)
    assert (result.initial_layout, result.layout) == ((2, 1, 0), (2, 1, 0))
    native = QuantumCircuit(1, 1)
    native.x(0)
    native.measure(0, 0)
    placed = env.run(native, device=DEVICE, qubit_mapping=[5], compile="never", shots=500)
    assert placed.layout == (5,)
    assert placed.counts["1"] > 400


def test_imported_device_is_used_and_its_change_seen(env: Client) -> None:
    path = stored("mine", library.load(DEVICE))
    circuit = QuantumCircuit(1, 1)
    circuit.sx(0)
    circuit.measure(0, 0)
    assert env.run(circuit, device="mine", compile="never", shots=100).device == "mine"
    stored("mine", library.load("trapped-ions"))
    with pytest.raises(InfeasibleError, match=r"sx on qubit 0.*no native gate of device mine"):
        env.submit(circuit, device="mine", compile="never")
    path.unlink()
    fails(NotFoundError, "no device 'mine'", env.submit, circuit, device="mine", compile="never")


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"compile": "never", "device": DEVICE}, InfeasibleError, "h on qubit 0.*no native gate"),
    ({"device": "nowhere"}, NotFoundError, "no device 'nowhere'"),
    ({"device": "main"}, NotFoundError, "main is a pool without .*: pool='main'"),
    ({"device": ""}, OptionError, "device=''"),
    ({"device": DEVICE, "qubit_mapping": []}, OptionError, "qubit_mapping is empty"),
    ({"device": DEVICE, "noise": {"gate.foo": 1}}, OptionError, "gate.foo"),
    ({"device": DEVICE, "noise": "loud"}, OptionError, "loud"),
    ({"device": DEVICE, "noise": 3}, OptionError, "noise=3"),
    ({"device": DEVICE, "compile": "often"}, OptionError, "compile='often'"),
    ({"device": DEVICE, "qubit_mapping": [0]}, OptionError, "qubit_mapping"),
    ({"device": DEVICE, "qubit_mapping": [0, 0, 1]}, OptionError, "qubit_mapping"),
    ({"device": DEVICE, "outputs": "statevector", "shots": None}, OptionError, "statevector"),
    ({"device": DEVICE, "engine": "nothing"}, OptionError, "nothing"),
    ({"device": DEVICE, "noise": {"gate": True}}, OptionError, "gate = True"),
    ({"compile": "never", "prefer": "emulator"}, InfeasibleError, "h on qubit 0.*no native gate"),
    (
        {"compile": "never", "prefer": ["emulator", "main"], "noise": {"gate": 0.5}},
        InfeasibleError, "h on qubit 0.*no native gate",
    ),
    (
        {"compile": "never", "prefer": ["emulator", "main"], "noise": "on"}, InfeasibleError,
        "h on qubit 0.*no native gate",
    ),
    ({"noise": "on"}, NoDeviceError, "noise needs an emulated device, and none is named"),
    ({"noise": "on", "pool": "qpu"}, NoDeviceError, "pool 'qpu' holds none"),
    ({"noise": "on", "prefer": "main"}, NoDeviceError, "noise needs an emulated device"),
    ({"noise": {"gate": 0.5}}, NoDeviceError, "noise needs an emulated device"),
    ({"compile": "always"}, NoDeviceError, "compile needs an emulated device"),
    ({"qubit_mapping": [0, 1, 2]}, NoDeviceError, "qubit_mapping needs an emulated device"),
    ({"noise": {"gate": 0.5}, "pool": "qpu"}, NoDeviceError, "pool 'qpu' holds none"),
    ({"device": DEVICE, "prefer": "simulator"}, OptionError, "prefer cannot be combined with dev"),
    ({"device": DEVICE, "prefer": ["main"]}, OptionError, "prefer cannot be combined with device="),
    ({"device": DEVICE, "prefer": "emulator"}, OptionError, "prefer cannot be combined with dev"),
    ({"loudness": 3}, TypeError, "loudness"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "words"), REFUSED)
def test_option_that_has_no_effect_is_refused_by_name(
    env: Client, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    for call in (env.submit, env.run, env.explain):
        fails(kind, words, call, ghz(), **options)
    fails((kind, BatchRefusedError), words, env.submit_many, [ghz()], **options)


def test_noise_that_was_not_asked_for_is_no_error_without_a_device(env: Client) -> None:
    expected = env.run(ghz(), seed=5).counts
    for noise in ("auto", "off", None):
        assert env.run(ghz(), seed=5, noise=noise).counts == expected


def test_noise_on_is_the_noise_of_the_named_device_and_of_the_pool(env: Client) -> None:
    for choice in ({"device": DEVICE}, {"pool": "lattice"}, {"prefer": "emulator"}):
        results = [env.run(ghz(), seed=5, noise=noise, **choice) for noise in ("on", "auto")]
        assert results[0].counts == results[1].counts
        assert set(results[0].counts) > {"000", "111"}


@pytest.mark.parametrize("name", ["", 5])
def test_description_of_no_device_is_refused(env: Client, name: Any) -> None:
    fails(OptionError, "device=", env.device, name)
    fails(OptionError, "device=", SimenvBackend, name, env)


def test_gradient_with_noise_is_refused_by_name(env: Client) -> None:
    circuit = QuantumCircuit(1)
    circuit.ry(THETA, 0)
    with pytest.raises(OptionError, match="gradient"):
        env.submit(
            circuit, device=DEVICE, observables="Z", parameter_values=[0.1], shots=None,
            outputs=("expectation", "gradient"),
        )  # fmt: skip


def test_custom_noise_model_replaces_calibration(env: Client) -> None:
    flips = {"kind": "channels", "name": "flips", "readout": [{"p01": 1.0, "p10": 1.0}]}
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    result = env.run(circuit, noise=flips, shots=100)
    assert result.counts == {"1": 100}
    assert result.device is None
    assert result.snapshot is not None
    for wrong in ({**flips, "loudness": 3}, b"{", {"kind": "nothing"}):
        fails(OptionError, r"loudness|JSON|nothing", env.submit, circuit, noise=wrong)


def test_pool_is_described_as_emulated_device(env: Client) -> None:
    devices = env.devices()
    assert devices["lattice"].kind is DeviceKind.EMULATED
    assert devices["lattice"].model == DEVICE
    assert devices["main"].kind is DeviceKind.IDEAL
    assert env.device(DEVICE).num_qubits == devices["lattice"].num_qubits
    compiled = env.transpile([ghz()], "lattice")[0]
    assert set(compiled.count_ops()) <= {"rz", "sx", "x", "cz", "measure", "barrier"}


COMMAND_LINES = [
    (("--device", "nowhere"), "no device 'nowhere'"),
    (("--device", DEVICE, "--noise", "gate.foo=1"), "gate.foo"),
    (("--device", DEVICE, "--noise", "gate=x"), "gate=x"),
    (("--device", DEVICE, "--compile", "never"), "no native gate"),
    (("--noise", "on"), "noise needs an emulated device"),
    (("--noise", "gate=0.5"), "noise needs an emulated device"),
    (("--compile", "never"), "compile needs an emulated device"),
    (("--loudness", "3"), "loudness"),
]


@pytest.mark.parametrize("command", ["submit", "explain", "simulate"])
@pytest.mark.parametrize(("options", "words"), COMMAND_LINES)
def test_command_line_option_without_effect_is_refused_by_name(
    shell: Shell, tmp_path: Path, command: str, options: tuple[str, ...], words: str
) -> None:
    path = tmp_path / "ghz.qasm"
    path.write_text(qasm2.dumps(ghz()))
    result = shell(command, str(path), *options)
    assert result.code != 0
    assert words in result.err


def test_queued_tasks_keep_their_calibration_over_crash_of_service() -> None:
    path = stored("kept", library.load(DEVICE))
    crashing = {"pools": [{"name": "main", "min": 0, "max": 1}]}
    with live.environment(**crashing) as outcome:
        with outcome.client() as client:
            before = client.device("kept").calibration_id
            tasks = client.submit_many([ghz()] * 40, device="kept", shots=50, seed=1)
            names = [str(task.id) for task in tasks]
        outcome.crash()
        stored("kept", library.load("trapped-ions"))
        outcome.up()
        with outcome.client() as client:
            results = [client.task(name).result(timeout_s=live.PATIENCE_S) for name in names]
            after = client.device("kept").calibration_id
    path.unlink()
    assert {result.snapshot for result in results} == {before}
    assert after != before


def test_twirl_runs_relaxation_on_the_stabilizer_engine_through_every_interface(
    env: Client, shell: Shell, tmp_path: Path
) -> None:
    twirl = {"twirl": 1}
    with pytest.raises(InfeasibleError, match="without its option twirl=1"):
        env.run(ghz(), device=DEVICE, shots=500, seed=3, engine="stabilizer")
    named = env.run(ghz(), device=DEVICE, shots=500, seed=3, engine="stabilizer", options=twirl)
    by_auto = env.run(ghz(), device=DEVICE, shots=500, seed=3, options=twirl)
    assert (named.engine, by_auto.engine) == ("stabilizer", "stabilizer")
    assert named.counts == by_auto.counts
    assert set(named.counts) > {"000", "111"}
    assert named.remark == "noise twirled to Paulis"
    path = tmp_path / "ghz.qasm"
    path.write_text(qasm2.dumps(ghz()))
    line = (str(path), "--device", DEVICE, "--shots", "500", "--seed", "3", "--json")
    line += ("--engine", "stabilizer", "--engine-option", "twirl=1")
    assert shell("simulate", *line).object["counts"] == named.counts
    assert shell("submit", *line, "--wait").object["counts"] == named.counts
