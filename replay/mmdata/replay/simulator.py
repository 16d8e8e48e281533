"""A market maker on a recording: what its orders would have earned, under several fill models at once."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.errors import UsageError
from mmdata.datasets.loading import Recording
from mmdata.datasets.market import Market
from mmdata.datasets.times import DAY_NS, Moment, iso, span
from mmdata.replay import state as s
from mmdata.replay.attribution import EXACT, attribute
from mmdata.replay.calibration import BBO, DEPTH, Calibration, estimate
from mmdata.replay.caveats import Doubts, of_model
from mmdata.replay.clock import MAPPED, proof
from mmdata.replay.engine import Delay, Engine, Lane, Rules
from mmdata.replay.faults import failure, fault
from mmdata.replay.fills import MODELS
from mmdata.replay.fitness import Steps, order_steps
from mmdata.replay.gathering import EngineGathered
from mmdata.replay.identity import certified, run_hash
from mmdata.replay.parameters import duration_of, find_parameters, real
from mmdata.replay.player import Player
from mmdata.replay.queues import RULES
from mmdata.replay.result import Columns, ModelResult, Parameter, Result, joined
from mmdata.replay.settings import FEED, MESSAGE, Value, parse_settings, suggestion
from mmdata.replay.signals import map_signals
from mmdata.replay.strategies import Decide, Strategy, find_strategy
from mmdata.replay.survey import Held, Survey, survey

__all__ = ["DEFAULT_MODELS", "MODELS", "run", "run_sets", "simulate", "sweep"]

Ints = NDArray[np.int64]
AnyStrategy = str | Strategy | Decide

DEFAULT_MODELS = ("price-cross", "trade-through", "poisson", "l2-queue")
_AVELLANEDA_STOIKOV = "avellaneda-stoikov"
_SHARED = ("base_latency", "interval", "order_latency", "response_latency")
"""Settings of which one pass has one value."""
_ESTIMATED = ("A", "k", "sigma", "order_size")
_CALIBRATION_SHARE = 10  # of the time: the first tenth
_CALIBRATION_MOST_NS = DAY_NS
# Lots times ticks of a position stay within 64 bits, and so does all that is ever filled.
_MOST_LOTS = 2**48


def simulate(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
    strategy: AnyStrategy = _AVELLANEDA_STOIKOV,
    fills: str | Sequence[str] = DEFAULT_MODELS,
    settings: Mapping[str, object] | None = None,
    signals: tuple[object, object] | None = None,
    seed: int = 0,
    clock: str = MAPPED,
    log: bool = False,
    curve: bool = True,
) -> Result:
    """Let a strategy quote on a recording, and return what it earned under each fill model.

    ``start`` and ``end``, half-open, are of the exchange's clock: ISO 8601 text (no zone is UTC, a bare
    date the UTC day), ns since the epoch or datetimes. ``strategy`` is a built-in's name, ``FILE.py:NAME``,
    or what `mmdata.replay.strategies.strategy` makes of a function. ``fills`` names models of `MODELS`, in
    a sequence or with commas between. ``settings`` are the strategy's own parameters and those of
    `mmdata.replay.settings.SETTINGS`, as numbers or text; of A, k, sigma and order_size, what is needed and
    not set is estimated from the first tenth of the time with a valid book, at most from a day of it, which
    is then not traded.
    ``signals``: ns of the recorder's clock (n,), ascending, and numbers (n,) or (n, c) that strategies may
    look up from then on. ``log``: keep every instruction, for `ModelResult.order_frame`. ``curve``: keep
    every decision, for `ModelResult.pnl_frame`: 28 MB a day and 100 ms. The same arguments give the same
    result, to the bit.

    The recording is gone through a session at a time, twice: a month needs the memory of a session, and of
    what is kept.

    UsageError: a name or value that cannot be, a dataset without a valid book, too little to estimate from,
    a clock that would show the future, sessions that ran at the same time, a tick or lot that changed,
    signals out of order, a strategy that fails or does what none may do. DatasetError: a file is damaged.
    """
    (result,) = sweep(
        root,
        exchange=exchange,
        symbol=symbol,
        start=start,
        end=end,
        strategy=strategy,
        fills=fills,
        sets=[settings or {}],
        signals=signals,
        seed=seed,
        clock=clock,
        log=log,
        curve=curve,
    )
    return result


def sweep(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    sets: Sequence[Mapping[str, object]],
    start: Moment | None = None,
    end: Moment | None = None,
    strategy: AnyStrategy = _AVELLANEDA_STOIKOV,
    fills: str | Sequence[str] = DEFAULT_MODELS,
    signals: tuple[object, object] | None = None,
    seed: int = 0,
    clock: str = MAPPED,
    log: bool = False,
    curve: bool = True,
) -> tuple[Result, ...]:
    """Simulate several sets of settings in one pass over the book; a result a set, as `simulate` finds it.

    All sets must estimate the same, and agree about the clock, the interval and the latencies.
    """
    begin, until = span(start, end)
    models = _models(fills)
    found = find_strategy(strategy)
    own = {setting.name for setting in found.parameters}
    if not sets:
        raise UsageError("there is no set of settings, expected at least one")
    split = [
        (
            parse_settings({name: value for name, value in given.items() if name not in own}),
            found.values({name: value for name, value in given.items() if name in own}),
        )
        for given in sets
    ]
    # The recorder's clock decides what lies in which file; no clock is a day wrong.
    parts = Recording(root, exchange, symbol, end=None if until is None else until + DAY_NS)
    return run_sets(
        Held(parts),
        start=begin,
        end=until,
        strategy=found,
        models=models,
        sets=split,
        signals=signals,
        seed=seed,
        clock=clock,
        log=log,
        curve=curve,
        data=certified(root, exchange, symbol, begin, until),
    )


def run(
    market: Market,
    *,
    start: int | None = None,
    end: int | None = None,
    strategy: AnyStrategy = _AVELLANEDA_STOIKOV,
    models: Sequence[str] = DEFAULT_MODELS,
    settings: Mapping[str, Value] | None = None,
    parameters: Mapping[str, object] | None = None,
    signals: tuple[object, object] | None = None,
    seed: int = 0,
    clock: str = MAPPED,
    log: bool = False,
    curve: bool = True,
) -> Result:
    """Simulate on a loaded market; as `simulate`, with times in ns and settings already checked."""
    found = find_strategy(strategy)
    (result,) = run_sets(
        [market],
        start=start,
        end=end,
        strategy=found,
        models=models,
        sets=[(dict(settings or {}), found.values(parameters or {}))],
        signals=signals,
        seed=seed,
        clock=clock,
        log=log,
        curve=curve,
    )
    return result


Set = tuple[Mapping[str, Value], Mapping[str, float]]
"""Settings, and the strategy's own parameters; checked."""


def run_sets(
    parts: Iterable[Market],
    *,
    start: int | None = None,
    end: int | None = None,
    strategy: Strategy,
    models: Sequence[str],
    sets: Sequence[Set],
    signals: tuple[object, object] | None = None,
    seed: int = 0,
    clock: str = MAPPED,
    log: bool = False,
    curve: bool = True,
    data: tuple[tuple[str, str], ...] = (),
) -> tuple[Result, ...]:
    """Simulate sets of settings in one pass over a recording's parts; as `sweep`, with everything checked.

    ``parts`` are gone through twice: a loaded market, or its sessions.
    """
    if seed < 0:
        raise UsageError(f"seed was {seed}, expected a whole number from 0")
    shared = _shared(sets)
    found = survey(
        parts,
        start,
        end,
        clock=clock,
        base_latency_ns=duration_of(shared, "base_latency"),
        latencies=FEED in (shared.get("order_latency"), shared.get("response_latency")),
    )
    market = found.market
    steps = order_steps(market, found.clock, found.sessions, found.begin, found.until)
    missing = _missing(strategy, models, shared)
    engine = Engine(market.chain, strategy, keeps_decisions=curve)
    player = Player(engine, parts, found)
    traded_from, stretch = _traded_from(found, missing)
    doubts = Doubts(found.clock, traded_from, found.until)
    player.shown.append(doubts.see)
    calibration = _calibrate(player, engine, found, traded_from, missing, stretch)
    parameters = [
        find_parameters(strategy, market, found.traded, steps, models, given, own, calibration)
        for given, own in sets
    ]
    seen = map_signals(signals, found.begun, found.shifts)
    quotes = int(engine.state[s.QUOTES])
    engine.seat(
        [_lane(model, strategy, market, steps, own) for own in parameters for model in models],
        seed=seed,
        interval=0 if shared.get("interval") == MESSAGE else duration_of(shared, "interval"),
        order=_delay(shared, "order_latency", found),
        response=_delay(shared, "response_latency", found),
        signals=seen,
        log=log,
    )
    engine.decide_from(traded_from)
    _advance(player, engine, found.until, [model for _ in sets for model in models])
    if not engine.quoted:
        raise _no_book(found, traded_from, found.until)
    signalled = hashlib.sha256(seen.seen.tobytes() + seen.rows.tobytes()).hexdigest()
    covered = proof(found.validity, traded_from, found.until).length / (found.until - traded_from)
    results = []
    for first, found_for in enumerate(parameters):
        made = [
            _model_result(name, engine, first * len(models) + lane, market, found_for)
            for lane, name in enumerate(models)
        ]
        plain = [[name, str(own.value), own.source] for name, own in found_for.items()]
        results.append(
            Result(
                exchange=market.exchange,
                symbol=market.symbol,
                strategy=strategy.name,
                seed=seed,
                tick_size=market.tick_size,
                lot_size=market.lot_size,
                tick_source=market.tick_source,
                lot_source=market.lot_source,
                clock=found.clock,
                start=found.begin,
                traded_from=traded_from,
                end=found.until,
                covered=covered,
                touch=BBO if engine.state[s.QUOTES] > quotes else DEPTH,
                trade_holes=doubts.trade_holes,
                warnings=(*doubts.told(market), *(said for own in made for said in of_model(own))),
                parameters=tuple(found_for.values()),
                calibration=calibration,
                last_mid2=int(engine.state[s.MID2]),
                data=data,
                hash=run_hash(
                    data, strategy, [found.begin, found.until, clock, seed, [*models], plain, signalled]
                ),
                models=tuple(made),
            )
        )
    return tuple(results)


def _traded_from(found: Survey, missing: Sequence[str]) -> tuple[int, str]:
    """Return from when on may be traded, and what lies before, for what is ``missing``."""
    if not missing:
        return found.begin, ""
    whole = proof(found.validity, found.begin, found.until)
    if not whole.length:
        raise _no_book(found, found.begin, found.until)
    share = whole.length // _CALIBRATION_SHARE
    if share > _CALIBRATION_MOST_NS:
        return whole.after(_CALIBRATION_MOST_NS), "the first day"
    return whole.after(share), "the first tenth"


def _calibrate(
    player: Player, engine: Engine, found: Survey, traded_from: int, missing: Sequence[str], stretch: str
) -> Calibration | None:
    """Return what is estimated from what lies before ``traded_from``; the engine has come as far."""
    gathered = EngineGathered(engine)
    if missing:
        player.shown.append(gathered.see)
    _advance(player, engine, traded_from, ())
    if not missing:
        return None
    player.shown.remove(gathered.see)
    market, times, touches = gathered.joined()
    if missing != ["order_size"] and not touches.two_sided.any():
        raise _no_book(found, found.begin, traded_from)
    return estimate(market, times, touches, found.begin, traded_from, missing, stretch)


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


def _shared(sets: Sequence[Set]) -> dict[str, Value]:
    """Return what all sets have in common. UsageError: they differ where one pass allows one value."""
    first = sets[0][0]
    for given, _ in sets:
        for name in _SHARED:
            if given.get(name) != first.get(name):
                raise UsageError(
                    f"setting {name} was {first.get(name)} in one set and {given.get(name)} in another: sets "
                    f"of one pass share it; sweep them one after the other"
                )
        for name in _ESTIMATED:
            if (name in given) != (name in first):
                raise UsageError(
                    f"setting {name} is set in one set and estimated in another: what is estimated decides "
                    f"from when on all are traded; set it in all sets, or in none"
                )
    return {name: value for name, value in first.items() if name in (*_SHARED, *_ESTIMATED)}


def _missing(strategy: Strategy, models: Sequence[str], shared: Mapping[str, Value]) -> list[str]:
    """Return what has to be estimated."""
    needed: tuple[str, ...] = _ESTIMATED
    if not strategy.built_in:
        needed = ("A", "k") if any(MODELS[model] & s.BY_CLOCK for model in models) else ()
    return [name for name in needed if name not in shared]


def _delay(shared: Mapping[str, Value], name: str, found: Survey) -> Delay:
    if shared.get(name) != FEED:
        return Delay.constant(duration_of(shared, name))
    if not found.latencies.size:
        raise UsageError(
            f"setting {name} was {FEED}, but no book message was recorded from {iso(found.begin)} to "
            f"{iso(found.until)}"
        )
    return Delay(found.latencies, s.SAMPLED)


def _advance(player: Player, engine: Engine, until: int, models: Sequence[str]) -> None:
    """Let happen what happens before ``until``; ``models`` a lane. UsageError: the strategy failed."""
    try:
        sound = player.advance(until)
    except Exception as error:  # of somebody's own code, compiled into the engine or called by it
        if engine.strategy.built_in:
            raise
        raise failure(engine, error) from error
    if not sound:
        raise fault(engine, models)


def _lane(
    model: str, strategy: Strategy, market: Market, steps: Steps, parameters: Mapping[str, Parameter]
) -> Lane:
    lots, limit = 0, _MOST_LOTS
    if "order_size" in parameters:
        size = parameters["order_size"].value
        assert isinstance(size, Decimal)
        lots = int(size / market.lot_size)
        limit = math.floor(Decimal(real(parameters["max_inventory"])) * lots)
        if limit > _MOST_LOTS:
            raise UsageError(
                f"setting max_inventory was {parameters['max_inventory'].value} orders of {size}, which is "
                f"{limit:.3g} units of {market.lot_size}, expected at most {_MOST_LOTS:.3g}"
            )
    position = parameters["max_position"].value
    if isinstance(position, Decimal):
        limit = min(limit, int(position / market.lot_size))
    own = tuple(real(parameters[setting.name]) for setting in strategy.parameters)
    if strategy.built_in:
        own = (real(parameters["half_spread"]), real(parameters["skew"]), float(lots))
    least, notional = parameters["min_size"].value, parameters["min_notional"].value
    assert isinstance(least, Decimal)
    assert isinstance(notional, Decimal)

    def rate(name: str, default: float) -> float:
        return real(parameters[name]) if name in parameters else default

    return Lane(
        model,
        own,
        Rules(
            most_lots=limit,
            tick_step=int(steps.tick_size / market.tick_size),
            lot_step=int(steps.lot_size / market.lot_size),
            least_lots=math.ceil(least / market.lot_size),
            least_notional=math.ceil(notional / (market.tick_size * market.lot_size)),
            queue_rule=RULES[str(parameters["queue"].value)],
        ),
        intensity=rate("A", 0.0),
        decay=rate("k", 1.0),
        explained_intensity=rate("A_explained", 0.0),
        explained_decay=rate("k_explained", 1.0),
        queue_power=real(parameters["queue_power"]),
    )


def _no_book(found: Survey, begin: int, until: int) -> UsageError:
    market = found.market
    shifts = joined([f"{session.shift_ns / 1e9:.3f} s" for session in found.clock.sessions])
    return UsageError(
        f"{market.exchange} {market.symbol}: the strategy never saw a valid book with two sides between "
        f"{iso(begin)} and {iso(until)}; the recording holds {found.messages} book messages and "
        f"{found.snapshots} snapshots, and a book takes a snapshot and the messages that continue it; "
        f"`mmdata validate` says where the chain breaks (the recorder's clock was shifted by {shifts} to the "
        f"exchange's: one wrong event time shifts all that is seen)"
    )


def _model_result(
    name: str, engine: Engine, lane: int, market: Market, parameters: Mapping[str, Parameter]
) -> ModelResult:
    arrays = engine.world.lanes
    account = arrays.account[lane]
    rows = arrays.fill[lane, : account[s.FILLS]].copy()
    side, lots = rows[:, s.FILL_SIDE], rows[:, s.FILL_LOTS]
    volume = market.lot_size * sum(lots.tolist())
    prices = rows[:, s.FILL_PRICE]
    took = rows[:, s.FILL_CAUSE] == s.AS_TAKER
    with localcontext(EXACT):
        fees = Decimal(0)
        for kind, own in (("maker_fee", ~took), ("taker_fee", took)):
            rate = parameters[kind].value
            assert isinstance(rate, Decimal)
            notional = sum(p * n for p, n in zip(prices[own].tolist(), lots[own].tolist(), strict=True))
            fees += rate * notional * market.tick_size * market.lot_size
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
            rows[:, s.FILL_MID2],
            int(engine.state[s.MID2]),
            tick_size=market.tick_size,
            lot_size=market.lot_size,
            fees=fees,
        ),
        final_inventory=market.lot_size * int(account[s.INVENTORY]),
        max_inventory=market.lot_size * int(account[s.MOST_HELD]),
        orders=int(account[s.SENT_COUNT]),
        rejected=int(account[s.REJECTED]),
        unplaced=int(account[s.UNPLACED]),
        withdrawn=int(account[s.WITHDRAWN]),
        taken=int(took.sum()),
        expired=int(account[s.EXPIRED]),
        self_trades=int(account[s.SELF_TRADES]),
        refused=int(account[s.REFUSED]),
        by_clock=int((rows[:, s.FILL_CAUSE] == s.BY_CLOCK).sum()),
        cut_short=int(account[s.CUT_SHORT]),
        columns=Columns(
            rows,
            engine.decisions,
            arrays.log[lane, : account[s.LOGGED]].copy(),
            market.tick_size,
            market.lot_size,
            engine.keeps_decisions,
        ),
    )
