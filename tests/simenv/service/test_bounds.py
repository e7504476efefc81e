"""Numbers no journal, clock or message can hold are turned away; the loop goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from service import Bench, spec

from simenv.errors import JournalError
from simenv.model import task_number
from simenv.service.journal import Journal
from simenv.wire import messages as m

BEYOND = 2**63


@pytest.mark.parametrize(
    "question",
    [
        m.Watch(7, [BEYOND]),
        m.GetTasks(7, [1, BEYOND]),
        m.Cancel(7, [BEYOND]),
        m.Ack(7, "mine", BEYOND),
        m.GetEvents(7, BEYOND),
        m.GetEvents(7, 0, BEYOND),
        m.GetCompletions(7, BEYOND),
        m.GetCompletions(7, -1),
        m.GetQueue(7, True, BEYOND),
        m.Submit(7, "mine", BEYOND, m.Terms(), [spec()]),
    ],
    ids=lambda question: type(question).__name__,
)
def test_a_number_the_journal_cannot_hold(tmp_path: Path, question: m.FromClient) -> None:
    bench = Bench(tmp_path)
    (refused,) = bench.say(question)
    assert isinstance(refused, m.Refused)
    assert (refused.request, refused.refusals[0].code) == (7, "protocol")
    assert bench.submit(spec()) == m.Accepted(5, 1, 1)


def test_a_number_beyond_the_journals_is_its_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", "process")
    with pytest.raises(JournalError):
        journal.records.seq_of(BEYOND)
    with pytest.raises(JournalError):
        journal.index([(BEYOND, 1)], 1)
    journal.cursor("mine", BEYOND)
    with pytest.raises(JournalError):
        journal.commit()


def test_an_id_beyond_the_journals_numbers_is_none() -> None:
    assert task_number("t-fzzzzzzzzzzzz") is None
    assert task_number("t-7zzzzzzzzzzzz") == BEYOND - 1
