"""Everything goes wrong for a while: nothing that was sent may be missing without a reason.

``python -m tests.explain.everything --duration 10m`` is what `make fault-test` runs, once with one
connection and once with two. A seed says which fault strikes when.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mmdata.datasets.times import duration_ns
from mmdata.datasets.validation import validate
from mmdata.sandbox.faults import FaultRecord
from mmdata.sandbox.truth import BookTruth
from tests.books import compare_books
from tests.crash.recording import Found, compare_tables, ingest_at_once
from tests.explain.conduct import check_announced, check_answers, check_limits, slowest_recovery_s
from tests.explain.frames import match_connections, read_capture
from tests.explain.run import SYMBOLS, Run, record
from tests.explain.tables import Explaining, published
from tests.sent import kept_segments, told


@dataclass
class Explanation:
    """What a run came to: figures by class, and every difference that nothing explains."""

    figures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    unexplained: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{count:>9,}  {what}" for what, count in sorted(self.figures.items())]
        lines.append(
            f"{self.slowest_s:>9.1f}  seconds at most from a hole in a book until it was whole again"
        )
        lines.append(f"{len(self.unexplained):>9,}  differences unexplained")
        return "\n".join([*lines, *(f"  {sentence}" for sentence in self.unexplained[:30])])


def explain(run: Run, scratch: Path) -> Explanation:
    """Explain every difference between what was sent and what is recorded. ``scratch``: an empty folder."""
    found = Explanation()
    markets = published(run.truth)
    for venue, symbols in SYMBOLS.items():
        faults = [record for record in told(run.truth, "faults", FaultRecord) if record.venue == venue]
        # A stall that loses is told by each frame that it takes.
        found.figures.update(
            f"{venue}: fault {r.kind}" for r in faults if not (r.kind == "stall" and r.frame)
        )
        captured = read_capture(run.root, venue)
        matched = match_connections(captured, run.truth, venue, faults)
        found.figures[f"{venue}: frames sent"] = matched.sent
        found.figures[f"{venue}: frames recorded"] = matched.recorded
        found.figures.update({f"{venue}: frames in flight: {why}": n for why, n in matched.tails.items()})
        tables = Explaining(run.root, venue, captured, matched, faults)
        tables.check_quarantine()
        for symbol in symbols:
            tables.explain(symbol, markets[venue, symbol])
        found.figures.update({f"{venue}: {what}": n for what, n in tables.found.classes.items()})
        refused, early = check_limits(venue, captured, run.script)
        found.figures[f"{venue}: requests refused with Retry-After, which was kept"] = refused
        announced, late = check_announced(captured, matched, faults)
        found.figures.update({f"{venue}: {what}": n for what, n in announced.items()})
        found.slowest_s = max(found.slowest_s, slowest_recovery_s(captured, symbols))
        answers = check_answers(run.truth, venue, captured)
        found.unexplained += [*matched.unexplained, *tables.found.unexplained, *early, *late, *answers]
    found.unexplained += [*_check_books(run, found), *_check_dataset(run), *_check_accounting(run, scratch)]
    return found


def _check_books(run: Run, found: Explanation) -> Iterator[str]:
    """Compare the books with the matching engines' own wherever the dataset says that they are whole."""
    books = {(book.venue, book.symbol, book.last_id): book for book in told(run.truth, "books", BookTruth)}

    def truth(venue: str, symbol: str, last_id: int) -> BookTruth:
        return books[venue, symbol, last_id]

    for venue, symbols in SYMBOLS.items():
        for symbol in symbols:
            try:
                equal = compare_books(run.root, venue, symbol, partial(truth, venue, symbol))
            except (AssertionError, KeyError) as error:
                yield f"{venue}: the book of {symbol} is not the engine's: {error}"
            else:
                found.figures[f"{venue}: books equal to the engine's own"] += equal


def _check_dataset(run: Run) -> Iterator[str]:
    for finding in validate(run.root).findings:
        if finding.severity == "error":
            yield f"validate: {finding.sentence}"


def _check_accounting(run: Run, scratch: Path) -> Iterator[str]:
    """Ingest every capture again, in one go: all lines are accounted for, and the tables are the same."""
    for venue in SYMBOLS:
        try:
            ingest_at_once(kept_segments(run.root, venue), scratch).check()
        except AssertionError as error:
            yield f"{venue}: {error}"
    try:
        compare_tables(run.root, scratch, Found())
    except AssertionError as error:
        yield f"ingest at once: {error}"


def attempt(folder: Path, *, seconds: float, seed: int, connections: int) -> Explanation:
    """Record and explain, in an empty folder."""
    run = record(folder, seconds=seconds, seed=seed, connections=connections)
    return explain(run, folder / "again")


def main(arguments: list[str]) -> int:
    """Do both runs and print what they come to. Returns 1 when anything is unexplained."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--duration", default="10m", help="of each run")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the faults; drawn and printed if none is given"
    )
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    seconds = (duration_ns(options.duration) or 0) / 1e9
    failed = False
    for connections in (1, 2):
        folder = Path(tempfile.mkdtemp(prefix="mmdata-faults-"))
        print(f"seed {seed}, {options.duration}, connections: {connections}", flush=True)
        found = attempt(folder, seconds=seconds, seed=seed, connections=connections)
        print(found, flush=True)
        if found.unexplained:
            failed = True
            print(f"all of it is in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
