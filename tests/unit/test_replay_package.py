"""What the package promises as a whole: it loads lightly, and warming up compiles everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmdata.replay
from mmdata.replay.sketch import Sketch

PATH = os.pathsep.join(str(Path(__file__).parents[2] / wing) for wing in ("datasets", "replay"))


def in_a_process(code: str, tmp_path: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": PATH},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_the_package_loads_neither_numba_nor_polars(tmp_path: Path) -> None:
    code = "import sys, mmdata.replay; print({'numba', 'polars', 'pyarrow', 'numpy'} & set(sys.modules))"
    assert in_a_process(code, tmp_path) == "set()"


def test_the_names_it_offers_are_functions_and_classes_never_modules() -> None:
    for name in mmdata.replay.__all__:
        assert getattr(mmdata.replay, name) is not None
    assert callable(mmdata.replay.replay)
    assert callable(mmdata.replay.simulate)
    assert set(mmdata.replay.__all__) <= set(dir(mmdata.replay))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mmdata.replay.nothing  # noqa: B018


def test_after_warming_up_nothing_more_is_compiled() -> None:
    from mmdata.datasets import _kernel as book_kernel
    from mmdata.replay import _kernel
    from mmdata.replay.settings import parse_settings
    from mmdata.replay.simulator import run
    from mmdata.replay.stream import events, tops_of

    def known() -> dict[str, int]:
        return {
            f"{module.__name__}.{name}": len(value.signatures)
            for module in (_kernel, book_kernel)
            for name, value in vars(module).items()
            if hasattr(value, "signatures")
        }

    if not known():
        pytest.skip("kernels run uncompiled (NUMBA_DISABLE_JIT)")
    mmdata.replay.warm_up()
    before = known()
    assert before
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    for at in range(10, 20_000, 10):
        low = 100 + 3 * (at // 70 % 2)
        sketch.diff(at, {80 - at // 10 % 7: at % 9})
        sketch.book(at, {low: 5}, {low + 2: 5})
        sketch.quote(at + 1, (low, 4), (low + 2, 6))
        for beyond in range(at // 10 % 3 + 1):
            sketch.trade(at + 2, "buy", 102 + beyond, 4)
            sketch.trade(at + 2, "sell", 100 - beyond, 4)
    market = sketch.market()
    run(market)
    result = run(market, settings=parse_settings({"A": 5, "k": 2, "sigma": 1, "order_size": 3}))
    assert all(model.fills for model in result.models)
    tops_of([market])
    list(events([[market]]))
    assert known() == before
