"""What counts as too much: the numbers that turn figures into findings, from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from mmdata.datasets.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Longest pause of a channel while connections are up, seconds."""

    depth_s: Positive = 60.0
    bbo_s: Positive = 60.0
    trades_s: Positive = 3600.0


class Ghost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When levels that differ from an audit are an error, not a warning."""

    top_10: Share = 0.9
    top_100: Share = 0.95
    """Least share of judged levels that match, among the best ten a side and those up to a hundred."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All thresholds; what is not named keeps its default.

    `config/validation/thresholds.yaml` explains each.
    """

    latency_ms: Positive = 1000.0
    late_share: Share = 0.01
    negative_share: Share = 0.001
    negative_ms: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    event_back_ms: Annotated[float, msgspec.Meta(ge=0)] = 1000.0
    trade_lag_s: Positive = 2.0
    trade_outside_bp: Annotated[float, msgspec.Meta(ge=0)] = 20.0
    bridge_s: Positive = 10.0
    silence: Silence = Silence()
    ghost: Ghost = Ghost()
    most_findings: Annotated[int, msgspec.Meta(ge=1)] = 20


def read_thresholds(path: Path) -> Thresholds:
    """Read a YAML file. ConfigError: it cannot be read, or holds what may not stand there."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); nothing was validated") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML ({error}); nothing was validated") from error
    try:
        return msgspec.convert({} if found is None else found, Thresholds)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}; nothing was validated") from error
