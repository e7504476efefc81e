"""Engine `rydberg` on random pulse sequences, compared with other emulators of neutral atoms."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.harness import SEED, Report, benchmark, installed, timed
from simenv.model import TaskOptions
from simenv.model.calls import CALL_FORMAT
from simenv.model.pulses import PulseAnswer, PulseCall
from simenv.transpiler.atoms import sizes_of
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog.engine import PulseEngine
from simenv.worker.analog.samples import jumps_of, program_of, sampled
from simulators.engine import RunControl
from simulators.rydberg.drive import PulseProgram
from simulators.rydberg.evolution import AtomEvolution
from simulators.rydberg.jumps import TrajectoryRunner, sorted_jumps

PEER = Path(__file__).parents[1] / "peers" / "pulser_states.py"
KINDS = ("global", "local", "modulated", "digital", "XY", "masked", "masked XY")
TOLERANCE = 1e-6  # the default one
TIGHT = 1e-11  # of values at times
TIMES = (0.2, 0.45, 0.7)
SPACING_UM, LENGTH_NS = 6.0, 1_000
TIME_TOLERANCE = 1e-5


@benchmark(
    seed=SEED, sequences=(28, 7), rounds=(3, 1), python=sys.executable, atoms=([12, 16, 20], [12]),
    trajectories=(500, 50),
)  # fmt: skip
def rydberg(report: Report, options: Namespace) -> None:
    """Random pulse sequences on neutral atoms: fidelity, stated error, outputs at times, time.

    Random sequences of 4 to 10 atoms, of all kinds, SLM masks among them, against
    pulser-simulation with tight tolerances.
    Times are CPU times in one thread, of a chain 6 um apart that is swept through resonance in
    1 us, with a stated error of at most 1e-5, in turn with emu-sv and pulser-simulation with their
    defaults. `--python` names an interpreter that has pulser-simulation and emu-sv.
    """
    if not installed("pulser"):
        return report.none_measured("pulser is not installed")
    rng = np.random.default_rng(options.seed)
    with Peer(options.python) as peer:
        _fidelities(report, peer, [random_sequence(rng, k) for k in range(options.sequences)])
        _observables(report, peer, rng)
        for atoms in options.atoms:
            _times(report, peer, atoms, options.rounds)
    _trajectories(report, options.trajectories)


class Peer:
    """Process of the other emulators."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def ask(self, kind: str, sequence: Any, **more: Any) -> dict[str, Any]:
        """Return the answer to a request; it has `error` where there is none."""
        request = {"kind": kind, "sequence": sequence.to_abstract_repr(), **more}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def results(self, sequence: Any, config: str) -> dict[str, Any]:
        """Return the values of the observables of an emulation's configuration by tag, one for each
        of their times; the answer has `error` where there are none."""
        answer = self.ask("results", sequence, config=config)
        if "error" in answer:
            return answer
        found = answer["values"]
        return {tag: found["results"][key] for tag, key in found["tagmap"].items()}


def call_of(
    sequence: Any, *, modulation: bool = False, noise: str = "", draws: int = 1
) -> PulseCall:
    """Return the call that the client would send."""
    sizes, text = sizes_of(sequence, modulation=modulation), sequence.to_abstract_repr()
    return PulseCall(
        CALL_FORMAT, text, sizes, (), modulation=modulation, noise=noise, trajectories=draws
    )


def program(sequence: Any, *, modulation: bool = False) -> PulseProgram:
    """Return the arrays of a sequence."""
    (batch,) = sampled(call_of(sequence, modulation=modulation), 0, RunControl(), trusted=True)
    return program_of(batch, batch.trajectories[0])


def random_sequence(rng: np.random.Generator, number: int) -> tuple[str, Any]:
    """Return a kind of KINDS and a random sequence of it."""
    import pulser

    kind = KINDS[number % len(KINDS)]
    is_xy = kind.endswith("XY")
    atoms = int(rng.integers(4, 9 if is_xy else 11))
    places: list[NDArray[np.float64]] = []
    while len(places) < atoms:
        place = rng.uniform(-10, 10, 2)
        if all(np.linalg.norm(place - other) > 4.5 for other in places):
            places.append(place)
    register = pulser.Register.from_coordinates(places, prefix="q")
    sequence = pulser.Sequence(register, _device(kind))
    if kind.startswith("masked"):
        masked = rng.choice(atoms, int(rng.integers(1, atoms)), replace=False)
        sequence.config_slm_mask([f"q{k}" for k in masked])
    channels = ["raman_local" if kind == "digital" else "mw_global" if is_xy else "rydberg_global"]
    if kind == "local":
        channels.append("rydberg_local")
    for channel in channels:
        local = {"initial_target": "q0"} if channel.endswith("local") else {}
        sequence.declare_channel(channel, channel, **local)
    for _ in range(int(rng.integers(3, 7))):
        channel = channels[int(rng.integers(len(channels)))]
        if channel.endswith("local"):
            sequence.target(f"q{rng.integers(atoms)}", channel)
        sequence.add(_random_pulse(rng, fixed=is_xy), channel)
    return kind, sequence


def _device(kind: str) -> Any:
    import dataclasses

    import pulser

    if kind != "modulated":
        return pulser.MockDevice
    channel = pulser.channels.Rydberg.Global(None, None, mod_bandwidth=8.0)
    return dataclasses.replace(
        pulser.MockDevice, name="Modulated", channel_objects=(channel,), dmm_objects=(),
        channel_ids=("rydberg_global",), supports_slm_mask=False,
    )  # fmt: skip


def _random_pulse(rng: np.random.Generator, *, fixed: bool) -> Any:
    import pulser
    from pulser.waveforms import (
        BlackmanWaveform,
        ConstantWaveform,
        InterpolatedWaveform,
        RampWaveform,
    )

    duration = int(rng.integers(20, 200))
    high, low = rng.uniform(2, 15), rng.uniform(0, 2)
    amplitude = [
        lambda: ConstantWaveform(duration, high),
        lambda: RampWaveform(duration, low, high),
        lambda: BlackmanWaveform(duration, high * duration * 4e-4),
        lambda: InterpolatedWaveform(duration, rng.uniform(0, high, 5)),
    ][int(rng.integers(4))]()
    shift = rng.uniform(-15, 15, 2)
    detuning = ConstantWaveform(duration, 0.0) if fixed else RampWaveform(duration, *shift)
    return pulser.Pulse(amplitude, detuning, float(rng.uniform(0, 6)))


def _fidelities(report: Report, peer: Peer, sequences: list[tuple[str, Any]]) -> None:
    errors, bounded = [], 0
    for kind, sequence in sequences:
        modulation = kind == "modulated"
        evolved = AtomEvolution(program(sequence, modulation=modulation), TOLERANCE).run(
            RunControl()
        )
        answer = peer.ask("state", sequence, modulation=modulation)
        if "error" in answer:
            report.not_measured("infidelity", answer["error"])
            return report.not_measured("bounded_share", answer["error"])
        expected = np.array(answer["values"][0]) + 1j * np.array(answer["values"][1])
        overlap = abs(np.vdot(expected, evolved.state)) ** 2 / np.vdot(expected, expected).real
        error = max(0.0, 1 - overlap)
        errors.append(error)
        bounded += error <= evolved.error + 1e-12  # of rounding
        atoms = len(sequence.register.qubits)
        print(f"{kind:10}{atoms:3} atoms: 1 - F {error:.1e}, stated {evolved.error:.1e}")
    report.at_most("infidelity", max(errors))
    report.at_least("bounded_share", bounded / len(errors))


def _observables(report: Report, peer: Peer, rng: np.random.Generator) -> None:
    """Compare values at times: one sequence of each kind, and one with noise whose energy is that
    of the Hamiltonian without."""
    from pulser import NoiseModel, backend

    observables = [
        backend.Occupation(), backend.CorrelationMatrix(), backend.Energy(),
        backend.EnergySecondMoment(),
    ]  # fmt: skip
    cases = [
        (kind, sequence, NoiseModel())
        for kind, sequence in (random_sequence(rng, k) for k in range(len(KINDS)))
    ]
    cases.append(("waist", chain(5, 300), NoiseModel(laser_waist=15.0)))
    largest = 0.0
    for kind, sequence, noise in cases:
        modulation = kind == "modulated"
        config = backend.EmulationConfig(
            observables=observables, default_evaluation_times=[*TIMES, 1.0], noise_model=noise,
            with_modulation=modulation, n_trajectories=1,
        )  # fmt: skip
        found = peer.results(sequence, config.to_abstract_repr())
        if "error" in found:
            return report.not_measured("observables", found["error"])
        theirs = [np.array(found[each.tag]).reshape(len(TIMES) + 1, -1) for each in observables]
        text = noise.to_abstract_repr() if noise.noise_types else ""
        call = call_of(sequence, modulation=modulation, noise=text)
        call = msgspec.structs.replace(
            call, outputs=("occupation", "correlation", "energy"), evaluation_times=TIMES,
            tolerance=TIGHT,
        )  # fmt: skip
        assigned = AssignedTask(1, 1, 0, b"", 0, 1, b"", 0, trusted=True)
        own = msgspec.msgpack.decode(
            PulseEngine().call(call, assigned, TaskOptions(), RunControl())[0], type=PulseAnswer
        )
        rows = [
            np.frombuffer(each).reshape(len(call.times), -1)
            for each in (own.occupation, own.correlation, own.energy)
        ]
        difference = np.abs(np.hstack(rows) - np.hstack(theirs))
        given = program(sequence, modulation=modulation)
        scale = max(np.abs(each).max(initial=0.0) for each in (given.interaction, given.rabi))
        difference[:, -2:] /= scale, scale**2
        print(f"{kind:10} values at times: largest difference {difference.max():.1e}")
        largest = max(largest, float(difference.max()))
    report.at_most("observables", largest)


def chain(atoms: int, length_ns: int = LENGTH_NS) -> Any:
    """Return a sweep through resonance of a chain of atoms."""
    import pulser
    from pulser.waveforms import BlackmanWaveform, RampWaveform

    places = [(SPACING_UM * k, 0.0) for k in range(atoms)]
    sequence = pulser.Sequence(
        pulser.Register.from_coordinates(places, prefix="q"), pulser.MockDevice
    )
    sequence.declare_channel("global", "rydberg_global")
    area = 8.0 * length_ns * 1e-3 * 0.42
    pulse = pulser.Pulse(BlackmanWaveform(length_ns, area), RampWaveform(length_ns, -20, 20), 0.0)
    sequence.add(pulse, "global")
    return sequence


def _times(report: Report, peer: Peer, atoms: int, rounds: int) -> None:
    sequence = chain(atoms)
    given = program(sequence)
    AtomEvolution(program(chain(atoms, 16)), 1e-2).run(RunControl())  # kernels
    own: list[float] = []
    others: dict[str, list[float]] = {"emu-sv": [], "time": []}
    reasons: dict[str, str] = {}
    for number in range(rounds):
        begin = time.process_time()
        evolved = AtomEvolution(given, TIME_TOLERANCE).run(RunControl())
        seconds = time.process_time() - begin
        own.append(seconds)
        assert evolved.error <= TIME_TOLERANCE
        for kind, taken in others.items():
            slow = (kind == "time" and atoms > 12) or (atoms > 16 and number)
            if kind in reasons or slow:
                continue
            if not number:
                peer.ask(kind, chain(4, 100), dt=10)  # its libraries
            answer = peer.ask(kind, sequence, dt=10)
            if "error" in answer:
                reasons[kind] = answer["error"]
            else:
                taken.append(answer["seconds"])
    report.seconds(f"atoms_{atoms}_s", own)
    print(f"{atoms} atoms: {evolved.steps} steps, stated {evolved.error:.1e}, {own}, {others}")
    for kind, key in (("emu-sv", f"of_emu_sv_{atoms}"), ("time", f"of_pulser_simulation_{atoms}")):
        if others[kind]:
            report.at_most(key, float(np.median(own) / np.median(others[kind])))
        elif kind in reasons:
            report.not_measured(key, reasons[kind])


def _trajectories(report: Report, number: int) -> None:
    """Time trajectories of 12 atoms with noise of all ways of acting."""
    from pulser import NoiseModel

    model = NoiseModel(
        temperature=50.0, amp_sigma=0.05, dephasing_rate=0.1, relaxation_rate=0.05,
        p_false_pos=0.01, p_false_neg=0.05,
    )  # fmt: skip
    sequence = chain(12)
    rng = np.random.default_rng(1)

    def run() -> None:
        call = call_of(sequence, noise=model.to_abstract_repr(), draws=number)
        runner = None
        for batch in sampled(call, 1, RunControl(), trusted=True):
            runner = runner or TrajectoryRunner(sorted_jumps(jumps_of(batch)), 1e-4)
            for trajectory in batch.trajectories:
                runner.run(program_of(batch, trajectory), rng, RunControl())

    seconds, _ = timed(run, time.process_time)
    report.seconds("trajectories_500_s", seconds * 500 / number)
