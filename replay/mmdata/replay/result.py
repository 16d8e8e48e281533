"""What a simulation found: its parameters, and what each fill model made of the same orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.decimals import shortest
from mmdata.datasets.errors import UsageError
from mmdata.datasets.times import iso
from mmdata.replay import state as s
from mmdata.replay.attribution import Attribution
from mmdata.replay.calibration import Calibration, Estimate, Intensity
from mmdata.replay.clock import Clock
from mmdata.replay.settings import Value

if TYPE_CHECKING:
    import polars as pl

Ints = NDArray[np.int64]

SCHEMA = 1
"""Version of `Result.to_json_dict`."""

_HALF = Decimal("0.5")

ACTIONS = ("new", "amend", "replace", "cancel")
KINDS = ("post-only", "limit", "ioc", "market")
OUTCOMES = (
    "on its way",
    "rests",
    "would have crossed",
    "no valid book",
    "would have met its own",
    "taken in full",
    "expired",
    "cancelled",
    "too late",
    "lost at a hole",
)
"""By their numbers in `mmdata.replay.state`, as actions and kinds are."""
CAUSES = {
    s.BY_TOUCH: "touch",
    s.BY_MAKER: "maker met",
    s.BY_THROUGH: "trade through",
    s.BY_PRINT: "trade at",
    s.BY_QUEUE: "queue",
    s.BY_CLOCK: "clock",
    s.AS_TAKER: "taker",
}
"""What filled an order: the opposite best price, a maker that was met at or beyond it, a trade beyond it or
at it, its place in the queue, a Poisson clock, or itself, as a taker."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that a run used, and where it comes from."""

    name: str
    value: Value | None
    """None: without bound."""
    unit: str
    source: str
    """``set``, ``default``, ``derived from ...``, ``estimated from ...``."""
    se: float | None = None
    """Standard error, where it was estimated."""
    n: int | None = None
    """Size of the sample that it was estimated from."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The raw columns of one model's run, in ticks, lots and ns of the exchange's clock."""

    fill: Ints
    """(fills, FILL_SIZE); see `mmdata.replay.state`."""
    decision: Ints
    """(decisions, DECISION_SIZE), the same for every model; the newest alone where not all were kept."""
    log: Ints
    """(instructions, LOG_SIZE); none where they were not asked for."""
    tick_size: Decimal
    lot_size: Decimal
    kept: bool = True
    """All decisions were."""


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What the strategy earned, had fills come as one model says; sizes in base, money in quote."""

    model: str
    fills: int
    buys: int
    sells: int
    volume: Decimal
    pnl: Attribution
    final_inventory: Decimal
    max_inventory: Decimal
    """Most held, long or short."""
    orders: int
    """Instructions sent: new orders, replacements, cancellations."""
    rejected: int
    """Would have crossed the book when they arrived."""
    unplaced: int
    """Arrived while the book was invalid."""
    withdrawn: int
    """Resting orders that were taken off at a hole."""
    taken: int
    """Fills of orders that crossed on arrival: they pay the taker's fee."""
    expired: int
    """Orders of which something could not be taken at once."""
    self_trades: int
    """Orders that would have met one of their own, and were turned down."""
    refused: int
    """Not sent: beyond the position limit, or below the least size or notional."""
    by_clock: int
    """Fills by a Poisson clock: they know nothing of the price's next move."""
    cut_short: int
    """Orders that took less than they could: no more levels are remembered as taken."""
    columns: Columns = field(repr=False)

    def fill_frame(self) -> pl.DataFrame:
        """Return the fills: time, when the order was placed, side, price, size and the mid then, exact.

        ``order`` is its number, ``cause`` the evidence that filled it (`CAUSES`).
        """
        import polars as pl
        import pyarrow as pa

        from mmdata.datasets.decimals import decimal_array
        from mmdata.datasets.market import time_array

        tick, lot, rows = self.columns.tick_size, self.columns.lot_size, self.columns.fill
        table = pa.table(
            {
                "ts": time_array(rows[:, s.FILL_TIME]),
                "ts_placed": time_array(rows[:, s.FILL_PLACED]),
                "side": np.where(rows[:, s.FILL_SIDE] > 0, "buy", "sell"),
                "price": decimal_array(rows[:, s.FILL_PRICE], tick),
                "size": decimal_array(rows[:, s.FILL_LOTS], lot),
                "mid": decimal_array(rows[:, s.FILL_MID2], tick * _HALF),
                "order": rows[:, s.FILL_NUMBER],
                "cause": [CAUSES[cause] for cause in rows[:, s.FILL_CAUSE].tolist()],
            }
        )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def order_frame(self) -> pl.DataFrame:
        """Return every instruction and what came of it, where ``log`` was asked for.

        Columns: ``ts`` (sent), ``ts_arrived``, ``order`` (number), ``slot``, ``action`` (`ACTIONS`), ``kind``
        (`KINDS`), ``side``, ``price``, ``size`` (exact), ``outcome`` (`OUTCOMES`).
        """
        import polars as pl
        import pyarrow as pa

        from mmdata.datasets.decimals import decimal_array
        from mmdata.datasets.market import time_array

        rows = self.columns.log
        table = pa.table(
            {
                "ts": time_array(rows[:, s.LOG_SENT]),
                "ts_arrived": time_array(rows[:, s.LOG_ARRIVES]),
                "order": rows[:, s.LOG_NUMBER],
                "slot": rows[:, s.LOG_SLOT],
                "action": np.array(ACTIONS)[rows[:, s.LOG_ACTION]],
                "kind": np.array(KINDS)[rows[:, s.LOG_KIND]],
                "side": np.where(rows[:, s.LOG_SIDE] == 0, "buy", "sell"),
                "price": decimal_array(rows[:, s.LOG_PRICE], self.columns.tick_size),
                "size": decimal_array(rows[:, s.LOG_LOTS], self.columns.lot_size),
                "outcome": np.array(OUTCOMES)[rows[:, s.LOG_OUTCOME]],
            }
        )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def pnl_frame(self) -> pl.DataFrame:
        """Return mid, inventory and profit before fees at each decision, the inventory at the mid.

        Columns: ``ts``, ``mid``, ``inventory`` (exact), ``pnl`` (quote, as a float), ``quoted``: whether
        the strategy saw a valid book. Decisions before the first mid are left out. UsageError: the run kept
        no decisions (``curve=False``).
        """
        import polars as pl
        import pyarrow as pa

        from mmdata.datasets.decimals import decimal_array
        from mmdata.datasets.market import time_array

        tick, lot, fills = self.columns.tick_size, self.columns.lot_size, self.columns.fill
        rows = self.columns.decision
        if not self.columns.kept:
            raise UsageError("the run kept no decisions, so it has no curve; simulate with curve=True")
        rows = rows[rows[:, s.DECISION_MID2] != 0]
        signed = fills[:, s.FILL_SIDE] * fills[:, s.FILL_LOTS]
        until = np.searchsorted(fills[:, s.FILL_TIME], rows[:, s.DECISION_TIME], side="right")
        held = np.concatenate(([0], np.cumsum(signed)))[until]
        # In half ticks times lots, relative to the first mid: small enough for 64 bits.
        mid2 = rows[:, s.DECISION_MID2]
        base = int(mid2[0]) if len(mid2) else 0
        paid = np.concatenate(([0], np.cumsum(signed * (2 * fills[:, s.FILL_PRICE] - base))))[until]
        table = pa.table(
            {
                "ts": time_array(rows[:, s.DECISION_TIME]),
                "mid": decimal_array(mid2, tick * _HALF),
                "inventory": decimal_array(held, lot),
                "pnl": (held * (mid2 - base) - paid) * float(tick * lot * _HALF),
                "quoted": rows[:, s.DECISION_QUOTED] == 1,
            }
        )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table for people."""

    key: str
    title: str
    numeric: bool = True


TABLE = (
    Column("model", "fill model", numeric=False),
    Column("fills", "fills"),
    Column("buys", "buys"),
    Column("sells", "sells"),
    Column("volume", "volume"),
    Column("pnl", "PnL"),
    Column("spread", "spread"),
    Column("inventory", "inventory"),
    Column("fees", "fees"),
    Column("final_inventory", "held at end"),
    Column("max_inventory", "most held"),
    Column("rejected", "rejected"),
)
"""Columns of `Result.rows`: volume, holdings in base; PnL = spread + inventory - fees in quote."""

PARAMETER_TABLE = (
    Column("name", "parameter", numeric=False),
    Column("value", "value"),
    Column("se", "± se"),
    Column("unit", "unit", numeric=False),
    Column("source", "source", numeric=False),
)
"""Columns of `Result.parameter_rows`."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a strategy over a recording under several fill models; times in ns, exchange's clock.

    No single number is the answer: `band` says between what the models lie.
    """

    exchange: str
    symbol: str
    strategy: str
    seed: int
    tick_size: Decimal
    lot_size: Decimal
    tick_source: str
    lot_source: str
    clock: Clock
    start: int
    """Where the recording, as far as it was asked for, begins."""
    traded_from: int
    """Where trading begins: what lies before it, from ``start`` on, was used to calibrate."""
    end: int
    covered: float
    """Share of the time from ``traded_from`` to ``end`` in which the book was proven, and the strategy
    saw a valid one."""
    touch: str
    """What told the best bid and ask at the exchange: ``bbo`` between book messages, or ``depth`` alone."""
    trade_holes: int
    """Recorded holes in the trades while trading."""
    warnings: tuple[str, ...]
    """What is doubtful about it, a sentence each."""
    parameters: tuple[Parameter, ...]
    calibration: Calibration | None
    """None when everything was set: then nothing is cut off."""
    last_mid2: int
    """Twice the last known mid, in ticks, at which what is held at the end is marked."""
    data: tuple[tuple[str, str], ...]
    """(UTC date, sha256 of its certificate, or ``uncertified``) of each day that it may rest on."""
    hash: str
    """sha256 over data, code, strategy, parameters, models and seed: the same hash, the same result, where
    every day has a certificate."""
    models: tuple[ModelResult, ...]

    def model(self, name: str) -> ModelResult:
        """Return what one fill model found. KeyError: it did not run."""
        for model in self.models:
            if model.model == name:
                return model
        raise KeyError(name)

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by its name. KeyError: there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    @property
    def band(self) -> tuple[Decimal, Decimal]:
        """The least and the greatest PnL over the fill models."""
        totals = [model.pnl.total for model in self.models]
        return min(totals), max(totals)

    def rows(self) -> list[dict[str, str]]:
        """Return a row a model as text, by the keys of `TABLE`."""
        return [
            {
                "model": model.model,
                "fills": str(model.fills),
                "buys": str(model.buys),
                "sells": str(model.sells),
                "volume": plain(model.volume),
                "pnl": money(model.pnl.total),
                "spread": money(model.pnl.spread),
                "inventory": money(model.pnl.inventory),
                "fees": money(model.pnl.fees),
                "final_inventory": plain(model.final_inventory),
                "max_inventory": plain(model.max_inventory),
                "rejected": str(model.rejected),
            }
            for model in self.models
        ]

    def parameter_rows(self) -> list[dict[str, str]]:
        """Return a row a parameter as text, by the keys of `PARAMETER_TABLE`."""
        return [
            {
                "name": parameter.name,
                "value": number(parameter.value),
                "se": "" if parameter.se is None else f"{parameter.se:.2g}",
                "unit": parameter.unit,
                "source": parameter.source + ("" if parameter.n is None else f" (n = {parameter.n})"),
            }
            for parameter in self.parameters
        ]

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything but the columns as plain JSON; decimals and times as text, exact."""
        low, high = self.band
        return {
            "schema": SCHEMA,
            "exchange": self.exchange,
            "symbol": self.symbol,
            "strategy": self.strategy,
            "seed": self.seed,
            "hash": self.hash,
            "data": [{"date": date, "certificate": sha256} for date, sha256 in self.data],
            "tick_size": plain(self.tick_size),
            "lot_size": plain(self.lot_size),
            "tick_source": self.tick_source,
            "lot_source": self.lot_source,
            "clock": {
                "mode": self.clock.mode,
                "base_latency_ns": self.clock.base_latency_ns,
                "sessions": [
                    {
                        "session": session.session,
                        "shift_ns": session.shift_ns,
                        "source": session.source,
                        "timed": session.timed,
                        "negative": session.negative,
                        "latency_ns": None if session.latencies is None else asdict(session.latencies),
                    }
                    for session in self.clock.sessions
                ],
            },
            "from": iso(self.start),
            "traded_from": iso(self.traded_from),
            "to": iso(self.end),
            "covered": self.covered,
            "touch": self.touch,
            "trade_holes": self.trade_holes,
            "warnings": list(self.warnings),
            "parameters": [
                {
                    "name": parameter.name,
                    "value": _json_value(parameter.value),
                    "unit": parameter.unit,
                    "source": parameter.source,
                    "se": parameter.se,
                    "n": parameter.n,
                }
                for parameter in self.parameters
            ],
            "calibration": None if self.calibration is None else calibration_json(self.calibration),
            "last_mid": plain(self.last_mid2 * _HALF * self.tick_size),
            "models": [_model_json(model) for model in self.models],
            "pnl_band": [plain(low), plain(high)],
        }


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as plain JSON."""

    def estimated(estimate: Estimate | None) -> dict[str, Any] | None:
        return None if estimate is None else {"value": estimate.value, "se": estimate.se, "n": estimate.n}

    def intensity(found: Intensity | None) -> dict[str, Any] | None:
        return None if found is None else {"A": estimated(found.a), "k": estimated(found.k)}

    size = calibration.order_size
    return {
        "from": iso(calibration.start),
        "to": iso(calibration.end),
        "intensity": intensity(calibration.intensity),
        "buys": intensity(calibration.buys),
        "sells": intensity(calibration.sells),
        "touch": calibration.touch,
        "sweeps_inside_the_book": calibration.inside,
        "share_inside_the_book": calibration.inside_share,
        "by_own_price": calibration.by_own_price,
        "sweeps_without_a_book": calibration.without_book,
        "sigma": estimated(calibration.sigma),
        "grid_ns": calibration.grid_ns,
        "order_size": None if size is None else plain(size),
        "trades": calibration.trades,
    }


def _model_json(model: ModelResult) -> dict[str, Any]:
    return {
        "model": model.model,
        "fills": model.fills,
        "buys": model.buys,
        "sells": model.sells,
        "volume": plain(model.volume),
        "pnl": plain(model.pnl.total),
        "spread": plain(model.pnl.spread),
        "inventory": plain(model.pnl.inventory),
        "fees": plain(model.pnl.fees),
        "final_inventory": plain(model.final_inventory),
        "max_inventory": plain(model.max_inventory),
        "orders": model.orders,
        "rejected": model.rejected,
        "unplaced": model.unplaced,
        "withdrawn": model.withdrawn,
        "taken": model.taken,
        "expired": model.expired,
        "self_trades": model.self_trades,
        "refused": model.refused,
        "by_clock": model.by_clock,
        "cut_short": model.cut_short,
    }


def _json_value(value: Value | None) -> float | int | str | None:
    return plain(value) if isinstance(value, Decimal) else value


def plain(value: Decimal) -> str:
    """Return a decimal in full, without trailing zeros.

    >>> plain(Decimal("0.02010")), plain(Decimal("-0.00"))
    ('0.0201', '0')
    """
    return str(shortest(value + 0)) if value else "0"


def money(value: Decimal) -> str:
    """Return an amount for people: four decimals, or four significant digits below 1.

    >>> money(Decimal("12.345678")), money(Decimal("-0.000123456")), money(Decimal(0))
    ('12.3457', '-0.0001235', '0')
    """
    if not value:
        return "0"
    if abs(value) >= 1:
        return f"{value:.4f}"
    return plain(Decimal(f"{value:.4g}"))


def number(value: Value | None) -> str:
    """Return a parameter's value for people."""
    if value is None:
        return "none"
    if isinstance(value, Decimal):
        return plain(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def joined(names: Sequence[str]) -> str:
    """Return names as a sentence lists them.

    >>> joined(["A", "k", "sigma"])
    'A, k and sigma'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
