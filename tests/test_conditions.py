"""The language of cuts: its two back ends select the same rows, and what is no condition is refused by both with a sentence."""

import sqlite3

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb._conditions import cuts, query_mask

rng = np.random.default_rng(0)
FRAME = pd.DataFrame({"x": rng.integers(0, 6, 60), "y": rng.normal(size=60).round(1), "w": rng.choice(list("abc'"), 60)})
HOLES = FRAME.mask(rng.random(FRAME.shape) < 0.2)
ATOMS = st.sampled_from(["x > 1", "y <= 0.5", "x == 3", "x != y", "0 <= x < 4", "w == 'a'", "w != \"'\"", "x in [1, 2, 5]", "w not in ['a', 'c']", "-1 < y", "2 >= x > y", "x is None", "w is not None", "+1 < x"])


def conditions(atoms, opposite):
    "Texts of the language, with or without `not`."
    def grow(c):
        both = st.tuples(c, st.sampled_from(["and", "or"]), c).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
        return both | c.map(lambda t: f"not ({t})") if opposite else both
    return st.recursive(atoms, grow, max_leaves=8)


@pytest.fixture(scope="module")
def db():
    "The two frames as tables."
    base = sqlite3.connect(":memory:")
    FRAME.to_sql("full", base)
    HOLES.to_sql("holes", base)
    yield base
    base.close()


def selected(db, table, text):
    "The rows that a database selects."
    return [i for (i,) in db.execute(f'SELECT "index" FROM {table} WHERE {cuts(text)} ORDER BY "index"')]


@settings(deadline=None, max_examples=150)
@given(text=conditions(ATOMS, True))
def test_a_database_selects_the_rows_that_the_frame_selects(text, db):
    assert selected(db, "full", text) == np.flatnonzero(query_mask(text, FRAME)).tolist()


@settings(deadline=None, max_examples=150)
@given(text=conditions(ATOMS, False))
def test_a_missing_value_meets_no_comparison_in_either(text, db):
    assert selected(db, "holes", text) == np.flatnonzero(query_mask(text, HOLES)).tolist()


@pytest.mark.parametrize("text", [
    "__import__('os').system('true')", "x.y.z == 1", "@x > 1", "x[0] > 1", "[v for v in x] == 1", "f'{x}' == 'a'", "x if w else y", "x := 1", "x > 2 ** 9", "x > 1; y > 1", "x > 1\ny > 1",
    "x is 1", "x > 1j", "x == b'a'", "x == None", "x == ...", "*x", "x in y", "(x > 1) & (y > 1)", "~x", "x > " + "9" * 5000, "(" * 400 + "x" + ")" * 400, "\0", " ", "`x", "-w == '", None, 3])
def test_anything_else_is_refused_by_both_with_their_name(text):
    with pytest.raises(ValueError, match="^query: "): query_mask(text, FRAME)
    with pytest.raises(ValueError, match="^`where`: "): cuts(text)


@settings(deadline=None, max_examples=300)
@given(text=st.text(alphabet="xyw<>=!()[]'\"0123.,-and ornotis_@&|~:;{}`\\", max_size=40))
def test_any_text_is_a_condition_or_a_sentence(text, db):
    "What is translated is one condition that a database understands, whatever columns it names."
    try: sql = cuts(text, column=lambda name: name if name in FRAME else "x")
    except ValueError as err: assert str(err).startswith("`where`: ") or "can't stand in a query" in str(err)
    else: db.execute(f"SELECT 1 FROM full WHERE {sql}").fetchall()  # a second statement, or none, is an error
