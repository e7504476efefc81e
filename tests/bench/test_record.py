"""Recordings of all goals."""

from __future__ import annotations

import subprocess

import pytest

from bench.harness import results


def _head() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=results.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("this is no checkout of git")
    return done.stdout.strip()


def test_figures_of_the_same_code_stay_in_a_recording() -> None:
    assert results.has_code_of(_head())


def test_figures_of_other_code_or_of_an_unknown_commit_leave_a_recording() -> None:
    _head()
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's empty tree
    assert not results.has_code_of(empty)
    assert not results.has_code_of("no-such-commit")
