"""Results, warnings, refusals and estimates of circuits on emulated devices."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from emulated import DEVICE, far, ghz, stored
from failing import fails
from qiskit import QuantumCircuit, qasm2, qpy
from qiskit.circuit import Parameter
from qiskit.circuit.library import XGate, YGate
from qiskit.quantum_info import Statevector
from qiskit_aer.noise import NoiseModel, depolarizing_error
from shell import Shell

from noise_models import document, library
from noise_models.calibration import AngleBounds, CalibrationSnapshot, NativeGate
from simenv.client.client import Client
from simenv.errors import (
    BatchRefusedError,
    InfeasibleError,
    OptionError,
    SimenvError,
    SimenvWarning,
)
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.gateway.ibm.programs import SubmittedJob


def test_initial_and_final_layout_are_those_of_the_transpiled_circuit(env: Client) -> None:
    compiled = env.transpile(far(), DEVICE)
    result = env.run(far(), device=DEVICE, observables="ZZZZ", shots=None, noise="off")
    assert [*result.initial_layout] == compiled.layout.initial_index_layout(filter_ancillas=True)
    assert result.layout == tuple(compiled.layout.final_index_layout(filter_ancillas=True))
    assert result.initial_layout != result.layout, "no swaps were needed: a weak test"
    several = env.submit_many([far()], device=DEVICE, observables="ZZZZ", shots=None, noise="off")
    assert several[0].result().initial_layout == result.initial_layout


def test_single_precision_of_density_matrix_is_refused_and_auto_honours_it(env: Client) -> None:
    with pytest.raises(InfeasibleError, match="'densitymatrix' has no precision 'single'"):
        env.submit(ghz(), device=DEVICE, engine="densitymatrix", precision="single")
    with pytest.raises(InfeasibleError, match="exact"):
        env.submit(ghz(), device=DEVICE, outputs="probabilities", shots=None, precision="single")
    result = env.run(ghz(), device=DEVICE, precision="single", shots=500)
    assert (result.engine, result.precision) == ("statevector", "single")


def test_observable_on_measured_qubit_is_named_by_the_qubits_of_the_circuit(env: Client) -> None:
    text = r"'IXZ' asks for X on qubit 1, which the circuit measures"
    observed = {"observables": "IXZ", "device": DEVICE, "qubit_mapping": [9, 3, 2]}
    for compiled in ("always", "auto"):
        fails(OptionError, text, env.submit, ghz(), compile=compiled, **observed)
    fails(BatchRefusedError, text, env.submit_many, [ghz()], **observed)
    wide = QuantumCircuit(41, 1)
    wide.measure(40, 0)
    with pytest.raises(OptionError, match="an observable of 41 qubits asks for Y on qubit 40"):
        env.submit(wide, observables="Y" + 40 * "I")


def test_preference_with_another_word_takes_what_its_device_does_not(env: Client) -> None:
    result = env.run(ghz(), prefer=["emulator", "main"], compile="never", shots=500, seed=3)
    assert result.device is None
    assert "does not take the circuit" in result.engine_reason


def test_chain_of_40_qubits_has_noise_by_matrix_product_states(env: Client) -> None:
    """The result repeats by its seed, and a later task's shots are its first ones."""
    model = {
        "kind": "channels",
        "name": "mine",
        "channels": [{"gate": "h", "depolarizing": 0.01}, {"gate": "cx", "depolarizing": 0.02}],
    }
    chain = QuantumCircuit(40)
    chain.h(0)
    for qubit in range(39):
        chain.cx(qubit, qubit + 1)
    chain.measure_all()
    given: dict[str, Any] = {"noise": model, "engine": "mps", "seed": 4, "outputs": "memory"}
    result = env.run(chain, shots=200, **given)
    memory = result.memory_strings()
    assert memory == env.run(chain, shots=200, **given).memory_strings()
    assert env.run(chain, shots=50, **given).memory_strings() == memory[:50]
    whole = sum(len(set(outcome)) == 1 for outcome in memory) / 200
    # 39 gates, with an error that flips bits in 1.5 %: 0.55, and five standard deviations.
    assert abs(whole - 0.55) < 0.18
    assert result.truncation in (None, 0.0)


def test_noise_model_of_replaced_gates_is_named_in_result(env: Client) -> None:
    model = {
        "kind": "channels",
        "name": "mine",
        "channels": [{"gate": "h", "depolarizing": 0.1}, {"gate": "cz", "depolarizing": 0.1}],
    }
    (text,) = env.run(ghz(), noise=model, device=DEVICE, shots=500).warnings
    assert "channels of h do not act" in text
    (text,) = env.submit_many([ghz()], noise=model, device=DEVICE, shots=50)[0].result().warnings
    assert "channels of h do not act" in text
    assert env.run(ghz(), noise=model, shots=500).warnings == ()
    native = QuantumCircuit(1, 1)
    native.x(0)
    native.measure(0, 0)
    result = env.run(native, noise=model, shots=500)
    assert "ran without noise" in result.warnings[0]
    assert result.counts == {"1": 500}
    assert "warning: the noise model does not act" in repr(result)


def test_label_chooses_channels_of_aer_model(env: Client, shell: Shell, tmp_path: Path) -> None:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.02, 1), ["h", "x"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.5, 1), ["noisy"])
    circuit = QuantumCircuit(2, 2)
    circuit.h(1)
    circuit.append(XGate(label="noisy"), [0])
    circuit.measure([0, 1], [0, 1])
    asked: dict[str, Any] = {"noise": model, "shots": None, "outputs": "probabilities"}
    matrix = QuantumCircuit(2, 2)
    matrix.h(1)
    matrix.unitary([[0, 1], [1, 0]], [0], label="noisy")
    matrix.measure([0, 1], [0, 1])
    results = [env.run(circuit, **asked), env.run(matrix, **asked)]
    results += [task.result() for task in env.submit_many([circuit, matrix], **asked)]
    for result in results:
        values = dict(result.probabilities)
        assert values["01"] + values["11"] == pytest.approx(0.75, abs=1e-9)
        assert result.warnings == ()
    (tmp_path / "model.json").write_bytes(
        json.dumps(model.to_dict(serializable=True), default=str).encode()
    )
    with (tmp_path / "labelled.qpy").open("wb") as file:
        qpy.dump(circuit, file)
    line = (str(tmp_path / "labelled.qpy"), "--noise", str(tmp_path / "model.json"))
    for command in (("submit", *line, "--wait"), ("simulate", *line)):
        document = json.loads(
            shell(*command, "--shots", "20000", "--seed", "3", "--json").out.splitlines()[-1]
        )
        ones = sum(n for key, n in document["counts"].items() if key.endswith("1"))
        assert abs(ones / 20_000 - 0.75) < 5 * (0.75 * 0.25 / 20_000) ** 0.5


def test_label_of_native_gate_is_kept_on_device(env: Client) -> None:
    model = {
        "kind": "channels", "name": "mine",
        "channels": [
            {"gate": "noisy", "paulis": {"X": 1.0}}, {"gate": "lost", "depolarizing": 0.1},
        ],
    }  # fmt: skip
    native = QuantumCircuit(1, 1)
    native.append(XGate(label="noisy"), [0])
    native.measure(0, 0)
    result = env.run(native, noise=model, device=DEVICE, shots=100)
    assert result.counts == {"0": 100}
    (text,) = result.warnings
    assert text.startswith(
        "channels of lost do not act: no operation of the circuit has this label"
    )
    replaced = QuantumCircuit(2, 2)
    replaced.append(XGate(label="noisy"), [0])
    replaced.append(YGate(label="lost"), [1])  # the compiler gives the label to what it makes of it
    replaced.measure([0, 1], [0, 1])
    result = env.run(replaced, noise=model, device=DEVICE, shots=100)
    assert result.warnings == ()
    assert {key[-1] for key in result.counts} == {"0"}


def test_limited_factor_is_named_in_result_too(env: Client, shell: Shell, tmp_path: Path) -> None:
    (text,) = env.run(ghz(), device=DEVICE, noise={"gate.depolarizing": 1e9}).warnings
    assert text.startswith("gate.depolarizing * 1e+09 is above the physical limit")
    path = tmp_path / "ghz.qasm"
    path.write_text(qasm2.dumps(ghz()))
    line = (str(path), "--device", DEVICE, "--noise", "gate.depolarizing=1e9")
    for command in (("submit", *line, "--wait"), ("simulate", *line)):
        result = shell(*command)
        assert result.code == 0
        assert f"warning: {text}" in " ".join(result.err.split())
        assert "SimenvWarning" not in result.err
        assert json.loads(shell(*command, "--json").out.splitlines()[-1])["warnings"] == [text]
        assert "3 qubits" in result.err


def test_condition_on_device_without_dynamic_circuits_names_its_qubits(env: Client) -> None:
    circuit = QuantumCircuit(3, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.h(2)
    circuit.measure(2, 1)
    with pytest.raises(InfeasibleError, match=r"operation 2 \(if on qubit 2\): device neutral-"):
        env.submit(circuit, device="neutral-atoms")
    circuit = QuantumCircuit(2, 1)
    circuit.h(1)
    circuit.reset(1)
    circuit.h(1)
    circuit.measure(1, 0)
    with pytest.raises(InfeasibleError, match=r"operation 1 \(reset on qubit 1\): device neutral-"):
        env.submit(circuit, device="neutral-atoms")


def test_estimate_on_device_is_that_of_the_qubits_that_are_used(env: Client) -> None:
    alone = env.explain(ghz(), observables="ZZZ", shots=1000)
    for noise in ("on", "off"):
        explanation = env.explain(ghz(), device=DEVICE, observables="ZZZ", shots=1000, noise=noise)
        assert explanation.sizes.num_qubits == alone.sizes.num_qubits == 3
        assert "of 27 qubits" not in explanation.engines[0].why
        assert explanation.engines[0].memory_bytes < 100 * 2**20


def test_names_of_devices_have_their_sources(env: Client) -> None:
    path = stored("listed", library.load(DEVICE))
    device_names = env.device_names()
    path.unlink()
    assert device_names["listed"] == "imported"
    assert {n for n, source in device_names.items() if source == "bundled"} == set(library.BUNDLED)
    assert list(device_names) == sorted(device_names)
    assert not {"main", "lattice", "qpu"} & set(device_names), "pools are listed by devices()"
    assert "listed" not in env.device_names()


@pytest.mark.parametrize(
    ("noise", "seconds", "shots", "text"),
    [
        ({"all": 1e308}, 1e-6, 10, "all = 1e.308"),
        ("on", 1e12, 10, "a delay of 1e.12 s"),
        ("off", 1e12, 10, "a delay of 1e.12 s"),
        ("on", 999.0, 100_000, "32 years"),
    ],
)
def test_extreme_numbers_are_refused_at_submit_and_nothing_stops(
    env: Client, noise: Any, seconds: float, shots: int, text: str
) -> None:
    circuit = QuantumCircuit(1, 1)
    for _ in range(1000):
        circuit.delay(seconds, 0, unit="s")
    circuit.measure(0, 0)
    fails(SimenvError, text, env.submit, circuit, device=DEVICE, noise=noise, shots=shots)
    assert env.run(ghz(), device=DEVICE, shots=10).counts


@pytest.mark.parametrize(("gate", "flips"), [("x", True), ("rz(pi)", False)])
def test_twirled_noise_under_a_condition_acts_as_often_as_the_condition_holds(
    env: Client, gate: str, flips: bool
) -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    text = f"""OPENQASM 3.0; include "stdgates.inc"; qubit[2] q; bit[2] c;
    sx q[0]; c[0] = measure q[0]; if (c[0]) {{ {gate} q[1]; }} c[1] = measure q[1];"""
    terms: dict[str, Any] = {"device": "fez", "compile": "never", "shots": 20_000, "seed": 5}
    found = env.run(text, engine="stabilizer", options={"twirl": 1}, **terms).counts
    exact = env.run(text, engine="densitymatrix", outputs="probabilities", **terms).probabilities
    assert sum(found.values()) == 20_000
    for outcome, probability in exact.items():
        assert abs(found.get(outcome, 0) / 20_000 - probability) < 0.02
    assert (found.get("11", 0) > 5_000) is flips


@pytest.fixture
def limited(env: Client) -> str:
    """A device of two qubits that has rzz from 0 to pi/2 and rx from -1 to 1, and no errors."""
    snapshot = CalibrationSnapshot(
        "limited",
        2,
        native_gates=(NativeGate("rz", 1, 1), NativeGate("rx", 1, 1), NativeGate("rzz", 2, 1)),
        coupling=((0, 1), (1, 0)),
        angle_bounds=(
            AngleBounds("rzz", ((0.0, math.pi / 2),)), AngleBounds("rx", ((-math.pi, math.pi),)),
        ),
    )  # fmt: skip
    return stored("limited", snapshot).stem


def rotated(angle: Any) -> QuantumCircuit:
    """1 with probability sin^2(angle / 2), by an rzz between two turns of qubit 0."""
    circuit = QuantumCircuit(2, 1)
    circuit.rx(math.pi / 2, 0)
    circuit.rzz(angle, 0, 1)
    circuit.rz(math.pi / 2, 0)
    circuit.rx(math.pi / 2, 0)
    circuit.rz(-math.pi / 2, 0)
    circuit.measure(0, 0)
    return circuit


ANGLES = [-2.5, -0.4, 0.4, 2.5]


def test_each_value_of_swept_angle_is_within_limits_of_its_gate(env: Client, limited: str) -> None:
    """Refused as written, and rewritten as a number is where the circuit may be compiled."""
    angle = Parameter("angle")
    work = (rotated(angle), [[each] for each in ANGLES])
    terms: dict[str, Any] = {"device": limited, "shots": 4_000, "seed": 5}
    found = [task.result().counts.get("1", 0) for task in env.submit_many(work, **terms)]
    once = [env.run(rotated(each), **terms).counts.get("1", 0) for each in ANGLES]
    text = "binding 1: operation 1 .rzz on qubits 0, 1. has the angle -0.4; device limited has rzz"
    kept = (rotated(angle), [[0.4], [-0.4]])
    fails(BatchRefusedError, text, env.submit_many, kept, compile="never", **terms)
    backend = SimenvBackend(limited, env)
    pub = (rotated(angle), [[each] for each in ANGLES])
    data = SimenvSampler(backend, seed=5).run([pub], shots=4_000).result()[0].data.c
    sampled = [data[k].get_counts().get("1", 0) for k in range(len(ANGLES))]
    bare = rotated(angle).remove_final_measurements(inplace=False)
    estimated = SimenvEstimator(backend).run([(bare, "IZ", ANGLES)], precision=0.01).result()
    for k, each in enumerate(ANGLES):
        ones = float(np.sum(np.abs(Statevector(without(rotated(each))).data[1::2]) ** 2))
        for counts in (found, once, sampled):
            assert abs(counts[k] - 4_000 * ones) < 5 * math.sqrt(4_000 * ones * (1 - ones)) + 1
        assert estimated[0].data.evs[k] == pytest.approx(1 - 2 * ones, abs=0.05)


def without(circuit: QuantumCircuit) -> QuantumCircuit:
    return circuit.remove_final_measurements(inplace=False)


def test_angle_of_a_circuit_of_a_known_structure_is_checked_too(env: Client, limited: str) -> None:
    """The service examines circuits that differ in their angles alone once."""
    terms: dict[str, Any] = {"device": limited, "shots": 10, "compile": "never"}
    for _ in range(2):
        env.run(rotated(0.3), **terms)
        fails(InfeasibleError, "has the angle -0.3", env.submit, rotated(-0.3), **terms)
    many = [rotated(each) for each in (0.1, 0.2, 2.0)]
    fails(BatchRefusedError, "has the angle 2", env.submit_many, many, **terms)


def test_angle_of_another_gate_outside_its_limits_is_refused(env: Client, limited: str) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.rx(4.0, 0)
    circuit.measure(0, 0)
    terms: dict[str, Any] = {"device": limited, "shots": 10}
    fails(InfeasibleError, "has the angle 4", env.submit, circuit, compile="never", **terms)
    angle = Parameter("angle")
    swept = QuantumCircuit(1, 1)
    swept.rx(angle, 0)
    swept.measure(0, 0)
    fails(BatchRefusedError, "has the angle 4", env.submit_many, (swept, [[1.0], [4.0]]), **terms)


NOISE: dict[str, Any] = {"gate.depolarizing": 1e9}


TEXT = r"^gate\.depolarizing \* 1e\+09 is above"


def one(caught: pytest.WarningsRecorder) -> str:
    """The text of the only warning, which is at a line of this file."""
    (entry,) = caught
    assert entry.filename == __file__
    assert issubclass(entry.category, UserWarning)
    return str(entry.message)


def test_python_client_warns_once_for_each_task(env: Client) -> None:
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        result = env.run(ghz(), device=DEVICE, noise=NOISE, shots=50)
    assert result.warnings == (one(caught),)
    task = env.submit(ghz(), device=DEVICE, noise=NOISE, shots=50)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        assert task.result() is task.results()[0] is task.result()
    one(caught)
    sweep = env.submit_many([ghz()] * 2, device=DEVICE, noise=NOISE, shots=50)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        [each.result() for each in sweep]
    assert len(caught) == len({each.handle.number for each in sweep})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert env.run(ghz(), device=DEVICE, shots=50).warnings == ()


def test_warning_made_an_error_leaves_the_result(env: Client) -> None:
    task = env.submit(ghz(), device=DEVICE, noise=NOISE, shots=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SimenvWarning)
        fails(SimenvWarning, TEXT, task.result)
    assert task.result().shots == 50


def test_jobs_of_qiskit_warn_and_have_the_text_in_their_metadata(env: Client) -> None:
    backend = SimenvBackend(DEVICE, env, noise=NOISE)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        header = backend.run(ghz(), shots=50).result().results[0].header
    assert header["warnings"] == [one(caught)]
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        sampled = SimenvSampler(backend).run([ghz()], shots=50).result()
    assert sampled.metadata["simenv"][0]["warnings"] == [one(caught)]
    bare = ghz().remove_final_measurements(inplace=False)
    with pytest.warns(SimenvWarning, match=TEXT) as caught:
        estimated = SimenvEstimator(backend).run([(bare, "ZZZ")], precision=0.1).result()
    assert estimated.metadata["simenv"][0]["warnings"] == [one(caught)]


def test_jobs_of_ibms_and_iqms_clients_take_the_warnings_of_their_tasks(env: Client) -> None:
    tasks = [env.submit(ghz(), device=DEVICE, noise=noise, shots=50) for noise in (NOISE, "on")]
    job = SubmittedJob(tasks, lambda: [task.wait() for task in tasks], lambda *_: "{}")
    assert job.result().warnings == list(tasks[0].result().warnings)


def without_calibration(env: Client) -> str:
    """A device without any calibration of its gate on two qubits."""
    base = library.load(DEVICE)
    gates = tuple(each for each in base.gates if each.name != "cz")
    stored("gap", msgspec.structs.replace(base, name="gap", gates=gates))
    assert env.device("gap").num_qubits == base.num_qubits
    return "gap"


LACKS = "cz acted without errors: device gap has no measured error of it"


def test_gate_without_any_calibration_is_named_in_each_interface(
    env: Client, shell: Shell, tmp_path: Path
) -> None:
    device = without_calibration(env)
    task = env.submit(ghz(), device=device, shots=50)
    with pytest.warns(SimenvWarning, match=LACKS) as caught:
        result = task.result()
    assert result.warnings == (one(caught),) == (LACKS,)
    backend = SimenvBackend(device, env)
    with pytest.warns(SimenvWarning, match=LACKS):
        header = backend.run(ghz(), shots=50).result().results[0].header
    assert header["warnings"] == [LACKS]
    assert SubmittedJob([task], lambda: [task.wait()], lambda *_: "{}").result().warnings == [LACKS]
    path = tmp_path / "ghz.qasm"
    path.write_text(qasm2.dumps(ghz()))
    assert LACKS in shell("submit", str(path), "--device", device, "--shots", "50", "--wait").err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert env.run(ghz(), device=device, noise="off", shots=50).warnings == ()


def test_relaxation_and_readout_that_do_not_act_are_named(env: Client) -> None:
    from noise_models.design import DeviceDesign, snapshot_of

    device, _ = snapshot_of(
        DeviceDesign(
            "untimed", 3, ((0, 1), (1, 2)),
            values={
                "t1_us": (120.0,), "t2_us": (80.0,), "p01": (0.1,),
                "error_1q": (1e-3,), "error_2q": (1e-2,), "duration_1q_ns": (32.0,),
            },
        )
    )  # fmt: skip
    stored("untimed", device)
    timeless = "no relaxation while cz ran: device untimed has no duration of it"
    exact = "readout of 1 acted without errors: device untimed has no measured error of it"
    single = QuantumCircuit(1)
    single.sx(0)
    single.measure_all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimenvWarning)
        assert env.run(ghz(), device="untimed", shots=50).warnings == (exact, timeless)
        assert env.run(single, device="untimed", shots=50).warnings == (exact,)
    given = {"qubit.t1_us": 50.0, "qubit.p10": 0.1}
    assert env.run(ghz(), device="untimed", noise=given, shots=50).warnings == ()


def test_calibration_as_noise_names_the_gates_that_it_does_not_have(env: Client) -> None:
    body = document.dump(library.load(DEVICE))
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.sx(0)
    circuit.cz(0, 1)
    circuit.measure([0, 1], [0, 1])
    with pytest.warns(SimenvWarning, match="h on 0 acted without errors"):
        env.run(circuit, noise=body, shots=50)
