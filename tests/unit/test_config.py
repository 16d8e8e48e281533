"""The configuration: what may stand in it, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from mmdata.datasets.errors import ConfigError
from mmdata.recorder.config import Job, json_schema, load_job, parse_job

CONFIGS = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
ONE = "venues: [{exchange: binance, symbols: [BTCUSDT]}]\n"


def load(tmp_path: Path, text: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return load_job(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid_by_the_schema_and_by_the_reader(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), json_schema())
    load_job(path)


def test_there_are_configurations_to_check() -> None:
    assert {path.name for path in CONFIGS} >= {"binance.yaml", "okx.yaml", "demo.yaml"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "venues: [{exchange: binance, symbls: [X]}]",
            r"venues\[0\]\.symbls: unknown key, did you mean symbols\?",
        ),
        (ONE + "retain: 3", r"retain: unknown key, did you mean retain_days\?"),
        (ONE + "colour: red", r"colour: unknown key\. Here may stand: venues, root"),
        (ONE + "retain_days: 0", "retain_days: found 0, expected a whole number of at least 1"),
        (ONE + "retain_days: 30d", "retain_days: found '30d', expected a whole number"),
        (ONE + "on_end: rclone sync", "on_end: found 'rclone sync', expected a list of at least one"),
        (ONE + "on_end: []", r"on_end: found \[\], expected a list of at least one"),
        (ONE + 'on_end: [""]', r"on_end\[0\]: found '', expected a program"),
        (ONE + "ping_url: hc-ping.com/x", "ping_url: found 'hc-ping.com/x', expected an address such as"),
        (ONE + "ping_url: 'https://hc-ping.com/x/'", "ping_url: found"),
        (ONE + "ping_url: 'https://hc-ping.com:0/x'", "ping_url: found .*a port from 1 to 65535"),
        (ONE + "window: {weekdays: [monday]}", r"weekdays\[0\]: found 'monday', expected .*mon"),
        (ONE + "window: {weekdays: []}", r"window\.weekdays: found \[\], expected a list of at least one"),
        (ONE + "window: {weekdays: [fri, fri]}", "fri stands twice, expected each day once"),
        (
            "venues: [{exchange: binance, symbols: [A], region: eea}]",
            r"venues\[0\]\.region: found 'eea', but binance is reached everywhere at the same addresses",
        ),
        (
            "venues: [{exchange: okx, symbols: [A], region: asia}]",
            "found 'asia', expected eea or global or us",
        ),
        (
            "venues: [{exchange: okx, symbols: [A], region: eea, ws_url: 'wss://ws.okx.com:8443'}]",
            "found region eea beside other addresses than its own, expected one or the other",
        ),
        (
            "sandbox: embedded\nvenues: [{exchange: okx, symbols: [A], region: us}]",
            "found a region beside sandbox: embedded",
        ),
        (ONE + "window: {zone: Europe/Berln}", r"window\.zone: found 'Europe/Berln'.*Europe/Berlin"),
        (ONE + "window: {end: 22:00}", r"window\.end: found 1320, expected a time of day in quotes"),
        (ONE + 'window: {start: "25:00"}', r"window\.start: found '25:00', expected a time of day"),
        (ONE + 'window: {start: "08:00", end: "08:00"}', "found start and end both at 08:00"),
        (ONE + "window: never", "window: found 'never', expected .* or none"),
        (ONE + "duration: 20", "duration: found 20, expected a duration with its unit"),
        (ONE + "duration: 20 s", "duration: found '20 s'"),
        (
            ONE + "duration: 9999d",
            "duration: found '9999d', expected more than nothing, and at most ten years",
        ),
        (ONE + "duration: 0s", "duration: found '0s', expected more than nothing"),
        (ONE + "segment: {seconds: 0s}", r"segment\.seconds: found '0s'"),
        (ONE + "segment: {bytes: 64}", r"segment\.bytes: found 64, expected a size with its unit"),
        (ONE + "keep_captures: maybe", "keep_captures: found 'maybe', expected true or false"),
        ("venues: []", r"venues: found \[\], expected a list of at least one"),
        ("root: x", "venues: is missing"),
        ("venues: [{exchange: kraken, symbols: [X]}]", r"exchange: found 'kraken', expected binance or okx"),
        ("venues: [{exchange: okx, symbols: [btc-usdt]}]", "found 'btc-usdt', expected capitals: BTC-USDT"),
        ("venues: [{exchange: okx, symbols: [A, A]}]", "A stands twice"),
        (
            "venues: [{exchange: okx, symbols: [5]}]",
            r"symbols\[0\]: found 5, expected a symbol such as BTCUSDT",
        ),
        (
            "venues: [{exchange: okx, symbols: [A], channels: [depth]}]",
            "expected one of books, trades, bbo-tbt",
        ),
        ("venues: [{exchange: okx, symbols: [A], ws_url: localhost}]", "ws_url: found 'localhost'"),
        (
            "venues: [{exchange: okx, symbols: [A]}, {exchange: okx, symbols: [B]}]",
            r"venues\[1\]\.exchange: okx stands twice",
        ),
        (
            "sandbox: embedded\nvenues: [{exchange: okx, symbols: [A], ws_url: 'ws://x'}]",
            "addresses beside sandbox: embedded",
        ),
        (ONE + 'window: {start: "08:00+02:00"}', r"window\.start: found '08:00\+02:00'"),
        (ONE + "duration: 9999999999d", "duration: found '9999999999d', expected a duration"),
        (ONE + 'duration: "20s\\n"', "duration: found"),
        (ONE + "stop_timeout: 0s", "stop_timeout: found '0s'"),
        (ONE + 'root: "a\\0b"', "root: found"),
        (ONE + "sandbox: {speed: .inf}", r"sandbox\.speed: found inf, expected a number from 0"),
        (ONE + "sandbox: {drop: [99999999d]}", r"sandbox\.drop\[0\]: found"),
        (ONE + "sandbox: {faults: [1]}", r"sandbox\.faults: found \[1\]"),
        ("venues: [{exchange: okx, symbols: [_]}]", r"symbols\[0\]: found '_', expected a symbol"),
        (
            "venues: [{exchange: okx, symbols: [A], ws_url: 'https://x'}]",
            "ws_url: found 'https://x', expected",
        ),
        ("venues: [{exchange: okx, symbols: [A], rest_url: 'wss://x'}]", "rest_url: found 'wss://x'"),
        ("venues: [{exchange: okx, symbols: [A], ws_url: 'ws://x:99999'}]", "a port from 1 to 65535"),
        ("venues: [{exchange: okx, symbols: [A], ws_url: 'ws://x:abc'}]", "a port from 1 to 65535"),
        (ONE + "sandbox: {speed: -1}", r"sandbox\.speed: found -1, expected a number of at least 0"),
        (ONE + "root: a\nroot: b", "key 'root' stands twice"),
        ("venues: {", "is not YAML"),
        ("- 1", r"the file: found \[1\], expected a mapping"),
        ("", "the file: found None, expected a mapping"),
    ],
)
def test_mistake_is_told_with_file_key_found_and_expected(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'job.yaml'}: ")
    assert caught.value.exit_code == 2


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_job(tmp_path / "none.yaml")


def test_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_job(path)


def test_effective_configuration_fills_in_the_venues_own_addresses_and_channels(tmp_path: Path) -> None:
    job = load(tmp_path, ONE)
    [venue] = job.effective()["venues"]
    assert venue["rest_url"] == "https://api.binance.com"
    assert venue["channels"] == ["depth@100ms", "trade", "bookTicker"]
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    window = {"zone": "Europe/Berlin", "start": "08:00", "end": "22:00", "weekdays": days}
    assert job.effective()["window"] == window


@pytest.mark.parametrize(
    ("keys", "region", "rest_url"),
    [
        ("", "global", "https://www.okx.com"),
        (", region: eea", "eea", "https://eea.okx.com"),
        (", region: us", "us", "https://us.okx.com"),
        (", rest_url: 'https://eea.okx.com'", None, "https://eea.okx.com"),
    ],
)
def test_region_names_the_addresses_and_the_default_is_said(
    tmp_path: Path, keys: str, region: str | None, rest_url: str
) -> None:
    job = load(tmp_path, f"venues: [{{exchange: okx, symbols: [BTC-USDT]{keys}}}]")
    [venue] = job.effective()["venues"]
    assert (venue["region"], venue["rest_url"]) == (region, rest_url)
    assert parse_job(job.effective(), "again").fingerprint() == job.fingerprint()


def test_effective_configuration_is_a_configuration_with_the_same_fingerprint(tmp_path: Path) -> None:
    job = load(tmp_path, ONE)
    again = parse_job(job.effective(), "again")
    assert again.fingerprint() == job.fingerprint()
    assert parse_job(job.effective() | {"root": "elsewhere"}, "x").fingerprint() != job.fingerprint()
