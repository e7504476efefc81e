"""Dynamic circuits under noise: engines against Aer, and one program in several forms."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import stim
from numpy.typing import NDArray
from scipy.stats import chi2

from bench.harness import SEED, Report, benchmark
from bench.peers import noisy_programs as programs
from bench.peers.noisy_programs import Noise, Program, Step
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.linked import LinkDesign, linked
from simenv.client.circuits.load import load
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import NoiseAttachment, attach_noise
from simulators.circuit.passes.shot_times import with_bound_delays
from simulators.engine import BindingResult
from simulators.errors import Unsupported
from simulators.simulate import counts_of, simulate
from simulators.stabilizer.device_circuit import DeviceProgram
from simulators.stabilizer.device_gates import DeviceGates

ENGINES = ("densitymatrix", "statevector", "mps", "sweep", "stabilizer")
_FEW = 5.0  # expected counts below which outcomes are joined, as for any chi-square test
_ROUNDING = 1e-9  # of an exact probability
Distribution = dict[int, float]


@benchmark(seed=SEED, circuits=(500, 20), forms=(50, 6), shots=20_000)
def dynamic_noise(report: Report, options: Namespace) -> None:
    """Random dynamic circuits with reset, preparation, readout and gate errors and relaxation.

    Circuits of 2 to 4 qubits with id, delay, reset, measure, conditions and loops. The counts of
    each engine are compared with those of Aer's statevector method by a chi-square test, and with
    exact distributions of the harness. Then the same program as gates and in stim's language, with
    bound and with free parameters, on one device and on linked ones.
    """
    least, compared, refused, deviation = 1.0, Counter[str](), Counter[str](), 0.0
    for number in range(options.circuits):
        program, noise = drawn(options.seed, number)
        expected = programs.exact(program, noise)
        peer = programs.aer_counts(program, noise, options.shots, options.seed + number)
        values = [("aer", fits(expected, peer))]
        for engine in ENGINES:
            try:
                counts = sampled(program, noise, engine, options.shots, number)
            except Unsupported:
                refused[engine] += 1
                continue
            compared[engine] += 1
            values.append((engine, fits(expected, counts)))
            values.append((f"{engine} and aer", alike(peer, counts)))
        if (shown := exact_of(program, noise)) is not None:
            deviation = max(deviation, distance(shown, expected))
        for name, p in values:
            least = min(least, p)
            if p < report.goal("p"):
                print(f"circuit {number}, {name}: p = {p:.2g}\n{program}\n{noise}")
    print(f"compared: {dict(compared)}; refused: {dict(refused)}; smallest p {least:.2g}")
    report.at_least("p", least)
    report.at_least("compared", min(compared[engine] for engine in ENGINES) / options.circuits)
    report.at_most("deviation", deviation)
    for form, compare in (("stim", of_stim), ("swept", of_sweep), ("linked", of_links)):
        worst = min(compare(options.seed, number, options.shots) for number in range(options.forms))
        report.at_least("form_p", worst, form)


def drawn(seed: int, number: int) -> tuple[Program, Noise]:
    """Program and noise of one number; every third is Clifford, every fourth has loops."""
    rng = np.random.default_rng((seed, number))
    clifford, waits = number % 3 == 2, number % 3 == 1
    program = programs.random_program(
        rng, clifford=clifford, loops=number % 4 == 3 and not clifford, waits=waits
    )
    return program, programs.random_noise(rng, pauli=clifford, waits=waits)


def packed(program: Program) -> Circuit:
    return Circuit.from_program(load(programs.circuit_of(program)[0]).program)


def sampled(program: Program, noise: Noise, engine: str, shots: int, seed: int) -> dict[int, int]:
    """Counts of an engine. Raises Unsupported."""
    circuit = packed(program)
    attached = attach_noise(circuit, build(noise.snapshot(program.num_qubits)))
    result = simulate(circuit, engine=engine, noise=attached, shots=shots, seed=seed)
    return counts_of(result.row(0))


def exact_of(
    program: Program, noise: Noise, snapshot: CalibrationSnapshot | None = None
) -> Distribution | None:
    """Distribution of the density matrix engine; None if it refuses the program."""
    circuit = packed(program)
    device = noise.snapshot(program.num_qubits) if snapshot is None else snapshot
    try:
        result = simulate(
            circuit, engine="densitymatrix", noise=attach_noise(circuit, build(device)), shots=0,
            outputs=("probabilities",),
        )  # fmt: skip
    except Unsupported:
        return None
    return distribution(result.row(0))


def distribution(row: BindingResult) -> Distribution:
    outcomes = np.frombuffer(row.probability_outcomes, np.uint8)
    rows = outcomes.reshape(-1, row.probability_width)
    keys = [int.from_bytes(each.tobytes(), "little") for each in rows]
    return dict(zip(keys, np.frombuffer(row.probabilities).tolist(), strict=True))


def distance(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    return max(abs(first.get(key, 0.0) - second.get(key, 0.0)) for key in {*first, *second})


# One program in several forms: each p is of the exact distribution.


def of_stim(seed: int, number: int, shots: int) -> float:
    """The same program in stim's language on the same device, without conditions and delays."""
    for attempt in range(1_000):
        rng = np.random.default_rng((seed, number, attempt))
        program = programs.random_program(rng, clifford=True)
        if programs.is_plain(program):
            break
    noise = programs.random_noise(rng, pauli=True)
    expected = programs.exact(program, noise)
    text, shown = programs.stim_text(program)
    snapshot = noise.snapshot(program.num_qubits)
    places = {q: q for q in range(program.num_qubits)}
    written = DeviceProgram(stim.Circuit(text), DeviceGates(snapshot), places)
    circuit = written.noisy(NoiseAttachment(build(snapshot))).circuit
    records = circuit.compile_sampler(seed=seed + number).sample(shots)
    counts = Counter(_values(records, shown).tolist())
    gates = exact_of(program, noise)
    assert gates is not None
    return fits(expected, counts) if distance(gates, expected) < _ROUNDING else 0.0


def _values(records: NDArray[np.bool_], shown: list[int]) -> NDArray[np.int64]:
    result = np.zeros(len(records), np.int64)
    for clbit, record in enumerate(shown):
        if record >= 0:
            result |= records[:, record].astype(np.int64) << clbit
    return result


def of_sweep(seed: int, number: int, shots: int) -> float:
    """The same program with free angles and durations, whose values are given with it."""
    rng = np.random.default_rng((seed, number, 1))
    program = programs.random_program(rng, waits=number % 2 == 0)
    noise = programs.random_noise(rng, waits=number % 2 == 0)
    expected = programs.exact(program, noise)
    free, given = programs.circuit_of(program, free=True)
    loaded = load(free)
    circuit = Circuit.from_program(loaded.program)
    slots = loaded.bind(given) if given else None
    if slots is not None:
        circuit = with_bound_delays(circuit, slots[0])
    attached = attach_noise(circuit, build(noise.snapshot(program.num_qubits)))
    result = simulate(
        circuit, engine="statevector", noise=attached, shots=shots, seed=number,
        bindings=slots,
    )  # fmt: skip
    return fits(expected, counts_of(result.row(0)))


def of_links(seed: int, number: int, shots: int) -> float:
    """The same program on linked devices: gates on two qubits within a module, and Bell pairs of
    communication qubits that their resets begin."""
    rng = np.random.default_rng((seed, number, 2))
    base, noise = programs.random_program(rng), programs.random_noise(rng)
    modules = {name: noise.snapshot(3) for name in ("a", "b")}  # qubits 2 and 5 communicate
    machine = linked("machine", modules, [LinkDesign(("a.2", "b.2"), 1.0)])
    place = (0, 1, 3, 4)
    steps = tuple(_placed(base.steps, place))
    at = int(rng.integers(len(steps) + 1))
    bits = base.num_clbits
    pair = (
        Step("reset", (2,)), Step("reset", (5,)), Step("pair", (2, 5)),
        Step("measure", (2,), bits), Step("measure", (5,), bits + 1),
    )  # fmt: skip
    joined = Program(6, bits + 2, (*steps[:at], *pair, *steps[at:]), False)
    expected = programs.exact(joined, noise)
    found = exact_of(joined, noise, machine)
    if found is None or distance(found, expected) > _ROUNDING:
        return 0.0
    circuit = packed(joined)
    attached = attach_noise(circuit, build(machine))
    result = simulate(circuit, engine="statevector", noise=attached, shots=shots, seed=number)
    return fits(expected, counts_of(result.row(0)))


def _placed(steps: tuple[Step, ...], place: tuple[int, ...]) -> Iterator[Step]:
    """Steps on other qubits; gates on two of different modules act on two of the first one."""
    for step in steps:
        qubits = tuple(place[q] for q in step.qubits)
        if len(qubits) == 2 and qubits[0] // 3 != qubits[1] // 3:
            qubits = (0, 1)
        body, other = (tuple(_placed(each, place)) for each in (step.body, step.other))
        yield step._replace(qubits=qubits, body=body, other=other)


# Chi-square tests.


def fits(expected: Mapping[int, float], counts: Mapping[int, int]) -> float:
    """P-value of counts of an exact distribution; 0.0 for an outcome that it does not have."""
    shots = sum(counts.values())
    if any(expected.get(key, 0.0) * shots < _ROUNDING for key in counts):
        return 0.0
    large = [key for key, p in expected.items() if p * shots >= _FEW]
    wanted = [expected[key] * shots for key in large]
    seen = [float(counts.get(key, 0)) for key in large]
    wanted.append(shots - sum(wanted))
    seen.append(shots - sum(seen))
    return _p_value(np.array(seen), np.array(wanted), np.array(wanted))


def alike(first: Mapping[int, int], second: Mapping[int, int]) -> float:
    """P-value of two samples of as many shots of one distribution."""
    keys = [key for key in {*first, *second} if first.get(key, 0) + second.get(key, 0) >= 2 * _FEW]
    a, b = (np.array([float(each.get(key, 0)) for key in keys]) for each in (first, second))
    a, b = np.append(a, sum(first.values()) - a.sum()), np.append(b, sum(second.values()) - b.sum())
    return _p_value(a, b, a + b)


def _p_value(
    seen: NDArray[np.float64], wanted: NDArray[np.float64], variance: NDArray[np.float64]
) -> float:
    used = variance > 1.0  # the rest of the outcomes may be none
    if np.count_nonzero(used) < 2:
        return 1.0
    statistic = float((np.square(seen - wanted)[used] / variance[used]).sum())
    return float(chi2.sf(statistic, np.count_nonzero(used) - 1))
