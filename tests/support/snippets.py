"""Code blocks of the documentation's pages."""

import re
from pathlib import Path

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(
    r"# ([\w.-]+\.toml)\n"
)  # first line of a file that the page lets its reader save
STATUS = re.compile(r"# .*\bexit status (\d+)$")  # of a line that is refused


def every_block(page: Path) -> list[tuple[str, str]]:
    """Return language, `""` for none, and text of the code blocks of a page."""
    return _FENCED.findall(page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return [body for value, body in every_block(page) if value == language]


def script(body: str) -> str:
    """Return a program of bash that runs the lines of a block, each with the status that it has."""
    lines = ["set -e"]
    for line in body.splitlines():
        if status := STATUS.search(line):
            lines += ["set +e", line, f"[ $? = {status[1]} ] || exit 99", "set -e"]
        else:
            lines.append(line)
    return "\n".join(lines)
