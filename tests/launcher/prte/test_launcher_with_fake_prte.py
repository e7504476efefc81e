"""What the launcher makes of a prte that does not do what it should: scripts in its place."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prte_driver import command, here
from waiting import until

from launcher.base import Allocation, Exit, LauncherEvent, Node
from launcher.prte import dvm, dvm_supervisor, installation
from launcher.prte.launcher import PrteLauncher

NODE = os.uname().nodename
WAIT_S = 600.0  # three starts that hang, on a busy machine
# What a real one does first, so that a fake can do something else afterwards.
READY = """
while [ $# -gt 0 ]; do [ "$1" = --report-uri ] && uri=$2; shift; done
echo DVM ready
"""


@pytest.fixture(autouse=True)
def impatient(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvm_supervisor, "DELAYS_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(dvm, "START_TIMEOUT_S", 1.0)
    monkeypatch.setattr(dvm, "SETTLE_S", 0.0)


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prte"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o700)
    return path


def outcome(tmp_path: Path, text: str) -> tuple[list[Exit], list[LauncherEvent], PrteLauncher]:
    """Of one worker started through such a prte."""
    nodes = (Node(NODE, 2, 2**30),)
    fake = replace(here(), program=script(tmp_path, text))
    launcher = PrteLauncher(Allocation(nodes, "a test"), tmp_path, prte=fake)
    launcher.start(command(tmp_path, "one", "", f"{NODE}:1"))
    deadline = time.monotonic() + WAIT_S
    news: list[LauncherEvent] = []
    while not (exits := launcher.poll_exits()):
        assert time.monotonic() < deadline
        news += launcher.poll_events()
        time.sleep(0.005)
    return exits, news + launcher.poll_events(), launcher


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo no memory for it; exit 7", "prte ended (exit 7): no memory for it"),
        ("exec sleep 60", "prte was not ready after 1 s"),
        ("printf '\\377\\376 nonsense'; exec sleep 60", "nonsense"),
        ("kill -SEGV $$", "prte ended (signal 11)"),
    ],
    ids=["ends", "hangs", "garbage", "crashes"],
)
def test_prte_that_never_works_is_given_up(tmp_path: Path, text: str, words: str) -> None:
    exits, news, launcher = outcome(tmp_path, text)
    assert words in exits[0].reason
    assert exits[0].reason.startswith("could not be started: given up after 3 tries: ")
    assert "tries again 60 s later" in exits[0].reason
    assert exits[0].infrastructure_failure
    assert [each.kind for each in news] == ["dvm.lost"] * 3, news
    launcher.start(command(tmp_path, "two", "", f"{NODE}:1"))
    assert [end.name for end in launcher.poll_exits()] == ["two"], "it is not tried again at once"
    launcher.close()
    assert not list(tmp_path.glob("prte-*"))


def test_dvm_given_up_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, launcher = outcome(tmp_path, "exit 1")
    monkeypatch.setattr(dvm_supervisor, "RETRY_AFTER_S", 0.0)
    (tmp_path / "prte").write_text(f'#!/bin/sh\nexec {here().program} "$@"\n')
    monkeypatch.setattr(dvm, "START_TIMEOUT_S", 30.0)
    launcher.start(command(tmp_path, "two", "", f"{NODE}:1"))
    exits = until(launcher.poll_exits)
    launcher.close()
    assert (exits[0].name, exits[0].code) == ("two", 0)


@pytest.mark.parametrize(
    "address", ["nonsense", "prte@0;tcp4://127.0.0.1:1"], ids=["no address", "nobody there"]
)
def test_dvm_without_address(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvm, "START_TIMEOUT_S", 60.0)
    exits, news, launcher = outcome(tmp_path, READY + f"echo '{address}' >$uri; exec sleep 60")
    assert "the PMIx helper" in exits[0].reason
    assert "launcher.helper" in {each.kind for each in news}
    launcher.close()


def test_helper_without_library_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvm, "START_TIMEOUT_S", 60.0)
    nodes = (Node(NODE, 2, 2**30),)
    broken = replace(here(), library=tmp_path / "libpmix.so.2")
    launcher = PrteLauncher(Allocation(nodes, "a test"), tmp_path, prte=broken)
    launcher.start(command(tmp_path, "one", "", f"{NODE}:1"))
    exits = until(launcher.poll_exits)
    launcher.close()
    assert "the PMIx helper ended, 4 times" in exits[0].reason
    assert "libpmix.so.2: cannot open" in exits[0].reason


# --- which one is here ---------------------------------------------------------------------------


def found(tmp_path: Path, text: str) -> str:
    """Why a prte on PATH is refused."""
    script(tmp_path, text)
    (tmp_path / "lib").mkdir(exist_ok=True)
    program = tmp_path / "bin" / "prte"
    program.parent.mkdir(exist_ok=True)
    (tmp_path / "prte").rename(program)
    (tmp_path / "lib" / "libpmix.so.2").touch()
    answer = installation.find({"PATH": f"{program.parent}:/usr/bin:/bin"}, str(tmp_path / "none"))
    if isinstance(answer, str):
        return answer
    assert answer.library == tmp_path / "lib" / "libpmix.so.2"
    assert answer.prefix is None
    return answer.version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo 'prte (PRRTE) 4.0.1'", "4.0.1"),
        ("echo 'prte (PRRTE) 2.0.2'", "PRRTE 2.0.2: at least 3 is needed"),
        ("echo something else", "prints no version: something else"),
        ("exit 1", "prints no version: nothing"),
    ],
)
def test_version_of_a_prte_on_path_is_checked(tmp_path: Path, text: str, words: str) -> None:
    assert words in found(tmp_path, text)


def test_missing_prte_is_explained(tmp_path: Path) -> None:
    assert installation.find({"PATH": str(tmp_path)}, str(tmp_path)) == "none on PATH"


def test_variables_of_another_mpi_are_removed() -> None:
    table = {
        "PATH": "/bin", "PMIX_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "PRTE_MCA_oob": "tcp",
        "OMPI_MCA_pml": "ucx",
    }  # fmt: skip
    environ = here().environ(table)
    assert not {"PMIX_RANK", "OMPI_COMM_WORLD_SIZE"} & set(environ)
    assert environ["PRTE_MCA_oob"] == "tcp"
    assert environ["OMPI_MCA_pml"] == "ucx", "what a user says counts"
    assert here().transport(remote=True).get("OMPI_MCA_btl") == "self,sm,tcp"
    assert here().transport(remote=False)["OMPI_MCA_btl"] == "self,sm"
