"""Sequences that pulser-myqlm puts into schedules, on a real gateway."""

import json
import math
from typing import Any

import pytest
from failing import fails
from simenv_myqlm import GatewayConnection, Runner
from simenv_myqlm.errors import UnsupportedError
from simenv_myqlm.pulses import MAX_TEXT_BYTES, pulse_job
from simenv_myqlm.records import Circuit, Gate, Job

SHOTS = 4_000


def schedule(**more: Any) -> bytes:
    """What a schedule carries: the first of two distant atoms is excited, the second half."""
    pulser = pytest.importorskip("pulser")
    register = pulser.Register.from_coordinates([(0, 0), (60, 0)], prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("local", "rydberg_local", initial_target="q0")
    sequence.add(pulser.Pulse.ConstantPulse(500, 2 * math.pi, 0.0, 0.0), "local")
    sequence.target("q1", "local")
    sequence.add(pulser.Pulse.ConstantPulse(500, math.pi, 0.0, 0.0), "local")
    return json.dumps({"abstr_seq": sequence.to_abstract_repr(), **more}).encode()


def test_sequences_run_beside_circuits_with_the_first_atom_highest(
    connection: GatewayConnection,
) -> None:
    text = schedule(modulation=False)
    jobs = [pulse_job(text, SHOTS), Job(Circuit(1, (Gate("X", (), (0,)),)), 10), pulse_job(text, 0)]
    sampled, circuit, exact = Runner(connection, seed=2).run(jobs)
    assert {sample.state for sample in circuit.samples} == {1}
    shares = {sample.state: sample.probability or 0.0 for sample in exact.samples}
    assert shares[2] + shares[3] == pytest.approx(1.0, abs=1e-3)
    assert shares[2] == pytest.approx(0.5, abs=1e-3)
    for sample in sampled.samples:
        bound = 5 * math.sqrt(0.25 / SHOTS)
        assert abs((sample.probability or 0.0) - shares.get(sample.state, 0.0)) < bound
        assert sample.err is not None
    assert sampled.meta_data["n_samples"] == str(SHOTS)
    assert (exact.meta_data["n_qubits"], exact.meta_data["engine"]) == ("2", "rydberg")


def test_modulation_of_a_schedule_is_an_option_of_the_task(connection: GatewayConnection) -> None:
    job = pulse_job(schedule(modulation=True), 100)
    assert job.modulation
    (result,) = Runner(connection, seed=2, options={"tolerance": 1e-5}).run([job])
    assert result.meta_data["shots"] == "100"


def test_a_device_of_neutral_atoms_has_its_noise(connection: GatewayConnection) -> None:
    pulser = pytest.importorskip("pulser")
    register = pulser.Register.rectangle(1, 2, spacing=8.0, prefix="q")
    sequence = pulser.Sequence(
        register.with_automatic_layout(pulser.AnalogDevice), pulser.AnalogDevice
    )
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(500, 2 * math.pi, 0.0, 0.0), "global")
    job = pulse_job(json.dumps({"abstr_seq": sequence.to_abstract_repr()}).encode(), 200)
    (result,) = Runner(connection, device="neutral-atoms-analog", seed=1).run([job])
    assert result.meta_data["device"] == "neutral-atoms-analog"
    assert sum(sample.probability or 0.0 for sample in result.samples) == pytest.approx(1)


@pytest.mark.parametrize(
    ("carried", "text"),
    [
        (None, "carries no Pulser sequence"), (b"", "carries no Pulser sequence"),
        (b"{", "no text of a Pulser"), (b"[1]", "no text of a Pulser"),
        (b'{"abstr_seq": {}}', "no text of a Pulser"), (b"[" * 10**5, "no text of a Pulser"),
        (b" " * (MAX_TEXT_BYTES + 1), f"at most {MAX_TEXT_BYTES}"), (b"\xff", "no text of"),
    ],
)  # fmt: skip
def test_schedules_without_a_sequence_are_refused(carried: object, text: str) -> None:
    assert text in str(fails(UnsupportedError, "", pulse_job, carried, 10))
