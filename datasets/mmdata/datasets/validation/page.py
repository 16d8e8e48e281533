"""What the validator found as one HTML page that needs nothing else: figures, findings, pictures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from mmdata.datasets.times import to_ns
from mmdata.datasets.validation.drawing import MINUTES, Line, Span, chart, moment_text, span_of, strip
from mmdata.datasets.validation.report import (
    Audit,
    DayReport,
    Finding,
    Hole,
    LatencySeries,
    SymbolReport,
    ValidationReport,
)

_MOST_HOLES = 100  # rows of a day's table; the JSON has them all
_MS = 1e6

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #63686f; --rule: #dcdfe4; --ground: #fff;
  --a: #1f6fb2; --b: #c4621b; --covered: #3a9467; --hole: #e0a526; --missing: #c8413b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa1aa; --rule: #383d44;
  --ground: #16181b; --a: #6cb2ec; --b: #f0a068; --covered: #4caf7d; --hole: #e6b84a; --missing: #ea6b64; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } p.note, figcaption { color: var(--soft); font-size: .87rem; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; color: var(--soft); } .n { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; } figure { margin: .8rem 0; } svg { width: 100%; height: auto; display: block; }
.axis { fill: var(--soft); font: 11px system-ui, sans-serif; } .grid { stroke: var(--rule); }
.line-a, .line-b { fill: none; stroke-width: 1.6; }
.line-a { stroke: var(--a); } .line-b { stroke: var(--b); }
circle.line-a { fill: var(--a); } circle.line-b { fill: var(--b); }
.covered { fill: var(--covered); } .hole { fill: var(--hole); } .missing { fill: var(--missing); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 .9em; }
.key.line-a { background: var(--a); } .key.line-b { background: var(--b); }
.key.covered { background: var(--covered); } .key.hole { background: var(--hole); }
.key.missing { background: var(--missing); }
.error { color: var(--missing); font-weight: 600; } .warning { color: var(--b); font-weight: 600; }
.info { color: var(--soft); } .good { color: var(--covered); font-weight: 600; }
@media print { body { margin: 0; max-width: none; } figure, tr { break-inside: avoid; } }
"""


def page(report: ValidationReport, *, made: str, version: str) -> str:
    """Return the page of a report; ``made`` says when (UTC), ``version`` by which mmdata."""
    errors, warnings = report.count("error"), report.count("warning")
    verdict = "error" if errors else "warning" if warnings else "good"
    body = [
        f"<h1>Validation of {escape(report.root)}</h1>",
        f'<p class="note">{escape(made)}, mmdata {escape(version)}; all times are UTC.</p>',
        f'<p class="{verdict}">{_count(errors, "error")}, {_count(warnings, "warning")}</p>',
        *_overview(report.symbols),
        *_findings(report.findings),
    ]
    for own in report.symbols:
        for day in own.days:
            body += _day(own, day)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Validation of {escape(report.root)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _overview(symbols: Sequence[SymbolReport]) -> Iterator[str]:
    if not symbols:
        return
    rows = [
        (
            *(own.exchange, own.symbol, day.date + (" (open)" if day.is_open else "")),
            *(f"{sum(day.rows.values()):,}", f"{day.messages:,}", f"{day.trades:,}", f"{len(day.holes):,}"),
            *(_share(day.valid_ns, day.recorded_ns), _share(day.coverage.covered, day.coverage.expected)),
            _equal(day.bbo_equal, day.bbo_compared),
            _equal(day.checksums_equal, day.checksums),
        )
        for own in symbols
        for day in own.days
    ]
    heads = ["exchange", "symbol", "date", "rows", "messages", "trades", "holes", "book valid"]
    yield _table([*heads, "minutes covered", "bbo equal", "checksums equal"], rows, words=3)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    yield "<h2>Findings</h2>"
    if not findings:
        yield '<p class="good">None.</p>'
        return
    order = {"error": 0, "warning": 1, "info": 2}
    yield '<div class="wide"><table><tr><th>severity</th><th>check</th><th class="n">count</th>'
    yield "<th>what it means</th><th>place</th></tr>"
    for found in sorted(findings, key=lambda found: order[found.severity]):
        yield (
            f'<tr><td class="{found.severity}">{found.severity}</td><td>{escape(found.check)}</td>'
            f'<td class="n">{found.count:,}</td><td>{escape(found.sentence)}</td>'
            f"<td>{escape(_place(found))}</td></tr>"
        )
    yield "</table></div>"


def _place(found: Finding) -> str:
    told = [
        ("session", found.session),
        ("frame", found.frame),
        ("id", found.id),
        ("row", found.row),
        ("table", found.table),
    ]
    words = [f"{name} {value}" for name, value in told if value is not None]
    return ", ".join([*words, *([] if found.ts_recv is None else [moment_text(found.ts_recv)])])


def _day(own: SymbolReport, day: DayReport) -> Iterator[str]:
    where = f"{own.symbol} on {own.exchange}, {day.date}"
    midnight = to_ns(day.date)
    moments = [
        *(moment for session in day.sessions for moment in (session.begin, session.end)),
        *(begin for series in day.latency_series for begin in series.begin),
        *day.book_series.begin,
    ]
    span = span_of(midnight, day.coverage.strip, moments)
    yield f"<h2>{escape(where)}</h2>"
    if day.is_open:
        yield '<p class="note">A recorder still writes this day.</p>'
    if day.coverage.expected:
        yield "<h3>Coverage of the window, by minute</h3>"
        told = {
            "covered": day.coverage.covered,
            "hole": day.coverage.in_hole,
            "missing": day.coverage.missing,
        }
        keys = [(name, f"{name} {told[name]:,}") for name in MINUTES.values()]
        yield _figure(strip(span, day.coverage.strip, f"Coverage of {where}, by minute"), keys)
    for series in day.latency_series:
        yield f"<h3>Latency of {escape(series.channel)}, ts_recv - ts_event</h3>"
        yield _figure(_latency(span, series, where), [("line-a", "median"), ("line-b", "99 % of a minute")])
    books = day.book_series
    if books.begin:
        yield "<h3>Spread</h3>"
        lines = [Line("spread", books.begin, books.spread)]
        yield _figure(
            chart(span, lines, "price", f"Spread of {where}"), [("line-a", "mean of a minute, by time")]
        )
        yield "<h3>Size at the best price</h3>"
        lines = [Line("bid", books.begin, books.bid_size), Line("ask", books.begin, books.ask_size)]
        yield _figure(chart(span, lines, "size", f"Depth of {where}"), [("line-a", "bid"), ("line-b", "ask")])
    yield from _latencies(day)
    yield from _holes(day.holes)
    yield from _audits(day.audits)


def _latency(span: Span, series: LatencySeries, where: str) -> str:
    lines = [
        Line("median", series.begin, [value / _MS for value in series.p50]),
        Line("p99", series.begin, [value / _MS for value in series.p99]),
    ]
    return chart(span, lines, "ms", f"Latency of {series.channel} of {where}")


def _latencies(day: DayReport) -> Iterator[str]:
    if not day.latencies:
        return
    rows = [
        (
            own.channel + (", by the venue's clock" if own.corrected else ""),
            f"{own.count:,}",
            *(f"{ns / _MS:,.3f}" for ns in (own.min, own.p50, own.p90, own.p99, own.p999, own.max)),
            f"{own.negative_share:.2%}",
        )
        for own in day.latencies
    ]
    yield "<h3>Latency, ms</h3>"
    yield _table(
        ["channel", "count", "least", "p50", "p90", "p99", "p99.9", "most", "negative"], rows, words=1
    )
    if day.clock is not None:
        low, high, about = (ns / _MS for ns in (day.clock.min, day.clock.max, day.clock.uncertainty))
        yield (
            f'<p class="note">The venue\'s clock minus ours: {low:,.3f} to {high:,.3f} ms in '
            f"{_count(day.clock.count, 'measurement')}, each within {about:,.3f} ms; ours was set "
            f"{_count(day.clock.steps, 'time')}.</p>"
        )


def _holes(holes: Sequence[Hole]) -> Iterator[str]:
    if not holes:
        return
    yield "<h3>Holes</h3>"
    rows = [
        (
            *(hole.channel, hole.cause, moment_text(hole.begin)),
            "not before the session's end" if hole.end is None else moment_text(hole.end),
            "" if hole.end is None else f"{(hole.end - hole.begin) / 1e9:,.3f}",
            "" if hole.last_id is None else str(hole.last_id),
            "" if hole.next_id is None else str(hole.next_id),
            "" if hole.missing is None else f"{hole.missing:,}",
        )
        for hole in holes[:_MOST_HOLES]
    ]
    heads = ["channel", "cause", "from", "until", "s", "after id", "goes on at id", "trades missing"]
    yield _table(heads, rows, words=4)
    if len(holes) > _MOST_HOLES:
        yield f'<p class="note">And {len(holes) - _MOST_HOLES:,} more.</p>'


def _audits(audits: Sequence[Audit]) -> Iterator[str]:
    if not audits:
        return
    names = [band.name for band in audits[0].bands]
    rows = [
        (
            moment_text(audit.ts_recv),
            *(f"{band.share:.2%} of {band.levels:,}" if band.levels else "" for band in audit.bands),
            f"{sum(band.beyond for band in audit.bands):,}",
        )
        for audit in audits
    ]
    yield "<h3>The venue's own snapshots against the rebuilt book</h3>"
    heads = ["time", *(f"levels {name}" if name == "rest" else f"best {name}" for name in names)]
    yield _table([*heads, "beyond the snapshot"], rows, words=1)
    yield (
        '<p class="note">Share of the levels, both sides, whose price and size match; levels that the '
        "book's own snapshot never reached are counted apart.</p>"
    )


def _figure(picture: str, keys: Sequence[tuple[str, str]]) -> str:
    caption = "".join(f'<span class="key {style}"></span>{escape(text)}' for style, text in keys)
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Return a table whose first ``words`` columns are words, the others numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        styles = [""] * words + [' class="n"'] * (len(row) - words)
        return "".join(
            f"<{tag}{style}>{escape(cell)}</{tag}>" for style, cell in zip(styles, row, strict=True)
        )

    lines = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells("th", heads)}</tr>\n{lines}</table></div>'


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _equal(equal: int, compared: int) -> str:
    return f"{equal:,} of {compared:,}" if compared else "-"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
