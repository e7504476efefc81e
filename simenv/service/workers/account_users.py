"""Users of the machine as which the tasks of accounts run: one number for each account.

The numbers are of a range that nobody else uses (`isolation_uids`, else the range of root in
/etc/subuid). An account keeps its number over restarts; when all are given away, the account that
has waited longest for its next worker loses its number. Used from the loop's thread.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from simenv import files
from simenv.errors import ConfigError
from simenv.sandbox import private_namespaces

SUBUID = Path("/etc/subuid")  # subuid(5)
FORMAT = 1
FILE = "account-users.json"  # in the state folder
LEAST = 1_024  # numbers of a range: more than workers


class UsersFile(msgspec.Struct, frozen=True):
    """Contents of `account-users.json`."""

    format: int
    users: dict[str, int]  # by account, the one that was used last at the end


class AccountUsers:
    """Numbers of users by account."""

    def __init__(self, numbers: range, file: Path) -> None:
        self._numbers, self._file = numbers, file
        self._users: dict[str, int] = {}
        with suppress(OSError, msgspec.DecodeError):  # else the numbers are given anew
            stored = msgspec.json.decode(file.read_bytes(), type=UsersFile)
            if stored.format == FORMAT:
                self._users = {name: n for name, n in stored.users.items() if n in numbers}

    def user_of(self, account: str, in_use: Collection[int]) -> int:
        """Return the number of an account; it holds when `writing` has stored it. `in_use`: numbers
        of accounts that have workers."""
        user = self._users.pop(account, None)
        if user is None:
            given = set(self._users.values())
            user = next((number for number in self._numbers if number not in given), None)
            if user is None:
                last = next(name for name, n in self._users.items() if n not in in_use)
                user = self._users.pop(last)
        self._users[account] = user
        return user

    def writing(self) -> Callable[[], None]:
        """Return the job, for any thread, that stores the present numbers. It raises OSError."""
        stored = msgspec.json.encode(UsersFile(FORMAT, self._users))
        return lambda: files.write_atomic(self._file, stored, sync=True)


def numbers_of(setting: str) -> range:
    """Return the numbers of the setting `isolation_uids`, else those of root in /etc/subuid; empty:
    there are none. Raises ConfigError for a range that is none, too small, or in use."""
    if not setting:
        with suppress(OSError, ValueError):
            for line in SUBUID.read_text().splitlines():
                name, first, count = line.split(":")
                if name in ("root", "0") and int(count) >= LEAST:
                    return range(int(first), int(first) + int(count))
        return range(0)
    first, _, last = setting.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(last) < 2**32 - 2):
        text = f"isolation_uids = {setting[:40]!r} is not a range of user ids"
        raise ConfigError(text, hint="FIRST-LAST, as in 100000-165535")
    numbers = range(int(first), int(last) + 1)
    if len(numbers) < LEAST:
        text = f"isolation_uids = {setting!r} has {len(numbers)} user ids; {LEAST} are the least"
        raise ConfigError(text, hint="FIRST-LAST, as in 100000-165535")
    taken = next((user for user in pwd.getpwall() if user.pw_uid in numbers), None)
    if taken is not None:
        text = f"isolation_uids = {setting!r} has the id {taken.pw_uid} of user {taken.pw_name}"
        raise ConfigError(text, hint="a range in which no user of this machine is")
    return numbers


def unavailable_reason(numbers: range) -> str:
    """Return why tasks cannot run as these users; "": they can."""
    if os.geteuid() != 0:
        return "only root can change the user, and the service does not run as root"
    if reason := private_namespaces.unavailable_reason():
        return reason
    return "" if numbers else "isolation_uids is not set, and root has no range in /etc/subuid"
