"""Code blocks of the documentation's pages, and what it means to paste them."""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# First line of a file that the page lets its reader save.
NAMED = re.compile(r"(?:#|//) ([\w.-]+\.(?:toml|qasm))\n")
STATUS = re.compile(r"# .*\bexit status (\d+)$")  # of a line that is refused
SHELL = ("", "bash", "sh")


class Block(NamedTuple):
    """A code block. `language`: "" is a shell's, as of `bash` and `sh`."""

    language: str
    body: str

    @property
    def title(self) -> str:
        """The first line, by which a list of blocks names it."""
        return self.body.partition("\n")[0]


def every_block(page: Path) -> list[Block]:
    """Return the code blocks of a page, without the indentation of a list."""
    return [
        Block(language, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE))
        for indent, language, body in _FENCED.findall(page.read_text())
    ]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return [body for value, body in every_block(page) if value == language]


def fresh_environ(home: Path) -> dict[str, str]:
    """Return the variables of a user whose virtual environment is active, and whose home is new."""
    path = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(home), "SIMENV_HOME": str(home / ".simenv")}


def script(body: str) -> str:
    """Return a program of bash that runs the lines of a block, each with the status that it has."""
    lines = ["set -e", "trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR"]
    for line in body.splitlines():
        if status := STATUS.search(line):
            lines += ["set +e", line, f"[ $? = {status[1]} ] || exit 99", "set -e"]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
