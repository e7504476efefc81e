"""Application that calls `sync_run` of simenv's QPM and of a plugin that does nothing, in turns.

Both are objects of one daemon, so that host and transport are the same. Prints the time of each
call. ANGLE in the circuit's text is another number in each call. Arguments: CIRCUIT ROUNDS
"""

import time
from pathlib import Path
from typing import Any

from application import connect, print_record
from defw_remote import BaseRemote

CALLS = 10  # of one plugin before the other one's
SHOTS = 1_024


class QPM(BaseRemote):
    """Remote object of the plugin that does nothing."""

    def sync_run(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return a record at once; this stub returns its argument."""
        return info


QPM.__module__ = "svc_null"  # the daemon imports this module


def run(path: str, rounds: str) -> None:
    circuit = Path(path).read_text()
    ours, first = connect()
    null = QPM(target=object.__getattribute__(ours, "_BaseRemote__agent").get_ep())
    seeds = iter(range(1, 10**9))
    plugins = {"own": (ours, {}), "null": (null, {"revision1": True} if first else {})}
    times: dict[str, list[float]] = {name: [] for name in plugins}
    for number in range(int(rounds) + 1):
        for name, (plugin, more) in plugins.items():
            for _ in range(CALLS):
                seed = next(seeds)
                text = circuit.replace("ANGLE", f"{1 + seed * 1e-6:.6f}")
                info = {"qasm": text, "num_qubits": 4, "num_shots": SHOTS, "seed": seed}
                begin = time.perf_counter()
                answer = plugin.sync_run(info | more)
                took_s = time.perf_counter() - begin
                record = answer if "outcome" not in answer else answer["result"]
                counts = record["result"] if first else record["result"]["counts"]
                assert sum(counts.values()) == SHOTS, answer
                if number:  # the first round warms up
                    times[name].append(took_s)
    print_record("overhead", block=CALLS, times=times)
