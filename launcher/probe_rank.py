"""One rank of a probe, `python -P -m launcher.probe_rank`: prints what its MPI reports, as JSON.

The only module of this package that enters MPI. Invariant: the size printed is COMM_WORLD's, so a
launcher of one MPI that starts ranks of another is found out: each of them is alone.
"""

from __future__ import annotations

import json
import signal
import sys

EXIT_NO_MPI = 5
LIFE_S = 60  # far more than a probe has: nobody may be left to end this


def main() -> int:
    signal.alarm(LIFE_S)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter: no libmpi was found
        words = " ".join(str(error).split())
        _say({"error": f"mpi4py: {words}" if "mpi4py" not in words else words})
        return EXIT_NO_MPI
    comm = MPI.COMM_WORLD
    comm.Barrier()  # the ranks reach one another
    _say(
        {
            "rank": comm.Get_rank(),
            "size": comm.Get_size(),
            "library": MPI.Get_library_version().split("\n")[0].strip("\0 "),
        }
    )
    return 0


def _say(values: dict[str, str | int]) -> None:
    """In one write: lines of several ranks go to one file."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
