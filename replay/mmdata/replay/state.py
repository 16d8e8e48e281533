"""Where the state of a simulation lies: the fields of its arrays, by name.

Prices are integer ticks, sizes integer lots, times ns of the exchange's clock, and mids twice the mid (best
bid plus best ask), so that half ticks are whole. The state lies in arrays alone: the engine stops where one
is full, where a strategy must decide, or at a time, and goes on from there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import Columns, Levels

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = 2**62
"""A time that does not come."""

# What stopped the engine.
DONE = 0
BOOK_FULL = 1  # grow the exchange's book and go on
SEEN_FULL = 2  # grow the book that strategies see and go on
ROOM_FULL = 3  # grow what lanes did (fills, reports, log, draws) and go on
DECISIONS_FULL = 4  # grow the decisions and go on
DECIDE = 5  # let the strategy decide for each lane
FAULT = 6  # a strategy did what none may do: its account says what

# Fields of the engine's state.
NEXT_MESSAGE = 0
NEXT_TRADE = 1
NEXT_QUOTE = 2
NEXT_DECISION = 3  # time
NEXT_ARRIVAL = 4  # time: when the next instruction reaches the exchange
NEXT_DUE = 5  # time: no Poisson clock is due before it
NEXT_SIGNAL = 6  # signals that strategies may know of
DECISIONS = 7  # how many were made
SEEN = 8  # messages that the strategies may know of
LOOKED = 9  # messages that the book they see holds
MID2 = 10  # the last known mid at the exchange, twice
TWO_SIDED = 11  # 1 while the exchange's book is valid and has both sides
WAS_VALID = 12
INTERVAL = 13  # between decisions; 0: one at each message seen
QUOTES = 14  # quotes that set the touch
TRADES = 15  # trades that met a valid book
TOUCH = 16  # TOUCH + side: the best price at the exchange by the newest evidence, NO_PRICE for none
TOUCH_LOTS = 18  # TOUCH_LOTS + side: lots at it; NOT_TOLD where only a trade tells the price
OWN = 20  # OWN + side: no resting order of any lane is better than this price
ACTIVE = 22  # entries of `Lanes.active`
FLYING = 23  # entries of `Lanes.flying`
STALE = 24  # 1 when an entry of `active` no longer stands for a resting order
TAGS = 25  # given to entries of `active`
TAKEN = 26  # levels that any lane has taken from
DEEP = 27  # 1 when strategies see a book, not its top alone
LOGS = 28  # 1 when instructions are logged
MOST_FILLS = 29  # of any lane
MOST_REPORTS = 30
MOST_LOGGED = 31
ORDER_WIRE = 32  # how `Wire.order` is read
RESPONSE_WIRE = 33
FIRST_MESSAGE = 34  # number of the first message at hand, of all that were fed
CLOCKS = 35  # 1 when any lane's orders have Poisson clocks
UNDECIDED = 36  # 1 while lanes are to decide, but the book they see must grow first
WRONG_LANE = 37  # whose strategy did what none may do
CALLS = 38  # 1 where strategies are compiled in
QUOTED = 39  # decisions at which a valid book was seen
STEADY = 40  # 1 where what a strategy does follows from what `Strategy.steady` says
ASKED = 41  # ASKED + side: the best prices seen at the last decision
UNMOVED = 43  # 1 when they are those of the decision before
IDLE = 44  # 1 when no lane does anything while it sees them and hears nothing
ENGINE_SIZE = 45
NOT_TOLD = -1

# How latencies are read.
CONSTANT = 0  # the first of them
SAMPLED = 1  # one of them at random, by the lane's own numbers
BY_MESSAGE = 2  # that of the last message seen when lanes last decided

# Evidence that fills a resting order. A fill model is a set of them.
BY_TOUCH = 1  # the opposite best price reaches it
BY_MAKER = 2  # a trade meets a maker of the other side at or beyond it, who would have met it first
BY_THROUGH = 4  # a trade prints beyond it: nothing trades at a worse price while it stands
BY_PRINT = 8  # a trade prints at its price, as if nobody stood before it
BY_QUEUE = 16  # trades at its price that reach it in the queue
BY_CLOCK = 32  # a Poisson clock
AS_TAKER = 64  # it crossed on arrival
# How evidence is read: for comparison with hftbacktest, see `fills.PEERS`.
BOOK_ALONE = 128  # what stands at the exchange is told by book messages alone
AT_ONCE = 256  # what reaches it in the queue fills all of it

# Whole-number parameters of a lane.
QUEUE_RULE, QUEUE_CORRECTED, MOST_LOTS, TICK_STEP, LOT_STEP, LEAST_LOTS, LEAST_NOTIONAL = range(7)
WHOLE_SIZE = 7
# Real parameters of a lane: of the Poisson clock, of what a hybrid's trades explain of it, of the queue.
INTENSITY, DECAY, EXPLAINED_INTENSITY, EXPLAINED_DECAY, QUEUE_POWER = range(5)
WRONG_PRICE, WRONG_LOTS = 5, 6  # what its strategy asked for, where that was wrong
REAL_SIZE = 7

# An order: a lane has so many slots, each for one order with at most one instruction on its way.
STATUS = 0
SIDE = 1
KIND = 2
PRICE = 3
LEAVES = 4  # lots open at the exchange
FILLED = 5  # lots
PLACED = 6  # when it reached the exchange
TAG = 7  # of its entry in `Lanes.active`
ARRIVES = 8  # when the instruction reaches the exchange; NEVER where none is on its way
ACTION = 9
NEW_PRICE = 10
NEW_SIZE = 11
KNEW_FILLED = 12  # lots that the lane knew filled when it sent the instruction
SENT_AT = 13
BUSY = 14  # 1 until the lane knows what became of the instruction
KNOWN_PRICE = 15
KNOWN_LEAVES = 16  # lots that the lane believes open
KNOWN_FILLED = 17
DUE = 18  # when the Poisson clock fills it
RATE_SINCE = 19
NUMBER = 20  # of the order, a lane; 0 where the slot is free
LOG_ROW = 21  # of the instruction
ORDER_SIZE = 22

# Status, as the exchange has it.
FREE, SENT, RESTING, GONE = 0, 1, 2, 3
# Kinds of orders.
POST_ONLY = 0  # rejected where it would cross on arrival
LIMIT = 1  # takes what it crosses, rests with what is left
IOC = 2  # takes what it crosses, up to its price
MARKET = 3  # takes at any price
# Instructions.
NEW = 0
AMEND = 1  # keeps its place in the queue where only its size falls; fails where the order is gone
REPLACE = 2  # off, and on anew, even where the order is gone; what filled on the way counts against it
CANCEL = 3

# A resting order in `Lanes.active`.
ACTIVE_LANE, ACTIVE_SLOT, ACTIVE_TAG, ACTIVE_SIDE, ACTIVE_PRICE = range(5)
ACTIVE_SHOWN = 5  # lots of its level as its queue has them; LOOK and NO_QUEUE
ACTIVE_SIZE = 6
LOOK = -2  # at its queue after the next message, whatever the level shows
NO_QUEUE = -3  # its fill model has none

# What a lane's fill model knows of an order.
FRONT = 0  # lots before it in the queue; below 0 a fraction of a lot that has reached it
TRADED = 1  # lots traded at its price since the level was last told
SHOWN = 2  # lots shown at its price; below 0 where the feed has not told yet
WAIT = 3  # what is left of the Poisson clock's exponential wait, in units of its mean
RATE = 4  # of the Poisson clock, per ns
QUEUE_SIZE = 5

# A lane's account.
INVENTORY = 0  # lots
KNOWN_INVENTORY = 1  # as far as the lane was told
FILLS = 2
MOST_HELD = 3
SENT_COUNT = 4  # instructions
REJECTED = 5  # would have crossed on arrival
UNPLACED = 6  # reached the exchange while the book was invalid
WITHDRAWN = 7  # orders taken off at a hole
EXPIRED = 8  # IOC and market orders with something left
SELF_TRADES = 9  # would have met an order of their own
REFUSED = 10  # not sent: beyond the position limit, or below the least size or notional
TOO_LATE = 11  # amendments and cancellations of orders that were gone
DRAWS = 12
REPORTS = 13
LAST_KNOWN = 14  # when the last report comes: none overtakes another
NUMBERS = 15  # given to orders
LOGGED = 16
MET = 17  # the last trade that reached an order, by number
MET_LOTS = 18  # lots of it that filled orders
RANDOM = 19  # state of the lane's own random numbers
TAKEN_LEVELS = 20  # TAKEN_LEVELS + side: levels taken from
CUT_SHORT = 22  # orders that would have taken from more levels than are kept
WRONG = 23  # what its strategy did wrong; 0: nothing
WRONG_SLOT = 24
RESTS = 25  # 1 when a steady strategy did nothing when it was last asked
ACCOUNT_SIZE = 26

# What a strategy may do wrong.
NO_NUMBER = 1  # a price or size that is not a number, or no whole number of ticks or lots
OFF_TICK = 2
OFF_LOT = 3
CROSSED = 4  # a bid at or above an ask of the same decision
NO_SLOT = 5
TOO_DEEP = 6  # it looked beyond the best prices, but was declared to see these alone
NO_KIND = 7  # a side or kind that is none
NO_SIGNAL = 8  # it looked up a signal that was not given

# A report to a lane.
KNOWN_AT, REPORT_SLOT, REPORT_NUMBER, REPORT_ANSWER, REPORT_SIDE, REPORT_LOTS, REPORT_PRICE = range(7)
REPORT_SIZE = 7

# A fill.
FILL_TIME, FILL_SIDE, FILL_PRICE, FILL_LOTS, FILL_MID2, FILL_PLACED, FILL_CAUSE, FILL_NUMBER = range(8)
FILL_SIZE = 8

# A logged instruction.
LOG_SENT, LOG_ARRIVES, LOG_SLOT, LOG_NUMBER, LOG_ACTION, LOG_KIND, LOG_SIDE, LOG_PRICE, LOG_LOTS = range(9)
LOG_OUTCOME = 9
LOG_SIZE = 10
# Outcomes.
ON_ITS_WAY = 0
STANDS = 1  # rests at the exchange
CROSSES = 2  # rejected: would have crossed
NO_BOOK = 3  # the book was invalid
OWN_ORDER = 4  # would have met an order of its own
TAKES = 5  # executed in full on arrival
EXPIRES = 6  # what it could not take expired
IS_OFF = 7  # cancelled, or changed to a size that had filled already
IS_GONE = 8  # came too late
AT_A_HOLE = 9  # lost where the book became unknown

# A decision: its time, the last message seen, the exchange's mid then (twice), 1 when lanes quoted.
DECISION_TIME, DECISION_SEEN, DECISION_MID2, DECISION_QUOTED = 0, 1, 2, 3
DECISION_SIZE = 4

# A top: what a strategy may see of the book after a message; as `_kernel.run` of datasets notes it.
TOP_VALID, TOP_BID, TOP_BID_LOTS, TOP_ASK, TOP_ASK_LOTS = range(5)
TOP_SIZE = 5

LEVELS_TAKEN = 64
"""Levels a side of which a lane's taking is remembered."""


class Feed(NamedTuple):
    """A stretch of a recording on the exchange's clock: n messages, k trades, q quotes."""

    columns: Columns
    acts: Ints  # (n,) ascending
    seen: Ints  # (n,) ascending, never before `acts`
    trade_acts: Ints  # (k,) ascending
    trade_side: NDArray[np.int8]  # (k,) 1 the taker bought, -1 sold
    trade_price: Ints  # (k,)
    trade_size: Ints  # (k,)
    quote_acts: Ints  # (q,) ascending
    quote_id: Ints  # (q,) comparable with those of messages
    quote_price: Ints  # (q, 2) best bid, best ask; NO_PRICE for an empty side
    quote_size: Ints  # (q, 2)


class Lanes(NamedTuple):
    """Lanes of a run: what they are, what they have at the exchange, what came of it; s slots each."""

    model: Ints  # (lanes,) the evidence that fills their orders
    whole: Ints  # (lanes, WHOLE_SIZE)
    real: Floats  # (lanes, REAL_SIZE)
    parameter: Floats  # (lanes, p) of the strategy
    memory: Floats  # (lanes, m) of the strategy
    order: Ints  # (lanes, s, ORDER_SIZE)
    queue: Floats  # (lanes, s, QUEUE_SIZE)
    account: Ints  # (lanes, ACCOUNT_SIZE)
    report: Ints  # (lanes, room, REPORT_SIZE)
    fill: Ints  # (lanes, room, FILL_SIZE)
    log: Ints  # (lanes, room or 0, LOG_SIZE)
    draw: Floats  # (lanes, room + s) standard exponential, of the lane's own stream
    active: Ints  # (2 · lanes · s, ACTIVE_SIZE) resting orders in order of placement
    flying: Ints  # (lanes · s, 2) of those with an instruction on its way, in order of sending
    taken: Ints  # (lanes, 2, LEVELS_TAKEN, 2) price and lots that a lane has taken there


class Wire(NamedTuple):
    """How long instructions and answers are on their way; ns, how they are read says the engine's state."""

    order: Ints
    response: Ints


class World(NamedTuple):
    """All there is of a simulation: a compiled function goes on from any state of it."""

    feed: Feed
    lanes: Lanes
    levels: Levels  # the exchange's book
    book: Ints
    seen_levels: Levels  # the book as strategies see it, where they look deeper than its top
    seen_book: Ints
    tops: Ints  # (n, TOP_SIZE) after each message
    decisions: Ints  # (room, DECISION_SIZE)
    engine: Ints  # (ENGINE_SIZE,)
    wire: Wire
    signal_seen: Ints  # (r,) ascending: from when on strategies may know of each row
    signal: Floats  # (r + 1, c): the first row stands for what is not known yet
