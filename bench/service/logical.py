"""Logical devices: time to make them, their predictions against encoded circuits, and Willow."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from qiskit import QuantumCircuit

import simenv
from bench.harness import SEED, Report, benchmark, installed, timed
from bench.harness.environments import home
from noise_models import calibration as cal, design, library, snapshot as snapshots
from simenv import config, files
from simenv.client.client import Client

CHIP = "superconducting-square"
DECODERS = ("pymatching", "pymatching-correlated")
ON_RANDOM = ("pymatching-sequential", "pymatching")  # of memories and CX
PARTS = "times", "memories", "predictions", "willow", "wide"
ROUNDS = 12  # of the memories
CX_AT_ONCE = 5  # with one round between
WIDE, WIDE_SHOTS = 500, 1_000
# Google Quantum AI, Nature 638, 920 (arXiv 2408.13687): errors of a cycle at d = 3, 5, 7 by 0.143 %
# and Lambda = 2.14, a cycle of 1.1 us. Means of the chip: its specification sheet of December 2024.
WILLOW_ERROR, WILLOW_LAMBDA = 0.00143, 2.14
WILLOW = {
    "t1_us": 68.0, "t2_us": 89.0, "error_1q": 0.00035, "error_2q": 0.0033, "readout_error": 0.0077,
    "duration_1q_ns": 25.0, "duration_2q_ns": 42.0, "readout_ns": 600.0, "reset_ns": 232.0,
    "preparation_error": 0.002, "reset_error": 0.0,
}  # fmt: skip


@benchmark(seed=SEED, chips=(12, 2), shots=(50_000, 20_000), parts=list(PARTS))
def logical_devices(report: Report, options: Namespace) -> None:
    """Logical devices of a chip: time, predictions against encoded circuits, Willow.

    Devices of three qubits of distance 3, 5 and 7 with correlated matching, two workers. Encoded
    Bell and GHZ states (three patches of distance 3, 3 rounds before and after each CX), and five
    CX with one round between, on chips with random values, sampled in stim and decoded, against the
    same programs on the logical device, in both bases: a prediction is met within 10 % or three
    standard errors. Chips have sequential and plain matching by turns; all their numbers follow
    from `--seed`, which is new in each run. Memories in both bases are compared with those of an
    encoder that shares no code with simenv (`bench/peers/textbook_surface_code.py`). Errors of a
    cycle of Google's Willow from the published means of its components. A Clifford circuit of 500
    logical qubits. `--parts`: some of these.
    """
    if not (installed("stim") and installed("pymatching")):
        return report.none_measured("stim or PyMatching is not installed")
    with home(), simenv.local(workers=2) as client:
        for part in options.parts:
            _RUNS[part](report, client, options)
    return None


def _times(report: Report, client: Client, _: Namespace) -> None:
    from simenv.calibration.logical.encode import encode

    for distance in (3, 5, 7):
        how = {"distance": distance, "qubits": 3, "decoder": DECODERS[1]}
        made = encode(client, library.load(CHIP), fresh=True, **how)
        print(f"d = {distance}: {made.experiments} experiments, {'; '.join(made.warnings)}")
        report.seconds("large_s" if distance == 7 else "small_s", made.seconds, f"d = {distance}")
        again, _ = timed(lambda how=how: encode(client, library.load(CHIP), **how))
    report.seconds("stored_s", again)


def _memories(report: Report, client: Client, options: Namespace) -> None:
    """Compare memories with those of an encoder that shares no code with simenv, on the same
    qubits."""
    from bench.peers.textbook_surface_code import memory, wrong
    from simenv.calibration.logical.encode import encode

    outside = 0
    for number in range(options.chips):
        seed = (options.seed + number) % 2**31
        chip = random_chip(options.seed + number)
        made = encode(
            client, chip, distance=3, qubits=1, decoder="pymatching", shots=options.shots, seed=seed
        ).snapshot
        assert made.logical is not None
        for basis in "ZX":
            circuit, round_ns = memory(chip, made.logical.patches[0], 3, basis, ROUNDS)
            p = wrong(circuit, options.shots, seed) / options.shots
            q = predicted_memory(made, basis, ROUNDS)
            # The prediction is from experiments with as many shots.
            sigma = math.sqrt(2.0 * max(p, 1.0 / options.shots) * (1.0 - p) / options.shots)
            bad = abs(q / p - 1.0) > 0.1 and abs(q - p) > 3.0 * sigma
            outside += bad
            print(f"{chip.name} {basis}: {p:.5f}, predicted {q:.5f}, {q / p:.3f}"
                  f" ({(q - p) / sigma:+.1f} sigma); a round {round_ns:.0f} ns, predicted"
                  f" {_round_ns(made):.0f}{' OUTSIDE' if bad else ''}", flush=True)  # fmt: skip
    report.at_most("memories_outside", outside, f"of {2 * options.chips}")


def predicted_memory(logical: cal.CalibrationSnapshot, basis: str, rounds: int) -> float:
    """Return the probability of a wrong outcome after rounds of a logical qubit's memory."""
    from simenv.calibration.logical.error_rates import round_errors

    qubit = logical.qubits[0]
    error = round_errors(qubit, _round_ns(logical))["ZX".index(basis)]
    read = 1.0 - 2.0 * (qubit.p01 or 0.0)
    return 0.5 * (1.0 - read * (1.0 - 2.0 * error) ** rounds)


def random_chip(seed: int) -> cal.CalibrationSnapshot:
    """Square lattice of 100 qubits: values of each qubit and pair drawn about means that are drawn
    for the chip."""
    random = np.random.default_rng(seed)
    layout = design.lattice("grid:10x10", 0)
    pairs = len(layout.couplings)

    def drawn(low: float, high: float, count: int, spread: float = 0.3) -> tuple[float, ...]:
        mean = math.exp(random.uniform(math.log(low), math.log(high)))
        return tuple((mean * np.exp(spread * random.standard_normal(count))).tolist())

    count = layout.num_qubits
    t1_us = drawn(60.0, 250.0, count)
    readout = drawn(0.002, 0.01, count)
    values = {
        "t1_us": t1_us,
        "t2_us": tuple(random.uniform(0.5, 1.5) * each for each in t1_us),
        "p01": tuple(0.7 * each for each in readout),
        "p10": tuple(1.3 * each for each in readout),
        "error_1q": drawn(1e-4, 5e-4, count),
        "error_2q": drawn(1e-3, 4e-3, pairs),
        "duration_1q_ns": (random.uniform(20.0, 40.0),),
        "duration_2q_ns": (random.uniform(40.0, 90.0),),
        "readout_ns": (random.uniform(300.0, 800.0),),
        "reset_ns": (random.uniform(100.0, 500.0),),
        "preparation_error": (0.001,),
        "reset_error": (random.uniform(0.0, 0.003),),
    }
    return _dynamic(
        design.DeviceDesign(
            f"random-{seed}",
            count,
            layout.couplings,
            layout.all_to_all,
            layout.coordinates,
            ("rz", "sx", "x", "cz"),
            values,
        )
    )


def _dynamic(plan: design.DeviceDesign) -> cal.CalibrationSnapshot:
    """Return the snapshot of a design, with measurements and resets inside circuits."""
    made, _ = design.snapshot_of(plan)
    return msgspec.structs.replace(made, dynamic=True)


def _round_ns(snapshot: cal.CalibrationSnapshot) -> float:
    assert snapshot.logical is not None
    return snapshot.logical.round_ns


def _predictions(report: Report, client: Client, options: Namespace) -> None:
    """Compare encoded Bell and GHZ states with the logical device's."""
    outside, ratios = 0, []
    for number in range(options.chips):
        chip, decoder = random_chip(options.seed + number), ON_RANDOM[number % 2]
        for case, own, predicted in _compared(client, chip, decoder, options):
            p, q = own[0] / own[1], predicted[0] / predicted[1]
            # The fit is from experiments with as many shots: it has the error of one of them.
            counts = own, own, predicted
            sigma = math.hypot(*(math.sqrt(max(k, 1) * (n - k) / n) / n for k, n in counts))
            bad = abs(q / p - 1.0) > 0.1 and abs(q - p) > 3.0 * sigma
            outside += bad
            ratios.append(q / p)
            print(f"{chip.name} {decoder} {case}: {p:.5f}, predicted {q:.5f}, {q / p:.3f}"
                  f" ({(q - p) / sigma:+.1f} sigma){' OUTSIDE' if bad else ''}")  # fmt: skip
    report.at_most("outside", outside, f"of {len(ratios)}")
    deviations = sorted(abs(each - 1.0) for each in ratios)
    report.at_most("median_deviation", statistics.median(deviations))


def _compared(
    client: Client, chip: cal.CalibrationSnapshot, decoder: str, options: Namespace
) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Return name, (wrong, shots) of the encoded circuit and of the logical device, of each state
    and parity."""
    from simenv.calibration.logical.encode import encode
    from simenv.calibration.logical.experiments import ClientRunner, Experiment
    from simenv.calibration.logical.patch_chip import patch_chip, places, selected
    from simenv.calibration.logical.surface_code import BASES, ghz, product_cx, rotated

    d, seed = 3, options.seed
    at_once = (d, *(1,) * (CX_AT_ONCE - 1), d)
    made = encode(
        client, chip, "predicted", distance=d, qubits=3, decoder=decoder, gate_decoder=decoder,
        shots=options.shots, seed=seed % 2**31,
    )  # fmt: skip
    path = files.private_folder(config.home_root() / "devices") / "predicted.json"
    files.write_atomic(path, snapshots.dump(made.snapshot))
    code, usable = rotated(d), selected(chip)
    on = patch_chip(usable, code, places(usable, code, 3), 3, seed % 2**31)
    experiments: list[Experiment] = []
    # Name, circuit of logical qubits, and the parities of qubits that are the observables.
    cases: list[tuple[str, QuantumCircuit, list[Sequence[int]]]] = []
    for width, basis in itertools.product((2, 3), BASES):
        # H at the end costs d rounds on the device, and nothing in stim.
        rounds = [d] * (width - 1) + [d if basis == "Z" else 2 * d]
        qubits = tuple(range(width * code.num_qubits))
        experiments.append(Experiment(ghz(code, width, basis, rounds), on, qubits, decoder))
        parities = [(k, k + 1) for k in range(width - 1)] if basis == "Z" else [range(width)]
        name = f"{'Bell' if width == 2 else 'GHZ 3'} {basis}"
        cases.append((name, _logical(width, basis, d, _round_ns(made.snapshot)), parities))
    for basis in BASES:
        rounds = at_once if basis == "Z" else (*at_once[:-1], 2 * d)
        qubits = tuple(range(2 * code.num_qubits))
        experiments.append(Experiment(product_cx(code, basis, rounds), on, qubits, decoder))
        circuit = _cx_at_once(basis, at_once, _round_ns(made.snapshot))
        cases.append((f"{CX_AT_ONCE} CX {basis}", circuit, [(0,), (1,), (0, 1)]))
    run = ClientRunner(client, options.shots, (seed ^ 0x5EED) % 2**31)
    results = []
    for (name, circuit, parities), found in zip(cases, run(experiments), strict=True):
        counts = client.run(
            circuit, device="predicted", engine="stabilizer", shots=options.shots, compile="never",
            seed=seed,
        ).counts  # fmt: skip
        for number, parity in enumerate(parities):
            wrong = sum(n for bits, n in counts.items() if _odd(bits, parity))
            own = found.errors[number], found.shots
            results.append((f"{name}{number}", own, (wrong, options.shots)))
    return results


def _odd(bits: str, qubits: Sequence[int]) -> bool:
    return sum(int(bits[-1 - qubit]) for qubit in qubits) % 2 == 1


def _logical(width: int, basis: str, d: int, round_ns: float) -> QuantumCircuit:
    """Return a GHZ state in rounds of the code: H, d rounds; each CX and d - 1 rounds."""
    circuit = QuantumCircuit(width, width)

    def wait(qubits: Sequence[int], rounds: int) -> None:
        for qubit in qubits:
            circuit.delay(rounds * round_ns, qubit, unit="ns")

    circuit.h(0)
    wait(range(1, width), d)
    circuit.barrier()
    for first in range(width - 1):
        circuit.cx(first, first + 1)
        wait((first, first + 1), d - 1)
        wait([qubit for qubit in range(width) if qubit not in (first, first + 1)], d)
        circuit.barrier()
    if basis == "X":
        circuit.h(range(width))
    circuit.measure(range(width), range(width))
    return circuit


def _cx_at_once(basis: str, rounds: Sequence[int], round_ns: float) -> QuantumCircuit:
    """Return CX after CX in a product state; `rounds`: before the first, and after each
    with that of the gate."""
    circuit = QuantumCircuit(2, 2)

    def wait(count: int) -> None:
        for qubit in range(2):
            circuit.delay(count * round_ns, qubit, unit="ns")
        circuit.barrier()

    if basis == "X":
        circuit.h(range(2))  # as many rounds as the distance
    else:
        wait(rounds[0])
    for after in rounds[1:]:
        circuit.cx(0, 1)
        wait(after - 1)
    if basis == "X":
        circuit.h(range(2))
    circuit.measure(range(2), range(2))
    return circuit


def willow() -> cal.CalibrationSnapshot:
    """Chip with the published means of Google's Willow, on a lattice that holds a patch of distance
    7."""
    sites = [(x, y) for x in range(15) for y in range(15) if (x - y) % 2 == 0]
    index = {site: number for number, site in enumerate(sites)}
    pairs = tuple(
        (index[x, y], index[x + 1, y + step])
        for x, y in sites
        for step in (1, -1)
        if (x + 1, y + step) in index
    )
    values = {name: (value,) for name, value in WILLOW.items()}
    places = tuple((float(x), float(y)) for x, y in sites)
    gates = "rz", "sx", "x", "cz"
    return _dynamic(
        design.DeviceDesign("willow-means", len(sites), pairs, False, places, gates, values)
    )


def _willow(report: Report, client: Client, _: Namespace) -> None:
    from simenv.calibration.logical.encode import encode
    from simenv.calibration.logical.error_rates import round_errors

    for decoder in DECODERS:
        errors: dict[int, float] = {}
        for d in (3, 5, 7):
            made = encode(client, willow(), distance=d, qubits=1, decoder=decoder, shots=50_000)
            errors[d] = statistics.mean(
                round_errors(made.snapshot.qubits[0], _round_ns(made.snapshot))
            )
        published = {d: WILLOW_ERROR * WILLOW_LAMBDA ** ((7 - d) / 2) for d in errors}
        for d, error in errors.items():
            case = f"{decoder}, d = {d}: {100 * error:.3f} %, published {100 * published[d]:.3f} %"
            report.at_most("willow_factor", _factor(error / published[d]), case)
        factor = math.sqrt(errors[3] / errors[7])
        case = f"{decoder}: {factor:.2f}, published {WILLOW_LAMBDA}"
        report.at_most("lambda_factor", _factor(factor / WILLOW_LAMBDA), case)


def _factor(ratio: float) -> float:
    return max(ratio, 1.0 / ratio)


def _wide(report: Report, client: Client, _: Namespace) -> None:
    """Measure a GHZ state of 500 logical qubits, submission to counts."""
    from simenv.calibration.logical.encode import encode

    made = encode(client, library.load(CHIP), distance=3, qubits=WIDE, shots=2_000)
    path = files.private_folder(config.home_root() / "devices") / "wide.json"
    files.write_atomic(path, snapshots.dump(made.snapshot))
    circuit = QuantumCircuit(WIDE)
    circuit.h(0)
    for qubit in range(WIDE - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    how: dict[str, Any] = {"device": "wide", "engine": "stabilizer", "compile": "never"}
    seconds = []
    for seed in range(4):  # the first one attaches the noise
        begun = time.perf_counter()
        result = client.run(circuit, shots=WIDE_SHOTS, seed=seed, **how)
        seconds.append(time.perf_counter() - begun)
        assert sum(result.counts.values()) == WIDE_SHOTS
    print(f"{WIDE} logical qubits: {', '.join(f'{each:.3f}' for each in seconds)} s")
    report.seconds("wide_s", seconds[1:])


_RUNS = {
    "times": _times,
    "memories": _memories,
    "predictions": _predictions,
    "willow": _willow,
    "wide": _wide,
}
