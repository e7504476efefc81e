"""Users of one node of a site use an environment on another node: MUNGE says who they are."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
import site_users
from munged import munged, skip_without_munge
from other_user import skip_without_second_user
from site_users import GROUP, Accounts, User

from testbed.cluster import Cluster

NAME, PORT = "shared", 7481
SIMENV = [sys.executable, "-m", "simenv", "--name", NAME]
CONFIG = """
listen = "tcp://{address}:0"
launcher = {{use = "local"}}
[[pools]]
name = "main"
min = 1
max = 1
[identity]
use = "munge"
users = ["@{group}"]
listen = "tcp://{address}:{port}"
"""


@pytest.fixture
def site(three: Cluster) -> Iterator[tuple[Cluster, Accounts, dict[str, Path]]]:
    """An environment on node1; a munged for each node, which has a socket of its own there."""
    skip_without_second_user()
    skip_without_munge()
    folder = Path(tempfile.mkdtemp(prefix="simenv-site-", dir="/tmp"))
    folder.chmod(0o755)
    accounts = Accounts(folder, 2)
    address = three.hosts["node1"].address
    file = folder / "simenv.toml"
    file.write_text(CONFIG.format(address=address, group=GROUP, port=PORT))
    key = bytes(range(128))
    with munged(folder, "first", key) as first, munged(folder, "second", key) as second:
        on_node1 = {"SIMENV_MUNGE_SOCKET": str(first), "SIMENV_PYTHON": str(accounts.python)}
        three.environ |= on_node1
        try:
            three.run("node1", [*SIMENV, "up", "--config", str(file)])
            yield three, accounts, {"node1": first, "node2": second}
        finally:
            three.run("node1", [*SIMENV, "down", "--now"], check=False)
            for name in on_node1:
                del three.environ[name]
            shutil.rmtree(folder)


def user(cluster: Cluster, uid: int, munge_socket: Path) -> User:
    """The process of a user on node2."""
    service = f"munge:root@node1:{PORT}/{NAME}"
    argv = [sys.executable, "-P", site_users.__file__, str(uid), service]
    environ = {"SIMENV_MUNGE_SOCKET": str(munge_socket), "HOME": "/nonexistent"}
    return User(cluster.popen("node2", argv, environ, stdin=PIPE, stdout=PIPE))


def test_users_of_node_are_whom_munge_says(site: tuple[Cluster, Accounts, dict[str, Path]]) -> None:
    cluster, accounts, sockets = site
    uids = [*accounts.uids.values(), 65_000]
    first, second, stranger = (user(cluster, uid, sockets["node2"]) for uid in uids)
    assert first.do("run", 1) == second.do("run", 2) == 100
    assert (first.do("owners"), second.do("owners")) == (["user0"], ["user1"])
    assert second.do("result", first.do("submit", site_users.BELL)) == ["error", "not_found"]
    assert second.do("claim", first.do("public_key")) == ["error", "key_conflict"]
    assert stranger.do("connect") == ["error", "key_refused"]
    command = [*SIMENV, "events", "--kind", "audit.identity.*", "--json"]
    events = [json.loads(line) for line in cluster.run("node1", command).stdout.splitlines()]
    origins = {event["subject"]: event["message"] for event in events}
    node2 = cluster.hosts["node2"].address
    assert origins["user0"] == origins["user1"] == f"role client, from {node2}"


def test_credential_of_a_site_with_another_key_is_refused(
    site: tuple[Cluster, Accounts, dict[str, Path]], tmp_path: Path
) -> None:
    cluster, _, sockets = site
    with munged(sockets["node1"].parent, "foreign") as foreign:
        service = f"munge:root@node1:{PORT}/{NAME}"
        environ = {"SIMENV_MUNGE_SOCKET": str(foreign)}
        command = [sys.executable, "-m", "simenv", "--service", service, "status"]
        process = cluster.popen("node2", command, environ, stdout=PIPE, stderr=PIPE)
        _, error = process.communicate(timeout=60.0)
    assert process.returncode != 0
    assert "MUNGE refuses the credential" in error
