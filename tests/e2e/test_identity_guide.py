"""The lines of docs/guides/identity.md run as they are pasted: the owner's, and those of two users
of the machine who have nothing of the environment but its address."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from munged import munged, skip_without_munge
from other_user import skip_without_mount_namespace
from site_users import Accounts, users
from snippets import NAMED, every_block, script

from simenv.cli.app import run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "identity.md"
ADDRESS = re.compile(r"\b(?:local|munge):\S+")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    """A host with the accounts `ana` and `bob` of the group `chem`, and munged."""
    skip_without_mount_namespace()
    skip_without_munge()
    folder = Path(tempfile.mkdtemp(prefix="simenv-identity-", dir="/tmp"))
    folder.chmod(0o755)
    accounts = Accounts(folder, 2, ("ana", "bob"), "chem")
    try:
        with munged(folder) as munge_socket:
            monkeypatch.setenv("SIMENV_PYTHON", str(accounts.python))
            monkeypatch.setenv("SIMENV_BROKERS", str(folder))
            monkeypatch.setenv("SIMENV_MUNGE_SOCKET", str(munge_socket))
            monkeypatch.setenv("SIMENV_HOME", str(folder / "home"))
            monkeypatch.setenv("PATH", f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")
            monkeypatch.chdir(folder)
            yield accounts
            for name in ("lab", "nodes"):
                run(["down", "--now", "--name", name])
    finally:
        shutil.rmtree(folder)


def test_lines_of_the_guide_run(site: Accounts) -> None:
    values = {"OWNER": pwd.getpwuid(os.geteuid()).pw_name, "HOST": "127.0.0.1", "eth0": "lo"}
    values |= {port: str(free_port()) for port in ("7480", "7481")}
    typed = 0
    for language, body in every_block(PAGE):
        for name, value in values.items():
            body = body.replace(name, value)
        if language == "toml":
            named = NAMED.match(body)
            assert named
            (site.folder / named[1]).write_text(body)
        elif address := ADDRESS.search(body):
            lines = body.splitlines()
            with users(site.uids.values(), address[0], lines) as both:
                for user in both:
                    assert [user.do("type", line) for line in lines] == [0] * len(lines)
                    typed += 1
        else:
            argv = ["bash", "-c", script(body)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    assert typed == 6
    assert "ana" in done.stdout  # the audit log, whose lines are the last
    assert "bob" in done.stdout
