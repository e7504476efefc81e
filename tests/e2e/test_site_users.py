"""Local users share an environment, and nobody hands them a file: each is who the kernel, or MUNGE,
says, sees its own tasks, and is out when it leaves the group."""

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from busy_circuits import ENDLESS
from live import Live
from munged import munged, skip_without_munge
from other_user import skip_without_mount_namespace
from site_users import GROUP, Accounts, User, users
from waiting import until

from simenv.client.client import Client

COUNT = 10
OUT_S = 60.0
WORKERS = [{"name": "main", "min": 2, "max": 2}]


class Site:
    """An environment of root, with users."""

    def __init__(self, live: Live, accounts: Accounts, env: Client) -> None:
        self.live, self.accounts, self.env = live, accounts, env

    @property
    def address(self) -> str:
        return f"local:root/{self.live.name}"

    @property
    def munge_address(self) -> str:
        port = self.live.options["identity"]["listen"].rpartition(":")[2]  # type: ignore[index]
        return f"munge:root@127.0.0.1:{port}/{self.live.name}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, for what a site has in places like /run."""
    skip_without_mount_namespace()
    path = Path(tempfile.mkdtemp(prefix="simenv-site-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    skip_without_munge()
    accounts = Accounts(folder, COUNT)
    with pytest.MonkeyPatch.context() as patch, munged(folder) as munge_socket:
        patch.setenv("SIMENV_PYTHON", str(accounts.python))
        patch.setenv("SIMENV_BROKERS", str(folder))
        patch.setenv("SIMENV_MUNGE_SOCKET", str(munge_socket))
        listen = f"tcp://127.0.0.1:{free_port()}"
        identity = {"use": ["local", "munge"], "users": [f"@{GROUP}"], "listen": listen}
        options = {"identity": identity, "listen": "tcp://127.0.0.1:0", "launcher": "local"}
        live = Live(pools=WORKERS, **options)
        try:
            live.up()
            with live.client() as env:
                yield Site(live, accounts, env)
        finally:
            live.down()


@pytest.fixture(scope="module")
def ten(site: Site) -> Iterator[list[User]]:
    with users(site.accounts.uids.values(), site.address) as result:
        for user in result:
            user.begin("connect")
        assert [user.answer() for user in result] == [site.live.name] * COUNT
        yield result


def test_ten_users_run_circuits_and_no_file_was_handed_over(site: Site, ten: list[User]) -> None:
    for seed, user in enumerate(ten):
        user.begin("run", seed)
    assert [user.answer() for user in ten] == [100] * COUNT
    for number, user in enumerate(ten):
        assert user.do("owners") == [f"user{number}"]
    assert {task.owner for task in site.env.queue(done=True)[1]} >= set(site.accounts.uids)
    assert not list(site.live.home.glob("keys*"))


def test_no_user_reads_cancels_or_impersonates_another(site: Site, ten: list[User]) -> None:
    victim, *others = ten
    task = victim.do("submit", ENDLESS)
    key = victim.do("public_key")
    for user in others:
        assert user.do("result", task) == ["error", "not_found"]
        assert user.do("cancel", task) == ["unknown"]
        assert user.do("claim", key) == ["error", "key_conflict"]
        assert user.do("keys") == ["error", "not_allowed"]
    assert not site.env.task(task).done()
    assert victim.do("cancel", task)[0] in ("cancelled", "cancelling")
    assert victim.do("ping") == site.live.name


def test_user_who_is_in_no_group_gets_no_certificate(site: Site) -> None:
    with users([site.accounts.uids["user0"] + 500], site.address) as (stranger,):
        assert stranger.do("connect") == ["error", "key_refused"]


def test_user_of_another_node_enters_by_munge(site: Site) -> None:
    address = site.munge_address
    uids = [*list(site.accounts.uids.values())[:2], 65_000]
    with users(uids, address) as (first, second, stranger):
        assert first.do("run", 1) == 100
        assert first.do("owners") == ["user0"]
        task = first.do("submit", ENDLESS)
        assert second.do("cancel", task) == ["unknown"]
        assert second.do("claim", first.do("public_key")) == ["error", "key_conflict"]
        assert stranger.do("connect") == ["error", "key_refused"]
        assert first.do("cancel", task)


def test_connections_go_on_after_restart_of_the_service(site: Site, ten: list[User]) -> None:
    site.live.crash()
    site.live.up()
    for user in ten:
        user.begin("ping")
    assert [user.answer() for user in ten] == [site.live.name] * COUNT


def is_out(user: User) -> bool:
    return bool(user.do("ping") == ["error", "key_refused"])


def test_user_who_leaves_is_out_within_sixty_seconds(site: Site, ten: list[User]) -> None:
    *members, leaver, removed = ten
    remaining = [f"user{number}" for number in range(COUNT) if number != COUNT - 2]
    site.accounts.set_members(remaining)
    site.accounts.remove(f"user{COUNT - 1}")
    begun = time.monotonic()
    for user in (leaver, removed):
        until(partial(is_out, user), OUT_S, look_s=0.5)
        assert user.do("again") == ["error", "key_refused"]
    assert time.monotonic() - begun < OUT_S
    assert [user.do("ping") for user in members] == [site.live.name] * len(members)
