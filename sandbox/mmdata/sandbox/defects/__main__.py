"""``python -m mmdata.sandbox.defects --seed S --out DIR``: make a dataset with planted defects.

The last line on stdout is the number of labels; they lie in ``DIR/labels.json``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdata.datasets.errors import MmdataError
from mmdata.sandbox.defects import KINDS, generate


def main(argv: list[str] | None = None) -> int:
    """Make one dataset as the arguments say; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mmdata.sandbox.defects",
        description="Make a small dataset with planted, labelled defects.",
        epilog="Example: python -m mmdata.sandbox.defects --seed 7 --mixed 5 --out defective",
    )
    parser.add_argument("--seed", type=int, required=True, help="decides everything: data, kinds, places")
    parser.add_argument("--out", type=Path, required=True, help="the dataset's folder, empty or to be made")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--kinds", help="one of each of these, by comma; docs/defects.md lists them")
    what.add_argument("--mixed", type=int, metavar="N", help="N kinds that are drawn, in places apart")
    parser.add_argument("--from", type=Path, dest="source", help="plant in a copy of this dataset")
    told = parser.parse_args(argv)
    try:
        kinds = told.kinds.split(",") if told.kinds else None
        labels = generate(told.out, told.seed, kinds=kinds, mixed=told.mixed, source=told.source)
    except MmdataError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for label in labels:
        place = label.file or f"{label.session} {label.frame}"
        sys.stdout.write(
            f"{label.kind}: {label.severity} {label.check}, {label.exchange} {label.symbol} {place}\n"
        )
    sys.stdout.write(f"{len(labels)} labels of {len(KINDS)} kinds in {told.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
