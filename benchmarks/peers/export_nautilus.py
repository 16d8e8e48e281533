"""Export a dataset into a NautilusTrader catalog, by the Python that has the library.

python export_nautilus.py DATA CATALOG
"""

from __future__ import annotations

import sys

from mmdata.datasets import export

if __name__ == "__main__":
    export(sys.argv[1], "nautilus", sys.argv[2])
