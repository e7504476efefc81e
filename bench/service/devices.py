"""Emulated devices: whole QPUs, floods of structures, pace and drift, certificates."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import networkx
import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

import simenv
from bench.circuits import (
    Pairs,
    built,
    device_pairs,
    disjoint_layers,
    kicked,
    kicked_native,
    measured,
)
from bench.harness import SEED, Report, benchmark, probed, repeated_s, timed, timed_s
from bench.harness.environments import home, ibm_seconds, qpm_s, served
from bench.harness.timing import memory_bytes
from bench.peers.base import Gate
from noise_models import calibration as cal, document, library, snapshot as snapshots
from simenv import config
from simenv.calibration.certify import certify as certified
from simenv.client.client import Client
from simenv.client.result import Result
from simenv.transpiler.transpiler import target_of
from testbed import altered_devices
from testbed.sampled_device import coverage

Array = NDArray[np.float64]
Random = np.random.Generator

# --- a whole QPU ----------------------------------------------------------------------------------

WIDTH, SHOTS, MORE = 156, 1_000, 4_000  # shots of the comparison with propagation
ROWS = ((30, 2), (60, 3), (100, 3), (WIDTH, 2), (WIDTH, 3), (WIDTH, 4), (WIDTH, 5))  # qubits, steps


@benchmark(seed=SEED, deepest=(5, 4))
def whole_qpu(report: Report, options: Namespace) -> None:
    """Counts on all qubits of an emulated QPU, with every calibrated channel, by each way in.

    Kicked Ising circuits on the lattice of `fez` (156 qubits) and on parts of it that breadth-first
    search finds, in native cz and rz, 1,000 shots, submission to counts; the first of each is new
    to the service. A chain of 156 qubits: ten layers of random gates with cz between neighbours.
    The same circuits run through IBM's unmodified client and through the QPM; all <Z> of counts are
    compared with those of Pauli propagation. `--deepest`: steps of the deepest circuit.
    """
    random, pairs = np.random.default_rng(options.seed), device_pairs("fez", working=True)

    def counts(circuit: QuantumCircuit, key: str) -> None:
        how = {"device": "fez", "shots": SHOTS, "seed": int(random.integers(2**32))}
        seconds, result = timed(partial(client.run, circuit, **how))
        assert sum(result.counts.values()) == SHOTS
        print(f"{result.engine}, {result.timing}")
        report.seconds(key, seconds)

    pools = "main:workers=1", "emu:device=fez,workers=1"
    with served(1, *pools) as (client, url, tokens):
        client.run(_kicked(pairs, 30, 2, 0.5), device="fez", shots=10)  # loads the kernels
        for qubits, steps in ROWS:
            key = f"ising_{qubits}x{steps}_s"
            if steps > options.deepest:
                report.not_measured(key, "left out by --deepest")
            else:
                counts(_kicked(pairs, qubits, steps, 0.6 + 1e-3 * random.random()), key)
        counts(_chain(pairs, random), "chain_s")
        peak = max(memory_bytes(each.pid) for each in client.workers())
        report.at_most("peak_gib", peak / 2**30)
        circuit = _kicked(pairs, WIDTH, 3, 0.6)
        _agreement(report, client, circuit, random)
        found = ibm_seconds(url, tokens[0], "fez", circuit, SHOTS, values=True)
        for key, seconds in found.items():
            report.seconds(key, seconds)
        report.seconds("qpm_s", qpm_s(client, "emu", circuit, SHOTS))


TEXTBOOK = (("fez", 30), ("fez", 60), ("fez", 100), ("fez", 127), ("fez", 154), ("kyiv", 127))
LONGEST_S, STEPS = 60.0, 3


@benchmark(seed=SEED, rounds=(3, 1), rows=(len(TEXTBOOK), 3))
def kicked_ising(report: Report, options: Namespace) -> None:
    """Counts of kicked Ising circuits as they are written in textbooks, rx and rzz on qubits from 0
    on, with default options, compared with the hand-written native form on the device's qubits.

    1,000 shots with every calibrated channel, submission to counts, compilation included; the two
    forms take turns, each round has a new angle, the least of the rounds counts.
    """
    random = np.random.default_rng(options.seed)
    with served(1) as (client, _, _):
        for device, qubits in TEXTBOOK[: options.rows]:
            pairs = device_pairs(device, working=True)
            width = client.device(device).num_qubits
            client.run(
                _kicked(pairs, 20, 2, 0.5, width), device=device, shots=10
            )  # loads the kernels
            times: tuple[list[float], list[float]] = [], []
            for _ in range(options.rounds):
                kick = 0.6 + 1e-2 * random.random()
                native = _kicked(pairs, qubits, STEPS, kick, width)
                for form, circuit in enumerate((native, _textbook(native, pairs, kick))):
                    seconds, result = timed(
                        partial(
                            client.run, circuit, device=device, shots=SHOTS,
                            seed=int(random.integers(2**32)), run_timeout_s=LONGEST_S,
                        )
                    )  # fmt: skip
                    assert sum(result.counts.values()) == SHOTS
                    times[form].append(seconds)
            ours, theirs = min(times[1]), min(times[0])
            print(f"{device} {qubits} x {STEPS}: {ours:.2f} s, native {theirs:.2f} s", flush=True)
            report.at_most(f"{device}_{qubits}_of_native", ours / theirs)
            report.seconds(f"{device}_{qubits}_s", ours)
    report.none_measured("left out by --rows")


def kicked_ising_circuit(device: str, qubits: int, steps: int, kick: float) -> QuantumCircuit:
    """Return a kicked Ising circuit on a part of a device in rx and rzz, its qubits numbered from 0
    on."""
    pairs = device_pairs(device, working=True)
    native = _kicked(pairs, qubits, steps, kick, library.load(device).num_qubits)
    return _textbook(native, pairs, kick, steps)


def _textbook(
    native: QuantumCircuit, pairs: Pairs, kick: float, steps: int = STEPS
) -> QuantumCircuit:
    """Return the circuit of a native form in rx and rzz, its qubits numbered from 0 on."""
    chosen = [native.find_bit(e.qubits[0]).index for e in native.get_instructions("measure")]
    place = {qubit: k for k, qubit in enumerate(chosen)}
    inside = [(place[a], place[b]) for a, b in pairs if a in place and b in place]
    return measured(len(chosen), kicked(len(chosen), inside, steps, kick))


def _kicked(
    pairs: Pairs, qubits: int, steps: int, kick: float, width: int = WIDTH
) -> QuantumCircuit:
    """Return a circuit on the first qubits that breadth-first search finds; isolated ones last."""
    found = [pairs[0][0], *(b for _, b in networkx.bfs_edges(networkx.Graph(pairs), pairs[0][0]))]
    found += [qubit for qubit in range(width) if qubit not in found]
    chosen = found[:qubits]
    layers = disjoint_layers([pair for pair in pairs if {*pair} <= {*chosen}])
    inside = [pair for layer in layers for pair in layer]
    circuit = built(width, kicked_native(chosen, inside, steps, kick), qubits)
    circuit.measure(chosen, range(qubits))
    return circuit


def _chain(pairs: Pairs, random: Random) -> QuantumCircuit:
    """Return ten layers of random gates on all qubits, with cz between neighbours of disjoint paths
    that cover the lattice."""
    paths = networkx.Graph()
    paths.add_nodes_from(range(WIDTH))
    for one, two in pairs:
        ends = max(paths.degree[one], paths.degree[two]) < 2
        if ends and not networkx.has_path(paths, one, two):
            paths.add_edge(one, two)
    edges = [pair for layer in disjoint_layers(list(paths.edges)) for pair in layer]
    gates: list[Gate] = []
    for _ in range(10):
        for qubit in range(WIDTH):
            for angle in random.uniform(0, 2 * np.pi, 2):
                gates += [("rz", (qubit,), (angle,)), ("sx", (qubit,), ())]
        gates += [("cz", pair, ()) for pair in edges]
    return measured(WIDTH, gates)


def _agreement(report: Report, client: Client, circuit: QuantumCircuit, random: Random) -> None:
    """Compare each <Z> of counts with the value by propagation, in its standard errors. Expectation
    values have no readout error, so neither have these counts."""
    how: dict[str, Any] = {
        "device": "fez", "noise": {"qubit.readout": 0.0}, "seed": int(random.integers(2**32)),
    }  # fmt: skip
    result = client.run(circuit, shots=MORE, **how)
    rows = np.array([[int(bit) for bit in key[::-1]] for key in result.counts], np.int64)
    sampled = 1.0 - 2.0 * (np.array(list(result.counts.values())) @ rows) / MORE
    measures = [each for each in circuit.data if each.operation.name == "measure"]
    qubits = [circuit.find_bit(each.qubits[0]).index for each in measures]
    sums = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], WIDTH) for q in qubits]
    bare = circuit.remove_final_measurements(inplace=False)
    values = client.run(
        bare, shots=None, outputs=("expectation",), observables=sums, engine="pauli", **how
    )
    exact, stated = np.array(values.expectations), np.array(values.std_errors)
    off = (sampled - exact) / np.sqrt((1.0 - exact**2) / MORE + stated**2)
    print(f"{result.engine} against {values.engine}: {values.remark}")
    report.at_most("agreement_rms", float(np.sqrt(np.mean(off**2))))
    report.at_most("agreement_most", float(np.abs(off).max()))


# --- floods of structures -------------------------------------------------------------------------

EAGLE, EAGLE_QUBITS, EAGLE_SHOTS = "brisbane", 127, 4_096


@benchmark(rounds=(5, 1), circuits=(1_000, 100))
def emulated_device(report: Report, options: Namespace) -> None:
    """Circuits on an emulated device of 127 qubits: the first one, the next ones, and a flood.

    The Eagle processor that qiskit-ibm-runtime ships as `brisbane`, with all components of its
    noise. An H gate on one qubit, which is compiled, is run by a service that has not used the
    device before, then with all of its parts cached. The flood: 1,000 different structures of about
    100 native gates on five coupled qubits, from QuantumCircuits to counts, by two workers.
    """
    first_s, cached_s, rates = [], [], []
    for number in range(options.rounds):
        with simenv.local(workers=2) as client:
            client.run(measured(1, [("x", (0,), ())]), shots=16)  # load kernels and Qiskit
            first_s.append(_one_gate_s(client))
            cached_s += [_one_gate_s(client) for _ in range(30)]
            device = client.device(EAGLE)
            rng = np.random.default_rng(1_000 + number)
            circuits = list(_natives(device.coupling, 100 + options.circuits, rng))
            _flood(client, circuits[:100])  # warm-up
            took_s = timed_s(lambda client=client, work=circuits[100:]: _flood(client, work))
            rates.append(options.circuits / took_s)
    report.seconds("cold_ms", first_s)
    report.seconds("cached_ms", cached_s)
    report.seconds("target_s", repeated_s(lambda: target_of(device), 3))
    report.at_least("flood_per_s", statistics.median(rates))


def _one_gate_s(client: Client) -> float:
    circuit = measured(1, [("h", (0,), ())])
    took_s, counts = timed(lambda: client.run(circuit, shots=EAGLE_SHOTS, device=EAGLE).counts)
    assert sum(counts.values()) == EAGLE_SHOTS
    return took_s


def _natives(
    coupling: Sequence[tuple[int, int]], number: int, rng: Random
) -> Iterator[QuantumCircuit]:
    """Yield random circuits of native gates on a chain of five coupled qubits, whose pairs are in
    the direction of the device's gate."""
    graph, chain = networkx.Graph(coupling), [0]
    while len(chain) < 5:
        chain.append(min(set(graph[chain[-1]]) - set(chain)))
    pairs = [pair for pair in coupling if set(pair) <= set(chain)]
    for _ in range(number):
        circuit = QuantumCircuit(EAGLE_QUBITS, len(chain))
        for _ in range(9):
            for qubit in chain:
                circuit.rz(rng.uniform(0, 2 * np.pi), qubit)
                circuit.sx(qubit) if rng.random() < 0.7 else circuit.x(qubit)
            for k in rng.choice(len(pairs), 2, replace=False).tolist():
                circuit.ecr(*pairs[k])
        circuit.measure(chain, range(len(chain)))
        yield circuit


def _flood(client: Client, circuits: list[QuantumCircuit]) -> None:
    for task in client.submit_many(circuits, shots=EAGLE_SHOTS, device=EAGLE):
        assert len(task.result().counts) > 1


# --- pace and drift -------------------------------------------------------------------------------

GATE_NS, READOUT_NS, RESET_NS, OVERHEAD_NS = 40.0, 1_000.0, 4_000.0, 50_000.0
QUBIT = cal.QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.01, p10=0.02, readout_ns=READOUT_NS)
CHIP = cal.CalibrationSnapshot(
    name="chip", num_qubits=2, native_gates=(cal.NativeGate("x", 1), cal.NativeGate("rz", 1, 1)),
    all_to_all=True, qubits=(QUBIT, QUBIT), gates=(cal.GateCalibration("x", (), 0.001, GATE_NS),),
    rep_delay_ns=RESET_NS, overhead_ns=OVERHEAD_NS,
)  # fmt: skip
FLIP = measured(1, [("x", (0,), ())])
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
DAY_S, DAYS_PER_S = 86_400.0, 3.0
CLOCK_S = 1e-6  # resolution of a wall clock as a double
GROUPS = 50  # groups of tasks with equal shots
PAUSE_S = 0.02  # between two tasks of the replay, and two queries for events
REPLAY_SHOTS = 200
LEAD_S = 20.0  # until the second snapshot is in force; the environment starts meanwhile


@benchmark(tasks=(5_000, 500), days=(365, 40))
def paced_device(report: Report, options: Namespace) -> None:
    """Devices that take the time of their machine, and devices that drift.

    Pace: tasks of 1 to 5 ms of device time on a paced device of two qubits; their intervals are
    compared with one another and with overhead + shots (reset + schedule). Drift: a year of daily
    snapshots is replayed, three a second, on a paced device while tasks are submitted. Each result
    must name the snapshot in force at its begin. Each change is timed from its due time to its
    arrival in Python (`client.events`, every 20 ms) and in the event queue of a QPM.
    """
    with home():
        folder = config.devices_folder()
        folder.mkdir(parents=True)
        (folder / "chip.json").write_bytes(snapshots.dump(CHIP))
        _pace(report, options.tasks)
        _drift(report, _year(folder, options.days))


def _length_s(shots: Any, reset_ns: Any = RESET_NS) -> Any:
    return 1e-9 * (OVERHEAD_NS + shots * (reset_ns + GATE_NS + READOUT_NS))


def _intervals(results: list[Result]) -> tuple[Array, Array]:
    """Return begins by wall clock, and durations, both in seconds."""
    times = [(result.timing.begun_s, result.timing.device_s) for result in results]
    begun, length = np.array(times).T
    return begun, length


def _pace(report: Report, tasks: int) -> None:
    pools = [{"name": "lab", "device": "chip", "pace": True, "min": 2, "max": 2}]
    shots = np.random.default_rng(1).integers(190, 980, GROUPS).tolist()
    with simenv.local(pools=pools) as client:
        client.run(FLIP, pool="lab", shots=1)
        work = [FLIP] * (tasks // GROUPS)
        groups = [client.submit_many(work, pool="lab", shots=n) for n in shots]
        results = [task.result() for group in groups for task in group]
    begun, length = _intervals(results)
    expected = _length_s(np.array([result.shots for result in results]))
    order = np.argsort(begun)
    gaps = begun[order][1:] - (begun + length)[order][:-1]
    span_s = float((begun + length).max() - begun.min())
    report.at_most("overlaps", int((gaps < -CLOCK_S).sum()))
    report.at_most("time_error", float(np.abs(length / expected - 1.0).max()))
    report.at_least("busy_share", float(length.sum()) / span_s)


def _year(folder: Path, days: int) -> list[cal.CalibrationSnapshot]:
    """Write and return snapshots of successive days, which differ in readout and reset. The first
    one is dated earlier, so that it is in force until the environment is ready."""
    (folder / "dated.json").write_bytes(snapshots.dump(msgspec.structs.replace(CHIP, name="dated")))
    (folder / "dated.d").mkdir()
    results = []
    for day in range(days):
        qubit = msgspec.structs.replace(QUBIT, p10=0.01 + 0.001 * day)
        date = FIRST + timedelta(days=day if day else -LEAD_S * DAYS_PER_S)
        results.append(msgspec.structs.replace(
            CHIP, name="dated", calibrated=date.isoformat(), qubits=(qubit, qubit),
            rep_delay_ns=RESET_NS + day,
        ))  # fmt: skip
        (folder / "dated.d" / f"{day}.json").write_bytes(snapshots.dump(results[-1]))
    return results


def _drift(report: Report, year: list[cal.CalibrationSnapshot]) -> None:
    digests = {document.digest(snapshots.dump(each)).hex(): day for day, each in enumerate(year)}
    drift = f"replay:factor={DAY_S * DAYS_PER_S}"
    pool = {"name": "year", "device": "dated", "drift": drift, "pace": True, "min": 2, "max": 2}
    with simenv.local(pools=[pool]) as client:
        client.run(FLIP, pool="year", shots=1)
        arrivals, since = list[tuple[str, float]](), [0]

        def listen() -> None:
            for event in client.events(since[0], kinds=["calibration-update"]):
                arrivals.append((event.message.split()[0], time.time()))
                since[0] = event.seq

        with probed({"events": listen}, PAUSE_S):
            inbox, own = _Inbox(), client.qpm_with(pool="year")
            own.register_event_notification(inbox, "calibration-update", "year")
            listened_s, posted = time.time(), []
            until = time.monotonic() + LEAD_S + len(year) / DAYS_PER_S
            while time.monotonic() < until:
                posted.append(client.post(FLIP, pool="year", shots=REPLAY_SHOTS, compile="never"))
                time.sleep(PAUSE_S)
            results = [task.result() for task in posted]
    days = np.array([digests[result.snapshot or ""] for result in results])
    begun, length = _intervals(results)
    origin_s = _origin_s(begun, days, len(year))
    due = np.clip(np.floor((begun - origin_s) * DAYS_PER_S), 0, len(year) - 1)
    expected = _length_s(REPLAY_SHOTS, RESET_NS + days)
    wrong = int((due != days).sum() + (np.abs(length / expected - 1.0) > 1e-9).sum())
    report.at_most("wrong_snapshots", wrong)
    report.at_least("seen_share", len(set(days.tolist())) / len(year))
    for key, times in (("python", arrivals), ("qpm", inbox)):
        dues = [(origin_s + digests[digest] / DAYS_PER_S, arrived_s) for digest, arrived_s in times]
        late_s = [arrived_s - due_s for due_s, arrived_s in dues if due_s > listened_s]
        report.p99_ms(f"{key}_event_ms", late_s)


def _origin_s(begun: Array, days: Array, count: int) -> float:
    """Return the wall clock at the begin of the first day. Each result is within its day for this
    value; if no value explains all results, one that explains most is returned."""
    inner = (days > 0) & (days < count - 1)
    begins, ends = (begun - days / DAYS_PER_S)[inner], (begun - (days + 1) / DAYS_PER_S)[inner]
    if ends.max() <= begins.min():
        return float(begins.min() + ends.max()) / 2.0
    return float(np.percentile(begins, 1) + np.percentile(ends, 99)) / 2.0


class _Inbox(list[tuple[str, float]]):
    def put(self, event: Any) -> None:
        self.append((event.payload["calibration_set_id"], time.time()))


# --- certificates ---------------------------------------------------------------------------------

LATTICE = "superconducting-lattice"
CONFIDENCE, JOINT = 0.95, 0.99


@benchmark(artificial=(200, 20))
def certify(report: Report, options: Namespace) -> None:
    """Certificate of a whole device: time, verdict, negative controls, and coverage of intervals.

    All experiments run on an emulated device of 27 qubits as tasks of two workers. A second device
    differs from its claims in three places: one pair is 25 % worse, one T1 is 15 % shorter, one
    readout is 3 percentage points off; its certificate must name exactly these. The coverage of
    confidence intervals is counted over `--artificial` devices whose counts are drawn from decay
    models.
    """
    claims = library.load(LATTICE)
    # The first coupled pair of qubit 1 and a qubit of larger index.
    pair = next((a, b) for a, b in sorted(claims.coupling) if a == 1 and b > a)
    with home(cold=True) as folder:
        (folder / "devices").mkdir()
        changed = snapshots.dump(_changed(claims, pair))
        (folder / "devices" / "changed.json").write_bytes(changed)
        with simenv.local(workers=2) as client:
            certified(client, LATTICE, claims, qubits=(0, 1), seed=7)  # load kernels
            full = certified(client, LATTICE, claims, seed=1)
            few = sorted({*pair, 0, 1, 2})
            controls = certified(client, "changed", claims, qubits=few, seed=2)
    print(f"{full.circuits} circuits, {full.shots:,} shots, {len(full.comparisons)} quantities")
    report.at_most("seconds", full.seconds)
    report.at_most("outside", len(full.culprits) + len(full.unresolved))
    named = {(each.quantity, each.qubits) for each in controls.culprits}
    expected = {("t1_us", (0,)), ("p10", (2,)), ("error_2q", pair)}
    right = len(named & expected) - len(named - expected)
    print(f"controls: {sorted(named)}")
    report.at_least("named", right)  # less the wrong names
    share, joint, _ = coverage(options.artificial, CONFIDENCE)
    report.at_most("coverage_error", round(100.0 * abs(share - CONFIDENCE), 6))
    report.at_most("joint_error", round(100.0 * abs(joint - JOINT), 6))


@benchmark(true=20, kinds=list(altered_devices.KINDS), seed=SEED)
def certify_kinds(report: Report, options: Namespace) -> None:
    """Certificates of devices that differ from their claims in one kind of value each.

    Three qubits of an emulated device, all experiments, one device for each of `--kinds`: is one of
    the values that differ named? `--true` certificates of the device as claimed, with other seeds:
    how many name anything?
    """
    claims, caught, alarms = library.load(LATTICE), 0, 0
    line = next(
        (a, b, c)
        for a, b in sorted(claims.coupling)
        for c in range(claims.num_qubits)
        if c != a and (b, c) in claims.coupling
    )
    with home() as folder:
        (folder / "devices").mkdir()
        with simenv.local(workers=2) as client:
            for number, kind in enumerate(options.kinds):
                changed, expected = altered_devices.KINDS[kind](claims, line)
                name = f"altered-{number}"
                path = folder / "devices" / f"{name}.json"
                path.write_bytes(snapshots.dump(changed))
                found = certified(client, name, claims, qubits=line, seed=options.seed % 2**31)
                named = {(each.quantity, each.qubits) for each in found.culprits}
                both = named | {(quantity, place[::-1]) for quantity, place in named}
                caught += bool(expected & both)
                print(f"{kind}: {'named' if expected & both else 'MISSED'}: {sorted(named)}",
                      flush=True)  # fmt: skip
            for seed in range(options.true):
                found = certified(
                    client, LATTICE, claims, qubits=line, seed=(options.seed + seed) % 2**31
                )
                alarms += bool(found.culprits)
                print(f"as claimed, {seed}: {[each.quantity for each in found.culprits]}",
                      flush=True)  # fmt: skip
    report.at_least("caught", caught)
    report.at_most("false_alarms", alarms)


def _changed(claims: cal.CalibrationSnapshot, pair: tuple[int, int]) -> cal.CalibrationSnapshot:
    qubits = list(claims.qubits)
    qubits[0] = msgspec.structs.replace(qubits[0], t1_us=0.85 * (qubits[0].t1_us or 0.0))
    p01, p10 = qubits[2].confusion or (0.0, 0.0)
    qubits[2] = msgspec.structs.replace(qubits[2], p01=p01, p10=p10 + 0.03, readout_error=None)
    two = {gate.name for gate in claims.native_gates if gate.num_qubits == 2}
    gates = tuple(
        msgspec.structs.replace(gate, error=1.25 * (gate.error or 0.0))
        if gate.name in two and set(gate.qubits) == set(pair) else gate
        for gate in claims.gates
    )  # fmt: skip
    return msgspec.structs.replace(claims, qubits=tuple(qubits), gates=gates)
