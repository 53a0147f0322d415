"""Runs that die, disks that fill, directories that exist: a run is whole or absent, and what is used again is the same."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from xrt_nb import pipeline
from xrt_nb.data import EventDataError, EventTable, XRTError, read_events
from xrt_nb.pipeline import FILES, file_hash, read_manifest, read_run, run
from xrt_nb.simulation import known_ids, simulate_archive

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


@pytest.mark.parametrize("step", list(FILES))
def test_a_full_disk_in_any_step_leaves_no_run_and_the_next_call_finishes(step, archive, reference, tmp_path, monkeypatch):
    name = {"input": "_keep_events", "known": "_keep_known", "representations": "_represent", "features": "_features", "embedding": "_embed", "clusters": "_cluster", "analogs": "_analogs", "report": "_report"}[step]
    real, broken = getattr(pipeline, name), []

    def full(d, *args, **kw):
        real(d, *args, **kw)
        broken.append(1)
        (d / FILES[step][0]).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(pipeline, name, full)
    out = tmp_path / "run"
    with pytest.raises(OSError, match="No space left"):
        again(archive, out)
    assert broken and not out.exists()
    with pytest.raises(XRTError, match="not a finished run"):
        read_run(tmp_path / ".run.partial")
    monkeypatch.setattr(pipeline, name, real)
    assert same_results(again(archive, out), reference)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


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
    expect = {"eps": ["clusters", "analogs", "report"], "k": ["analogs", "report"], "random_state": ["embedding", "clusters", "analogs", "report"],
              "n_energy": [f for f in FILES if f not in ("input", "known")]}
    for name, value in {"eps": 3.0, "k": 5, "random_state": 3, "n_energy": 12}.items():
        fresh = shutil.copytree(reference, tmp_path / name)
        again(archive, fresh, overwrite=True, **{name: value})
        done = [s for s, e in read_manifest(fresh)["steps"].items() if not e.get("reused")]
        assert done == expect[name], name
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
    real = pipeline._embed
    monkeypatch.setattr(pipeline, "_embed", lambda *a, **k: (_ for _ in ()).throw(OSError("stop")))
    with pytest.raises(OSError, match="stop"):
        again(archive, tmp_path / "run")
    path = tmp_path / ".run.partial" / "features.parquet"
    frame = pd.read_parquet(path)
    frame.iloc[0, 0] += 1
    frame.to_parquet(path)
    monkeypatch.setattr(pipeline, "_embed", real)
    assert same_results(again(archive, tmp_path / "run"), reference)


def test_two_at_once_are_refused(archive, tmp_path):
    with pipeline.Workspace(tmp_path / "run") as w:
        w.open({"fingerprint": "x", "input": {"sha256": "x"}})
        with pytest.raises(XRTError, match="another process is writing"):
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
    for word in ("The map", "Clusters", "Best analogs", "How good is the search?", "Parameters", "early_exaggeration", "scikit-learn"):
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
    with pytest.raises(EventDataError, match="none of the 3 sources has a usable map"):
        run("2D-PCA", few, tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_demo_keeps_its_input(tmp_path):
    out = pipeline.demo(tmp_path / "demo", n_sources=120, **QUICK)
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
    ids, maps = pipeline.load_pictures(learnt / "representations.npz")
    r = read_run(learnt)
    assert np.array_equal(load_encoder(learnt / "encoder.npz").transform(maps), r.features.loc[ids].to_numpy(np.float32))
    scores, report = pd.read_csv(learnt / "anomalies.csv", dtype={"obsreg_id": str}), (learnt / "report.html").read_text()
    assert sorted(scores.obsreg_id) == sorted(ids) and scores.z.is_monotonic_decreasing and scores.p.between(0, 1).all()
    assert "autoencoder trained on this archive" in report and r.manifest["versions"]["keras"]
    assert not [f for f in learnt.iterdir() if f.name.startswith("training-")], "the checkpoint goes when the run is whole"


def test_a_given_encoder_is_applied_and_not_trained(archive, learnt, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "learn_features", lambda *a, **k: pytest.fail("trained"))
    events, truth = archive
    done = run("2D-AE", events, tmp_path / "given", known_ids(truth), encoder=learnt / "encoder.npz", **QUICK)
    assert read_run(done).features.equals(read_run(learnt).features)
    said = read_run(done).manifest["parameters"]["features"]["encoder"]
    assert said == {"file": "encoder.npz", "sha256": file_hash(learnt / "encoder.npz")}
    assert str(tmp_path) not in (done / "manifest.json").read_text()
    with pytest.raises(XRTError): run("2D-AE", events, tmp_path / "no", known_ids(truth), encoder=learnt / "report.html", **QUICK)
    with pytest.raises(ValueError, match="has 12 latents"): run("2D-AE", events, tmp_path / "no", known_ids(truth), encoder=learnt / "encoder.npz", n_components=5, **QUICK)
    with pytest.raises(ValueError, match="takes pictures of shape 24 × 16"): run("3D-AE", events, tmp_path / "no", known_ids(truth), encoder=learnt / "encoder.npz", **QUICK)


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
