"""The fault plan: messages and times in, decisions out. No socket, no clock."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmdata.sandbox.faults import (
    Announce,
    Cut,
    Deed,
    Deliver,
    FaultPlan,
    FaultRecord,
    Hangup,
    Notify,
    Refusal,
    ResetIds,
    RestVerdict,
    StepClock,
    parse_script,
)
from mmdata.sandbox.faults.kinds import VenueName
from mmdata.sandbox.faults.memory import BookMemory, cut

_S = 1_000_000_000
_DEPTH, _TRADE = "btcusdt@depth@100ms", "btcusdt@trade"


class _Bench:
    """A plan with two connections, and what each was sent."""

    def __init__(self, *faults: dict[str, Any], venue: VenueName = "binance", conns: int = 2) -> None:
        self.plan = FaultPlan(parse_script(list(faults)), venue, seed=1)
        self.sent: dict[int, list[str]] = {}
        self.deeds: list[Deed] = []
        self.records: list[FaultRecord] = []
        self.now = 100 * _S
        for conn in range(1, conns + 1):
            self.open(conn)

    def open(self, conn: int) -> None:
        self.plan.opened(conn, self.now)
        self.sent[conn] = []

    def publish(self, text: str, key: str = _DEPTH, to: tuple[int, ...] = (1, 2)) -> None:
        self.plan.publishing(key, self.now)
        for conn in to:
            self._take(self.plan.frame(conn, key, text, self.now))
        self._take(self.plan.published(key, self.now))

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * _S)
        self._take(self.plan.due(self.now))

    def close(self, conn: int) -> None:
        self.plan.closed(conn, self.now)
        self.records += self.plan.take_records()

    def _take(self, deeds: list[Deed]) -> None:
        for deed in deeds:
            if isinstance(deed, Deliver):
                self.sent[deed.conn].append(deed.text)
            else:
                self.deeds.append(deed)
        self.records += self.plan.take_records()


def _numbered(n: int) -> str:
    return f'{{"stream":"s","data":{{"e":"depthUpdate","U":{n},"u":{n},"b":[["1.5","2"]],"a":[]}}}}'


_TEXTS = [_numbered(n) for n in range(1, 9)]


def _play(*faults: dict[str, Any], conns: int = 1) -> _Bench:
    """Publish eight diffs, a second apart, to every connection."""
    bench = _Bench(*faults, conns=conns)
    for text in _TEXTS:
        bench.publish(text, to=tuple(bench.sent))
        bench.wait(1)
    return bench


# ------------------------------------------------------------------------------------------ frames


def test_without_faults_everything_passes() -> None:
    bench = _play(conns=2)
    assert bench.sent == {1: _TEXTS, 2: _TEXTS}
    assert (bench.deeds, bench.records) == ([], [])


def test_dropped_frame_is_never_sent_and_told_with_ids_and_text() -> None:
    bench = _play({"kind": "drop", "at_message": 3})
    assert bench.sent[1] == _TEXTS[:2] + _TEXTS[3:]
    [record] = bench.records
    assert (record.kind, record.conn, record.key, record.ids) == ("drop", 1, _DEPTH, (3, 3))
    assert (record.frame, record.fault, record.venue) == (_TEXTS[2], 0, "binance")
    assert record.ts == 102 * _S


def test_burst_takes_frames_in_a_row_and_for_those_of_a_time() -> None:
    assert _play({"kind": "drop", "at_message": 3, "burst": 2}).sent[1] == _TEXTS[:2] + _TEXTS[4:]
    assert _play({"kind": "drop", "at_message": 3, "for": "3s"}).sent[1] == _TEXTS[:2] + _TEXTS[5:]


def test_repeated_trigger_by_message_stops_after_its_count() -> None:
    fault = {"kind": "drop", "at_message": 2, "every_messages": 2}
    assert _play(fault).sent[1] == _TEXTS[::2]
    assert len(_play({**fault, "count": 2}).sent[1]) == 6


def test_every_messages_alone_begins_with_the_first_multiple() -> None:
    assert _play({"kind": "drop", "every_messages": 3}).sent[1] == [
        text for n, text in enumerate(_TEXTS, 1) if n % 3
    ]


def test_trigger_by_time_takes_the_next_matching_frame() -> None:
    bench = _Bench({"kind": "drop", "at": "2s", "channel": "depth"}, conns=1)
    bench.publish(_TEXTS[0], to=(1,))
    bench.wait(2.5)
    bench.publish("trade", _TRADE, to=(1,))
    bench.publish(_TEXTS[1], to=(1,))
    bench.publish(_TEXTS[2], to=(1,))
    assert bench.sent[1] == [_TEXTS[0], "trade", _TEXTS[2]]


def test_times_missed_while_nobody_was_there_are_made_up_for_once() -> None:
    bench = _Bench({"kind": "drop", "every": "1s"}, conns=1)
    bench.wait(0)
    bench.plan.handshake(bench.now)
    bench.wait(10.5)
    for text in _TEXTS[:3]:
        bench.publish(text, to=(1,))
    assert bench.sent[1] == _TEXTS[1:3]
    bench.wait(0.6)
    bench.publish(_TEXTS[3], to=(1,))
    assert bench.sent[1] == _TEXTS[1:3]


def test_by_message_each_connection_counts_its_own_until_the_count_is_spent() -> None:
    once = _play({"kind": "drop", "at_message": 3}, conns=2)
    assert (len(once.sent[1]), len(once.sent[2])) == (7, 8)
    both = _play({"kind": "drop", "at_message": 3, "count": 2}, conns=2)
    assert both.sent[1] == both.sent[2] == _TEXTS[:2] + _TEXTS[3:]


def test_by_time_one_connection_is_drawn() -> None:
    struck = set()
    for seed in range(8):
        plan = FaultPlan(parse_script({"seed": seed, "faults": [{"kind": "drop", "at": "1s"}]}), "binance")
        for conn in (1, 2):
            plan.opened(conn, 0)
            plan.frame(conn, _DEPTH, _TEXTS[0], 0)
        for _ in range(2):
            for conn in (1, 2):
                plan.frame(conn, _DEPTH, _TEXTS[1], 2 * _S)
        [record] = plan.take_records()
        struck.add(record.conn)
    assert struck == {1, 2}


def test_what_is_meant_for_all_befalls_all_alike() -> None:
    bench = _play({"kind": "truncate", "at_message": 4, "all": True}, conns=2)
    assert bench.sent[1] == bench.sent[2] != _TEXTS
    assert [record.conn for record in bench.records] == [1, 2]


def test_fault_of_one_venue_leaves_the_other_alone() -> None:
    script = parse_script([{"kind": "drop", "at_message": 1, "venue": "okx"}])
    for venue, left in (("okx", 0), ("binance", 1)):
        plan = FaultPlan(script, "okx" if venue == "okx" else "binance")
        plan.opened(1, 0)
        assert len(plan.frame(1, "k:X", "{}", 0)) == left


@pytest.mark.parametrize(
    ("filters", "spared"),
    [
        ({"symbol": "ETHUSDT"}, True),
        ({"symbol": "BTCUSDT"}, False),
        ({"channel": "depth"}, False),
        ({"channel": "depth@100ms"}, False),
        ({"channel": "trade"}, True),
        ({"stream": "btcusdt@*"}, False),
        ({"stream": "btcusdt@depth"}, True),
    ],
)
def test_filters_choose_subscriptions(filters: dict[str, str], spared: bool) -> None:
    bench = _play({"kind": "drop", "at_message": 1, **filters})
    assert (len(bench.sent[1]) == len(_TEXTS)) is spared


def test_duplicate_is_sent_twice() -> None:
    assert _play({"kind": "duplicate", "at_message": 2}).sent[1] == [_TEXTS[0], *_TEXTS[1:2] * 2, *_TEXTS[2:]]


def test_reorder_changes_places_with_the_next_frame_of_its_stream() -> None:
    bench = _Bench({"kind": "reorder", "at_message": 1}, conns=1)
    bench.publish(_TEXTS[0], to=(1,))
    bench.publish("trade", _TRADE, to=(1,))
    bench.publish(_TEXTS[1], to=(1,))
    bench.publish(_TEXTS[2], to=(1,))
    assert bench.sent[1] == ["trade", _TEXTS[1], _TEXTS[0], _TEXTS[2]]


def test_two_reordered_in_a_row_do_not_wait_for_each_other() -> None:
    bench = _play({"kind": "reorder", "at_message": 1, "burst": 2})
    assert bench.sent[1] == [_TEXTS[1], _TEXTS[0], *_TEXTS[2:]]


def test_delay_that_keeps_the_order_holds_all_that_follows() -> None:
    bench = _Bench({"kind": "delay", "at_message": 2, "by": "3s"}, conns=1)
    for text in _TEXTS[:3]:
        bench.publish(text, to=(1,))
    assert bench.sent[1] == _TEXTS[:1]
    bench.wait(2.9)
    assert bench.sent[1] == _TEXTS[:1]
    bench.wait(0.2)
    bench.publish(_TEXTS[3], to=(1,))
    assert bench.sent[1] == _TEXTS[:4]


def test_delay_that_does_not_keep_the_order_is_overtaken() -> None:
    bench = _Bench({"kind": "delay", "at_message": 1, "by": "3s", "keep_order": False}, conns=1)
    bench.publish(_TEXTS[0], to=(1,))
    bench.publish(_TEXTS[1], to=(1,))
    bench.wait(3)
    assert bench.sent[1] == [_TEXTS[1], _TEXTS[0]]


def _altered(**fault: Any) -> str:
    bench = _play({"at_message": 1, **fault})
    assert bench.sent[1][1:] == _TEXTS[1:]
    assert bench.records[0].frame == _TEXTS[0]
    return bench.sent[1][0]


def test_truncated_frame_is_a_part_of_the_text() -> None:
    assert _altered(kind="truncate", bytes=5) == _TEXTS[0][:5]
    anywhere = _altered(kind="truncate")
    assert _TEXTS[0].startswith(anywhere)
    assert 0 < len(anywhere) < len(_TEXTS[0])


def test_invalid_json_lacks_one_quotation_mark() -> None:
    text = _altered(kind="invalid_json")
    assert text.count('"') == _TEXTS[0].count('"') - 1
    with pytest.raises(ValueError, match="line 1"):
        json.loads(text)


def test_unknown_field_stands_at_the_head_of_the_payload() -> None:
    frame = json.loads(_altered(kind="unknown_field", field="zz", value=[1]))
    assert frame["data"].pop("zz") == [1]
    assert frame == json.loads(_TEXTS[0])


@pytest.mark.parametrize(("field", "value"), [("u", "1"), ("e", 0), ("b", {}), ("nope", None)])
def test_wrong_type_changes_one_field(field: str, value: object) -> None:
    frame, original = json.loads(_altered(kind="wrong_type", field=field)), json.loads(_TEXTS[0])
    if field in original["data"]:
        original["data"][field] = value
    assert frame == original


def test_wrong_type_of_any_field_changes_exactly_one() -> None:
    frame, original = json.loads(_altered(kind="wrong_type"))["data"], json.loads(_TEXTS[0])["data"]
    assert sum(frame[name] != original[name] for name in original) == 1


def test_oversize_is_of_exactly_that_size() -> None:
    text = _altered(kind="oversize", size="3KiB")
    assert len(text) == 3 << 10
    assert json.loads(text)["data"]["u"] == 1


# -------------------------------------------------------------------------------------- connections


def test_stall_holds_everything_and_lets_it_go_at_once() -> None:
    bench = _Bench({"kind": "stall", "at_message": 2, "for": "5s"}, conns=1)
    for text in _TEXTS[:4]:
        bench.publish(text, to=(1,))
    assert bench.plan.reply(1, "pong", bench.now) == []
    assert not bench.plan.pings(1, bench.now)
    assert bench.sent[1] == _TEXTS[:2]
    bench.wait(5)
    assert bench.sent[1] == [*_TEXTS[:4], "pong"]
    assert bench.plan.pings(1, bench.now)


def test_stall_that_loses_tells_every_frame_that_it_took() -> None:
    bench = _Bench({"kind": "stall", "at_message": 1, "for": "5s", "lose": True}, conns=1)
    for text in _TEXTS[:3]:
        bench.publish(text, to=(1,))
    bench.wait(5)
    bench.publish(_TEXTS[3], to=(1,))
    assert bench.sent[1] == [_TEXTS[0], _TEXTS[3]]
    assert [record.frame for record in bench.records if record.frame] == _TEXTS[1:3]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "stall", "at_message": 1, "for": "5s"},
        {"kind": "reorder", "at_message": 2},
        {"kind": "delay", "at_message": 2, "by": "9s", "keep_order": False},
    ],
)
def test_frame_held_when_its_connection_dies_is_told_as_unsent(fault: dict[str, Any]) -> None:
    bench = _Bench(fault, conns=1)
    bench.publish(_TEXTS[0], to=(1,))
    bench.publish(_TEXTS[1], to=(1,))
    bench.close(1)
    assert bench.sent[1] == _TEXTS[:1]
    assert [record.frame for record in bench.records if record.kind == "unsent"] == _TEXTS[1:2]
    bench.wait(10)
    assert bench.sent[1] == _TEXTS[:1]


def test_close_and_abort_come_after_the_message_that_triggers_them() -> None:
    for fault, deed in (
        ({"kind": "close", "code": 1008, "reason": "why"}, Hangup(1, 1008, "why")),
        ({"kind": "abort"}, Cut(1)),
    ):
        bench = _Bench({"at_message": 2, **fault}, conns=1)
        bench.publish(_TEXTS[0], to=(1,))
        assert bench.deeds == []
        bench.publish(_TEXTS[1], to=(1,))
        assert bench.sent[1] == _TEXTS[:2]
        assert bench.deeds == [deed]


def test_connections_are_cut_by_time_one_by_one_and_by_all_together() -> None:
    bench = _Bench({"kind": "abort", "every": "5s"})
    bench.plan.handshake(bench.now)
    for _ in range(6):
        bench.wait(5)
    assert len(bench.deeds) == 6
    assert {deed.conn for deed in bench.deeds if isinstance(deed, Cut)} == {1, 2}
    together = _Bench({"kind": "abort", "at": "5s", "all": True})
    together.plan.handshake(together.now)
    together.wait(5)
    assert together.deeds == [Cut(1), Cut(2)]


def test_filtered_fault_by_time_strikes_only_who_gets_that_stream() -> None:
    bench = _Bench({"kind": "abort", "every": "1s", "channel": "trade"})
    bench.publish(_TEXTS[0])
    bench.wait(2)
    assert bench.deeds == []
    bench.publish("trade", _TRADE, to=(2,))
    bench.wait(1)
    assert bench.deeds == [Cut(2)]


def test_victim_that_is_gone_before_its_frame_came_is_replaced() -> None:
    bench = _Bench({"kind": "drop", "at": "1s"})
    bench.publish(_TEXTS[0])
    bench.wait(2)
    bench.publish(_TEXTS[1], to=())
    bench.close(1)
    bench.close(2)
    bench.open(3)
    bench.publish(_TEXTS[2], to=(3,))
    assert bench.sent[3] == []


def test_shutdown_is_announced_and_the_connection_closed_later() -> None:
    bench = _Bench({"kind": "server_shutdown", "at": "1s", "shape": "event", "close_after": "10s"}, conns=1)
    bench.plan.handshake(bench.now)
    bench.wait(1)
    assert bench.deeds == [Announce(1, "event")]
    bench.wait(9.9)
    assert len(bench.deeds) == 1
    bench.wait(0.1)
    assert bench.deeds[1:] == [Hangup(1, 1001, "going away")]


def test_notice_closes_nobody_who_has_gone_already() -> None:
    bench = _Bench({"kind": "notice", "at": "1s"}, venue="okx", conns=1)
    bench.plan.handshake(bench.now)
    bench.wait(1)
    bench.close(1)
    bench.wait(100)
    assert bench.deeds == [Notify(1)]


def test_ignored_ping_is_told_each_time_and_other_words_are_heard() -> None:
    bench = _Bench({"kind": "ignore_ping", "at": "0s", "for": "30s"}, venue="okx", conns=1)
    bench.plan.handshake(bench.now)
    bench.wait(0)
    assert not bench.plan.hears(1, "ping", bench.now)
    assert bench.plan.hears(1, '{"op":"subscribe"}', bench.now)
    assert bench.plan.take_records()[0].note == "a ping was not answered"
    assert bench.plan.hears(1, "ping", bench.now + 30 * _S)


def test_pings_stop_for_a_time_or_for_good() -> None:
    for time, again in (({"for": "30s"}, True), ({}, False)):
        bench = _Bench({"kind": "stop_pings", "at": "0s", **time}, conns=1)
        bench.plan.handshake(bench.now)
        bench.wait(0)
        assert not bench.plan.pings(1, bench.now)
        assert bench.plan.pings(1, bench.now + 30 * _S) is again


# -------------------------------------------------------------------------------- venue, handshake, REST


def test_clock_and_ids_step_by_time_and_by_published_message() -> None:
    bench = _Bench(
        {"kind": "clock_step", "at": "1s", "by": "-3s"},
        {"kind": "id_reset", "at_message": 2, "symbol": "BTCUSDT", "by": 7},
    )
    bench.publish(_TEXTS[0])
    bench.publish("x", "ethusdt@trade")
    bench.wait(1)
    assert bench.deeds == [StepClock(-3 * _S)]
    bench.publish(_TEXTS[1])
    assert bench.deeds[1:] == [ResetIds("BTCUSDT", 7)]
    assert bench.plan.needs_live_market


def test_handshakes_are_refused_for_a_time() -> None:
    plan = FaultPlan(parse_script([{"kind": "refuse", "at_message": 2, "for": "10s"}]), "okx")
    asked = [plan.handshake(second * _S) for second in (0, 1, 5, 10, 11, 12)]
    assert asked == [None, Refusal(503), Refusal(503), Refusal(503), None, None]


def test_reset_handshake_has_no_status() -> None:
    plan = FaultPlan(parse_script([{"kind": "refuse", "at": "0s", "how": "reset"}]), "okx")
    assert [plan.handshake(0), plan.handshake(1)] == [Refusal(0), None]


def _ask(plan: FaultPlan, path: str = "/api/v3/depth", symbol: str = "BTCUSDT", now: int = 0) -> RestVerdict:
    return plan.request(path, symbol, path.endswith("depth"), now)


def test_rest_faults_choose_path_and_symbol_and_add_up() -> None:
    plan = FaultPlan(
        parse_script(
            [
                {"kind": "rest_error", "at_message": 1, "burst": 2, "status": 429, "retry_after": "7s"},
                {"kind": "rest_slow", "at": "0s", "for": "1h", "by": "2s", "path": "/api/v3/depth"},
                {"kind": "rest_stale", "at": "0s", "for": "1h", "by": "5s", "symbol": "BTCUSDT"},
            ]
        ),
        "binance",
    )
    assert _ask(plan, "/api/v3/time", "") == RestVerdict(429, 7 * _S)
    assert _ask(plan) == RestVerdict(429, 7 * _S, older_ns=5 * _S, delay_ns=2 * _S)
    assert _ask(plan) == RestVerdict(older_ns=5 * _S, delay_ns=2 * _S)
    assert _ask(plan, symbol="ETHUSDT") == RestVerdict(delay_ns=2 * _S)
    assert _ask(plan, "/api/v3/aggTrades") == RestVerdict()
    assert [record.kind for record in plan.take_records()].count("rest_slow") == 3


def test_book_asked_for_is_ahead_because_its_diffs_are_held_back_everywhere() -> None:
    bench = _Bench({"kind": "rest_ahead", "at": "0s", "by": "2s"})
    assert _ask(bench.plan, now=bench.now) == RestVerdict(made_after_ns=_S)
    bench.publish(_TEXTS[0])
    bench.publish("trade", _TRADE)
    bench.publish("other", "ethusdt@depth@100ms")
    bench.open(3)
    bench.publish(_TEXTS[1], to=(1, 3))
    assert bench.sent == {1: ["trade", "other"], 2: ["trade", "other"], 3: []}
    bench.wait(2)
    bench.publish(_TEXTS[2], to=(1, 2, 3))
    assert bench.sent[1] == ["trade", "other", *_TEXTS[:3]]
    assert bench.sent[3] == _TEXTS[1:3]


def test_stale_book_is_the_last_one_kept_before_that_time() -> None:
    memory = BookMemory(5 * _S)
    assert memory.before("X", 0) is None
    for second in range(20):
        assert memory.due(second * _S)
        assert not memory.due(second * _S)
        memory.keep("X", str(second), second * _S)
    assert memory.before("X", 14 * _S + 1) == "14"
    assert memory.before("X", 0) == "14"


def test_old_book_is_cut_to_the_limit_at_either_venue() -> None:
    okx = '{"code":"0","msg":"","data":[{"asks":[["1","2","0","1"],["2","2","0","1"]],"bids":[],"ts":"1"}]}'
    assert json.loads(cut(okx, 1))["data"][0]["asks"] == [["1", "2", "0", "1"]]


# ------------------------------------------------------------------------------------ reproducible


def _story(seed: int) -> tuple[dict[int, list[str]], list[FaultRecord]]:
    faults = [
        {"kind": "truncate", "every": "2s", "jitter": "1s"},
        {"kind": "wrong_type", "every_messages": 3},
        {"kind": "drop", "every": "3s", "jitter": "2s"},
    ]
    plan = FaultPlan(parse_script({"seed": seed, "faults": faults}), "binance")
    bench = _Bench()
    bench.plan = plan
    for conn in (1, 2):
        bench.open(conn)
    for n in range(40):
        bench.publish(_numbered(n + 1))
        bench.wait(0.5)
    return bench.sent, bench.records


def test_same_seed_same_story_and_another_seed_another() -> None:
    assert _story(3) == _story(3)
    assert _story(3) != _story(4)


def test_jitter_puts_a_strike_off_and_never_forward() -> None:
    times = []
    for seed in range(20):
        script = parse_script(
            {"seed": seed, "faults": [{"kind": "clock_step", "at": "5s", "jitter": "2s", "by": "1s"}]}
        )
        plan = FaultPlan(script, "okx")
        plan.handshake(0)
        times.append(next(ms for ms in range(0, 9000, 10) if plan.due(ms * 1_000_000)))
    assert all(5000 <= ms <= 7010 for ms in times)
    assert len(set(times)) > 10
