"""Broken files of numbers (.npz) and their manifests (.json): read as they were, or refused by name; never a crash or other values."""
import json
import os
import shutil
from importlib import resources

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.support.fuzzing import judge, mutants
from xrt_nb.data import EventDataError, XRTError
from xrt_nb.training import read_arrays
from xrt_nb.runs import load_representations, save_representations
from xrt_nb.published import ARCHITECTURE, Encoder, Layer, EPSILON, SLOPE

READERS = "tests.support.array_readers:"
MORE = int(os.environ.get("XRT_NB_FUZZ", 0))


def maps(path):
    "Maps and their ids."
    rng = np.random.default_rng(1)
    save_representations(path, np.array([f"{k}_1" for k in range(6)]), rng.poisson(1.0, (6, 24, 16)).astype(float))


def cubes(path):
    "Sparse cubes."
    rng = np.random.default_rng(2)
    save_representations(path, np.array([f"{k}_1" for k in range(6)]), csr_array(rng.poisson(0.05, (6, 600)).astype(float)))


def encoder(path):
    "The published architecture with random numbers."
    rng, layers = np.random.default_rng(3), []
    for i, (kind, shape, stride) in enumerate(ARCHITECTURE):
        draw = []
        if kind in ("conv", "dense"): draw = [rng.normal(0, 0.3, shape), rng.normal(0, 0.1, shape[-1:])]
        if kind == "norm": draw = [*rng.normal(0, 1, (3, *shape)), rng.uniform(0.5, 2, shape)]
        slope = SLOPE if kind in ("conv", "dense") else 1.0
        layers.append(Layer(kind, f"{kind}_{i}", tuple(a.astype(np.float32) for a in draw), slope, stride, EPSILON))
    Encoder(layers, (24, 16, 1)).save(path)


def metric(path):
    "The metric that the package ships."
    for ending in (".npz", ".json"):
        shutil.copy(resources.files("xrt_nb") / "weights" / f"metric{ending}", path.with_suffix(ending))


CASES = {"maps": (maps, "arrays"), "pictures": (maps, "pictures"), "cubes": (cubes, "pictures"), "encoder": (encoder, "arrays")}


@pytest.mark.parametrize("n", [pytest.param(60, id="some"), pytest.param(300 + MORE, id="many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_broken_arrays(case, n, tmp_path):
    make, reader = CASES[case]
    make(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    # half of them in the directory at the end, where sizes and names stand
    broken = [*mutants(whole, n // 2, seed=5), *mutants(whole, n // 2, seed=6, start=max(len(whole) - 1200, 0))]
    report = judge(READERS + reader, broken, suffix=".npz", whole=whole)
    assert report.bad == [] and len(report.rows) == n and report.counts["error"] > n / 3


def with_manifest(make, reader, beside, tmp_path, n, what):
    "Break one of two files that belong together; the reader is run on a folder of pairs in this process."
    from tests.support import array_readers
    make(tmp_path / "whole.npz")
    good = getattr(array_readers, reader)(tmp_path / "whole.npz")
    target = tmp_path / beside if what == "manifest" else tmp_path / "whole.npz"
    data, outcomes = target.read_bytes(), []
    for kind, broken in mutants(data, n, seed=7):
        target.write_bytes(broken)
        try: outcomes.append("same" if getattr(array_readers, reader)(tmp_path / "whole.npz") == good else f"changed: {kind}")
        except (XRTError, FileNotFoundError) as err:
            assert "whole" in str(err) and len(str(err)) < 2000, err
            outcomes.append("error")
    target.write_bytes(data)
    return outcomes


@pytest.mark.parametrize("n", [pytest.param(60, id="some"), pytest.param(300 + MORE, id="many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["arrays", "manifest"])
@pytest.mark.parametrize("which", ["encoder", "metric"])
def test_broken_networks(which, what, n, tmp_path):
    make, beside = {"encoder": (encoder, "whole.npz.json"), "metric": (metric, "whole.json")}[which]
    outcomes = with_manifest(make, which, beside, tmp_path, n, what)
    assert set(outcomes) <= {"same", "error"} and outcomes.count("error") > n / 4, outcomes


@pytest.mark.parametrize("change, said", [
    (dict(indices=np.array([0, 10**6], dtype=np.int32)), "complete file of maps or cubes"),
    (dict(indptr=np.array([0, 5], dtype=np.int32)), "complete file of maps or cubes"),
    (dict(indices=np.array([-1, 1], dtype=np.int32)), "complete file of maps or cubes"),
    (dict(data=np.array([np.nan, 1.0])), "no numbers"),
    (dict(ids=np.array(["a", "b"])), "ids that don't fit")])
def test_indices_of_cubes_are_proven_in_range(change, said, tmp_path):
    good = dict(ids=np.array(["a"]), data=np.array([1.0, 2.0]), indices=np.array([0, 1], dtype=np.int32),
                indptr=np.array([0, 2], dtype=np.int32), shape=np.array([1, 6]))
    np.savez(tmp_path / "c.npz", **good)
    assert load_representations(tmp_path / "c.npz")[1].toarray().tolist() == [[1, 2, 0, 0, 0, 0]]
    np.savez(tmp_path / "c.npz", **good | change)
    with pytest.raises(EventDataError, match=said): load_representations(tmp_path / "c.npz")


def test_arrays_are_read_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)), "f": np.asfortranarray(rng.normal(size=(3, 4))), "i": np.arange(5, dtype=">i2"),
              "s": np.array(["x", "long"]), "empty": np.empty((0, 3)), "scalar": np.array(3.0), "b": np.array([True])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "z.npz", **arrays)
        found = read_arrays(tmp_path / "z.npz")
        assert list(found) == list(arrays)
        for k, a in arrays.items():
            assert found[k].dtype == a.dtype and found[k].shape == a.shape and np.array_equal(found[k], a) and found[k].flags.writeable
    np.savez(tmp_path / "o.npz", o=np.array([{}], dtype=object))
    with pytest.raises(EventDataError, match="objects, which are never read"): read_arrays(tmp_path / "o.npz")
    (tmp_path / "j.npz").write_text(json.dumps([1]))
    with pytest.raises(EventDataError, match="not a complete .npz file"): read_arrays(tmp_path / "j.npz")
