"""Errors of a submission in the words of the command line: the option to type, not the argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from simenv.errors import SimenvError

_NAMES = {"name": "task-name", "queue_timeout_s": "queue-timeout", "run_timeout_s": "run-timeout"}
_PHRASES = (
    (re.compile(r"outputs=\(['\"](\w+)['\"],\)( or ['\"]\w+['\"])?"), r"--output \1"),
    (re.compile(r"observables=['\"](\w+)['\"]"), r"--observable \1"),
    (re.compile(r"give observables\b"), "give --observable"),
    (re.compile(r"\bmeasure \(circuit\.measure_all\(\)\)"), "measure"),
    (re.compile(r"\bshots=None( \(exact\))?"), "--shots 0"),
    (re.compile(r"\bgive shots=(\w+)"), r"give --shots \1"),
    (re.compile(r"\bgive bindings=( a value for every parameter)?"), "give --param NAME=VALUE"),
    (re.compile(r"\bbindings name them all\b"), "give --param NAME=VALUE for each"),
    (re.compile(r"\bengine='(\w+)'"), r"--engine \1"),
    (re.compile(r"\btext, as opposed to a path, has a newline or ';' in it"), ""),
    (re.compile(r"; None: no limit$"), "; without it: no limit"),
    (re.compile(r"; None: as needed$"), "; without it: as needed"),
)
_ARGUMENT = re.compile(
    r"^(shots|seed|engine|precision|pool|prefer|ranks|priority|name|queue_timeout_s|run_timeout_s)=(.*)",
    re.S,
)


def spoken(text: str) -> str:
    """The text with arguments of `Client.submit` turned into options of `simenv submit`."""
    for phrase, words in _PHRASES:
        text = phrase.sub(words, text)
    found = _ARGUMENT.match(text)
    return f"--{_NAMES.get(found[1], found[1])} {found[2]}" if found else text


@contextmanager
def spoken_errors() -> Iterator[None]:
    """Errors raised inside leave in the command line's words."""
    try:
        yield
    except SimenvError as error:
        error.message, error.hint = spoken(error.message), spoken(error.hint)
        raise
