"""Certificate of a whole device: time, verdict, negative controls, and coverage of intervals.

All experiments run on an emulated device of 27 qubits as tasks of two workers: T1, T2, readout, ZZ,
standard, interleaved and simultaneous randomized benchmarking. A second device differs from its
claims in three places: one pair is 25 % worse, one T1 is 15 % shorter, one readout is 3 percentage
points off. Its certificate must name exactly these three. The coverage of confidence intervals is
counted over artificial devices whose counts are drawn from decay models.
"""

from __future__ import annotations

from argparse import Namespace

import msgspec

import simenv
from bench.harness import Option, Report
from bench.harness.environments import home
from bench.testbed.sampled_device import coverage
from noise_models import library, snapshot
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.certify import certify

DEVICE = "superconducting-lattice"
CONFIDENCE, JOINT = 0.95, 0.99
OPTIONS = (Option("--artificial", default=200, quick=20, help="devices of the coverage"),)


def run(options: Namespace) -> Report:
    report = Report("certify", f"{DEVICE}: all qubits and pairs, 2 workers")
    claims = library.load(DEVICE)
    # The first coupled pair of qubit 1 and a qubit of larger index.
    pair = next((a, b) for a, b in sorted(claims.coupling) if a == 1 and b > a)
    with home(cold=True) as folder:
        (folder / "devices").mkdir()
        (folder / "devices" / "changed.json").write_bytes(snapshot.dump(_changed(claims, pair)))
        with simenv.local(workers=2) as client:
            certify(client, DEVICE, claims, qubits=(0, 1), seed=7)  # load kernels
            full = certify(client, DEVICE, claims, seed=1)
            few = sorted({*pair, 0, 1, 2})
            controls = certify(client, "changed", claims, qubits=few, seed=2)
    print(f"{full.circuits} circuits, {full.shots:,} shots, {len(full.comparisons)} quantities")
    report.at_most("seconds", full.seconds, "whole device, s")
    wrong = len(full.culprits) + len(full.unresolved)
    report.at_most("outside", wrong, "quantities outside or not resolved")
    named = {(each.quantity, each.qubits) for each in controls.culprits}
    print(f"controls: {', '.join(f'{q} {p}' for q, p in sorted(named))}")
    expected = {("t1_us", (0,)), ("p10", (2,)), ("error_2q", pair)}
    right = len(named & expected) - len(named - expected)
    report.at_least("named", right, "controls named, less wrong names")
    share, joint, count = coverage(options.artificial, CONFIDENCE)
    print(
        f"{options.artificial} artificial devices, {count} intervals: {share:.4f} at {CONFIDENCE}"
    )
    label = f"coverage of {CONFIDENCE:.0%} intervals less nominal, points"
    report.at_most("coverage_error", 100.0 * abs(share - CONFIDENCE), label)
    label = f"coverage of simultaneous {JOINT:.0%} intervals less nominal, points"
    report.at_most("joint_error", round(100.0 * abs(joint - JOINT), 6), label)
    return report


def _changed(claims: CalibrationSnapshot, pair: tuple[int, int]) -> CalibrationSnapshot:
    """Return the device with three faults."""
    qubits = list(claims.qubits)
    qubits[0] = msgspec.structs.replace(qubits[0], t1_us=0.85 * (qubits[0].t1_us or 0.0))
    p01, p10 = qubits[2].confusion or (0.0, 0.0)
    qubits[2] = msgspec.structs.replace(qubits[2], p01=p01, p10=p10 + 0.03, readout_error=None)
    two = {gate.name for gate in claims.native_gates if gate.num_qubits == 2}
    gates = tuple(
        msgspec.structs.replace(gate, error=1.25 * (gate.error or 0.0))
        if gate.name in two and set(gate.qubits) == set(pair)
        else gate
        for gate in claims.gates
    )
    return msgspec.structs.replace(claims, qubits=tuple(qubits), gates=gates)
