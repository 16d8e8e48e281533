"""From a seed to a dataset with defects and their labels: which kinds, and in which markets."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from mmdata.datasets.certificate.accounts import ACCOUNTS
from mmdata.datasets.certificate.store import CERTIFICATES
from mmdata.datasets.errors import UsageError
from mmdata.datasets.layout import NO_SYMBOL, list_parts, list_symbols
from mmdata.sandbox.defects import books, chains, clocks, files, journal, messages, trades, values
from mmdata.sandbox.defects.ground import NoPlaceError, Site
from mmdata.sandbox.defects.kinds import KINDS, Kind
from mmdata.sandbox.defects.labels import Label, write_labels
from mmdata.sandbox.defects.twin import make_twin

MODULES = (files, messages, chains, trades, values, books, clocks, journal)
"""Those that enter their kinds in the table by being imported."""

_TRIES = 3
"""At one market: a place is drawn, and the next draw may find one where this one did not."""

Taken = set[tuple[str, str, str]]
"""What of which market a defect touches already."""


def generate(
    root: Path,
    seed: int,
    *,
    kinds: Sequence[str] | None = None,
    mixed: int | None = None,
    source: Path | None = None,
) -> list[Label]:
    """Make the folder ``root`` a dataset with planted defects; return their labels, written beside it, too.

    The dataset is the clean twin of ``seed``, or a copy of ``source`` without its certificates, which would
    tell of any defect whatever a validator sees. Planted is one of each of ``kinds``,
    or ``mixed`` kinds that are drawn, or (neither) one that is drawn; always in places that do not touch each
    other. Of what is drawn, a kind that finds no place gives way to another. The same arguments give
    the same bytes.

    UsageError: ``root`` is not empty, a kind is not known, or there is no place for a kind that is named.
    """
    chosen = _chosen(kinds)
    if root.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty; name a folder that is, or that does not exist")
    if source is None:
        make_twin(root, seed)
    else:
        shutil.copytree(
            source, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns(CERTIFICATES, ACCOUNTS)
        )
    rng = Random(f"defects {seed}")

    def drawn(own: Kind) -> list[Label]:
        # Each kind draws by itself: what it does is not decided by which others are planted.
        return plant(root, own, Random(f"{own.name} {seed}"), taken)

    labels: list[Label] = []
    taken: Taken = set()
    if chosen:
        for own in chosen:
            found = drawn(own)
            if not found:
                raise UsageError(
                    f"{own.name}: {root} has no place for it; what was planted before it stays there"
                )
            labels += found
    else:
        names = list(KINDS.values())
        rng.shuffle(names)
        planted = 0
        for own in names:
            if planted == (mixed or 1):
                break
            found = drawn(own)
            planted += bool(found)
            labels += found
    write_labels(root, seed, labels)
    return labels


def plant(root: Path, kind: Kind, rng: Random, taken: Taken | None = None) -> list[Label]:
    """Plant one defect of ``kind`` in the dataset at ``root``, where nothing in ``taken`` is touched.

    Returns its labels, and enters what it touches in ``taken``; an empty list when there is no place for it.
    """
    taken = set() if taken is None else taken
    for exchange, symbol in _markets(root, kind, rng):
        lanes = {(exchange, symbol, lane) for lane in kind.touches}
        # What is wrong with a session is seen in all of its symbols, or explains what is wrong with one.
        others = any(own == exchange and (of == NO_SYMBOL) != kind.session_wide for own, of, _ in taken)
        if others or lanes & taken:
            continue
        for _ in range(_TRIES):
            site = Site(root, exchange, symbol, rng)
            try:
                found = kind.labels(site, kind.plant(site))
            except NoPlaceError:
                continue
            site.finish()
            taken |= lanes
            return found
    return []


def _markets(root: Path, kind: Kind, rng: Random) -> list[tuple[str, str]]:
    """Return the markets of a dataset that a kind is for, in random order."""
    if kind.session_wide:
        found = [
            (exchange, NO_SYMBOL)
            for exchange in dict.fromkeys(exchange for exchange, _ in list_symbols(root))
            if list_parts(root, "events", exchange=exchange, symbol=NO_SYMBOL)
        ]
    else:
        found = [pair for pair in list_symbols(root) if pair[1] != NO_SYMBOL]
    found = [pair for pair in found if pair[0] in kind.exchanges]
    rng.shuffle(found)
    return found


def _chosen(kinds: Sequence[str] | None) -> list[Kind]:
    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise UsageError(f"kind {unknown[0]!r} is not known, expected one of {', '.join(KINDS)}")
    return [KINDS[name] for name in kinds or ()]
