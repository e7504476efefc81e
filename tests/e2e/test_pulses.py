"""Pulse sequences, through a service."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from live import with_keys
from waiting import until

import simenv
from simenv.client.client import Client
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.errors import LimitExceededError, OptionError, ProgramError, TaskFailedError
from simenv.model import TaskOptions, TaskSpec, TaskState, calls, pulses
from simenv.model.options import VALUE
from simenv.wire import codec

pulser = pytest.importorskip("pulser")
PATIENCE_S = 120.0
OPTIONS = {"listen": "tcp://127.0.0.1:0"}


def chain(atoms: int = 3, amplitude: Any = 7.0) -> Any:
    """Two resonant pulses on a chain of atoms in blockade of their neighbours."""
    register = pulser.Register.from_coordinates([(5.5 * k, 0) for k in range(atoms)], prefix="a")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    if isinstance(amplitude, str):
        amplitude = sequence.declare_variable(amplitude)
    sequence.add(pulser.Pulse.ConstantPulse(120, amplitude, 1.0, 0.3), "global")
    sequence.add(pulser.Pulse.ConstantPulse(80, amplitude, -2.0, 0.0), "global")
    return sequence


def test_two_atoms_in_blockade_oscillate_together(env: Client) -> None:
    register = pulser.Register.from_coordinates([(0, 0), (4, 0)], prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    rabi = 2 * np.pi
    # Half an oscillation at sqrt(2) times the Rabi frequency: one atom or the other is excited.
    duration = round(1000 / (2 * np.sqrt(2)))
    sequence.add(pulser.Pulse.ConstantPulse(duration, rabi, 0.0, 0.0), "global")
    result: Any = env.run(sequence, shots=4_000, seed=9)
    assert isinstance(result, simenv.PulseResult)
    assert result.occupations == pytest.approx([0.5, 0.5], abs=1e-3)
    assert set(result.counts) <= {"01", "10", "00", "11"}
    assert result.counts["01"] == pytest.approx(2_000, abs=5 * np.sqrt(1_000))
    assert result.atoms == ("q0", "q1")
    assert (result.shots, result.seed, result.basis) == (4_000, 9, "ground-rydberg")
    assert 0.0 < result.error <= 1e-6


def test_a_masked_atom_waits_and_then_exchanges_the_excitation(env: Client) -> None:
    register = pulser.Register.from_coordinates([(0, 0), (10, 0)], prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.config_slm_mask(["q1"])
    sequence.declare_channel("microwave", "mw_global")
    sequence.add(pulser.Pulse.ConstantPulse(100, 10 * np.pi, 0.0, 0.0), "microwave")
    sequence.delay(300, "microwave")
    result: Any = env.run(
        sequence, shots=None, evaluation_times=(0.125, 0.245), outputs=("occupation", "energy")
    )
    assert result.occupation[0] == pytest.approx([0.5, 0.0], abs=0.02), "half of a pulse"
    assert result.occupation[1] == pytest.approx([1.0, 0.0], abs=0.02)
    angle = pulser.MockDevice.interaction_coeff_xy / 10**3 * 0.3  # within 300 ns
    expected = [np.cos(angle) ** 2, np.sin(angle) ** 2]
    assert result.occupation[2] == pytest.approx(expected, abs=0.01)


def test_killed_worker_leaves_the_same_samples(env: Client) -> None:
    long = chain(16)
    for _ in range(20):
        long.add(pulser.Pulse.ConstantPulse(150, 7.0, 1.0, 0.3), "global")
    with simenv.local(workers=1) as client:
        oracle: Any = client.run(long, shots=500, seed=11)
        task = client.submit(long, shots=500, seed=11)
        until(lambda: client.tasks([task])[0].state is TaskState.RUNNING)
        time.sleep(0.1)
        os.kill(client.workers()[0].pid, signal.SIGKILL)
        result: Any = task.result(PATIENCE_S)
        assert task.details.attempts == 2  # type: ignore[attr-defined]
    assert result.counts == oracle.counts
    other: Any = env.run(long, shots=500, seed=11)  # one of several workers, of other slots
    assert other.counts == oracle.counts
    assert np.array_equal(other.occupations, oracle.occupations)


NOISE = {
    "drawn": {"amp_sigma": 0.1, "state_prep_error": 0.1, "p_false_neg": 0.1},
    "prepared": {"state_prep_error": 0.2},
    "events": {"dephasing_rate": 1.0, "relaxation_rate": 2.0},
}


@pytest.mark.parametrize("kind", NOISE)
def test_samples_of_a_batch_are_those_of_its_tasks_alone(
    env: Client, tmp_path: Path, kind: str
) -> None:
    values = [3.0, 5.0, 7.0, 9.0, 6.0, 4.0]
    asked: dict[str, Any] = {
        "shots": 60, "seed": 12, "outputs": ("counts", "memory", "energy"),
        "noise": pulser.NoiseModel(**NOISE[kind]), "evaluation_times": (0.5,),
    }  # fmt: skip
    sequence = chain(3, "rabi")
    tasks = env.submit_many((sequence, {"rabi": values}), **asked)
    batch: list[Any] = [task.result(PATIENCE_S) for task in tasks]
    assert len({tuple(each.memory) for each in batch}) == len(batch)
    name = f"bits-{kind}"
    with with_keys(env, tmp_path, name) as keys:
        # In a process of its own, for a client that has to be trusted with nothing.
        for client, number in ((env, 4), (keys[name], 4), (env, 0)):
            alone: Any = client.run(
                sequence, parameter_values={"rabi": values[number]}, binding_index=number, **asked
            )
            assert alone.memory_at == batch[number].memory_at
            assert alone.energy.tobytes() == batch[number].energy.tobytes()


def test_the_text_of_a_sequence_is_the_same_program(env: Client) -> None:
    text = chain().to_abstract_repr()
    asked = {"outputs": ("counts", "memory", "statevector"), "observables": ["ZII", "IIZ", "XXI"]}
    first: Any = env.run(chain(), shots=200, seed=4, **asked)
    task = env.submit(text, shots=200, seed=4, name="atoms", **asked)
    second: Any = task.result(PATIENCE_S)
    assert task.name == "atoms"
    assert task.details.engine == pulses.RYDBERG  # type: ignore[attr-defined]
    assert first.counts == second.counts
    assert np.array_equal(first.statevector, second.statevector)
    assert sum(first.counts.values()) == len(first.memory) == 200
    assert first.counts[first.memory[0]] == first.memory.count(first.memory[0])
    probabilities = np.abs(first.statevector) ** 2
    zs = 1 - 2 * first.occupations
    assert first.expectation[:2] == pytest.approx(zs[[0, 2]])
    assert probabilities[4:].sum() == pytest.approx(first.occupations[0])
    value = env.task(task.id).result(PATIENCE_S).value
    assert simenv.PulseResult(value).counts == first.counts


def test_outputs_at_times_are_those_of_the_states_there(env: Client) -> None:
    result: Any = env.run(
        chain(), shots=2_000, seed=3, observables=["ZII", "XIX"], evaluation_times=[0.0, 0.35, 0.6],
        outputs=("counts", "memory", "statevector", "correlation", "energy"),
    )  # fmt: skip
    assert result.evaluation_times.tolist() == [0.0, 0.35, 0.6, 1.0]
    assert result.duration_ns == 200
    states = result.statevector_at
    assert abs(states[0, 0]) == pytest.approx(1.0)
    ones = (np.arange(8)[:, None] >> np.arange(3)[::-1]) & 1
    weights = np.abs(states) ** 2
    assert result.occupation == pytest.approx(weights @ ones)
    assert result.correlation == pytest.approx(np.einsum("ts,sj,sk->tjk", weights, ones, ones))
    assert result.expectation_at[:, 0] == pytest.approx(1 - 2 * result.occupation[:, 0])
    assert result.expectation_at[-1] == pytest.approx(result.expectation)
    assert np.array_equal(states[-1], result.statevector)
    # Each atom turns with half of 7 rad/us, about which the first state has no energy.
    assert result.energy[0] == pytest.approx(0.0, abs=1e-9)
    assert result.energy_variance[0] == pytest.approx(3 * 3.5**2)
    assert result.energy[1] == pytest.approx(0.0, abs=1e-2), "conserved by a constant pulse"
    assert result.counts_at[0] == {"000": 2_000}
    for counts, memory, expected in zip(result.counts_at, result.memory_at, weights, strict=True):
        assert sum(counts.values()) == len(memory) == 2_000
        assert all(memory.count(text) == number for text, number in counts.items())
        for index, weight in enumerate(expected):
            drawn = counts.get(format(index, "03b"), 0) / 2_000
            assert drawn == pytest.approx(weight, abs=5 * np.sqrt(weight / 2_000) + 1e-9)
    assert result.counts == result.counts_at[-1]
    assert not result.standard_error("energy").any()
    plain: Any = env.run(chain(), shots=2_000, seed=3)
    fails(OptionError, "not requested", lambda: plain.correlation)
    fails(OptionError, "not requested", lambda: plain.energy_variance)


def test_means_over_trajectories_have_standard_errors(env: Client) -> None:
    model = pulser.NoiseModel(amp_sigma=0.2, relaxation_rate=2.0)
    result: Any = env.run(
        chain(), shots=None, seed=3, noise=model, observables=["ZII"],
        outputs=("energy", "correlation"), evaluation_times=(0.5,), options={"trajectories": 100},
    )  # fmt: skip
    errors = result.standard_error("occupation")
    assert errors.shape == (2, 3)
    assert np.all((errors > 1e-4) & (errors < 0.05)), "at most 0.5 / sqrt(100)"
    assert result.standard_error("expectation_at")[:, 0] == pytest.approx(2 * errors[:, 0])
    assert result.standard_error("correlation").shape == result.correlation.shape
    assert result.standard_error("energy_second_moment").min() > 0
    single: Any = env.run(
        chain(), shots=None, noise=model, options={"trajectories": 1}, evaluation_times=[0.5]
    )
    assert np.isnan(single.standard_error("occupation")).all()


def test_a_sweep_has_one_task_for_each_value_of_a_variable(env: Client) -> None:
    tasks = env.submit_many((chain(2, "rabi"), {"rabi": [0.0, 3.0, 8.0]}), shots=None)
    occupied = [task.result(PATIENCE_S).occupations[0] for task in tasks]  # type: ignore[attr-defined]
    assert occupied[0] == pytest.approx(0.0, abs=1e-9)
    assert occupied[0] < occupied[1] < occupied[2]
    single: Any = env.run(chain(2, "rabi"), shots=None, parameter_values={"rabi": 8.0})
    assert single.occupations[0] == pytest.approx(occupied[2])


def test_atoms_of_a_mapped_register_are_where_the_submission_says(env: Client) -> None:
    layout = pulser.register.RegisterLayout([(0, 0), (4, 0), (60, 0), (0, 60)])
    sequence = pulser.Sequence(layout.make_mappable_register(2), pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(500, 2 * np.pi, 0.0, 0.0), "global")
    places = [{"q0": 0, "q1": 2}, {"q0": 0, "q1": 3}]  # traps are ordered by coordinates
    near, far = (
        task.result(PATIENCE_S)
        for task in env.submit_many((sequence, {"qubits": places}), shots=None)
    )
    assert far.occupations == pytest.approx([1.0, 1.0], abs=1e-3)  # type: ignore[attr-defined]
    assert near.occupations.sum() < 1.01, "blockade"  # type: ignore[attr-defined]
    fails(OptionError, "to be mapped", env.submit, sequence)
    wrong = {"qubits": {"q0": 0, "q1": 7}}
    fails(ProgramError, "refused by pulser", env.submit, sequence, parameter_values=wrong)
    wrong = {"qubits": {"q0": "far"}}
    fails(OptionError, "q0", env.submit, sequence, parameter_values=wrong)


def test_noise_of_detection_and_of_evolution_comes_from_the_model(env: Client) -> None:
    register = pulser.Register.from_coordinates([(0, 0), (60, 0)], prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(500, 2 * np.pi, 0.0, 0.0), "global")
    model = pulser.NoiseModel(p_false_pos=0.0, p_false_neg=0.2)
    result: Any = env.run(sequence, shots=4_000, seed=5, noise=model)
    assert result.occupations == pytest.approx([1.0, 1.0], abs=1e-3), "of the state"
    assert result.counts["11"] == pytest.approx(0.64 * 4_000, abs=5 * 30.4)
    decay = pulser.NoiseModel(relaxation_rate=1.0)
    relaxed: Any = env.run(sequence, shots=200, seed=5, noise=decay, options={"trajectories": 50})
    assert relaxed.trajectories == 50
    assert 0.5 < relaxed.occupations.mean() < 0.97
    text = decay.to_abstract_repr()
    again: Any = env.run(sequence, shots=200, seed=5, noise=text, options={"trajectories": 50})
    assert again.counts == relaxed.counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "statevector"}, "runs no pulse sequences"),
        ({"precision": "single"}, "precision= of a pulse sequence"),
        ({"outputs": "probabilities"}, "outputs .* of a pulse sequence"),
        ({"options": {"bond": 4}}, "has no option 'bond'"),
        ({"options": {"tolerance": 1e-13}}, "tolerance=1e-13"),
        ({"options": {"modulation": 0.5}}, "modulation=0.5"),
        ({"shots": None, "outputs": "counts"}, "without shots"),
        ({"noise": "on"}, "has no noise model"),
        ({"noise": '{"noise_types": ["weather"]}'}, "the noise model: "),
        ({"observables": "ZZ"}, "3 qubits|3 wide|2 "),
        ({"parameter_values": {"rabi": 1.0}}, "no variables rabi"),
        ({"evaluation_times": [0.5, 0.25]}, "evaluation_times has 0.5"),
        ({"evaluation_times": [1.5]}, "evaluation_times has 1.5"),
        ({"evaluation_times": [float("nan")]}, "evaluation_times=.nan"),
        ({"evaluation_times": "half"}, "evaluation_times="),
    ],
)
def test_options_of_others_are_refused(env: Client, options: dict[str, Any], message: str) -> None:
    fails(OptionError, message, env.submit, chain(), **options)


def test_answers_have_a_limit(env: Client) -> None:
    many = np.linspace(0.0, 1.0, 1_002)
    fails(LimitExceededError, "limit is 1000", env.submit, chain(), evaluation_times=many)
    text = "at 1001 times take .* the limit is"
    long = many[:-2]
    fails(
        LimitExceededError, text, env.submit, chain(), shots=20_000, outputs="memory",
        evaluation_times=long,
    )  # fmt: skip
    fails(LimitExceededError, text, env.submit, chain(14), outputs="statevector",
          evaluation_times=long)  # fmt: skip


def test_explain_has_atoms_nanoseconds_trajectories_and_their_time(env: Client) -> None:
    short, long = chain(12), chain(20)
    for _ in range(4):
        long.add(pulser.Pulse.ConstantPulse(200, 7.0, 1.0, 0.3), "global")
    first, second = env.explain(short), env.explain(long)
    assert first.engine == second.engine == pulses.RYDBERG
    assert (second.sizes.num_qubits, second.sizes.operations) == (20, 1_000)
    assert 1.0 < second.engines[0].seconds < 60.0
    assert 0.0 < first.engines[0].seconds < second.engines[0].seconds / 10
    assert second.engines[0].memory_bytes > 2**20 * 16
    model = pulser.NoiseModel(relaxation_rate=0.1)
    noisy = env.explain(short, noise=model, options={"trajectories": 50})
    assert noisy.engines[0].seconds > 3 * first.engines[0].seconds
    fails(OptionError, "an option 'bnd'", env.explain, short, options={"bnd": 4})


def test_steps_are_forecast_from_the_closest_pair_and_the_tolerance(env: Client) -> None:
    rng = np.random.default_rng(8)
    for spacing, tolerance in ((4.5, 1e-6), (6.5, 1e-8), (7.5, 1e-4), (14.0, 1e-6)):
        register = pulser.Register.triangular_lattice(2, 3, spacing=spacing, prefix="q")
        sequence = pulser.Sequence(register, pulser.MockDevice)
        sequence.declare_channel("global", "rydberg_global")
        for rabi, detuning in rng.uniform((4.0, -10.0), (12.0, 10.0), (3, 2)):
            sequence.add(pulser.Pulse.ConstantPulse(200, rabi, detuning, 0.0), "global")
        options = {"tolerance": tolerance}
        steps = env.explain(sequence, options=options).sizes.gates_1q
        result: Any = env.run(sequence, shots=None, options=options)
        assert result.steps / 3 < steps < 3 * result.steps, (spacing, steps, result.steps)


def test_faults_of_a_sequence_are_named(env: Client) -> None:
    fails(ProgramError, "no JSON object", env.submit, "{")
    fails(ProgramError, "refused by pulser", env.submit, "{}")
    deep = '{"a":' + "[" * 39 + "]" * 39 + "}"
    fails(LimitExceededError, "nested 40 deep", env.submit, deep)
    fails(LimitExceededError, "limit is 1", env.submit, "{" + " " * 2**20 + "}")
    fails(ProgramError, "goes to `submit` or `run`", env.post, chain())
    empty = pulser.Sequence(chain().register, pulser.MockDevice)
    fails(LimitExceededError, "channels = 0.*\n.*a pulse", env.submit, empty)
    values: dict[str, Any] = {"parameter_values": {"rabi": 1.0, "rbai": 2.0}}
    message = "no variables rbai\n.*its variables are rabi"
    fails(OptionError, message, env.submit, chain(amplitude="rabi"), **values)
    values["parameter_values"] = {"rabi": 10**400}
    fails(OptionError, "rabi=1000", env.submit, chain(amplitude="rabi"), **values)
    both = chain(2)
    both.declare_channel("raman", "raman_local", initial_target="a0")
    both.add(pulser.Pulse.ConstantPulse(100, 3.0, 0.0, 0.0), "raman")
    task = env.submit(both, shots=10)
    assert fails(TaskFailedError, "channels of one basis", task.result, PATIENCE_S)


def test_worker_refuses_what_a_client_says_wrongly(env: Client, tmp_path: Path) -> None:
    terms = TaskOptions(outputs=(VALUE,), engine=pulses.RYDBERG)
    sizes = pulses.PulseSizes(3, 1, 200)
    text = chain().to_abstract_repr()
    call = pulses.PulseCall(calls.CALL_FORMAT, text, sizes, ("counts",))
    with with_keys(env, tmp_path, "ana") as keys:
        far = keys["ana"]
        own: Any = far.run(chain(), shots=100, seed=1)
        here: Any = env.run(chain(), shots=100, seed=1)
        assert own.counts == here.counts, "sampled in a process of its own"
        for wrong, message in (
            (msgspec.structs.replace(call, sizes=pulses.PulseSizes(3, 1, 100)), "it came with"),
            (msgspec.structs.replace(call, sequence="{}"), "pulser cannot sample"),
        ):
            order = PreparedSubmit(terms, [TaskSpec(codec.encode(wrong), 10, 1)], single=True)
            task = send(far.session, order, None)[0]
            assert fails(TaskFailedError, message, task.result, PATIENCE_S).reason == "program"
        huge = msgspec.structs.replace(call, sizes=pulses.PulseSizes(1000, 1, 200))
        order = PreparedSubmit(terms, [TaskSpec(codec.encode(huge), 10, 1)], single=True)
        fails(LimitExceededError, "atoms = 1000", send, far.session, order, None)
