"""What a command line said, for tests that type one."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from simenv.cli.app import run


class Terminal(io.StringIO):
    """What is written to it is shown on a terminal."""

    def isatty(self) -> bool:
        return True


class Answer:
    """What a command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def object(self) -> Any:
        """The last line as JSON."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Shell = Callable[..., Answer]


def shell_of(environment: str, capfd: pytest.CaptureFixture[str]) -> Shell:
    """A command line of an environment, of the default one without a name, run in this process.
    `code`: the exit code that it must have."""

    def call(*words: str, name: str = environment, code: int | None = None) -> Answer:
        capfd.readouterr()
        answer = Answer(run([*(["--name", name] if name else []), *words]), *capfd.readouterr())
        assert "Traceback" not in answer.err
        assert code in (None, answer.code), answer.err
        return answer

    return call
