"""Text and JSON of a certificate."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simenv.cli.output import terminal

if TYPE_CHECKING:
    from simenv.calibration.certify.certificate import Certificate
    from simenv.calibration.certify.compare import ClaimComparison

TITLES = {
    "t1_us": "T1",
    "t2_us": "T2 (echo)",
    "t2_ramsey_us": "T2 (Ramsey)",
    "p01": "readout of 0 as 1",
    "p10": "readout of 1 as 0",
    "error_1q": "one-qubit gate error",
    "error_half": "half-turn gate error",
    "error_1q_simultaneous": "one-qubit gate error next to a driven neighbour",
    "error_2q": "two-qubit gate error",
    "zz_khz": "ZZ interaction",
    "detuning_khz": "detuning",
    "error_per_clifford": "error of a two-qubit Clifford",
}
_UNITS = {"us": " us", "khz": " kHz"}
_HEADERS = ("QUANTITY", "N", "MEDIAN", "WORST/BOUND", "AT", "BOUND", "WIDTH/BOUND", "VERDICT")
_ROW_HEADERS = ("QUANTITY", "QUBITS", "CLAIMED", "RECOVERED", "LOW", "HIGH", "BOUND", "VERDICT")
_NAMED = 5  # quantities in a line
_SHOWN = 20  # quantities outside their bounds


def progress(stage: str) -> None:
    """Print a line with the present stage, on a terminal."""
    if sys.stderr.isatty():
        terminal.note(f"certify: {stage}")


def as_json(report: Certificate) -> None:
    """Print one object with the totals, then one for each quantity."""
    terminal.json_line(
        {
            "device": report.device,
            "claims": report.claims,
            "confidence": report.confidence,
            "passed": report.passed,
            "circuits": report.circuits,
            "shots": report.shots,
            "seconds": round(report.seconds, 3),
            "device_time_s": round(report.device_s, 3),
            "culprits": [name_of(each) for each in report.culprits],
            "contradicted": [name_of(each) for each in report.contradicted],
            "unresolved": [name_of(each) for each in report.unresolved],
        }
    )
    for each in report.comparisons:
        terminal.json_line(each)


def show(report: Certificate, *, every: bool) -> None:
    """Print the table, the quantities outside their bounds and the verdict."""
    if every:
        terminal.table([_ROW_HEADERS, *(_row(each) for each in report.comparisons)])
    else:
        terminal.table([_HEADERS, *_summary(report.comparisons)])
    terminal.line()
    for each in report.culprits[:_SHOWN]:
        terminal.line(f"outside the bound: {sentence(each)}")
    if len(report.culprits) > _SHOWN:
        terminal.line(f"and {len(report.culprits) - _SHOWN} more; --all prints every quantity")
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
    if report.unresolved:
        hint = "; a larger --effort makes intervals narrower"
        terminal.line(f"not resolved: {_names(report.unresolved)}{hint}")
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


def _names(comparisons: Sequence[ClaimComparison]) -> str:
    more = len(comparisons) - _NAMED
    listed = ", ".join(
        name_of(each) + (" (no signal)" if no_signal(each) else "") for each in comparisons[:_NAMED]
    )
    return f"{listed}{f' and {more} more' if more > 0 else ''}"


def name_of(each: ClaimComparison) -> str:
    """Return qubit or pair and quantity, such as `pair 3-5: two-qubit gate error`."""
    kind = "qubit" if len(each.qubits) == 1 else "pair"
    return f"{kind} {qubits_label(each)}: {TITLES.get(each.quantity, each.quantity)}"


def qubits_label(each: ClaimComparison) -> str:
    """Return the qubits of a comparison, such as `3-5`."""
    return "-".join(map(str, each.qubits))


def sentence(each: ClaimComparison) -> str:
    """Return a comparison as a sentence."""
    gate = f" ({each.gate})" if each.gate else ""
    claimed = each.claimed or 0.0
    part = f" ({each.deviation / claimed:+.1%})" if claimed else ""
    return (
        f"{name_of(each)}{gate}: claimed {value(each.quantity, claimed)}, recovered"
        f" {recovered(each)}{part}"
    )


def no_signal(each: ClaimComparison) -> bool:
    """Return whether the counts say nothing about a quantity."""
    return math.isinf(each.high) and each.low <= 0.0


def recovered(each: ClaimComparison) -> str:
    """Return a recovered value with its unit; its lower limit where there is no upper one."""
    if no_signal(each):
        return "no signal"
    if math.isinf(each.high):
        return f"> {value(each.quantity, each.low)}"
    return value(each.quantity, each.recovered)


def value(quantity: str, number: float) -> str:
    """Return a value with its unit."""
    unit = _UNITS.get(quantity.rpartition("_")[2], "")
    if math.isinf(number):
        return "infinite" if number > 0.0 else "-infinite"
    return f"{number:.4g}{unit}"


def _row(each: ClaimComparison) -> tuple[str, ...]:
    quantity = each.quantity
    return (
        TITLES.get(quantity, quantity),
        qubits_label(each),
        "-" if each.claimed is None else value(quantity, each.claimed),
        recovered(each),
        value(quantity, each.low),
        value(quantity, each.high),
        "-" if each.claimed is None else value(quantity, each.bound),
        str(each.verdict),
    )


def _summary(comparisons: Sequence[ClaimComparison]) -> list[tuple[str, ...]]:
    rows = []
    for quantity in dict.fromkeys(each.quantity for each in comparisons):
        claims = [each for each in comparisons if each.quantity == quantity]
        claimed = [each for each in claims if each.claimed is not None]
        middle = sorted(claims, key=lambda each: (each.recovered, each.low))[len(claims) // 2]
        cells = [TITLES.get(quantity, quantity), str(len(claims)), recovered(middle)]
        if claimed:
            worst = max(claimed, key=lambda each: abs(each.relative_deviation))
            width = max((each.high - each.low) / 2.0 / (each.bound or 1.0) for each in claimed)
            verdicts = dict.fromkeys(str(each.verdict) for each in claimed)
            cells += [
                f"{worst.relative_deviation:+.2f}",
                qubits_label(worst),
                value(quantity, worst.bound),
                "infinite" if math.isinf(width) else f"{width:.2f}",
                ", ".join(verdicts),
            ]
        else:
            cells += ["-"] * 4 + ["unclaimed"]
        rows.append(tuple(cells))
    return rows
