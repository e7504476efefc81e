"""Long programs, decoders and the transpiler through an environment, and the web page."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from qiskit import transpile as qiskit_transpile

import simenv
from bench.circuits import clifford_text, four_qubit_circuit, measured, volume
from bench.harness import SEED, Report, Times, benchmark, installed, timed
from bench.harness.environments import cores, cpu_s, service_process, started
from bench.peers.process import IsolatedPeer
from simenv import config
from simenv.client.client import Client
from simenv.client.submission.calls import CIRCUITS as CIRCUITS_OF_TASK, FIRST_TASKS
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.transpiler.qiskit_runtime import SEED as TRANSPILER_SEED
from simenv.transpiler.qpy import write_qpy
from simenv.transpiler.transpiler import target_of
from testbed.waiting import until

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))

# --- long programs and error correction -----------------------------------------------------------

QUBITS, DEPTH, SHOTS = 1_000, 20, 10_000
RATES, DECODED, DISTANCE = (0.001, 0.003, 0.005), 100_000, 5  # error rates, shots
SQUARE = "superconducting-square"


@benchmark(rounds=(5, 2), dynamic=Path)
def qasm_programs(report: Report, options: Namespace) -> None:
    """Long OpenQASM programs: a wide Clifford circuit and a dynamic circuit.

    A random Clifford circuit on 1,000 qubits, 20 layers deep, from its text to the dict of counts
    of 10,000 shots. The dynamic program is a search with feed-forward on 18 qubits: `--dynamic`
    names its file (none comes with the project), else it is left out.
    """

    def run_s(program: str | Path, seed: int, engine: str = "") -> float:
        seconds, result = timed(partial(client.run, program, shots=SHOTS, seed=seed))
        assert sum(result.counts.values()) == SHOTS
        assert engine in ("", result.engine), result.engine
        return seconds

    ones = ("h", "s", "sdg", "x", "y", "z", "sx", "id")
    with simenv.local(workers=2) as client:
        if installed("stim"):  # a dependency of the stabilizer engine
            texts = [clifford_text(QUBITS, DEPTH, seed + 10, ones, ("cx",))
                     for seed in range(options.rounds + 1)]  # fmt: skip
            times = [run_s(text, seed, "stabilizer") for seed, text in enumerate(texts)]
            report.seconds("clifford_s", times[1:])  # the first one loads the engine
        else:
            report.not_measured("clifford_s", "stim is not installed")
        if options.dynamic is not None:
            times = [run_s(options.dynamic, seed) for seed in range(options.rounds)]
            report.seconds("dynamic_s", times, options.dynamic.stem)


@benchmark(rounds=(7, 2))
def error_correction(report: Report, options: Namespace) -> None:
    """Surface-code detectors sampled and decoded by a worker, compared with stim and PyMatching.

    stim and PyMatching are called directly in this process. Distance 5, 5 rounds, circuit-level
    noise of 0.1, 0.3 and 0.5 %. Both ways start from the circuit alone; rounds alternate; the
    figure is the worst ratio at a rate, each the median over rounds. No circuit is known to the
    worker. Then the same code on the emulated device `superconducting-square`, with the device's
    noise: shots in a second, and the time relative to stim and PyMatching, which are given the
    circuit with its noise. Then a Clifford circuit of 1,000 qubits, 20 layers of random gates, from
    its text to its counts. CPU times are those of client, service and worker together.
    """
    if not (installed("stim") and installed("pymatching")):
        return report.none_measured("stim or PyMatching is not installed")
    with simenv.local(workers=1, durability="accepted") as client:
        pids = [client.status().pid, *(worker.pid for worker in client.workers())]
        others = [psutil.Process(pid) for pid in pids]

        def spent(call: Callable[[], Any]) -> tuple[Any, Any]:
            """Return wall and CPU seconds of a call, and its result."""
            clock = lambda: np.array(  # noqa: E731
                [time.perf_counter(), time.process_time() + cpu_s(*others)]
            )
            begin = clock()
            result = call()
            return clock() - begin, result

        client.run(_memory(0.01), shots=100, decoder="pymatching")  # load the engine
        shares, sigmas = [], []
        for rate in RATES:
            ratios, errors = [], np.zeros(2)  # of stim and PyMatching, of simenv
            for number in range(options.rounds):
                circuit = _memory(rate, number)
                plain_s, plain = spent(partial(_direct, circuit, number))
                how = {"shots": DECODED, "seed": number, "decoder": "pymatching"}
                own_s, own = spent(partial(client.run, circuit, **how))
                errors += plain, own.logical_errors
                ratios.append(own_s / plain_s)
            shares.append(np.median(ratios, axis=0))
            sigmas.append(abs(errors[0] - errors[1]) / max(1.0, errors.sum() ** 0.5))
            print(f"p = {rate}: logical errors {errors}, times {shares[-1]}")
        device_s, device_shares, sigma = _on_device(client, options.rounds, spent)
        sigmas.append(sigma)
        for key, worst in zip(("time_share", "cpu_share"), np.max(shares, axis=0), strict=True):
            report.at_most(key, worst)
        for part, seconds, share in zip(("", "cpu_"), device_s, device_shares, strict=True):
            report.at_least(f"device_shots_per_{part}s", DECODED / seconds)
            report.at_most(f"device_{part}share", share)
        report.at_most("sigmas", max(sigmas))
        times, ones = [], ("h", "s", "sdg", "x", "y", "z")
        for number in range(options.rounds + 1):
            text = clifford_text(QUBITS, DEPTH, [7, number], ones, ("cx", "cz"))
            seconds, result = spent(partial(client.run, text, shots=SHOTS, seed=number))
            assert (sum(result.counts.values()), result.engine) == (SHOTS, "stabilizer")
            times.append(seconds)
    wall, cpu = np.median(times[1:], axis=0)  # round 0 loads the engine
    report.seconds("clifford_s", wall)
    report.seconds("clifford_cpu_s", cpu)


def _on_device(
    client: Client, rounds: int, spent: Callable[[Callable[[], Any]], tuple[Any, Any]]
) -> tuple[Any, Any, float]:
    """Return the wall and CPU seconds of DECODED shots of a surface code on a device, their ratios
    to those of stim and PyMatching, and the difference of the logical error rates in standard
    errors."""
    times, ratios, errors = [], [], np.zeros(2)
    for number in range(rounds + 1):
        circuit = _memory(0.0, 1_000 + number).without_noise()
        how: dict[str, Any] = {"device": SQUARE, "qubit_mapping": "auto", "shots": DECODED}
        own_s, own = spent(partial(client.run, circuit, seed=number, decoder="pymatching", **how))
        noisy = _with_device_noise(circuit, own.mapping)
        plain_s, plain = spent(partial(_direct, noisy, number + 100))
        if number:  # the first run loads kernels
            times.append(own_s)
            ratios.append(own_s / plain_s)
            errors += plain, own.logical_errors
    sigma = abs(errors[0] - errors[1]) / max(1.0, errors.sum() ** 0.5)
    wall_and_cpu_s, shares = np.median(times, axis=0), np.median(ratios, axis=0)
    print(f"device: logical errors {errors}, seconds {wall_and_cpu_s}, ratios {shares}")
    return wall_and_cpu_s, shares, float(sigma)


def _with_device_noise(circuit: Any, places: Mapping[int, int]) -> Any:
    """Return the circuit with the noise of the device, in this process."""
    from noise_models import library
    from noise_models.build import build
    from simulators.circuit.passes.attach_noise import NoiseAttachment
    from simulators.stabilizer.device_circuit import DeviceProgram
    from simulators.stabilizer.device_gates import DeviceGates

    snapshot = library.load(SQUARE)
    program = DeviceProgram(circuit, DeviceGates(snapshot), places)
    return program.noisy(NoiseAttachment(build(snapshot))).circuit


def _memory(rate: float, number: int = 0) -> Any:
    """Return a memory experiment; the number changes its text but not its gates."""
    import stim

    names = ("after_clifford_depolarization", "after_reset_flip_probability",
             "before_measure_flip_probability", "before_round_data_depolarization")  # fmt: skip
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=DISTANCE, rounds=DISTANCE,
        **dict.fromkeys(names, rate),
    )  # fmt: skip
    circuit.append("SHIFT_COORDS", [], [0, 0, number])
    return circuit


def _direct(circuit: Any, seed: int) -> int:
    """Return the number of logical errors, computed by stim and PyMatching alone."""
    import pymatching

    sampler = circuit.compile_detector_sampler(seed=seed)
    events, flips = sampler.sample(DECODED, separate_observables=True, bit_packed=True)
    model = circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    matching = pymatching.Matching.from_detector_error_model(model)
    predicted = matching.decode_batch(events, bit_packed_shots=True, bit_packed_predictions=True)
    return int((predicted != flips).any(axis=1).sum())


# --- the transpiler -------------------------------------------------------------------------------

CIRCUITS, DEVICE, LEVEL, WORKERS = 200, "sherbrooke", 2, 2


class OneProcess:
    """`qiskit.transpile` in a process with a number of threads, for the qubits that workers compile
    for first: those that are read well."""

    def __init__(self, threads: int, info: DeviceInfo) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # read when the first circuit is routed
        self._target, self.compiled_last = target_of(Availability(info).well_read), list[Any]()

    def transpile(self, circuits: list[Any]) -> tuple[float, float]:
        """Compile circuits, and return the seconds and the CPU seconds that it took."""
        how = {"optimization_level": LEVEL, "seed_transpiler": TRANSPILER_SEED, "num_processes": 1}
        begin_s, cpu = time.perf_counter(), time.process_time()
        self.compiled_last = qiskit_transpile(circuits, target=self._target, **how)
        return time.perf_counter() - begin_s, time.process_time() - cpu

    def compiled(self) -> list[Any]:
        return self.compiled_last


def _machine_s() -> float:
    """Return the CPU seconds of all processes since the machine's start, and those that its host
    took."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


@benchmark(rounds=(5, 2), seed=SEED)
def transpile(report: Report, options: Namespace) -> None:
    """Transpilation of 200 circuits for a device of 127 qubits: two workers and one process.

    Different circuits of 8 to 16 qubits: `qiskit.transpile` in one process at its default level,
    with a thread for each core and with one (RAYON_NUM_THREADS=1), and `Client.transpile` by two
    workers, QPY in both directions included. Rounds alternate; figures are medians of the rounds'
    ratios. Circuits must be equal, layouts included.

    `replayed` predicts the wall time on a number of cores from the CPU times of the processes:
    cores, less what other processes used, are shared equally by the processes that have work, each
    of which uses at most one. It ignores caches, waits and messages. `model_error` is its error for
    the time that was measured here; its result for one core and one worker more is in shares of one
    process on these cores.
    """
    cores = os.cpu_count() or 1
    random = np.random.default_rng(options.seed)
    widths = random.integers(8, 17, CIRCUITS).tolist()
    circuits = [measured(width, volume(width, random, 2)) for width in widths]
    walls: Times = defaultdict(list)
    cpus: Times = defaultdict(list)
    others, parts = list[float](), list[Any]()
    with simenv.local(workers=WORKERS, durability="accepted") as client:
        info = client.device(DEVICE)
        for _ in range(2):  # the first call of each worker loads Qiskit
            client.transpile(circuits[:32], DEVICE, level=LEVEL)
        workers = [psutil.Process(each.pid) for each in client.workers()]
        processes = [psutil.Process(), service_process(client), *workers]
        peers = {name: IsolatedPeer(name, OneProcess, info, threads=threads)
                 for name, threads in (("qiskit", cores), ("one_thread", 1))}  # fmt: skip
        for peer in peers.values():
            peer.call("transpile", circuits[:8])
        pack_s, _ = timed(lambda: [write_qpy(circuit) for circuit in circuits], time.process_time)
        for _ in range(options.rounds):
            for name, peer in peers.items():
                for kind, seconds in zip(
                    (walls, cpus), peer.call("transpile", circuits), strict=True
                ):
                    kind[name].append(seconds)
            before, busy_s = [cpu_s(each) for each in processes], _machine_s()
            wall_s, compiled = timed(lambda: client.transpile(circuits, DEVICE, level=LEVEL))
            spent = np.subtract([cpu_s(each) for each in processes], before)
            others.append(max(0.0, _machine_s() - busy_s - spent.sum()) / wall_s)
            walls["workers"].append(wall_s)
            parts.append(spent)
            assert _equal(peers["qiskit"].call("compiled"), compiled), "circuits differ"
        for peer in peers.values():
            peer.close()
    report.at_least("identical", 1)
    ours, busiest = np.array(walls["workers"]), np.array(parts)
    both = busiest[:, 0] + busiest[:, 2:].max(axis=1)  # client and the busier worker
    for key, ratios in (
        ("wall_share", ours / walls["qiskit"]), ("one_thread_share", ours / walls["one_thread"]),
        ("cpu_share", both / cpus["qiskit"]),
    ):  # fmt: skip
        report.at_most(key, float(np.median(ratios)))
    own, service, *each_worker = np.median(parts, axis=0).tolist()
    pack, peer_s = min(pack_s, own), statistics.median(walls["qiskit"])
    stages, free = (pack, service, sum(each_worker), own - pack), statistics.median(others)
    measured_s, shares = statistics.median(walls["workers"]), {}
    for number, size in ((cores, WORKERS), (cores + 1, WORKERS), (cores + 1, WORKERS + 1)):
        shares[number, size] = replayed(*stages, cores=number - free, workers=size) / peer_s
    print(f"wall times { ({name: statistics.median(each) for name, each in walls.items()}) }")
    print(f"replayed, of one process, by cores and workers: {shares}")
    report.at_most("third_core_share", shares[cores + 1, WORKERS + 1])
    report.at_most("model_error", abs(shares[cores, WORKERS] * peer_s / measured_s - 1.0))


def replayed(
    pack_s: float, service_s: float, worker_s: float, read_s: float, *, cores: float, workers: int
) -> float:
    """Return the seconds until the client has read all circuits. Arguments: CPU seconds of all
    circuits in each stage. The client packs the first tasks, sends them, packs the others, sends
    them, and reads results in order. Each task passes the service after its worker."""
    tasks = -(-CIRCUITS // CIRCUITS_OF_TASK)
    pack, service, work, read = (x / tasks for x in (pack_s, service_s, worker_s, read_s))
    packing = [pack * FIRST_TASKS, pack * (tasks - FIRST_TASKS)]
    sends = [FIRST_TASKS, tasks - FIRST_TASKS]
    remaining: dict[str, float] = {}  # seconds of the job of each busy process
    waiting = unserved = unread = finished = 0
    now = 0.0
    while finished < tasks:
        for worker in range(workers):
            if waiting and f"worker {worker}" not in remaining:
                waiting -= 1
                remaining[f"worker {worker}"] = work
        if unserved and "service" not in remaining:
            unserved -= 1
            remaining["service"] = service
        if "client" not in remaining and (packing or unread):
            unread -= not packing
            remaining["client"] = packing.pop(0) if packing else read
        step = min(remaining.values())
        now += step / min(1.0, cores / len(remaining))
        remaining = {name: left - step for name, left in remaining.items()}
        for name in [name for name, left in remaining.items() if left <= 1e-12]:
            del remaining[name]
            if name == "service":
                unread += 1
            elif name != "client":
                unserved += 1
            elif sends:
                waiting += sends.pop(0)
            else:
                finished += 1
    return now


def _equal(first: list[Any], second: list[Any]) -> bool:
    """Return whether the circuits and their layouts are equal."""
    return len(first) == len(second) and all(
        left == right
        and left.layout.final_index_layout() == right.layout.final_index_layout()
        and left.layout.initial_index_layout() == right.layout.initial_index_layout()
        for left, right in zip(first, second, strict=True)
    )


# --- the web page ---------------------------------------------------------------------------------

PAGE = {
    "name": "bench-page", "pools": [{"name": "main", "min": 2, "max": 2}],
    "gateway": {"listen": "127.0.0.1:0", "tls": False},
}  # fmt: skip
VIEWS = ("", "tasks", "tasks/t-1", "devices", "nodes", "usage", "events")
PAGES, SECONDS, REFRESH_S = 50, 30.0, 10.0
SERIES = ("done_per_s", "unsuccessful_per_s", "queue", "running", "slots_used")


@benchmark(tasks=(100_000, 2_000))
def page(report: Report, options: Namespace) -> None:
    """The web page with a long history, and what open pages cost the service.

    100,000 tasks are in the history. Each view is opened in chromium: the time until its first
    paint, and until it shows its data. Then 50 clients ask what open overviews ask; the processor
    time of the service and of the gateway over 30 s, less that of an idle environment.
    """
    import browser

    with started(PAGE) as client:
        until(lambda: client.dashboard is not None, 30.0)
        for start in range(0, options.tasks, 10_000):
            seeds = range(start, min(options.tasks, start + 10_000))
            work = [four_qubit_circuit(seed) for seed in seeds]
            for task in client.submit_many(work, shots=100, seed=1):
                task.wait()
        assert client.status().done >= options.tasks
        assert client.dashboard is not None
        with browser.chromium() as chromium:
            secret = client.tokens.add(role="", once=True, lifetime_s=60.0).secret
            with chromium.new_context() as context:  # follows a one-time link
                login = f"{client.dashboard.removesuffix('/ui/')}/login?token={secret}"
                context.new_page().goto(login)
                cookies = context.storage_state()
            times = {view: _paint(chromium, cookies, f"{client.dashboard}{view}") for view in VIEWS}
        print(times)
        paint_ms, data_ms = (max(each) for each in zip(*times.values(), strict=True))
        report.at_most("paint_ms", paint_ms)
        report.at_most("data_ms", data_ms)
        _open_pages(client, report)


def _paint(chromium: Any, cookies: Any, url: str) -> tuple[float, float]:
    """Return the time until the first paint and until the data, in ms; median of three."""
    found = []
    for _ in range(3):
        with chromium.new_context(storage_state=cookies) as context:
            view, begun = context.new_page(), time.perf_counter()
            view.goto(url)
            view.wait_for_selector("#content .card table, #content .card .stages")
            data_ms = 1e3 * (time.perf_counter() - begun)
            entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            found.append((float(view.evaluate(entry)), data_ms))
    paints, data = zip(*found, strict=True)
    return statistics.median(paints), statistics.median(data)


def _open_pages(client: Client, report: Report) -> None:
    """Ask what PAGES open overviews ask. Browsers themselves would use all of this machine."""
    file = config.running_gateway(config.home_root() / str(PAGE["name"]))
    assert file is not None
    processes = psutil.Process(client.status().pid), psutil.Process(file.pid)
    idle = cores(SECONDS, *processes)
    secret = client.tokens.add(purpose="bench", lifetime_s=600.0).secret
    busy = asyncio.run(_pages(file.url, secret, processes))
    for name, before, after in zip(("service", "gateway"), idle, busy, strict=True):
        report.at_most(f"{name}_percent", max(0.0, 100 * (after - before)))


async def _pages(url: str, secret: str, processes: tuple[psutil.Process, ...]) -> list[float]:
    import httpx

    headers = {"Authorization": f"Bearer {secret}"}
    limits, states = httpx.Limits(max_connections=2 * PAGES), [0] * PAGES
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits) as http:
        pages = [asyncio.create_task(_overview(http, states, number)) for number in range(PAGES)]
        busy = await asyncio.to_thread(cores, SECONDS, *processes)
        for each in pages:
            each.cancel()
        ends = await asyncio.gather(*pages, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
    assert min(states) > 0.8 * SECONDS, f"a page got {min(states)} states in {SECONDS:.0f} s"
    return busy


async def _overview(http: Any, states: list[int], number: int) -> None:
    """Do what views/overview.js does: the live state, and every ten seconds the series."""

    async def plots() -> None:
        await asyncio.sleep(REFRESH_S * number / PAGES)
        (await http.get("/api/v1/series")).raise_for_status()
        while True:
            since = time.time() - 3_600
            lost = {"kind": "worker.lost", "since_s": since, "limit": 15}
            asks = [("series", {"name": name, "since": since}) for name in SERIES]
            for path, asked in (*asks, ("events/range", lost)):
                (await http.get(f"/api/v1/{path}", params=asked)).raise_for_status()
            await asyncio.sleep(REFRESH_S)

    async def live() -> None:
        async with http.stream("GET", "/api/v1/live", timeout=60.0) as answer:
            async for line in answer.aiter_lines():
                states[number] += line == "event: live"

    await asyncio.gather(plots(), live())
