"""Environment with a folder for devices of the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import simenv
from simenv.client.client import Client


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMENV_HOME", str(path))
        (path / "devices").mkdir()
        yield path


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Client]:
    with simenv.local(workers=2) as result:
        yield result
