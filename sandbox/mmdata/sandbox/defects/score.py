"""How well a validator did: its findings beside the labels of what was planted. Pure.

A label is *named* by a finding of its check, severity, exchange, symbol and count in its place. In its place
means: every place field that both tell is equal, and the finding tells where at all, by session and frame
for what lies in rows, by file for what concerns files. One finding names one label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mmdata.datasets.validation.report import Finding
from mmdata.sandbox.defects.labels import Label


@dataclass
class Score:
    """Each label and each finding, once."""

    named: list[tuple[Label, Finding]] = field(default_factory=list)
    wrong: list[tuple[Label, Finding]] = field(default_factory=list)
    """The check did speak of that market, but of another place, with another severity or count."""
    missed: list[Label] = field(default_factory=list)
    extra: list[Finding] = field(default_factory=list)

    @property
    def perfect(self) -> bool:
        """Whether everything is named, in its place, and nothing else is said."""
        return not (self.wrong or self.missed or self.extra)

    def __str__(self) -> str:
        """Return a line a label or finding, those first that are not as they should be."""
        lines = [f"missed: {_told(label)}" for label in self.missed]
        lines += [f"wrong: {_told(label)}\n    found: {_told(found)}" for label, found in self.wrong]
        lines += [f"extra: {_told(found)} {getattr(found, 'sentence', '')}" for found in self.extra]
        return "\n".join([*lines, f"named: {len(self.named)}"])


def score(labels: Iterable[Label], findings: Iterable[Finding], before: Iterable[Finding] = ()) -> Score:
    """Set findings beside labels.

    ``before`` are the findings on the dataset before anything was planted: what it was known for already
    is no extra finding, be its count another now.
    """
    told = Score()
    known = list(before)
    fresh = _without(list(findings), known, lambda a, b: (_key(a), _place(a)) == (_key(b), _place(b)))
    open_labels: list[Label] = []
    for label in labels:
        _pair(label, fresh, _names, told.named, open_labels)
    for label in open_labels:
        _pair(label, fresh, lambda a, b: _subject(a) == _subject(b), told.wrong, told.missed)
    told.extra = _without(fresh, known, lambda a, b: _key(a) == _key(b) and a.table == b.table)
    return told


def _pair(
    label: Label,
    findings: list[Finding],
    fits: Callable[[Label, Finding], bool],
    paired: list[tuple[Label, Finding]],
    left: list[Label],
) -> None:
    at = next((at for at, found in enumerate(findings) if fits(label, found)), None)
    if at is None:
        left.append(label)
    else:
        paired.append((label, findings.pop(at)))


def _without(
    findings: Sequence[Finding], known: list[Finding], same: Callable[[Finding, Finding], bool]
) -> list[Finding]:
    """Return ``findings`` less one for each of ``known`` that is the same, which is taken off ``known``."""
    left: list[Finding] = []
    for found in findings:
        at = next((at for at, other in enumerate(known) if same(found, other)), None)
        if at is None:
            left.append(found)
        else:
            known.pop(at)
    return left


_Told = Finding | Label


def _subject(told: _Told) -> tuple[str, str, str]:
    return told.check, told.exchange, told.symbol


def _key(told: _Told) -> tuple[str, ...]:
    return (*_subject(told), told.severity)


_FIELDS = ("session", "frame", "row", "id", "ts_recv", "table")


def _place(told: _Told) -> tuple[object, ...]:
    return tuple(getattr(told, name) for name in _FIELDS)


def _same_place(a: _Told, b: _Told) -> bool:
    """Tell whether every place field that both carry is equal."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in _FIELDS]
    same_file = a.file is None or b.file is None or a.file.endswith(b.file) or b.file.endswith(a.file)
    return same_file and all(one is None or other is None or one == other for one, other in pairs)


def _names(label: Label, found: Finding) -> bool:
    if _key(label) != _key(found) or label.count not in (None, found.count) or not _same_place(label, found):
        return False
    if label.frame is not None:
        return found.frame is not None and found.session is not None
    return label.file is None or found.file is not None


def _told(told: _Told) -> str:
    places = ("table", "file", "row", "session", "frame", "id", "ts_recv")
    where = " ".join(f"{name}={getattr(told, name)}" for name in places if getattr(told, name) is not None)
    kind = f"{told.kind}: " if isinstance(told, Label) else ""
    return f"{kind}{told.severity} {told.check} {told.exchange} {told.symbol} x{told.count} {where}"
