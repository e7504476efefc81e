"""A task that makes everything of its folder while the service works there: nothing outside of the
folder is opened, read, moved, given away or removed, and nothing of it stays."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from confined import skip_without_confinement

from simenv import foreign_files
from testbed.hostile_files import Outcome, serve

GROWTH_BYTES = 32 * 2**20
# Tests of functions in this process end all that it has started.
pytestmark = pytest.mark.filterwarnings("ignore:resource_tracker. process died unexpectedly")


def hostile(entries: int, *, own_user: bool) -> Outcome:
    if own_user and os.geteuid() != 0:
        pytest.skip("only root can give a task a user of its own")
    if not own_user:
        skip_without_confinement(files_only=True)
    with TemporaryDirectory(prefix="s") as place:
        Path(place).chmod(0o755)
        outcome = serve(Path(place), entries, entries, own_user=own_user)
    assert outcome.entries >= entries
    assert not outcome.touched
    assert outcome.left == []
    assert outcome.grown_bytes < GROWTH_BYTES
    return outcome


@pytest.mark.parametrize("own_user", [True, False], ids=["own user", "one user"])
@pytest.mark.parametrize("has_openat2", [True, False], ids=["openat2", "open each"])
def test_hundreds_of_entries_reach_nothing_outside(
    own_user: bool, has_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_openat2 and not foreign_files._has_openat2():
        pytest.skip("this kernel has no openat2")
    monkeypatch.setattr(foreign_files, "_has_openat2", lambda: has_openat2)
    hostile(150, own_user=own_user)


@pytest.mark.slow
@pytest.mark.parametrize("own_user", [True, False], ids=["own user", "one user"])
def test_ten_thousand_entries_reach_nothing_outside(own_user: bool) -> None:
    outcome = hostile(10_000, own_user=own_user)
    assert outcome.taken > 0
    assert outcome.kept > 0
