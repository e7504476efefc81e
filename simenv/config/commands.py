"""Commands of pools with `engine=external`: a program and its arguments, with placeholders."""

from __future__ import annotations

import shlex
import string

from simenv.errors import ConfigError

EXTERNAL = "external"  # the engine that starts a program for each circuit
PLACEHOLDERS = ("circuit", "shots", "seed", "ranks")
_NEEDED = ("circuit", "shots")
_MAX_CHARS = 2_048
_EXAMPLE = "command = 'nwq_qasm -q {circuit} --shots {shots}'"


def check_command(command: str, subject: str) -> None:
    """Check a command. Raises ConfigError if it cannot be split into words, lacks a required
    placeholder or has an unknown one."""
    problem = _problem(command)
    if problem:
        raise ConfigError(f"{subject}: command = {command[:120]!r} {problem}", hint=_EXAMPLE)


def _problem(command: str) -> str:
    if len(command) > _MAX_CHARS or not command.isprintable():
        return f"is not one printable line of at most {_MAX_CHARS} characters"
    try:
        tokens = shlex.split(command)
    except ValueError as error:
        return f"cannot be split into words: {error}"
    if not tokens or "{" in tokens[0]:
        return "does not begin with a program"
    try:
        parts = [part for token in tokens for part in string.Formatter().parse(token)]
    except ValueError as error:
        return f"has a brace alone ({error}); a brace itself is written twice"
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            return f"has {{{name}}}; there are " + ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
    names = {part[1] for part in parts}
    lacking = [each for each in _NEEDED if each not in names]
    return f"lacks {{{lacking[0]}}}" if lacking else ""
