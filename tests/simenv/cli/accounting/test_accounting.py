"""`usage`, `shares` and `receipt`: what a real environment says, and the text of receipts."""

import copy
import csv
import io
import json
import os
import pwd
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import live
import pytest
from shell import Shell

from simenv.cli import receipt as command, shares, terminal, usage
from simenv.cli.admin import accounts
from simenv.model import TaskState, Timing
from simenv.model.accounts import Account, Receipt, ShareRow, Used, WaitReason
from simenv.wire.messages.history import LogRow

EXAMPLES = Path(__file__).parents[4] / "examples"
BELL = str(EXAMPLES / "bell.qasm")
HEAD = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1];'
FAILING = HEAD + " rx(1000004) q[0]; measure q->c;"
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "trap", "engine": "fault", "min": 0, "max": 1},
]
SUMS = ["tasks", "shots", "slot_s", "gpu_s", "gib_s", "device_s", "wait_s", "units"]


@pytest.fixture(scope="module")
def ended(environment: live.Live) -> list[str]:
    """Tasks that ended in an environment: two are done, one failed."""
    with environment.client() as client:
        done = client.submit_many([BELL, BELL], shots=100, seed=1)
        failed = client.submit(FAILING, engine="fault", shots=1, name="trapped")
        for task in (*done, failed):
            task.wait(timeout_s=live.PATIENCE_S)
        return [str(task.id) for task in (*done, failed)]


def rows(shell: Shell, *words: str) -> list[Any]:
    return shell(*words, "--json", code=0).objects


def test_sums_of_json_csv_and_table_are_the_same(shell: Shell, ended: list[str]) -> None:
    objects = rows(shell, "usage", "--by", "pool,user")
    assert [list(each) for each in objects] == [["pool", "user", *SUMS]] * 2
    assert [(each["pool"], each["tasks"], each["shots"]) for each in objects] == [
        ("main", 2, 200), ("trap", 1, 0),
    ]  # fmt: skip
    assert objects[0]["units"] >= objects[0]["slot_s"] > 0
    answer = shell("usage", "--by", "pool,user", "--csv")
    table = list(csv.reader(io.StringIO(answer.out)))
    assert table[0] == ["POOL", "USER", *(name.upper() for name in SUMS)]
    assert [line[2] for line in table[1:]] == ["2", "1"]
    for line, row_ in zip(table[1:], objects, strict=True):  # to the microsecond
        assert [float(text) for text in line[4:9]] == [row_[name] for name in SUMS[2:7]]
    plain = shell("usage", "--by", "pool,user", "--columns", "pool,tasks", "--no-header")
    assert plain.out == "main\t2\ntrap\t1\n"


def test_sums_equal_those_of_the_history(shell: Shell, ended: list[str]) -> None:
    (total,) = rows(shell, "usage", "--by", "")
    entries = rows(shell, "history")
    assert total["tasks"] == len(entries) == 3
    assert total["slot_s"] == sum(each["used"]["slot_us"] for each in entries) / 1e6
    assert total["wait_s"] == sum(each["timing"]["queued_us"] for each in entries) / 1e6
    assert total["units"] == pytest.approx(sum(each["units"] for each in entries))


def test_time_selects_and_is_named(shell: Shell, ended: list[str]) -> None:
    assert "tasks that ended from " in shell("usage", "--since", "1h").err
    assert rows(shell, "usage", "--since", "1h") == rows(shell, "usage")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "colour"), "usage by 'colour'"),
        (("--since", "yesterday"), "is no time"),
        (("--since", "5m", "--until", "10m"), "10m is earlier than 5m"),
        (("--since", "5m", "--until", "10m", "--sacct"), " is later than until "),
        (("--since", "2999-01-01"), "since 2999-01-01T00:00:00"),
        (("--csv", "--sacct"), "exclude each other"),
        (("--sacct", "--json"), "exclude each other"),
        (("--columns", "colour"), "there is no column 'colour'"),
    ],
)
def test_bad_input_is_refused(shell: Shell, words: tuple[str, ...], message: str) -> None:
    assert message in shell("usage", *words, code=2).err


def test_lines_of_sacct_are_those_that_open_xdmod_reads(shell: Shell, ended: list[str]) -> None:
    head, *lines = shell("usage", "--sacct").out.splitlines()
    names = head.lower().split("|")
    assert names == [
        *("jobid", "jobidraw", "cluster", "partition", "qos", "account", "group", "gid", "user"),
        *("uid", "submit", "eligible", "start", "end", "elapsed", "exitcode", "state", "nnodes"),
        *("ncpus", "reqcpus", "reqmem", "reqtres", "alloctres", "timelimit", "nodelist", "jobname"),
    ]
    assert len(lines) == 3
    values = [dict(zip(names, line.split("|", len(names) - 1), strict=True)) for line in lines]
    assert [each["state"] for each in values] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert [each["jobid"] for each in values] == ["1", "2", "3"]
    assert values[2]["jobname"] == "trapped"
    me = pwd.getpwuid(os.getuid())
    assert (values[0]["user"], values[0]["uid"]) == (me.pw_name, str(me.pw_uid))
    begun, over = (time.strptime(values[0][k], "%Y-%m-%dT%H:%M:%S") for k in ("start", "end"))
    assert begun <= over
    assert shell("usage", "--sacct", "--no-header").out.splitlines() == lines


def test_windows_of_sacct_are_of_the_ends(shell: Shell, ended: list[str]) -> None:
    entries = rows(shell, "history")
    lines = shell("usage", "--sacct", "--no-header").out.splitlines()
    last = max(entries, key=lambda each: each["ended_s"])
    border = datetime.fromtimestamp((last["submitted_s"] + last["ended_s"]) / 2, UTC).isoformat()
    windows = ("--until", border), ("--since", border)
    first, second = (
        shell("usage", "--sacct", "--no-header", *each).out.splitlines() for each in windows
    )
    assert sorted(first + second) == sorted(lines)
    assert any(line.endswith(last["name"] or last["engine"]) for line in second)


def test_receipt_is_text_or_one_object(shell: Shell, ended: list[str]) -> None:
    result = rows(shell, "receipt", ended[0])
    assert [each["task"] for each in result] == [ended[0]]
    assert set(result[0]["used"]) == {"slot_us", "gpu_us", "gib_us", "device_us"}
    assert sum(each["us"] for each in result[0]["waits"]) == result[0]["waited_us"]
    lines = shell("receipt", ended[2]).out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "TASK", "WHO", "WHERE", "TIMES", "USED", "RAN", "UNITS", "WAITED",
    ]  # fmt: skip
    assert lines[0].endswith("FAILED")
    answer = shell("receipt", "t-zzzz")
    assert (answer.code, answer.out) == (4, "") or "no receipt of task t-zzzz" in answer.err


def test_result_has_its_receipt_until_it_is_copied(
    environment: live.Live, ended: list[str]
) -> None:
    with environment.client() as client:
        result = client.task(ended[0]).result()
        assert result.receipt == client.receipt(ended[0])
        assert result.receipt is result.receipt
        assert copy.deepcopy(result).receipt is None


def test_shares_name_no_account_where_there_are_none(shell: Shell, ended: list[str]) -> None:
    assert all(row["account"] == "" for row in rows(shell, "shares"))


def test_usage_and_receipts_are_read_while_no_service_is_up(
    environment: live.Live, shell: Shell, ended: list[str]
) -> None:
    before = rows(shell, "usage"), rows(shell, "receipt", ended[0])
    assert shell("down", "--now").code == 0
    try:
        assert (rows(shell, "usage"), rows(shell, "receipt", ended[0])) == before
    finally:
        environment.up()


# --- text -----------------------------------------------------------------------------------------


def receipt(*waits: tuple[WaitReason, int], **changes: object) -> Receipt:
    fields: dict[str, object] = {
        "task": "t-1", "user": "ana", "account": "chem", "qos": "normal", "state": TaskState.DONE,
        "submitted_s": 1.0, "ended_s": 2.0, "pool": "main", "engine": "mps", "slots": 4,
        "used": Used(4_000_000, 1_000_000, 500_000, 0), "units": 24.005, "share": 0.25,
        "usage": 1234.5, "rank": 3, "waited_us": sum(us for _, us in waits),
        "waits": tuple((int(reason), us) for reason, us in waits),
    }  # fmt: skip
    return Receipt(**{**fields, **changes})  # type: ignore[arg-type]


def test_wait_is_a_sum_of_reasons() -> None:
    stored = receipt(
        (WaitReason.RESERVED, 3_104_000),
        (WaitReason.SHARE, 22_100_000),
        (WaitReason.RANKS, 6_000_000),
    )
    assert command.waited_text(stored) == (
        "31.204 s: 22.100 s after others by fair share, 6.000 s no 4 free slots at once,"
        " 3.104 s slots reserved by others"
    )
    assert command.waited_text(receipt()) == "0.000 s"


def test_each_reason_has_a_text() -> None:
    for reason in WaitReason:
        assert len(command.waited_text(receipt((reason, 5_000)))) > len("0.005 s: 0.005 s ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (2e-9, "2e-09"), (12e-6, "0.000012"), (0.012345, "0.0123"), (0.5, "0.500"),
        (1.2345, "1.23"), (99.99, "100.0"), (1234.56, "1234.6"), (1e7, "10000000.0"),
    ],
)  # fmt: skip
def test_small_amounts_are_shown_with_more_decimals(value: float, text: str) -> None:
    assert terminal.amount(value) == text


@pytest.mark.parametrize("parts", [[499, 499, 502], [1, 1, 1], [999_999, 1], [1_500, 2_500], [0]])
def test_rounded_parts_add_up_to_the_rounded_sum(parts: list[int]) -> None:
    ms = command.rounded_parts(parts, sum(parts))
    assert sum(ms) == round(sum(parts) / 1000)
    assert all(abs(1000 * ms - us) < 1000 for ms, us in zip(ms, parts, strict=True))


def test_text_names_what_was_used_and_the_place_in_the_order() -> None:
    text = "\n".join(command.receipt_lines(receipt()))
    assert "ana, account chem, class normal" in text
    assert "4.000 s x slots, 1.000 s x GPUs, 0.500 s x GiB" in text
    assert "25.00 % of the site, usage 1234.5 units, rank 3 at the submission" in text


def test_tree_of_shares_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    from simenv.cli.listing import Style, listing

    tree = [
        ShareRow("physics", "", 0, 2.0, 0.5, 9.0, 0.9, 0, 3600.0),
        ShareRow("physics", "ana", 1, 1.0, 0.5, 9.0, 0.9, 1),
        ShareRow("physics", "", 1, 1.0, 0.5, 9.0, 0.9, 2),
    ]
    listing(shares._SHARES, Style(False, aligned=True), lambda: tree)
    _, first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["physics", "-", "2", "0.5000", "9.00", "0.9000", "-", "3600.0"]
    assert second.startswith("  physics  ana")
    assert third.startswith("  physics  (own user)")


def row(**changes: object) -> LogRow:
    fields: dict[str, object] = {
        "id": "t-b", "name": "", "app": "", "state": TaskState.DONE, "submitted_s": 86_400.5,
        "ended_s": 86_400.5 + 93_784.5, "engine": "mps",
        "timing": Timing(1_000_000, 0, 93_783_000_000, returned_us=500_000),
        "pool": "main", "worker": "main-0", "node": "n1,n2", "shots": 1, "num_qubits": 2,
        "bindings": 1, "seed": 1, "binding": 0, "attempts": 1, "slots": 2, "message": "t-b",
        "ranks": 4, "owner": "nobody-knows", "account": "chem", "qos": "high|er",
        "used": Used(8 * 93_783_000_000, 4 * 93_783_000_000, 2 * 93_783_000_000, 0),
    }  # fmt: skip
    return LogRow(**{**fields, **changes})  # type: ignore[arg-type]


def test_line_of_sacct_has_cores_gpus_memory_and_times_in_utc() -> None:
    assert usage.sacct_line(row(), "lab") == (
        "11|11|lab|main|high_er|chem|nogroup|65534|nobody-knows|65534|1970-01-02T00:00:00|"
        "1970-01-02T00:00:00|1970-01-02T00:00:01|1970-01-03T02:03:04|1-02:03:03|0:0|COMPLETED|2|"
        "8|8|2048M|cpu=8,mem=2048M,node=2,gres/gpu=4|cpu=8,mem=2048M,node=2,gres/gpu=4|"
        "UNLIMITED|n1,n2|mps"
    )


def test_task_that_never_ran_has_no_nodes() -> None:
    waited = row(state=TaskState.CANCELLED, node="here", slots=0, timing=Timing(5, 0, 0))
    fields = usage.sacct_line(waited, "lab").split("|")
    assert (fields[12], fields[15], fields[16], fields[24]) == (
        "Unknown", "0:15", "CANCELLED", "None assigned",
    )  # fmt: skip


def test_json_of_a_receipt_has_reasons_by_name(shell: Shell, ended: list[str]) -> None:
    answer = shell("receipt", ended[1], "--json")
    waits = json.loads(answer.out)["waits"]
    assert {each["reason"] for each in waits} <= {reason.name.lower() for reason in WaitReason}


def test_budget_that_ends_tasks_is_shown_as_such() -> None:
    rows = [accounts._row("chem", Account(budget_slot_h=0.5, cut=cut)) for cut in (False, True)]
    assert [accounts._budget_text(row) for row in rows] == ["0.5", "0.5 cut"]
