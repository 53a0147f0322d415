"""The published cases in version 0.1.0 and in this working tree: features, embedding, clusters and analogs, bit for bit.

    python benchmarks/compare_versions.py [--sources 600] [--cases 2D-PCA,3D-PCA,2D-AE] [--old acb99b7]

The old version is exported from the repository's history into a temporary folder. Each version simulates the same
archive and runs each case on it, in a process of its own. Every column that both versions write is then compared, name
by name. What differs on purpose is listed with its reason; any other difference ends the program with status 1.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
OLD = "acb99b7"  # version 0.1.0
QUICK = {"perplexity": 20.0, "max_iter": 300, "min_samples": 10}
EPOCHS = 2
TABLES = ["quality.csv", "features.parquet", "properties.parquet", "embedding.csv", "clusters.csv", "cluster_table.csv",
          "analogs.csv", "class_analogs.csv", "retrieval.csv"]
LATER = ["search.parquet"]  # tables that version 0.1.0 doesn't write; compared where both have them
ALL_SPACES = ("features", "summary", "search")

ONE_SCALE = ("means and scales of the summary features are scikit-learn's everywhere (0.1.0 had three ways), so distances "
             "change by the same factor for all pairs, sqrt(n / (n - 1)); order and neighbors stay")
TURNED = "closeness is the share of random pairs that lie farther apart, so 1 is nearest; in 0.1.0 near was 0"
ON_PURPOSE = {  # (table, column, space or ""): reason; only for a comparison with 0.1.0
    ("analogs.csv", "distance", "summary"): ONE_SCALE,
    ("analogs.csv", "closeness", "summary"): TURNED,
    ("analogs.csv", "closeness", "features"): TURNED,
}

MAKE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from xrt_nb.simulation import known_ids, simulate_archive
try:
    from xrt_nb.runs import run
except ImportError:
    from xrt_nb.pipeline import run
folder, sources, cases, given, epochs = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","), json.loads(sys.argv[4]), int(sys.argv[5])
events, truth = simulate_archive(sources, 11)
np.savez(folder / "events.npz", ids=np.asarray(events.ids, dtype=str), offsets=events.offsets, time=events.time,
         energy=events.energy, gti=events.gti, gti_offsets=events.gti_offsets)
truth.to_csv(folder / "truth.csv")
for case in cases:
    run(case, events, folder / case, known_ids(truth), truth, **given, **({"epochs": epochs} if case.endswith("AE") else {}))
"""


def export(commit: str, folder: Path) -> Path:  # a folder to import from
    "The library of a commit, as it was."
    packed = subprocess.run(["git", "archive", commit, "xrt_nb"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def make(library: Path, folder: Path, sources: int, cases: list) -> Path:  # a folder with one run for each case
    "Simulate and run in a process that imports `library`."
    folder.mkdir()
    env = os.environ | {"PYTHONPATH": str(library), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    words = [sys.executable, "-c", MAKE, folder, sources, ",".join(cases), json.dumps(QUICK), EPOCHS]
    subprocess.run(list(map(str, words)), env=env, cwd=folder, check=True)
    return folder


def read(path: Path) -> pd.DataFrame:
    "A table of a run, numbers exactly as they were written."
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    texts = {c: str for c in ("obsreg_id", "query", "known_class") if c in pd.read_csv(path, nrows=0)}
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])


def same(a, b) -> bool:
    "Whether two columns hold the same, bit for bit; missing is the same as missing."
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind == b.dtype.kind == "f":
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(((a == b) | (pd.isna(a) & pd.isna(b))).all())


def parts_of(frame: pd.DataFrame) -> dict:  # space -> rows; "" where a table knows no spaces
    "The rows of each space, for tables that have several."
    if "space" in frame:
        return {s: frame[frame["space"] == s].reset_index(drop=True) for s in ALL_SPACES if (frame["space"] == s).any()}
    if "ranking" in frame:
        return {r: f.reset_index(drop=True) for r, f in frame.groupby("ranking", sort=False)}
    return {"": frame}


def compare_tables(name: str, old: pd.DataFrame, new: pd.DataFrame):  # yields (column, space, same?)
    "Each column that the older version has, in each space it knows."
    newer = parts_of(new)
    for space, rows in parts_of(old).items():
        for column in rows:
            there = space in newer and column in newer[space]
            yield column, space, bool(there and same(rows[column], newer[space][column]))
        if not old.index.equals(pd.RangeIndex(len(old))):
            yield "(index)", space, bool(old.index.equals(new.index))


def compare_files(old: Path, new: Path) -> bool:
    "Arrays of two .npz files, or bytes of other files."
    if old.suffix != ".npz":
        return old.read_bytes() == new.read_bytes()
    with np.load(old) as a, np.load(new) as b:
        return sorted(a) == sorted(b) and all(same(a[k], b[k]) for k in a)


def report(old: Path, new: Path, cases: list, purpose: dict) -> int:  # differences that nobody intended
    "Print what was compared and how it came out."
    wrong, reasons = 0, {}
    for f in ("events.npz", "truth.csv"):
        good = compare_files(old / f, new / f)
        wrong += not good
        print(f"archive         {f:22s} {'the same' if good else 'DIFFERS'}")
    for case in cases:
        pictures = "representations.npz"
        if (old / case / pictures).exists():
            good = compare_files(old / case / pictures, new / case / pictures)
            wrong += not good
            print(f"{case:15s} {pictures:22s} {'the same' if good else 'DIFFERS'}")
        for table in TABLES + LATER:
            if not (old / case / table).exists():
                continue
            found = list(compare_tables(table, read(old / case / table), read(new / case / table)))
            off = [(c, s) for c, s, good in found if not good]
            meant = [x for x in off if (table, *x) in purpose]
            for c, s in meant:
                reasons.setdefault(purpose[table, c, s], []).append(f"{case} {table} {c} ({s})")
            bad = [x for x in off if x not in meant]
            wrong += len(bad)
            words = [f"{len(found) - len(off)} of {len(found)} columns the same"]
            words += [f"{len(meant)} differ on purpose"] * bool(meant)
            words += ["DIFFERS: " + ", ".join(f"{c} ({s})" if s else c for c, s in bad)] * bool(bad)
            print(f"{case:15s} {table:22s} {'; '.join(words)}")
    for reason, where in reasons.items():
        print(f"\non purpose: {reason}\n    " + "\n    ".join(where))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=600)
    parser.add_argument("--cases", default="2D-PCA,3D-PCA,2D-AE,3D-AE")
    parser.add_argument("--old", default=OLD, help="a commit; default version 0.1.0")
    parser.add_argument("--keep", type=Path, help="an empty folder to keep the runs in; the old ones there are used again")
    given = parser.parse_args()
    cases = given.cases.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        old, new = folder / "old", folder / "new"
        if not old.exists():
            make(export(given.old, folder / "library"), old, given.sources, cases)
        if new.exists():
            sys.exit(f"{new} exists; take it away first")
        make(ROOT, new, given.sources, cases)
        wrong = report(old, new, cases, ON_PURPOSE if given.old == OLD else {})
    print(f"\n{'all results are the same' if not wrong else f'{wrong} differences that were not intended'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
