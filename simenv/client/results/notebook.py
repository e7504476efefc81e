"""HTML of clients, tasks and results for notebooks, without scripts or files.

All text is escaped, because owners choose the names of tasks and environments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simenv.client.results.decoded import Stages
    from simenv.model import PoolInfo, ServiceInfo, TaskInfo

MAX_BARS = 16  # outcomes shown; the others are summed
MAX_VALUES = 16  # expectation values shown
BAR_PX = 240


class ResultLike(Protocol):
    """Attributes of a result that are displayed; see `Result`."""

    @property
    def task(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def shots(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def num_qubits(self) -> int: ...
    @property
    def engine(self) -> str: ...
    @property
    def worker(self) -> str: ...
    @property
    def timing(self) -> Stages: ...
    @property
    def device(self) -> str | None: ...
    @property
    def snapshot(self) -> str | None: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def probabilities(self) -> dict[str, float]: ...
    @property
    def amplitudes(self) -> dict[str, complex]: ...
    @property
    def expectations(self) -> tuple[float, ...]: ...
    @property
    def std_errors(self) -> tuple[float, ...]: ...
    def has(self, output: str) -> bool: ...


def client_text(info: ServiceInfo) -> str:
    """Return a line about an environment, for terminals."""
    up = sum(pool.workers for pool in info.pools)
    target = sum(pool.target for pool in info.pools)
    pools = f"{len(info.pools)} pool{'s' if len(info.pools) != 1 else ''}"
    return (
        f"<simenv {info.name}@{info.node} | {pools}, {up}/{target} workers up | "
        f"{info.queued} waiting>"
    )


def result_html(result: ResultLike) -> str:
    """Return HTML of a result: provenance, a histogram of counts, tables of values, amplitudes."""
    shots = f"{result.shots} shots" if result.shots else "exact"
    facts = [
        ("qubits", str(result.num_qubits)),
        ("sampled", shots),
        ("seed", str(result.seed)),
        ("engine", f"{result.engine}, {1e3 * result.timing.run_s:.3g} ms on {result.worker}"),
    ]
    if result.device is not None or result.snapshot is not None:
        facts.append(("device", result.device or f"noise model {result.snapshot}"))
    facts += [("warning", text) for text in result.warnings]
    parts = [_heading(f"Result {result.task}", result.name), _pairs(facts)]
    if result.has("counts"):
        total = sum(result.counts.values())
        shares = {key: count / total for key, count in result.counts.items()}
        parts.append(_bars(shares, {key: str(count) for key, count in result.counts.items()}))
    elif result.has("probabilities"):
        chances = result.probabilities
        parts.append(_bars(chances, {key: f"{value:.4g}" for key, value in chances.items()}))
    if result.has("expectations"):
        values = list(zip(result.expectations, result.std_errors, strict=True))
        rows = [
            (str(number), f"{value:.6g}", f"{error:.2g}" if error else "exact")
            for number, (value, error) in enumerate(values[:MAX_VALUES])
        ]
        if len(values) > MAX_VALUES:
            rows.append((f"{len(values) - MAX_VALUES} more", "", ""))
        parts.append(_table(("observable", "value", "standard error"), rows))
    if result.has("amplitudes"):
        pairs = list(result.amplitudes.items())
        shown = [(text, f"{value:.6g}") for text, value in pairs[:MAX_VALUES]]
        if len(pairs) > MAX_VALUES:
            shown.append((f"{len(pairs) - MAX_VALUES} more", ""))
        parts.append(_table(("bit string", "amplitude"), shown))
    return "".join(parts)


def task_html(task: str, name: str, state: str, info: TaskInfo | None) -> str:
    """Return HTML of a task: its state and, before its end, the pending reason."""
    facts = [("state", state)]
    if info is not None:
        facts += [("qubits", str(info.num_qubits)), ("pool", info.pool), ("worker", info.worker)]
        facts.append(("reason", info.reason))
    return _heading(f"Task {task}", name) + _pairs([(key, value) for key, value in facts if value])


def client_html(info: ServiceInfo) -> str:
    """Return HTML of an environment: its pools and their queues."""
    heading = _heading(f"simenv {info.name}", f"on {info.node}, {info.queued} waiting")
    columns = ("pool", "engine", "workers", "busy", "waiting", "state")
    return heading + _table(columns, map(_pool, info.pools))


def _pool(pool: PoolInfo) -> tuple[str, ...]:
    workers = f"{pool.workers} of {pool.target}"
    busy, waiting = str(pool.busy), str(pool.waiting)
    state = f"{pool.state}: {pool.reason}" if pool.reason else pool.state
    return (pool.name, pool.engine, workers, busy, waiting, state)


def _heading(title: str, note: str) -> str:
    return f"<div><b>{escape(title)}</b> {escape(note)}</div>"


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    lines = (f"{escape(key)}: {escape(value)}" for key, value in pairs)
    return f"<div>{'<br>'.join(lines)}</div>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(shares: dict[str, float], texts: dict[str, str]) -> str:
    """Return a histogram of the most likely outcomes, in the order of the outcomes."""
    best = sorted(sorted(shares, key=lambda key: -shares[key])[:MAX_BARS])
    longest = max((shares[key] for key in best), default=1.0) or 1.0
    rows = []
    for key in best:
        width = max(1, round(BAR_PX * shares[key] / longest))
        bar = (
            f'<div style="width:{width}px;height:0.9em;background:#4c78a8"'
            f' title="{shares[key]:.2%}"></div>'
        )
        rows.append(
            f"<tr><td><code>{escape(key)}</code></td><td>{bar}</td>"
            f"<td>{escape(texts[key])}</td></tr>"
        )
    if len(shares) > len(best):
        rest = sum(shares.values()) - sum(shares[key] for key in best)
        rows.append(f"<tr><td>{len(shares) - len(best)} more</td><td></td><td>{rest:.2%}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
