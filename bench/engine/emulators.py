"""Emulators of real machines, each judged by the counts that the machines returned.

For each machine, the test circuits of its measured counts (`bench.measured_sets`) are predicted by
simenv with the machine's calibration, by simenv after a fit of the training circuits, and by
emulators of other projects, with the same calibration: Aer's `NoiseModel.from_backend`, with idle
times and without, iqm-client's IQMFakeBackend, and Amazon Braket's LocalEmulator for its own device
properties. All run the same native circuits on the same qubits. All distributions are
exact; wider circuits are not judged.

HF, TVD and the log-likelihood of a shot are those of `simenv score`; differences of mean HF have
99 % intervals over circuit bodies. The table of all machines has means over those that an emulator
knows. An emulator that needs another Python
environment runs in that of `--python`; one that is not installed, or does not know a machine, has
no row.

A fit uses the training circuits; no other emulator has a fit. Where it is refused, or is of no use,
the calibration stands in its place, and the table says so.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.harness import Report
from bench.harness.kernels import load_kernels
from bench.harness.options import SEED, Option
from bench.measured_sets import DATA, MeasuredSet, sets
from bench.peers.emulators import EMULATORS, MOST_QUBITS
from simenv.calibration.accept import HEADER, Interval, as_values, cells, interval
from simenv.calibration.data import CountsRecord
from simenv.calibration.fit.calibrate import FitRefusedError, calibrate
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import (
    CEILING,
    IdealDistributions,
    Model,
    Prediction,
    Predictor,
    Score,
    SeriesPredictor,
    score,
    two_qubit_gates,
)
from simulators.circuit.gates import BARRIER, DELAY, MEASURE
from simulators.circuit.ir import Circuit, operations
from simulators.errors import Unsupported

CALIBRATED, FITTED = "simenv", "simenv, fitted"
PEER = Path(__file__).parents[1] / "peers" / "emulators.py"
OPTIONS = (
    Option("--data", type=Path, default=DATA, help="folder of measured sets"),
    Option("--only", action="append", default=[], help="name of a set; may be repeated"),
    Option("--python", action="append", default=[], help="of another environment with emulators"),
    Option("--table", type=Path, help="write the tables as Markdown"),
    SEED,
)


def run(options: Namespace) -> Report:
    report = Report("emulators", "emulators of machines beside the counts of these machines")
    load_kernels()
    results: dict[str, Score] = {}
    lines: list[str] = []
    for each in sets(options.data, options.seed) if options.data.is_dir() else ():
        if options.only and each.name.rpartition("/")[2] not in options.only:
            continue
        result, notes = _judged(each, options.python)
        results[each.name] = result
        lines += ["", f"### {each.name} ({each.snapshot.name})", "", *_markdown(result), *notes]
    if not results:
        reason = f"no measured sets in {options.data}"
        report.not_measured("above_peers", "simenv's calibration", reason)
        report.not_measured("fitted_above_peers", "simenv's fit", reason)
        return report
    for key, model in (("above_peers", CALIBRATED), ("fitted_above_peers", FITTED)):
        _compare(report, key, model, results)
    summary = _all_machines(results)
    print("\n".join(["", "all machines", *summary]))
    if options.table is not None:
        options.table.write_text("\n".join(["### All machines", "", *summary, *lines, ""]))
        print(f"table {options.table}")
    return report


def _judged(each: MeasuredSet, pythons: list[str]) -> tuple[Score, list[str]]:
    """Return the scores of the test circuits by every emulator, and notes."""
    print(f"\n{each.name} ({each.snapshot.name}): {len(each.data.records)} runs")
    notes: list[str] = []
    compiler = DeviceCompiler(each.snapshot)
    models: dict[str, Model] = {CALIBRATED: Predictor(each.snapshot, compiler=compiler)}
    fitted = None
    try:
        fitted = calibrate(each.data, each.snapshot, f"{each.name}-fitted", print)
    except FitRefusedError as error:
        notes.append(f"The fit was refused: {error.message}. The calibration stands in its place.")
    models[FITTED] = models[CALIBRATED]
    if fitted is not None:
        models[FITTED] = SeriesPredictor(fitted.snapshot, fitted.series)
        if fitted.reason:
            notes.append(f"No fit is used: {fitted.reason}.")
    peers = {name: _Peer.of(name, each, compiler, pythons) for name in EMULATORS}
    models |= {name: peer for name, peer in peers.items() if peer is not None}
    try:
        tests = [record for record in each.data.records if record.is_test]
        judged = [record for record in tests if _width(compiler, record) <= MOST_QUBITS]
        data = msgspec.structs.replace(each.data, records=tuple(judged))
        result = score(data, models, IdealDistributions(), print)
    finally:
        for peer in filter(None, peers.values()):
            peer.close()
    if len(judged) < len(tests):
        notes.append(
            f"{len(tests) - len(judged)} runs of more than {MOST_QUBITS} qubits are not judged."
        )
    notes.append(f"Calibration: {each.snapshot.calibrated or 'without a date'}.")
    notes += [peer.text for peer in peers.values() if peer is not None]
    for line in (*_markdown(result), *notes):
        print(f"  {line}")
    return result, [f"\n{note}" for note in notes]


def _width(compiler: DeviceCompiler, record: CountsRecord) -> int:
    return int(np.unique(compiler.run_of(record).circuit.qubits).size)


class _Peer:
    """An emulator of `bench.peers.emulators` in a process of its own."""

    def __init__(self, name: str, compiler: DeviceCompiler, process: Any, version: str) -> None:
        self._name, self._compiler, self._process = name, compiler, process
        self._version = version
        self._known: dict[int, Prediction | None] = {}
        self._seconds: list[float] = []
        self._problems: list[str] = []

    @classmethod
    def of(
        cls, name: str, each: MeasuredSet, compiler: DeviceCompiler, pythons: list[str]
    ) -> _Peer | None:
        """Start the emulator in the first environment that has it; None: it is not installed, or
        does not know the machine."""
        machine = _machine(each)
        for python in (sys.executable, *pythons):
            process = subprocess.Popen(
                [python, str(PEER), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            answer = _asked(process, machine)
            if "version" in answer:
                return cls(name, compiler, process, answer["version"])
            print(f"  {name}: {answer['problem']}")
            _end(process)
        return None

    @property
    def text(self) -> str:
        """Version, time and problems, for people."""
        seconds = statistics.median(self._seconds) if self._seconds else 0.0
        result = f"{self._name}: {self._version}; {seconds:.2g} s a circuit (median)"
        if self._problems:
            result += f"; {len(self._problems)} circuits not run: {self._problems[0]}"
        return result

    def prediction(self, record: CountsRecord) -> Prediction | None:
        """Return the exact distribution of a record's native circuit; None: not run."""
        compiled = self._compiler.run_of(record)
        if id(compiled) not in self._known:
            self._known[id(compiled)] = self._predicted(compiled.circuit)
        return self._known[id(compiled)]

    def _predicted(self, circuit: Circuit) -> Prediction | None:
        try:
            begin = time.perf_counter()
            answer = _asked(self._process, _listed(circuit))
            self._seconds.append(time.perf_counter() - begin)
        except Unsupported as error:
            answer = {"problem": error.message}
        if "problem" in answer:
            self._problems.append(answer["problem"])
            return None
        values = {int(outcome): value for outcome, value in answer["probabilities"].items()}
        return Prediction(
            np.array(list(values), object), np.array(list(values.values())),
            int(np.unique(circuit.clbits).size), int(np.unique(circuit.qubits).size),
            *two_qubit_gates(circuit), 0, self._name,
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        _end(self._process)


def _machine(each: MeasuredSet) -> dict[str, Any]:
    """Return what an emulator is told of a machine."""
    snapshot = each.snapshot
    return {
        "name": each.data.device or snapshot.name,
        "calibration": each.text,
        "from_library": each.from_library,
        "num_qubits": snapshot.num_qubits,
        "dt_ns": snapshot.dt_ns,
        "qubits": [
            {
                "t1_us": qubit.t1_us,
                "t2_us": qubit.t2_us,
                "flips": qubit.confusion or (0.0, 0.0),
                "readout_ns": qubit.readout_ns,
            }
            for qubit in snapshot.qubits
        ],
        "gates": [
            {field: getattr(gate, field) for field in ("name", "qubits", "error", "duration_ns")}
            for gate in snapshot.gates
        ],
    }


def _asked(process: Any, question: Any) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer
    return {"problem": "the process of the emulator has ended"}


def _end(process: Any) -> None:
    process.kill()
    process.communicate()


def _listed(circuit: Circuit) -> list[tuple[str, list[int], list[float], int]]:
    """Return a circuit's operations as an emulator reads them. Raises Unsupported."""
    results = []
    for each in operations(circuit, np.frombuffer(circuit.params, np.float64)):
        if not (each.is_gate or each.code in (MEASURE, BARRIER, DELAY)):
            raise Unsupported(f"operation {each.name}")
        if each.qubits:
            clbit = each.clbits[0] if each.code == MEASURE else -1
            params = [float(value) for value in each.params]
            results.append((each.name, [int(q) for q in each.qubits], params, int(clbit)))
    return results


def _compare(report: Report, key: str, model: str, results: Mapping[str, Score]) -> None:
    """Add, of every machine, the end of the 99 % interval of what mean HF is above the best other
    emulator's."""
    for name, result in results.items():
        peers = [each for each in result.models if each in EMULATORS]
        found = {peer: _difference(result, model, peer) for peer in peers}
        ends = {peer: each for peer, each in found.items() if each is not None}
        label = f"{name}: mean HF of {model} above the best other emulator's, end of the interval"
        if ends:
            peer = min(ends, key=lambda each: ends[each].high)
            report.at_least(key, ends[peer].high, f"{label} ({peer}: {ends[peer].text})")
        else:
            report.not_measured(key, label, "no other emulator knows the machine")


def _difference(result: Score, model: str, peer: str) -> Interval | None:
    """Return the difference of mean HF over the circuits that both ran; None: none."""
    rows = [row for row in result.rows if model in row.hf and peer in row.hf]
    if not rows:
        return None
    change: NDArray[np.float64] = np.array([row.hf[model] - row.hf[peer] for row in rows])
    return interval(change, np.ones(len(rows), np.int64), [row.body for row in rows])


def _markdown(result: Score) -> list[str]:
    """Return the lines of the table of one machine."""
    rows = [row[1:] for row in cells(as_values(result))]
    lines = ["| " + " | ".join(row) + " |" for row in (HEADER[1:], *rows)]
    return [lines[0], "|" + "---|" * (len(HEADER) - 1), *lines[1:]]


def _all_machines(results: Mapping[str, Score]) -> list[str]:
    """Return the lines of the table of all machines: over the circuits that every emulator of a
    machine ran, the mean over the machines of mean HF and mean TVD."""
    values: dict[str, list[tuple[float, float]]] = {}
    for result in results.values():
        rows = [row for row in result.rows if all(each in row.hf for each in result.models)]
        for model in (*result.models, CEILING) if rows else ():
            hf = float(np.mean([row.hf[model] for row in rows]))
            tvd = float(np.mean([row.tvd.get(model, np.nan) for row in rows]))
            values.setdefault(model, []).append((hf, tvd))
    lines = ["| emulator | machines | mean HF | mean TVD |", "|---|---|---|---|"]
    order = sorted(values, key=lambda each: (-len(values[each]), -np.mean(values[each], 0)[0]))
    for model in order:
        hf, tvd = np.mean(values[model], 0)
        distance = "" if np.isnan(tvd) else f"{tvd:.4f}"
        lines.append(f"| {model} | {len(values[model])} | {hf:.4f} | {distance} |")
    return lines
