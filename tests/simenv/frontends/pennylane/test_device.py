"""The device itself: entry point, options, environments, copies, noise, tracker."""

import copy
import pickle
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing import fails
from interpreter import python

from simenv.client.client import Client, connect
from simenv.errors import (
    InfeasibleError,
    NoDeviceError,
    NoServiceError,
    OptionError,
    ProgramError,
    SimenvWarning,
)

qml = pytest.importorskip("pennylane")


def bell() -> Any:
    qml.Hadamard(0)
    qml.CNOT([0, 1])
    return qml.expval(qml.Z(0) @ qml.Z(1)), qml.probs(wires=[0, 1])


def test_entry_point_names_the_device(device: Any) -> None:
    from simenv.frontends.pennylane import SimenvDevice

    (point,) = metadata.entry_points(group="pennylane.plugins", name="simenv")
    assert point.load() is SimenvDevice
    dev = device(2)
    assert isinstance(dev, SimenvDevice)
    assert dev.name == "simenv"
    assert isinstance(dev, qml.devices.Device)


def test_device_without_environment_starts_one_that_ends_with_the_process() -> None:
    program = (
        "import pennylane as qml, psutil\n"
        "dev = qml.device('simenv', wires=1)\n"
        "node = qml.QNode(lambda: qml.probs(wires=[0]), dev)\n"
        "assert node().tolist() == [1.0, 0.0]\n"
        "assert qml.device('simenv', wires=1).client is dev.client\n"
        "print(dev.client.status().pid)\n"
        "import sys\n"
        "assert not {'simulators', 'launcher', 'noise_models'} & set(sys.modules)\n"
    )
    done = python("-c", program, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("simenv: no environment is up; starting a private one")
    assert not pytest.importorskip("psutil").pid_exists(int(done.stdout.split()[-1]))


def test_named_environment_that_is_not_up_is_refused() -> None:
    fails(NoServiceError, "", qml.device, "simenv", wires=1, env="nowhere-up")


def pickled(dev: Any) -> Any:
    return pickle.loads(pickle.dumps(dev))  # noqa: S301 - of this test


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copy_connects_to_the_same_environment_and_has_the_same_random_numbers(
    copied: Callable[[Any], Any], device: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simenv.frontends.pennylane.device._clients", {})

    def sampled(dev: Any) -> Any:
        return qml.set_shots(qml.QNode(circuit, dev), shots=100)()

    def circuit() -> Any:
        qml.Hadamard("a")
        return qml.counts(wires=["a", "b"])

    with connect(service=client.service, role="client") as limited:
        dev = device(["a", "b"], env=limited, task_name="copied", engine="statevector")
        sampled(dev)
        other = copied(dev)
        with other.client:
            assert other.client is not limited
            assert (other.client.service, other.client.session.as_client) == (client.service, True)
            assert (other.wires, other._options) == (dev.wires, dev._options)
            assert sampled(other) == sampled(dev)


def test_pickled_device_runs_in_another_process(device: Any, tmp_path: Path) -> None:
    file = tmp_path / "device.pickle"
    file.write_bytes(pickle.dumps(device(1)))
    program = (
        "import pickle, sys, pennylane as qml\n"
        "dev = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(qml.QNode(lambda: qml.probs(wires=[0]), dev)().tolist())\n"
    )
    assert python("-c", program, file, timeout=120).stdout == "[1.0, 0.0]\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "half"}, "precision"),
        ({"compile": "maybe"}, "compile"),
        ({"device": "Not A Name"}, "device"),
        ({"engine": 3}, "engine"),
        ({"options": {"bond": "wide"}}, "bond"),
        ({"env": 3}, "env=3"),
        ({"seed": "a"}, "seed='a'"),
        ({"seed": -1}, "seed=-1"),
        ({"task_name": "a\n"}, "name="),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], words: str, device: Any) -> None:
    fails(OptionError, words, device, 2, **options)


def test_options_angles_and_conditions_that_cannot_be_are_refused(device: Any) -> None:
    dev = device(1)
    config = qml.devices.ExecutionConfig(device_options={"max_workers": 3})
    fails(qml.exceptions.DeviceError, "max_workers", dev.setup_execution_config, config)

    def circuit(x: float) -> Any:
        qml.RX(x, 0)
        return qml.expval(qml.Z(0))

    fails(OptionError, "nan", qml.QNode(circuit, device(1)), float("nan"))

    def circuit() -> Any:
        outcomes = [qml.measure(0) for _ in range(13)]
        qml.cond(sum(outcomes[1:], outcomes[0]) == 3, qml.X)(0)
        return qml.probs(wires=[0])

    with pytest.raises(ProgramError, match="13 mid-circuit measurements"):
        qml.set_shots(qml.QNode(circuit, device(1)), 10)()


def test_options_reach_task_and_pool(device: Any) -> None:
    dev = device(2, engine="mps", options={"bond": 8})
    qml.QNode(bell, dev)()
    (newest, *_) = dev.client.queue(done=True, limit=1)[1]
    result = dev.client.task(newest.id).results()[0]
    assert (result.engine, result.options) == ("mps", {"bond": 8})
    value, _ = qml.QNode(bell, device(2, pool="main"))()
    assert value == pytest.approx(1.0)
    config = qml.devices.ExecutionConfig(gradient_method="best")
    assert device(2, pool="main").supports_derivatives(config)


def test_tasks_have_the_name_of_the_device(device: Any) -> None:
    dev = device(2, task_name="sweep-3")
    qml.QNode(bell, dev)()
    (newest, *_) = dev.client.queue(done=True, limit=1)[1]
    assert newest.name == "sweep-3"
    fails(TypeError, r"no option wire; did you mean `wires`\?", device, wire=2)


def long_tape() -> Any:
    """Minutes, if nobody cancels it."""
    wires = range(23)
    layer = [*(qml.RX(0.1 + wire, wire) for wire in wires), *(qml.CNOT([w, w + 1]) for w in wires)]
    return qml.tape.QuantumScript(layer * 500, [qml.counts()], shots=10)


def wide_tape(shots: int | None = None) -> Any:
    """No machine holds its state."""
    chain = [qml.Hadamard(0), *(qml.CNOT([wire, wire + 1]) for wire in range(45))]
    measured = qml.counts() if shots else qml.expval(qml.Z(45))
    return qml.tape.QuantumScript(chain, [measured], shots=shots)


@pytest.mark.parametrize("shots", [None, 20])  # in a message of its own, and in the same one
def test_refused_tape_cancels_the_others(shots: int | None, device: Any, client: Any) -> None:
    for completion in client.completions():
        client.ack(completion.seq)
    with pytest.raises(InfeasibleError, match=r"^tape 1: .*46 qubits"):
        device(engine="statevector").execute([long_tape(), wide_tape(shots)])
    assert {completion.state for completion in client.completions()} <= {"CANCELLED"}
    assert client.queue()[0] == 0
    with pytest.raises(InfeasibleError, match=r"^this program needs"):  # of one there is no doubt
        device(engine="statevector").execute([wide_tape(shots)])


def test_tracker_counts_executions_and_shots(device: Any) -> None:
    dev = device(2)
    with dev.tracker:
        qml.set_shots(qml.QNode(bell, dev), 100)()
        qml.QNode(bell, dev)()
    assert (dev.tracker.totals["batches"], dev.tracker.totals["simulations"]) == (2, 2)
    assert dev.tracker.totals["shots"] == 200  # two bases, as PennyLane counts them


def test_noise_of_emulated_devices_is_exact_and_in_shots(device: Any) -> None:
    value, odds = qml.QNode(bell, device(2, device="fez"))()
    assert 0.7 < value < 0.999
    assert odds.sum() == pytest.approx(1.0)
    assert odds[1] > 1e-4
    clean, _ = qml.QNode(bell, device(2, device="fez", noise="off"))()
    assert clean == pytest.approx(1.0, abs=1e-9)
    fails(NoDeviceError, "noise needs an emulated device", qml.QNode(bell, device(2, noise="on")))
    dev = device(2, device="fez")
    _, odds = qml.QNode(bell, dev)()
    _, value = qml.set_shots(qml.QNode(bell, dev), 20_000)()
    assert np.all(np.abs(value - odds) < 5 * np.sqrt((odds * (1 - odds) + 1e-9) / 20_000))


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_gradient_of_an_emulated_device_is_a_parameter_shift(device: Any) -> None:
    def circuit(x: Any) -> Any:
        qml.RX(x, 0)
        qml.CNOT([0, 1])
        return qml.expval(qml.Z(1))

    dev = device(2, device="fez")
    at = qml.numpy.array(0.8, requires_grad=True)
    assert not dev.supports_derivatives(qml.devices.ExecutionConfig(gradient_method="best"))
    result = qml.grad(qml.QNode(circuit, dev))(at)
    assert -np.sin(0.8) < result < -0.5 * np.sin(0.8)  # damped


def test_noise_that_does_not_act_warns_and_states_are_refused(device: Any) -> None:
    for measured in (qml.state, lambda: qml.density_matrix([0]), lambda: qml.purity([0])):
        with pytest.raises(qml.exceptions.DeviceError, match="on ideal devices only"):
            qml.QNode(measured, device(2, device="fez"))()
    with (
        pytest.warns(UserWarning, match="adjoint gradients of ideal devices only"),
        pytest.raises(qml.exceptions.QuantumFunctionError),
    ):
        qml.QNode(bell, device(2, device="fez"), diff_method="adjoint")()
    dev = device(2, device="fez", noise={"gate.crosstalk": 2.0})
    with pytest.warns(SimenvWarning, match="changes nothing") as caught:
        qml.QNode(bell, dev)()
    assert {each.filename for each in caught} == {__file__}


def test_barriers_keep_the_folds_of_a_circuit(device: Any) -> None:
    """Compilation cancels a gate and its inverse, but not across a barrier."""

    def circuit(*, between: Any) -> Any:
        between()
        qml.RY(0.4, 0)
        qml.CNOT([0, 1])
        between()
        return qml.expval(qml.Z(0) @ qml.Z(1))

    def values(between: Any) -> list[float]:
        node = qml.QNode(circuit, device(2, device="fez", noise={"all": 5}))
        return [float(qml.noise.fold_global(node, scale)(between=between)) for scale in (1, 3, 5)]

    once, thrice, five_times = values(lambda: qml.Barrier([0, 1]))
    assert once - thrice > 0.01 < thrice - five_times
    for ignored in (lambda: None, lambda: qml.Barrier([0, 1], only_visual=True)):
        np.testing.assert_allclose(values(ignored), once, atol=1e-9)
