"""What notebooks show, in a real environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

import simenv
from simenv.client.results import notebook

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '
BELL = HEAD + "qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;"
WIDE = HEAD + "qreg q[6]; creg c[6]; h q; measure q->c;"


class Text(HTMLParser):
    """The text of a page, and whether its tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=1) as client:
        yield client


def test_result_shows_its_origin_and_a_histogram(env: simenv.Client) -> None:
    result = env.run(BELL, shots=1000, seed=5, name="bell")
    words = Text(result._repr_html_()).words
    assert {"00", "11", *map(str, result.counts.values())} <= set(words)
    assert any("bell" in word for word in words)
    assert any("seed: 5" in word for word in words)


def test_histogram_sums_up_rare_outcomes(env: simenv.Client) -> None:
    result = env.run(WIDE, shots=64_000, seed=5)
    words = Text(result._repr_html_()).words
    shown = [word for word in words if re.fullmatch("[01]{6}", word)]
    assert len(shown) == 16
    assert min(result.counts[key] for key in shown) >= sorted(result.counts.values())[-16]
    assert "48 more" in words


def test_expectation_values_are_a_table(env: simenv.Client) -> None:
    result = env.run(BELL.replace("measure q->c;", ""), shots=None, observables=["ZZ", "ZI"])
    words = Text(result._repr_html_()).words
    assert words[-6:] == ["0", "1", "exact", "1", "0", "exact"]


def test_task_shows_its_state_and_then_its_result(env: simenv.Client) -> None:
    task = env.submit(BELL, shots=10, name="waits")
    page = task._repr_html_()
    assert "waits" in page
    assert f"Task {task.id}" in page or f"Result {task.id}" in page
    task.result(60)
    assert task._repr_html_() == task.result()._repr_html_()


def test_names_are_text() -> None:
    page = notebook.task_html("t-1", "<script>", "FAILED", None)
    assert "<script>" not in page
    assert any("<script>" in word for word in Text(page).words)


def test_client_shows_its_pools(env: simenv.Client) -> None:
    words = Text(env._repr_html_()).words
    assert "main" in words
    assert "1 of 1" in words
