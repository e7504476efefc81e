"""The first visit of the page by users who have only a key file, or only a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from live import Live, environment, trusted_gateway
from playwright.sync_api import Browser, Page, expect

import simenv
from simenv.client.administration.keys import issue_key
from simenv.wire.keyfiles import UserKeyFile, read_private

BELL = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0], q[1];
measure q -> c;
"""


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    browser.program()  # skips before anything is started
    with environment(gateway="127.0.0.1:0") as up, trusted_gateway(up):
        yield up


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as result:
        yield result


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_context(ignore_https_errors=True) as context:
        yield context.new_page()


def typed(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command as a user with an empty home, on a machine that has no environment."""
    variables = {**os.environ, "HOME": str(home), "SIMENV_HOME": str(home / "simenv")}
    argv = [sys.executable, "-m", "simenv", *words]
    return subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=60)


def test_user_with_key_opens_page_and_runs_circuit(live: Live, page: Page, tmp_path: Path) -> None:
    file = tmp_path / "mine.key"  # its name is not that of the environment
    with live.client() as client:
        issue_key(client.keys, "kim", "client", file)
        url = client.dashboard
    assert url == f"{read_private(file, UserKeyFile).gateway}/ui/"
    with simenv.connect(service=file) as kim:
        assert kim.dashboard == url
    answer = typed(tmp_path, "--service", str(file), "web", "--json")
    assert answer.returncode == 0, answer.stderr
    page.goto(json.loads(answer.stdout)["url"])
    expect(page.locator("#user")).to_contain_text("kim")
    page.get_by_role("link", name="Run", exact=True).click()
    page.get_by_label("Circuit").fill(BELL)
    page.get_by_role("button", name="Run").click()
    page.wait_for_url("**/ui/tasks/t-*")
    expect(page.get_by_text("counts of 1 024 shots")).to_be_visible()


def test_user_with_key_file_alone_is_shown_address_of_gateway(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "mine.key"
    with live.client() as client:
        issue_key(client.keys, "kit", "client", file)
        url = client.status().gateway
    assert url.startswith("https://")
    answer = typed(tmp_path, "--service", str(file), "gateway", "status", "--json")
    assert json.loads(answer.stdout) == {"environment": live.name, "url": url}
    answer = typed(tmp_path, "--service", str(file), "status")
    assert f"GATEWAY  {url}" in answer.stdout.splitlines()


def test_variables_of_clients_are_printed_for_holder_of_key(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "mine.key"
    with live.client() as client:
        issue_key(client.keys, "lee", "client", file)
        url = client.dashboard
    assert url is not None
    answer = typed(tmp_path, "--service", str(file), "gateway", "env")
    assert answer.returncode == 0, answer.stderr
    assert f"export IQM_SERVER_URL={url.removesuffix('/ui/')}\n" in answer.stdout


def test_user_with_a_token_alone_opens_the_page_and_signs_out(live: Live, page: Page) -> None:
    with live.client() as client:
        url, token = client.dashboard, client.tokens.add("ana").secret
        assert url is not None
        page.goto(url)
        page.get_by_label("Token").fill("no-such-token-" * 4)
        page.keyboard.press("Enter")
        expect(page.get_by_text("the token is not known")).to_be_visible()
        page.get_by_label("Token").fill(f" {token}\n")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#user")).to_contain_text("ana")
        expect(page.locator("#link")).to_have_text("live")
        [cookie] = page.context.cookies()
        copied = {"Cookie": f"{cookie.get('name')}={cookie.get('value')}"}
        session = f"{url.removesuffix('ui/')}session"
        assert page.context.request.get(session, headers=copied).json()["user"] == "ana"
        assert cookie.get("httpOnly")
        assert cookie.get("sameSite") == "Strict"
        assert token not in str(cookie.get("value"))
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        assert not page.context.cookies()
        assert page.context.request.get(session, headers=copied).status == 401
        assert "ana" in {each.user for each in client.tokens.listed()}  # it was not revoked


def test_circuit_of_an_ended_session_is_not_the_next_users(live: Live, page: Page) -> None:
    with live.client() as client:
        url, token = client.dashboard, client.tokens.add("ana").secret
    assert url is not None
    page.goto(f"{url}run")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Circuit")).to_be_visible()
    page.evaluate("sessionStorage.setItem('program', 'OPENQASM 2.0;')")
    page.context.clear_cookies()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('program')") is None


def test_address_of_gateway_is_asked_for_where_none_is_known(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "mine.key"
    with live.client() as client:
        issue_key(client.keys, "max", "client", file)
    named = typed(
        tmp_path, "--service", str(file), "web", "--json", "--url", "https://qc.example:8443/"
    )
    assert json.loads(named.stdout)["url"].startswith("https://qc.example:8443/login?token=")
    for wrong in ("qc.example", "ftp://qc.example", "https://u@qc.example", "https://qc.example/x"):
        refused = typed(tmp_path, "--service", str(file), "web", "--url", wrong)
        assert refused.returncode == 2, refused.stdout
        assert wrong in refused.stderr
