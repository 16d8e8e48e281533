"""A market maker on a recording: what its orders would have earned, under several fill models at once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import REPLACE, SPLICE
from mmdata.datasets.book import NO_PRICE, Book
from mmdata.datasets.errors import UsageError
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import Market
from mmdata.datasets.times import Moment, iso, span
from mmdata.replay import _kernel as kernel
from mmdata.replay import avellaneda_stoikov
from mmdata.replay.attribution import EXACT, attribute
from mmdata.replay.calibration import BBO, DEPTH, Calibration, Estimate, Touches, estimate
from mmdata.replay.caveats import caveats, trade_holes
from mmdata.replay.clock import MAPPED, Clock, Timeline, map_clock, proof, recorded, timeline
from mmdata.replay.fitness import Steps, order_steps, refuse_overlap
from mmdata.replay.queues import RULES
from mmdata.replay.result import Columns, ModelResult, Parameter, Result, joined
from mmdata.replay.settings import DURATION, SETTINGS, Value, parse_settings, suggestion

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MODELS = {
    "price-cross": kernel.PRICE_CROSS,
    "trade-through": kernel.TRADE_THROUGH,
    "poisson": kernel.POISSON,
    "l2-queue": kernel.L2_QUEUE,
}
"""Fill models: when the opposite best price reaches the order; when a trade prints beyond it; at a rate
that falls with its distance from the mid, seeded; when it is first in its queue, or the price is gone."""
STRATEGIES = ("avellaneda-stoikov",)

_ESTIMATED = ("A", "k", "sigma", "order_size")
_CALIBRATION_SHARE = 10  # of the time: the first tenth
# The model's own inventory stays within three standard deviations of the most that may be held.
_DEVIATIONS_HELD = 3
_A_DAY = 86_400_000_000_000
# Lots times ticks of a position stay within 64 bits, and so does all that is ever filled.
_MOST_LOTS = 2**48


def simulate(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
    strategy: str = "avellaneda-stoikov",
    fills: str | Sequence[str] = tuple(MODELS),
    settings: Mapping[str, object] | None = None,
    seed: int = 0,
    clock: str = MAPPED,
) -> Result:
    """Let a strategy quote on a recording, and return what it earned under each fill model.

    ``start`` and ``end``, half-open, are of the exchange's clock: ISO 8601 text (no zone is UTC, a bare
    date the UTC day), ns since the epoch or datetimes. ``fills`` names models of `MODELS`, in a sequence
    or with commas between. ``settings`` are those of `mmdata.replay.settings.SETTINGS`, as numbers or
    text; of A, k, sigma and order_size, what is not set is estimated from the first tenth of the time
    with a valid book, which is then not traded. The same arguments give the same result, to the bit.

    UsageError: a name or value that cannot be, a dataset without a valid book, too little to estimate
    from, a clock that would show the future, sessions that ran at the same time, a tick or lot that
    changed. DatasetError: a file is damaged.
    """
    begin, until = span(start, end)
    models = _models(fills)
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r} is not known{suggestion(strategy, STRATEGIES)}")
    checked = parse_settings(settings)
    # The recorder's clock decides what lies in which file; no clock is a day wrong.
    market = load_market(root, exchange, symbol, end=None if until is None else until + _A_DAY)
    return run(
        market,
        start=begin,
        end=until,
        strategy=strategy,
        models=models,
        settings=checked,
        seed=seed,
        clock=clock,
    )


def run(
    market: Market,
    *,
    start: int | None = None,
    end: int | None = None,
    strategy: str = STRATEGIES[0],
    models: Sequence[str] = tuple(MODELS),
    settings: Mapping[str, Value] | None = None,
    seed: int = 0,
    clock: str = MAPPED,
) -> Result:
    """Simulate on a loaded market; as `simulate`, with times in ns and settings already checked."""
    given = dict(settings or {})
    if seed < 0:
        raise UsageError(f"seed was {seed}, expected a whole number from 0")
    mapped = map_clock(market, clock, _ns(given, "base_latency"))
    refuse_overlap(market, start, end, mapped, by_event=True)
    times = timeline(market, mapped)
    begin, until = recorded(market, times, start, end)
    steps = order_steps(market, mapped, begin, until)
    missing = [name for name in _ESTIMATED if name not in given]
    traded_from = begin
    if missing:
        whole = proof(times, begin, until)
        if not whole.length:
            raise _no_book(market, mapped, begin, until)
        traded_from = whole.after(whole.length // _CALIBRATION_SHARE)

    engine = _Engine(market, times)
    engine.advance(traded_from)
    calibration = None
    if missing:
        touches = engine.touches()
        if missing != ["order_size"] and not touches.two_sided.any():
            raise _no_book(market, mapped, begin, traded_from)
        calibration = estimate(market, times, touches, begin, traded_from, missing)
    parameters = _parameters(market, steps, given, calibration)
    engine.seat(parameters, steps, given, models, seed)
    engine.decide_from(traded_from)
    before = int(engine.state[kernel.QUOTES])
    engine.advance(until)
    if not engine.quoted:
        raise _no_book(market, mapped, traded_from, until)
    return Result(
        exchange=market.exchange,
        symbol=market.symbol,
        strategy=strategy,
        seed=seed,
        tick_size=market.tick_size,
        lot_size=market.lot_size,
        tick_source=market.tick_source,
        lot_source=market.lot_source,
        clock=mapped,
        start=begin,
        traded_from=traded_from,
        end=until,
        covered=proof(times, traded_from, until).length / (until - traded_from),
        touch=BBO if engine.state[kernel.QUOTES] > before else DEPTH,
        trade_holes=trade_holes(market, mapped, traded_from, until),
        warnings=caveats(market, mapped, times, traded_from, until),
        parameters=tuple(parameters.values()),
        calibration=calibration,
        last_mid2=int(engine.state[kernel.MID2]),
        models=tuple(
            _model_result(name, engine, lane, market, parameters) for lane, name in enumerate(models)
        ),
    )


def _models(fills: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (fills.split(",") if isinstance(fills, str) else fills))
    for name in names:
        if name not in MODELS:
            raise UsageError(f"fill model {name!r} is not known{suggestion(name, MODELS)}")
    if not names or len(set(names)) < len(names):
        raise UsageError(
            f"fill models were {', '.join(names) or 'none'}, expected at least one of "
            f"{', '.join(MODELS)}, each once"
        )
    return names


def _ns(given: Mapping[str, Value], name: str) -> int:
    value = given.get(name, SETTINGS[name].default)
    assert isinstance(value, int)
    return value


def _no_book(market: Market, clock: Clock, begin: int, until: int) -> UsageError:
    snapshots = int(np.isin(market.columns.kind, (REPLACE, SPLICE)).sum())
    shifts = joined([f"{session.shift_ns / 1e9:.3f} s" for session in clock.sessions])
    return UsageError(
        f"{market.exchange} {market.symbol}: the strategy never saw a valid book with two sides between "
        f"{iso(begin)} and {iso(until)}; the recording holds {len(market.order)} book messages and "
        f"{snapshots} snapshots, and a book takes a snapshot and the messages that continue it; "
        f"`mmdata validate` says where the chain breaks (the recorder's clock was shifted by {shifts} to the "
        f"exchange's: one wrong event time shifts all that is seen)"
    )


def _parameters(
    market: Market, steps: Steps, given: Mapping[str, Value], calibration: Calibration | None
) -> dict[str, Parameter]:
    """Return every parameter of the run, by name: set, default, estimated or derived."""
    found: dict[str, Parameter] = {}

    def take(name: str, estimated: Estimate | None = None, against: str = "") -> None:
        setting = SETTINGS[name]
        if name in given:
            found[name] = _shown(name, given[name], "set")
        elif estimated is not None:
            found[name] = Parameter(
                name,
                estimated.value,
                setting.unit,
                f"estimated from the first tenth{against}",
                estimated.se,
                estimated.n,
            )
        else:
            found[name] = _shown(name, setting.default, "default")

    intensity = None if calibration is None else calibration.intensity
    against = "" if calibration is None else _touch_of(calibration)
    take("A", None if intensity is None else intensity.a, against)
    take("k", None if intensity is None else intensity.k, against)
    take("sigma", None if calibration is None else calibration.sigma)
    if "order_size" in given:
        found["order_size"] = _shown("order_size", _order_size(market, steps, given["order_size"]), "set")
    else:
        assert calibration is not None
        assert calibration.order_size is not None
        found["order_size"] = Parameter(
            "order_size",
            max(calibration.order_size // steps.lot_size, Decimal(1)) * steps.lot_size,
            SETTINGS["order_size"].unit,
            "estimated from the first tenth: the median trade",
            n=calibration.trades,
        )
    take("max_inventory")
    if "gamma" in given:
        take("gamma")
    else:
        gamma = avellaneda_stoikov.risk_aversion_for(
            _real(found["max_inventory"]) / _DEVIATIONS_HELD,
            _real(found["sigma"]),
            _real(found["k"]),
            _real(found["A"]),
        )
        found["gamma"] = Parameter(
            "gamma",
            gamma,
            SETTINGS["gamma"].unit,
            f"derived: inventory deviates by max_inventory / {_DEVIATIONS_HELD}",
        )
    _horizon(given, found)
    for name in ("interval", "base_latency", "order_latency", "response_latency", "maker_fee", "queue"):
        take(name)
    take("queue_power")
    return found


def _touch_of(calibration: Calibration) -> str:
    """Say against what touch sweeps were measured, how many were inside it, and if it was of no use."""
    if calibration.intensity is None:
        return ""
    inside = f", {calibration.inside_share:.1%} inside" if calibration.inside else ""
    own = ", by own price" if calibration.by_own_price else ""
    return f", touch {calibration.touch}{inside}{own}"


def _horizon(given: Mapping[str, Value], found: dict[str, Parameter]) -> None:
    """Add how far ahead the strategy looks, never further than inventory lasts, and what follows."""
    a, k, sigma, gamma = (_real(found[name]) for name in ("A", "k", "sigma", "gamma"))
    useful = avellaneda_stoikov.useful_horizon(gamma, sigma, k, a)
    wanted = _ns(given, "horizon") / 1e9 if "horizon" in given else math.inf
    ahead = min(useful, wanted)
    source = "set" if wanted <= useful else "derived: 1 / (2 √(αη)), the time that inventory lasts"
    # Without risk there is no horizon, nor does anything depend on it.
    found["horizon"] = Parameter("horizon", None if math.isinf(ahead) else ahead, "s", source)
    ahead = 0.0 if math.isinf(ahead) else ahead
    half = avellaneda_stoikov.spread(gamma, sigma, k, ahead) / 2
    skew = -avellaneda_stoikov.reservation_price(0.0, 1.0, gamma, sigma, ahead)
    found["half_spread"] = Parameter("half_spread", half, "tick", "derived: Avellaneda-Stoikov (30)")
    found["skew"] = Parameter("skew", skew, "tick/order", "derived: Avellaneda-Stoikov (29)")
    if not (math.isfinite(half) and math.isfinite(skew) and max(half, skew) < 2**40):
        raise UsageError(
            f"the quotes that follow from A={a:g}, k={k:g}, sigma={sigma:g} and gamma={gamma:g} are "
            f"{half:g} ticks from the mid, shifted by {skew:g} ticks an order held: out of any range; set "
            f"{joined(['k', 'sigma', 'gamma'])} in ticks, seconds and orders"
        )


def _shown(name: str, value: Value | None, source: str) -> Parameter:
    setting = SETTINGS[name]
    if setting.kind == DURATION and isinstance(value, int):
        value = value / 1e9
    return Parameter(name, value, setting.unit, source)


def _real(parameter: Parameter) -> float:
    assert isinstance(parameter.value, float | int | Decimal)
    return float(parameter.value)


def _order_size(market: Market, steps: Steps, size: Value) -> Decimal:
    assert isinstance(size, Decimal)
    with localcontext(EXACT):
        off = size % steps.lot_size
    if off:
        raise UsageError(
            f"setting order_size was {size}, expected a multiple of {market.symbol}'s lot "
            f"{steps.lot_size.normalize():f} ({steps.lot_source})"
        )
    return size


@dataclass(slots=True)
class _Lanes:
    """What `_kernel.Lanes` holds, and the random streams that feed its draws."""

    arrays: kernel.Lanes
    streams: list[np.random.Generator]

    @staticmethod
    def of(models: Sequence[str], whole: Ints, real: Floats, seed: int, room: int) -> _Lanes:
        lanes = len(models)
        codes = np.array([MODELS[name] for name in models], np.int64)
        # A lane's stream is that of its model, whichever lanes run beside it.
        streams = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(code),))) for code in codes
        ]
        order = np.zeros((lanes, 2, kernel.ORDER_SIZE), np.int64)
        order[:, :, [kernel.ARRIVES, kernel.DUE]] = kernel.NEVER
        arrays = kernel.Lanes(
            model=codes,
            whole=whole,
            real=real,
            order=order,
            queue=np.zeros((lanes, 2, kernel.QUEUE_SIZE), np.float64),
            account=np.zeros((lanes, kernel.ACCOUNT_SIZE), np.int64),
            fill=np.zeros((lanes, 0, kernel.FILL_SIZE), np.int64),
            draw=np.zeros((lanes, 0), np.float64),
        )
        seated = _Lanes(arrays, streams)
        if lanes:
            seated.make_room(room)
            arrays.queue[:, :, kernel.WAIT] = seated.arrays.draw[:, :2]
            arrays.account[:, kernel.DRAWS] = 2
        return seated

    def make_room(self, extra: int) -> None:
        """Add room for ``extra`` fills a lane, and a draw for each; the first time two more to begin with."""
        arrays = self.arrays
        lanes, room, _ = arrays.fill.shape
        draws = extra + (2 if room == 0 else 0)
        fresh = np.array([stream.standard_exponential(draws) for stream in self.streams])
        self.arrays = arrays._replace(
            fill=np.concatenate((arrays.fill, np.zeros((lanes, extra, kernel.FILL_SIZE), np.int64)), axis=1),
            draw=np.concatenate((arrays.draw, fresh), axis=1),
        )


class _Engine:
    """The kernel with its arrays, which grow as needed; it goes on from where it stopped."""

    def __init__(self, market: Market, times: Timeline, book_capacity: int = 4096) -> None:
        self._market = market
        self._times = times
        self.feed = _feed(market, times)
        self.book = Book(market.columns, market.chain, book_capacity)
        self.tops = np.zeros((len(times.acts), kernel.TOP_SIZE), np.int64)
        self._decisions = np.zeros((0, kernel.DECISION_SIZE), np.int64)
        self.state = np.zeros(kernel.ENGINE_SIZE, np.int64)
        self.state[kernel.NEXT_DECISION] = kernel.NEVER
        self.state[[kernel.TOUCH, kernel.TOUCH + 1]] = NO_PRICE
        self.state[[kernel.TOUCH_LOTS, kernel.TOUCH_LOTS + 1]] = kernel.NOT_TOLD
        self.lanes = _Lanes.of(
            (), np.zeros((0, kernel.WHOLE_SIZE), np.int64), np.zeros((0, kernel.REAL_SIZE)), 0, 0
        )

    def advance(self, until: int) -> None:
        """Let everything happen that happens before ``until``."""
        while True:
            stopped = kernel.advance(
                self.feed,
                self.lanes.arrays,
                self.book.arrays,
                self.book.state,
                self.tops,
                self._decisions,
                self.state,
                until,
            )
            if stopped == kernel.DONE:
                return
            if stopped == kernel.BOOK_FULL:
                self.book.grow()
            elif stopped == kernel.DECISIONS_FULL:
                self._decisions = np.concatenate((self._decisions, np.zeros_like(self._decisions)))
            else:
                self.lanes.make_room(self.lanes.arrays.fill.shape[1])

    def seat(
        self,
        parameters: Mapping[str, Parameter],
        steps: Steps,
        given: Mapping[str, Value],
        models: Sequence[str],
        seed: int,
        room: int = 1024,
    ) -> None:
        """Set the lanes, one a fill model, and how they are connected to the exchange."""
        size = parameters["order_size"].value
        assert isinstance(size, Decimal)
        lots = int(size / self._market.lot_size)
        most = math.floor(Decimal(_real(parameters["max_inventory"])) * lots)
        if most > _MOST_LOTS:
            raise UsageError(
                f"setting max_inventory was {parameters['max_inventory'].value} orders of {size}, which is "
                f"{most:.3g} units of {self._market.lot_size}, expected at most {_MOST_LOTS:.3g}"
            )
        whole = np.zeros((len(models), kernel.WHOLE_SIZE), np.int64)
        whole[:, kernel.ORDER_LOTS] = lots
        whole[:, kernel.MOST_LOTS] = most
        whole[:, kernel.TICK_STEP] = int(steps.tick_size / self._market.tick_size)
        whole[:, kernel.QUEUE_RULE] = RULES[str(parameters["queue"].value)]
        whole[:, kernel.QUEUE_CORRECTED] = 1
        real = np.zeros((len(models), kernel.REAL_SIZE), np.float64)
        for field, name in (
            (kernel.HALF_SPREAD, "half_spread"),
            (kernel.SKEW, "skew"),
            (kernel.INTENSITY, "A"),
            (kernel.DECAY, "k"),
            (kernel.QUEUE_POWER, "queue_power"),
        ):
            real[:, field] = _real(parameters[name])
        self.lanes = _Lanes.of(models, whole, real, seed, room)
        self.state[kernel.INTERVAL] = _ns(given, "interval")
        self.state[kernel.ORDER_LATENCY] = _ns(given, "order_latency")
        self.state[kernel.RESPONSE_LATENCY] = _ns(given, "response_latency")

    def decide_from(self, begin: int, room: int = 4096) -> None:
        """Let the lanes decide at ``begin`` and then at each interval, while a valid book is seen."""
        self._decisions = np.zeros((room, kernel.DECISION_SIZE), np.int64)
        self.state[kernel.NEXT_DECISION] = begin

    @property
    def decisions(self) -> Ints:
        """The decisions that were made; (m, DECISION_SIZE)."""
        return self._decisions[: self.state[kernel.DECISIONS]]

    @property
    def quoted(self) -> bool:
        """True when the lanes saw a valid book at least once."""
        return bool(self.decisions[:, kernel.DECISION_QUOTED].any())

    def touches(self) -> Touches:
        """Return best bid and ask as far as the engine has come."""
        tops = self.tops[: int(self.state[kernel.NEXT_MESSAGE])]
        return Touches.of(
            self._market,
            self._times,
            tops[:, kernel.TOP_VALID] == 1,
            tops[:, kernel.TOP_BID],
            tops[:, kernel.TOP_ASK],
        )


def _feed(market: Market, times: Timeline) -> kernel.Feed:
    trades, quotes = market.trades, market.quotes
    return kernel.Feed(
        columns=market.columns,
        acts=times.acts,
        seen=times.seen,
        trade_acts=times.trade_acts,
        trade_side=trades.side[times.trade],
        trade_price=trades.price[times.trade],
        trade_size=trades.size[times.trade],
        quote_acts=times.quote_acts,
        quote_id=quotes.last_id,
        quote_price=np.column_stack((quotes.bid_price, quotes.ask_price)),
        quote_size=np.column_stack((quotes.bid_size, quotes.ask_size)),
    )


def _model_result(
    name: str, engine: _Engine, lane: int, market: Market, parameters: Mapping[str, Parameter]
) -> ModelResult:
    arrays = engine.lanes.arrays
    account = arrays.account[lane]
    rows = arrays.fill[lane, : account[kernel.FILLS]].copy()
    side, lots = rows[:, kernel.FILL_SIDE], rows[:, kernel.FILL_LOTS]
    volume = market.lot_size * sum(lots.tolist())
    rate = parameters["maker_fee"].value
    assert isinstance(rate, Decimal)
    prices = rows[:, kernel.FILL_PRICE]
    with localcontext(EXACT):
        notional = sum(p * n for p, n in zip(prices.tolist(), lots.tolist(), strict=True))
        fees = rate * notional * market.tick_size * market.lot_size
    return ModelResult(
        model=name,
        fills=len(rows),
        buys=int((side > 0).sum()),
        sells=int((side < 0).sum()),
        volume=volume,
        pnl=attribute(
            side,
            prices,
            lots,
            rows[:, kernel.FILL_MID2],
            int(engine.state[kernel.MID2]),
            tick_size=market.tick_size,
            lot_size=market.lot_size,
            fees=fees,
        ),
        final_inventory=market.lot_size * int(account[kernel.INVENTORY]),
        max_inventory=market.lot_size * int(account[kernel.MOST_HELD]),
        orders=int(account[kernel.SENT]),
        rejected=int(account[kernel.REJECTED]),
        unplaced=int(account[kernel.UNPLACED]),
        withdrawn=int(account[kernel.WITHDRAWN]),
        columns=Columns(rows, engine.decisions, market.tick_size, market.lot_size),
    )
