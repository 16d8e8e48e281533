"""Faults on purpose: a script says what goes wrong and when, a plan decides, a record says what was done.

``load_script(path)`` and ``parse_script(content, name)`` give a checked ``FaultScript``; ``FaultPlan(script,
venue)`` takes messages and times in and gives decisions out, with no clock and no socket of its own, so
that it serves the sandbox's server and any other test double alike. ``docs/faults.md`` names every kind.
"""

from mmdata.sandbox.faults.deeds import (
    Announce,
    Cut,
    Deed,
    Deliver,
    Hangup,
    Notify,
    Refusal,
    ResetIds,
    RestVerdict,
    StepClock,
)
from mmdata.sandbox.faults.kinds import KINDS, Fault
from mmdata.sandbox.faults.plan import FaultPlan
from mmdata.sandbox.faults.record import FaultRecord, frame_ids
from mmdata.sandbox.faults.script import FaultScript, load_script, parse_script

__all__ = [
    "KINDS",
    "Announce",
    "Cut",
    "Deed",
    "Deliver",
    "Fault",
    "FaultPlan",
    "FaultRecord",
    "FaultScript",
    "Hangup",
    "Notify",
    "Refusal",
    "ResetIds",
    "RestVerdict",
    "StepClock",
    "frame_ids",
    "load_script",
    "parse_script",
]
