"""References: any changed byte is named, hostile zips and arrays are refused, placements agree everywhere, growth moves nothing."""

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from xrt_nb import runs
from xrt_nb._store import XRTError
from xrt_nb.cli import main
from xrt_nb.data import XRTWarning
from xrt_nb.reference import INDEX, TOLERANCE, Reference, facts_about, neighbors_in, seal_of
from xrt_nb.runs import features_in, read_run, run
from xrt_nb.simulation import known_ids, simulate_archive

PLACES = ["tsne1", "tsne2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_figures):
    "A folder with a run, its reference and new detections."
    folder = tmp_path_factory.mktemp("reference")
    events, truth = simulate_archive(230, random_state=21)
    old, known = events[:200], known_ids(truth.iloc[:200])
    run(old, folder / "run", known=known, max_iter=250, perplexity=20)
    Reference.build(folder / "run", folder / "ref")
    events[200:].write(folder / "new.parquet")
    return folder, events[200:]


@pytest.fixture
def copy(made, tmp_path):
    "A reference of one's own to damage."
    return shutil.copytree(made[0] / "ref", tmp_path / "ref")


def zipped(folder, path, kind=zipfile.ZIP_STORED, change=lambda info, data: [(info, data)]):
    "The files of a reference as a zip, some of them changed."
    with zipfile.ZipFile(path, "w", kind) as z:
        for p in sorted(folder.iterdir()):
            for info, data in change(zipfile.ZipInfo(p.name), p.read_bytes()):
                info.compress_type = kind
                z.writestr(info, data)
    return path


def edited(folder, change):
    "The manifest changed and sealed again, as somebody would who can write the files."
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest | {"seal": seal_of(manifest)}))


def test_one_changed_byte_in_any_file_is_named(copy):
    rng = np.random.default_rng(0)
    for path in sorted(copy.iterdir()):
        good = path.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        with pytest.raises(XRTError, match=path.name if path.suffix != ".json" else "manifest.json|fitted"):
            Reference(copy)
        path.write_bytes(good)
    Reference(copy)


def test_a_large_file_is_seen_by_verify_and_in_a_zip(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("xrt_nb.reference.SMALL", 0)
    path = copy / "features.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    opened = Reference(copy)  # the promise: opening doesn't read large files
    with pytest.raises(XRTError, match="features.npy was changed"): opened.verify()
    with pytest.raises(XRTError, match="features.npy was changed"): Reference(zipped(copy, tmp_path / "a.zip"))


@pytest.mark.parametrize("change, said", [
    (lambda m: m.update(format=2), "format 2"), (lambda m: m.pop("placing"), "placing"), (lambda m: m.update(n="x"), "lacks 'n'"),
    (lambda m: m["files"].pop("ids.npy"), "ids.npy doesn't belong"), (lambda m: m["files"].update({"../x": {}}), "x is missing"),
    (lambda m: m["files"]["features.npy"].update(dtype="<f4"), "features.npy is not the array"),
    (lambda m: m["files"]["features.npy"].update(shape=[1, 2]), "features.npy is not the array"),
    (lambda m: m.update(case="unheard-of"), "unheard-of")])
def test_a_manifest_that_does_not_fit_is_refused(copy, made, change, said):
    edited(copy, change)
    with pytest.raises(XRTError, match=said): Reference(copy).place(made[1][:1], k=0)


def test_missing_foreign_and_linked_files_are_refused(copy):
    (copy / "more.npy").write_bytes(b"")
    with pytest.raises(XRTError, match="more.npy doesn't belong"): Reference(copy)
    (copy / "more.npy").unlink()
    (copy / "ids.npy").rename(copy.parent / "ids.npy")
    with pytest.raises(XRTError, match="ids.npy is missing"): Reference(copy)
    (copy / "ids.npy").symlink_to(copy.parent / "ids.npy")
    with pytest.raises(XRTError, match="symbolic link"): Reference(copy)


def test_a_pickle_is_never_read(copy):
    class Bad:
        def __reduce__(self): return (os.mkdir, (str(copy / "pwned"),))
    np.save(copy / "embedding.npy", np.array([Bad()], dtype=object), allow_pickle=True)
    size = (copy / "embedding.npy").stat().st_size
    import hashlib
    digest = hashlib.sha256((copy / "embedding.npy").read_bytes()).hexdigest()
    edited(copy, lambda m: m["files"]["embedding.npy"].update(bytes=size, sha256=digest, dtype="|O", shape=[1]))
    with pytest.raises(XRTError, match="embedding.npy"): Reference(copy)
    assert not (copy / "pwned").exists()


def link(info, data):
    if info.filename == "ids.npy":
        info.external_attr = 0o120777 << 16
    return [(info, data)]


def slip(info, data):
    return [(zipfile.ZipInfo("../ids.npy") if info.filename == "ids.npy" else info, data)]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("change, kind, said", [
    (link, zipfile.ZIP_STORED, "ids.npy is no plain member"), (slip, zipfile.ZIP_STORED, "plain"),
    (lambda i, d: [(i, d)], zipfile.ZIP_DEFLATED, "no plain member"),
    (lambda i, d: [(i, d), (i, d)], zipfile.ZIP_STORED, "no plain member"),
    (lambda i, d: [] if i.filename == "ids.npy" else [(i, d)], zipfile.ZIP_STORED, "ids.npy is missing"),
    (lambda i, d: [(i, d + b"x" * (i.filename == "ids.npy"))], zipfile.ZIP_STORED, "ids.npy has .* bytes instead")])
def test_a_hostile_zip_is_refused(made, tmp_path, change, kind, said):
    path = zipped(made[0] / "ref", tmp_path / "a.zip", kind, change)
    with pytest.raises(XRTError, match=said): Reference(path)


def test_a_zip_cut_anywhere_is_refused(made, tmp_path):
    whole = Reference(made[0] / "ref").pack(tmp_path / "a.zip").read_bytes()
    for n in [0, 10, 1000, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        (tmp_path / "b.zip").write_bytes(whole[:n])
        with pytest.raises(XRTError): Reference(tmp_path / "b.zip")


def test_places_and_analogs_are_those_of_the_run(made):
    folder, new = made
    a, b = read_run(folder / "run").place(new), Reference(folder / "ref").place(new)
    assert np.abs(a.placement[PLACES] - b.placement[PLACES]).to_numpy().max() < TOLERANCE
    assert (a.placement["extrapolated"] == b.placement["extrapolated"]).all()
    same = [c for c in a.analogs if c != "kind"]
    pd.testing.assert_frame_equal(a.analogs[same], b.analogs[same], rtol=1e-5)
    for space, score in (("features", None), ("search", "learned"), ("search", "cosine")):
        one, two = (r.place(new[:5], 7, space, score=score).analogs for r in (read_run(folder / "run"), Reference(folder / "ref")))
        assert one["obsreg_id"].tolist() == two["obsreg_id"].tolist()


SCRIPT = """
import sys
from xrt_nb.reference import Reference
placed = Reference(sys.argv[1]).place(sys.argv[2], k=5)
placed.placement.to_csv(sys.argv[3], index=False)
placed.analogs.to_csv(sys.argv[3] + ".analogs", index=False)
"""


def test_the_page_of_a_placement_draws_and_reads_a_part(made, monkeypatch):
    ref, run_ = Reference(made[0] / "ref"), read_run(made[0] / "run")
    pages = [where.place(made[1][:2], k=3).report() for where in (ref, run_)]
    assert "properties" not in vars(ref) and "are drawn" not in pages[0] + pages[1]
    assert ref.brief.equals(ref.properties[list(runs.SHOWN)])
    monkeypatch.setattr(runs, "DRAWN", 30)
    assert [len(runs.drawn_rows(n)) for n in (29, 30, 31, 10**6)] == [29, 30, 30, 30]
    assert runs.drawn_rows(200)[[0, -1]].tolist() == [0, 199]
    assert "; 30 of 200 detections are drawn" in ref.place(made[1][:1], k=3).report()


def test_many_are_placed_in_parts_as_alone(made, monkeypatch):
    "Features of the next part are made while the last one is searched: nothing may depend on it."
    folder, new = made
    whole = Reference(folder / "ref").place(new, k=3)
    monkeypatch.setattr("xrt_nb.reference.TOGETHER", 7)
    parts = Reference(folder / "ref").place(new, k=3)
    assert np.abs(parts.placement[PLACES] - whole.placement[PLACES]).to_numpy().max() < TOLERANCE
    assert parts.placement.drop(columns=PLACES).equals(whole.placement.drop(columns=PLACES))
    key = ["query", "obsreg_id", "rank", "shared", "known_class"]
    assert parts.analogs[key].equals(whole.analogs[key]) and parts.events == whole.events


def test_another_processor_and_more_threads_place_alike(made, tmp_path):
    folder, new = made
    here, out = Reference(folder / "ref").place(new, k=5), tmp_path / "there.csv"
    other = {"OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", SCRIPT, folder / "ref", folder / "new.parquet", out]
    subprocess.run(list(map(str, command)), env=os.environ | other, check=True, timeout=400, capture_output=True)
    there, hits = pd.read_csv(out), pd.read_csv(f"{out}.analogs")
    assert np.abs(here.placement[PLACES] - there[PLACES]).to_numpy().max() < TOLERANCE
    assert (here.placement["extrapolated"] == there["extrapolated"]).all()
    assert (here.analogs[["query", "obsreg_id"]] == hits[["query", "obsreg_id"]]).all(axis=None)


def test_growing_moves_nothing_and_refuses_what_is_there(made, tmp_path):
    folder, new = made
    ref = Reference(folder / "ref")
    more = ref.append(new[:10], tmp_path / "more")
    for name in ref.manifest["files"]:
        a, b = (r.array(name) if name.endswith(".npy") else None for r in (ref, more))
        if a is not None: np.testing.assert_array_equal(a, b[: len(a)] if a.ndim else b)
    with pytest.raises(XRTError, match="already in more"): more.append(new, tmp_path / "again")
    assert len(more.append(new, tmp_path / "again", there="skip")) == len(ref) + len(new)
    with pytest.raises(XRTError, match="nothing to add"): more.append(new[:10], tmp_path / "none", there="skip")
    with pytest.raises(XRTError, match="pass overwrite=True"): ref.append(new, folder / "ref")
    # who was taken in is found, and is its own nearest neighbor
    hit = more.place(new[:10], k=1, exclude_same_source=False).placement
    assert np.abs(hit[PLACES].to_numpy() - more.array("embedding.npy")[len(ref):]).max() < 2.0


def test_an_appended_detection_is_no_shared_flare(made, tmp_path):
    _, new = made
    grown = Reference(made[0] / "ref").append(new[:12], tmp_path / "grown")
    assert not grown.spaces["search"].behind[-12:].any()
    hits = grown.place(new[:12], k=200, exclude_same_source=False).analogs
    late = hits[hits["obsreg_id"].isin(new.ids[:12].tolist())]
    assert len(late) and not late["shared"].any()


def test_references_fitted_apart_are_not_merged(made, copy, tmp_path):
    ref = Reference(made[0] / "ref")
    with pytest.raises(XRTError, match="nothing beyond"): ref.merge(copy, tmp_path / "x")
    edited(copy, lambda m: m.update(base="another"))
    with pytest.raises(XRTError, match="fitted apart"): ref.merge(copy, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_another_mission_is_flagged(made):
    folder, new = made
    some = new[:3]
    some.meta["mission"] = ["SIMULATED", "XMM-Newton", None]
    with pytest.warns(XRTWarning, match="1 of 3 detections are of another mission"):
        at = Reference(folder / "ref").place(some, k=0).placement
    assert at["other_mission"].tolist() == [False, True, False]


def test_a_mission_that_nobody_tells_is_not_called_another(made, tmp_path):
    folder, new = made
    some = new[:3]
    some.meta["mission"] = None
    with pytest.warns(XRTWarning, match="the mission of 3 of 3 detections is not known, first"):
        at = Reference(folder / "ref").place(some, k=0).placement
    assert not at["other_mission"].any()
    copy = shutil.copytree(folder / "ref", tmp_path / "untold")
    edited(copy, lambda m: m.update(missions={"": 10}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", XRTWarning)
        assert not Reference(copy).place(some, k=0, exclude_same_source=False).placement["other_mission"].any()


FULL = """
import resource, sys
from xrt_nb.reference import Reference
ref = Reference(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
for make in (lambda: ref.append(sys.argv[2], sys.argv[3]), lambda: ref.pack(sys.argv[3] + ".zip")):
    try: make()
    except OSError as err: print(err)
"""


def test_a_full_disk_is_said_and_leaves_nothing(made, tmp_path):
    folder, _ = made
    command = [sys.executable, "-c", FULL, folder / "ref", folder / "new.parquet", tmp_path / "out"]
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=400)
    lines = said.stdout.splitlines()
    assert len(lines) == 2 and all("the disk is full" in line for line in lines), said
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.zip").exists()


@pytest.fixture(scope="module")
def indexed(made):
    "A reference that searches its neighbors by an index."
    pytest.importorskip("faiss")
    return Reference.build(made[0] / "run", made[0] / "ann", index="ann")


def test_an_index_is_told_and_places_alike(made, indexed, tmp_path):
    folder, new = made
    about = indexed.manifest["neighbors"]
    assert about["kind"] == "ann" and about["recall"] == 1 and Reference(folder / "ref").manifest["neighbors"] == {"kind": "exact"}
    assert "lists of faiss" in facts_about(indexed)["neighbors"] and facts_about(Reference(folder / "ref"))["neighbors"] == "searched exactly"
    exact = Reference(folder / "ref").place(new, k=0).placement
    x = features_in(indexed, new, "search")[0]["features"].to_numpy(float)
    rows, found = (neighbors_in(r).kneighbors(x, 15)[1] for r in (Reference(folder / "ref"), indexed))
    np.testing.assert_array_equal(rows, found)
    for ref in (indexed, Reference(indexed.pack(tmp_path / "a.zip")), Reference(indexed.path, index="exact")):
        at = ref.place(new, k=0).placement
        assert np.abs(at[PLACES] - exact[PLACES]).to_numpy().max() < TOLERANCE
        assert (at["extrapolated"] == exact["extrapolated"]).all()
    again = Reference.build(folder / "run", tmp_path / "again", name="run", index="ann")
    assert (again.path / INDEX).read_bytes() == (indexed.path / INDEX).read_bytes()


def test_an_index_grows_with_its_reference(made, indexed, tmp_path):
    _, new = made
    one, two = (indexed.append(new[a:b], tmp_path / str(a)) for a, b in ((0, 12), (12, 30)))
    both = one.merge(two, tmp_path / "both")
    for ref in (one, two, both):
        assert neighbors_in(ref).index.ntotal == len(ref) and ref.manifest["neighbors"]["recall"] == 1
        assert (neighbors_in(ref).kneighbors(ref.array("features.npy"), 1)[0] == 0).all()


def test_a_changed_index_is_refused_before_it_is_read(made, indexed, tmp_path, monkeypatch):
    copy = shutil.copytree(indexed.path, tmp_path / "ann")
    data = bytearray((copy / INDEX).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / INDEX).write_bytes(data)
    with pytest.raises(XRTError, match=f"{INDEX} was changed"): Reference(copy)
    monkeypatch.setattr("xrt_nb.reference.SMALL", 0)  # a large file isn't hashed when a reference is opened
    monkeypatch.setattr("xrt_nb.reference.read_index", lambda *a, **k: pytest.fail("faiss was given changed bytes"))
    with pytest.raises(XRTError, match=f"{INDEX} was changed"): Reference(copy).place(made[1][:1], k=0)
    assert len(Reference(copy, index="exact").place(made[1][:1], k=0)) == 1
    for wrong in ({"kind": "other"}, {"kind": "ann"}, {"kind": "ann", "probes": 0, "recall": 1.0}, 7):
        edited(copy, lambda m: m.update(neighbors=wrong))
        with pytest.raises(XRTError, match="neighbors that this version can't search"): Reference(copy).place(made[1][:1], k=0)


def test_without_faiss_it_is_said_what_to_do(made, indexed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(XRTError, match=r"xrt_nb\[ann\].*index='exact'"): Reference(indexed.path).place(made[1][:1], k=0)
    with pytest.raises(XRTError, match=r"xrt_nb\[ann\]"): Reference.build(made[0] / "run", tmp_path / "a", index="ann")
    monkeypatch.setattr("xrt_nb.reference.MANY", 10)
    with pytest.warns(XRTWarning, match="200 detections are searched exactly"):
        assert Reference.build(made[0] / "run", tmp_path / "b").manifest["neighbors"] == {"kind": "exact"}


FULL_INDEX = """
import resource, sys
from pathlib import Path
import numpy as np
from xrt_nb.index import add_rows, trained, write_index
x = np.random.default_rng(0).normal(size=(3000, 20)).astype(np.float32)
index = trained(x)
add_rows(index, x)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try: write_index(index, Path(sys.argv[1]))
except OSError as err: print(err)
"""


def test_a_disk_too_full_for_an_index_is_said(tmp_path):
    pytest.importorskip("faiss")
    said = subprocess.run([sys.executable, "-c", FULL_INDEX, str(tmp_path / "a.faiss")], capture_output=True, text=True, timeout=400)
    assert "the disk is full" in said.stdout, said


@pytest.mark.parametrize("scale, far", [(1.0, 0.0), (1e-6, 0.0), (1e7, 0.0), (1.0, 30.0), (1.0, 1e4), (1e-3, 1e3)])
def test_indexed_neighbors_are_those_of_brute_force(tmp_path, scale, far):
    pytest.importorskip("faiss")
    from scipy.spatial.distance import cdist
    from xrt_nb.index import ExactNeighbors, IndexedNeighbors, lists_needed, make_index, read_index
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6000, 12)) * np.arange(1, 13) ** -0.5 * scale + far
    x[3000:3100] = x[:100]  # equal rows
    x[4000:4030] = x[7]  # more of them than faiss proposes
    q = rng.normal(size=(300, 12)) * np.arange(1, 13) ** -0.5 * scale + far
    q[::10] *= 3
    q[1] = x[7]
    about = make_index(x, x.astype(np.float32), tmp_path / "a.faiss")
    index, brute = read_index(tmp_path / "a.faiss"), cdist(q, x)
    order = np.argsort(brute, axis=1, kind="stable")[:, :15]
    for near in (ExactNeighbors(x), ExactNeighbors(x, n_jobs=2), IndexedNeighbors(x, index, about["probes"]), IndexedNeighbors(x, index, 1, 2)):
        d, r = near.kneighbors(q, 15)
        np.testing.assert_array_equal(r, order)
        np.testing.assert_allclose(d, np.take_along_axis(brute, order, 1), rtol=1e-9, atol=1e-300)
        np.testing.assert_array_equal([near.kneighbors(row[None], 15)[1][0] for row in q[:40]], order[:40])
    assert about["recall"] == 1 and (near.kneighbors(x[10:100], 2)[1] == np.c_[10:100, 3010:3100]).all()
    lists = index.quantizer.search(x.astype(np.float32), 1)[1][:, 0]
    ranks = np.argsort(np.argsort(cdist(q, near.centers), axis=1), axis=1)
    needed = lists_needed(near.centers, q, brute[np.arange(300), order[:, -1]] ** 2)
    assert (np.take_along_axis(ranks, lists[order], 1) < needed[:, None]).all()


def test_the_same_reference_is_the_same_bytes(made, tmp_path):
    again = Reference.build(made[0] / "run", tmp_path / "again", name="run")
    assert all((again.path / n).read_bytes() == (made[0] / "ref" / n).read_bytes() for n in [*again.manifest["files"], "manifest.json"])


def test_the_command_line_builds_extends_packs_and_places(made, tmp_path):
    folder, _ = made
    def shell(*words, code=0):
        done = CliRunner().invoke(main, list(map(str, words)))
        assert done.exit_code == code, done.output
        return done.output
    assert "30 of" not in shell("reference", "info", folder / "ref")
    shell("reference", "append", folder / "ref", folder / "new.parquet", "--out", tmp_path / "more")
    assert "230" in shell("reference", "info", tmp_path / "more", "--verify")
    assert "searched exactly" in shell("reference", "info", tmp_path / "more")
    shell("reference", "pack", tmp_path / "more", tmp_path / "more.zip")
    shell("place", folder / "new.parquet", "--in", tmp_path / "more.zip", "--out", tmp_path / "placed", "-k", 2)
    assert "other_mission" in pd.read_csv(tmp_path / "placed" / "placement.csv")
    assert "already in more" in shell("reference", "append", tmp_path / "more", folder / "new.parquet", "--out", tmp_path / "x", code=1)
    data = bytearray((tmp_path / "more.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(data)
    assert "was changed" in shell("place", folder / "new.parquet", "--in", tmp_path / "bad.zip", "--out", tmp_path / "p2", code=2)


def test_an_archive_is_run_first(few_figures, tmp_path):
    simulate_archive(40, random_state=2)[0].write(tmp_path / "a.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(main, ["reference", "build", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "r")])
    assert done.exit_code == 0 and "Reference 'a'" in done.output, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "r"]
