"""Where a venue that is several companies is reached, and what to say when the wrong one refuses.

Source: OKX API v5 docs of July 2026 ("Production trading services") for the global addresses; those of
the European and the US company as their clients use them (okx-api, NautilusTrader, 2026).
"""

from __future__ import annotations

REGIONS: dict[str, dict[str, tuple[str, str]]] = {
    "okx": {
        "global": ("https://www.okx.com", "wss://ws.okx.com:8443"),
        "eea": ("https://eea.okx.com", "wss://wseea.okx.com:8443"),
        "us": ("https://us.okx.com", "wss://wsus.okx.com:8443"),
    }
}
"""REST and WebSocket address by exchange and region; the first region is the default."""

_REFUSING = (403, 451)
_WORDS = ("your region", "your country", "your jurisdiction", "restricted location")


def default_region(exchange: str) -> str | None:
    """Return the region that is meant where none is named; None: the exchange has none."""
    return next(iter(REGIONS.get(exchange, {})), None)


def region_refusal(exchange: str, region: str | None, status: int, body: str) -> str | None:
    """Return the sentence on an answer that refuses us for where we are; None: it does not.

    ``status`` is HTTP's; ``body`` what the venue said. ``region`` None: addresses were named instead.

    >>> region_refusal("okx", "global", 451, "")
    "okx refuses us here (HTTP status 451) at its region global; set `region: eea` or `region: us` in the \
venue's entry if your account or address belongs there (a Berlin user may need region: eea)"
    """
    regions = REGIONS.get(exchange)
    said = body.casefold()
    if regions is None or not (status in _REFUSING or any(word in said for word in _WORDS)):
        return None
    others = " or ".join(f"`region: {name}`" for name in regions if name != region)
    here = "the addresses that are named" if region is None else f"its region {region}"
    quoted = f": {body[:200]}" if body.startswith("{") else ""  # not the page of a firewall
    return (
        f"{exchange} refuses us here (HTTP status {status}{quoted}) at {here}; set {others} in the venue's "
        f"entry if your account or address belongs there (a Berlin user may need region: eea)"
    )
