"""Parameters are refused in one sentence, whatever came, and pass as plain numbers where they are right."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb._checks import finite, one_of, real, whole

ODD = [None, True, np.True_, "3", b"3", [3], (), {}, 3j, np.nan, np.inf, -np.inf, np.datetime64("2020"), pd.NA, object(), np.zeros(2)]


@settings(deadline=None)
@given(st.integers(-10, 10**20), st.integers(-5, 5), st.integers(5, 10**19))
def test_counts_are_taken_exactly_within_their_limits(n, least, most):
    for value in (n, float(n)) if abs(n) < 2**53 else (n,):
        if least <= n <= most:
            assert whole(value, "k", least, most) == n and type(whole(value, "k", least, most)) is int
        else:
            with pytest.raises(ValueError, match=r"^`k` must be a whole number of at least .* and of at most .*, got "): whole(value, "k", least, most)


@settings(deadline=None)
@given(st.floats(allow_nan=True), st.floats(-5, 0), st.floats(1, 5))
def test_numbers_are_taken_within_their_limits(x, low, high):
    for limits, fits in (((low, high), low <= x <= high), ((None, None), np.isfinite(x))):
        if fits:
            assert real(x, "x", *limits) == x
        else:
            with pytest.raises(ValueError, match=r"^`x` must be a finite number.*, got "): real(x, "x", *limits)
    if low < x < high: assert real(x, "x", above=low, below=high) == x
    for edge in (low, high):
        with pytest.raises(ValueError, match="above .* and below"): real(edge, "x", above=low, below=high)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value).partition(" at 0x")[0])
def test_what_is_no_number_is_shown_and_refused(value):
    class Mine(ValueError): pass
    for check in (whole, real):
        with pytest.raises(Mine, match="^`x` must be a .*, got .+$") as err: check(value, "x", error=Mine)
        assert len(str(err.value)) < 200 and "\n" not in str(err.value)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 2), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_the_first_entry_that_is_not_finite_is_named(row, column, value):
    frame = pd.DataFrame(np.ones((4, 3)), index=[f"{k}_1" for k in range(4)], columns=["a", "b", "c"])
    assert np.array_equal(finite(frame, "features"), frame)
    frame.iloc[row, column] = value
    with pytest.raises(ValueError, match=f"^`features`: detection '{row}_1', column '{'abc'[column]}' is {value}, not a finite"): finite(frame, "features")
    with pytest.raises(ValueError, match=f"^`x`: row {row}, column {column} is {value}"): finite(frame.to_numpy(), "x")
    with pytest.raises(ValueError, match=f"^`x`: detection 'd{row}', column {column} is"): finite(frame.to_numpy(), "x", [f"d{k}" for k in range(4)])


def test_choices_are_of_one_type():
    assert one_of("a", "x", "ab") == "a" and one_of(None, "x", (None, 1)) is None
    for value in (1.0, True, "1", ["a"], np.zeros(2), None):
        with pytest.raises(ValueError, match="^`x` must be one of 'a', 1; got "): one_of(value, "x", ("a", 1))
