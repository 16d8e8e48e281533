"""REST of OKX, as far as a recorder of public data asks: time, instruments, books, trades.

Source: okx.com/docs-v5, "Public data", "Order book trading / Market data", "Error code" (July 2026).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from mmdata.sandbox.instruments import Instrument, shortest
from mmdata.sandbox.tape import Tape, TapeTrade
from mmdata.sandbox.wire import NS_PER_MS, Answer, Window, rows

MAX_DEPTH = 400
_MAX_TRADES = 500
_MAX_HISTORY = 100
_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION")
_LIST_TIME = "1606468572000"


class OkxBooks(Protocol):
    """What REST tells about: live markets, or a capture."""

    def instrument_rows(self) -> Mapping[str, str]:
        """Return instrument id -> its JSON object in the instruments answer."""

    def depth_data(self, inst_id: str, size: int, now_ns: int) -> str | None:
        """Return the ``data`` array of a books answer, None when there is none to give."""

    def trades(self, inst_id: str) -> Tape[TapeTrade]:
        """Return what the instrument traded."""


class _RefusalError(Exception):
    """Not an error of ours: a venue's answer on its way out."""

    def __init__(self, code: str, text: str, status: int) -> None:
        super().__init__(text)
        body = {"code": code, "msg": text, "data": []}
        self.answer = Answer(status, json.dumps(body, separators=(",", ":")))


class OkxRest:
    """Answers for one client address, whose requests it counts per two seconds and call."""

    def __init__(self, books: OkxBooks) -> None:
        self._books = books
        self._calls: dict[str, tuple[Callable[[dict[str, str], int], str], int]] = {
            "/api/v5/public/time": (self._time, 10),
            "/api/v5/public/instruments": (self._instruments, 20),
            "/api/v5/market/books": (self._market_books, 40),
            "/api/v5/market/trades": (self._market_trades, 100),
            "/api/v5/market/history-trades": (self._history_trades, 20),
        }
        self._rates = {path: Window(limit, 2.0) for path, (_, limit) in self._calls.items()}

    def answer(self, target: str, now_ns: int) -> Answer:
        """Return the answer to ``GET target``; a code other than "0" is an error at any status."""
        parts = urlsplit(target)
        if parts.path not in self._calls:
            return Answer(404, '{"code":"404","msg":"Not Found","data":[]}')
        call, _ = self._calls[parts.path]
        query = {name: values[-1] for name, values in parse_qs(parts.query, True).items()}
        try:
            if self._rates[parts.path].exceeded(now_ns):
                raise _RefusalError("50011", "Too Many Requests", 429)
            return Answer(200, envelope(call(query, now_ns)))
        except _RefusalError as refused:
            return refused.answer

    def _time(self, query: dict[str, str], now_ns: int) -> str:
        return f'[{{"ts":"{now_ns // NS_PER_MS}"}}]'

    def _instruments(self, query: dict[str, str], now_ns: int) -> str:
        kind = query.get("instType", "")
        if not kind:
            raise _RefusalError("50014", "Parameter instType can not be empty", 400)
        if kind not in _TYPES:
            raise _RefusalError("51000", "Parameter instType error", 400)
        known = self._books.instrument_rows()
        wanted = query.get("instId", "")
        if wanted and wanted not in known:
            raise _no_such_instrument()
        chosen = [row for inst_id, row in known.items() if wanted in ("", inst_id)]
        return rows(row for row in chosen if f'"instType":"{kind}"' in row)

    def _market_books(self, query: dict[str, str], now_ns: int) -> str:
        inst_id = self._inst_id(query)
        data = self._books.depth_data(inst_id, _count(query, "sz", 1, MAX_DEPTH), now_ns)
        if data is None:
            raise _RefusalError("50001", "Service temporarily unavailable. Try again later", 503)
        return data

    def _market_trades(self, query: dict[str, str], now_ns: int) -> str:
        tape = self._books.trades(self._inst_id(query))
        return _newest_first(query["instId"], tape.newest(_count(query, "limit", 100, _MAX_TRADES)))

    def _history_trades(self, query: dict[str, str], now_ns: int) -> str:
        tape = self._books.trades(self._inst_id(query))
        limit = _count(query, "limit", 100, _MAX_HISTORY)
        kind = query.get("type", "1")
        if kind not in ("1", "2"):
            raise _RefusalError("51000", "Parameter type error", 400)
        after, before = _cursor(query, "after"), _cursor(query, "before")
        # By time, only the way back is documented.
        if kind == "2":
            found = tape.newest(limit) if after is None else tape.until(after * NS_PER_MS - 1, limit)
        elif before is None:
            found = tape.newest(limit) if after is None else tape.before_id(after, limit)
        else:
            found = _between(tape, before, after, limit)
        return _newest_first(query["instId"], found)

    def _inst_id(self, query: Mapping[str, str]) -> str:
        inst_id = query.get("instId", "")
        if not inst_id:
            raise _RefusalError("50014", "Parameter instId can not be empty", 400)
        if inst_id not in self._books.instrument_rows():
            raise _no_such_instrument()
        return inst_id


def _between(tape: Tape[TapeTrade], before: int, after: int | None, limit: int) -> list[TapeTrade]:
    """Return the newest trades newer than ``before`` and older than ``after``."""
    found = tape.newest(limit) if after is None else tape.before_id(after, limit)
    return [trade for trade in found if trade.trade_id > before]


def _newest_first(inst_id: str, trades: list[TapeTrade]) -> str:
    return rows(
        f'{{"instId":"{inst_id}","side":"{trade.taker}","sz":"{trade.size}","px":"{trade.price}",'
        f'"source":"0","tradeId":"{trade.trade_id}","ts":"{trade.ts_event // NS_PER_MS}"}}'
        for trade in reversed(trades)
    )


def _count(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return how many a request asks for; more than there may be is cut down, as on the venue."""
    text = query.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise _RefusalError("51000", f"Parameter {name} error", 400)
    return min(int(text), most)


def _cursor(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise _RefusalError("51000", f"Parameter {name} error", 400)
    return int(text)


def envelope(data: str) -> str:
    """Return data as the body of a good answer."""
    return f'{{"code":"0","msg":"","data":{data}}}'


def failure(status: int, retry_after_s: int | None) -> Answer:
    """Return an error of the server's: too many requests, or service unavailable."""
    code, text = "50001", "Service temporarily unavailable. Try again later"
    if status in (418, 429):
        code, text = "50011", "Too Many Requests"
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return _RefusalError(code, text, status).answer._replace(headers=headers)


def _no_such_instrument() -> _RefusalError:
    text = "Instrument ID, Instrument ID code, or Spread ID doesn't exist."
    return _RefusalError("51001", text, 200)


def instrument_row(instrument: Instrument, code: int, kind: str = "SPOT") -> str:
    """Return the JSON object that the instruments answer holds for an instrument."""
    row = {
        "instType": kind,
        "instId": instrument.symbol,
        "baseCcy": instrument.base,
        "quoteCcy": instrument.quote,
        "settleCcy": "",
        "ctVal": "",
        "ctMult": "",
        "ctValCcy": "",
        "ctType": "",
        "tickSz": shortest(1, instrument.tick_e8),
        "lotSz": shortest(1, instrument.lot_e8),
        "minSz": shortest(1, max(instrument.lot_e8, 1_000)),
        "maxLmtSz": "9999999999",
        "maxMktSz": "1000000",
        "maxLmtAmt": "20000000",
        "maxMktAmt": "1000000",
        "state": "live",
        "listTime": _LIST_TIME,
        "contTdSwTime": "",
        "expTime": "",
        "openType": "",
        "ruleType": "normal",
        "instIdCode": code,
        "tradeQuoteCcyList": [instrument.quote],
        "upcChg": [],
    }
    return json.dumps(row, separators=(",", ":"))
