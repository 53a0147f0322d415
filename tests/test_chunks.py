"""Archives that are never in memory as a whole: equal to those that are, resumable, flat in memory, and whole or absent."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_array
from sklearn.decomposition import PCA

from xrt_nb import chunks, reference, runs
from xrt_nb._store import XRTError
from xrt_nb.chunks import Span, components_by_passes, components_from, of_observations, placed_at, run_in_parts
from xrt_nb.chunks import shared_in, stratified, write_rows
from xrt_nb.cli import main
from xrt_nb.data import EventDataError, EventTable
from xrt_nb.reference import Reference
from xrt_nb.representations import EtDtCube, EtMap
from xrt_nb.runs import read_run, run
from xrt_nb.scale import map_parts, parts_of
from xrt_nb.shapes import shared_flares
from xrt_nb.simulation import known_ids, simulate_archive
from xrt_nb.tables import EventFile, ParquetEvents

pytestmark = pytest.mark.usefixtures("few_figures")
QUICK = dict(perplexity=10, max_iter=250, min_samples=8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    "A file of 150 detections, and the known ones."
    events, truth = simulate_archive(150, random_state=8)
    return events, known_ids(truth).iloc[:4], in_pieces(events, tmp_path_factory.mktemp("chunks") / "events.parquet")


def in_pieces(events, path, n=40):
    "Write a file of many row groups."
    with ParquetEvents(path) as out:
        for a in range(0, len(events), n):
            out.write(events[a : a + n])
    return path


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(chunks, "TOGETHER", 1)


# --- files in parts
def test_any_run_of_detections_is_that_of_the_whole_table(archive):
    events, _, path = archive
    file, rng = EventFile(path), np.random.default_rng(0)
    for a, b in [(0, 0), (0, 150), (149, 150), *np.sort(rng.integers(0, 151, (20, 2)), axis=1)]:
        mine, theirs = file[a:b], events[a:b]
        assert mine.to_frame().equals(theirs.to_frame()) and mine.meta.equals(theirs.meta)
        assert np.array_equal(mine.gti, theirs.gti) and np.array_equal(mine.gti_offsets, theirs.gti_offsets)


@pytest.mark.slow
def test_a_giant_among_small_ones_is_read_whole(tmp_path, monkeypatch):
    rng, n = np.random.default_rng(1), [30, 300_000, 30, 30]
    times = np.concatenate([np.sort(rng.uniform(0, 3e4, k)) for k in n])
    table = EventTable(list("abcd"), np.r_[0, np.cumsum(n)], times, rng.uniform(500, 7000, sum(n)),
                       np.tile([[0.0, 3e4]], (4, 1)), np.arange(5))
    path = table.write(tmp_path / "giant.parquet")
    assert len(EventFile(path).groups) == 3
    parts = parts_of(path)
    assert [p.start for p in parts][0] == 0 and parts[-1].stop == 4
    given = chunks.parameters_of("shape-metric", {})
    given = {k: given[k] for k in ("representations", "features")}
    done = map_parts(chunks.looked_at, parts, tmp_path / "look", case="shape-metric", given=given, axis="auto").complete()
    mine = pd.concat(f for p in done if (f := chunks.frame_in(p, "found")) is not None)
    assert mine.equals(chunks.search_features(table))


# --- sums and passes
@pytest.mark.parametrize("seed", range(3))
def test_components_from_sums_of_any_cut_are_those_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, 12)) * np.linspace(3, 0.5, 12) + rng.standard_normal(12)
    cut = np.split(x, np.sort(rng.integers(0, 200, 4)))
    n, total, product = 200, sum(p.sum(axis=0) for p in cut), sum(p.T @ p for p in cut)
    mine, theirs = components_from(PCA(5), n, total, product), PCA(5, svd_solver="full").fit(x)
    assert np.allclose(mine.transform(x), theirs.transform(x), atol=1e-9)
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "noise_variance_", "mean_"):
        assert np.allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-8), name


def test_components_by_passes_over_sparse_rows(tmp_path):
    rng = np.random.default_rng(0)
    x = csr_array(rng.poisson(0.05, (300, 2500)) * np.exp(rng.standard_normal(2500))).astype(float)
    mean = np.asarray(x.mean(axis=0)).ravel()

    def times(q):
        y = x @ q - mean @ q
        return x.T @ y - np.outer(mean, y.sum(axis=0))

    sums = {"n": 300, "sum": mean * 300, "square": x.power(2).sum()}
    mine = components_by_passes(PCA(4, random_state=0), sums, times)
    theirs = PCA(4, svd_solver="full").fit(x.toarray())
    assert np.allclose(mine.explained_variance_, theirs.explained_variance_, rtol=1e-8)
    assert np.allclose(mine.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-8)


def test_shared_flares_of_an_observation_that_lies_in_pieces(tmp_path):
    "Lists of two observations in turn, of which one has a flare that all share; cut after every third detection."
    rng, lists = np.random.default_rng(3), []
    for k in range(60):
        flare = rng.uniform(1.0e4, 1.05e4, 12) if k % 2 else []
        lists.append(np.sort(np.r_[rng.uniform(0, 3e4, 20), flare]))
    ids = [f"{k % 2}_{k // 2}" for k in range(60)]
    table = EventTable(ids, np.r_[0, np.cumsum([len(t) for t in lists])], np.concatenate(lists), None,
                       np.tile([[0.0, 3e4]], (60, 1)), np.arange(61))
    paths = []
    for a in range(0, 60, 3):
        paths.append(tmp_path / f"{a}.npz")
        np.savez(paths[-1], **chunks.observed(table[a : a + 3], "livetime"))
    theirs = shared_flares(table).to_numpy()
    assert 25 <= theirs.sum() <= 30 and np.array_equal(shared_in(paths), theirs)
    assert {n for _, n in of_observations(paths)[0].values()} == {30}


# --- samples
@pytest.mark.parametrize("n", [1, 7, 300, 999, 1000])
def test_a_stratified_sample_has_its_size_and_repeats(n):
    rng = np.random.default_rng(2)
    x, counts = rng.standard_normal((1000, 3)), rng.lognormal(3, 1, 1000)
    rows = stratified(x, counts, n, 5)
    assert len(rows) == len(np.unique(rows)) == n and np.array_equal(rows, stratified(x, counts, n, 5))


def test_what_is_rare_is_in_the_sample():
    rng = np.random.default_rng(2)
    x, counts = rng.standard_normal((20_000, 1)) + 0.3 * rng.standard_normal((20_000, 3)), np.full(20_000, 30.0)
    stratum = chunks.strata_of(x, counts)
    rows = stratified(x, counts, 2000)
    there, size = np.unique(stratum, return_counts=True)
    taken = np.bincount(stratum[rows], minlength=stratum.max() + 1)[there]
    assert (taken >= np.minimum(size, chunks.LEAST)).all() and size.min() < 20


def test_same_values_make_one_stratum():
    assert len(stratified(np.zeros((50, 3)), np.ones(50), 20)) == 20


def test_placed_ones_dont_move_the_sample(tmp_path):
    rng = np.random.default_rng(0)
    x, rows = rng.standard_normal((90, 5)), np.arange(0, 90, 2)
    places = rng.standard_normal((45, 2)) * 10
    for name, a in dict(features=x, rows=rows, places=places).items():
        np.save(tmp_path / f"{name}.npy", a)
    files = {n: tmp_path / f"{n}.npy" for n in ("features", "rows", "places")}
    whole = placed_at(Span("a", 0, 90), **files, perplexity=5)["embedding"]
    halves = [placed_at(Span("a", a, a + 45), **files, perplexity=5)["embedding"] for a in (0, 45)]
    assert np.array_equal(whole[rows], places) and np.isfinite(whole).all()
    assert np.array_equal(np.concatenate(halves)[rows], places)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rows_on_disk_are_multiplied_in_parts_and_given_back(tmp_path, monkeypatch, dtype):
    (tmp_path / "arrays").mkdir()
    plain = np.random.default_rng(1).standard_normal((1003, 7)).astype(dtype)
    np.save(tmp_path / "arrays" / "x.npy", plain)
    rows, gone = chunks.mapped_array(tmp_path, "x.npy"), []
    monkeypatch.setattr(chunks, "AT_ONCE", 100)
    monkeypatch.setattr(chunks, "let_go", lambda what: gone.append(what))
    for q in (plain[:3], rows[:3], rows[[5, 2]]):  # from elsewhere, mapped themselves, copied
        made = q @ rows.T
        assert type(made) is np.ndarray and made.dtype == plain.dtype
        np.testing.assert_allclose(made, np.asarray(q) @ plain.T, rtol=0, atol=20 * np.finfo(dtype).eps * 7)
    assert len(gone) == 3 * 11
    assert np.array_equal(rows[[5, 2]] @ np.eye(7, dtype=dtype), plain[[5, 2]])


# --- runs
@pytest.mark.slow
def test_a_run_in_parts_is_the_run_in_memory(archive, tmp_path, small_parts, monkeypatch):
    events, known, path = archive
    mine = read_run(run(path, tmp_path / "parts", known=known, chunked=True, **QUICK))
    theirs = read_run(run(path, tmp_path / "memory", known=known, chunked=False, **QUICK))
    for name in ("search_features", "properties", "quality"):
        assert getattr(mine, name).equals(getattr(theirs, name)), name
    scale = theirs.features.to_numpy().std()
    assert np.abs(mine.features - theirs.features).to_numpy().max() < 1e-6 * scale
    columns = ["query", "obsreg_id", "rank", "space"]
    assert mine.analogs[columns].equals(theirs.analogs[columns])
    assert np.array_equal(np.load(mine.path / "arrays" / "features.npy"), mine.features.to_numpy())
    assert np.load(mine.path / "arrays" / "ids.npy").tolist() == mine.features.index.tolist()
    assert mine.manifest["parameters"]["embedding"]["sample"] == chunks.SAMPLE
    new = events[:6]
    new.meta["name"] = None
    mapped = mine.place(new, k=5)
    assert "spaces" not in vars(mine)  # found in the arrays on disk, nothing was loaded
    ref = Reference.build(mine, tmp_path / "ref")
    kept, drawn = mine.place(events[:3]), read_run(mine.path)
    assert drawn.archive[events.ids[4]] == events[events.ids[4]] and events.ids[4] in drawn.archive
    for space in drawn.mapped.values():
        space.frame.drawn = None  # as in a run that was made before they were kept
    again = drawn.place(events[:3])
    assert kept.placement.equals(again.placement) and kept.analogs.equals(again.analogs)
    assert "events" not in vars(drawn) and "properties" not in vars(drawn)
    for name in ("search", "features"):
        assert np.array_equal(ref.array(f"pairs.{name}.npy"), np.load(mine.path / "arrays" / f"pairs.{name}.npy"))
        assert np.array_equal(ref.array(f"pairs.{name}.npy"), drawn.mapped[name].frame.pairs)
    for module in (runs, reference):
        monkeypatch.setattr(module, "spaces_for", lambda run, *how: run.spaces)
    loaded = read_run(mine.path).place(new, k=5)
    for table in ("placement", "analogs"):
        assert getattr(mapped, table).equals(getattr(loaded, table)), table
    again = Reference.build(read_run(mine.path), tmp_path / "again")
    assert {k: v["sha256"] for k, v in ref.manifest["files"].items()} == {k: v["sha256"] for k, v in again.manifest["files"].items()}


@pytest.mark.slow
def test_a_sample_is_embedded_and_all_are_on_the_map(archive, tmp_path, small_parts):
    _, known, path = archive
    mine = read_run(run_in_parts(path, tmp_path / "parts", known=known, sample=60, **QUICK))
    assert len(mine.embedding) == len(mine.features) and np.isfinite(mine.embedding[["tsne1", "tsne2"]].to_numpy()).all()
    assert len(np.load(mine.path / "arrays" / "sample.npy")) == 60
    assert "stratified sample of 60" in (mine.path / "report.html").read_text()


@pytest.mark.parametrize("case, representation, n", [("2D-PCA", EtMap(), 15), ("3D-PCA", EtDtCube(), 22), ("2D-PCA", EtMap(), 60), ("2D-PCA", EtMap(2, 3), 5)])
def test_features_by_passes_are_those_of_one_decomposition(archive, tmp_path, monkeypatch, case, representation, n):
    events = archive[0]
    rows = runs.rows_of(representation.fit_transform(events), events)
    case = runs.with_parameters(runs.case_of(case), {"representations": {}, "features": {"n_components": n}})
    whole = chunks.blocks_on_disk
    monkeypatch.setattr(chunks, "blocks_on_disk", lambda folder, rows: whole(folder, rows, 40))
    mine, model = chunks.features_in_parts(case, rows, events.ids, tmp_path)
    theirs, plain = runs.fit_features(case, rows, events.ids)
    assert mine.index.equals(theirs.index) and list(mine) == list(theirs) and mine.shape[1] == n
    scale = theirs["pca00"].std()
    distances = lambda f: np.linalg.norm(f.to_numpy()[:, None] - f.to_numpy(), axis=2)  # noqa: E731  axes of equal variance may turn
    assert np.abs(distances(mine) - distances(theirs)).max() < 1e-6 * scale
    assert np.allclose(runs.last_of(model).explained_variance_, runs.last_of(plain).explained_variance_, rtol=0, atol=1e-6 * scale**2)


def test_more_components_than_there_can_be_are_refused(archive, tmp_path):
    events, case = archive[0], runs.case_of("2D-PCA")
    rows = EtMap(2, 3).fit_transform(events)
    for make in (runs.fit_features, lambda *what: chunks.features_in_parts(*what, tmp_path)):
        with pytest.raises(ValueError, match="150 detections of 6 cells allow at most 5"):
            make(case, rows, events.ids)


def test_a_case_in_parts_has_as_many_components_as_are_asked_for(archive, tmp_path):
    made = read_run(run_in_parts("2D-PCA", archive[2], tmp_path / "run", n_components=60, **QUICK))
    assert made.features.shape == (len(made.features), 60)


@pytest.mark.slow
def test_features_of_a_file_of_maps_by_workers(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell = lambda *args: CliRunner().invoke(main, [str(a) for a in args])  # noqa: E731
    for what in ("map", "cube"):
        assert not shell("represent", archive[2], "--representation", what, "--out", f"{what}.npz").exit_code
        for out, more in {"plain": [], "one": ["--cluster", "local:1"], "two": ["--cluster", "local:2"]}.items():
            told = shell("features", f"{what}.npz", "--out", f"{what}.{out}.parquet", *more)
            assert not told.exit_code, told.output
        plain, one, two = (pd.read_parquet(f"{what}.{out}.parquet") for out in ("plain", "one", "two"))
        assert one.equals(two) and np.abs(one - plain).to_numpy().max() < 1e-6 * plain["pca00"].std()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


KILLED = """
import os, signal, sys
from xrt_nb import chunks, reference, runs
chunks.TOGETHER = 1
real, left = chunks.map_parts, [int(sys.argv[3])]
def dying(function, parts, *args, **kwargs):
    say = kwargs["progress"]
    def counted(*told):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        say(*told)
    return real(function, parts, *args, **kwargs | {"progress": counted})
chunks.map_parts = dying
chunks.run_in_parts(sys.argv[1], sys.argv[2], known={}, perplexity=10, max_iter=250, min_samples=8)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(archive, tmp_path, small_parts, monkeypatch):
    path, out = archive[2], tmp_path / "run"
    died = subprocess.run([sys.executable, "-c", KILLED, path, out, "3"], capture_output=True)
    assert died.returncode == -signal.SIGKILL and not out.exists()
    calls, real = [], chunks.map_parts

    def counted(function, parts, *args, **kwargs):
        done = real(function, parts, *args, **kwargs)
        calls.append((function.__name__, done.made, done.reused))
        return done

    monkeypatch.setattr(chunks, "map_parts", counted)
    read_run(run_in_parts(path, out, known={}, **QUICK))
    name, made, reused = calls[0]
    assert name == "looked_at" and reused >= 3 and made + reused == len(parts_of(path, 1))
    assert calls[1][:2] == ("looked_at", 0)


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def blocks():
        yield np.zeros((3, 2))
        full()

    with pytest.raises(XRTError, match="rows.npy"):
        write_rows(tmp_path / "rows.npy", 6, blocks())
    assert list(tmp_path.iterdir()) == []


def test_what_cant_be_run_in_parts_is_refused(archive, tmp_path):
    events, _, path = archive
    with pytest.raises(TypeError, match="reads a file"):
        run_in_parts(events, tmp_path / "no")
    with pytest.raises(ValueError, match="2D-AE.*can't be run in parts"):
        run_in_parts("2D-AE", path, tmp_path / "no")
    pd.DataFrame({"obsreg_id": ["a", "a"], "time": [1.0, 2.0], "energy": [1e3, 1e3]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(EventDataError, match="read in parts"):
        run(tmp_path / "other.parquet", tmp_path / "no", chunked=True)
    assert not (tmp_path / "no").exists()


def test_a_part_that_is_missing_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)))
    with pytest.raises(XRTError, match="2 rows instead of 5"):
        write_rows(tmp_path / "x.npy", 5, chunks.blocks_of([tmp_path / "a.npz"], "x"))


MEMORY = """
import resource, sys
from xrt_nb import chunks, reference, runs
from xrt_nb.scale import map_parts, parts_of
chunks.looked_at(parts_of(sys.argv[1], 100_000)[0], "shape-metric", {"representations": {"min_counts": 5}, "features":
    {"n_components": 30, "pca_seed": 11, "summary_axis": "auto"}}, "auto")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fixed = dict(case="shape-metric", given={"representations": {"min_counts": 5}, "features": {"n_components": 30,
    "pca_seed": 11, "summary_axis": "auto"}}, axis="auto")
map_parts(chunks.looked_at, parts_of(sys.argv[1], 100_000), sys.argv[2], **fixed).complete()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_of_a_pass_doesnt_grow_with_the_archive(tmp_path):
    "Beyond what the first part needs, 8,000 detections take no more than some per cent of what they are, 26 MB in all."
    grown = []
    for n in (2000, 8000):
        path = simulate_archive(n, random_state=1)[0].write(tmp_path / f"{n}.parquet")
        told = subprocess.run([sys.executable, "-c", MEMORY, path, tmp_path / f"out{n}"], capture_output=True, text=True, check=True)
        grown.append(float(told.stdout))
    assert grown[1] - grown[0] < 15, grown
