"""Convert a raw capture of USDⓈ-M by hftbacktest's own converter; print seconds, wall and CPU.

python run_hftbacktest.py SOURCE.gz TARGET.npz
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from hftbacktest.data.utils import binancefutures
from hftbacktest.data.validation import correct_event_order, correct_local_timestamp, validate_event_order
from hftbacktest.types import event_dtype

SOURCE, TARGET = Path(sys.argv[1]), Path(sys.argv[2])

# Compiled before the clock starts, as ours is.
few = np.zeros(2, event_dtype)
few["exch_ts"], few["local_ts"] = (1, 2), (3, 4)
order = np.arange(2)
validate_event_order(correct_event_order(correct_local_timestamp(few, 0), order, order))

with contextlib.redirect_stdout(sys.stderr):
    begun, cpu_begun = time.perf_counter(), time.process_time()
    rows = binancefutures.convert(str(SOURCE))
    taken, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
if not TARGET.exists():
    np.savez_compressed(TARGET, data=rows)  # as `convert` does when it is given a target
print(json.dumps({"wall": taken, "cpu": cpu}))
