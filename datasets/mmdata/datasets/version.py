"""Which mmdata this is."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """Return the installed version; ``uninstalled`` where a clone is run as it is."""
    try:
        return importlib.metadata.version("mmdata-toolkit")
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"
