"""Wire to capture to dataset: the recorder, its ingest, and the importers of other captures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.recorder.config import Job, load_job
    from mmdata.recorder.importing import import_sources
    from mmdata.recorder.job import record
    from mmdata.recorder.segments import recover_all

__all__ = ["Job", "import_sources", "load_job", "record", "recover_all"]

_HOMES = {
    "Job": "mmdata.recorder.config",
    "load_job": "mmdata.recorder.config",
    "import_sources": "mmdata.recorder.importing",
    "record": "mmdata.recorder.job",
    "recover_all": "mmdata.recorder.segments",
}


def __getattr__(name: str) -> Any:
    """Load a public function when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
