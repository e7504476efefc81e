"""Pulse sequences by other packages' emulators, through a service; each is skipped without it."""

import importlib.util
import math
import os
import signal
import time
from typing import Any

import numpy as np
import pytest
from failing import fails
from waiting import until

import simenv
from simenv.client.client import Client
from simenv.errors import InfeasibleError, OptionError, TaskCancelledError, TaskFailedError
from simenv.model import TaskState

pulser = pytest.importorskip("pulser")
PATIENCE_S = 300.0
MODULES = {
    "emu-mps": "emu_mps", "emu-sv": "emu_sv", "pulser-simulation": "pulser_simulation",
}  # fmt: skip
INSTALLED = {name for name, module in MODULES.items() if importlib.util.find_spec(module)}
EACH = [
    pytest.param(
        name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f"{name} is not installed")
    )
    for name in MODULES
]
wide = pytest.mark.skipif("emu-mps" not in INSTALLED, reason="emu-mps is not installed")


def chain(atoms: int, spacing: float = 6.0, duration: int = 200) -> Any:
    """A chain of atoms whose left end is driven longer than the rest."""
    register = pulser.Register.from_coordinates(
        [(spacing * k, 0) for k in range(atoms)], prefix="q"
    )
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.declare_channel("local", "rydberg_local", initial_target="q0")
    sequence.add(pulser.Pulse.ConstantPulse(duration, 6.0, 1.0, 0.4), "global")
    sequence.add(pulser.Pulse.ConstantPulse(100, 9.0, -2.0, 0.0), "local")
    return sequence


@pytest.mark.parametrize("engine", EACH)
def test_an_emulator_agrees_with_our_engine(env: Client, engine: str) -> None:
    asked: dict[str, Any] = {
        "shots": 2_000, "seed": 5, "observables": ["ZIII:0.5,IXYI:2", "YIII"],
        "evaluation_times": [0.3, 0.8], "outputs": ("counts", "correlation", "energy"),
    }  # fmt: skip
    own: Any = env.run(chain(4), **asked)
    task = env.submit(chain(4), engine=engine, **asked)
    result: Any = task.result(PATIENCE_S)
    assert task.details.engine == engine  # type: ignore[attr-defined]
    assert result.occupation == pytest.approx(own.occupation, abs=2e-3)
    assert result.correlation == pytest.approx(own.correlation, abs=2e-3)
    assert result.expectation_at == pytest.approx(own.expectation_at, abs=5e-3)
    # At the end pulser-simulation switches off the pulses, and our engine as it does.
    assert result.energy[:-1] == pytest.approx(own.energy[:-1], abs=0.05)
    squares = own.energy_second_moment[:-1]
    assert result.energy_second_moment[:-1] == pytest.approx(squares, rel=0.02)
    assert (result.atoms, result.duration_ns) == (own.atoms, own.duration_ns)
    for counts, occupation in zip(result.counts_at, own.occupation, strict=True):
        assert sum(counts.values()) == 2_000
        ones = sum(number for text, number in counts.items() if text[0] == "1")
        assert ones / 2_000 == pytest.approx(occupation[0], abs=0.06)
    assert not result.standard_error("occupation").any()
    assert math.isnan(result.error)
    assert "no bound" in result.remark
    assert "nan" not in repr(result)


@pytest.mark.parametrize("engine", EACH)
def test_the_same_seed_gives_the_same_shots(env: Client, engine: str) -> None:
    noise = pulser.NoiseModel(
        temperature=300.0, amp_sigma=0.1, relaxation_rate=0.5, p_false_pos=0.02
    )
    asked: dict[str, Any] = {
        "engine": engine, "shots": 101, "noise": noise, "options": {"trajectories": 3},
        "outputs": ("counts", "memory"),
    }  # fmt: skip
    first, again, other = (env.submit(chain(3, 6.0, 60), seed=seed, **asked) for seed in (1, 1, 2))
    results: list[Any] = [task.result(PATIENCE_S) for task in (first, again, other)]
    assert results[0].memory == results[1].memory != results[2].memory
    assert np.array_equal(results[0].occupations, results[1].occupations)
    assert not np.array_equal(results[0].occupations, results[2].occupations)
    assert len(results[0].memory) == sum(results[0].counts.values()) == 101
    assert results[0].trajectories == 3
    assert (results[0].standard_error("occupation") > 0.0).all()


def chi_square(one: dict[str, int], other: dict[str, int]) -> tuple[float, int]:
    """Chi-square of two sets of as many independent shots having one distribution, and its degrees
    of freedom."""
    pairs = [(one.get(text, 0), other.get(text, 0)) for text in {*one, *other}]
    return sum((a - b) ** 2 / (a + b) for a, b in pairs), len(pairs) - 1


@pytest.mark.parametrize("engine", EACH)
def test_noise_of_a_device_reaches_an_emulator(env: Client, engine: str) -> None:
    register = pulser.Register.rectangle(1, 2, spacing=9.0, prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(120, 15.0, 3.0, 0.0), "global")
    asked: dict[str, Any] = {
        "device": "neutral-atoms-analog", "shots": 300, "seed": 5,
        "options": {"trajectories": 300},  # of which each shot has one
    }  # fmt: skip
    strong = {
        "atom.t1_us": 0.2, "atom.p_false_neg": 0.2, "atom.preparation": 10.0, "atom.detuning": 10.0,
        "atom.amplitude": 5.0, "atom.temperature_uk": 100.0,
    }  # fmt: skip
    task = env.submit(sequence, engine=engine, noise=strong, **asked)
    with pytest.warns(simenv.errors.SimenvWarning, match="no value: Waist of the lasers"):
        details = task.details
    result: Any = task.result(PATIENCE_S)
    own: Any = env.run(sequence, noise=strong, **asked)
    ideal: Any = env.run(sequence, noise="off", **asked)
    value, degrees = chi_square(own.counts, result.counts)
    assert value < degrees + 5.0 * math.sqrt(2.0 * degrees)
    value, degrees = chi_square(ideal.counts, result.counts)
    assert value > degrees + 10.0 * math.sqrt(2.0 * degrees)
    assert (details.engine, details.device) == (engine, "neutral-atoms-analog")
    assert details.device_time_s == pytest.approx(300 * (0.2 + 120e-9))


@pytest.mark.parametrize("engine", EACH)
def test_a_state_vector_has_our_order_of_atoms(env: Client, engine: str) -> None:
    asked: dict[str, Any] = {"shots": None, "outputs": "statevector"}
    if engine == "emu-mps":
        task = env.submit(chain(3), engine=engine, **asked)
        fails(TaskFailedError, "no output 'statevector'", task.result, PATIENCE_S)
        return
    own: Any = env.run(chain(3), **asked)
    result: Any = env.run(chain(3), engine=engine, **asked)
    assert abs(np.vdot(own.statevector, result.statevector)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("engine", EACH)
def test_killed_worker_leaves_the_same_samples(engine: str) -> None:
    asked: dict[str, Any] = {"engine": engine, "shots": 100, "seed": 11}
    sequence = chain(8, 6.0, 3_000)
    with simenv.local(workers=1) as client:
        oracle: Any = client.run(sequence, **asked)
        task = client.submit(sequence, **asked)
        until(lambda: client.tasks([task])[0].state is TaskState.RUNNING)
        time.sleep(0.1)
        os.kill(client.workers()[0].pid, signal.SIGKILL)
        result: Any = task.result(PATIENCE_S)
        assert task.details.attempts == 2  # type: ignore[attr-defined]
    assert result.counts == oracle.counts


@pytest.mark.parametrize("engine", EACH[:2])
def test_a_cancelled_run_ends_between_its_steps(engine: str) -> None:
    with simenv.local(workers=1) as client:
        client.run(chain(2, 6.0, 20), engine=engine, shots=1)  # loads the package
        worker = client.workers()[0].pid
        task = client.submit(chain(10, 6.0, 100_000), engine=engine, shots=1)
        until(lambda: client.tasks([task])[0].state is TaskState.RUNNING)
        client.cancel([task])
        fails(TaskCancelledError, "", task.result, PATIENCE_S)
        assert client.workers()[0].pid == worker


@wide
def test_auto_takes_emu_mps_for_more_atoms_than_fit(env: Client) -> None:
    task = env.submit(chain(70, 9.0, 40), shots=50, seed=3, outputs=("counts", "memory"))
    result: Any = task.result(PATIENCE_S)
    assert task.details.engine == "emu-mps"  # type: ignore[attr-defined]
    assert {len(text) for text in result.memory} == {70}
    ones = np.mean([[int(bit) for bit in text] for text in result.memory], axis=0)
    assert ones == pytest.approx(result.occupations, abs=0.35)
    assert ones.mean() == pytest.approx(result.occupations.mean(), abs=0.05)


@wide
def test_limits_of_emu_mps_are_named(env: Client) -> None:
    fails(
        InfeasibleError, "needs 101 qubits; it takes 100", env.submit, chain(101), engine="emu-mps"
    )
    fails(
        OptionError, "no option 'bnd'", env.submit, chain(2), engine="emu-mps", options={"bnd": 2}
    )
    fails(OptionError, "option dt = 0", env.submit, chain(2), engine="emu-mps", options={"dt": 0})
    task = env.submit(chain(1), engine="emu-mps", shots=1)
    fails(TaskFailedError, "takes 2 atoms or more", task.result, PATIENCE_S)
    raman = pulser.Sequence(pulser.Register.rectangle(1, 2, prefix="q"), pulser.MockDevice)
    raman.declare_channel("raman", "raman_local", initial_target="q0")
    raman.add(pulser.Pulse.ConstantPulse(100, 3.0, 0.0, 0.0), "raman")
    task = env.submit(raman, engine="emu-mps", shots=1)
    fails(TaskFailedError, "bases .'digital'.", task.result, PATIENCE_S)


@pytest.mark.skipif("emu-mps" in INSTALLED, reason="emu-mps is installed")
def test_a_missing_emulator_is_named_with_its_command(env: Client) -> None:
    for options in ({"engine": "emu-mps"}, {}):
        error = fails((OptionError, InfeasibleError), "", env.submit, chain(40), **options)
        assert "pip install 'simenv[emulators]'" in f"{error} {error.hint}"


def test_a_tolerance_is_that_of_our_engine(env: Client) -> None:
    options = {"tolerance": 1e-3}
    message = "no option 'tolerance'"
    fails(OptionError, message, env.submit, chain(2), engine="emu-sv", options=options)
    task = env.submit(chain(2), shots=1, options=options)
    assert isinstance(task.result(PATIENCE_S), simenv.PulseResult)
    assert task.details.engine == "rydberg"  # type: ignore[attr-defined]
