"""Runs Python code in forks of one process that has loaded modules which take long to load.

    python pages.py MODULE ...

Each line on stdin is JSON: the code, a file for what it prints, and environment variables. An
answer is the exit code of its process.
"""

import importlib
import json
import os
import sys
import traceback
import warnings


def run(code: str, output: str, variables: dict[str, str]) -> int:
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(variables)
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
    for name in sys.argv[1:]:
        importlib.import_module(name)
    sys.path[0] = ""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            os._exit(run(*json.loads(line)))
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()
