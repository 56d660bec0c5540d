"""Argilla's pages as a reviewer uses them, in headless Chromium. Selectors of its version 2.8 live here alone."""

import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)


class Reviewer:
    """A person before the screen: one browser context, logged in, on one dataset."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route(re.compile(f"^(?!{re.escape(url)}|data:|blob:)"), self._refuse)

    def _refuse(self, route: Any) -> None:
        """Note and stop what the page asks of anybody else; what its own policy stops does not come here."""
        self.outside.append(route.request.url)
        route.abort()

    def log_in(self, username: str, password: str) -> None:
        self.page.goto(f"{self.url}/sign-in")
        self.page.locator("input").nth(0).fill(username)
        self.page.locator("input[type=password]").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.url}/")

    def open(self, name: str) -> None:
        """Go from the list of datasets to the first record that waits for this person."""
        self.page.get_by_text(name, exact=True).first.click()
        self.page.wait_for_url(re.compile("annotation-mode"))
        self.page.get_by_role("button", name="Submit", exact=False).last.wait_for()

    def open_dataset(self, url: str) -> None:
        """Go to a dataset's page: nothing is filtered there, and the first record waits."""
        self.page.goto(url)
        self.page.get_by_role("button", name="Submit", exact=False).last.wait_for()

    def record(self) -> str:
        """Read the conversation of the current record, "" at the end of the queue."""
        shown = self.page.locator(".chat").all_inner_texts()
        return shown[0] if shown else ""

    def skip(self) -> bool:
        """Go to the next record without answering this one; False where this is the last."""
        before, onward = self.record(), self.page.locator(".pagination__button").last
        if onward.is_disabled():
            return False
        onward.click()
        self._changed(before)
        return True

    def _changed(self, before: str) -> None:
        for _ in range(100):
            if self.record() != before:
                return
            self.page.wait_for_timeout(50)

    @contextmanager
    def _searching(self) -> Generator[None]:
        with self.page.expect_response(lambda r: "/records/search" in r.url and r.request.method == "POST") as found:
            yield
        assert found.value.status == 200

    def filter_by(self, title: str, value: str) -> None:
        """Show only records whose metadata property of that title has the value."""
        page = self.page
        if not page.locator(".metadata-filter").count():
            page.get_by_role("button", name="Filters").click()
        page.locator(".metadata-filter").get_by_role("button").first.click()
        page.locator(".metadata-filter__categories").get_by_text(title, exact=True).click()
        with self._searching():
            page.locator(".metadata-filter__container").get_by_text(value, exact=True).click()
        page.keyboard.press("Escape")

    def search(self, text: str) -> None:
        page = self.page
        box = page.get_by_role("search", name="Introduce a query")
        if not box.is_visible():
            page.locator(".search-area__icon").first.click()
        box.fill(text)
        with self._searching():
            page.keyboard.press("Enter")

    def shows(self, records: int) -> None:
        """Wait until the page says that it shows so many records; fails where it does not."""
        self.page.locator('[aria-label="Total Records"]').get_by_text(f"of {records}", exact=True).wait_for()

    def choose(self, question: str, label: str) -> None:
        """Choose a label or a rating. One that is filled in already stays: a click would take it away."""
        asked = self._question(question)
        box = asked.locator(f'input[name="{label}"]')
        if not (box.count() and box.first.is_checked()):
            asked.get_by_text(label, exact=True).click()

    def write(self, question: str, text: str) -> None:
        box = self._question(question).locator("[contenteditable]")
        box.click()
        box.fill(text)

    def _question(self, name: str) -> Any:
        return self.page.locator(f'[aria-label="Question: {name}"]')

    def _answer(self, button: str) -> None:
        before = self.record()
        with self.page.expect_response(
            lambda r: "/responses" in r.url and r.request.method in ("POST", "PUT")
        ) as answered:
            self.page.get_by_role("button", name=button, exact=False).last.click()
        assert answered.value.ok, answered.value.text()
        self.page.wait_for_load_state("networkidle")
        self._changed(before)

    def submit(self) -> None:
        self._answer("Submit")

    def discard(self) -> None:
        self._answer("Discard")

    def save_draft(self) -> None:
        self._answer("Save as draft")

    def screenshot(self, path: Path) -> None:
        self.page.screenshot(path=str(path))


@contextmanager
def browser() -> Generator[Any]:
    """Start Debian's Chromium, or skip the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: browser tests need one (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        try:
            yield started
        finally:
            started.close()
