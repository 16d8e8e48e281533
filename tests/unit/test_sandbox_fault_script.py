"""A fault script: what may stand in one, and the sentence for what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmdata.datasets.errors import ConfigError
from mmdata.sandbox.faults import KINDS, load_script, parse_script
from mmdata.sandbox.faults.kinds import ClockStep, Oversize, Stall

_REPOSITORY = Path(__file__).parents[2]


def _one(**fault: Any) -> Any:
    (parsed,) = parse_script([fault]).faults
    return parsed


def test_durations_and_sizes_carry_units() -> None:
    stall = _one(kind="stall", at="1.5m", **{"for": "250ms"})
    assert isinstance(stall, Stall)
    assert (stall.at, stall.for_) == (90_000_000_000, 250_000_000)
    step = _one(kind="clock_step", every="10s", by="-3s")
    assert isinstance(step, ClockStep)
    assert step.by == -3_000_000_000
    oversize = _one(kind="oversize", at_message=3, size="17MiB")
    assert isinstance(oversize, Oversize)
    assert oversize.size == 17 << 20


def test_a_script_is_a_list_or_a_mapping_with_a_seed() -> None:
    fault = {"kind": "abort", "at": "5s"}
    assert parse_script([fault]).seed is None
    script = parse_script({"seed": 7, "faults": [fault]})
    assert (script.seed, script.faults[0].kind) == (7, "abort")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (3, "faults: found 3, expected a list of faults"),
        ({"sed": 1, "faults": []}, "sed: unknown key (did you mean seed?). Here may stand: seed, faults"),
        ({"seed": -1, "faults": []}, "seed: found -1, expected a whole number of at least 0"),
        (["drop"], "faults[0]: found 'drop', expected a mapping"),
        ([{"at": "5s"}], "faults[0]: kind: is missing, expected one of drop, duplicate"),
        ([{"kind": "stal", "at": "5s"}], "kind: found 'stal' (did you mean stall?), expected one of drop"),
        ([{"kind": "stall", "at": "5s", "fro": "2s"}], "(stall): fro: unknown key (did you mean for?)."),
        (
            [{"kind": "drop", "at": "5s", "size": "1B"}],
            "(drop): size: unknown key. Here may stand: kind, venue",
        ),
        ([{"kind": "stall", "at": "5s"}], "(stall): for: is missing"),
        ([{"kind": "drop", "at": 5}], "at: found 5, expected a duration with its unit"),
        ([{"kind": "drop", "at": "5"}], "at: found '5', expected a duration with its unit"),
        ([{"kind": "drop", "at": "-5s"}], "at: found '-5s', expected a duration"),
        ([{"kind": "drop"}], "found no trigger, expected at and every, or at_message and every_messages"),
        ([{"kind": "drop", "at": "1s", "at_message": 3}], "found triggers of both sorts"),
        ([{"kind": "drop", "every": "0s"}], "every: found 0s, expected more than nothing"),
        ([{"kind": "drop", "at_message": 3, "jitter": "1s"}], "jitter: found beside a trigger by message"),
        ([{"kind": "drop", "at_message": 0}], "at_message: found 0, expected a whole number of at least 1"),
        ([{"kind": "drop", "at": "1s", "count": "x"}], "count: found 'x', expected a whole number"),
        ([{"kind": "drop", "at": "1s", "all": 1}], "all: found 1, expected true or false"),
        ([{"kind": "drop", "at": "1s", "venue": "luno"}], "venue: found 'luno', expected binance or okx"),
        ([{"kind": "notice", "at": "1s", "venue": "binance"}], "venue: found binance, expected okx"),
        ([{"kind": "close", "at": "1s", "code": 1006}], "code: found 1006, expected one that may stand"),
        (
            [{"kind": "close", "at": "1s", "code": 99}],
            "code: found 99, expected a whole number of at least 1000",
        ),
        ([{"kind": "oversize", "at": "1s", "size": 5}], "size: found 5, expected a size with its unit"),
        ([{"kind": "rest_error", "at": "1s", "status": 200}], "status: found 200, expected an HTTP error"),
        ([{"kind": "refuse", "at": "1s", "status": 599}], "status: found 599, expected an HTTP error"),
        (
            [{"kind": "id_reset", "at": "1s", "by": 0}],
            "by: found 0, expected a whole number of at least 1 and",
        ),
        (
            [{"kind": "server_shutdown", "at": "1s", "shape": "x"}],
            "shape: found 'x', expected auto or combined or event or raw",
        ),
    ],
)
def test_what_cannot_stand_there_is_a_sentence_with_file_and_key(content: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_script(content, "f.yaml")
    assert str(caught.value).startswith("f.yaml: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"faults: [", "is not YAML"), (b"\xff\xfe\xff", "is not"), (None, "cannot be read")],
)
def test_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, data: bytes | None, said: str) -> None:
    path = tmp_path / "faults.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        load_script(path)


def test_example_holds_every_kind_over_ten_minutes() -> None:
    script = load_script(_REPOSITORY / "examples" / "faults.yaml")
    assert {fault.kind for fault in script.faults} == set(KINDS)
    last = max(int(fault.at or fault.every or 0) for fault in script.faults)
    assert 500 <= last / 1e9 < 600


def test_page_names_every_kind_and_every_key() -> None:
    import msgspec

    page = (_REPOSITORY / "docs" / "faults.md").read_text(encoding="utf-8")
    for kind, cls in KINDS.items():
        assert f"`{kind}`" in page, kind
        for field in msgspec.structs.fields(cls):
            assert f"`{field.encode_name}`" in page, f"{kind}: {field.encode_name}"


def test_plan_on_the_page_does_what_it_says() -> None:
    page = (_REPOSITORY / "docs" / "faults.md").read_text(encoding="utf-8")
    example = page.rpartition("```python\n")[2].partition("```")[0]
    assert "FaultPlan(" in example
    exec(compile(example, "docs/faults.md", "exec"), {})


def test_every_example_on_the_page_can_be_used() -> None:
    page = (_REPOSITORY / "docs" / "faults.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    kinds = {fault.kind for block in blocks for fault in parse_script(yaml.safe_load(block), block).faults}
    assert kinds == set(KINDS)
