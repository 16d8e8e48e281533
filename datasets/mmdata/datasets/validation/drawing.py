"""Small pictures as SVG: values over a UTC day, and a strip of its minutes. Pure: numbers in, text out.

Colours are CSS classes (`CLASSES`), so that the page decides them, for light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 880, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 22, 24
_STRIP_HEIGHT = 26
_MINUTE_NS = 60_000_000_000
_DAY_MINUTES = 1440
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TIME_STEPS_MIN = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240)
_MOST_TIMES, _MOST_VALUES = 9, 5
MINUTES = {"#": "covered", "o": "hole", "x": "missing"}
"""What the characters of `Coverage.strip` mean; each is a CSS class."""
CLASSES = ("line-a", "line-b", *MINUTES.values())


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture: values at the begins of minutes (ns since the epoch), in the picture's unit."""

    name: str
    begin: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Span:
    """The minutes of a day that a picture shows: ``first`` to ``last``, from midnight; ``last`` excluded."""

    midnight: int
    """Ns since the epoch."""
    first: int
    last: int

    def x(self, moment: int) -> float:
        """Return where a moment lies, in the picture's units."""
        minutes = (moment - self.midnight) / _MINUTE_NS
        share = (minutes - self.first) / (self.last - self.first)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def times(self) -> list[int]:
        """Return the minutes that are named on the axis."""
        within = self.last - self.first
        step = next((step for step in _TIME_STEPS_MIN if within / step <= _MOST_TIMES), _TIME_STEPS_MIN[-1])
        return [*range(-(-self.first // step) * step, self.last + 1, step)]


def span_of(midnight: int, strip: str, moments: Sequence[int]) -> Span:
    """Return the minutes in which anything was expected or came: pictures of one day share them."""
    told = [minute for minute, kind in enumerate(strip) if kind in MINUTES]
    told += [min(max((moment - midnight) // _MINUTE_NS, 0), _DAY_MINUTES - 1) for moment in moments]
    return Span(midnight, min(told, default=0), max(told, default=_DAY_MINUTES - 1) + 1)


def strip(span: Span, minutes: str, label: str) -> str:
    """Return a bar in which each minute has its colour."""
    parts = []
    at = 0
    for kind, run in groupby(minutes):
        length = len([*run])
        begin, end = max(at, span.first), min(at + length, span.last)
        at += length
        if kind not in MINUTES or begin >= end:
            continue
        left, right = (span.x(span.midnight + minute * _MINUTE_NS) for minute in (begin, end))
        title = f"{_clock(begin)} to {_clock(end)} UTC: {MINUTES[kind]}"
        parts.append(
            f'<rect class="{MINUTES[kind]}" x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" '
            f'height="{_STRIP_HEIGHT}"><title>{title}</title></rect>'
        )
    height = _STRIP_HEIGHT + _BOTTOM
    return _picture(height, label, [*parts, *_time_axis(span, _STRIP_HEIGHT)])


def chart(span: Span, lines: Sequence[Line], unit: str, label: str) -> str:
    """Return lines over time, broken where minutes are left out; the empty text where there is no value."""
    values = [value for line in lines for value in line.values if math.isfinite(value)]
    if not values:
        return ""
    ticks = nice_ticks(min(0.0, min(values)), max(values))
    low, high = ticks[0], ticks[-1]
    bottom = HEIGHT - _BOTTOM

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="axis" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    ]
    parts.append(f'<text class="axis" x="{_LEFT - 6}" y="11" text-anchor="end">{escape(unit)}</text>')
    for style, line in zip(CLASSES, lines, strict=False):
        for run in _runs(line):
            points = [(span.x(begin + _MINUTE_NS // 2), y(value)) for begin, value in run]
            if len(points) == 1:
                parts.append(
                    f'<circle class="{style}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5"/>'
                )
            else:
                path = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
                parts.append(f'<polyline class="{style}" fill="none" points="{path}"/>')
    return _picture(HEIGHT, label, [*parts, *_time_axis(span, bottom)])


def nice_ticks(low: float, high: float) -> list[float]:
    """Return round values, evenly apart, from at or below ``low`` to at or above ``high``.

    >>> nice_ticks(0.0, 7.3)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / (_MOST_VALUES - 1)
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(step * scale for step in _STEPS if step * scale >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def _runs(line: Line) -> Iterator[list[tuple[int, float]]]:
    """Yield points in stretches without a missing minute."""
    points = [point for point in zip(line.begin, line.values, strict=True) if math.isfinite(point[1])]
    run = points[:1]
    for before, point in pairwise(points):
        if point[0] - before[0] > _MINUTE_NS:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _time_axis(span: Span, at: float) -> Iterator[str]:
    yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
    for minute in span.times():
        x = span.x(span.midnight + minute * _MINUTE_NS)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{at}" y2="{at + 4}"/>'
        yield f'<text class="axis" x="{x:.1f}" y="{at + 17}" text-anchor="middle">{_clock(minute)}</text>'


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _picture(height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label={quoteattr(label)}>'
        + "".join(parts)
        + "</svg>"
    )


def moment_text(ts_ns: int) -> str:
    """Return a time of a day as ``HH:MM:SS.mmm``, UTC."""
    return f"{datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC):%H:%M:%S}.{ts_ns // 1_000_000 % 1000:03d}"
