"""Numbers and levels as a venue might send them, sound and unsound, for the property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

plain = st.one_of(
    st.decimals(0, 10**10, allow_nan=False, places=8).map(lambda number: f"{number:f}"),
    st.integers(0, 10**11).map(str),
    st.from_regex(r"[0-9]{1,11}\.[0-9]{1,9}", fullmatch=True),
)
odd = st.one_of(
    st.from_regex(r"[-+]?[0-9]{0,20}\.?[0-9]{0,20}([eE][-+]?[0-9]{1,2})?", fullmatch=True),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["", " ", "1 ", "abc", "NaN", "Infinity", "0x10", "1_000", "1,5", "٣", "１", "1\n"]),
    st.text(max_size=4),
)
number = st.one_of(plain, plain, plain, odd)
# Now and then what no level is: a number, a null, a level that is too short or too long.
wrong = st.one_of(st.integers(), st.none(), st.floats(allow_nan=False), st.lists(number, max_size=5))


def levels(extra: int) -> st.SearchStrategy[list[Any]]:
    """Return lists of levels with so many more strings than price and size."""
    counts = st.one_of(st.integers(0, 10**10).map(str), number)
    level = st.tuples(number, number, *[counts] * extra).map(list)
    plain_level = st.tuples(plain, plain, *[st.integers(0, 999).map(str)] * extra).map(list)
    return st.one_of(
        st.lists(plain_level, max_size=5),
        st.lists(level, max_size=4),
        st.lists(st.one_of(plain_level, wrong), max_size=3),
    )
