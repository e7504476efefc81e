"""Application that calls `sync_run` of simenv's QPM and of a plugin that does nothing, in turns.

Both are objects of one daemon, so that host and transport are the same. Prints the time of each
call, the CPU time by process, and the parts of a call. Arguments: CIRCUIT ROUNDS NAME=PID...
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from application import connect, print_record
from defw_remote import BaseRemote

from simenv.client.circuits import load

CALLS = 10  # of one plugin before the other one's
SHOTS = 1_024


class QPM(BaseRemote):
    """Remote object of the plugin that does nothing."""

    def sync_run(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return a record at once; this stub returns its argument."""
        return info


QPM.__module__ = "svc_null"  # the daemon imports this module


def cpu_s(pid: int) -> float:
    """CPU time of a process and all its threads, also those that have ended: the host makes one a
    call. The clock's number is that of clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


def best_s(call: Callable[[int], object]) -> float:
    """Return the seconds of a call: the best of several."""
    times = []
    for number in range(9):
        begin = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - begin)
    return min(times)


def run(path: str, number_of_rounds: str, *processes: str) -> None:
    circuit, rounds = Path(path).read_text(), int(number_of_rounds)
    pids = {name: int(pid) for name, pid in (item.split("=") for item in processes)}
    ours, first = connect()
    null = QPM(target=object.__getattribute__(ours, "_BaseRemote__agent").get_ep())
    mark = {"revision1": True} if first else {}
    seeds = iter(range(1, 10**9))
    plugins = {"own": (ours, {}), "null": (null, mark)}
    times: dict[str, list[float]] = {name: [] for name in plugins}
    cpu = {name: dict.fromkeys(pids, 0.0) for name in plugins}
    stages: dict[str, list[float]] = {}
    answers: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, (plugin, more) in plugins.items():
            before = {process: cpu_s(pid) for process, pid in pids.items()}
            for _ in range(CALLS):
                info = {"qasm": circuit, "num_qubits": 4, "num_shots": SHOTS, "seed": next(seeds)}
                begin = time.perf_counter()
                answer = answers[name] = plugin.sync_run(info | more)
                took_s = time.perf_counter() - begin
                record = answer if "outcome" not in answer else answer["result"]
                counts = record["result"] if first else record["result"]["counts"]
                assert sum(counts.values()) == SHOTS, answer
                if not number:
                    continue  # the first round warms up
                times[name].append(took_s)
                if name == "own":
                    created, begun, ended = (
                        record[f"{stage}_time"] for stage in ("creation", "exec", "completion")
                    )
                    stages.setdefault("run", []).append(ended - begun)
                    stages.setdefault("accept", []).append(begun - created)
                    stages.setdefault("return", []).append(record["cq_enqueue_time"] - ended)
            if number:
                for process, pid in pids.items():
                    cpu[name][process] += cpu_s(pid) - before[process]
    parts = {name: statistics.median(values) for name, values in stages.items()}
    yaml_s = {
        name: best_s(lambda _, answer=answer: yaml.load(yaml.dump(answer), Loader=yaml.SafeLoader))
        for name, answer in answers.items()
    }
    parts["yaml"] = yaml_s["own"] - yaml_s["null"]
    parts["parse"] = best_s(lambda number: load(f"{circuit}// {number}\n"))  # not read before
    calls = rounds * CALLS
    used = {name: {p: value / calls for p, value in cpu[name].items()} for name in cpu}
    sizes = {name: len(yaml.dump(answer)) for name, answer in answers.items()}
    print_record("overhead", block=CALLS, times=times, parts=parts, cpu=used, sizes=sizes)
