"""Limits of a process hold, in it and in what it starts, also below lower ones of the site."""

import pytest
from interpreter import python

HEAD = "from simenv.sandbox.limits import limit_process\n"
CASES = {
    "more": ("limit_process(more_bytes=2**26); bytearray(2**27)", "MemoryError"),
    "address": ("limit_process(address_bytes=2**28); bytearray(2**28)", "MemoryError"),
    "data": ("limit_process(data_bytes=2**28); bytearray(2**28)", "MemoryError"),
    "file": (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit_process(file_bytes=2**10)\n"
        "import tempfile; tempfile.TemporaryFile(buffering=0).write(bytes(2**11)) == 2**10 or 1/0\n"
        "raise OSError('cut')",
        "OSError: cut",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_limit_holds(case: str) -> None:
    program, said = CASES[case]
    assert said in python("-c", HEAD + program, check=False).stderr


def test_no_core_is_left() -> None:
    program = "limit_process(); import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    assert python("-c", HEAD + program).stdout.strip() == "(1, 1)"


@pytest.mark.parametrize("kind", ["AS", "DATA", "FSIZE", "CORE"])
def test_lower_hard_limit_of_the_site_holds(kind: str) -> None:
    lower = 0 if kind == "CORE" else 2**30
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_{kind}, ({lower}, {lower}))
limit_process(address_bytes=2**31, data_bytes=2**31, file_bytes=2**31)
print(resource.getrlimit(resource.RLIMIT_{kind}))
"""
    done = python("-c", HEAD + program)
    assert (done.stdout.strip(), done.stderr) == (f"({lower}, {lower})", "")
