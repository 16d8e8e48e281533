"""Regions of a venue and what is said when one refuses; proxies that the environment names."""

from __future__ import annotations

import pytest

from mmdata.recorder.proxies import rest_proxy, stream_proxy
from mmdata.recorder.regions import default_region, region_refusal


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, "<html>Forbidden</html>"),
        (451, ""),
        (200, '{"code":"51155","msg":"This is not available in your region.","data":[]}'),
        (400, '{"code":"1","msg":"Due to rules of YOUR COUNTRY"}'),
    ],
)
def test_refusal_for_where_we_are_names_the_other_regions(status: int, body: str) -> None:
    sentence = region_refusal("okx", "eea", status, body)
    assert sentence is not None
    assert "at its region eea" in sentence
    assert "`region: global` or `region: us`" in sentence
    assert "<html>" not in sentence


@pytest.mark.parametrize(
    ("exchange", "status", "body"),
    [
        ("okx", 200, '{"code":"0"}'),
        ("okx", 429, '{"code":"50011","msg":"Too Many Requests"}'),
        ("binance", 451, ""),  # has no regions to name
    ],
)
def test_any_other_answer_is_no_such_refusal(exchange: str, status: int, body: str) -> None:
    assert region_refusal(exchange, default_region(exchange), status, body) is None


def test_named_addresses_are_no_region() -> None:
    sentence = region_refusal("okx", None, 403, "")
    assert sentence is not None
    assert "at the addresses that are named" in sentence
    assert "`region: global` or `region: eea` or `region: us`" in sentence


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return an environment that names no proxy."""
    for name in ("http", "https", "all", "no", "ws", "wss", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    return monkeypatch


def test_without_variables_there_is_no_proxy(environment: pytest.MonkeyPatch) -> None:
    assert rest_proxy("https://venue.invalid") is None
    assert stream_proxy("wss://venue.invalid:9443") is None


def test_proxy_is_chosen_by_the_kind_of_address_and_shown_without_its_password(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("HTTPS_PROXY", "http://user:secret@proxy.invalid:3128")
    assert rest_proxy("https://venue.invalid") == "http://proxy.invalid:3128"
    assert stream_proxy("wss://venue.invalid") == "http://proxy.invalid:3128"
    assert rest_proxy("http://venue.invalid") is None
    assert stream_proxy("ws://venue.invalid") == "http://proxy.invalid:3128"
    environment.setenv("WSS_PROXY", "socks5h://other.invalid:1080")
    assert stream_proxy("wss://venue.invalid") == "socks5h://other.invalid:1080"


def test_excepted_host_is_reached_directly(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    environment.setenv("NO_PROXY", "venue.invalid")
    assert rest_proxy("https://venue.invalid") is None
    assert stream_proxy("wss://stream.venue.invalid:9443") is None
