"""Answers that no gateway gives, and the order of work: over a connection of the test."""

from typing import Any

import pytest
from failing import fails
from simenv_myqlm import Runner
from simenv_myqlm.errors import GatewayError, NoGatewayError
from simenv_myqlm.records import Circuit, Gate, Job, Observable, Term


class Connection:
    """Gives the answers in their order, and keeps what was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers, self.bodies = list(answers), list[Any]()

    def request(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        self.bodies.append(body)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def turned(angle: float) -> Job:
    return Job(Circuit(1, (Gate("RX", (angle,), (0,)),)), 10)


def run(*answers: tuple[int, Any], jobs: Any = None, **options: Any) -> Any:
    connection: Any = Connection(*answers)
    return Runner(connection, **options).run(jobs or [turned(0.1)])


ACCEPTED = (201, {"bindings": 2, "tasks": [{"id": "t-1", "first": 0, "bindings": 2}]})


@pytest.mark.parametrize(
    "answers",
    [
        [(200, [])], [(200, {})], [(200, {"counts": 7})], [(200, {"counts": {"2": 1}})],
        [ACCEPTED, (200, {"results": []})], [ACCEPTED, (200, {"results": 5})],
        [(201, {"tasks": 1})],
        [(201, {"tasks": [{"id": "t-1", "bindings": 1}]}), (200, {"counts": {"0": 10}})],
    ],
)  # fmt: skip
def test_answers_of_another_form_are_an_error(answers: list[tuple[int, Any]]) -> None:
    jobs = [turned(0.1)] if answers[0][0] == 200 else [turned(0.1), turned(0.2)]
    fails(GatewayError, "of another form", run, *answers, jobs=jobs)


def test_a_task_without_a_result_in_time_is_named() -> None:
    accepted = (202, {"id": "t-9"})
    error = fails(NoGatewayError, "task t-9 has no result", run, accepted, timeout_s=0.1)
    assert "t-9/result" in error.hint


def test_pages_are_halved_where_they_are_too_large() -> None:
    class Large(Connection):
        limits: list[int] = []  # noqa: RUF012

        def request(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
            if method == "POST":
                return ACCEPTED
            limit = int(path.partition("limit=")[2])
            self.limits.append(limit)
            if limit > 1:
                raise GatewayError("too large", "", "limit", 413)
            return 200, {"results": [{"counts": {"0": 10}}]}

    connection: Any = Large((0, None))
    found = Runner(connection).run([turned(0.1), turned(0.2)])
    assert [each.samples[0].probability for each in found] == [1.0, 1.0]
    assert connection.limits == [100, 50, 25, 12, 6, 3, 1, 1]


def test_hints_of_the_gateway_stay_but_those_of_forms_of_answers() -> None:
    def refused(hint: str) -> str:
        class Full(Connection):
            def request(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
                raise GatewayError("too large", hint, "limit", 413)

        connection: Any = Full((0, None))
        found: str = fails(GatewayError, "", Runner(connection).run, [turned(0.1)]).hint
        return found

    assert refused("Accept: application/x-npz") == "fewer measured qubits, shots or terms"
    assert refused("fewer pulses") == "fewer pulses"


def test_jobs_with_other_questions_are_other_requests_and_seeds_are_distinct() -> None:
    observable = Observable((Term(1, "Z", (0,)),))
    jobs = [turned(0.1), turned(0.2), Job(turned(0.3).circuit, 20),
            Job(turned(0.4).circuit, 20, observable=observable),
            Job(turned(0.5).circuit, 20, aggregate=False)]  # fmt: skip
    counts = {"counts": {"0": 10}, "memory": ["0"], "expectations": [1.0], "std_errors": [0.1]}
    connection: Any = Connection((200, {"tasks": [{"id": "t", "bindings": 2}], **counts}))
    connection.answers = [(200, {"tasks": [{"id": "t", "bindings": 2}], **counts})]
    Runner(connection, seed=7).run(jobs)
    bodies = [body for body in connection.bodies if body]
    assert len(bodies) == 4
    assert len({body["seed"] for body in bodies}) == 4
    (sweep,) = (body for body in bodies if "parameter_values" in body)
    assert (sweep["seed"], sweep["parameter_values"]) == (7, [[0.1], [0.2]])
