"""Hundreds of broken files, in processes of their own that are watched: a sample in every run, all of them in the slow one."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz_fits
import pytest

from tests.support.fuzzing import judge, mutants

HERE = Path(__file__).parent
KINDS = {
    "cut short",
    "wrong TFORM",
    "header card",
    "bad times",
    "bad GTI",
    "missing GTI",
    "zero rows",
    "not FITS",
    "gz bomb",
    "flipped card",
    "flipped bit (checksum)",
}


def by_hand(*options):
    "The outcomes of the mutants that are made with an eye on the format."
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, HERE / "fuzz_fits.py", "--json", "--seed", "1", "--n", "400", *options],
        capture_output=True,
        text=True,
        timeout=600,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(fuzzed):
    "Good or an error of ours; no hang, no flood; damage is never silent where there is a checksum."
    allowed = ("same", "warned", "error", "different, as the header truly says")
    assert [r for r in fuzzed["results"] if r[1] not in allowed] == []
    assert max(r[2] for r in fuzzed["results"]) < 5 and fuzzed["peak"] < 1000
    assert [r for r in fuzzed["results"] if r[0] == "flipped bit (checksum)" and r[1] == "same"] == []


def test_a_sample_by_hand():
    fuzzed = by_hand("--every", "5")
    assert len(fuzzed["results"]) >= 60
    check(fuzzed)


@pytest.mark.slow
def test_all_by_hand():
    fuzzed = by_hand()
    kinds = collections.Counter(kind for kind, _, _ in fuzzed["results"])
    assert sum(kinds.values()) >= 300 and KINDS <= kinds.keys()
    check(fuzzed)


FILES = {
    "one": (fuzz_fits.base_file(True), "read_list", ".fits"),
    "many": (fuzz_fits.many_tables(), "read_list", ".fits"),
    "rmf": (fuzz_fits.response(), "read_rmf", ".rmf"),
}


def by_chance(name, n, seed):
    data, reader, suffix = FILES[name]
    return judge(
        f"{HERE / 'fuzz_fits.py'}:{reader}", mutants(data, n, seed, start=2880), suffix=suffix, whole=data
    )


@pytest.mark.parametrize("name", FILES)
def test_a_sample_by_chance(name):
    report = by_chance(name, 63, 1)
    assert report.bad == [] and report.peak < 1000
    assert report.counts["error"] and report.counts["warned"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_many_by_chance(name):
    report = by_chance(name, 600, 2)
    assert len(report.rows) == 600 and report.bad == [] and report.peak < 1000


def test_what_is_no_response_is_refused():
    area = fuzz_fits.response("SPECRESP")
    files = [("area", area), ("events", fuzz_fits.base_file(True)), *mutants(area, 30, 3)]
    report = judge(f"{HERE / 'fuzz_fits.py'}:read_rmf", files, suffix=".rmf")
    assert set(report.counts) == {"error"}
