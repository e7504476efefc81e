"""Text and JSON of devices and of certificates.

Figures of a calibration snapshot are medians, extremes, and errors by pair and qubit. `simenv
devices show` prints those of a device, or of one qubit.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.cli import terminal
from simenv.model.devices import UNKNOWN

if TYPE_CHECKING:
    from noise_models.atoms import AtomMachine
    from noise_models.calibration import (
        CalibrationSnapshot,
        FitScope,
        GateCalibration,
        LayerCalibration,
        Link,
        LogicalOrigin,
    )
    from noise_models.terms import Measured
    from simenv.calibration.certify import Certificate, ClaimComparison, FigureFit

UNITS = {
    "ghz": "GHz",
    "khz": "kHz",
    "ns": "ns",
    "us": "us",
    "rad": "rad",
    "s": "s",
}  # last word of a field -> unit


class SpreadFigure(msgspec.Struct, frozen=True):
    """Median and extremes of one measured quantity over a device."""

    figure: str
    unit: str
    median: float
    min: float
    max: float
    count: int


def figures(snapshot: CalibrationSnapshot) -> list[SpreadFigure]:
    """Return the figures of the qubits, then those of each gate and of measurements with names of
    their own, then of pairs; of angles and rates the absolute values. Errors of gates that do not
    work are left out; `broken` lists them."""
    from noise_models.terms import measured

    results = []
    for each in measured(snapshot):
        values = list(each.values)
        if each.name.endswith(" error"):
            values = working(values)
        if each.unit in ("rad", "kHz"):
            values = list(map(abs, values))
        middle = statistics.median(values)
        figure = SpreadFigure(_stem(each), each.unit, middle, min(values), max(values), len(values))
        results.append(figure)
    return results


def _stem(each: Measured) -> str:
    """Name of a quantity without its unit."""
    stem, _, ending = each.name.rpartition("_")
    return stem if ending in UNITS else each.name


def broken_summary(snapshot: CalibrationSnapshot) -> list[str]:
    """Return the native gates whose error is 1, such as `cz 3-4`."""
    native = {gate.name for gate in snapshot.native_gates}
    return [
        f"{gate.name} {'-'.join(map(str, gate.qubits))}"
        for gate in snapshot.gates
        if gate.error == 1.0 and gate.name in native
    ]


def pair_errors(snapshot: CalibrationSnapshot) -> dict[tuple[int, int], float]:
    """Return the smallest error of a native two-qubit gate of each pair (a < b), in either
    direction."""
    native = {gate.name for gate in snapshot.native_gates}
    entries: dict[tuple[int, int], float] = {}
    for gate in snapshot.gates:
        if len(gate.qubits) == 2 and gate.error is not None and gate.name in native:
            pair = (min(gate.qubits), max(gate.qubits))
            entries[pair] = min(entries.get(pair, 1.0), gate.error)
    return entries


def readout_errors(snapshot: CalibrationSnapshot) -> dict[int, float]:
    """Return the mean readout error of each qubit that has one."""
    return {
        index: sum(pair) / 2
        for index, qubit in enumerate(snapshot.qubits)
        if (pair := qubit.confusion) is not None
    }


def working(errors: Iterable[float]) -> list[float]:
    """Return the errors below 1, which marks a gate that does not work; all if none is below."""
    measured = list(errors)
    return [error for error in measured if error < 1.0] or measured


def median(values: Iterable[float]) -> float:
    """Return the median of the known values; NaN if none is known."""
    measured = [value for value in values if value == value]
    return statistics.median(measured) if measured else UNKNOWN


def layer_lines(layers: Sequence[LayerCalibration]) -> list[str]:
    """Return one line for each layer: its gates, the qubits of its rates, and its error."""
    results = []
    for each in layers:
        gates = ", ".join(each.names)
        error = each.error
        count = terminal.counted(len(each.generators), "rate")
        when = f", {each.calibrated}" if each.calibrated else ""
        around = f" on {terminal.counted(len(each.qubits), 'qubit')}"
        results.append(f"{gates}: {count}{around}, error {_short(error)}{when}")
    return results


_MAX_BROKEN = 8
_MAX_LAYERS = 8
_MAX_LINKS = 16
_HEADERS = ("FIGURE", "UNIT", "MEDIAN", "MIN", "MAX", "VALUES")


def as_object(
    name: str, snapshot: CalibrationSnapshot, source: str, qubit: int | None
) -> dict[str, Any]:
    """Return the whole snapshot with its figures, or the values of one qubit, as a JSON object."""
    if qubit is not None:
        return {
            "name": name,
            "qubit": qubit,
            "values": msgspec.to_builtins(snapshot.qubits[qubit]) if snapshot.qubits else {},
            "gates": [msgspec.to_builtins(gate) for gate in _gates(snapshot, qubit)],
            "dates": _dates(snapshot, qubit),
            "others": [
                {"name": each.name, "title": each.title, "unit": each.unit, "qubits": place,
                 "value": value}
                for each, place, value in _others(snapshot, qubit)
            ],
            "layers": _layers(snapshot, qubit),
            "links": [link for link in snapshot.links if qubit in link.pair],
        }  # fmt: skip
    return {
        "name": name, "source": source, "digest": snapshot.digest.hex(),
        "fit": _fitted(snapshot), "figures": figures(snapshot),
        "broken": broken_summary(snapshot), "snapshot": snapshot,
    }  # fmt: skip


def show(name: str, snapshot: CalibrationSnapshot, source: str) -> None:
    """Print the description of the device, and the median of each figure."""
    gates = ", ".join(gate.name for gate in snapshot.native_gates)
    pairs = len({frozenset(pair) for pair in snapshot.coupled})
    lost = len({frozenset(pair) for pair in snapshot.coupling}) - pairs
    coupling = f"{pairs} pairs" + (f", {lost} more without a working gate" if lost else "")
    if snapshot.analog is not None:
        coupling = ""
    facts = [
        ("device", f"{name} ({source})"),
        ("model", " ".join(filter(None, (snapshot.provider, snapshot.name, snapshot.version)))),
        ("technology", snapshot.technology),
        ("atoms" if snapshot.analog else "qubits", str(snapshot.num_qubits)),
        ("machine", "" if snapshot.analog is None else _machine(snapshot.analog.machine)),
        (
            "coupling",
            "all to all" if snapshot.all_to_all else coupling if not snapshot.analog else "",
        ),
        ("gates", gates),
        ("fractional", ", ".join(gate.name for gate in snapshot.fractional_gates)),
        ("calibrated", snapshot.calibrated),
        ("fitted from", _fitted(snapshot)),
        ("refused fit", _refused(snapshot)),
        ("low T1", _low(snapshot)),
        ("modules", _modules(snapshot)),
        ("logical", _logical(snapshot.logical)),
        ("snapshot", snapshot.digest.hex()[:12]),
        ("clock", f"dt = {snapshot.dt_ns:g} ns" if snapshot.dt_ns else ""),
        ("shots", f"<= {snapshot.max_shots}" if snapshot.max_shots else ""),
        ("dynamic", _dynamic(snapshot)),
        ("a shot", _shot(snapshot)),
        ("not known", ", ".join(snapshot.analog.uncalibrated) if snapshot.analog else ""),
    ]
    for key, value in facts:
        if value:
            terminal.fitted(f"{key:<11} {terminal.clean(value)}", 12)
    if broken := broken_summary(snapshot):
        more = f" and {len(broken) - _MAX_BROKEN} more" if len(broken) > _MAX_BROKEN else ""
        terminal.fitted(f"{'broken':<11} {', '.join(broken[:_MAX_BROKEN])}{more}", 12)
    rows = [
        (each.figure, each.unit, *map(_short, (each.median, each.min, each.max)), str(each.count))
        for each in figures(snapshot)
    ]
    if rows:
        terminal.line()
        terminal.table([_HEADERS, *rows], left=1)
    if snapshot.analog is not None:
        terminal.line()
        _show_channels(snapshot.analog.machine)
    if snapshot.links:
        terminal.line()
        _show_links(snapshot.links)
    if snapshot.layers:
        terminal.line()
        _show_layers(snapshot.layers)


def _dynamic(snapshot: CalibrationSnapshot) -> str:
    if snapshot.analog is not None:
        return ""
    return "yes" if snapshot.dynamic else "no: measurements stand at the end"


def _shot(snapshot: CalibrationSnapshot) -> str:
    """Return the time of a shot without its sequence; "" for a device that runs circuits."""
    if snapshot.analog is None:
        return ""
    return f"{1e-6 * snapshot.reset_ns(()):g} ms and the sequence"


def _machine(machine: AtomMachine) -> str:
    """Return the limits of a machine of atoms."""
    parts = [
        f"{machine.min_atom_distance:g} um apart or more",
        f"within {machine.max_radial_distance:g} um" if machine.max_radial_distance else "",
        f"{machine.dimensions} dimensions",
        f"Rydberg level {machine.rydberg_level}" if machine.rydberg_level else "",
        f"sequences up to {machine.max_sequence_duration} ns"
        if machine.max_sequence_duration
        else "",
    ]
    return ", ".join(filter(None, parts))


def _show_channels(machine: AtomMachine) -> None:
    rows: list[tuple[str, ...]] = [
        ("CHANNEL", "BASIS", "ADDRESSING", "RABI RAD/US", "DETUNING RAD/US", "LONGEST NS")
    ]
    for each in (*machine.channels, *machine.dmm_objects):
        limits = each.max_amp, each.max_abs_detuning, each.max_duration
        shown = ["-" if limit is None else f"{limit:.5g}" for limit in limits]
        rows.append(tuple(map(terminal.clean, (each.id, each.basis, each.addressing, *shown))))
    terminal.table(rows, left=3)


def _modules(snapshot: CalibrationSnapshot) -> str:
    return ", ".join(
        f"{each.name}: {terminal.counted(len(each.qubits), 'qubit')}"
        f" ({len(each.communication)} for links)"
        for each in snapshot.modules
    )


def _logical(origin: LogicalOrigin | None) -> str:
    """Return the code and chip of logical qubits; "" for physical ones."""
    if origin is None:
        return ""
    parts = [
        f"{origin.code} of distance {origin.distance} on {origin.chip}",
        f"{terminal.counted(origin.physical_qubits, 'qubit')} for each",
        f"patches on the chip: {len(origin.patches)}" if origin.patches else "",
        f"a round of {origin.round_ns:g} ns",
        f"decoder {origin.decoder}",
        f"{origin.deadline_ns:g} ns for a round" if origin.deadline_ns else "",
        "errors extrapolated from a smaller distance" if origin.extrapolated else "",
    ]
    return ", ".join(filter(None, parts))


def _show_links(links: Sequence[Link]) -> None:
    rows: list[tuple[str, ...]] = [("LINK", "INFIDELITY", "RATE HZ", "WAIT US", "LATENCY US")]
    rows += [
        (
            "-".join(map(str, each.pair)),
            _short(each.infidelity),
            f"{each.rate_hz:g}" if each.rate_hz else "-",
            _short(1e-3 * each.mean_wait_ns),
            _short(1e-3 * each.latency_ns),
        )
        for each in links[:_MAX_LINKS]
    ]
    terminal.table(rows, left=1)
    if len(links) > _MAX_LINKS:
        terminal.line(f"  and {len(links) - _MAX_LINKS} more; --json prints all")


def _show_layers(layers: Sequence[LayerCalibration]) -> None:
    terminal.line(terminal.counted(len(layers), "layer"))
    shown = layer_lines(layers[:_MAX_LAYERS])
    for text in shown:
        terminal.fitted(f"  {terminal.clean(text)}", 4)
    if len(shown) < len(layers):
        terminal.line(f"  and {len(layers) - len(shown)} more; --json prints all")


def _low(snapshot: CalibrationSnapshot) -> str:
    """Return the qubits whose T1 is low by a jump, with the T1 in force."""
    return ", ".join(
        f"qubit {k}: {_short(qubit.in_force.t1_us or 0.0)} us"
        for k, qubit in enumerate(snapshot.qubits)
        if qubit.jump_rate_per_us
    )


def _fitted(snapshot: CalibrationSnapshot) -> str:
    """Return what the device was fitted to; "" for a device that is no fit."""
    scope = snapshot.fitted
    if scope is None:
        kept = snapshot.source_format == "counts"
        return "measured counts: no fit is used, the calibration is kept" if kept else ""
    days = " to ".join(dict.fromkeys(filter(None, (scope.first, scope.last))))
    qubits = ", ".join(map(str, scope.qubits))
    return "; ".join(
        filter(
            None,
            (
                f"{scope.device}, to {terminal.counted(scope.bodies, 'different circuit')}",
                f"measured {days}" if days else "",
                "qubits chosen by the compiler" if scope.placed else f"qubits {qubits}",
                "" if snapshot.outside is None else _in_force(scope),
            ),
        )
    )


def _in_force(scope: FitScope) -> str:
    """Return the circuits on which a fit is in force."""
    from simulators.circuit.analysis.fit_scope import DEEPER

    most = [f"{scope.widest} qubits", f"{DEEPER * scope.two_qubit_gates:g} gates on two qubits"]
    if scope.depth is not None and scope.duration_ns is not None:
        most += [f"depth {DEEPER * scope.depth:g}", f"{DEEPER * scope.duration_ns:.4g} ns"]
    return f"in force for circuits of at most {', '.join(most)}; others have the calibration before"


def _refused(snapshot: CalibrationSnapshot) -> str:
    scope = snapshot.fitted
    return f"{scope.refused}; stored by force" if scope is not None and scope.refused else ""


def show_qubit(snapshot: CalibrationSnapshot, qubit: int) -> None:
    """Print the values of one qubit and of the gates on it."""
    values = msgspec.to_builtins(snapshot.qubits[qubit]) if snapshot.qubits else {}
    jumps = values.pop("t1_jumps", {})
    values |= {f"t1_jumps.{key}": value for key, value in jumps.items()}
    dates = _dates(snapshot, qubit)
    rows = [("FIGURE", "VALUE", "MEASURED")]
    rows += [
        (key, f"{value:g}", dates.get(f"qubits[{qubit}].{key}", snapshot.calibrated or "-"))
        for key, value in values.items()
    ]
    terminal.table(rows, left=1)
    gates = _gates(snapshot, qubit)
    if gates:
        terminal.line()
        table: list[tuple[str, ...]] = [("GATE", "QUBITS", "ERROR", "NS")]
        table += [
            (
                gate.name,
                "-".join(map(str, gate.qubits)) or "all",
                "-" if gate.error is None else _short(gate.error),
                "-" if gate.duration_ns is None else f"{gate.duration_ns:g}",
            )
            for gate in gates
        ]
        terminal.table(table, left=1)
    if others := _others(snapshot, qubit):
        terminal.line()
        listed: list[tuple[str, ...]] = [("OTHER", "QUBITS", "VALUE", "UNIT")]
        listed += [
            (_stem(each), "-".join(map(str, place)) or "all", _short(value), each.unit)
            for each, place, value in others
        ]
        terminal.table(listed, left=1)
    if links := [link for link in snapshot.links if qubit in link.pair]:
        terminal.line()
        _show_links(links)
    if layers := _layers(snapshot, qubit):
        terminal.line()
        _show_layers(layers)


def _others(
    snapshot: CalibrationSnapshot, qubit: int
) -> list[tuple[Measured, tuple[int, ...], float]]:
    """Quantities of gates and pairs with a qubit, beside errors and durations."""
    from noise_models.terms import VALUES, measured

    of_qubits = {each.name for each in VALUES if each.kind in ("qubit", "jumps")}
    return [
        (each, place, value)
        for each in measured(snapshot)
        if not each.is_basic and each.name not in of_qubits
        for place, value in each.at(qubit)
    ]


def _layers(snapshot: CalibrationSnapshot, qubit: int) -> tuple[LayerCalibration, ...]:
    return tuple(layer for layer in snapshot.layers if qubit in layer.qubits)


def _gates(snapshot: CalibrationSnapshot, qubit: int) -> list[GateCalibration]:
    return [gate for gate in snapshot.gates if not gate.qubits or qubit in gate.qubits]


def _dates(snapshot: CalibrationSnapshot, qubit: int) -> dict[str, str]:
    prefix = f"qubits[{qubit}]."
    return {key: when for key, when in snapshot.dates.items() if key.startswith(prefix)}


def _short(value: float) -> str:
    return f"{value:.3g}" if 0.0 < abs(value) < 1000.0 else f"{value:g}"


TITLES = {
    "t1_us": "T1", "t2_us": "T2 (echo)", "t2_ramsey_us": "T2 (Ramsey)", "p01": "readout of 0 as 1",
    "p10": "readout of 1 as 0", "error_1q": "one-qubit gate error",
    "error_half": "half-turn gate error",
    "error_1q_simultaneous": "one-qubit gate error next to a driven neighbour",
    "error_2q": "two-qubit gate error", "zz_khz": "ZZ interaction", "detuning_khz": "detuning",
    "layer_decay": "decay of a Pauli by a layer", "pair_error": "infidelity of a link's pair",
    "link_wait_ns": "wait for a link's pair",
    "leakage": "leakage of a gate", "seepage": "seepage of a gate",
    "leakage_2q": "leakage of a two-qubit gate", "seepage_2q": "seepage of a two-qubit gate",
    "memory_error": "memory error in a layer", "measure_decay": "1 left in 0 by a measurement",
    "measure_excitation": "0 left in 1 by a measurement",
    "measurement_crosstalk": "dephasing by a measurement of another qubit",
    "measurement_angle_rad": "rotation by a measurement of another qubit",
    "zz_angle_rad": "rotation about ZZ by a gate", "z_angle_rad": "rotation about Z by a gate",
    "turn_angle_rad": "over-rotation of a gate on one qubit",
    "axis_angle_rad": "tilt of the axis of a quarter turn",
    "gate_time_ns": "duration of a gate",
    "preparation_error": "1 at the start of a circuit", "reset_error": "1 after a reset",
    "excited": "1 in equilibrium", "t1_jumps": "jumps of T1",
    "readout_decided": "decision of a readout", "over_rotation_rad": "rotation by a gate",
    "error_other": "error of another gate", "joint_flip": "joint flip of two records",
    "error_per_clifford": "error of a two-qubit Clifford",
    "p_false_pos": "0 read as 1", "p_false_neg": "1 read as 0, with preparation and half turn",
    "rydberg_t1_us": "T1 of the Rydberg state", "rydberg_t2_star_us": "T2* (Ramsey)",
    "rabi_scale": "Rabi frequency / that of the pulses",
    "rabi_contrast": "contrast of a late Rabi oscillation",
}  # fmt: skip
_SUMMARY_HEADERS = (
    *("QUANTITY", "N", "MEDIAN", "WORST/BOUND", "AT", "BOUND", "WIDTH/BOUND", "VERDICT"),
)
_ROW_HEADERS = ("QUANTITY", "QUBITS", "CLAIMED", "RECOVERED", "LOW", "HIGH", "BOUND", "VERDICT")
_NAMED = 5  # quantities in a line
_SHOWN = 20  # quantities outside their bounds


def progress(stage: str) -> None:
    """Print a line with the present stage, on a terminal."""
    if sys.stderr.isatty():
        terminal.note(f"certify: {stage}")


def as_json(report: Certificate) -> None:
    """Print one object with the totals, then one for each quantity."""
    totals = ("device", "claims", "confidence", "passed", "circuits", "shots")
    lists = ("culprits", "contradicted", "unresolved", "untested")
    terminal.json_line(
        {
            **{name: getattr(report, name) for name in totals},
            "seconds": round(report.seconds, 3),
            "device_time_s": round(report.device_s, 3),
            **{name: [name_of(each) for each in getattr(report, name)] for name in lists},
            "causes": report.causes,
            "blind": report.blind,
        }
    )
    for each in report.comparisons:
        terminal.json_line(each)


def show_certificate(report: Certificate, *, every: bool) -> None:
    """Print the table, the quantities outside their bounds and the verdict."""
    if every:
        terminal.table([_ROW_HEADERS, *(_row(each) for each in report.comparisons)])
    else:
        terminal.table([_SUMMARY_HEADERS, *_summary(report.comparisons)])
    terminal.line()
    for each in report.culprits[:_SHOWN]:
        terminal.line(f"outside the bound: {sentence(each)}")
    if len(report.culprits) > _SHOWN:
        terminal.line(f"and {len(report.culprits) - _SHOWN} more; --all prints every quantity")
    if report.causes is not None:
        terminal.line(_causes(report.causes))
    limited = [each for each in report.comparisons if each.stated is not None]
    if limited:
        terminal.line(
            f"{terminal.counted(len(limited), 'gate error')} of the snapshot below the limit by its"
            f" own T1, T2 and durations, such as {name_of(limited[0])}; the limit is compared"
        )
    for each in report.contradicted[:_SHOWN]:
        stated = value(each.quantity, each.stated or 0.0)
        terminal.line(f"stated {stated}, which the counts exclude: {sentence(each)}")
    if len(report.contradicted) > _SHOWN:
        terminal.line(f"and {len(report.contradicted) - _SHOWN} more; --json names all")
    wide = [each for each in report.unresolved if not each.reason]
    if wide:
        hint = "; a larger --effort makes intervals narrower"
        terminal.line(f"not resolved: {_names(wide)}{hint}")
    for reason in dict.fromkeys(each.reason for each in report.unresolved if each.reason):
        names = _names([each for each in report.unresolved if each.reason == reason])
        terminal.line(f"not resolved: {names}: {reason}")
    for reason in dict.fromkeys(each.reason for each in report.untested):
        names = _names([each for each in report.untested if each.reason == reason])
        terminal.line(f"not tested: {names}: {reason}")
    if report.blind:
        terminal.line(f"no experiment shows: {'; '.join(report.blind)}")
    if report.unclaimed:
        terminal.line(f"without a claim: {_names(report.unclaimed)}")
    verdict = "certified" if report.passed else "not certified"
    if all(each.claimed is None for each in report.comparisons):
        verdict = "measured, without claims,"
    device = f", {report.device_s / 3600.0:.2g} h on the device" if report.device_s else ""
    terminal.line(
        f"{report.device}: {verdict} at {report.confidence:.0%} simultaneous confidence"
        f" ({report.circuits} circuits, {report.shots} shots, {report.seconds:.0f} s{device})"
    )


def _causes(fits: Sequence[FigureFit]) -> str:
    """Line about the figures that explain the counts of a device of atoms."""
    if not fits:
        return "no other value of one figure of the snapshot explains the counts"
    texts = [
        f"{each.name} {each.value:.3g}"
        f" ({'without a claim' if each.claimed is None else f'claimed {each.claimed:g}'})"
        for each in fits
    ]
    return f"one figure explains the counts: {', or '.join(texts)}"


def _names(comparisons: Sequence[ClaimComparison]) -> str:
    more = len(comparisons) - _NAMED
    listed = ", ".join(
        name_of(each) + (" (no signal)" if _is_silent(each) else "")
        for each in comparisons[:_NAMED]
    )
    return f"{listed}{f' and {more} more' if more > 0 else ''}"


def name_of(each: ClaimComparison) -> str:
    """Return qubit or pair and quantity, such as `pair 3-5: two-qubit gate error`."""
    kind = {0: f"gate {each.gate}", 1: "qubit", 2: "pair"}.get(len(each.qubits), "qubits")
    place = f"{kind} {qubits_label(each)}".rstrip() if each.qubits or each.gate else "atoms"
    return f"{place}: {TITLES.get(each.quantity, each.quantity)}"


def qubits_label(each: ClaimComparison) -> str:
    """Return the qubits of a comparison, such as `3-5`."""
    return "-".join(map(str, each.qubits))


def sentence(each: ClaimComparison) -> str:
    gate = f" ({each.gate})" if each.gate else ""
    claimed = each.claimed or 0.0
    part = f" ({each.deviation / claimed:+.1%})" if claimed else ""
    return (
        f"{name_of(each)}{gate}: claimed {value(each.quantity, claimed)}, recovered"
        f" {recovered(each)}{part}"
    )


def _is_silent(each: ClaimComparison) -> bool:
    """Return whether an experiment was made whose counts say nothing."""
    return no_signal(each) and each.verdict != "not tested"


def no_signal(each: ClaimComparison) -> bool:
    """Return whether the counts say nothing about a quantity."""
    return math.isinf(each.high) and each.low <= 0.0


def recovered(each: ClaimComparison) -> str:
    """Return a recovered value with its unit; its lower limit where there is no upper one."""
    if no_signal(each):
        return "no signal" if _is_silent(each) else "-"
    if math.isinf(each.high):
        return f"> {value(each.quantity, each.low)}"
    return value(each.quantity, each.recovered)


def value(quantity: str, number: float) -> str:
    """Return a value with its unit."""
    if math.isinf(number):
        return "infinite" if number > 0.0 else "-infinite"
    return f"{number:.4g} {UNITS.get(quantity.rpartition('_')[2], '')}".rstrip()


def _row(each: ClaimComparison) -> tuple[str, ...]:
    quantity = each.quantity
    return (
        TITLES.get(quantity, quantity), qubits_label(each),
        "-" if each.claimed is None else value(quantity, each.claimed), recovered(each),
        value(quantity, each.low), value(quantity, each.high),
        "-" if each.claimed is None else value(quantity, each.bound), str(each.verdict),
    )  # fmt: skip


def _summary(comparisons: Sequence[ClaimComparison]) -> list[tuple[str, ...]]:
    rows = []
    for quantity in dict.fromkeys(each.quantity for each in comparisons):
        claims = [each for each in comparisons if each.quantity == quantity]
        claimed = [each for each in claims if each.claimed is not None]
        compared = [each for each in claimed if each.verdict != "not tested"]
        middle = sorted(claims, key=lambda each: (each.recovered, each.low))[len(claims) // 2]
        cells = [TITLES.get(quantity, quantity), str(len(claims)), recovered(middle)]
        if compared:
            worst = max(compared, key=lambda each: abs(each.relative_deviation))
            width = max((each.high - each.low) / 2.0 / (each.bound or 1.0) for each in compared)
            verdicts = dict.fromkeys(str(each.verdict) for each in claimed)
            cells += [
                f"{worst.relative_deviation:+.2f}",
                qubits_label(worst),
                value(quantity, worst.bound),
                "infinite" if math.isinf(width) else f"{width:.2f}",
                ", ".join(verdicts),
            ]
        else:
            cells += ["-"] * 4 + ["not tested" if claimed else "unclaimed"]
        rows.append(tuple(cells))
    return rows
