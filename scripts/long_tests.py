"""Write tests/support/long_tests.txt: python scripts/long_tests.py OUTPUT

OUTPUT: what `make test` printed. Its tests that took SECONDS and more take turns from then on
(`of_other_shard` of tests/support/spread.py). Those that were not run in it stay.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

LIST = Path(__file__).parents[1] / "tests" / "support" / "long_tests.txt"
SECONDS = 8.0
_LINE = re.compile(r"^ *(\d+\.\d+)s (?:call|setup|teardown) +(tests/\S.*?)\s*$", re.MULTILINE)


def main(output: str) -> None:
    taken = Counter[str]()
    for seconds, nodeid in _LINE.findall(Path(output).read_text(errors="replace")):
        taken[nodeid] += float(seconds)
    kept = {each for each in LIST.read_text().splitlines() if each not in taken}
    found = {each for each, seconds in taken.items() if seconds >= SECONDS}
    LIST.write_text("".join(f"{each}\n" for each in sorted(kept | found)))


if __name__ == "__main__":
    main(sys.argv[1])
