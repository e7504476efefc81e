"""Runs Python code in forks of one process that has loaded Qiskit.

    python pages.py

Each line on stdin is JSON: the code, a file for what it prints, and a service's connection file. An
answer is the exit code of its process.
"""

import json
import os
import sys
import traceback
import warnings


def run(code: str, output: str, service: str) -> int:
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["SIMENV_SERVICE"] = service
    warnings.simplefilter("error", SyntaxWarning)
    try:
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    except BaseException:  # noqa: BLE001 - shown as an interpreter does
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    import simenv.client.client  # noqa: F401

    sys.path[0] = ""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            os._exit(run(*json.loads(line)))
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()
