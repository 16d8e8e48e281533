"""The validator: what a dataset proves of itself, and what it does not."""

from mmdata.datasets.validation.report import (
    DayReport,
    Finding,
    Latency,
    SymbolReport,
    ValidationReport,
)
from mmdata.datasets.validation.run import derive_day, validate
from mmdata.datasets.validation.thresholds import Thresholds, read_thresholds

__all__ = [
    "DayReport",
    "Finding",
    "Latency",
    "SymbolReport",
    "Thresholds",
    "ValidationReport",
    "derive_day",
    "read_thresholds",
    "validate",
]
