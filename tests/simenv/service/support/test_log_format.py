"""The service's log is one record a line, whatever others wrote."""

from __future__ import annotations

import logging

from simenv.service.support.log_format import LogFormatter


def shown(words: str, *details: object) -> str:
    record = logging.LogRecord("simenv", logging.INFO, "", 0, words, details, None)
    return LogFormatter("%(asctime)s %(levelname)s %(message)s").format(record)


def test_log_message_cannot_forge_record_or_terminal_escape() -> None:
    text = shown("task %s ended", "x\n2026-11-21 10:00:00,000 INFO keys.revoked ana\x1b[2J\x9b1A\r")
    first, second = text.split("\n")
    assert first.endswith("INFO task x")
    assert second == "  2026-11-21 10:00:00,000 INFO keys.revoked ana\\x1b[2J\\x9b1A\\r ended"


def test_log_text_in_any_script_is_unchanged() -> None:
    assert shown("Zürich ψ 量子\tend").endswith("INFO Zürich ψ 量子\tend")
