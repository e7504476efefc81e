"""Options of circuits on pulse sequences, and of pulse sequences on circuits: refused, or used."""

from typing import Any

import pytest

from simenv.client.client import Client
from simenv.errors import SimenvError

pulser = pytest.importorskip("pulser")
BELL = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;'
)
MODEL = pulser.NoiseModel(p_false_pos=0.1)
DEVICE = {"device": "neutral-atoms-analog"}
POOL = {"pool": "main"}  # of no device

# What a sequence is given, and the words of the refusal that name it.
OF_CIRCUITS: list[tuple[dict[str, Any], str]] = [
    ({"precision": "single"}, "precision="),
    ({"ranks": 2}, "ranks="),
    ({"prefer": "simulator"}, "prefer="),
    ({"qubit_mapping": [0, 1]}, "qubit_mapping="),
    ({"partition": "a,b"}, "partition="),
    ({"amplitudes": "01"}, "amplitudes="),
    ({"decoder": "pymatching"}, "decoder="),
    ({"interconnect": "draw"}, "interconnect="),
    ({"late_us": 1.0}, "late_us="),
    ({"engine": "statevector"}, "engine 'statevector'"),
    ({"outputs": "probabilities"}, "'probabilities'"),
    ({"outputs": "gradient"}, "'gradient'"),
    ({"parameter_values": {"theta": 1.0}}, "no variables theta"),
    ({"options": {"bond": 4}}, "'bond'"),
    ({"options": {"twirl": 1}}, "'twirl'"),
    ({"options": {"modulation": 0.5}}, "modulation=0.5"),
    ({"noise": "aer"}, "noise='aer'"),
    ({"noise": {"kind": "channels", "errors": []}}, "noise={'kind'"),
    ({"noise": {"errors": []}}, "noise={'errors'"),
    ({"noise": b'{"kind": "channels"}'}, "the noise model"),
    ({"noise": {"gate.depolarizing": 1}}, "gate.depolarizing"),
    ({"noise": {"gate.depolarizing": 0.5}}, "gate.depolarizing"),
    ({"noise": {"qubit": 1}}, "qubit"),
    ({"noise": {"idle": True}}, "idle"),
    ({"compile": "always"}, "compile='always'"),
    ({"compile": "fresh"}, "compile='fresh'"),
]
OF_DEVICES: list[tuple[dict[str, Any], str]] = [
    ({"compile": "never"}, "compile='never'.* without a device"),
    ({"noise": {"atom.relaxation": 1}}, "noise=.* without a device"),
    ({"noise": {"all": 1}}, "noise=.* without a device"),
    ({"noise": "on"}, "no noise model"),
]
OF_PULSES: list[tuple[dict[str, Any], str]] = [
    ({"evaluation_times": [0.5]}, "evaluation_times="),
    ({"options": {"modulation": 1}}, "'modulation'"),
    ({"options": {"trajectories": 5}}, "'trajectories'"),
    ({"engine": "rydberg"}, "'rydberg'"),
    ({"outputs": "occupation"}, "'occupation'"),
    ({"outputs": "correlation"}, "'correlation'"),
    ({"outputs": "energy"}, "'energy'"),
    ({"parameter_values": {"qubits": {"q0": 1}}}, "qubits"),
    ({"noise": MODEL}, "noise="),
    ({"noise": MODEL.to_abstract_repr()}, "noise="),
    ({"noise": MODEL.to_abstract_repr().encode()}, "noise"),
    ({"noise": {"atom.relaxation": 1}, "device": "superconducting-lattice"}, "atom.relaxation"),
    ({"noise": {"atom": 1}, "device": "superconducting-lattice"}, "atom"),
    ({"noise": {"atom.t1_us": 9.0}, "device": "superconducting-lattice"}, "atom.t1_us"),
    (DEVICE, "runs pulse sequences"),
]


def sequence() -> Any:
    """A half turn of two atoms, which the device can run."""
    register = pulser.Register.rectangle(1, 2, spacing=20.0, prefix="q")
    result = pulser.Sequence(register, pulser.MockDevice)
    result.declare_channel("global", "rydberg_global")
    result.add(pulser.Pulse.ConstantPulse(252, 12.0, 0.0, 0.0), "global")
    return result


@pytest.mark.parametrize("where", [{}, POOL, DEVICE], ids=["plain", "pool", "device"])
@pytest.mark.parametrize(
    ("given", "words"), OF_CIRCUITS, ids=[str(each) for each, _ in OF_CIRCUITS]
)
def test_a_sequence_refuses_what_is_of_circuits(
    env: Client, given: dict[str, Any], words: str, where: dict[str, str]
) -> None:
    with pytest.raises(SimenvError, match=words):
        env.submit(sequence(), **where, **given)


@pytest.mark.parametrize("where", [{}, POOL], ids=["plain", "pool"])
@pytest.mark.parametrize(("given", "words"), OF_DEVICES, ids=[str(each) for each, _ in OF_DEVICES])
def test_a_sequence_without_a_device_refuses_what_is_of_devices(
    env: Client, given: dict[str, Any], words: str, where: dict[str, str]
) -> None:
    with pytest.raises(SimenvError, match=words):
        env.submit(sequence(), **where, **given)
    with pytest.raises(SimenvError, match=words):
        env.explain(sequence(), **where, **given)


@pytest.mark.parametrize(
    ("given", "words"), OF_PULSES, ids=[str(each)[:60] for each, _ in OF_PULSES]
)
def test_a_circuit_refuses_what_is_of_sequences(
    env: Client, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(SimenvError, match=words):
        env.submit(BELL, **given)


def test_the_default_noise_of_a_device_may_be_written_as_none(env: Client) -> None:
    options: dict[str, Any] = {"shots": 200, "seed": 5, **DEVICE}
    written = env.run(sequence(), noise=None, **options)
    assert written.trajectories == 200
    assert written.counts == env.run(sequence(), **options).counts
