"""The validator's page: the right figures, nothing from outside, nothing that a hostile text could break."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmdata.cli.main import main
from mmdata.datasets.validation import validate
from mmdata.datasets.validation.drawing import Line, chart, span_of, strip
from mmdata.datasets.validation.page import page
from mmdata.datasets.validation.report import (
    Audit,
    Band,
    Coverage,
    DayReport,
    Finding,
    Hole,
    SymbolReport,
    ValidationReport,
)
from tests.builders import LEVELS, depth, frame, run

_VOID = {"meta", "rect", "line", "circle", "polyline"}
MINUTE_NS = 60_000_000_000
MIDNIGHT = 1_795_219_200_000_000_000  # 2026-11-21


class Balanced(HTMLParser):
    """Fails where an element is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        assert tag in _VOID

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:  # noqa: D102
        self.texts.append(data)


def read(text: str) -> list[str]:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.texts


@pytest.fixture
def report() -> ValidationReport:
    hole = Hole("depth", "s-1", 7, MIDNIGHT, MIDNIGHT + 1_500_000_000, "missing", 10, 12)
    audit = Audit(
        "s-1", 9, MIDNIGHT + MINUTE_NS, 11, [Band("10", 20, 19, 1, 0, 0, 0), Band("rest", 0, 0, 0, 0, 4, 0)]
    )
    coverage = Coverage(MIDNIGHT, MIDNIGHT + 3 * MINUTE_NS, "window", 3, 1, 1, 1, "#ox" + "." * 1437)
    day = DayReport("2026-11-21", {"depth": 1234}, 55, 66, holes=[hole], coverage=coverage, audits=[audit])
    hostile = Finding(
        "error", "chain", "binance", "<b>", 1, "</td><script>alert('x')</script> & more", "s-1", 7
    )
    return ValidationReport("/data/<root>", [SymbolReport("binance", "<b>", days=[day])], [hostile])


def test_figures_holes_and_audits_stand_on_the_page(report: ValidationReport) -> None:
    texts = read(page(report, made="2026-11-21 12:00:00", version="0.1.0"))
    for expected in ("1,234", "55", "66", "1 error, 0 warnings", "00:00:01.500", "95.00% of 20", "covered 1"):
        assert expected in texts, expected
    assert "missing" in texts  # the cause
    assert "session s-1, frame 7" in texts


def test_hostile_text_stays_text_and_nothing_is_loaded_from_outside(report: ValidationReport) -> None:
    text = page(report, made="now", version="0")
    assert "<script" not in text
    assert "</td><script>alert('x')</script> & more" in read(text)
    assert re.search(r"https?:|src=|href=|@import|url\(", text) is None


def test_a_dataset_without_findings_says_so(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS)), frame(1, depth(105, *LEVELS))])
    found = validate(tmp_path)
    found.findings.clear()
    assert "None." in read(page(found, made="now", version="0"))


def test_minutes_of_one_kind_are_one_bar_and_the_picture_shows_what_was_expected() -> None:
    minutes = "." * 60 + "#" * 30 + "o" * 2 + "#" * 28 + "." * 1320
    span = span_of(MIDNIGHT, minutes, [])
    assert (span.first, span.last) == (60, 120)
    text = strip(span, minutes, "Coverage")
    assert re.findall(r'<rect class="(\w+)"', text) == ["covered", "hole", "covered"]
    assert "01:30 to 01:32 UTC: hole" in text


def test_a_line_is_broken_where_a_minute_is_missing() -> None:
    begin = [MIDNIGHT + minute * MINUTE_NS for minute in (0, 1, 2, 5, 6, 9)]
    text = chart(
        span_of(MIDNIGHT, "", begin), [Line("spread", begin, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])], "price", "x"
    )
    assert [len(points.split()) for points in re.findall(r'points="([^"]*)"', text)] == [3, 2]
    assert text.count("<circle") == 1


def test_lines_without_a_value_are_no_picture() -> None:
    assert chart(span_of(MIDNIGHT, "", []), [Line("a", [], [])], "ms", "x") == ""


def test_the_command_writes_the_page_and_says_where_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "data", [frame(0, depth(100, *LEVELS))])
    target = tmp_path / "report.html"
    for path, status in ((target, 1), (tmp_path / "nowhere" / "report.html", 4)):
        with pytest.raises(SystemExit) as ended:
            main(["validate", str(tmp_path / "data"), "--html", str(path), "--quiet"])
        assert ended.value.code == status
    assert "nowhere/report.html: the page cannot be written" in capsys.readouterr().err
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
