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
from simenv.frontends.pulser.emulation import submit_options

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


def test_the_noise_of_a_stored_device_is_preferred_on_request(env: Client) -> None:
    sequence = pulser.Sequence(pulser.Register.rectangle(1, 2, 20.0, prefix="q"), pulser.MockDevice)
    sequence.declare_channel("ising", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(252, 4 * np.pi, 0.0, 0.0), "ising")
    named = {"device": "neutral-atoms-analog", "seed": 4}
    shares = []
    for preferred in (True, False):
        config = SimenvConfig(
            observables=[pb.BitStrings(num_shots=500)], prefer_device_noise_model=preferred
        )
        found = SimenvEmulator(sequence, config=config, env=env, **named).run().final_bitstrings
        shares.append(found["11"] / 500)
    assert shares[0] < 0.9 < 0.98 < shares[1]  # errors of detection of 0.08


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


def test_observables_of_other_atoms_are_refused_before_the_task(env: Client) -> None:
    states = ("g", "h")
    lower = [(1.0, [({"hh": 1.0}, [0])])]
    operator = pb.OperatorRepr.from_operator_repr(eigenstates=states, n_qudits=2, operations=lower)
    state = pb.StateRepr.from_state_amplitudes(eigenstates=states, amplitudes={"hh": 1.0})
    wide = pb.StateRepr.from_state_amplitudes(eigenstates=("g", "r"), amplitudes={"rrr": 1.0})
    noise = pulser.NoiseModel(p_false_pos=0.1)
    before = env.queue(done=True, limit=1)[1][0].id
    for observable, message in (
        (pb.Expectation(operator), "2 atoms in"),
        (pb.Fidelity(state), "2 atoms in"),
        (pb.Fidelity(wide), "3 atoms in"),
        (pb.Occupation(one_state="h"), "one_state='h'"),
        (pb.BitStrings(one_state="d"), "one_state='d'"),
    ):
        for model in (None, noise):
            config = SimenvConfig(observables=[observable], noise_model=model)
            fails(OptionError, message, SimenvEmulator(pair(), config=config, env=env).run)
    assert env.queue(done=True, limit=1)[1][0].id == before
    named = pb.StateRepr.from_state_amplitudes(eigenstates=("0", "1"), amplitudes={"00": 1.0})
    config = SimenvConfig(observables=[pb.Fidelity(named, evaluation_times=[0.0])])
    assert SimenvEmulator(pair(), config=config, env=env).run().fidelity == [pytest.approx(1.0)]


def test_options_that_the_configuration_decides_are_refused(env: Client) -> None:
    options: list[tuple[str, Any]] = [
        ("shots", 7), ("outputs", "memory"), ("evaluation_times", [0.1]), ("observables", "ZZ"),
        ("parameter_values", {"t": 1}), ("binding_index", 1),
    ]  # fmt: skip
    for name, value in options:
        fails(OptionError, f"{name}=", SimenvEmulator, pair(), env=env, **{name: value})
        fails(OptionError, f"{name}=", SimenvConnection, env, **{name: value})
    some = [pb.Occupation()]
    fails(OptionError, "backend_options", SimenvConfig, observables=some, backend_options={"x": 1})
    for name in ("modulation", "trajectories", "tolerance"):
        emulator = SimenvEmulator(pair(), env=env, options={name: 1})
        fails(OptionError, name, emulator.run)
    fails(OptionError, "without values", SimenvEmulator(hexagon("t"), env=env).run)


def test_options_of_the_engine_leave_those_of_the_configuration() -> None:
    config = SimenvConfig(observables=[pb.BitStrings()], with_modulation=True, seed=5)
    given = {"options": {"dt": 5}, "engine": "emu-sv", "seed": 4}
    options = submit_options(config, hexagon(), None, given)
    assert options["options"] == {"modulation": 1, "dt": 5}
    assert (options["engine"], options["seed"]) == ("emu-sv", 5)
    assert submit_options(config.with_changes(seed=None), hexagon(), None, given)["seed"] == 4


def test_noise_of_the_task_takes_the_place_of_the_configurations(env: Client) -> None:
    state = pb.StateRepr.from_state_amplitudes(eigenstates=("r", "g"), amplitudes={"gg": 1.0})
    chosen = [pb.BitStrings(num_shots=20), pb.Fidelity(state), pb.Occupation()]
    config = SimenvConfig(observables=chosen, n_trajectories=3, default_evaluation_times=[0.0])
    noise = pulser.NoiseModel(p_false_pos=1.0)
    noisy = SimenvEmulator(pair(), config=config, env=env, noise=noise).run()
    assert noisy.bitstrings == [{"11": 20}]
    assert noisy.fidelity == [pytest.approx(1.0)]
    own = config.with_changes(noise_model=noise)
    assert SimenvEmulator(pair(), config=own, env=env, noise="off").run().bitstrings == [{"00": 20}]


def test_trajectories_are_aggregated_as_the_observables_say(env: Client) -> None:
    states, x = ("r", "g"), {"rg": 1.0, "gr": 1.0}
    spread: dict[str, Any] = {"default_aggregation_method": pb.AggregationMethod.MEANSTD}
    operators = {"x": x, "raise": {"rg": 1.0}}
    chosen: list[pb.Observable] = [
        pb.Occupation(**spread),
        pb.CorrelationMatrix(**spread),
        pb.Energy(default_aggregation_method=pb.AggregationMethod.SKIP),
        pb.EnergyVariance(),
        *(
            pb.Expectation(
                pb.OperatorRepr.from_operator_repr(
                    eigenstates=states, n_qudits=2, operations=[(1.0, [(single, [0])])]
                ),
                tag_suffix=name,
                **spread,
            )
            for name, single in operators.items()
        ),
    ]
    noise = pulser.NoiseModel(state_prep_error=0.5)
    options: dict[str, Any] = {"observables": chosen, "seed": 3, "n_trajectories": 40}
    config = SimenvConfig(noise_model=noise, **options)
    results = SimenvEmulator(pair(100.0), config=config, env=env).run()
    # Without interaction a trajectory has one of two values: that of an atom, and 0 without it.
    one = SimenvEmulator(pair(100.0), config=SimenvConfig(**options), env=env).run()
    full = one.occupation[0][0]
    mean, deviation = results.occupation[0]
    share = mean[0] / full
    expected = full * np.sqrt(share * (1.0 - share) * 40 / 39)
    assert deviation[0] == pytest.approx(expected, rel=1e-2)
    assert np.shape(results.correlation_matrix[0]) == (2, 2, 2)
    assert results.get_result_tags() == [
        "occupation", "correlation_matrix", "energy_variance", "expectation_x", "expectation_raise",
    ]  # fmt: skip
    assert one.energy
    raised = results.get_result("expectation_raise", 1.0)
    assert raised[0].real == pytest.approx(results.get_result("expectation_x", 1.0)[0] / 2)
    assert raised[1] == pytest.approx(abs(one.expectation_raise[0]) * expected / full, rel=1e-2)
    bag = pb.AggregationMethod.BAG_UNION
    for wrong in (pb.BitStrings(**spread), pb.Occupation(default_aggregation_method=bag)):
        fails(OptionError, "default_aggregation_method", SimenvConfig, observables=[wrong])


def test_shots_are_multiplied_where_pulser_runs_several_trajectories() -> None:
    def asked(**noise: Any) -> tuple[int, int]:
        config = SimenvConfig(
            observables=[pb.BitStrings(num_shots=10)],
            noise_model=pulser.NoiseModel(**noise),
            n_trajectories=4,
        )
        options = submit_options(config, pair(), None)
        return options["shots"], options["options"]["trajectories"]

    assert asked(amp_sigma=0.1) == (40, 4)
    assert asked(state_prep_error=0.1) == (40, 4)
    assert asked(relaxation_rate=0.1) == (10, 4)
    assert asked(laser_waist=100.0) == (10, 1), "the beam's profile is the same each time"
    assert asked(p_false_pos=0.1) == (10, 1)
