"""What a kind of defect is, and the table in which all of them stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mmdata.sandbox.defects.ground import Site
from mmdata.sandbox.defects.labels import Label, Severity

Where: TypeAlias = dict[str, Any]
"""Place fields of a `Label`, and its count; 1 where it is left out."""
Plant: TypeAlias = Callable[[Site], Where | list[Where]]

SPOT, USDM, OKX = "binance", "binance-usdm", "okx"
ALL = (SPOT, USDM, OKX)
SPLICED = (SPOT, USDM)

BOOK = frozenset({"book"})
"""What a defect touches of its market: what depth, snapshots and best bids and offers say together."""
TRADES = frozenset({"trades"})
EVERYTHING = frozenset({"book", "trades", "clock", "files"})
"""A file that cannot be used: no other defect of this market could be told from what follows."""


@dataclass(frozen=True)
class Kind:
    """A kind of defect."""

    name: str
    meaning: str
    """A sentence: what is wrong with the data."""
    check: str
    severity: Severity
    exchanges: tuple[str, ...]
    touches: frozenset[str]
    session_wide: bool
    """It is of no single symbol: labels name the symbol ``_``."""
    plant: Plant
    """Plants one in the market of a `Site` and says where.

    NoPlaceError: this market has no place for one; nothing was changed.
    """

    def labels(self, site: Site, found: Where | list[Where]) -> list[Label]:
        """Return what `plant` said as labels."""
        own: dict[str, Any] = {
            "kind": self.name,
            "check": self.check,
            "severity": self.severity,
            "exchange": site.exchange,
            "symbol": site.symbol,
            "count": 1,
        }
        places = found if isinstance(found, list) else [found]
        return [Label(**own | where | _now(site, where)) for where in places]


def _now(site: Site, where: Where) -> Where:
    """Return the name that a place's file has now."""
    return {"file": site.renamed.get(where["file"], where["file"])} if "file" in where else {}


KINDS: dict[str, Kind] = {}
"""All kinds by name. Filled by the modules of this package."""


def kind(
    check: str,
    *,
    severity: Severity = "error",
    exchanges: Sequence[str] = ALL,
    touches: frozenset[str] = BOOK,
    session_wide: bool = False,
) -> Callable[[Plant], Plant]:
    """Enter the decorated function as the kind of its name; its docstring's first line is the meaning."""

    def enter(plant: Plant) -> Plant:
        name = plant.__name__
        meaning = (plant.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(name, meaning, check, severity, tuple(exchanges), touches, session_wide, plant)
        return plant

    return enter


def at_row(sheet_at: tuple[str, int], row: dict[str, Any], **more: Any) -> Where:
    """Return the place of a row: its file and number, session and frame."""
    file, number = sheet_at
    return {"file": file, "row": number, "session": row["session"], "frame": row["frame"], **more}
