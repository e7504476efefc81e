"""Usage of a synthetic site: 10^7 tasks a year of 500 users in 40 accounts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from simenv.service.journal import tables
from simenv.service.journal.writer import Journal

TASKS_AN_HOUR = round(10**7 / (365 * 24))
USERS, ACCOUNTS = 500, 40
# Pool, device and engine of tasks; the first three are those of a usual user.
PLACES = (
    *(("main", "", "statevector"), ("wide", "", "mps"), ("fez", "fez", "statevector")),
    *(("main", "", "stabilizer"), ("main", "", "density_matrix"), ("gpu", "", "gpu")),
    *(("torino", "torino", "statevector"), ("tools", "", "functions")),
)


class Site:
    """Usage of a synthetic site: each user has an account and runs tasks in some places, in all of
    them equally often."""

    def __init__(self, seed: int, places: Sequence[tuple[str, str, str]] = PLACES[:3]) -> None:
        self._random = random.Random(seed)
        self._keys = [
            tables.UsageKey(f"account-{user % ACCOUNTS}", f"user-{user}", "normal", *place)
            for user in range(USERS)
            for place in places
        ]
        self._stored: set[int] = set()
        self.combinations = len(self._keys)
        self.rows = 0  # of hours

    def write_hour(self, journal: Journal, hour: int) -> None:
        """Store the usage of the tasks of one hour, in one commit."""
        chance = self._random
        tasks = Counter(chance.choices(range(len(self._keys)), k=TASKS_AN_HOUR))
        statements = []
        for number, count in tasks.items():
            if number not in self._stored:
                self._stored.add(number)
                statements.append(tables.USAGE_KEY.put(number + 1, *self._keys[number]))
            us = [chance.randrange(10**5, 10**9) for _ in range(5)]
            ended = count - count // 20, count // 40, count // 40, 0, 1024 * count
            statements.append(tables.add_usage(hour, number + 1, (*ended, *us, us[0] / 1e6)))
        self.rows += len(tasks)
        journal.put(statements, forced=False)
        journal.commit()
