"""Bearer tokens, and the certificates that gateways get for them."""

import hashlib
import json
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from failing import fails
from memory_transport import MemoryConnection
from service import spec
from token_harness import DAY_S, TokenHarness

from simenv.errors import ConfigError, KeyRefusedError
from simenv.model import ReservationRequest, TaskOptions, task_name
from simenv.model.reservations import CalendarEntry
from simenv.service import tokens as service_tokens
from simenv.service.tokens import MAX_LIFETIME_S, MAX_OF_RESERVATION, MAX_OF_USER, MAX_SESSIONS
from simenv.wire import keyfiles
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import accounting, client as m
from simenv.wire.messages.accounting import SetLimits
from simenv.wire.messages.admin import (  # fmt: skip
    AddCalendarEntry,
    DecisionReply,
    Release,
    Released,
    RemoveCalendarEntry,
    Renew,
    Reserve,
)  # fmt: skip
from simenv.wire.messages.credentials import (  # fmt: skip
    AddKey,
    CreateToken,
    ExchangeToken,
    GetKeys,
    GetTokens,
    RevokeKey,
    RevokeToken,
    RotateKey,
    TokenCreated,
    TokenInfo,
    Tokens,
)  # fmt: skip
from simenv.wire.transport.sockets import PeerKind


@pytest.fixture
def town(tmp_path: Path) -> TokenHarness:
    return TokenHarness(tmp_path)


def infos(town: TokenHarness, peer: MemoryConnection | None = None) -> list[TokenInfo]:
    return town.get(Tokens, GetTokens(1), peer).tokens


def test_token_is_random_and_stored_as_a_hash_in_a_private_file(town: TokenHarness) -> None:
    first, second = town.create(town.ana), town.create(town.ana)
    assert first.secret != second.secret
    assert len(first.secret) >= 43 + len("simenv_")
    path = town.folder / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert json.loads(text)["format"] == 1
    assert first.secret.removeprefix("simenv_") not in text
    assert hashlib.sha256(first.secret.encode()).hexdigest() in text
    assert first.token.user == "ana"


def test_certificate_of_a_token_has_the_rights_of_its_user(town: TokenHarness) -> None:
    ana = town.enter(town.create(town.ana).secret)
    number = town.order(ana, "a")
    town.order(town.ben, "b")
    for peer in (ana, town.ana):
        queue = town.get(m.Queue, m.GetQueue(1, False, 10), peer)
        assert [each.id for each in queue.tasks] == [task_name(number)]
    assert town.refusal(GetKeys(1), ana).code == "not_allowed"
    assert "audit.identity.admitted ana role client" in town.audited()


def test_audit_log_names_user_and_gateway(town: TokenHarness) -> None:
    ops = town.enter(town.create(town.ops, role="admin").secret)
    town.say(AddKey(1, "eva", "client", new_pair().public), ops)
    assert "by ops (admin) through web from" in town.audited()


@pytest.mark.parametrize(
    "message",
    [
        m.Submit(5, "~k", 0, TaskOptions(), []), m.GetQueue(1, False, 10), m.Cancel(1, [1]),
        GetTokens(1), CreateToken(1, "", "", "client", "", DAY_S), GetKeys(1),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_role_gateway_permits_nothing_of_users(town: TokenHarness, message: object) -> None:
    assert town.refusal(message, town.web).code == "not_allowed"


def test_clients_cannot_exchange_tokens(town: TokenHarness) -> None:
    secret = town.create(town.ana).secret
    message = ExchangeToken(1, secret, new_pair().public)
    assert town.refusal(message, town.ben).code == "not_allowed"


def test_user_cannot_make_tokens_of_others_or_with_more_rights(town: TokenHarness) -> None:
    def code(peer: MemoryConnection, user: str, role: str = "client") -> str:
        return town.refusal(CreateToken(1, user, "", role, "", DAY_S), peer).code

    assert code(town.ana, "ben") == code(town.ana, "nobody") == "not_allowed"
    for role in ("admin", "gateway", "worker", "monitor", "root"):
        assert code(town.ana, "", role) == "option"
    # Nor does a token of a user make one with more rights than its own.
    limited = town.enter(town.create(town.ops, role="client").secret)
    assert (code(limited, "", "admin"), code(limited, "ana")) == ("option", "not_allowed")
    limited = town.enter(town.create(role="client").secret)  # of the environment's own user
    assert code(limited, "ana") == "not_allowed"
    assert {each.user for each in infos(town, limited)} == {""}


def test_user_whose_membership_has_ended_makes_no_token(tmp_path: Path) -> None:
    town = TokenHarness(tmp_path, accounts={"lab": {"users": ["ana", "eva"]}})
    eva = town.enter(town.create(user="eva").secret)
    assert town.create(eva).token.user == "eva"
    account = town.get(accounting.Accounts, accounting.GetAccounts(1)).accounts["lab"]
    now_s = town.loop.tokens._ticked_s = time.monotonic() + 1_000.0  # no tick until then
    town.say(accounting.SetAccount(2, "lab", msgspec.structs.replace(account, users=("ana",))))
    assert town.refusal(CreateToken(1, "", "", "client", "", DAY_S), eva).code == "key_refused"
    assert town.loop.tokens._ticked_s == now_s


def test_admin_makes_tokens_of_others(town: TokenHarness) -> None:
    made = town.create(town.ops, user="ana")
    assert made.token.user == "ana"
    assert [each.number for each in infos(town, town.ana)] == [made.token.number]
    refusal = town.refusal(CreateToken(1, "ana", "", "admin", "", DAY_S), town.ops)
    assert refusal.code == "option"
    assert town.create(user="eva").token.user == "eva"  # a new user, who enters by it alone
    assert infos(town, town.ben) == []
    assert {each.user for each in infos(town, town.ops)} == {"ana", "eva"}


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        (("", "", "client", "", 0.0), "option", "lifetime_s"),
        (("", "", "client", "", MAX_LIFETIME_S + 1.0), "option", "lifetime_s"),
        (("", "", "client", "a\x1b[2J", DAY_S), "option", ""),
        (("", "chem", "client", "", DAY_S), "not_found", ""),
    ],
    ids=["no time", "too long", "control characters", "unknown account"],
)
def test_token_that_cannot_be_made_is_refused(
    town: TokenHarness, fields: tuple[Any, ...], code: str, words: str
) -> None:
    refusal = town.refusal(CreateToken(1, *fields), town.ana)
    assert (refusal.code, words in refusal.message) == (code, True)


def test_tokens_of_a_user_are_bounded(town: TokenHarness) -> None:
    for _ in range(MAX_OF_USER):
        town.create(town.ana)
    refusal = town.refusal(CreateToken(1, "", "", "client", "", DAY_S), town.ana)
    assert refusal.code == "limit"
    assert f"{MAX_OF_USER} tokens of ana" in refusal.message
    town.create(town.ben)
    # She can still open the page, and end them there.
    assert town.get(TokenCreated, CreateToken(1, "", "", "client", "", DAY_S, once=True), town.ana)


def test_forged_token_is_refused(town: TokenHarness) -> None:
    made = town.create(town.ana)
    for secret in (made.secret[:-1] + "!", "simenv_" + "x" * 43):
        assert town.refused(secret).code == "key_refused"


def test_revoked_token_ends_its_connections_at_once(town: TokenHarness) -> None:
    made, other = town.create(town.ana), town.create(town.ana)
    first, second = town.enter(made.secret), town.enter(other.secret)
    assert town.refusal(RevokeToken(1, made.token.number), town.ben).code == "not_found"
    town.say(RevokeToken(1, made.token.number), town.ana)
    (refused,) = town.heard(first)
    assert "was revoked" in refused.refusals[0].message
    assert town.say(m.Ping(1), first) == []
    assert town.get(m.Pong, m.Ping(1), second)
    assert town.refused(made.secret).code == "key_refused"
    assert f"audit.tokens.revoke {made.token.number} of ana" in town.audited()
    town.say(RevokeToken(1, other.token.number), town.ops)
    assert infos(town) == []


@pytest.mark.parametrize("is_new_made", [False, True])
def test_expired_token_ends_its_connections(
    town: TokenHarness, monkeypatch: pytest.MonkeyPatch, is_new_made: bool
) -> None:
    made = town.create(town.ana, lifetime_s=100.0)
    ana = town.enter(made.secret)
    monkeypatch.setattr(time, "time", lambda: made.token.expires_s + 1.0)
    assert town.refused(made.secret).code == "key_refused"
    if is_new_made:  # it removes the one that has expired
        town.create(town.ben)
    town.tick()
    (refused,) = town.heard(ana)
    assert "has expired" in refused.refusals[0].message
    assert made.token.number not in {each.number for each in infos(town)}


def test_certificate_ends_with_its_token_or_unless_it_is_renewed(town: TokenHarness) -> None:
    short = town.create(town.ana, lifetime_s=100.0)
    assert 0.0 < town.exchange(short.secret).lifetime_s <= 100.0
    secret, public_key = town.create(town.ana).secret, new_pair().public
    lifetime_s = town.exchange(secret, public_key).lifetime_s
    assert lifetime_s == town.config.identity.lifetime_s
    ana = town.listener.connect(PeerKind.CLIENT, b"a", public_key)
    now_s = time.monotonic() + lifetime_s
    town.loop.tokens.tick(now_s - 5.0)
    assert town.get(m.Pong, m.Ping(1), ana)
    town.loop.tokens._ticked_s = 0.0
    town.loop.tokens.tick(now_s + 5.0)
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"b", public_key)
    assert "audit.identity.expired ana its last certificate was not renewed" in town.audited()
    town.loop.tokens._ticked_s = 0.0
    town.loop.tokens.tick(now_s + 10.0)  # its holder was stopped for long, and renews it now
    town.exchange(secret, public_key)
    assert town.get(m.Pong, m.Ping(1), town.listener.connect(PeerKind.CLIENT, b"c", public_key))


def test_revoked_key_of_a_user_ends_the_tokens(town: TokenHarness) -> None:
    secret = town.create(town.ana).secret
    ana = town.enter(secret)
    town.say(RevokeKey(1, "ana"))
    assert isinstance(town.heard(ana)[0], m.Refused)
    assert town.refused(secret).code == "key_refused"


def test_revoked_key_of_a_gateway_ends_its_certificates(
    town: TokenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that has expired."""
    secret, public_key = town.create(town.ana).secret, new_pair().public
    town.exchange(secret, public_key)
    town.say(RevokeKey(1, "web"))
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"b", public_key)
    assert len(infos(town)) == 1  # another gateway may use it
    assert "came through web, whose key was revoked" in town.audited()
    end_s = time.time() + 1_000.0
    _, town.web = town.admit("short", "gateway", end_s)
    public_key = new_pair().public
    town.exchange(secret, public_key)
    monkeypatch.setattr(time, "time", lambda: end_s + 1.0)
    town.tick()
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"b", public_key)


def test_user_without_membership_loses_the_certificates(tmp_path: Path) -> None:
    town = TokenHarness(tmp_path, accounts={"lab": {"users": ["ana", "eva"]}})
    eva = town.enter(town.create(user="eva").secret)
    assert town.order(eva)
    account = town.get(accounting.Accounts, accounting.GetAccounts(1)).accounts["lab"]
    without = msgspec.structs.replace(account, users=("ana",))
    town.say(accounting.SetAccount(2, "lab", without))
    town.tick()
    answers = town.heard(eva)
    assert any(isinstance(each, m.Refused) for each in answers)
    assert town.say(m.Ping(1), eva) == []
    assert "is no user any more" in town.audited()


def test_one_time_token_is_exchanged_once(town: TokenHarness) -> None:
    made = town.create(town.ana, once=True, lifetime_s=100.0)
    ana = town.enter(made.secret)
    assert town.refused(made.secret).code == "key_refused"
    assert town.create(ana, purpose="browser").token.user == "ana"
    town.tick()
    assert town.get(m.Pong, m.Ping(1), ana)
    town.restart()
    town.arrive()
    assert town.refused(made.secret).code == "key_refused"


def test_restart_keeps_tokens_and_the_times_of_their_use(
    town: TokenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_tokens, "USED_S", 0.0)
    used, unused = town.create(town.ana), town.create(town.ben)
    town.exchange(used.secret)
    town.tick()
    town.restart()
    town.arrive()
    by_number = {each.number: each for each in infos(town)}
    assert by_number[used.token.number].used_s > 0.0
    assert by_number[unused.token.number].used_s == 0.0
    assert town.order(town.enter(used.secret))


def test_limits_of_a_user_with_a_token_alone_survive_a_restart(town: TokenHarness) -> None:
    secret = town.create(user="eva").secret
    town.say(SetLimits(1, "eva", {"max_queued_tasks": 1}))
    town.restart()
    town.arrive()
    eva = town.enter(secret)
    assert town.order(eva, "a")
    assert not town.order(eva, "b")


def test_two_gateways_use_one_token(town: TokenHarness) -> None:
    secret = town.create(town.ana).secret
    first = town.enter(secret)
    _, town.web = town.admit("second", "gateway")
    second = town.enter(secret)
    town.tick()
    assert town.get(m.Pong, m.Ping(1), first)
    town.say(RevokeKey(1, "second"))
    assert town.say(m.Ping(1), second) == []
    assert town.get(m.Pong, m.Ping(1), first)


def test_public_key_in_use_is_refused(town: TokenHarness) -> None:
    ana, ben = town.create(town.ana).secret, town.create(town.ben).secret
    public_key = new_pair().public
    town.exchange(ana, public_key)
    town.exchange(ana, public_key)  # a renewal
    message = ExchangeToken(1, ben, public_key)
    assert town.refusal(message, town.web).code == "key_conflict"
    stolen = ExchangeToken(1, ben, town.key["ana"])
    assert town.refusal(stolen, town.web).code == "key_conflict"


def test_full_disk_cannot_keep_a_token_valid(
    town: TokenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = town.create(town.ana)

    def full(*_: object) -> None:
        raise ConfigError("cannot write tokens.json: No space left on device")

    monkeypatch.setattr(keyfiles, "write_list", full)
    assert town.refusal(RevokeToken(1, made.token.number)).code == "config"
    assert town.refused(made.secret).code == "key_refused"


def test_environment_without_a_listener_serves_its_own_user_alone(town: TokenHarness) -> None:
    own, ana = town.create().secret, town.create(town.ana).secret
    town.loop.tokens.server = None
    assert town.exchange(own).address == ""
    refusal = town.refused(ana)
    assert refusal.code == "key_refused"
    assert "--gateway" in refusal.hint


def test_damaged_file_or_one_that_others_can_open_is_refused(town: TokenHarness) -> None:
    town.create()
    path = town.folder / "tokens.json"
    path.chmod(0o640)
    fails(ConfigError, "can be opened by others", town.restart)
    path.chmod(0o600)
    path.write_text('{"format": 2, "tokens": []}')
    fails(ConfigError, "has format 2", town.restart)


def test_token_ends_with_its_parent(town: TokenHarness) -> None:
    first = town.create(town.ana, lifetime_s=DAY_S)
    second = town.create(town.ana, lifetime_s=2 * DAY_S, parent=first.token.number)
    third = town.create(town.ana, lifetime_s=60.0, parent=second.token.number)
    other = town.create(town.ana)
    assert second.token.expires_s == first.token.expires_s
    assert third.token.expires_s < first.token.expires_s
    town.restart()
    town.arrive()
    town.say(RevokeToken(1, second.token.number), town.ana)
    assert {each.number for each in infos(town)} == {first.token.number, other.token.number}
    again = town.create(town.ana, parent=first.token.number)
    session = town.enter(again.secret)
    town.say(RevokeToken(1, first.token.number), town.ana)
    assert [each.number for each in infos(town)] == [other.token.number]
    assert [type(each) for each in town.heard(session)] == [m.Refused]
    town.restart()
    town.arrive()
    for secret in (first.secret, second.secret, third.secret, again.secret):
        assert town.refused(secret).code == "key_refused"
    town.exchange(other.secret)


def test_parent_of_a_token_is_one_of_the_same_user(town: TokenHarness) -> None:
    number = town.create(town.ana).token.number
    message = CreateToken(1, "", "", "client", "", DAY_S, parent=number)
    assert town.refusal(message, town.ben).code == "not_found"
    message = CreateToken(1, "ben", "", "client", "", DAY_S, parent=number)
    assert town.refusal(message, town.ops).code == "option"


def test_token_of_a_reservation_names_its_pool_and_ends_with_it(town: TokenHarness) -> None:
    number = reserved(town, town.ana)
    made = town.create(town.ana, reservation=number)
    assert (made.token.reservation, made.token.pool) == (number, "main")
    assert town.exchange(made.secret).token == made.token
    ana = town.enter(made.secret)
    other = town.create(town.ana)
    town.get(Released, Release(1, number), town.ana)
    assert town.refused(made.secret).code
    assert [each.number for each in infos(town, town.ana)] == [other.token.number]
    town.tick()
    assert town.refusal(GetTokens(1), ana).code == "key_refused"
    town.restart()
    assert [each.number for each in infos(town)] == [other.token.number]


def reserved(town: TokenHarness, peer: MemoryConnection, **fields: object) -> int:
    """A reservation of a peer; its number."""
    ask = Reserve(1, ReservationRequest(device="main", **fields))  # type: ignore[arg-type]
    return town.get(DecisionReply, ask, peer).decision.reservation


def test_token_of_a_reservation_is_good_for_work_under_it_alone(town: TokenHarness) -> None:
    number, other = reserved(town, town.ana), reserved(town, town.ana)
    made = town.create(town.ana, reservation=number)
    ana = town.enter(made.secret)

    def submitted(under: int) -> m.Accepted | m.Refused:
        terms = TaskOptions(reservation=under)
        return town.submit(spec(under), key=f"~{under}", terms=terms, peer=ana)

    assert isinstance(submitted(number), m.Accepted)
    for under in (0, other):
        answer = submitted(under)
        assert f"for work under reservation {number}" in answer.refusals[0].message
    ask = ReservationRequest(device="main")
    planned = CalendarEntry(time.time() + 60.0, 60.0, ask=ask)
    for message in (
        Reserve(1, ask), Renew(1, number, 10**9), Release(1, other), AddCalendarEntry(1, planned),
        RemoveCalendarEntry(1, 1), RotateKey(1, "ana", new_pair().public, 60.0),
        CreateToken(1, "", "", "client", "more", DAY_S),
        CreateToken(1, "", "", "client", "more", DAY_S, reservation=other),
    ):  # fmt: skip
        assert town.refusal(message, ana).code == "not_allowed", message
    assert town.get(DecisionReply, Reserve(1, ask, dry=True), ana)
    assert town.create(ana, purpose="browser", reservation=number).token.reservation == number
    town.get(Released, Release(1, number), ana)


def test_token_of_a_reservation_has_no_rights_of_an_admin(town: TokenHarness) -> None:
    number = reserved(town, town.ops)
    message = CreateToken(1, "", "", "admin", "", DAY_S, reservation=number)
    assert town.refusal(message, town.ops).code == "option"
    ops = town.enter(town.create(town.ops, reservation=number).secret)
    assert town.refusal(GetKeys(1), ops).code == "not_allowed"


def test_repeat_for_a_reservation_returns_its_token(town: TokenHarness) -> None:
    number = reserved(town, town.ana)
    made = town.create(town.ana, reservation=number)
    for _ in range(MAX_OF_RESERVATION):
        assert town.create(town.ana, reservation=number) == made
    assert len(infos(town, town.ana)) == 1
    # Those of a gateway's user, of an admin and for other purposes are new, and bounded.
    bound = town.enter(made.secret)
    made_by_others = [
        town.create(bound, reservation=number),
        town.create(town.ops, "ana", reservation=number),
        *(town.create(town.ana, purpose=f"p{k}", reservation=number) for k in range(5)),
    ]
    assert made.secret not in [each.secret for each in made_by_others]
    message = CreateToken(1, "", "", "client", "more", DAY_S, reservation=number)
    refusal = town.refusal(message, town.ana)
    assert f"{MAX_OF_RESERVATION} tokens of reservation {number}" in refusal.message
    town.say(RevokeToken(1, made.token.number), town.ana)
    assert town.create(town.ana, reservation=number).secret != made.secret


def test_new_session_of_the_page_ends_the_oldest_one(
    town: TokenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = reserved(town, town.ana)
    parent = town.create(town.ana, reservation=number).token.number
    for _ in range(MAX_OF_RESERVATION - 1):
        town.create(town.ops, "ana", reservation=number)
    fields = {"reservation": number, "parent": parent}
    made = [town.create(town.ops, "ana", **fields).token for _ in range(MAX_SESSIONS + 2)]
    live = {info.number for info in infos(town, town.ana)}
    assert parent in live
    assert [each.number in live for each in made] == [False] * 2 + [True] * MAX_SESSIONS
    # So do those of all tokens of a user.
    monkeypatch.setattr(service_tokens, "MAX_OF_USER", 3)
    parent = town.create(town.ben).token.number
    made = [town.create(town.ops, "ben", parent=parent).token for _ in range(5)]
    live = {info.number for info in infos(town, town.ben)}
    assert [each.number in live for each in made] == [False] * 2 + [True] * 3
    message = CreateToken(1, "", "", "client", "", DAY_S, once=True)
    assert town.get(TokenCreated, message, town.ben)
    assert made[2].number not in {info.number for info in infos(town, town.ben)}


def test_jobs_have_more_tokens_than_users(
    town: TokenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_tokens, "MAX_OF_USER", 2)

    def of_job(job: int) -> int:
        ask = ReservationRequest(device="main", scope="slurm/big", job=str(job))
        message = Reserve(1, ask, owner="ana")
        return town.get(DecisionReply, message, town.ops).decision.reservation

    for job in range(3):
        assert town.create(town.ana, reservation=of_job(job))
    town.create(town.ana, reservation=reserved(town, town.ana))
    town.create(town.ana)
    message = CreateToken(1, "", "", "client", "", DAY_S)
    assert town.refusal(message, town.ana).code == "limit"
    assert town.create(town.ana, reservation=of_job(3))


def test_token_of_another_users_or_an_ended_reservation_is_refused(town: TokenHarness) -> None:
    number = reserved(town, town.ana)

    def refused(peer: MemoryConnection, user: str = "") -> str:
        message = CreateToken(1, user, "", "client", "", DAY_S, False, number)
        return town.refusal(message, peer).code

    assert refused(town.ben) == refused(town.ops) == "reservation"
    assert town.create(town.ops, "ana", reservation=number).token.user == "ana"
    town.get(Released, Release(1, number), town.ana)
    assert refused(town.ana) == "reservation"


def test_all_tokens_fit_into_the_file() -> None:
    info = TokenInfo("0" * 8, "u" * 64, "a" * 64, "client", "p" * 64, 1e9 + 0.123456, 2e9, 3e9)
    reserved = {"reservation": 2**63 - 1, "pool": "p" * 64}
    info = msgspec.structs.replace(info, purpose="\U0001f600" * 64, **reserved)
    token = service_tokens.StoredToken(info, "f" * 64, True, True)
    content = service_tokens.TokensFile(1, [token] * service_tokens.MAX_TOKENS)
    assert len(keyfiles._encoded(content)) <= keyfiles.MAX_FILE_BYTES
