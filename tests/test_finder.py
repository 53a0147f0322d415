"""The finder without a browser: conditions, colors, pages, links, and a window whose controls are pressed from Python."""

import ast
import json
import re
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.absent import absent
from xrt_nb._conditions import query_mask
from xrt_nb._glossary import explain
from xrt_nb.data import EventDataError, EventList, EventTable, UnknownSourceError, XRTError, XRTWarning
from xrt_nb.finder import AnalogFinder, open_archives
from xrt_nb.labels import Labels
from xrt_nb.views import (card_html, coloring, draw_panel, known_columns, legend_html, map_pairs, page_rows, point_style, sky_links,
                          table_html)

quiet = settings(deadline=None, max_examples=80)


def archive(n=40, seed=0):
    "A small map with events, features and properties."
    rng = np.random.default_rng(seed)
    ids = [f"{100 + k}_{k % 7}" for k in range(n)]
    lists = [EventList(np.sort(rng.uniform(0, 9000, 5 + k % 20)), rng.uniform(500, 7000, 5 + k % 20), i, gti=[[0, 9000]],
                       meta={"name": f"S {k // 2}", "ra": 10.0 + k, "dec": -5.0}) for k, i in enumerate(ids)]
    frame = pd.DataFrame({"tsne1": rng.normal(size=n), "tsne2": rng.normal(size=n), "obsreg_id": ids, "hard_hs": rng.uniform(-1, 1, n),
                          "gl_log_odds": rng.normal(size=n), "cluster": rng.integers(0, 3, n), "kind": rng.choice(["a", "b"], n), "map_ok": rng.random(n) > 0.5})
    known = pd.Series({ids[1]: "flare", ids[2]: "flare", ids[5]: "dip"})
    return frame, EventTable.from_lists(lists), rng.normal(size=(n, 4)), known


@pytest.fixture
def desk():
    frame, events, features, known = archive()
    return AnalogFinder(frame, events, features=features, known=known)


@pytest.fixture(scope="module")
def jscatter():
    "The widget's library, which warns about a syntax of its own on some Pythons."
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("jscatter")


# --- conditions ---------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"x": [0.0, 1, 2, 3, -1, 2], "y": [1.0, 1, 5, 2, 2, 2], "n": [0, 1, 2, 3, 4, 5], "word": list("aabbca"), "ok": [True, False, True, True, False, False]})
ATOMS = st.sampled_from(["x > 1", "y <= 2", "n == 3", "x != y", "0 <= x < 2", "word == 'a'", "word != 'b'", "n in [1, 2, 5]", "word not in ['a', 'c']", "ok", "-1 < x", "ok == True"])
CONDITIONS = st.recursive(ATOMS, lambda c: st.one_of(st.tuples(c, st.sampled_from(["and", "or"]), c).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"), c.map(lambda t: f"not ({t})")), max_leaves=8)


@quiet
@given(text=CONDITIONS)
def test_conditions_against_python_row_by_row(text):
    expected = [bool(eval(text, {"__builtins__": {}}, row)) for row in FRAME.to_dict("records")]
    assert query_mask(text, FRAME).tolist() == expected


@pytest.mark.parametrize("text", [
    "__import__('os').system('true')", "x.__class__ == 1", "@x > 1", "x[0] > 1", "(lambda: 1)() == 1", "[v for v in x] == 1", "f'{x}' == 'a'", "x if ok else y", "x > print", "exec('1') > 0",
    "x := 1", "x > 2 ** 9", "x + 1 > 2", "x > 1; y > 1", "x > 1\ny > 1", "x is 1", "await x", "{**x} == 1", "x > 1j", "x == b'a'", "x == None", "x == ...", "*x", "word < 'b'", "ok > False", "x == 'a'",
    "word == 1", "n in x", "n in 'abc'", "n in [x]", "1 in [1]", "'a' == 'a'", "not x", "x", "1", "True", "(x > 1) & (y > 1)", "~ok", "nothing > 1", "x > " + "9" * 400, "(" * 300 + "x" + ")" * 300, "\0", " ",
    "x > 1 and " * 300 + "ok", "n in []  or x.real > 1", "-word == 'a'", "- - x > 1"])
def test_anything_but_a_condition_is_refused(text):
    with pytest.raises(ValueError, match="query: "):
        query_mask(text, FRAME)


@quiet
@given(text=st.text(alphabet="xyn wordok<>=!()[]'\"0123.,-and ornotin_@&|~:;{}`\\", max_size=40))
def test_any_text_gives_rows_or_a_clear_error(text):
    try: mask = query_mask(text, FRAME)
    except ValueError as e: assert str(e).startswith("query: ")
    else: assert mask.dtype == bool and mask.shape == (6,)


def test_the_grammar_is_a_list_of_what_is_allowed():
    "Every kind of expression that Python has is either on the list or refused."
    allowed = {ast.BoolOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.List, ast.Tuple, ast.Set}
    examples = {"x + 1": ast.BinOp, "f(x)": ast.Call, "x.a": ast.Attribute, "x[0]": ast.Subscript, "lambda: x": ast.Lambda, "{1: 2}": ast.Dict, "(y for y in x)": ast.GeneratorExp, "f'{x}'": ast.JoinedStr, "(z := 1)": ast.NamedExpr}
    for text, kind in examples.items():
        assert type(ast.parse(text, mode="eval").body) is kind and kind not in allowed
        for whole in (text, f"{text} == 1", f"x == 1 and {text}", f"x in [{text}]"):
            with pytest.raises(ValueError): query_mask(whole, FRAME)


def test_missing_values_meet_no_comparison_and_odd_names_go_into_backticks():
    frame = pd.DataFrame({"x": [1.0, np.nan], "my word": ["a", None], "i": pd.array([1, None], dtype="Int64")})
    for text in ("x == 1", "x != 2", "x > 0", "x in [1]", "x not in [2]", "`my word` == 'a'", "`my word` != 'b'", "`my word` not in ['b']", "i < 5"):
        assert query_mask(text, frame).tolist() == [True, False], text
    with pytest.raises(ValueError, match="no column"): query_mask("`their word` == 'a'", frame)


# --- colors, pages, words ----------------------------------------------------------------------------------------


@quiet
@given(values=st.lists(st.one_of(st.none(), st.floats(allow_infinity=True), st.integers(-5, 5)), min_size=1, max_size=50))
def test_every_number_gets_a_color_and_missing_ones_the_gray(values):
    v = pd.Series([np.nan if x is None else float(x) for x in values], name="v")
    c = coloring(v)
    gone = ~np.isfinite(v.to_numpy())
    assert len(c.colors) == 257 and ((c.codes == 256) == gone).all() and sum(c.counts) == gone.sum()
    order = np.argsort(v[~gone].to_numpy(), kind="stable")
    assert (np.diff(c.codes[~gone][order].astype(int)) >= 0).all()


@quiet
@given(names=st.lists(st.sampled_from([*"abcdefghijkl", None]), min_size=1, max_size=80))
def test_the_largest_classes_have_names_and_the_counts_add_up(names):
    c = coloring(pd.Series(names, name="k", dtype=object))
    size = pd.Series(names, dtype=object).value_counts()
    assert sum(c.counts) == len(names) and len(c.colors) == 9
    shown = {t: n for t, n in zip(c.labels[:7], c.counts[:7]) if t}
    assert all(size[t] == n for t, n in shown.items()) and len(shown) == min(len(size), 7)
    if len(size) > 7: assert min(shown.values()) >= size.iloc[7] and c.labels[7] == f"other ({len(size) - 7} class{'es' * (len(size) > 8)})"
    for name, code in zip(names, c.codes): assert c.labels[code] == ("unknown" if name is None else name) or (code == 7 and name not in shown)


def test_numbers_or_classes():
    assert coloring(pd.Series([0, 1, 2], name="cluster")).kind == "class" and coloring(pd.Series([0, 1, 2], name="counts")).kind == "number"
    assert coloring(pd.Series([0, 1, 2], name="counts"), kind="class").labels[:3] == ["0", "1", "2"]
    assert coloring(pd.Series([True, False], name="ok")).kind == "class" and coloring(pd.Series([1.0, np.nan], name="cluster")).labels[0] == "1"
    assert coloring(None, 5).codes.tolist() == [0] * 5 and legend_html(coloring(None, 5)) == ""
    nothing = coloring(pd.Series([np.nan, np.nan], name="v"))
    assert nothing.limits == () and nothing.counts == [2] and "unknown (2)" in legend_html(nothing)
    with pytest.raises(ValueError, match="`kind`"): coloring(pd.Series([1]), kind="both")


@quiet
@given(n=st.integers(0, 500), size=st.integers(1, 20), page=st.integers(-3, 99))
def test_pages_cover_everything_once(n, size, page):
    pages = page_rows(n, size, 0)[3]
    rows = [r for p in range(pages) for r in range(*page_rows(n, size, p)[:2])]
    assert rows == list(range(n))
    a, b, shown, _ = page_rows(n, size, page)
    assert 0 <= shown < pages and b - a <= size


def test_words_are_escaped_and_links_hold_numbers_only():
    evil = "<script>alert('x')</script>\"&"
    row = pd.Series({"obsreg_id": evil, "name": evil, "ra": 1.5, "dec": 2.5, evil: evil, "map_ok": False})
    for html in (card_html(row, evil), table_html(pd.DataFrame({evil: [evil]}), evil), legend_html(coloring(pd.Series([evil], name=evil)))):
        assert "<script>" not in html and "&lt;script&gt;" in html
    assert set(sky_links("1.5", -2)) == {"CSC", "SIMBAD", "ESASky"}
    for bad in ((None, None), ("x' onclick='", 1), (10, 91), (np.inf, 0), (-1, 0)): assert sky_links(*bad) == {}
    for address in sky_links(1e-9, -1e-9).values(): assert re.fullmatch(r"https://[A-Za-z0-9./?=&%+_-]+", address)
    assert "map_ok: no" in card_html(row) and "look up" not in card_html(row.drop("ra"))


def test_points_shrink_as_they_grow_in_number():
    styles = [point_style(n) for n in (1, 100, 1000, 10_000, 100_000, 1_000_000, 10**8)]
    assert all(a[0] >= b[0] > 0 and 1 >= a[1] >= b[1] > 0.1 for a, b in zip(styles, styles[1:]))


def test_panels_draw_every_source_and_say_what_they_cannot():
    _, events, _, _ = archive(9)
    ids = list(events.ids)
    for kind, axes in (("lc", 6), ("maps", 12), ("photons", 12)): assert len(draw_panel(kind, events, ids[:6]).axes) == axes
    titles = [a.get_title() for a in draw_panel("lc", events, ids[1:3], titles={ids[1]: "d = 1"}, query=ids[0]).axes]
    assert titles == [f"query {ids[0]}", f"{ids[1]}  d = 1", ids[2]]
    odd = EventTable.from_lists([EventList([], [], "empty"), EventList([3.0], [900.0], "one"), EventList([1.0, 2], None, "blind")][:2])
    for kind in ("lc", "maps", "photons"): draw_panel(kind, odd, ["empty", "one"])
    assert "Nothing is selected" in draw_panel("lc", events, []).axes[0].texts[0].get_text().replace("\n", " ")
    assert "choose larger" in draw_panel("lc", events, ids[:1], 1e-9).axes[0].texts[0].get_text().replace("\n", " ")


# --- opening ------------------------------------------------------------------------------------------------------


def test_bad_maps_are_refused_by_name(tmp_path):
    frame, events, features, known = archive()
    for bad, why in ((frame.assign(tsne2=frame.tsne2.where(frame.index != 7)), "column tsne2 of 107_0 is nan"), (frame.drop(columns="obsreg_id"), "obsreg_id"), (frame.assign(obsreg_id="same"), "are duplicated"),
                     (frame.drop(columns="tsne2"), "no map in this frame"), (frame.assign(tsne1="a"), "tsne1"), (frame.iloc[:0], "no source")):
        with pytest.raises(EventDataError, match=why): AnalogFinder(bad)
    for path in (tmp_path, tmp_path / "none", __file__):
        with pytest.raises(XRTError, match="not a finished run"): AnalogFinder(path)
    with pytest.raises(UnknownSourceError, match="2 of 40 sources on the map are not among the 38 of the events, the first is '100_0'"): AnalogFinder(frame, events[2:])
    with pytest.warns(XRTWarning, match="2 of 40 .* left out"): assert len(AnalogFinder(frame, events[2:], missing="drop")) == 38
    with pytest.raises(UnknownSourceError, match="1 of 40 sources on the map have no features"): AnalogFinder(frame, features=pd.DataFrame(features, index=frame.obsreg_id)[1:])
    with pytest.raises(ValueError, match="`missing`"): AnalogFinder(frame, events, missing="keep")
    with pytest.raises(TypeError, match="a finder opens"): AnalogFinder([1, 2])
    with pytest.raises(ValueError, match="no map 'x'"): AnalogFinder(frame, case="x")


def test_columns_from_the_events_and_several_maps():
    frame, events, features, known = archive()
    a = open_archives(frame, events)["tsne"]
    assert known_columns(a.frame) == ["name", "gl_log_odds", "hard_hs", "cluster", "counts"] and (a.frame["counts"] == events.counts).all()
    assert map_pairs(frame.assign(band1=1, band2=2)) == ["tsne"]
    few = frame.iloc[::2].assign(umap1=1.0, umap2=np.arange(20.0))
    f = AnalogFinder({"all": frame, "half": few}, events, known=known)
    assert list(f.archives) == ["all", "half tsne", "half umap"]
    f.select(["100_0", "101_1"]); f.choose_embedding("half umap")
    assert f.selection == ["100_0"] and "1 selected sources are not on this map" in f.status
    with pytest.raises(UnknownSourceError): f.select("101_1")


def test_a_run_directory_opens_with_one_line(tmp_path):
    from xrt_nb.runs import demo, read_run
    run = demo(tmp_path / "run", n_sources=120, perplexity=20, max_iter=250)
    f = AnalogFinder(run)
    assert f.embedding == "shape-metric" and f.events is not None and len(f.known) and list(f.archive.spaces) == ["search", "features", "summary", "map"] and "map_ok" in f.frame
    assert [c for c in f.frame if c not in ("x", "y") and not explain(c)] == []
    hits = f.analogs_of(f.frame.obsreg_id[3], 4, "summary")
    assert sorted(hits.obsreg_id) == f.selection
    g = AnalogFinder(read_run(run))
    assert len(g.events) == 120 and list(g.frame.obsreg_id) == list(f.frame.obsreg_id)
    f.mark("flare"); f.save_labels(tmp_path / "labels.csv")
    f.open_labels(tmp_path / "labels.csv")
    other = read_run(run)
    other.manifest = other.manifest | {"fingerprint": "of another run"}
    AnalogFinder(other).open_labels(tmp_path / "labels.csv")  # labels belong to detections, not to a run
    f.save_session(tmp_path / "s.json")
    with pytest.raises(EventDataError, match="another run"): AnalogFinder(other).open_session(tmp_path / "s.json")


# --- the finder as plain Python -----------------------------------------------------------------------------------


@quiet
@given(steps=st.lists(st.tuples(st.sampled_from(["select", "query", "invert", "all", "clear", "near", "cluster", "undo", "redo"]), st.integers(0, 39)), max_size=12))
def test_selection_against_a_set(steps):
    frame, *_ = ARCHIVE
    f, ids = AnalogFinder(frame, color="hard_hs"), list(frame.obsreg_id)
    now, past, future = frozenset(), [], []
    for what, k in steps:
        if what in ("undo", "redo"):
            source, target = (past, future) if what == "undo" else (future, past)
            if not source:
                with pytest.raises(ValueError, match=f"nothing to {what}"): getattr(f, what)()
                continue
            target.append(now); now = source.pop(); getattr(f, what)()
        else:
            if what == "select": new = {ids[k], ids[k // 2]}; f.select([ids[k], ids[k // 2], ids[k]])
            elif what == "query": new = set(frame.obsreg_id[frame.hard_hs > k / 20 - 1]); f.query(f"hard_hs > {k / 20 - 1}")
            elif what == "invert": new = set(ids) - now; f.invert()
            elif what == "all": new = set(ids); f.select_all()
            elif what == "clear": new = set(); f.clear()
            elif what == "cluster": new = set(frame.obsreg_id[frame.cluster == k % 3]); f.select_cluster(k % 3)
            else:
                d = np.hypot(frame.tsne1 - frame.tsne1[k], frame.tsne2 - frame.tsne2[k])
                new = set(frame.obsreg_id[np.argsort(d, kind="stable")[:5]]); f.select_near(ids[k], 5)
            if new != now: past, future = [*past, now], []
            now = frozenset(new)
        assert f.selection == sorted(now) and f.state()["count"] == f"{len(now)} of 40 sources selected" and set(f.page_ids) <= now


ARCHIVE = archive()


def test_pages_follow_the_order(desk):
    desk.select_all(); desk.sort_by("hard_hs", ascending=False)
    seen = []
    for p in range(desk.state()["pages"]): desk.show_page(p); seen += desk.page_ids
    assert seen == list(desk.frame.sort_values("hard_hs", ascending=False, kind="stable").obsreg_id)
    desk.show_page(2); first = desk.page_ids[0]
    desk.show_panel("card"); assert desk.page_ids == [first]
    desk.show_panel("table"); assert first in desk.page_ids and len(desk.table()) == len(desk.page_ids)
    desk.sort_by("kind"); assert desk.page_ids
    for bad in (lambda: desk.sort_by("none"), lambda: desk.show_panel("none"), lambda: setattr(desk, "bin_size", 0), lambda: setattr(desk, "bin_size", np.nan), lambda: desk.color_by("none"),
                lambda: desk.toggle_known("none"), lambda: desk.select_known("none"), lambda: desk.select_cluster(9), lambda: desk.analogs_of(" "), lambda: desk.analogs_of("100_0", space="x"), lambda: desk.mark("flare") if desk.clear() is None else 0):
        with pytest.raises(ValueError): bad()


def test_analogs_leave_out_the_own_source(desk):
    hits = desk.analogs_of("104_4", 39)
    assert len(desk.selection) == 39 and "104_4" not in desk.selection and desk.page_ids == list(hits.obsreg_id[:6])
    with pytest.warns(XRTWarning, match="only 38 of 39"): own = desk.analogs_of("104_4", 39, exclude_own=True)
    assert "105_5" in set(hits.obsreg_id) and "105_5" not in set(own.obsreg_id)  # both observe "S 2"
    assert desk.table()["rank"].tolist() == list(range(1, 7)) and desk.state()["query"] == "104_4"
    desk.invert(); assert desk.state()["query"] is None


def test_known_transients(desk):
    desk.select_known("flare"); assert desk.selection == ["101_1", "102_2"]
    desk.select_known("105_5"); assert desk.selection == ["105_5"]
    desk.toggle_known("dip"); desk.toggle_known("flare", True); desk.toggle_known("dip"); assert desk.state()["known"] == ["flare"]


def test_labels_files_and_sessions(desk, tmp_path):
    desk.select(["103_3", "101_1"]); desk.mark("my word", note="n"); desk.color_by("label")
    assert desk.coloring.labels[0] == "my word" and desk.coloring.counts[8] == 38 and desk.query("label == 'my word'") == ["101_1", "103_3"]
    desk.save_labels(tmp_path / "l.json"); desk.unmark(); assert len(desk.labels) == 0
    desk.open_labels(tmp_path / "l.json"); assert desk.labels.label_of("103_3") == "my word"
    desk.analogs_of("104_4", 7); order = list(desk.hits.obsreg_id)
    desk.save_selection(tmp_path / "s.csv")
    saved = pd.read_csv(tmp_path / "s.csv", dtype={"obsreg_id": str})
    assert list(saved.obsreg_id) == order and sorted(saved.obsreg_id) == desk.selection and saved["rank"].tolist() == list(range(1, 8))
    desk.clear(); desk.open_selection(tmp_path / "s.csv"); assert desk.selection == sorted(order)
    with pytest.raises(FileExistsError): desk.save_selection(tmp_path / "s.csv")
    (tmp_path / "t.csv").write_text("obsreg_id\n999_9\n101_1\n")
    with pytest.raises(UnknownSourceError, match="1 of 2 sources"): desk.open_selection(tmp_path / "t.csv")
    with pytest.warns(XRTWarning): desk.open_selection(tmp_path / "t.csv", unknown="drop")
    assert desk.selection == ["101_1"]
    desk.save_session(tmp_path / "d.json")
    s = json.loads((tmp_path / "d.json").read_text())
    for damage in ({"xrt_nb": "no"}, {k: v for k, v in s.items() if k != "page"}, [], "text"):
        (tmp_path / "e.json").write_text(json.dumps(damage) if damage != "text" else "{")
        with pytest.raises(EventDataError, match="e.json"): desk.open_session(tmp_path / "e.json")


def test_a_label_path_is_opened_and_kept_up_to_date(tmp_path):
    frame, events, features, known = archive()
    f = AnalogFinder(frame, labels=tmp_path / "l.csv")
    f.select("103_3"); f.mark("dip")
    assert AnalogFinder(frame, labels=tmp_path / "l.csv").labels.label_of("103_3") == "dip"
    f.unmark(); assert AnalogFinder(frame, labels=tmp_path / "l.csv").labels.label_of("103_3") == ""
    assert AnalogFinder(frame, labels=Labels()).labels.label_of("103_3") == ""


def test_the_figure_shows_the_selection(desk):
    desk.analogs_of("104_4", 3); desk.toggle_known("flare")
    fig = desk.figure()
    words = {t.get_text() for a in fig.findobj(lambda o: hasattr(o, "get_text")) for t in [a]}
    assert {"query 104_4", "known flare (2)", "not selected", "tsne: 3 of 40 sources selected"} <= words
    assert fig._repr_png_()[:4] == b"\x89PNG"
    frame, *_ = ARCHIVE
    for color in ("hard_hs", "kind", None): assert AnalogFinder(frame, color=color).figure().axes
    assert any("all 1" in t.get_text() for t in AnalogFinder(frame.assign(one=1.0), color="one").figure().findobj(lambda o: hasattr(o, "get_text")))


def test_a_million_sources_page_and_do_not_hang():
    import time
    n = 1_000_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"tsne1": rng.normal(size=n), "tsne2": rng.normal(size=n), "obsreg_id": np.arange(n).astype(str), "hard_hs": rng.random(n)})
    f = AnalogFinder(frame)
    start = time.process_time()
    f.select_all(); f.show_page(10**9); ids = f.page_ids; f.show_panel("table"); f.table(); f.card(ids[0]); f.query("hard_hs > 0.5"); f.sort_by("hard_hs"); f.page_ids; f.invert()
    assert len(ids) == 4 and f.status.endswith("1 to 15") and time.process_time() - start < 30
    assert len(f._rows) == int((frame.hard_hs <= 0.5).sum())


# --- the window, pressed from Python --------------------------------------------------------------------------------


def drawn(f):
    "The ids that the map shows as selected."
    return sorted(f._ids[np.asarray(f.scatter.widget.selection, dtype=int)].tolist())


def test_window_and_finder_agree(desk, jscatter, tmp_path):
    box, c, w = desk.widget, desk._window.c, desk._window
    def count(): return w.status.value.partition(" sources")[0]
    c["query"].value = "hard_hs > 0"; c["query-go"].click(); assert desk.selection == drawn(desk) == sorted(desk.frame.obsreg_id[desk.frame.hard_hs > 0])
    c["invert"].click(); assert desk.selection == drawn(desk) and count() == f"{len(desk.selection)} of 40"
    c["undo"].click(); c["redo"].click(); c["all"].click(); assert count() == "40 of 40" and len(drawn(desk)) == 40
    c["clear"].click(); assert drawn(desk) == [] and count() == "0 of 40"
    c["cluster"].value = "1"; assert desk.selection == drawn(desk) == sorted(desk.frame.obsreg_id[desk.frame.cluster == 1])
    c["ids"].value = "104_4, 105_5"; c["ids-go"].click(); assert drawn(desk) == ["104_4", "105_5"]
    w.scatter.widget.selection = np.array([7], dtype=np.uint32); assert desk.selection == ["107_0"] and c["analog-id"].value == "107_0"
    c["analog-k"].value = 8; c["analog-own"].value = False; c["analogs-go"].click(); assert drawn(desk) == desk.selection and len(desk.selection) == 8 and "analogs of 107_0" in w.status.value
    page = desk.page_ids; c["page-next"].click(); assert desk.page_ids != page
    for k, name in enumerate(["lc", "maps", "photons", "table", "card"]):
        c["tabs"].selected_index = k
        assert desk.tab == name and w.panels[name].value
        if k < 3: assert "<img alt=" in w.panels[name].value and desk.page_ids[0] in w.panels[name].value
    c["label"].value = "dip"; c["mark"].click(); assert desk.labels.counts() == {"dip": 8} and "8 sources labeled dip" in w.status.value
    c["unmark"].click(); assert desk.labels.counts() == {}
    c["path"].value = str(tmp_path / "s.csv"); c["save"].click(); c["clear"].click(); c["open"].click(); assert len(drawn(desk)) == 8
    c["save"].click(); assert "exists" in w.status.value
    c["known-flare"].value = True; assert len(w.scatter.widget.annotations) == 2
    c["known-flare"].value = False; assert len(w.scatter.widget.annotations) == 0
    assert box is desk.widget


def test_a_click_from_another_thread_waits_for_its_turn(desk, jscatter, monkeypatch):
    "JupyterLab hands messages to several threads; one that came while the screen was drawn used to be lost."
    import xrt_nb.window
    desk.widget
    w, drawing, go = desk._window, threading.Event(), threading.Event()
    show = xrt_nb.window.show_legend
    def slow(window): drawing.set(); assert go.wait(60); show(window)
    monkeypatch.setattr(xrt_nb.window, "show_legend", slow)
    first = threading.Thread(target=setattr, args=(w.scatter.widget, "selection", np.array([7], dtype=np.uint32)))
    first.start(); assert drawing.wait(60)
    second = threading.Thread(target=w.c["clear"].click)
    second.start(); second.join(0.2); assert second.is_alive()  # it waits
    go.set(); first.join(60); second.join(60)
    assert desk.selection == drawn(desk) == [] and w.status.value.startswith("0 of 40") and not w.busy
    desk.undo(); assert desk.selection == ["107_0"]  # and the click on the map was heard


def test_colors_on_the_map(desk, jscatter):
    from matplotlib.colors import to_hex
    def shown(palette): return [to_hex(palette[k]) for k in s.points[:, 2].astype(int)]
    def wanted(): return [desk.coloring.colors[k].lower() for k in desk.coloring.codes]
    desk.color_by("kind"); s = desk.scatter.widget
    assert shown(s.color) == wanted()
    desk.select(["104_4"])
    assert len({tuple(k) for k in s.color}) == 1 and shown(s.color_selected) == wanted() and len(s.color_hover) == len(s.color) == len(s.color_selected)
    desk.color_by("hard_hs"); assert shown(s.color_selected) == wanted() and len({tuple(k) for k in s.color}) == 1
    desk.clear(); assert shown(s.color) == wanted()
    assert "hard_hs" in desk._window.legend.value and "not selected" not in desk._window.legend.value


def test_every_control_has_a_class_and_a_name(desk, jscatter):
    desk.widget
    wanted = """color embedding query query-go cluster all invert undo redo clear analog-id analog-k analog-space analog-own analogs-go known-flare known-dip label label-text mark path save open
                page-prev page-next binsize tabs mouse""".split()
    assert set(wanted) <= set(desk._window.c)
    for name, control in desk._window.c.items():
        assert f"xrt-{name}" in control._dom_classes
        if name != "tabs": assert control.description or control.tooltip
    for name in ("lc", "maps", "table", "card"): assert f"xrt-panel-{name}" in desk._window.panels[name]._dom_classes


def test_errors_of_buttons_stand_in_the_status_line(desk, jscatter):
    desk.widget
    c, status = desk._window.c, desk._window.status
    for control, value, why in (("query", "<b>", "&lt;b&gt;"), ("query", "nothing > 1", "no column"), ("query", "", "is empty")):
        c[control].value = value; c["query-go"].click(); assert why in status.value and status.value.startswith("0 of 40")
    c["analog-id"].value = "999_9"; c["analogs-go"].click(); assert "999_9" in status.value
    c["analog-id"].value = "104_4"; c["analog-k"].value = 39; c["analog-own"].value = True; c["analogs-go"].click(); assert "only 38 of 39" in status.value
    c["undo"].click(); c["undo"].click(); assert "nothing to undo" in status.value
    c["mark"].click(); assert "nothing to label" in status.value


def test_choosing_another_map_makes_a_new_scatter(jscatter):
    frame, events, features, known = archive()
    f = AnalogFinder({"a": frame, "b": frame.iloc[::-1].assign(tsne1=frame.tsne1 * 2)}, events, known=known)
    f.select(["104_4", "105_5"]); first = f.scatter
    f._window.c["embedding"].value = "b"
    assert f.scatter is not first and drawn(f) == f.selection == ["104_4", "105_5"]
    assert f._window.canvas.children == (f.scatter.widget,)


def test_without_the_widgets_libraries_the_rest_works(desk):
    with absent("jscatter"), pytest.raises(XRTError, match="jscatter is not installed: pip install"): desk.widget
    assert len(desk.analogs_of("104_4", 3)) == 3 and desk.figure().axes


def test_maps_of_different_archives_share_labels_but_not_their_known_transients():
    a, events, features, known = archive()
    b = archive(20, seed=1)[0].assign(obsreg_id=[f"{500 + k}_1" for k in range(20)])
    f = AnalogFinder({"a": a, "b": b}, known=known)
    f.toggle_known("flare"); f.select("103_3"); f.mark("dip")
    f.choose_embedding("b")
    assert f.state()["known"] == [] and f.selection == [] and f.figure().axes
    f.select("503_1"); f.mark("flare"); f.color_by("label")
    assert f.coloring.counts[:1] == [1] and f.labels.counts() == {"dip": 1, "flare": 1}
    f.choose_embedding("a"); assert f.coloring.labels[0] == "dip"


def test_what_the_mouse_is_told(jscatter):
    frame = archive(9)[0].iloc[:4].assign(hard_hs=[np.nan, 1 / 3, -2e-7, np.inf], name=["x", None, "z", "<b>"], counts=pd.array([1, None, 3, 4], dtype="Int64"))
    w = AnalogFinder(frame).scatter.widget
    told = []
    w.send = lambda message, **_: told.append(message["properties"])
    for k in range(4): w._handle_tooltip({"type": "tooltip", "index": k, "preview": None, "properties": w.tooltip_properties})
    assert [t["id"] for t in told] == list(frame.obsreg_id) and [t["name"] for t in told] == ["x", "unknown", "z", "<b>"]
    assert told[0]["hard_hs"] == told[1]["counts"] == "unknown" and told[1]["hard_hs"] == 0.3333 and told[2]["hard_hs"] == -2e-7
    assert {"id", "name", "gl_log_odds", "hard_hs", "cluster", "counts"} == set(told[0])


# --- one by one, names from strangers, damaged tables ---------------------------------------------------------------


def test_every_method_is_seen_by_editors():
    "Methods are written in classes, not put there later, and say their parameters."
    import inspect
    for name, member in inspect.getmembers(AnalogFinder):
        if name.startswith("_"):
            continue
        owner = next(c for c in AnalogFinder.__mro__ if name in vars(c) or name in c.__annotations__)
        assert owner.__module__ == "xrt_nb.finder" and inspect.getsource(owner).count(f" {name}(") or name == "bin_size", name
        text = inspect.getdoc(member)
        assert text, name
        if inspect.isfunction(member) and len(inspect.signature(member).parameters) > 1:
            for parameter in list(inspect.signature(member).parameters)[1:]:
                assert f"{parameter} : " in text or f"{parameter}, " in text or f", {parameter} : " in text, (name, parameter)


def test_undo_brings_back_analogs_and_conditions(desk):
    hits = desk.analogs_of("103_3", 5)
    desk.query("hard_hs > 0")
    desk.clear()
    desk.undo()
    assert desk.state()["condition"] == "hard_hs > 0" and "where hard_hs > 0" in desk.status and desk.hits is None
    desk.undo()
    assert desk.hits.equals(hits) and desk.page_ids == hits.obsreg_id.tolist() and desk.state()["query"] == "103_3"
    assert desk.table()["rank"].tolist() == [1, 2, 3, 4, 5]
    desk.redo()
    assert desk.hits is None and desk.state()["condition"] == "hard_hs > 0"


def test_one_source_of_a_list_is_judged(desk):
    desk.select_all()
    desk.sort_by("hard_hs")
    order = desk.frame.sort_values("hard_hs").obsreg_id.tolist()
    for k in range(10):
        desk.next()
        assert desk.focus == order[k] and desk.focus in desk.page_ids
        desk.mark("dip", ids=desk.focus)
    assert desk.labels.ids_of("dip") == sorted(order[:10]) and len(desk.selection) == 40
    desk.unmark([order[3]])
    desk.unmark()
    assert desk.labels.ids_of("dip") == sorted(order[:10])
    with pytest.raises(UnknownSourceError):
        desk.mark("dip", ids="nobody")
    desk.select(order[20:])
    assert desk.focus is None  # it isn't selected any more


@pytest.mark.parametrize("suffix", [".csv", ".fits", ".vot", ".ecsv"])
def test_a_selection_is_what_its_name_says(suffix, desk, tmp_path):
    from astropy.table import Table
    start = {".csv": b"", ".fits": b"SIMPLE  =", ".vot": b"<?xml", ".ecsv": b"# %ECSV"}[suffix]
    desk.query("hard_hs > 0")
    path = desk.save_selection(tmp_path / f"chosen{suffix}")
    assert path.read_bytes().startswith(start)
    format = {".csv": "ascii.csv", ".fits": "fits", ".vot": "votable", ".ecsv": "ascii.ecsv"}[suffix]
    read = Table.read(path, format=format)
    assert sorted(str(i) for i in read["obsreg_id"].astype(str)) == desk.selection and np.ptp(read["ra"]) > 0
    other = AnalogFinder(desk.frame.drop(columns=["x", "y"]))
    other.open_selection(path)
    assert other.selection == desk.selection


@pytest.mark.parametrize("name", ["chosen.parquet", "chosen", "chosen.txt", "chosen.fits.exe"])
def test_other_names_are_refused(name, desk, tmp_path):
    desk.select_all()
    with pytest.raises(ValueError, match=f"{name}: a selection is kept in a file that ends in .csv, .fits, .vot, .ecsv"):
        desk.save_selection(tmp_path / name)
    with pytest.raises(ValueError, match="a figure is saved as .png, .pdf, .svg"):
        desk.save_figure(tmp_path / name)
    assert not list(tmp_path.iterdir())


HOSTILE = [r"$\frac$", "$x", "a" * 10_000, "tab\tline\nbreak\x1b[31m", "_hidden", "<img src=x onerror=alert(1)>", "=1+1", "\u202eright to left", "%s{0}"]


QUICK = (0, 2, 5)  # a formula, a long one, markup; the others are variations on these
STRANGE = [pytest.param(n, id=str(k), marks=() if k in QUICK else pytest.mark.slow) for k, n in enumerate(HOSTILE)]


@pytest.mark.parametrize("name", STRANGE)
def test_names_from_strangers_are_drawn_as_they_stand(name, jscatter, tmp_path):
    "As an id, a class, a label, a column and a known class: figures, pages and files show text and nothing else."
    rng, n = np.random.default_rng(0), 6
    fit = len(name) < 200 and name.isprintable()  # the photons' own border refuses other ids
    ids = [name if fit else "0_1", *(f"{k}_1" for k in range(1, n))]
    events = EventTable.from_lists([EventList(np.sort(rng.uniform(0, 900, 9)), rng.uniform(500, 7000, 9), i, gti=[[0, 900]]) for i in ids])
    frame = pd.DataFrame({"tsne1": rng.normal(size=n), "tsne2": rng.normal(size=n), "obsreg_id": ids, "cluster": [name, *"abcab"], name: rng.normal(size=n)})
    desk = AnalogFinder(frame, events, features=rng.normal(size=(n, 3)), known={name: [ids[1]]})
    desk.widget
    desk.toggle_known(name, True)
    desk.analogs_of(ids[0], 3)
    desk.select_all()
    desk.mark(name)
    desk.focus_on(ids[0])
    for color in (name, "cluster", "label"):
        desk.color_by(color)
        desk.save_figure(tmp_path / "figure.png", overwrite=True)
        for tab in ("lc", "maps", "photons", "table", "card"):
            desk.show_panel(tab)
            assert "<img src=x" not in desk._window.panels[tab].value
    assert len(desk.status) < 800 and "\x1b" not in desk._window.status.value
    desk.save_selection(tmp_path / "chosen.csv")
    assert not re.search(r"(?m)(^|,)[=@]", (tmp_path / "chosen.csv").read_text())
    desk.clear()
    desk.open_selection(tmp_path / "chosen.csv")
    assert len(desk.selection) == n


@pytest.mark.parametrize("values, first, count", [
    ([0, 1.0, None, 1, 0, 1], 1, 3), (["out", 1, 1.0, None, "out", 2], 1, 2), (["out", 1, 1.0, None, "out", 2], "out", 2), ([None] * 5 + ["x"], "x", 1),
    (pd.array([1, None, 1, 2, 2, 1], dtype="Int64"), 2, 2), (pd.Categorical(["a", "b", None, "a", "a", "b"]), "a", 3), ([True, False, None, True, True, None], True, 3)])
def test_clusters_of_any_kind(values, first, count, jscatter):
    rng = np.random.default_rng(0)
    desk = AnalogFinder(pd.DataFrame({"tsne1": rng.normal(size=6), "tsne2": rng.normal(size=6), "obsreg_id": list("abcdef"), "cluster": values}))
    desk.widget
    desk.select_cluster(first)
    assert len(desk.selection) == count
    for word in desk.clusters():
        desk.select_cluster(word)
    with pytest.raises(ValueError, match="there is no cluster None"):
        desk.select_cluster(None)


def test_columns_that_stand_twice_are_named():
    frame, *_ = archive()
    with pytest.raises(EventDataError, match="'kind' is duplicated"):
        AnalogFinder(pd.concat([frame, frame[["kind"]]], axis=1))
    assert len(AnalogFinder(frame.set_index("obsreg_id"))) == 40


@pytest.mark.parametrize("bad", [None, 3, b"x > 1", ["x"], "x > 1\x00", "\ud800 > 1", "x" * 3000, "(" * 500 + "x" + ")" * 500, "9" * 5000 + " < x", "`x", "x == 1j", "x == b'a'", "x == ..."])
def test_conditions_of_the_wrong_kind(bad):
    with pytest.raises(ValueError, match="^query: "):
        query_mask(bad, FRAME)
