"""Pastes the code blocks of pages, each page in a fork of one process that has loaded modules which
take long to load.

    python pages.py MODULE ...

Each line on stdin is JSON: the blocks as pairs of language and text, a file for what they print,
the folder to be in, and environment variables. An answer is the exit code of its process. The
blocks of a page are pasted as its reader does: Python's into one interpreter, and a shell's into
one shell, whose folder and exported variables the next blocks have.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from snippets import NAMED, script


def shell(body: str) -> None:
    """Run a block of a shell, and take over its folder and its variables. Raises SystemExit."""
    with tempfile.TemporaryDirectory() as folder:
        after = Path(folder) / "after"
        code = f"{script(body)}\ntrap - ERR\nenv -0 >{after}\n"
        if ended := subprocess.run(["bash", "-c", code], check=False).returncode:
            raise SystemExit(f"exit status {ended} of:\n{body}")
        found = dict(each.split("=", 1) for each in after.read_text().split("\0") if each)
    os.chdir(found["PWD"])
    os.environ.update(found)


def paste(blocks: list[tuple[str, str]]) -> None:
    names = {"__name__": "__main__"}
    for number, (language, body) in enumerate(blocks):
        sys.stdout.flush()
        if named := NAMED.match(body):
            Path(named[1]).write_text(body)
        elif language == "python":
            exec(compile(body, f"block {number}", "exec"), names)
        else:
            shell(body)


def run(blocks: list[tuple[str, str]], output: str, folder: str, variables: dict[str, str]) -> int:
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(variables)
    os.chdir(folder)
    warnings.simplefilter("error", SyntaxWarning)
    try:
        paste(blocks)
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
