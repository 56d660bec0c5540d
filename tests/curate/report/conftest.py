"""One account and its page for the tests of this folder."""

from pathlib import Path

import pytest

from curate.diff.account import Account
from curate.portrait import portray
from curate.report.page import diff_page, version_page
from curate.report.run import named_records, run_page
from schemas.dataset import Dataset
from schemas.run_files import read_run
from tests.curate.report.accounts import account as made
from tests.curate.report.accounts import hostile_version
from tests.curate.report.runs import FINDINGS, hostile_rows, hostile_run


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    return made(tmp_path_factory.mktemp("diff") / "store", extra=230)


@pytest.fixture(scope="session")
def diff_html(account: Account) -> str:
    return diff_page(account)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return hostile_version(tmp_path_factory.mktemp("version") / "store")


@pytest.fixture(scope="session")
def version_html(hostile: Dataset) -> str:
    return version_page(portray(hostile, samples=50), hostile)


@pytest.fixture(scope="session")
def run_html(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = read_run(hostile_run(tmp_path_factory.mktemp("run") / "run"))
    return run_page(run, FINDINGS, hostile_rows(named_records(run)))


@pytest.fixture(scope="session")
def written(diff_html: str, version_html: str, run_html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all pages, as a person has them."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "diff.html").write_text(diff_html, encoding="utf-8")
    (folder / "run.html").write_text(run_html, encoding="utf-8")
    (folder / "version.html").write_text(version_html, encoding="utf-8")
    return folder
