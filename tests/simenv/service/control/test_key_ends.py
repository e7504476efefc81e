"""Keys that end: at a time, or some time after their rotation."""

import time
from pathlib import Path

import pytest
from failing import fails
from multi_user_harness import MultiUserHarness

from simenv.errors import KeyConflictError, KeyRefusedError, NotFoundError, OptionError
from simenv.wire.key_list import MAX_OVERLAP_S, MAX_OVERLAPPING, has_expired, identities, rotated
from simenv.wire.keyfiles import new_pair, read_keys, write_keys
from simenv.wire.messages import client as m
from simenv.wire.messages.credentials import AddKey, GetKeys, KeyInfo, Keys, RevokeKey, RotateKey
from simenv.wire.transport.sockets import PeerKind

NOW_S = 1_000_000.0


@pytest.fixture
def town(tmp_path: Path) -> MultiUserHarness:
    return MultiUserHarness(tmp_path)


def key(name: str, expires_s: float = 0.0, role: str = "client") -> KeyInfo:
    return KeyInfo(name, role, new_pair().public, NOW_S - 10.0, expires_s)


def test_expired_key_is_refused_and_its_connection_closed(town: MultiUserHarness) -> None:
    end_s = time.time() + 100.0
    public, eva = town.admit("eva", expires_s=end_s)
    town.loop.commands.keys.close_expired(end_s - 1.0)
    assert town.get(m.Pong, m.Ping(1), eva).epoch
    town.loop.commands.keys.close_expired(end_s + 5.0)
    (refused,) = town.heard(eva)
    assert refused.refusals[0].code == "key_refused"
    assert "has expired" in refused.refusals[0].message
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"eva", public)
    assert town.get(m.Pong, m.Ping(1), town.ana).epoch


def test_expired_key_stays_refused_after_restart_and_is_listed(town: MultiUserHarness) -> None:
    path = town.folder / "keys.json"
    old = key("eva", NOW_S)
    write_keys(path, [*read_keys(path), old])
    town.restart()
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"eva", old.public_key)
    assert old in town.get(Keys, GetKeys(1)).keys


def test_end_in_the_past_is_refused(town: MultiUserHarness) -> None:
    for end_s in (1.0, float("nan"), -5.0):
        town.refusal(AddKey(1, "eve", "client", new_pair().public, end_s))
        assert "eve" not in {each.name for each in town.get(Keys, GetKeys(1)).keys}


def test_holder_rotates_own_key_and_both_are_accepted(town: MultiUserHarness) -> None:
    new = new_pair()
    message = RotateKey(1, "", new.public, 600.0)
    answer = town.get(Keys, message, town.ana)
    assert [(each.name, each.role) for each in answer.keys] == [("ana", "client")] * 2
    assert answer.keys[-1].public_key == new.public
    assert answer.keys[-1].expires_s == 0.0
    assert answer.keys[0].expires_s == pytest.approx(time.time() + 600.0, abs=60.0)
    (event,) = town.events("audit.keys.rotate")
    assert town.get(Keys, message, town.ana).keys == answer.keys, "a repeat adds none"
    assert event.subject == "ana"
    assert "by ana (client)" in event.message
    again = town.listener.connect(PeerKind.CLIENT, b"new", new.public)
    assert town.get(m.Pong, m.Ping(1), town.ana).epoch
    assert town.get(m.Pong, m.Ping(1), again).epoch
    town.loop.commands.keys.close_expired(time.time() + 700.0)
    assert isinstance(town.heard(town.ana)[0], m.Refused)
    assert town.get(m.Pong, m.Ping(1), again).epoch


def test_client_cannot_rotate_key_of_another(town: MultiUserHarness) -> None:
    before = town.get(Keys, GetKeys(1)).keys
    for name in ("ben", "nobody"):
        refusal = town.refusal(RotateKey(1, name, new_pair().public, 60.0), town.ana)
        assert refusal.code == "not_allowed"
        assert "ops" not in refusal.hint
    assert town.get(Keys, GetKeys(1)).keys == before
    assert town.get(Keys, RotateKey(1, "ben", new_pair().public, 60.0), town.ops).keys


def test_revocation_ends_all_keys_of_a_name(town: MultiUserHarness) -> None:
    new = new_pair()
    town.say(RotateKey(1, "ana", new.public, 600.0))
    town.say(RevokeKey(1, "ana"))
    for public in (town.key["ana"], new.public):
        fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"x", public)


# --- the list itself ---------------------------------------------------------------------------


def test_rotation_keeps_role_and_end_of_the_newest_key_and_bounds_the_former_ones() -> None:
    keys = [key("ana", NOW_S + 500.0, "admin"), key("ben")]
    result = rotated(keys, "ana", new_pair().public, 60.0, NOW_S)
    assert [(each.name, each.role, each.expires_s) for each in result] == [
        ("ben", "client", 0.0), ("ana", "admin", NOW_S + 60.0), ("ana", "admin", NOW_S + 500.0),
    ]  # fmt: skip
    later = rotated(result, "ana", new_pair().public, 1_000.0, NOW_S)
    ends = [each.expires_s for each in later if each.name == "ana"]
    assert ends == [NOW_S + 60.0, NOW_S + 500.0, NOW_S + 500.0]
    keys = [key("ana")]
    for _ in range(10):
        keys = rotated(keys, "ana", new_pair().public, 60.0, NOW_S)
    assert len(keys) == MAX_OVERLAPPING + 1


def test_unsuitable_rotations_are_refused() -> None:
    ana, ben = key("ana"), key("ben")
    fails(NotFoundError, "", rotated, [ben], "ana", new_pair().public, 60.0, NOW_S)
    fails(KeyConflictError, "", rotated, [ana, ben], "ana", ben.public_key, 60.0, NOW_S)
    expired = [key("ana", NOW_S)]
    fails(OptionError, "has expired", rotated, expired, "ana", new_pair().public, 60.0, NOW_S)
    for overlap_s in (0.0, -1.0, MAX_OVERLAP_S + 1.0, float("nan")):
        fails(OptionError, "overlap_s", rotated, [ana], "ana", new_pair().public, overlap_s, NOW_S)


def test_expired_keys_have_no_identity() -> None:
    keys = [key("ana", NOW_S), key("ben", NOW_S + 1.0), key("cleo")]
    assert {each.owner for each in identities(keys, NOW_S).values()} == {"ben", "cleo"}
    assert [has_expired(each, NOW_S) for each in keys] == [True, False, False]
