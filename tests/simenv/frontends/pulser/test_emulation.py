"""Emulations through Pulser's backends, compared with matrices that are written out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pulser")

import pulser
from atom_sequences import hexagon, pair
from failing import fails
from pulser import backend as pb
from scipy.linalg import expm

import simenv
from simenv.client.client import Client
from simenv.errors import LimitExceededError, OptionError
from simenv.frontends.pulser import (
    RemoteSimenvEmulator,
    SimenvConfig,
    SimenvConnection,
    SimenvEmulator,
    SimenvState,
)

TIMES = [0.25, 0.75]  # pulser bends the pulse at its end
AMPLITUDE, DETUNING, DURATION_US = 5.0, 2.0, 0.4  # of `pair`
CORRELATED = {"rr": 0.6, "gg": 0.8j}
RAISES = [(1.0, [({"rg": 1.0}, [0])])]  # not Hermitian


def hamiltonian(spacing: float) -> Any:
    """Matrix of the pulse on two atoms, with g first."""
    u = pulser.MockDevice.interaction_coeff / spacing**6
    flip, excited = np.array([[0, 1], [1, 0]]), np.diag([0, 1])
    single = AMPLITUDE / 2 * flip - DETUNING * excited
    both = np.kron(single, np.eye(2)) + np.kron(np.eye(2), single)
    return both + u * np.kron(excited, excited)


def observables(state_type: Any, operator_type: Any) -> list[pb.Observable]:
    states = ("r", "g")
    return [
        pb.BitStrings(num_shots=400),
        pb.Occupation(),
        pb.CorrelationMatrix(),
        pb.Energy(),
        pb.EnergyVariance(evaluation_times=[0.75]),
        pb.EnergySecondMoment(),
        pb.Expectation(
            operator_type.from_operator_repr(eigenstates=states, n_qudits=2, operations=RAISES)
        ),
        pb.Fidelity(state_type.from_state_amplitudes(eigenstates=states, amplitudes=CORRELATED)),
    ]


def check(results: Any, shots: int) -> None:
    """Compare the results of `pair` with a matrix exponential."""
    matrix = hamiltonian(7.0)
    excited = np.diag([0, 1])
    numbers = [np.kron(excited, np.eye(2)), np.kron(np.eye(2), excited)]
    correlated = np.array([0.8j, 0, 0, 0.6])
    for time in TIMES:
        state = expm(-1j * matrix * DURATION_US * time) @ np.array([1, 0, 0, 0])
        mean = lambda operator, state=state: np.vdot(state, operator @ state)  # noqa: E731
        at = lambda tag, time=time: results.get_result(tag, time)  # noqa: E731
        correlation = [[mean(a @ b).real for a in numbers] for b in numbers]
        assert np.array(at("correlation_matrix")) == pytest.approx(np.array(correlation), abs=1e-3)
        assert at("occupation") == pytest.approx(np.diag(correlation), abs=1e-3)
        assert at("energy") == pytest.approx(mean(matrix).real, abs=1e-3)
        assert at("energy_second_moment") == pytest.approx(mean(matrix @ matrix).real, abs=0.05)
        raising = np.kron(np.array([[0, 0], [1, 0]]), np.eye(2))
        assert at("expectation") == pytest.approx(complex(mean(raising)), abs=1e-3)
        assert at("fidelity") == pytest.approx(abs(np.vdot(correlated, state)) ** 2, abs=1e-3)
        assert sum(at("bitstrings").values()) == shots
        both = at("bitstrings")["10"] / shots
        assert both == pytest.approx(abs(state[2]) ** 2, abs=5 * 0.5 / np.sqrt(shots))
    assert results.get_result_times("energy_variance") == [0.75]
    variance = mean(matrix @ matrix).real - mean(matrix).real ** 2
    assert results.energy_variance[0] == pytest.approx(variance, abs=0.05)


def test_observables_at_times_are_those_of_the_matrix_exponential(env: Client) -> None:
    config_type = SimenvEmulator.config_type
    chosen = observables(config_type.state_type, config_type.operator_type)
    chosen.append(pb.StateResult(evaluation_times=[1.0]))
    config = config_type(observables=chosen, default_evaluation_times=TIMES, seed=3)
    results = SimenvEmulator(pair(), config=config, env=env).run()
    check(results, 400)
    assert results.total_duration == 400
    assert results.atom_order == ("a0", "a1")
    exact = expm(-1j * hamiltonian(7.0) * DURATION_US) @ np.array([1, 0, 0, 0])
    assert results.final_state.overlap(SimenvState(exact)) == pytest.approx(1.0, abs=1e-3)
    assert results.final_state.get_basis_state_from_index(1) == "gr"


def test_a_remote_emulation_is_read_by_another_connection(env: Client) -> None:
    chosen = observables(pb.StateRepr, pb.OperatorRepr)
    config = pb.EmulationConfig(observables=chosen, default_evaluation_times=TIMES)
    backend = RemoteSimenvEmulator(pair(), SimenvConnection(env), config=config)
    batch = backend.run(wait=True)
    with simenv.connect(service=env.service) as client:
        other = SimenvConnection(client)
        results = other.get_results(batch.batch_id)[0]
    check(results, 400)
    assert results.get_result(chosen[1], 0.25) == batch[0].get_result(chosen[1], 0.25)


def test_default_configurations_have_bit_strings_and_the_state(env: Client) -> None:
    results = SimenvEmulator(hexagon(), env=env, name="hexagon").run()
    assert env.queue(done=True, limit=1)[1][0].name == "hexagon"
    assert sum(results.final_bitstrings.values()) == 1_000
    assert sum(results.final_state.sample(num_shots=30).values()) == 30
    remote = RemoteSimenvEmulator(hexagon("t"), SimenvConnection(env))
    batch = remote.run([{"runs": 50, "variables": {"t": 100}}], wait=True)
    assert sum(batch[0].final_bitstrings.values()) == 50


def test_every_time_of_a_full_evaluation(env: Client) -> None:
    config = SimenvConfig(observables=[pb.Occupation()], default_evaluation_times="Full")
    results = SimenvEmulator(pair(), config=config, env=env).run()
    times = results.get_result_times("occupation")
    assert times == [k / 400 for k in range(401)]
    assert results.occupation[0] == pytest.approx([0.0, 0.0])


def test_noise_has_the_trajectories_of_the_configuration(env: Client) -> None:
    chosen = observables(pb.StateRepr, pb.OperatorRepr)
    chosen[0] = pb.BitStrings(num_shots=20)
    drawn = pulser.NoiseModel(amp_sigma=1e-6)  # no effect, but drawn
    config = SimenvConfig(
        observables=chosen, noise_model=drawn, n_trajectories=20, default_evaluation_times=TIMES
    )
    results = SimenvEmulator(pair(), config=config, env=env).run()
    check(results, 400)
    flips = pulser.NoiseModel(p_false_pos=1.0, p_false_neg=1.0)
    config = SimenvConfig(observables=[pb.BitStrings(num_shots=50)], noise_model=flips)
    empty = pair()
    still = pulser.Sequence(empty.register, pulser.MockDevice)
    still.declare_channel("ising", "rydberg_global")
    still.add(pulser.Pulse.ConstantPulse(40, 0.0, 0.0, 0.0), "ising")
    assert SimenvEmulator(still, config=config, env=env).run().final_bitstrings == {"11": 50}


def test_the_noise_of_the_device_is_preferred_on_request(env: Client) -> None:
    noise = pulser.NoiseModel(p_false_pos=1.0, p_false_neg=1.0)
    device = pulser.devices.VirtualDevice(
        name="flipping",
        dimensions=2,
        rydberg_level=60,
        channel_objects=(pulser.channels.Rydberg.Global(None, None),),
        noise_model=noise,
    )
    sequence = pulser.Sequence(pair().register, device)
    sequence.declare_channel("ising", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(40, 0.0, 0.0, 0.0), "ising")
    for preferred, expected in ((True, "11"), (False, "00")):
        config = SimenvConfig(
            observables=[pb.BitStrings(num_shots=10)], prefer_device_noise_model=preferred
        )
        results = SimenvEmulator(sequence, config=config, env=env).run()
        assert results.final_bitstrings == {expected: 10}


def test_what_no_worker_computes_is_refused_by_name(env: Client) -> None:
    class Mine(pb.Occupation):
        pass

    fails(OptionError, "Mine|occupation", SimenvConfig, observables=[Mine()])
    some = [pb.Occupation()]
    matrix = np.zeros((2, 2))
    fails(
        OptionError, "interaction_matrix", SimenvConfig, observables=some, interaction_matrix=matrix
    )
    state = pb.StateRepr.from_state_amplitudes(eigenstates=("r", "g"), amplitudes={"rr": 1.0})
    fails(OptionError, "initial_state", SimenvConfig, observables=some, initial_state=state)
    other = [pb.Occupation(one_state="g")]
    fails(OptionError, "one_state", SimenvConfig, observables=other)
    fails(ValueError, "sampling_rate", SimenvConfig, observables=some, sampling_rate=0.5)
    several = [pb.BitStrings(num_shots=k, tag_suffix=str(k)) for k in (1, 2)]
    emulator = SimenvEmulator(pair(), config=SimenvConfig(observables=several), env=env)
    fails(OptionError, "shots in one emulation", emulator.run)
    noisy = SimenvConfig(
        observables=[pb.StateResult()], noise_model=pulser.NoiseModel(p_false_pos=0.1)
    )
    fails(OptionError, "no state vector", SimenvEmulator(pair(), config=noisy, env=env).run)
    wide = pb.StateRepr.from_state_amplitudes(
        eigenstates=("r", "g"),
        amplitudes={
            "".join(each): 0.1 for each in itertools.islice(itertools.product("rg", repeat=7), 64)
        },
    )
    noisy = SimenvConfig(
        observables=[pb.Fidelity(wide)], noise_model=pulser.NoiseModel(p_false_pos=0.1)
    )
    fails(LimitExceededError, "Pauli terms", SimenvEmulator(hexagon(), config=noisy, env=env).run)
