"""Who gets a certificate, whose it is, and when it ends. The test plays the broker of a service."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from failing import fails
from memory_transport import MemoryConnection
from service import ServiceHarness

from simenv.config import convert
from simenv.errors import ConfigError, KeyConflictError, KeyRefusedError
from simenv.model.accounts import Account, AccountTree, Billing
from simenv.model.reservations import ReservationRequest
from simenv.scheduler.core import FINAL, SENT, WAITING
from simenv.service import identities
from simenv.service.accounting import groups as account_groups
from simenv.service.identities import Identities
from simenv.wire.keyfiles import ServerFile, new_pair
from simenv.wire.messages import accounting, admin, client as m, credentials, identity
from simenv.wire.messages.history import GetHistory
from simenv.wire.messages.identity import (
    CertificateRequest,
    Denial,
    UserAccount,
    UserCertificate,
    UserRequest,
)  # fmt: skip
from simenv.wire.rights import LOCAL, Identity, Role
from simenv.wire.transport.sockets import PeerKind

ANA, BEN, CLEO, EVE = 70_001, 70_002, 70_003, 70_004
NAMES = {ANA: "ana", BEN: "ben", CLEO: "cleo", EVE: "eve", os.geteuid(): "owner"}
SERVER = ServerFile(1, "s" * 40, "", "tcp://127.0.0.1:1")
SETTINGS = {"use": ["keys", "local"], "users": ["ana", "@chem"], "admins": ["cleo"]}


class RecordingBroker:
    """A broker whose process is the test."""

    def __init__(self) -> None:
        self.handle: Callable[[UserRequest | UserAccount], None] = lambda _: None
        self.sent: list[identity.UserAnswer | identity.CheckUsers] = []

    def send(self, message: identity.UserAnswer | identity.CheckUsers) -> None:
        self.sent.append(message)

    def keep(self) -> None:
        pass


class Site(ServiceHarness):
    """A service for users of a site."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder, **{"durability": "process", "identity": SETTINGS, **options})

    def _assemble(self) -> None:
        super()._assemble()
        self.broker = RecordingBroker()
        end = self.loop.administration.end_reservations
        self.users = Identities(self.loop, self.broker, SERVER, end)  # type: ignore[arg-type]

    def ask(self, uid: int, key: str, groups: tuple[str, ...] = ()) -> UserCertificate | Denial:
        request = CertificateRequest(1, "default", key, "n" * 32)
        name = NAMES.get(uid, "")
        self.broker.handle(UserRequest(3, uid, name, groups, "a test", request))
        answer = self.broker.sent.pop()
        assert answer.number == 3
        return answer.reply

    def enter(self, uid: int, groups: tuple[str, ...] = ()) -> MemoryConnection:
        """A connection with a certificate."""
        key = new_pair().public
        reply = self.ask(uid, key, groups)
        assert isinstance(reply, UserCertificate), reply
        return self.listener.connect(PeerKind.CLIENT, key.encode(), key)

    def tick(self, after_s: float) -> None:
        self.users.tick(time.monotonic() + after_s)

    def is_out(self, peer: MemoryConnection) -> bool:
        try:
            self.listener.connect(PeerKind.CLIENT, b"again", peer.key)
        except KeyRefusedError:
            return True
        return False


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_user_and_member_of_group_are_owners_of_their_tasks(site: Site) -> None:
    for uid, groups in ((ANA, ()), (BEN, ("users", "chem"))):
        peer = site.enter(uid, groups)
        site.submit(peer=peer)
    queue = site.get(m.Queue, m.GetQueue(1))
    assert [task.owner for task in queue.tasks] == ["ana", "ben"]


def test_certificate_names_service_and_lifetime_and_others_get_none(site: Site) -> None:
    ends = (SERVER.address, SERVER.public_key, 900.0)
    reply = site.ask(ANA, new_pair().public)
    assert reply == UserCertificate(1, "default", "n" * 32, "ana", "client", *ends)
    reply = site.ask(EVE, new_pair().public, ("physics",))
    assert reply.code == "key_refused"
    assert "eve may not use the environment 'default'" in reply.message
    assert "[identity]" in reply.hint
    # As the one that stands for all users a namespace does not map.
    reply = site.ask(65_534, new_pair().public)
    assert "names no account of uid 65534" in reply.message
    assert "getent passwd 65534" in reply.hint


def test_group_is_no_user_and_user_is_no_group(site: Site) -> None:
    NAMES[EVE] = "@chem"
    try:
        assert isinstance(site.ask(EVE, new_pair().public), Denial)
        NAMES[EVE] = "eve"
        assert isinstance(site.ask(EVE, new_pair().public, ("ana",)), Denial)
        NAMES[EVE] = ""
        assert isinstance(site.ask(EVE, new_pair().public, ("chem",)), Denial)
    finally:
        NAMES[EVE] = "eve"


def test_role_follows_the_configuration(site: Site) -> None:
    admin_peer, client = site.enter(CLEO), site.enter(ANA)
    assert admin_peer.sender == Identity("cleo", Role.ADMIN)
    assert client.sender == Identity("ana", Role.CLIENT)
    assert site.enter(os.geteuid()).sender is LOCAL, "the own user has the rights of the owner"
    assert site.refusal(credentials.GetKeys(1), client).code == "not_allowed"
    reports = {report.owner: report.role for report in site.loop.accounting.owners.reports(LOCAL)}
    assert reports == {"": "admin", "ana": "client", "cleo": "admin"}


def test_users_of_configured_accounts_may_enter(tmp_path: Path) -> None:
    site = Site(tmp_path, accounts={"physics": {"users": ["eve", "@lab"]}})
    assert site.enter(EVE).sender.owner == "eve"
    assert site.enter(BEN, ("lab",)).sender.owner == "ben"
    site.loop.scheduler.set_accounts(AccountTree({"lab": Account(users=("ben",))}), Billing(), {})
    assert isinstance(site.ask(EVE, new_pair().public), Denial)
    assert isinstance(site.ask(BEN, new_pair().public), UserCertificate)


def test_task_of_another_user_is_neither_seen_nor_cancelled(site: Site) -> None:
    ana, ben = site.enter(ANA), site.enter(BEN, ("chem",))
    site.submit(peer=ana)
    (task,) = site.get(m.Queue, m.GetQueue(1), ana).tasks
    assert site.get(m.Queue, m.GetQueue(1), ben).tasks == []
    assert site.get(m.Cancelled, m.Cancel(1, [1]), ben).words == ["unknown"]
    assert site.get(m.Cancelled, m.Cancel(1, [1]), ana).words == ["cancelled"]
    assert task.owner == "ana"
    assert site.say(GetHistory(1), ben)


def test_public_key_of_another_user_is_refused(site: Site) -> None:
    ana = site.enter(ANA)
    reply = site.ask(BEN, ana.key, ("chem",))
    assert reply.code == KeyConflictError.code
    assert not site.is_out(ana)
    site.tick(1_000.0)  # the certificate has ended, its key is still that of ana
    assert site.is_out(ana)
    assert isinstance(site.ask(BEN, ana.key, ("chem",)), Denial)
    assert isinstance(site.ask(ANA, ana.key), UserCertificate)


def test_public_key_of_a_key_file_is_refused(site: Site) -> None:
    key = new_pair().public
    site.say(credentials.AddKey(1, "ana", "client", key))
    assert isinstance(site.ask(ANA, key), Denial)
    site.tick(1_000.0)
    assert site.listener.connect(PeerKind.CLIENT, b"file", key).sender.owner == "ana"


def test_connection_of_an_ended_certificate_is_closed_unless_it_was_renewed(site: Site) -> None:
    ana = site.enter(ANA)
    site.tick(0.0)
    user = site.users._table.users[ANA]
    user.ends_s[ana.key] = time.monotonic() + 1.0
    assert isinstance(site.ask(ANA, ana.key), UserCertificate)
    site.tick(10.0)
    assert site.get(m.Pong, m.Ping(1), ana).epoch
    site.tick(911.0)
    assert site.is_out(ana)
    assert site.heard(ana) == []  # without a refusal: the client asks for a new one


def reserve(site: Site, peer: MemoryConnection) -> None:
    site.say(admin.Reserve(1, ReservationRequest(device="main")), peer)
    assert len(site.state.reservations.live) == 1


@pytest.mark.parametrize("now", [("ben", ()), ("", ()), ("renamed", ("chem",))])
def test_user_who_leaves_is_out_at_the_next_check(
    site: Site, now: tuple[str, tuple[str, ...]]
) -> None:
    ben = site.enter(BEN, ("chem",))
    reserve(site, ben)
    site.tick(identities.CHECK_S)
    assert site.broker.sent == [identity.CheckUsers([BEN])]
    site.broker.handle(UserAccount(BEN, *now))
    assert site.is_out(ben)
    if now[0] != "renamed":
        (refused,) = site.heard(ben)
        assert refused.refusals[0].code == "key_refused"
        assert "any more" in refused.refusals[0].message
        assert not site.state.reservations.live


def test_batch_systems_reserve_for_users_who_may_enter_alone(site: Site) -> None:
    cleo = site.enter(CLEO)

    def decision(user: str) -> tuple[str, str]:
        ask = ReservationRequest(device="main", scope="slurm/big", job="7", request_id=user)
        found = site.get(admin.DecisionReply, admin.Reserve(1, ask, owner=user), cleo).decision
        return found.status, found.message

    for uid, groups in ((ANA, ()), (BEN, ("chem",)), (EVE, ("physics",))):
        assert decision(NAMES[uid])[0] == "delayed"
        assert site.broker.sent.pop() == identity.CheckUsers([NAMES[uid]])
        assert decision(NAMES[uid])[0] == "delayed", "not asked again"
        assert not site.broker.sent
        site.broker.handle(UserAccount(uid, NAMES[uid], groups))
    assert decision("ana")[0] == decision("ben")[0] == "accepted"
    status, message = decision("eve")
    assert status == "rejected"
    assert "eve may not use the environment 'default'" in message
    assert {each.grant.owner for each in site.state.reservations.live.values()} == {"ana", "ben"}
    now_s = time.monotonic()
    assert site.users.refusal_of("nobody-here", now_s) is None
    refusal = site.users.refusal_of("nobody-here", now_s + identities.ANSWER_S + 0.1)
    assert refusal == "the host of the service has no account 'nobody-here'"
    site.tick(identities.NAMED_S + 1.0)
    assert not site.users._named


@pytest.mark.parametrize("policy", ["keep", "hold", "cancel"])
def test_waiting_tasks_of_user_who_leaves_follow_the_policy(tmp_path: Path, policy: str) -> None:
    site = Site(tmp_path, removed_users=policy)
    site.submit(peer=site.enter(BEN, ("chem",)))
    (task,) = site.state.tasks.values()

    def confirm(*groups: str) -> None:
        site.broker.handle(UserAccount(BEN, "ben", groups))
        site.loop._next_tick_ns = 0
        site.step()

    confirm("chem")
    assert not site.state.shares.limits.removed
    site.users._table.withdraw(BEN)  # its certificate has ended, its task waits
    site.tick(identities.CHECK_S)
    assert site.broker.sent == [identity.CheckUsers([BEN])]
    confirm("physics")
    site.join()
    site.step()
    outcome = {"keep": SENT, "hold": WAITING, "cancel": FINAL}
    assert task.phase == outcome[policy]
    if policy == "hold":
        assert site.state.shares.limits.removed == {"ben"}
        confirm("chem")
        assert task.phase == SENT


def test_reservation_of_a_user_who_leaves_the_site_ends_without_a_certificate(site: Site) -> None:
    ben = site.enter(BEN, ("chem",))
    reserve(site, ben)
    site.users._table.withdraw(BEN)  # its certificate has ended, its batch job runs
    site.tick(identities.CHECK_S)
    assert site.broker.sent == [identity.CheckUsers([BEN])]
    site.broker.handle(UserAccount(BEN, "ben", ("physics",)))
    site.loop._next_tick_ns = 0
    site.step()
    assert not site.state.reservations.live


def lab(tmp_path: Path, **options: object) -> Site:
    """A site whose directory lists no member of the group `lab`, which has an account."""
    site = Site(tmp_path, accounts={"physics": {"users": ["@lab"]}}, **options)
    site.members["lab"] = set()
    return site


def answer_of(site: Site, peer: MemoryConnection, key: str) -> m.Accepted | m.Refusal:
    answer = site.submit(key=key, peer=peer)
    return answer if isinstance(answer, m.Accepted) else answer.refusals[0]


def test_groups_of_broker_count_for_accounts_where_directory_lists_none(tmp_path: Path) -> None:
    site = lab(tmp_path, identity={**SETTINGS, "users": ["ben"]})
    site.look_up_groups()
    ben = site.enter(BEN, ("lab",))
    assert isinstance(answer_of(site, ben, "~a"), m.Accepted)
    (task,) = site.state.tasks.values()
    assert task.batch.association == "physics/ben"
    site.look_up_groups()
    site.broker.handle(UserAccount(BEN, "ben", ("lab",)))
    assert isinstance(answer_of(site, ben, "~b"), m.Accepted)
    site.broker.handle(UserAccount(BEN, "ben", ()))  # it has left the group, and may still enter
    assert not site.is_out(ben)
    assert answer_of(site, ben, "~c").code == "not_allowed"


def test_groups_of_a_user_without_certificate_and_work_are_forgotten(tmp_path: Path) -> None:
    site = lab(tmp_path)
    site.look_up_groups()
    site.enter(BEN, ("lab",))
    assert site.loop.accounting.accounts.tree.accounts_of("ben") == ("physics",)
    site.users._table.withdraw(BEN)
    site.tick(identities.CHECK_S)
    assert site.loop.accounting.accounts.tree.accounts_of("ben") == ()


@pytest.mark.parametrize("groups", [("lab",), ("physics",)])
def test_work_of_a_group_member_outlives_a_restart_until_the_broker_denies_the_group(
    tmp_path: Path, groups: tuple[str, ...]
) -> None:
    site = lab(tmp_path, removed_users="cancel")
    site.look_up_groups()
    ben = site.enter(BEN, ("lab",))
    assert isinstance(answer_of(site, ben, "~a"), m.Accepted)
    reserve(site, ben)
    site.restart()
    site.look_up_groups()
    assert site.state.shares.limits.removed == {"ben"}  # its tasks are held meanwhile
    site.tick(identities.CHECK_S)
    assert site.broker.sent == [identity.CheckUsers(["ben"])]
    site.broker.handle(UserAccount(BEN, "ben", groups))
    site.look_up_groups()
    is_member = groups == ("lab",)
    assert (len(site.state.tasks), len(site.state.reservations.live)) == (is_member, is_member)
    assert not site.state.shares.limits.removed or not is_member


def test_work_of_nobody_the_broker_knows_ends_soon_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = lab(tmp_path, removed_users="cancel")
    site.look_up_groups()
    reserve(site, site.enter(BEN, ("lab",)))
    monkeypatch.setattr(account_groups, "CONFIRM_NS", 0)
    site.restart()
    site.look_up_groups()
    assert not site.state.reservations.live


def test_user_whom_nobody_confirms_is_out_within_sixty_seconds(site: Site) -> None:
    ben = site.enter(BEN, ("chem",))
    site.tick(identities.STALE_S - 1.0)
    assert not site.is_out(ben)
    site.tick(identities.STALE_S + identities.TICK_S)
    assert site.is_out(ben)
    assert identities.CHECK_S + identities.STALE_S + identities.TICK_S <= identities.OUT_S
    site.enter(BEN, ("chem",))  # and comes back


def test_member_whom_the_broker_confirms_stays(site: Site) -> None:
    ben = site.enter(BEN, ("chem",))
    for after_s in (15.0, 30.0):
        site.tick(after_s)
        site.broker.handle(UserAccount(BEN, "ben", ("chem",)))
    assert not site.is_out(ben)


def test_member_of_an_account_is_out_when_the_account_changes(site: Site) -> None:
    set_accounts = site.loop.scheduler.set_accounts
    set_accounts(AccountTree({"lab": Account(users=("eve",))}), Billing(), {})
    eve = site.enter(EVE)
    set_accounts(AccountTree({"lab": Account()}), Billing(), {})
    site.tick(identities.TICK_S)
    assert site.is_out(eve)


def test_certificates_of_a_user_are_bounded_and_the_oldest_goes(site: Site) -> None:
    peers = [site.enter(ANA) for _ in range(identities.MAX_OF_USER + 1)]
    assert site.is_out(peers[0])
    assert not any(map(site.is_out, peers[1:]))
    assert len(site.users._table.users[ANA].ends_s) == identities.MAX_OF_USER


def test_change_of_keys_leaves_certificates_alone_and_a_restart_the_limits(site: Site) -> None:
    ana = site.enter(ANA)
    site.say(credentials.AddKey(1, "dora", "client", new_pair().public))
    site.say(credentials.RevokeKey(1, "dora"))
    assert site.get(m.Pong, m.Ping(1), ana).epoch
    site.say(accounting.SetLimits(1, "ana", {"max_queued_tasks": 7}))
    site.restart()
    site.enter(ANA)
    assert site.state.shares.limits.of("ana").max_queued_tasks == 7


def test_holder_of_certificate_cannot_rotate_key_of_higher_role(site: Site) -> None:
    site.say(credentials.AddKey(1, "ana", "admin", new_pair().public))
    refusal = site.refusal(credentials.RotateKey(1, "", new_pair().public, 60.0), site.enter(ANA))
    assert refusal.code == "not_allowed"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"use": "ldap"}, "identity.use = 'ldap' is not known"),
        ({"use": "local"}, "there are none"),
        ({"use": "local", "users": ["a b"]}, "'a b' is no user"),
        ({"use": "local", "users": ["ana"], "lifetime_s": 1.0}, "identity.lifetime_s"),
        ({"use": "munge", "users": ["ana"]}, "two addresses"),
        ({"use": "munge", "users": ["ana"], "listen": "tcp://lo:0"}, "no fixed port"),
        ({"who": 1}, "unknown key 'identity.who'"),
    ],
)
def test_bad_identity_settings_are_refused(settings: dict[str, object], text: str) -> None:
    listen = {"listen": "tcp://lo:0"} if "listen" in settings else {}
    error = fails(ConfigError, "", convert, {"identity": settings, **listen})
    assert text in error.message


def test_messages_of_broker_and_service_are_decoded_as_sent() -> None:
    request = CertificateRequest(1, "default", "k" * 40, "n" * 16)
    for message in (
        UserRequest(1, 2, "ana", ("chem",), "here", request),
        UserAccount(2, "ana", ("chem",)),
    ):
        assert identity.from_broker(identity.encode(message)) == message
    denial = Denial("key_refused", "no", "yes")
    for answer in (identity.UserAnswer(1, denial), identity.CheckUsers([1, "ana"])):
        assert identity.from_service(identity.encode(answer)) == answer
    fails(msgspec.ValidationError, "", identity.request_of, b'{"format": 1}')
