"""The kernel that reads level arrays: the plain form exactly, anything else refused."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import msgspec
import pytest

from mmdata.recorder.levels import parse, wire_levels
from tests.integration.conftest import ENVIRONMENT

Row = tuple[Decimal, Decimal, int | None]


def read(bids: bytes, asks: bytes = b"[]", numbers: int = 2) -> tuple[int, list[Row]] | None:
    """Return how many bids there are, and all levels; None where the text was refused."""
    sides = wire_levels(msgspec.Raw(bids), msgspec.Raw(asks), numbers)
    if sides is None:
        return None
    columns = parse(sides)
    return len(sides[0]), list(zip(*(column.to_pylist() for column in columns), strict=True))


def test_numbers_are_exact_to_the_digit_bids_before_asks() -> None:
    assert read(b'[["61737.63000000","0.00000001"],["7","0"]]', b'[["0.5","9999999999.99999999"]]') == (
        2,
        [
            (Decimal("61737.63"), Decimal("0.00000001"), None),
            (Decimal(7), Decimal(0), None),
            (Decimal("0.5"), Decimal("9999999999.99999999"), None),
        ],
    )


def test_four_strings_a_level_tell_the_number_of_orders() -> None:
    found = read(b'[["1.5","2","0","13"],["1.4","3","0","999999999"]]', b'[["1.6","4","0","0"]]', 4)
    assert found == (
        2,
        [
            (Decimal("1.5"), Decimal(2), 13),
            (Decimal("1.4"), Decimal(3), 999_999_999),
            (Decimal("1.6"), Decimal(4), 0),
        ],
    )


def test_empty_sides_are_none() -> None:
    assert read(b"[]") == (0, [])
    assert parse([])[0].to_pylist() == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"]",
        b"null",
        b"{}",
        b"[[]]",
        b'[["1","2"]',
        b'["1","2"]',
        b'[["1"]]',
        b'[["1","2","3"]]',
        b'[["1","2"],]',
        b'[["1","2"]["1","2"]]',
        b'[["1","2"],["1"]]',
        b'[["1" ,"2"]]',
        b'[ ["1","2"]]',
        b'[["1","2"], ["1","2"]]',
        b'[[1,"2"]]',
        b'[["1",2]]',
        b'[["1",null]]',
        b'[["","2"]]',
        b'[[".5","2"]]',
        b'[["5.","2"]]',
        b'[["1.2.3","2"]]',
        b'[["-1","2"]]',
        b'[["+1","2"]]',
        b'[["1e2","2"]]',
        b'[["1,5","2"]]',
        b'[["1\\u0030","2"]]',
        '[["\u0661","2"]]'.encode(),
        b'[["0.123456789","2"]]',
        b'[["1.000000000","2"]]',
        b'[["12345678901","2"]]',
        b'[["1","2"]] ',
        b'[["1","2"]][]',
        b'["1","2"',
        b'[["1","',
        b'[["1',
        b'[["1."]',
    ],
)
def test_anything_that_is_not_plain_is_refused_on_either_side(text: bytes) -> None:
    assert read(text) is None
    assert read(b'[["1","2"]]', text) is None


@pytest.mark.parametrize(
    "text",
    [
        b'[["1","2"]]',
        b'[["1","2","0","1.0"]]',
        b'[["1","2","0","1234567890"]]',
        b'[["1","2","0","-1"]]',
        b'[["1","2","","1"]]',
        b'[["1","2","0",""]]',
    ],
)
def test_level_of_okx_that_is_not_plain_is_refused(text: bytes) -> None:
    assert read(text, numbers=4) is None


def test_second_process_compiles_nothing() -> None:
    code = (
        "from mmdata.recorder import levels\n"
        "levels.warm_up()\n"
        "levels.parse(levels.wire_levels(levels.msgspec.Raw(b'[]'), levels.msgspec.Raw(b'[]'), 4))\n"
        "from mmdata.recorder import _kernel\n"
        "for kernel in (_kernel.count_levels, _kernel.parse_levels):\n"
        "    print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))\n"
    )

    def run() -> str:
        environment = ENVIRONMENT | {"NUMBA_DISABLE_JIT": "0"}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout

    run()
    assert run().split() == ["1", "0", "1", "0"]


def test_venues_are_imported_without_numba_and_arrow() -> None:
    code = "import sys, mmdata.recorder.venues; print({'numba', 'pyarrow', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
