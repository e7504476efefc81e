"""Scope of a fit: the circuits that it was fitted to and judged on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from noise_models import calibration
from simenv.calibration.data import SUGGESTED, CountsRecord
from simenv.calibration.fit.solve import FitProblem
from simenv.worker.noise import gates_of
from simulators.circuit.analysis.fit_scope import CircuitSize, most_of_a_qubit


def scope_of(
    records: Sequence[CountsRecord], problem: FitProblem, device: str
) -> calibration.FitScope:
    """Scope of a fit of `device` to these records."""
    observed = problem.observations
    snapshot = problem.distributions.device.snapshot
    runs = [problem.distributions.compiler.run_of(each) for each in records]
    acting: dict[tuple[int, int], set[str]] = {}
    wide = {each.body for each in observed if each.two_qubit_gates}
    programs = [problem.distributions.programs[each.place] for each in observed]
    fitted = {each.key[:3] for each in observed}
    circuits = {}  # that were fitted
    for record, run in zip(records, runs, strict=True):
        key = (record.source.text, record.layout, record.level)
        if key in fitted:
            circuits[key] = run.circuit
            for _, q in gates_of(run.loaded.program):
                if len(q) == 2:
                    acting.setdefault((min(q), max(q)), set()).add(record.body)
    most = [most_of_a_qubit(each, snapshot.dt_ns) for each in circuits.values()]
    sizes = [CircuitSize.of(each, snapshot) for each in circuits.values()]
    counts = Counter[str]()
    for size in sizes:
        counts |= Counter(dict(size.gates))
    days = sorted(each.time_s for each in records if each.time_s == each.time_s)
    first, last = (_day(days[0]), _day(days[-1])) if days else ("", "")
    return calibration.FitScope(
        device=device,
        qubits=tuple(sorted({qubit for each in programs for qubit in each.qubits})),
        bodies=len(wide or {each.body for each in observed}),
        widest=max(len(each.qubits) for each in programs),
        two_qubit_gates=max(each.two_qubit_gates for each in observed),
        families=tuple(sorted({r.family[:100] for r in records if r.family != SUGGESTED})),
        first=first,
        last=last,
        placed=any(each.was_placed for each in observed),
        pairs=tuple(sorted(acting)),
        pair_bodies=tuple(len(bodies) for _, bodies in sorted(acting.items())),
        one_qubit_gates=max(gates for gates, _ in most),
        delay_ns=max(delay_ns for _, delay_ns in most),
        depth=max(size.depth for size in sizes),
        duration_ns=max(size.duration_ns for size in sizes),
        gates=tuple(sorted(counts.items())),
    )


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
