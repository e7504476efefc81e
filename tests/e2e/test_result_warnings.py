"""Warnings of a result reach whoever reads it, through each interface of Python."""

import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from emulated import DEVICE, ghz
from qiskit import QuantumCircuit, qasm2
from shell import Shell

from noise_models import document, library
from simenv import config
from simenv.client.client import Client
from simenv.errors import SimenvWarning
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.gateway.ibm.programs import SubmittedJob

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
        with pytest.raises(SimenvWarning, match=TEXT):
            task.result()
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
    changed = msgspec.structs.replace(base, name="gap", gates=gates)
    path = config.devices_folder() / "gap.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(document.dump(changed))
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
    job = SubmittedJob([task], lambda: [task.wait()], lambda *_: "{}")
    assert job.result().warnings == [LACKS]
    path = tmp_path / "ghz.qasm"
    path.write_text(qasm2.dumps(ghz()))
    shown = shell("submit", str(path), "--device", device, "--shots", "50", "--wait")
    assert LACKS in shown.err
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
    path = config.devices_folder() / "untimed.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(document.dump(device))
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
