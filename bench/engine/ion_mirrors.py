"""Mirror circuits of trapped ions: survival on an emulated machine beside that on the machine.

A mirror circuit ends in a known outcome; its survival is the probability of that. The emulated
machine has the values of a data sheet alone: average infidelities of gates, readout errors and the
memory error of a layer. Nothing is fitted.

Quantinuum's H2-1: circuits of 20, 26 and 32 qubits with the outcome of each shot, as published
beside Moses et al., arXiv 2305.03828 (`--data`: the folder mirror_benchmarking/data of
github.com/CQCL/quantinuum-hardware-h2-benchmark). For each width the mean survival of all circuits
is compared; for each width and number of layers, what is beyond an interval of 99 %, from the
differences of the circuits. The data are not part of the project; without them nothing is measured.
"""

from __future__ import annotations

import math
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.harness import Report
from bench.harness.kernels import load_kernels
from bench.harness.options import SEED, Option
from bench.measured_sets import DATA
from noise_models.build import build
from noise_models.importers import import_snapshot
from noise_models.model import NoiseOptions
from simenv.calibration import data
from simenv.calibration.fit.observations import DeviceCompiler
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import counts_of, simulate

# H2-1 on 2023-03-10, github.com/CQCL/quantinuum-hardware-specifications.
SHEET = {
    "name": "H2-1", "n_qubits": 32,
    "noise_specs": {
        "1q_gate_error": {"p1": 2.7e-5}, "2q_gate_error": {"p2": 1.93e-3},
        "memory_error": {"memory_error": 2.2e-4},
        "spam_error": {"p_meas_0": 9e-4, "p_meas_1": 2.2e-3},
    },
}  # fmt: skip
MODELS = (NoiseOptions(), NoiseOptions.parse({"qubit.memory": 0}))
Z_99 = 2.576
OPTIONS = (
    Option("--data", type=Path, default=DATA.parent / "ion_mirrors", help="folder of MB_N*.json"),
    Option("--shots", default=2_000, quick=200, help="of each emulated circuit"),
    SEED,
)


class Mirrors(msgspec.Struct):
    """A file of the data: circuits in OpenQASM 2 by "(layers, number)", and outcomes."""

    qasm: dict[str, str]
    results: dict[str, dict[str, list[str]]]


class Survival(msgspec.Struct, frozen=True):
    """Survival of one circuit: on the machine, emulated, and emulated without its memory error."""

    qubits: int
    layers: int
    measured: float
    emulated: float
    without_memory: float


def survivals(path: Path, shots: int, seed: int) -> Iterator[Survival]:
    """Yield the survival of each circuit of a file. `shots`: of an emulated circuit."""
    mirrors = msgspec.json.decode(path.read_bytes(), type=Mirrors)
    rows = [
        data.row(text.replace("ZZ ", "rzz(pi/2) "), Counter(mirrors.results[name]["c"]), name=name)
        for name, text in mirrors.qasm.items()
    ]
    snapshot, _ = import_snapshot({"sheet.json": msgspec.json.encode(SHEET)})
    compiler, models = DeviceCompiler(snapshot), [build(snapshot, each) for each in MODELS]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mirrors.jsonl"
        data.write(file, rows)
        records = data.read(file).records
    for number, record in enumerate(records):
        circuit = compiler.run_of(record).circuit
        (outcome,) = _counts(circuit, 1)
        emulated = []
        for model in models:
            noise = attach_noise(circuit, model)
            counts = _counts(circuit, shots, seed=seed + number, noise=noise)
            emulated.append(counts.get(outcome, 0) / shots)
        layers = int(record.name.strip("(").split(",")[0])
        measured = record.counts.get(outcome, 0) / record.shots
        yield Survival(record.source.num_clbits, layers, measured, *emulated)


def _counts(circuit: Circuit, shots: int, **options: Any) -> dict[int, int]:
    return counts_of(simulate(circuit, engine="stabilizer", shots=shots, **options).row(0))


def differences(group: Sequence[Survival]) -> tuple[float, float]:
    """Return the mean of emulated minus measured survival, and half its interval of 99 %."""
    values = np.array([each.emulated - each.measured for each in group])
    return float(values.mean()), Z_99 * float(values.std(ddof=1)) / math.sqrt(len(values))


def grouped(found: Iterable[Survival], *fields: str) -> list[list[Survival]]:
    """Return the circuits by the values of fields, in their order."""
    groups: dict[tuple[int, ...], list[Survival]] = {}
    for each in found:
        groups.setdefault(tuple(getattr(each, name) for name in fields), []).append(each)
    return [groups[key] for key in sorted(groups)]


def run(options: Namespace) -> Report:
    report = Report("ion_mirrors", "mirror circuits of trapped ions beside those of the machine")
    files = sorted(options.data.glob("MB_N*.json"))
    names = {
        "survival": "largest difference of the mean survival of a width",
        "beyond_chance": "largest difference of a width and length beyond its 99 % interval",
    }
    if not files:
        for key, name in names.items():
            report.not_measured(key, name, f"no MB_N*.json in {options.data}")
        return report
    load_kernels()
    found = [each for path in files for each in survivals(path, options.shots, options.seed)]
    print("qubits layers measured emulated  without memory error")
    beyond = 0.0
    for group in grouped(found, "qubits", "layers"):
        mean, half = differences(group)
        beyond = max(beyond, abs(mean) - half)
        columns = ("measured", "emulated", "without_memory")
        means = [f"{np.mean([getattr(each, name) for each in group]):8.3f}" for name in columns]
        print(
            f"{group[0].qubits:6} {group[0].layers:6} {' '.join(means)}  {mean:+.3f} +- {half:.3f}"
        )
    widths = [abs(differences(group)[0]) for group in grouped(found, "qubits")]
    report.at_most("survival", max(widths), names["survival"])
    report.at_most("beyond_chance", beyond, names["beyond_chance"])
    return report
