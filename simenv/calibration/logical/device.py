"""Calibration snapshot of logical qubits from their error rates; pure.

A logical qubit is a qubit that relaxes to the mixed state: with `excited` 0.5, relaxation is a
channel of Pauli errors, X with T1 and Z with T2, which grows with every time that the qubit waits.
Gates have durations in rounds, and no further errors, but for CX by its Pauli errors and T by that
of its magic state. X and Z are changes of the Pauli frame, without duration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    LogicalOrigin,
    NativeGate,
    PauliError,
    QubitCalibration,
)
from simenv._version import __version__
from simenv.calibration.logical.cx_errors import GateFlips, gate_paulis, mean_flips
from simenv.calibration.logical.error_rates import MemoryRate, times_us
from simenv.calibration.logical.options import EncodeOptions

_NS_PER_US = 1e3
Pair = tuple[int, int]
Rates = Mapping[str, MemoryRate]  # by basis of the memory
Flips = Mapping[str, GateFlips]  # by basis of the product state


@dataclass(frozen=True, slots=True)
class LogicalErrors:
    """Error rates of the patches of a logical device."""

    rates: tuple[Rates, ...]  # by patch
    gates: tuple[tuple[Pair, Flips], ...]  # CX of sampled pairs; (): none was sampled
    round_ns: float
    suppression: tuple[float, float] | None
    extrapolated: bool
    places: tuple[tuple[int, ...], ...]  # of patches on the chip; the others have drawn values


def logical_snapshot(
    name: str,
    chip: CalibrationSnapshot,
    options: EncodeOptions,
    errors: LogicalErrors,
    physical_qubits: int,
) -> tuple[CalibrationSnapshot, int]:
    """Return the snapshot, and the number of qubits whose errors of Z it cannot say. Logical qubit
    q has the errors of patch q modulo their number."""
    rows, limited = [], 0
    for rates in errors.rates:
        t1_us, t2_us, is_limited = times_us(rates["Z"].error, rates["X"].error, errors.round_ns)
        readout = 0.5 * (rates["Z"].readout + rates["X"].readout)
        limited += is_limited
        rows.append(
            QubitCalibration(
                t1_us=t1_us,
                t2_us=t2_us,
                excited=0.5,
                p01=readout,
                p10=readout,
                readout_ns=errors.round_ns,
                reset_ns=errors.round_ns,
                reset_error=0.0,
                preparation_error=0.0,
            )
        )
    count = options.qubits
    rounds = _rounds(options)
    gates = [
        GateCalibration(gate, (), 0.0, length * errors.round_ns)
        for gate, length in rounds.items()
        if gate not in ("cx", "t", "tdg")
    ]
    t_ns = rounds["t"] * errors.round_ns + _NS_PER_US * options.latency_us
    fault = (PauliError("Z", options.t_error),) if options.t_error else ()
    error = None if fault else 0.0
    gates += [GateCalibration(gate, (), error, t_ns, paulis=fault) for gate in ("t", "tdg")]
    if count > 1:
        gates += _cx_gates(errors.gates, rounds["cx"] * errors.round_ns)
    origin = LogicalOrigin(
        code=f"rotated {options.code} code", distance=options.distance, decoder=options.decoder,
        chip=chip.name, chip_digest=chip.digest.hex(), options=_options_text(options, errors),
        shots=options.shots, physical_qubits=physical_qubits, round_ns=errors.round_ns,
        deadline_ns=_NS_PER_US * options.latency_us, suppression=errors.suppression,
        extrapolated=errors.extrapolated, patches=errors.places,
    )  # fmt: skip
    columns = math.isqrt(count - 1) + 1
    result = CalibrationSnapshot(
        name=name,
        num_qubits=count,
        provider="simenv",
        technology="simulator",
        version=__version__,
        calibrated=chip.calibrated,
        max_shots=chip.max_shots,
        dynamic=True,
        feed_forward_ns=errors.round_ns + _NS_PER_US * options.latency_us,
        all_to_all=True,
        native_gates=tuple(
            NativeGate(gate, 1 + (gate == "cx"))
            for gate in rounds
            if gate != "cx" or count > 1
        ),
        qubits=tuple(rows[q % len(rows)] for q in range(count)),
        gates=tuple(gates),
        coordinates=tuple((float(q % columns), float(q // columns)) for q in range(count)),
        source_format="simenv",
        logical=origin,
    )  # fmt: skip
    return result, limited


def _rounds(options: EncodeOptions) -> dict[str, int]:
    """Rounds of each native gate. H and S of a patch take as long as one of its boundaries moves
    across it, d rounds (Litinski, arXiv 1808.02892)."""
    d = options.distance
    magic = options.t_rounds or 5 * d
    cx = 1 if options.cx == "transversal" else 2 * d
    return {"x": 0, "z": 0, "h": d, "s": d, "sdg": d, "t": magic, "tdg": magic, "cx": cx}


def _cx_gates(sampled: tuple[tuple[Pair, Flips], ...], duration_ns: float) -> list[GateCalibration]:
    """Return the entries of sampled pairs, in both directions, and that of all others: the mean."""

    def entry(qubits: tuple[int, ...], flips: Flips) -> GateCalibration:
        paulis = gate_paulis(flips)
        return GateCalibration("cx", qubits, None if paulis else 0.0, duration_ns, paulis=paulis)

    if not sampled:
        return [GateCalibration("cx", (), 0.0, duration_ns)]
    mean = {basis: mean_flips([flips[basis] for _, flips in sampled]) for basis in "ZX"}
    entries = [entry((), mean)]
    for pair, flips in sampled:
        entries += [entry(pair, flips), entry(pair[::-1], flips)]
    return entries


def _options_text(options: EncodeOptions, errors: LogicalErrors) -> str:
    """Text of what the errors depend on, and of what was assumed."""
    placed = len(errors.places)
    drawn = len(errors.rates) - placed
    parts = [
        f"seed {options.seed}",
        f"{placed} patches on the chip, {drawn} with values drawn from it",
    ]
    if options.qubits > len(errors.rates):
        parts.append(f"{options.qubits} qubits have errors of {len(errors.rates)} patches in turn")
    if errors.gates:
        count = len(errors.gates)
        parts.append(
            f"cx transversal, sampled on {count} pairs with {options.gates_decoded_by}, couplings"
            " between patches drawn"
        )
    else:
        parts.append(f"cx {options.cx}, with the errors of memories")
    parts.append(f"error of T {options.t_error:g} in {_rounds(options)['t']} rounds, assumed")
    if options.latency_us:
        place = f", interconnect {options.interconnect}" if options.interconnect else ""
        parts.append(f"conditions and T wait {options.latency_us:g} us for the decoder{place}")
    return "; ".join(parts)
