"""Tardis CSV -> tables -> Tardis CSV -> tables: the same, to the digit, whatever the tick and the size."""

from __future__ import annotations

import tempfile
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets.formats import tardis
from mmdata.datasets.formats.importing import import_tables
from mmdata.datasets.formats.output import Written, output
from tests.builders import rows

T = 1_700_000_000_000_000  # µs
LARGEST = Decimal(10**12)

ticks = st.integers(-10, 3).map(lambda exponent: Decimal(1).scaleb(exponent))
times = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 2)), min_size=1, max_size=8)


@st.composite
def numbers(draw: st.DrawFn, tick: Decimal, most: Decimal) -> str:
    """Return a multiple of ``tick`` up to ``most``, as JavaScript or as people write it."""
    with localcontext(prec=60):
        value = tick * draw(st.integers(1, int(most / tick)))
    return draw(st.sampled_from([f"{value:f}", f"{value:e}", f"{value.normalize():f}"]))


@st.composite
def files(draw: st.DrawFn) -> dict[str, str]:
    """Return a book, trades and quotes."""
    tick, lot = draw(ticks), draw(ticks)
    price, size = numbers(tick, Decimal(10**6)), numbers(lot, LARGEST)
    text = {name: [",".join(columns)] for name, columns in COLUMNS.items()}
    at = T
    for step, lag in draw(times):
        at += step
        key = f"binance,BTCUSDT,{at - lag},{at}"
        for name in draw(st.sets(st.sampled_from([*COLUMNS]))):
            if name == "book":
                is_snapshot = draw(st.sampled_from(["true", "false"]))
                for _ in range(draw(st.integers(1, 3))):
                    side = draw(st.sampled_from(["bid", "ask"]))
                    gone = is_snapshot == "false" and draw(st.booleans())
                    amount = "0" if gone else draw(size)
                    text[name].append(f"{key},{is_snapshot},{side},{draw(price)},{amount}")
            elif name == "trades":
                text[name].append(f"{key},{len(text[name])},sell,{draw(price)},{draw(size)}")
            else:
                sides = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
                ask, bid = ((draw(price), draw(size)) if there else ("", "") for there in sides)
                text[name].append(f"{key},{ask[1]},{ask[0]},{bid[0]},{bid[1]}")
    return {name: "\n".join(lines) + "\n" for name, lines in text.items() if len(lines) > 1}


COLUMNS = {"book": tardis.DEPTH, "trades": tardis.TRADES, "quotes": tardis.QUOTES}


def told(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all tables but for the session's name, which is that of the bytes."""
    return {
        table: [{key: value for key, value in row.items() if key != "session"} for row in rows(root, table)]
        for table in ("depth", "trades", "bbo", "snapshots", "events", "instruments")
    }


@given(files=files())
@settings(max_examples=25, deadline=None)
def test_tables_are_the_same_after_a_round_trip(files: dict[str, str]) -> None:
    if not files:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [folder / f"{kind}.csv" for kind in files]
        for path, text in zip(sources, files.values(), strict=True):
            path.write_text(text)
        report = import_tables(sources, folder / "first", source_format="tardis")
        assert report.quarantined == 0
        written: list[Written] = []
        with output(folder / "out", written) as out:
            tardis.write(folder / "first", out, "binance", "BTCUSDT", None, None)
        assert sum(file.rows for file in written) == sum(text.count("\n") - 1 for text in files.values())
        import_tables([file.path for file in written], folder / "second", source_format="tardis")
        assert told(folder / "second") == told(folder / "first")
