"""One rank of a probe, `python -P -m launcher.probe_rank`: prints the values of its MPI as JSON.

The only module of this package that initializes MPI. Invariant: the printed size is that of
COMM_WORLD. It detects a launcher of one MPI that starts ranks of another: each rank has size 1.
"""

import json
import signal
import sys

EXIT_NO_MPI = 5
MAX_LIFE_S = 60  # longer than any probe: a rank whose launcher failed must end by itself


def main() -> int:
    signal.alarm(MAX_LIFE_S)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: libmpi is missing
        message = " ".join(str(error).split())
        _print({"error": f"mpi4py: {message}" if "mpi4py" not in message else message})
        return EXIT_NO_MPI
    comm = MPI.COMM_WORLD
    comm.Barrier()  # check that the ranks reach one another
    _print(
        {
            "rank": comm.Get_rank(),
            "size": comm.Get_size(),
            "library": MPI.Get_library_version().split("\n")[0].strip("\0 "),
        }
    )
    return 0


def _print(values: dict[str, str | int]) -> None:
    """Print one line with one write: lines of several ranks go to one file."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
