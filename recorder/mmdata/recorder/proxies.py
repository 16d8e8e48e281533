"""Which proxy the environment puts between us and a venue; both libraries read it themselves.

REST (requests): ``HTTPS_PROXY`` or ``HTTP_PROXY`` by the address, else ``ALL_PROXY``. The stream
(websockets 15 and later): ``WSS_PROXY`` or ``WS_PROXY``, else ``SOCKS_PROXY``, ``HTTPS_PROXY``, and for
``ws://`` at last ``HTTP_PROXY``. ``NO_PROXY`` excepts hosts for both. Names in capitals or not.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_STREAM_VARIABLES = {"wss": ("wss", "socks", "https"), "ws": ("ws", "socks", "https", "http")}


def rest_proxy(url: str) -> str | None:
    """Return the proxy that requests to ``url`` go through, without its password; None: directly."""
    from requests.utils import get_environ_proxies, select_proxy

    return _shown(select_proxy(url, get_environ_proxies(url)))


def stream_proxy(url: str) -> str | None:
    """Return the proxy that a WebSocket to ``url`` goes through, without its password; None: directly."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    if proxy_bypass(f"{parts.hostname}:{port}"):
        return None
    proxies = getproxies()
    names = [name for name in _STREAM_VARIABLES[parts.scheme] if name in proxies]
    return _shown(proxies[names[0]]) if names else None


def _shown(proxy: str | None) -> str | None:
    """Return a proxy's address without user and password."""
    if not proxy:
        return None
    head, at, host = proxy.rpartition("@")
    scheme, separator, _ = head.partition("://")
    return f"{scheme}{separator}{host}" if at else proxy
