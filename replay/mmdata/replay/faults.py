"""What is said when a strategy fails, or does what none may do: a sentence, and no result."""

from __future__ import annotations

from collections.abc import Sequence

from mmdata.datasets.errors import UsageError
from mmdata.datasets.times import iso
from mmdata.replay import state as s
from mmdata.replay.engine import Engine


def fault(engine: Engine, models: Sequence[str]) -> UsageError:
    """Return the sentence about what the strategy of one of the lanes did; ``models`` a lane."""
    lanes, lane = engine.world.lanes, int(engine.state[s.WRONG_LANE])
    account, real, whole = lanes.account[lane], lanes.real[lane], lanes.whole[lane]
    price, lots, slot = float(real[s.WRONG_PRICE]), float(real[s.WRONG_LOTS]), int(account[s.WRONG_SLOT])
    asked = f"asked for {lots:.17g} lots at {price:.17g} ticks in slot {slot}"
    says = {
        s.NO_NUMBER: f"{asked}, expected whole ticks and a whole number of lots above 0",
        s.OFF_TICK: f"{asked}, expected a price of whole steps of {int(whole[s.TICK_STEP])} ticks",
        s.OFF_LOT: f"{asked}, expected a size of whole steps of {int(whole[s.LOT_STEP])} lots",
        s.CROSSED: (
            f"sent a bid at {price:.17g} ticks with an ask at {lots:.17g}, expected the bid below the ask"
        ),
        s.NO_SLOT: f"used slot {slot}, expected 0 to {lanes.order.shape[1] - 1}: it declares so many slots",
        s.TOO_DEEP: "looked deeper than the best prices, expected sees='book' where it is declared",
        s.NO_SIGNAL: (
            f"looked up signal {slot}, but {engine.world.signal.shape[1] or 'none'} were given, numbered "
            f"from 0"
        ),
        s.NO_KIND: f"sent side {price:g} of kind {lots:g}, expected BID or ASK and a kind of order",
    }
    return UsageError(
        f"strategy {engine.strategy.name} under {models[lane]} at {_moment(engine)}: it "
        f"{says[int(account[s.WRONG])]}; the run ends here, without a result"
    )


def failure(engine: Engine, error: Exception) -> UsageError:
    """Return the sentence about an exception that a strategy raised, or met while it was compiled."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:3])[:400]
    return UsageError(
        f"strategy {engine.strategy.name} at {_moment(engine)}: it fails with {type(error).__name__}"
        f"{f': {reason}' if reason else ''}; the run ends here, without a result"
    )


def _moment(engine: Engine) -> str:
    made = engine.decisions
    return iso(int(made[-1, s.DECISION_TIME])) if len(made) else "its first decision"
