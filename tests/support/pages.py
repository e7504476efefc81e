"""Code of a page, as `python -c` runs it, in a fork of a process that has loaded Qiskit."""

from __future__ import annotations

import os
import sys
import warnings


def run_page(code: str, output: str, service: str, folder: str) -> None:
    """Run it in this process, connected to a service; what it prints goes to a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    os.environ["SIMENV_SERVICE"] = service
    sys.path.insert(0, "")
    warnings.simplefilter("error", SyntaxWarning)
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})
