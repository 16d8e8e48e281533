"""The validator: what a dataset proves of itself, and what it does not."""

from mmdata.datasets.validation.report import Finding, Latency, SymbolReport, ValidationReport
from mmdata.datasets.validation.run import validate

__all__ = ["Finding", "Latency", "SymbolReport", "ValidationReport", "validate"]
