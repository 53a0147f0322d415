"""Labels: undo against a model, files that give back exactly what was written, merging as a lattice, refusals."""

import csv
import json
import string
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb.analogs import read_selection, write_selection
from xrt_nb.data import EventDataError, UnknownSourceError, XRTWarning
from xrt_nb.labels import COLUMNS, LABELS, Labels, merge_labels

quiet = settings(deadline=None, max_examples=80)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ids = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('0,"\n\r;=\'_ '), min_size=1, max_size=12)
words = st.sampled_from(LABELS) | texts.filter(str.strip)
whens = st.datetimes().map(lambda t: t.isoformat() + "+00:00") | st.just("")


@st.composite
def filled(draw, run="f00d"):
    "Labels with marks of different times and people."
    made = Labels(run=run)
    for i, label, note, who, when in draw(st.lists(st.tuples(ids | st.sampled_from("abc"), st.sampled_from(LABELS) | words, texts, texts, whens), max_size=8)):
        made.mark(i, label, note, who)
        made._marks[i] = (*made._marks[i][:3], when, run)
    return made


@quiet
@given(steps=st.lists(st.one_of(
    st.tuples(st.just("mark"), st.lists(st.sampled_from("abcd"), max_size=3), st.sampled_from(LABELS)),
    st.tuples(st.just("clear"), st.lists(st.sampled_from("abcd"), max_size=3)), st.tuples(st.just("undo")), st.tuples(st.just("redo"))), max_size=30))
def test_undo_and_redo_against_kept_copies(steps):
    labels, past, state, future = Labels("abcd"), [], {}, []
    for what, *rest in steps:
        if what in ("mark", "clear"):
            new = state | dict.fromkeys(rest[0], rest[1]) if what == "mark" else {i: v for i, v in state.items() if i not in rest[0]}
            changed = labels.mark(*rest) if what == "mark" else labels.clear(*rest)
            assert set(changed) == (set(rest[0]) if what == "mark" else set(rest[0]) & set(state))
            if changed:
                past.append(state)
                state, future = new, []
        elif what == "undo":
            assert bool(labels.undo()) == bool(past)
            if past:
                future.append(state)
                state = past.pop()
        else:
            assert bool(labels.redo()) == bool(future)
            if future:
                past.append(state)
                state = future.pop()
        assert {i: labels.label_of(i) for i in "abcd" if i in labels} == state and len(labels) == len(state)
        assert dict(zip(labels.frame().obsreg_id, labels.frame().label)) == state
    latest = {r.obsreg_id: r.label for r in labels.history().itertuples()}
    assert {i: v for i, v in latest.items() if v} == state


@quiet
@given(labels=filled(), kind=st.sampled_from([".csv", ".json"]))
def test_files_give_back_what_was_written(labels, kind, tmp_path_factory):
    path = labels.save(tmp_path_factory.mktemp("labels") / f"labels{kind}")
    back = Labels.read(path, run="f00d")
    assert back.frame().equals(labels.frame()) and list(back.frame()) == list(COLUMNS)
    assert len(labels) == 0 or not any(back.history().obsreg_id.map(lambda i: i not in labels))


@quiet
@given(a=filled(), b=filled(), c=filled())
def test_merging_depends_on_no_order(a, b, c):
    ab, conflicts = merge_labels(a, b)
    ba, swapped = merge_labels(b, a)
    assert ab.frame().equals(ba.frame())
    assert list(conflicts.obsreg_id) == list(swapped.obsreg_id) and list(conflicts.label_a) == list(swapped.label_b)
    assert merge_labels(a, a)[0].frame().equals(a.frame()) and merge_labels(a, a)[1].empty
    left, right = merge_labels(ab, c)[0], merge_labels(a, merge_labels(b, c)[0])[0]
    assert left.frame().label.equals(right.frame().label)
    assert set(ab.frame().obsreg_id) == set(a.frame().obsreg_id) | set(b.frame().obsreg_id)
    for i in set(a.frame().obsreg_id) & set(b.frame().obsreg_id):
        assert (a.label_of(i) != b.label_of(i)) <= (i in set(conflicts.obsreg_id)) and ab.label_of(i) in (a.label_of(i), b.label_of(i))


def test_merging_by_hand():
    a, b = Labels(["1", "2", "3"], "f00d"), Labels(["3", "4"])
    first, third = "2025-01-01T00:00:00+00:00", "2025-01-03T00:00:00+00:00"
    a._marks = {"1": ("flare", "", "Ada", first, ""), "3": ("dip", "mine", "Ada", first, "f00d")}
    b._marks = {"3": ("flare", "", "Ben", third, ""), "4": ("other", "", "Ben", third, "")}
    merged, conflicts = merge_labels(a, b)
    assert {i: merged.label_of(i) for i in "134"} == {"1": "flare", "3": "flare", "4": "other"} and merged.run == "f00d"
    assert conflicts.iloc[0].to_dict() == {
        "obsreg_id": "3", "label_a": "dip", "label_b": "flare", "kept": "flare", "note_a": "mine", "note_b": "", "who_a": "Ada",
        "who_b": "Ben", "when_a": first, "when_b": third, "run_a": "f00d", "run_b": ""}
    merged.mark("2", "dip")
    with pytest.raises(UnknownSourceError, match="'5' among the 4 ids"):
        merged.mark("5", "dip")
    b._marks["3"] = ("dip", "", "Ben", third, "")  # both agree: the later mark, the note that there is
    merged, conflicts = merge_labels(a, b)
    assert conflicts.empty and list(merged.frame().loc[1, ["label", "note", "who"]]) == ["dip", "mine", "Ben"]


def test_a_selection_with_a_label_is_a_label_file_and_the_other_way_round(tmp_path):
    path = write_selection(tmp_path / "chosen.csv", ["007_1", "NA"], label="flare")
    labels = Labels.read(path, ["007_1", "NA", "8"], run="f00d")
    assert labels.ids_of("flare") == ["007_1", "NA"] and labels.run == "f00d" and labels.frame().when.tolist() == ["", ""]
    labels.save(tmp_path / "labels.csv")
    assert list(read_selection(tmp_path / "labels.csv", ["007_1", "NA"]).obsreg_id) == ["007_1", "NA"]


def test_labels_survive_a_repeated_run(tmp_path):
    "Another fingerprint, other detections: nothing is locked out, nothing is lost, and each mark keeps its origin."
    labels = Labels(["1", "2"], "f00d")
    labels.mark(["1", "2"], "flare")
    for kind in (".csv", ".json"):
        path = labels.save(tmp_path / f"labels{kind}")
        again = Labels.read(path, ["2", "3"], run="beef", unknown="keep")
        again.mark("3", "dip")
        with pytest.raises(UnknownSourceError):
            again.mark("1", "dip")  # not in this archive any more
        again.keep(path)
        assert dict(zip(again.frame().obsreg_id, again.frame().run)) == {"1": "f00d", "2": "f00d", "3": "beef"}
        assert Labels.read(path).frame().equals(again.frame())


def test_ids_of_another_archive(tmp_path):
    labels = Labels()
    labels.mark(["1", "01", 5], "flare")
    path = labels.save(tmp_path / "labels.csv")
    with pytest.raises(UnknownSourceError, match="2 of 3 sources are not in this archive, first '01'"):
        Labels.read(path, ["1"])
    with pytest.warns(XRTWarning, match="2 of 3 .* left out"):
        assert Labels.read(path, ["1"], unknown="drop").ids_of("flare") == ["1"]
    with pytest.raises(ValueError, match="`unknown` must be"):
        Labels.read(path, ["1"], unknown="lose")
    assert len(Labels.read(path, ["1"], unknown="keep")) == 3


BAD = {
    "empty.csv": ("", "no column obsreg_id"), "short.csv": ("obsreg_id,label\n1\n", "row 1 doesn't have 2 fields"), "quote.csv": ('obsreg_id,label\n"1,flare', "not a file of labels"),
    "latin.csv": (b"obsreg_id,label\n1,\xe9\n", "not a file of labels"), "nolabel.csv": ("obsreg_id,label\n1,dip\n2, \n", "row 2: `label` is empty"),
    "noid.csv": ("obsreg_id,label\n,dip\n", "row 1: .*empty id"), "twice.csv": ("obsreg_id,label\n1,dip\n1,dip\n", "row 2: '1' is duplicated"),
    "when.csv": ("obsreg_id,label,when\n1,dip,yesterday\n", "row 1: `when` is no time"), "list.json": ("[]", "not a file of labels"), "cut.json": ('{"run": "a", "labels": [', "not a file of labels"),
    "number.json": ('{"run": 1, "labels": []}', "`run` must be a text"),
    "year.csv": ("obsreg_id,label,when\n1,dip,0001-01-01T00:00:00+14:00\n", "row 1: `when` is no time"), "null.json": ('{"labels": [{"obsreg_id": "1", "label": "a", "when": null}]}', "row 1: `when` must be a text"),
    "columns.csv": ("obsreg_id,label,label\n1,dip,flare\n", "a column is duplicated"), "truth.json": ('{"labels": [{"obsreg_id": true, "label": "a"}]}', "row 1: `ids` must be texts"),
    "keys.json": ('{"labels": [{"obsreg_id": "1", "label": "a", "label": "b"}]}', "a name is duplicated"), "dict.json": ('{"labels": {}}', "no list called labels"),
    "digits.json": ('{"labels": [], "run": ' + "9" * 5000 + "}", "not a file of labels"), "rows.json": ('{"run": "a", "labels": [1]}', "not an object"),
    "label.json": ('{"run": "a", "labels": [{"obsreg_id": "1", "label": NaN}]}', "row 1: `label` must be a text"), "deep.json": ("[" * 100_000, "not a file of labels"),
    "half.json": ('{"run": "a", "labels": [{"obsreg_id": "1", "label": "\\ud800"}]}', "half a character"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(name, tmp_path):
    content, why = BAD[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EventDataError, match=f"{name}: .*{why}"):
        Labels.read(path)


@pytest.mark.parametrize("bad", [None, 1.5, float("nan"), b"1", ["1", None], ""])
def test_bad_ids(bad):
    with pytest.raises((ValueError, TypeError)):
        Labels().mark(bad if isinstance(bad, list) else [bad], "flare")


def test_a_file_of_a_spreadsheet(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffobsreg_id,label,who\r\n007_1,flare,Ada\r\n".encode())
    assert Labels.read(tmp_path / "a.csv").frame().iloc[0].tolist() == ["007_1", "flare", "", "Ada", "", ""]


def test_nothing_half_written(tmp_path, monkeypatch):
    labels = Labels()
    labels.mark("1", "flare")
    path = labels.save(tmp_path / "labels.json")
    old = path.read_bytes()
    labels.mark("2", "dip")
    with monkeypatch.context() as m:
        m.setattr(json, "dump", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            labels.save(path, overwrite=True)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["labels.json"]
    labels.save(path, overwrite=True)
    assert len(Labels.read(path)) == 2


def test_many(tmp_path):
    many = [f"{i}_{c}" for i in range(800) for c in string.ascii_letters[:25]]
    labels = Labels(many, "f00d")
    labels.mark(many, "other")
    labels.mark(many[::2], "dip")
    assert labels.counts() == {"other": 10_000, "dip": 10_000}
    back = Labels.read(labels.save(tmp_path / "labels.csv"), many, "f00d")
    pd.testing.assert_frame_equal(back.frame(), labels.frame())
    labels.undo()
    assert labels.counts() == {"other": 20_000}


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_two_windows_on_one_file(kind, tmp_path):
    path = tmp_path / f"labels.{kind}"
    one, two = Labels("abcd", "f00d"), Labels("abcd", "f00d")
    one.mark("a", "flare")
    assert one.keep(path).empty
    two.mark(["a", "b"], "dip")
    conflicts = two.keep(path)  # never read the file, and yet
    assert list(conflicts.obsreg_id) == ["a"] and set(Labels.read(path).frame().obsreg_id) == {"a", "b"}
    one.mark("c", "other")
    one.keep(path)
    assert set(Labels.read(path).frame().obsreg_id) == {"a", "b", "c"}
    one.undo()
    two.mark("d", "dip")
    two.keep(path)  # the other window comes between: what was taken away stays away
    one.keep(path)
    assert set(Labels.read(path).frame().obsreg_id) == {"a", "b", "d"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


steps = st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abcd"), st.sampled_from(["flare", "dip", None])), max_size=25)


@settings(deadline=None, max_examples=25)
@given(steps=steps)
def test_two_windows_against_one_that_sees_everything(steps, tmp_path_factory):
    "Each window saves after each step: the file is what one person would have written who did all of it."
    path, one = tmp_path_factory.mktemp("labels") / "labels.csv", {}
    windows = [Labels("abcd"), Labels("abcd")]
    for k, i, label in steps:
        if label and windows[k].label_of(i) != label:  # the same word again is no judgment that others could notice
            windows[k].mark(i, label)
            one[i] = label
        elif not label and i in windows[k]:
            windows[k].clear(i)
            one.pop(i, None)
        windows[k].keep(path)
        read = Labels.read(path)
        assert {i: read.label_of(i) for i in "abcd" if i in read} == {i: windows[k].label_of(i) for i in "abcd" if i in windows[k]}
    assert set(Labels.read(path).frame().obsreg_id) >= set(one) if path.exists() else not one


def test_a_column_that_a_label_file_would_lose(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("obsreg_id,label,redshift\n1,dip,0.3\n")
    labels = Labels()
    labels.mark("2", "flare")
    with pytest.raises(EventDataError, match="column redshift that a label file would lose"):
        labels.keep(path)
    assert "0.3" in path.read_text()


def test_notes_are_no_formulas(tmp_path):
    labels = Labels()
    labels.mark(["=1+1", "2"], "flare", note="=HYPERLINK(0)", who="@me")
    path = labels.save(tmp_path / "labels.csv")
    cells = [c for line in csv.reader(path.read_text().splitlines()) for c in line]
    assert not [c for c in cells if c[:1] in tuple("=+-@")] and Labels.read(path).frame().equals(labels.frame())


SAVER = """
import sys
from pathlib import Path
from xrt_nb.labels import Labels
path, who, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
labels = Labels()
print("ready", flush=True)
sys.stdin.readline()
for k in range(n):
    labels.mark(f"{who}_{k}", "flare", who=who)
    labels.keep(path)
    print(k, flush=True)
"""


def saver(path, who, n):
    "A window in a process of its own."
    return subprocess.Popen([sys.executable, "-c", SAVER, str(path), who, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_on_one_file_lose_nothing(tmp_path):
    path = tmp_path / "labels.csv"
    both = [saver(path, who, 40) for who in "ab"]
    for p in both:
        p.stdout.readline()
    for p in both:
        p.stdin.write("\n")
        p.stdin.flush()
    for p in both:
        p.communicate(timeout=600)
    assert [p.returncode for p in both] == [0, 0] and len(Labels.read(path)) == 80
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from xrt_nb.labels import Labels
path, times, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
kept = set()
for k in range(times):
    out, into = os.pipe()
    if not (child := os.fork()):
        labels = Labels()
        for n in range(100_000):
            labels.mark(f"w{k}_{n}", "flare")
            labels.keep(path)
            os.write(into, f"w{k}_{n} ".encode())
    os.close(into)
    head = os.read(out, 64) if k == 0 else b""  # something is kept at least once, on a busy machine too
    time.sleep(rng.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(out, "rb") as f:
        kept |= set((head + f.read()).decode().split())
    if path.exists():
        assert kept <= set(Labels.read(path).frame().obsreg_id), "a label that was kept is gone"
last = Labels()
last.mark("end", "dip")
last.keep(path)
assert kept | {"end"} <= set(Labels.read(path).frame().obsreg_id) and kept
print(len(kept), sorted(p.name for p in path.parent.iterdir()))
"""


def kills(path, times, seed):
    "Kill a saving window at random moments; what it has reported as kept must be there, and the next one isn't blocked."
    done = subprocess.run([sys.executable, "-c", KILLER, str(path), str(times), str(seed)], capture_output=True, text=True, timeout=300)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and done.stdout.rstrip().endswith(f"['{path.name}']")


def test_killed_while_saving(tmp_path):
    kills(tmp_path / "labels.csv", 4, 1)


@pytest.mark.slow
def test_killed_while_saving_a_hundred_times(tmp_path):
    kills(tmp_path / "labels.json", 100, 2)
