"""Log lines: objects for machines, with what they are about; text where that is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import pytest

from mmdata.cli.logs import JsonLines
from mmdata.cli.main import main
from mmdata.recorder.logfields import current_log_fields, log_fields


def line(**extra: object) -> dict[str, object]:
    record = logging.makeLogRecord(
        {"name": "mmdata.x", "levelname": "WARNING", "msg": "%s is µ", "args": ("okx",), "created": 0.25}
        | extra
    )
    text = JsonLines().format(record)
    assert "\n" not in text
    told: dict[str, object] = json.loads(text)
    return told


def test_line_is_one_object_with_time_level_logger_and_message() -> None:
    assert line() == {
        "ts": "1970-01-01T00:00:00.250000Z",
        "level": "warning",
        "logger": "mmdata.x",
        "message": "okx is µ",
    }


def test_extra_stands_beside_the_message_and_never_in_its_place() -> None:
    told = line(symbol="BTC-USDT", ts="mine")
    assert (told["symbol"], told["ts"]) == ("BTC-USDT", "1970-01-01T00:00:00.250000Z")


def test_exception_is_part_of_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        told = line(exc_info=sys.exc_info())
    assert "ValueError: broken" in str(told["exception"])


def test_tasks_inherit_what_their_lines_are_about() -> None:
    async def record() -> dict[str, object]:
        await asyncio.sleep(0)
        return line()

    async def both() -> list[dict[str, object]]:
        tasks = []
        for exchange in ("binance", "okx"):
            with log_fields(exchange=exchange):
                tasks.append(asyncio.create_task(record()))
        return await asyncio.gather(*tasks)

    assert [told["exchange"] for told in asyncio.run(both())] == ["binance", "okx"]
    assert current_log_fields() == {}


def test_form_that_there_is_not_is_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMDATA_LOG", "xml")
    with pytest.raises(SystemExit) as done:
        main(["config", "schema"])
    assert done.value.code == 2
    assert "MMDATA_LOG: found 'xml', expected json or text" in capsys.readouterr().err
