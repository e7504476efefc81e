"""The process of the gateway."""

import os
import sys
from pathlib import Path

import pytest

from simenv.gateway import __main__ as process


def test_defaults_of_the_starters_tasks_are_not_those_of_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {"SIMENV_ACCOUNT", "SIMENV_QOS", "SIMENV_RESERVATION", "SIMENV_APP", "TRACEPARENT"}
    for name in names:
        monkeypatch.setenv(name, "chem")
    monkeypatch.setattr(sys, "argv", ["gateway", "web", "--home", str(tmp_path)])
    seen: list[str] = []
    monkeypatch.setattr(process, "run", lambda *_: seen.extend(os.environ))
    assert process.main() == 0
    assert seen
    assert not names & set(seen)
