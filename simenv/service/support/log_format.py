"""Format log lines so that logged text cannot forge a record or control a terminal."""

from __future__ import annotations

import logging

_CONTROLS = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E)
    if chr(code) not in "\n\t"
}


class LogFormatter(logging.Formatter):
    """Formatter that escapes control characters, and indents the further lines of a record by two
    spaces, so that none looks like a record of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROLS).replace("\n", "\n  ")
