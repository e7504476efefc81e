"""The page behind the gateway's own process: sign-in by a one-time link, and what a role sees."""

from __future__ import annotations

import re
from collections.abc import Iterator

import browser
import live
import pytest
from browser import Faults
from page_environment import ghz
from playwright.sync_api import Browser, expect

from simenv.client.client import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    browser.program()  # skips before anything is started
    with (
        live.environment(gateway={"listen": "127.0.0.1:0"}) as environment,
        environment.client() as result,
    ):
        yield result


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as result:
        yield result


def link(client: Client, user: str = "", role: str = "") -> str:
    assert client.dashboard is not None
    secret = client.tokens.add(user, role=role, once=True, lifetime_s=60.0).secret
    return f"{client.dashboard.removesuffix('/ui/')}/login?token={secret}"


def test_dashboard_is_in_html_of_client(client: Client) -> None:
    assert client.dashboard is not None
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+/ui/", client.dashboard)
    assert f'<a href="{client.dashboard}">' in client._repr_html_()


def test_browser_without_cookie_is_told_to_sign_in(client: Client, chromium: Browser) -> None:
    assert client.dashboard is not None
    context = chromium.new_context(ignore_https_errors=True)
    for path in ("", "tasks", "usage", "nodes"):
        page = context.new_page()
        page.goto(client.dashboard + path)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.get_by_text("simenv web", exact=True)).to_be_visible()
        expect(page.locator("table")).to_have_count(0)
        page.set_viewport_size({"width": 360, "height": 740})
        field, card = (
            page.get_by_label("Token").bounding_box(),
            page.locator(".card").bounding_box(),
        )
        assert field is not None
        assert card is not None
        assert field["x"] + field["width"] <= card["x"] + card["width"]
        page.close()
    context.close()


def test_link_signs_in_once_and_cookie_allows_changes(client: Client, chromium: Browser) -> None:
    task = client.submit(ghz(), shots=100, seed=1)
    task.wait()
    first, address = chromium.new_context(ignore_https_errors=True), link(client)
    page = first.new_page()
    page.goto(address)
    faults = Faults(page, client.dashboard.removesuffix("/ui/") if client.dashboard else "")
    expect(page.locator("#link")).to_have_text("live")
    expect(page.get_by_role("region", name="Pools")).to_contain_text("main")
    page.goto(f"{client.dashboard}nodes")
    page.locator("summary", has_text="Drain").press("Enter")
    page.get_by_label("Reason").fill("fan")
    page.keyboard.press("Enter")
    expect(page.locator("tbody").first).to_contain_text("fan")
    page.get_by_role("button", name=re.compile("again")).press("Enter")
    expect(page.locator("tbody .mark").first).to_have_text("up")
    page.goto(f"{client.dashboard}tasks/{task.id}")
    expect(page.locator(".outcomes")).to_contain_text("111")
    assert not faults.found
    second = chromium.new_context(ignore_https_errors=True)
    other = second.new_page()
    assert other.goto(address).status == 401  # type: ignore[union-attr]
    expect(other.locator("body")).to_contain_text("simenv web prints another")
    first.close()
    second.close()


def test_user_sees_own_tasks_and_lengths_of_all_queues(client: Client, chromium: Browser) -> None:
    task = client.submit(ghz(), shots=100, name="of-the-owner")
    task.wait()
    client.keys.add("ana", "client")
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(link(client, "ana", "client"))
    expect(page.get_by_role("region", name="Pools")).to_contain_text("main")
    page.goto(f"{client.dashboard}tasks")
    expect(page.get_by_text("No task has these properties.")).to_be_visible()
    page.goto(f"{client.dashboard}tasks/{task.id}")
    expect(page.get_by_role("alert")).to_contain_text(f"no task {task.id} here")
    page.goto(f"{client.dashboard}nodes")
    expect(page.locator("tbody").first).to_contain_text("up")
    expect(page.locator("summary", has_text="Drain")).to_have_count(0)
    context.close()
