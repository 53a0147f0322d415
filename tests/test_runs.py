"""Runs that die, disks that fill, directories that exist: a run is whole or absent, and what is used again is the same."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from xrt_nb import runs
from xrt_nb.data import EventDataError, EventTable, XRTError, read_events
from xrt_nb.runs import STEPS, file_hash, files_of, read_manifest, read_run, run
from xrt_nb.simulation import known_ids, simulate_archive

pytestmark = pytest.mark.usefixtures("few_figures")
FILES = files_of("2D-PCA", truth=True)
QUICK = dict(perplexity=15, max_iter=250, min_samples=8)
RESULTS = ["features.parquet", "properties.parquet", "embedding.csv", "clusters.csv", "cluster_table.csv", "analogs.csv", "class_analogs.csv", "retrieval.csv", "quality.csv"]


@pytest.fixture(scope="module")
def archive():
    return simulate_archive(250, random_state=8)


@pytest.fixture(scope="module")
def reference(archive, tmp_path_factory):
    "An uninterrupted run."
    events, truth = archive
    return run("2D-PCA", events, tmp_path_factory.mktemp("ref") / "run", known_ids(truth), truth, **QUICK)


def again(archive, out, **kw):
    events, truth = archive
    return run("2D-PCA", events, out, known_ids(truth), truth, **(QUICK | kw))


def same_results(a, b):
    return [f for f in RESULTS if file_hash(a / f) != file_hash(b / f)] == []


def test_the_same_seed_gives_the_same_results(archive, reference, tmp_path):
    assert same_results(again(archive, tmp_path / "run"), reference)
    other = again(archive, tmp_path / "other", random_state=99)
    assert file_hash(other / "features.parquet") == file_hash(reference / "features.parquet")
    assert file_hash(other / "embedding.csv") != file_hash(reference / "embedding.csv")


def broken_step(name, monkeypatch, make):
    "Let a step of all runs in this test do something else; returns the real one."
    real = next(s for s in STEPS if s.name == name)
    monkeypatch.setattr(runs, "STEPS", [s if s is not real else replace(s, make=make) for s in STEPS])
    return real


@pytest.mark.parametrize("step", list(FILES))
def test_a_full_disk_in_any_step_leaves_no_run_and_the_next_call_finishes(step, archive, reference, tmp_path, monkeypatch):
    broken = []

    def full(job):
        real.make(job)
        broken.append(1)
        (job.folder / FILES[step][0]).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    real = broken_step(step, monkeypatch, full)
    out = tmp_path / "run"
    with pytest.raises(OSError, match=r"run: the disk is full \(No space left on device\); free space"):
        again(archive, out)
    assert broken and not out.exists()
    with pytest.raises(XRTError, match="not a finished run"):
        read_run(tmp_path / ".run.partial")
    monkeypatch.undo()
    assert same_results(again(archive, out), reference)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_killed_at_any_moment(archive, reference, tmp_path):
    "SIGKILL after 1, 2, 3 … finished steps; the next call takes up there and ends with the same results."
    events, truth = archive
    events.write(tmp_path / "events.parquet")
    truth.to_csv(tmp_path / "truth.csv")
    known_ids(truth).rename("class").to_csv(tmp_path / "known.csv")
    out, partial = tmp_path / "run", tmp_path / ".run.partial"
    command = [sys.executable, "-c", "from xrt_nb.cli import main; main()", "run", "2D-PCA", str(tmp_path / "events.parquet"), "--out", str(out),
               "--known", str(tmp_path / "known.csv"), "--truth", str(tmp_path / "truth.csv"), "-p", "15", "-iter", "250", "-ms", "8"]
    for wanted in (1, 3):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.time() + 120
        while child.poll() is None and len(read_manifest(partial).get("steps", {})) < wanted and time.time() < until:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if out.exists():
            break  # it was faster than we
        assert len(read_manifest(partial)["steps"]) >= wanted
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert same_results(out, reference) and not partial.exists()
    assert read_manifest(out)["steps"]["representations"].get("reused")


def test_changed_parameters_redo_only_what_follows(archive, reference, tmp_path):
    "What each parameter redoes is in the fingerprints of the steps; for one of them the run is made."
    events, truth = archive
    from_embedding = ["embedding", "clusters", "analogs", "report"]
    expect = {"eps": from_embedding[1:], "k": from_embedding[2:], "random_state": from_embedding, "pca_seed": ["features", *from_embedding],
              "n_energy": [f for f in FILES if f not in ("input", "known")]}

    def marks(**more):
        case = runs.case_of("2D-PCA")
        params = runs.parameters_of(case, QUICK | more)
        return runs.marks_of(runs.header_of(runs.with_parameters(case, params), events, params, known_ids(truth), truth, "a"), STEPS)
    before = marks()
    assert before == {s: e["fingerprint"] for s, e in read_manifest(reference)["steps"].items()}
    for name, value in {"eps": 3.0, "k": 5, "random_state": 3, "pca_seed": 12, "n_energy": 12}.items():
        assert [s for s, mark in marks(**{name: value}).items() if mark != before[s]] == expect[name], name
    fresh = shutil.copytree(reference, tmp_path / "r")
    again(archive, fresh, overwrite=True, k=5)
    assert [s for s, e in read_manifest(fresh)["steps"].items() if not e.get("reused")] == expect["k"]
    assert read_run(fresh).manifest["status"] == "complete"


def test_other_events_or_known_lists_are_not_mistaken(archive, tmp_path):
    events, truth = archive
    out = again(archive, tmp_path / "run")
    with pytest.raises(FileExistsError, match="the events are others"):
        run("2D-PCA", events[1:], out, known_ids(truth), truth.iloc[1:], **QUICK)
    with pytest.raises(FileExistsError, match="known transients are others"):
        run("2D-PCA", events, out, known_ids(truth).iloc[1:], truth, **QUICK)
    with pytest.raises(FileExistsError, match="case: 2D-PCA there, 3D-PCA now"):
        run("3D-PCA", events, out, known_ids(truth), truth, **QUICK)
    before = {f.name: file_hash(f) for f in out.iterdir() if f.is_file()}
    assert before == {f.name: file_hash(f) for f in out.iterdir() if f.is_file()}


def test_a_tampered_partial_step_is_not_used(archive, reference, tmp_path, monkeypatch):
    broken_step("embedding", monkeypatch, lambda job: (_ for _ in ()).throw(OSError("stop")))
    with pytest.raises(OSError, match="stop"):
        again(archive, tmp_path / "run")
    path = tmp_path / ".run.partial" / "features.parquet"
    frame = pd.read_parquet(path)
    frame.iloc[0, 0] += 1
    frame.to_parquet(path)
    monkeypatch.undo()
    assert same_results(again(archive, tmp_path / "run"), reference)


def test_two_at_once_are_refused(archive, tmp_path):
    with runs.Workspace(tmp_path / "run") as w:
        w.open({"fingerprint": "x", "input": {"sha256": "x"}})
        with pytest.raises(XRTError, match="another program is at work"):
            again(archive, tmp_path / "run")
    again(archive, tmp_path / "run")


def test_directories_that_are_no_runs_are_left_alone(archive, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not a finished run"):
            again(archive, tmp_path / "thesis", overwrite=overwrite)
        with pytest.raises(FileExistsError, match="is a file"):
            again(archive, tmp_path / "file", overwrite=overwrite)
    with pytest.raises(FileNotFoundError, match="make it first"):
        again(archive, tmp_path / "no" / "run")
    assert (tmp_path / "thesis" / "a.tex").read_text() == "x"


def test_the_report_stands_alone(reference):
    page = (reference / "report.html").read_text()
    assert not re.search(r"<script|<link|https?://|src=\"(?!data:)", page)
    for word in ("The embedding", "Clusters", "Best analogs", "How good is the search?", "Parameters", "early_exaggeration", "scikit-learn"):
        assert word in page
    assert page.count("data:image/png;base64,") >= 4 and page.count("<figcaption>") == page.count("<figure>")


def test_ids_from_files_cannot_break_the_report(tmp_path):
    rng = np.random.default_rng(0)
    evil = "<script>alert(1)</script>"
    table = EventTable.from_dict({(evil if k == 0 else f"{k}_1"): (np.sort(rng.uniform(0, 1e4, 30)), rng.uniform(500, 7000, 30)) for k in range(80)})
    out = run("2D-PCA", table, tmp_path / "run", {"flare": [evil, "3_1"]}, **QUICK)
    page = (out / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert read_run(out).manifest["parameters"]["features"]["summary_axis"] == "auto"


def test_manifests_hold_no_machine_paths(reference):
    text = (reference / "manifest.json").read_text()
    assert os.path.expanduser("~") not in text and str(reference.parent) not in text
    m = json.loads(text)
    assert m["parameters"]["embedding"]["random_state"] == 11 and m["versions"]["scikit-learn"] and m["input"]["n_sources"] == 250
    assert set(m["steps"]) == set(FILES)


def test_3d_case_and_an_archive_without_known_transients(archive, tmp_path):
    events, _ = archive
    out = run("3D-PCA", events, tmp_path / "run", **QUICK)
    r = read_run(out)
    assert r.features.shape[1] == 22 and len(r.analogs) == 0 and len(r.retrieval) == 0
    assert "None of the known transients is in this archive" in (out / "report.html").read_text()


def test_sources_without_a_picture_are_left_out_and_listed(tmp_path, archive):
    events, _ = archive
    few = EventTable.from_dict({"1_1": ([5.0], [900]), "1_2": ([1.0] * 9, [900] * 9), "1_3": (np.arange(9.0), [90] * 9)})
    table = EventTable.from_frame(pd.concat([events.to_frame(), few.to_frame()]))
    out = run("2D-PCA", table, tmp_path / "run", **QUICK)
    q = pd.read_csv(out / "quality.csv", dtype={"obsreg_id": str}).set_index("obsreg_id")
    assert not q.used[["1_1", "1_2", "1_3"]].any() and q.used.sum() == 250 == len(read_run(out).clusters)
    with pytest.raises(EventDataError, match="none of the 3 detections has a usable map"):
        run("2D-PCA", few, tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_no_case_is_the_default_case(archive, tmp_path):
    "Named, left out, or with `out` as keyword: the same run; the map is drawn from what the search compares."
    events, truth = archive
    named = run("shape-metric", events, tmp_path / "a", known_ids(truth), truth, **QUICK)
    r, other = read_run(named), read_run(run(events, out=tmp_path / "b", known=known_ids(truth), truth=truth, **QUICK))
    assert r.case == other.case == "shape-metric" and same_results(named, other.path)
    assert list(r.spaces) == ["search", "features", "summary"] and r.features.shape == (250, 30)
    placed = r.place(events[:30], k=3).placement.set_index("obsreg_id")
    own = r.embedding.set_index("obsreg_id").loc[placed.index]
    apart = np.linalg.norm(placed[["tsne1", "tsne2"]].to_numpy() - own.to_numpy(), axis=1)
    assert np.median(apart) < 0.1 * np.ptp(r.embedding.tsne1)
    with pytest.raises(TypeError, match="needs the run directory"): run(events)
    with pytest.raises(TypeError, match="needs the run directory"): run("2D-PCA", events)
    with pytest.raises(ValueError, match="`n_time` is for the cases 2D-PCA"): run(events, tmp_path / "c", n_time=12)


def test_the_default_case_needs_neither_energies_nor_good_times(archive, tmp_path):
    events, truth = archive
    bare = EventTable(events.ids, events.offsets, events.time)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = read_run(run(bare, tmp_path / "r", known=known_ids(truth), truth=truth, **QUICK))
        alone = r.place(bare[:5], k=4).analogs
        full = r.place(events[:5], k=4).analogs  # energies of the new ones aren't asked for
        assert "<figure>" in r.place(bare[:1], k=4).report()
    assert len(r.clusters) == 250 and not [c for c in r.search_features if c.startswith("spec")]
    assert alone.equals(full) and alone.chance.between(0, 1).all()
    with pytest.raises(EventDataError, match="none of the 250 detections has a usable map"):
        run("2D-PCA", bare, tmp_path / "no")


def test_few_events_are_left_out_by_name_of_the_cause(archive, tmp_path):
    events, _ = archive
    few = EventTable.from_dict({"1_1": ([5.0], [900]), "1_2": ([1.0] * 9, [900] * 9), "1_3": ([1.0, 5.0], [900, 950])})
    table = EventTable.from_frame(pd.concat([events.to_frame(), few.to_frame()]))
    r = read_run(run(table, tmp_path / "r", min_counts=2, **QUICK))
    assert r.quality.used[["1_1", "1_2", "1_3"]].tolist() == [False, False, True] and len(r.clusters) == 251
    for i, why in (("1_1", "it has 1 events, the run wants 2"), ("1_2", "all its times are the same")):
        with pytest.raises(EventDataError, match=why): r.place(few[[i]])


def test_demo_keeps_its_input(tmp_path):
    out = runs.demo(tmp_path / "demo", n_sources=120, **QUICK)
    assert len(read_events(out / "input" / "events.parquet")) == 120
    frame = pd.read_csv(out / "input" / "truth.csv", dtype={"obsreg_id": str}).set_index("obsreg_id")
    known = pd.read_csv(out / "input" / "known.csv")
    assert frame.known.sum() == len(known)


@pytest.fixture(scope="module")
def learnt(archive, tmp_path_factory):
    "A run of 2D-AE that trained its own network, for an epoch."
    events, truth = archive
    return run("2D-AE", events, tmp_path_factory.mktemp("ae") / "run", known_ids(truth), truth, epochs=1, **QUICK)


def test_a_learnt_run_keeps_its_encoder_and_scores(archive, learnt, tmp_path):
    from xrt_nb.published import load_encoder
    ids, maps = runs.load_representations(learnt / "representations.npz")
    r = read_run(learnt)
    assert np.array_equal(load_encoder(learnt / "encoder.npz").transform(maps), r.features.loc[ids].to_numpy(np.float32))
    scores, report = pd.read_csv(learnt / "anomalies.csv", dtype={"obsreg_id": str}), (learnt / "report.html").read_text()
    judged, left = scores[~scores.extrapolated], int(scores.extrapolated.sum())
    assert scores.z[scores.extrapolated].isna().all() and (not left or f"{left} of {len(scores)} detections have no score" in report)
    assert sorted(scores.obsreg_id) == sorted(ids) and judged.z.is_monotonic_decreasing and judged.p.between(0, 1).all() and len(judged) > 100
    assert "autoencoder trained on this archive" in report and r.manifest["versions"]["keras"]
    assert not [f for f in learnt.iterdir() if f.name.startswith("training-")], "the checkpoint goes when the run is whole"


def test_a_given_encoder_is_applied_and_not_trained(archive, learnt, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "learn_features", lambda *a, **k: pytest.fail("trained"))
    events, truth = archive
    done = run("2D-AE", events, tmp_path / "given", known_ids(truth), encoder=learnt / "encoder.npz", **QUICK)
    assert read_run(done).features.equals(read_run(learnt).features)
    said = read_run(done).manifest["parameters"]["features"]["encoder"]
    assert said == {"file": "encoder.npz", "sha256": file_hash(learnt / "encoder.npz")}
    assert str(tmp_path) not in (done / "manifest.json").read_text()
    with pytest.raises(XRTError): run("2D-AE", events, tmp_path / "no", known_ids(truth), encoder=learnt / "report.html", **QUICK)
    with pytest.raises(ValueError, match="has 12 latents"): run("2D-AE", events, tmp_path / "no", known_ids(truth), encoder=learnt / "encoder.npz", n_components=5, **QUICK)
    with pytest.raises(ValueError, match="takes representations of shape 24 × 16"): run("3D-AE", events, tmp_path / "no", known_ids(truth), encoder=learnt / "encoder.npz", **QUICK)


def test_the_published_encoder_runs(archive, shared, tmp_path):
    events, truth = archive
    done = run("2D-AE", events, tmp_path / "published", known_ids(truth), encoder=shared / "data" / "official" / "encoder_et.h5", **QUICK)
    assert read_run(done).features.shape[1] == 12 and "encoder_et.h5" in (done / "report.html").read_text()


def test_an_interrupted_training_goes_on(archive, tmp_path, monkeypatch):
    events, truth = archive
    epochs = []

    def stop(step, i, n):
        if step == "features" and i: epochs.append(i)
        if step == "features" and i == 1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run("3D-AE", events, tmp_path / "run", known_ids(truth), epochs=2, progress=stop, **QUICK)
    run("3D-AE", events, tmp_path / "run", known_ids(truth), epochs=2, progress=stop, **QUICK)
    assert epochs == [1, 2] and len(pd.read_csv(tmp_path / "run" / "training.csv")) == 2


# --- other people's folders ---------------------------------------------------------------------------------------


def small(tmp_path, **kw):
    "The smallest run there is."
    events, truth = simulate_archive(60, random_state=5)
    return run("2D-PCA", events, tmp_path / "r", known_ids(truth), **(dict(perplexity=8, max_iter=250, min_samples=5) | kw))


def treasure(folder):
    "A folder with something of somebody's in it."
    folder.mkdir()
    (folder / "thesis.tex").write_text("years")
    return folder


def test_links_and_strangers_folders_in_the_way_are_left_alone(tmp_path):
    mine = treasure(tmp_path / "mine")
    (tmp_path / ".r.partial").symlink_to(mine)
    with pytest.raises(XRTError, match="symbolic link"): small(tmp_path)
    (tmp_path / ".r.partial").unlink()
    treasure(tmp_path / ".r.partial")
    with pytest.raises(XRTError, match="is in the way"): small(tmp_path)
    (tmp_path / ".r.partial").rename(tmp_path / ".r.replaced")  # an old leftover of this name blocks nothing
    (tmp_path / "r").symlink_to(mine)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError): small(tmp_path, overwrite=overwrite)
    assert (tmp_path / "r").is_symlink() and [p.name for p in mine.iterdir()] == ["thesis.tex"]
    (tmp_path / "r").unlink()
    assert small(tmp_path).is_dir() and (tmp_path / ".r.replaced" / "thesis.tex").read_text() == "years"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".r.replaced", "mine", "r"]


def test_placements_are_not_written_over_anything_else(tmp_path):
    events, _ = simulate_archive(60, random_state=5)
    placed = read_run(small(tmp_path)).place(events[:2], k=3)
    mine = treasure(tmp_path / "mine")
    (tmp_path / "link").symlink_to(mine)
    for overwrite in (False, True):
        for out in (mine, tmp_path / "link"):
            with pytest.raises(FileExistsError): placed.write(out, overwrite)
    with pytest.raises(FileNotFoundError, match="make it first"): placed.write(tmp_path / "no" / "p")
    with pytest.raises(FileExistsError, match="overwrite=True"): placed.write(placed.write(tmp_path / "p"))
    placed.write(tmp_path / "p", overwrite=True)
    assert [p.name for p in mine.iterdir()] == ["thesis.tex"] and sorted(p.name for p in (tmp_path / "p").iterdir()) == ["analogs.csv", "placement.csv", "report.html"]


@pytest.mark.parametrize("what", ["one detection", "one usable", "too few for the components", "perplexity"])
def test_data_that_cannot_be_run_leave_nothing_hidden(what, tmp_path):
    events, truth = simulate_archive(60, random_state=5)
    tables = {"one detection": events[:1], "one usable": EventTable.from_dict({"1_1": (np.arange(9.0) ** 2, np.arange(9.0) * 100 + 600), "1_2": ([1.0], [900])}),
              "too few for the components": events[:7], "perplexity": events[:40]}
    say = {"one detection": "place it in a run that you have", "one usable": "place it in a run that you have", "too few for the components": "allow at most 6", "perplexity": "perplexity"}
    with pytest.raises(ValueError, match=say[what]): run("2D-PCA", tables[what], tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


# --- damaged and hostile runs -------------------------------------------------------------------------------------


def rewritten(folder, name, data):
    "Put other bytes into a file of a run and a right hash into its manifest: what a hostile sender would do."
    (folder / name).write_bytes(data)
    m = json.loads((folder / "manifest.json").read_text())
    for step in m["steps"].values():
        if name in step["files"]: step["files"][name] = file_hash(folder / name)
    (folder / "manifest.json").write_text(json.dumps(m))


def look_at_everything(folder):
    "Open a run and read every part of it."
    r = read_run(folder)
    parts = (r.features, r.properties, r.clusters, r.embedding, r.analogs, r.class_analogs, r.retrieval, r.quality, r.known, r.events, r.spaces)
    return r, parts


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return small(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("manifest", ["", "[]", "{", "null", '{"status": "complete"}', '{"status": "complete", "steps": []}', '{"status": "complete", "steps": {"a": {"files": ["x"]}}}',
                                      '{"status": "complete", "steps": {"a": {"files": {"../../secret": "0"}}}}', '{"status": "complete", "steps": {"a": {"files": {"/etc/hostname": "0"}}}}',
                                      '{"status": "complete", "steps": {"a": null}}', "[" * 100_000, "\xff\xfe"])
def test_ill_manifests(manifest, hostile, tmp_path):
    folder = shutil.copytree(hostile, tmp_path / "r")
    (folder / "manifest.json").write_bytes(manifest.encode("latin-1"))
    with pytest.raises(XRTError): read_run(folder)
    with pytest.raises(FileExistsError, match="not a finished run|another run"): small(tmp_path, eps=9.0)


@pytest.mark.parametrize("name, data", [("clusters.csv", b"tsne1,tsne2,obsreg_id,cluster\n1,2,a,red\n"), ("clusters.csv", b"tsne1,tsne2,obsreg_id,cluster\n1,nan,a,1\n"),
                                        ("clusters.csv", b""), ("clusters.csv", b"\xff\xfe\x00"), ("features.parquet", b"PAR1"), ("analogs.csv", b"a,b\n1,2\n"),
                                        ("fitted.npz", b"PK"), ("input/events.parquet", b"PAR1PAR1"), ("input/known.csv", b"obsreg_id\n1\n"), ("quality.csv", b"a\n1\n")])
def test_ill_parts_of_a_run_end_in_a_sentence(name, data, hostile, tmp_path):
    folder = shutil.copytree(hostile, tmp_path / "r")
    rewritten(folder, name, data)
    with pytest.raises(XRTError) as err: look_at_everything(folder)
    assert name.split("/")[-1] in str(err.value)


def test_mutated_parts_of_a_run(hostile, tmp_path):
    "Any part broken in any way, with a right hash: read, or refused in our words."
    from support.fuzzing import mutants
    folder = shutil.copytree(hostile, tmp_path / "r")
    for name in ("clusters.csv", "analogs.csv", "quality.csv", "manifest.json", "features.parquet"):
        good = (hostile / name).read_bytes()
        for _, broken in mutants(good, 30, 11):
            if name == "manifest.json": (folder / name).write_bytes(broken)
            else: rewritten(folder, name, broken)
            try: look_at_everything(folder)
            except (XRTError, FileNotFoundError): pass
        shutil.copytree(hostile, folder, dirs_exist_ok=True)


# --- text that draws ----------------------------------------------------------------------------------------------


def test_ids_and_classes_that_would_draw_or_command(tmp_path, monkeypatch):
    "Mathematics, escape sequences and long names are drawn and printed as they are; every class has its figure."
    monkeypatch.setattr(runs, "analog_figures", runs.analog_figures.func)
    events, truth = simulate_archive(60, random_state=5)
    evil = [r"$\frac$", "a$b^$c", "x" * 200, "_hidden", "=cmd|' /C calc'!A0", "{{ 7*7 }}"]
    ids = [*evil, *events.ids[len(evil):]]
    table = EventTable(ids, events.offsets, events.time, events.energy, events.gti, events.gti_offsets)
    known = {r"$\frac{1}$": evil[:1], "_class\x07": evil[1:3], "c" * 5000: evil[3:]}
    out = run("2D-PCA", table, tmp_path / "r", known, perplexity=8, max_iter=250, min_samples=5)
    r = read_run(out)
    assert r.known.to_dict() == {i: c for c, v in known.items() for i in v}
    assert (out / "report.html").read_text().count("<figure>") == 2 + 3 * 3
    page = r.place(table[[evil[0], evil[-1]]], k=2, exclude_same_source=False).report()
    assert "{{ 7*7 }}" in page and page.count("<figure>") == 3


# --- kills --------------------------------------------------------------------------------------------------------


def one_call(folder):
    "What the killed process does: a small run of the archive in a folder; no analogs are drawn, so that all steps are hit."
    events, truth = simulate_archive(60, random_state=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "analog_figures", lambda *_: [])
        run("2D-PCA", events, folder / "r", known_ids(truth), truth, perplexity=8, max_iter=250, min_samples=5)


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_change_nothing(tmp_path, n=100):
    "However often a run is killed, the next call takes it over; in the end the results are those of one that was left alone."
    import multiprocessing
    context, rng = multiprocessing.get_context("forkserver"), np.random.default_rng(3)
    context.set_forkserver_preload(["xrt_nb.runs", "xrt_nb.simulation"])
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    start = time.monotonic()
    one_call(alone)
    usual, done = time.monotonic() - start, 0
    while done < n:
        child = context.Process(target=one_call, args=(killed,))
        child.start()
        child.join(float(rng.uniform(0, usual)))
        done += child.is_alive()
        child.kill()
        child.join()
        if (killed / "r").exists():  # it was faster than we: begin anew
            read_run(killed / "r")
            shutil.rmtree(killed / "r")
    one_call(killed)
    assert same_results(killed / "r", alone / "r")
    assert [p.name for p in killed.iterdir()] == ["r"] and sorted(p.name for p in (killed / "r").iterdir()) == sorted(p.name for p in (alone / "r").iterdir())
