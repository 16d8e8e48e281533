"""Golden defects: small datasets with planted, labelled flaws, so that a validator can be scored.

``generate(root, seed)`` makes one, ``score(labels, findings)`` tells what a validator named, missed, put
in the wrong place or said too much. ``KINDS`` is the table of what can be planted (docs/defects.md).
"""

from mmdata.sandbox.defects.generate import generate, plant
from mmdata.sandbox.defects.kinds import KINDS, Kind
from mmdata.sandbox.defects.labels import Label, read_labels, write_labels
from mmdata.sandbox.defects.score import Score, score
from mmdata.sandbox.defects.twin import make_twin

__all__ = [
    "KINDS",
    "Kind",
    "Label",
    "Score",
    "generate",
    "make_twin",
    "plant",
    "read_labels",
    "score",
    "write_labels",
]
