"""`--html`: a page is written whole, or one line says why not."""

from pathlib import Path

import pytest

from tests.cli.conftest import Sft


def test_show_writes_a_data_card_and_still_tells_the_version(sft: Sft, alpaca: Path, tmp_path: Path) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    said = sft("show", "mix", "--html", "card.html", "--json")
    assert said.json["rows"] == 41
    assert "wrote card.html" in said.err
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "Nothing is measured yet" not in page, "tokens are counted without any stage"
    sft("show", "mix", "--html", "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_a_page_that_cannot_be_written_is_one_line_and_leaves_nothing(sft: Sft, alpaca: Path, tmp_path: Path) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    before = sorted(tmp_path.iterdir())
    said = sft("show", "mix", "--html", "no/such/folder/card.html", code=2)
    assert said.err.startswith("error: --html no/such/folder/card.html")
    assert len(said.err.strip().splitlines()) <= 2
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", [("show", "mix"), ("diff", "mix", "mix")])
@pytest.mark.parametrize("target", [".", "..", "/dev/null", "alpaca.json/card.html", "x" * 300, "no/card.html"])
def test_what_no_page_can_be_written_to_is_refused_before_the_work(
    sft: Sft, alpaca: Path, tmp_path: Path, command: tuple[str, ...], target: str
) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    (tmp_path / "alpaca.json").touch()
    said = sft(*command, "--html", target, code=2)
    assert said.err.startswith("error: --html ")
    assert "wrote" not in said.err
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_earlier_page_is_replaced(sft: Sft, alpaca: Path, tmp_path: Path) -> None:
    sft("curate", "ingest", "alpaca", str(alpaca), "--name", "mix")
    (tmp_path / "card.html").write_text("an earlier page")
    sft("show", "mix", "--html", "card.html")
    assert "an earlier page" not in (tmp_path / "card.html").read_text(encoding="utf-8")
