"""Work in parts, here and on workers: the same results, nothing lost, what fails is named."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from xrt_nb import __version__, cards, runs, scale
from xrt_nb._store import StoreBusy, StoreError, StoreExists, StoreMissing, WorkFolder, XRTError, locked
from xrt_nb.cli import main
from xrt_nb.data import EventTable
from xrt_nb.representations import EtDtCube, EtMap
from xrt_nb.scale import Cluster, ClusterProblem, as_address, attempt, check_workers, cuts, draw_over, each_here, map_parts
from xrt_nb.scale import parts_of, read_part
from xrt_nb.simulation import simulate_archive
from xrt_nb.tables import ParquetEvents

ROOT = Path(__file__).resolve().parent.parent


def archive(path, pieces, seed=3, each=20):
    "An archive with a row group for every piece."
    rng = np.random.default_rng(seed)
    with ParquetEvents(path) as out:
        for k in range(pieces):
            n = rng.integers(1, 60, each)
            t = np.concatenate([np.sort(rng.uniform(0, 1e4, m)) for m in n])
            out.write(EventTable([f"{k}_{i}" for i in range(each)], np.r_[0, np.cumsum(n)], t, rng.uniform(500, 7000, len(t))))
    return path


def measure(part, power=1.0, broken=()):
    "Numbers of each detection; fails for some groups."
    if part.group in broken:
        raise XRTError(f"group {part.group} is broken")
    table = read_part(part)
    return pd.DataFrame({"counts": table.counts, "sum": np.add.reduceat(table.time**power, table.offsets[:-1])}, index=table.ids)


def arrays(part, weights):
    "Arrays of a part; a product of matrices, whose last bits depend on the threads."
    x = np.random.default_rng(part.start).normal(size=(200, len(weights)))
    return {"x": x @ weights, "ids": read_part(part).ids}


def as_is(part):
    return part.value


def napping(part, seconds, folder, deadly=None, always=()):
    "Sleep; the deadly part kills its worker."
    time.sleep(seconds)
    if part == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"part": np.array(part), "pid": np.array(os.getpid())}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("scale") / "archive.parquet", 6)


def test_parts_hold_each_detection_once(made):
    for n in (None, 1, 1000, 2000, 10**9):
        parts = parts_of(made, n)
        assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])] and parts[-1].stop == 120
        assert all(p.events == read_part(p).n_events for p in parts)
        assert n is None or all(p.events >= n for p in parts[:-1])
    assert len(parts_of([made, made])) == 12


@pytest.mark.parametrize("seed", range(20))
def test_cuts_are_where_row_groups_begin(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 30, rng.integers(1, 50)) * rng.integers(0, 2, 1)
    total = int(counts.sum())
    sizes = np.diff(np.unique(np.r_[0, rng.integers(0, total + 1, 5), total]))
    at = cuts(counts, sizes)
    assert at[0] == 0 and at[-1] == len(counts) and (np.diff(at) > 0).all()
    first, edges = np.cumsum(counts) - counts, np.cumsum(sizes)
    for a, b in zip(at[:-1], at[1:]):  # the brute-force rule: detections of a part begin in the same row group
        begin = {int(np.searchsorted(edges, f, side="right")) for f, c in zip(first[a:b], counts[a:b]) if c}
        assert len(begin) <= 1


def test_a_file_of_another_program_is_one_part(tmp_path):
    frame = pd.DataFrame({"obsreg_id": ["b", "a", "b"], "time": [2.0, 1.0, 3.0], "energy": [1e3] * 3})
    frame.to_parquet(tmp_path / "theirs.parquet", row_group_size=1)
    (part,) = parts_of(tmp_path / "theirs.parquet")
    assert (part.start, part.stop, part.events) == (0, 2, 3) and read_part(part).ids.tolist() == ["b", "a"]


def test_no_archive_no_parts(tmp_path):
    with pytest.raises(StoreMissing, match="nowhere.parquet"):
        parts_of(tmp_path / "nowhere.parquet")


def test_an_archive_without_detections(tmp_path):
    EventTable([], [0], []).write(tmp_path / "none.parquet")
    done = map_parts(measure, parts_of(tmp_path / "none.parquet"), tmp_path / "out")
    assert done.complete() == [] and list(done.results()) == []


def test_results_come_back_as_they_were(made, tmp_path):
    parts, weights = parts_of(made), np.arange(12.0).reshape(4, 3)
    done = map_parts(arrays, parts, tmp_path / "arrays", weights=weights)
    for got, part in zip(done.results(), parts):
        assert all(np.array_equal(v, arrays(part, weights)[k]) for k, v in got.items())
    frames = map_parts(measure, parts, tmp_path / "frames")
    assert pd.concat(frames.results()).equals(pd.concat([measure(p) for p in parts]))
    assert [p.name for p in frames.complete()][:2] == ["part-00000.parquet", "part-00001.parquet"]


def test_a_repeat_does_what_is_missing_and_nothing_else(made, tmp_path):
    parts = parts_of(made)
    first = map_parts(measure, parts, tmp_path / "out", power=2.0)
    assert (first.made, first.reused) == (6, 0)
    before = [p.read_bytes() for p in first.paths]
    first.paths[1].unlink()
    first.paths[3].write_bytes(before[3][:-1])
    (tmp_path / "out" / "part-00004.done").write_text("{}")
    again = map_parts(measure, parts, tmp_path / "out", power=2.0)
    assert (again.made, again.reused) == (3, 3) and [p.read_bytes() for p in again.paths] == before
    with pytest.raises(StoreExists, match="restart=True"):
        map_parts(measure, parts, tmp_path / "out", power=3.0)
    assert [p.read_bytes() for p in again.paths] == before
    other = map_parts(measure, parts, tmp_path / "out", restart=True, power=3.0)
    assert other.made == 6


def test_a_changed_archive_is_seen(tmp_path):
    path = archive(tmp_path / "a.parquet", 2)
    map_parts(measure, parts_of(path), tmp_path / "out")
    archive(path, 2, seed=4)
    assert map_parts(measure, parts_of(path), tmp_path / "out").made == 2


def test_what_fails_is_named_and_the_rest_is_done(made, tmp_path):
    done = map_parts(measure, parts_of(made), tmp_path / "out", broken=[1, 4])
    assert done.failed.part.tolist() == ["part-00001", "part-00004"] and done.made == 4
    assert "group 1 is broken" in repr(done) and "detections 20 to 39" in repr(done)
    with pytest.raises(XRTError, match="2 of 6 parts failed; the first: part-00001"):
        done.complete()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"] == {
        "part-00001": "group 1 is broken", "part-00004": "group 4 is broken"}


class Named(tuple):
    "A part with a name of its own."

    name = property(lambda self: self[0])
    value = property(lambda self: self[1])


@pytest.mark.parametrize("value, why", [
    (3, "DataFrame"), ({}, "DataFrame"), (None, "DataFrame"), ({"a": np.array([{}])}, "objects"), ([1], "DataFrame")])
def test_results_that_cannot_be_kept(value, why, tmp_path):
    done = map_parts(as_is, [Named(("one", 1))], tmp_path / "out")
    assert "DataFrame" in done.failed.reason[0]
    from xrt_nb.scale import as_files

    with pytest.raises(ValueError, match=why):
        as_files("one", value)


def test_bad_names_functions_and_folders(made, tmp_path):
    for name in ("a/b", "..", "", "a.b", "x" * 101):
        with pytest.raises(ValueError, match="name"):
            map_parts(as_is, [Named((name, 1))], tmp_path / "out")
    with pytest.raises(ValueError, match="same name"):
        map_parts(as_is, [Named(("a", 1)), Named(("a", 2))], tmp_path / "out")
    for function in (lambda part: 1, print, Cluster, test_bad_names_functions_and_folders.__call__):
        with pytest.raises(ValueError, match="function of a module"):
            map_parts(function, [], tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(StoreExists, match="something else"):
        map_parts(measure, [], tmp_path / "full", restart=True)
    with pytest.raises(StoreMissing, match="make it first"):
        map_parts(measure, [], tmp_path / "no" / "out")
    with pytest.raises(TypeError, match="fingerprint"):
        map_parts(measure, [], tmp_path / "out", power=object())
    (tmp_path / "link").symlink_to(tmp_path / "full")
    with pytest.raises(StoreExists, match="no folder"):
        map_parts(measure, [], tmp_path / "link")


def test_two_calls_do_not_share_a_folder(made, tmp_path):
    map_parts(measure, parts_of(made), tmp_path / "out")
    with locked(tmp_path / "out" / "manifest.json"), pytest.raises(StoreBusy):
        map_parts(measure, parts_of(made), tmp_path / "out")


def test_a_full_disk_ends_the_call(made, tmp_path, monkeypatch):
    from xrt_nb import scale

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scale, "write_part", full)
    with pytest.raises(StoreError, match="No space"):
        map_parts(measure, parts_of(made), tmp_path / "out")


@pytest.mark.parametrize("text", ["", "local:", "local:x", "local:0", "tcp://", "tcp://host", "host:1", "local:99999", "tcp://a b:1"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="local:N or tcp://host:port"):
        as_address(text)


def test_an_address_that_does_not_answer(made, tmp_path):
    pytest.importorskip("distributed")
    begin = time.monotonic()
    with pytest.raises(ClusterProblem, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        map_parts(measure, parts_of(made), tmp_path / "out", "tcp://127.0.0.1:9")
    assert time.monotonic() - begin < 60  # it gives up after 8 s; machines may be busy


def test_without_the_extra_the_command_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "xrt_nb\[scale\]"'):
        Cluster("local:1").__enter__()


def test_workers_give_the_same_bytes_and_survive(made, tmp_path, capfd):
    pytest.importorskip("distributed")
    parts, weights = parts_of(made), np.random.default_rng(0).normal(size=(300, 40))
    here = map_parts(arrays, parts, tmp_path / "here", weights=weights)
    with Cluster("local:2", tmp_path) as cluster:
        there = map_parts(arrays, parts, tmp_path / "there", cluster, weights=weights)
        assert [p.read_bytes() for p in there.paths] == [p.read_bytes() for p in here.paths]
        failed = map_parts(measure, parts, tmp_path / "failed", cluster, broken=[2])
        assert failed.failed.part.tolist() == ["part-00002"] and failed.made == 5

        def kill(step, done, total):
            if done == 2:
                os.kill(cluster.processes()[0], signal.SIGKILL)

        done = map_parts(napping, range(8), tmp_path / "naps", cluster, progress=kill, seconds=0.1, folder="", deadly=4)
    assert done.failed.part.tolist() == ["part-00004"] and "died" in done.failed.reason[0]
    assert [int(r["part"]) for r in done.results()] == [0, 1, 2, 3, 5, 6, 7]
    assert not list(tmp_path.glob(".dask-*"))
    assert "distributed" not in capfd.readouterr().err


class Asked:
    "A client whose workers answer what a list of rounds says."

    def __init__(self, *rounds):
        self.rounds = list(rounds)

    def wait_for_workers(self, n, timeout):
        assert n == 1 and timeout > 0

    def run(self, function, token, on_error):
        assert on_error == "return"
        said = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
        if isinstance(said, Exception):
            raise said
        return said


def test_a_worker_that_is_killed_while_it_is_asked_is_left_out():
    killed, well = ConnectionResetError("by peer"), (__version__, True)
    check_workers(Asked({"a": killed, "b": well}), "here")
    check_workers(Asked({"a": killed}, {}, {"b": well}), "here")
    with pytest.raises(ClusterProblem, match="no workers after 0.3 s; start some"):
        check_workers(Asked({"a": killed}), "here", wait=0.3)
    with pytest.raises(ClusterProblem, match="worker b can't import xrt_nb .*No module.*; install it there"):
        check_workers(Asked({"a": well, "b": ModuleNotFoundError("No module named 'xrt_nb'")}), "here")
    with pytest.raises(ClusterProblem, match="worker b has xrt_nb 0.0, this is"):
        check_workers(Asked({"a": killed, "b": ("0.0", True)}), "here")
    with pytest.raises(ClusterProblem, match="worker a doesn't see"):
        check_workers(Asked({"a": (__version__, False)}), "here", "folder/.seen")
    with pytest.raises(ClusterProblem, match="the scheduler at here has vanished"):
        check_workers(Asked(ConnectionResetError("by peer")), "here")


def test_a_process_that_dask_gives_up_is_replaced(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setitem(scale.LOCAL, "distributed.deploy.lost-worker-timeout", "1s")
    with Cluster("local:1", tmp_path) as cluster:

        def close(step, done, total):
            if done == 1:  # as Dask does when a process doesn't start again in time
                (nanny,) = cluster._local.workers.values()
                cluster._local.sync(nanny.close)

        done = map_parts(napping_only, range(5), tmp_path / "out", cluster, progress=close, seconds=0.1)
    assert len(done.complete()) == 5


def test_without_workers_a_call_ends_and_says_so(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(scale, "IDLE", 0.2)

    def late():
        time.sleep(0.05)
        raise TimeoutError

    asked = []
    empty = SimpleNamespace(
        client=SimpleNamespace(status="running", nthreads=dict), address="here", mend=lambda: asked.append(1))
    with pytest.raises(ClusterProblem, match="no worker is left at here for 0.2 s; what is finished is kept: call again"):
        scale.patiently(empty, late)
    assert asked
    empty.client.status = "closed"
    with pytest.raises(ClusterProblem, match="the scheduler at here has vanished"):
        scale.patiently(empty, late)


@pytest.mark.slow
def test_twenty_workers_killed_at_random_moments(tmp_path):
    pytest.importorskip("distributed")
    import threading

    here = map_parts(napping_only, range(60), tmp_path / "here", seconds=0.0)
    killed, rng = [], np.random.default_rng()

    def shoot(cluster, over):
        while len(killed) < 20 and not over.wait(rng.uniform(0, 0.8)):
            if alive := [pid for pid in cluster.processes() if pid not in killed]:
                killed.append(int(rng.choice(alive)))
                os.kill(killed[-1], signal.SIGKILL)

    with Cluster("local:2", tmp_path) as cluster:
        over = threading.Event()
        shooter = threading.Thread(target=shoot, args=(cluster, over))
        shooter.start()
        try:
            there = map_parts(napping_only, range(60), tmp_path / "there", cluster, seconds=0.25)
            again = 0
            while len(killed) < 20 and again < 20:  # until all twenty are used up
                again += 1
                map_parts(napping_only, range(60), tmp_path / f"again{again}", cluster, seconds=0.25).complete()
        finally:
            over.set()
            shooter.join()
    assert len(killed) == 20
    assert [p.read_bytes() for p in there.complete()] == [p.read_bytes() for p in here.paths]


def napping_only(part, seconds):
    "Sleep, then numbers that depend on the part alone."
    time.sleep(seconds)
    return {"x": np.random.default_rng(part).normal(size=100)}


@pytest.mark.slow
def test_a_scheduler_that_vanishes(tmp_path):
    pytest.importorskip("distributed")
    import subprocess

    file, env = tmp_path / "scheduler.json", os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    host = ["--host", "127.0.0.1", "--no-dashboard"]
    programs = [subprocess.Popen([*dask, "scheduler", "--port", "0", *host, "--scheduler-file", str(file)], **quiet)]
    try:
        programs.append(subprocess.Popen(
            [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1", *host], **quiet))
        until = time.monotonic() + 100
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.2)
        address = json.loads(file.read_text())["address"]

        def end(step, done, total):
            if done == 3:
                programs[0].kill()

        with pytest.raises(ClusterProblem, match="has vanished; what is finished is kept"):
            map_parts(napping_only, range(30), tmp_path / "out", address, progress=end, seconds=0.2)
        kept = len(list((tmp_path / "out").glob("*.done")))
        done = map_parts(napping_only, range(30), tmp_path / "out", seconds=0.2)
        assert done.reused == kept >= 3 and len(done.complete()) == 30
    finally:
        for p in programs:
            p.kill()
            p.wait()


class Here(Cluster):
    "A cluster of this process alone, which takes pieces as workers do."

    def __init__(self):
        self.address = "here"

    def check(self, folder):
        assert Path(folder).is_dir()

    def each(self, function, items, /, **fixed):
        return each_here(function, items, **fixed)


@pytest.fixture(scope="module")
def simulated():
    return simulate_archive(120, random_state=8)[0]


def test_pieces_of_a_run_are_measured_alike(simulated, tmp_path):
    job = SimpleNamespace(workers=None, folder=tmp_path, progress=lambda *_: None)
    here = runs.measured(simulated, "livetime", job)
    job.workers = Here()
    there = runs.measured(simulated, "livetime", job, n_events=2500)
    assert len(list((tmp_path / "pieces").glob("*.done"))) > 2
    assert all(a.equals(b) and a.index.equals(b.index) for a, b in zip(here, there))


@pytest.mark.parametrize("cube", [False, True])
def test_representations_are_drawn_alike(cube, simulated, tmp_path):
    grid = {"n_time": 8, "n_energy": 4}
    ids, rows, _ = runs.draw(simulated, (EtDtCube if cube else EtMap)(**grid), 5)
    mine, there = draw_over(simulated, cube, 5, grid, Here(), tmp_path / "pieces", n_events=2500)
    runs.save_representations(tmp_path / "a.npz", ids, rows)
    runs.save_representations(tmp_path / "b.npz", mine, there)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(XRTError, match="with at least 100000 counts"):
        draw_over(simulated, cube, 100_000, grid, Here(), tmp_path / "none")


def test_chances_are_alike(simulated, tmp_path):
    few = simulated[:40]
    with WorkFolder(tmp_path / "a") as a, WorkFolder(tmp_path / "b") as b:
        here = cards.all_chances(a, few, "m", 3, lambda *_: None)
        there = cards.all_chances(b, few, "m", 3, lambda *_: None, Here())
    assert here.equals(there)


def test_archives_are_alike_and_a_file_that_kills_is_a_problem(made, tmp_path):
    from xrt_nb.ingest import ingest

    extra = archive(tmp_path / "deadly.parquet", 1, seed=6)
    how = {"progress": False}
    ingest([made], tmp_path / "here.parquet", **how)
    ingest([made], tmp_path / "there.parquet", workers=Here(), **how)
    assert (tmp_path / "here.parquet").read_bytes() == (tmp_path / "there.parquet").read_bytes()

    class Deadly(Here):
        def each(self, function, items, /, **fixed):
            for k, item in enumerate(items):
                if "deadly" in item.jobs[0][0]:
                    yield k, None, "its worker died each time (out of memory, or a crash in a library)"
                else:
                    yield k, *attempt(function, item, fixed)

    done = ingest([made, extra], tmp_path / "rest.parquet", workers=Deadly(), **how)
    assert "deadly.parquet" in done.problems.file[0] and "worker died" in done.problems.reason[0] and done.n_sources == 120


def test_a_wrong_address_is_a_mistake_in_the_command(made, tmp_path):
    for command in ("ingest", "represent", "run", "place", "candidates"):
        more = ["--in", "x"] if command == "place" else []
        told = CliRunner().invoke(main, [command, str(made), "--out", str(tmp_path / "o"), *more, "--cluster", "local:0"])
        assert told.exit_code == 2 and "local:N or tcp://host:port" in told.stderr, told.stderr
