"""Stand-in for an external simulator: takes a known time and no core, prints counts.

    timed_counts.py CIRCUIT SHOTS SEED US_PER_SHOT

The counts depend on the circuit and the seed alone, so that an attempt can be compared with
another. They are those of fair coins, by a congruential generator.
"""

import json
import re
import sys
import time
import zlib

MODULUS = 2**61 - 1
BINS = 64


def counts(circuit: str, shots: int, seed: int) -> dict[str, int]:
    """Return the counts of BINS draws, which have nearly equal parts of the shots."""
    declared = re.search(r"creg\s+\w+\[(\d+)\]", circuit)
    width = int(declared[1]) if declared else 1
    state = (zlib.crc32(circuit.encode()) << 32 | seed) % MODULUS or 1
    results: dict[str, int] = {}
    for number in range(BINS):
        state = state * 48_271 % MODULUS
        key = format(state % 2**width, f"0{width}b")
        part = shots // BINS + (number < shots % BINS)
        results[key] = results.get(key, 0) + part
    return {key: count for key, count in results.items() if count}


if __name__ == "__main__":
    path, shots, seed, each_us = sys.argv[1:]
    time.sleep(int(shots) * float(each_us) / 1e6)
    with open(path, encoding="utf-8") as file:
        print(json.dumps(counts(file.read(), int(shots), int(seed))))
