"""What commands print with --json has the keys of before, with values of the same types.

One environment with work behind it answers all of them. tests/golden/listings/listings.json has for
each command, and each place in its objects, the types of the values there, the keys that an object
always has, and those that it sometimes has. What is printed now is added to the file by

    SIMENV_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/compatibility/test_listings.py

Remove a command's entry first where something is to go.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest
from shell import Answer, Shell

from simenv.cli.app import run

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "golden" / "listings" / "listings.json"
BELL = str(ROOT / "examples" / "bell.qasm")
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "faulty", "engine": "fault", "min": 0, "max": 1},
]
HEAD = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1];'
FAILING = HEAD + " rx(1000004) q[0]; measure q->c;"
NO_SUCH_TASK = "t-zzzz"

# The command lines, by what their entry is called; they run in this order. TASK stands for the id
# of a task that is done, FAILED for that of one that failed, NODE for this node's name.
COMMANDS = {
    "submit": f"submit {BELL}",
    "submit --wait": f"submit {BELL} --seed 7 --wait",
    "submit of expectation values": f"submit {BELL} --observable ZZ --output expectation --wait",
    "simulate": f"simulate {BELL} --seed 7",
    "explain": f"explain {BELL}",
    "explain --plan": f"explain {BELL} --plan",
    "result": "result TASK",
    "result of a failed task": "result FAILED",
    "error": f"result {NO_SUCH_TASK}",
    "cancel": "cancel TASK",
    "status": "status",
    "environments": "environments",
    "nodes": "nodes",
    "pools": "pools",
    "devices": "devices",
    "workers": "workers",
    "queue --done": "queue --done",
    "log": "history",
    "trace": "trace TASK",
    "usage": "usage",
    "receipt": "receipt TASK",
    "events": "events",
    "perf": "profile --since 1h",
    "keys add": "keys add ana",
    "keys list": "keys list",
    "keys rotate": "keys rotate ana",
    "gateway tokens add": "gateway tokens add --user ana",
    "gateway tokens list": "gateway tokens list",
    "limits set": "limits set ana max_queued_tasks=50",
    "limits": "limits",
    "limits reset": "limits reset ana",
    "keys revoke": "keys revoke ana",
    "qos set": "qos set night --priority 1 max_queued_tasks=50",
    "qos": "qos",
    "accounts add": "accounts add chem --add-user ana --qos night max_queued_tasks=50",
    "accounts": "accounts",
    "accounts set": "accounts set chem --share 2",
    "accounts move": "accounts move chem -",
    "accounts remove": "accounts remove chem",
    "qos remove": "qos remove night",
    "policy": "policy",
    "policy queue": "policy queue main fifo",
    "policy admission": "policy admission main unlimited",
    "doctor": "doctor",
    "gc": "prune --dry-run",
    "logs": "logs",
    "scale": "scale faulty --min 0 --max 1",
    "drain": "drain NODE --reason maintenance",
    "resume": "undrain NODE",
    "qpm check --list": "qpm check --list",
    "down": "down",
}
KEYS = ("always", "sometimes")
Shape = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def environment() -> Iterator[live.Live]:
    with live.environment(pools=POOLS, listen="tcp://127.0.0.1:0") as up:
        yield up


@pytest.fixture(scope="module")
def words(environment: live.Live) -> dict[str, str]:
    with environment.client() as client:
        done = client.submit(BELL, shots=100, seed=1, name="done")
        done.result(timeout_s=live.PATIENCE_S)
        failed = client.submit(FAILING, engine="fault", shots=1, name="failed")
        failed.wait(timeout_s=live.PATIENCE_S)
        (node,) = client.nodes()
    return {"TASK": str(done.id), "FAILED": str(failed.id), "NODE": node}


@pytest.fixture
def shell(
    environment: live.Live, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.setenv("SIMENV_SERVICE", "")

    def call(*line: str) -> Answer:
        capfd.readouterr()
        code = run(["--name", environment.name, *line, "--json"])
        output = capfd.readouterr()
        return Answer(code, output.out, output.err)

    return call


def shape_of(values: list[Any], names: dict[str, str]) -> Shape:
    table: dict[str, list[Any]] = {}
    for value in values:
        _visit(value, "", names, table)
    return {place: _described(result) for place, result in sorted(table.items())}


def _visit(value: Any, place: str, names: dict[str, str], found: dict[str, list[Any]]) -> None:
    if isinstance(value, dict):  # names of this machine are not keys
        value = {names.get(key, key): each for key, each in value.items()}
    found.setdefault(place, []).append(value)
    if isinstance(value, dict):
        for key, each in value.items():
            _visit(each, f"{place}.{key}", names, found)
    elif isinstance(value, list):
        for each in value:
            _visit(each, f"{place}[]", names, found)


def _described(seen: list[Any]) -> dict[str, list[str]]:
    objects = [set(each) for each in seen if isinstance(each, dict)]
    always = set.intersection(*objects) if objects else set()
    return _shape({_type(each) for each in seen}, always, set().union(*objects))


def _shape(types: set[str], always: set[str], keys: set[str]) -> dict[str, list[str]]:
    table = {"types": types, "always": always, "sometimes": keys - always}
    return {name: sorted(value) for name, value in table.items() if value}


def _type(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
    return kinds.get(type(value), "array" if isinstance(value, list) else "object")


def joined(one: Shape, other: Shape) -> Shape:
    """Both may be seen."""
    table = dict(one)
    for place, value in other.items():
        result = table.get(place, value)
        always = {*result.get("always", ())} & {*value.get("always", ())}
        keys = {key for each in (result, value) for kind in KEYS for key in each.get(kind, ())}
        table[place] = _shape({*result["types"], *value["types"]}, always, keys)
    return table


@pytest.mark.parametrize("name", COMMANDS)
def test_json_output_of_each_command_keeps_stored_keys_and_types(
    shell: Shell, words: dict[str, str], name: str
) -> None:
    line = [words.get(word, word) for word in COMMANDS[name].split()]
    outcome = shell(*line)
    assert outcome.out, outcome.err
    result = shape_of(outcome.objects, {words["NODE"]: "NODE", platform.node(): "NODE"})
    every = json.loads(FILE.read_text())
    if os.environ.get("SIMENV_WRITE_GOLDEN"):
        every[name] = joined(every.get(name, result), result)
        FILE.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")
    assert joined(every[name], result) == every[name]


def test_each_stored_shape_has_its_command() -> None:
    assert set(json.loads(FILE.read_text())) == set(COMMANDS)
