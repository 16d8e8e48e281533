"""The validator on planted defects: it names each, in its place, and nothing else.

Seeds differ in each run; the run's last line says how to repeat it.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from mmdata.datasets.errors import UsageError
from mmdata.datasets.validation import validate
from mmdata.sandbox.defects import KINDS, generate, make_twin, score

ATTEMPTS = 30
ATTEMPTS_AT_ONE = 6
"""After so many another twin is made: where parts end, say, no seed changes."""
EACH_RUN = 8
MIXED = 2
"""Datasets with several defects at once."""
FOUND_A_FAULT = [(4, "part_twice"), (25, "part_of_other_date"), (28, "ghost_level")]
"""Seeds and kinds with which the validator, or who planted them, was once at fault."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, defects_seed: int) -> Path:
    root = tmp_path_factory.mktemp("twin")
    make_twin(root, defects_seed)
    return root


def check(source: Path, root: Path, seed: int, **what: object) -> None:
    """Plant, validate, and compare; another place is drawn where the market of the first has none."""
    for attempt in range(ATTEMPTS):
        if attempt and attempt % ATTEMPTS_AT_ONE == 0:
            source = root / f"twin {attempt}"
            make_twin(source, seed + attempt)
        try:
            labels = generate(root / str(attempt), seed + attempt, source=source, **what)  # type: ignore[arg-type]
        except UsageError:
            continue
        told = score(labels, validate(root / str(attempt)).findings)
        assert told.perfect, f"{root / str(attempt)}, seed {seed + attempt}:\n{told}"
        return
    pytest.fail(f"no place for {what} with the seeds {seed} to {seed + ATTEMPTS - 1}")


def test_nothing_is_found_on_the_clean_twin(twin: Path) -> None:
    assert validate(twin).findings == []


@pytest.mark.parametrize("which", range(EACH_RUN))
def test_defect_is_named_in_its_place_and_nothing_else_is_said(
    twin: Path, tmp_path: Path, defects_seed: int, which: int
) -> None:
    """Of all kinds a few each run: all of them take a minute or two (`long`)."""
    check(twin, tmp_path, defects_seed, kinds=[Random(defects_seed).sample([*KINDS], EACH_RUN)[which]])


@pytest.mark.parametrize(("seed", "name"), FOUND_A_FAULT)
def test_defect_that_was_not_named_once_is_named(tmp_path: Path, seed: int, name: str) -> None:
    make_twin(tmp_path / "twin", seed)
    check(tmp_path / "twin", tmp_path, seed, kinds=[name])


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_named_in_its_place_and_nothing_else_is_said(
    twin: Path, tmp_path: Path, defects_seed: int, name: str
) -> None:
    check(twin, tmp_path, defects_seed, kinds=[name])


@pytest.mark.parametrize("which", range(MIXED))
def test_defects_at_once_are_each_named_in_their_place(
    twin: Path, tmp_path: Path, defects_seed: int, which: int
) -> None:
    check(twin, tmp_path, defects_seed + which, mixed=6)
