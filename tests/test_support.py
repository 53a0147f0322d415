"""The watcher of the fuzzers can tell every kind of fault: it is shown one of each."""
import os
import time
from pathlib import Path

import numpy as np

from tests.support.fuzzing import judge, mutants
from xrt_nb.data import EventDataError


def misbehave(path):
    "Does what the file says."
    word = Path(path).read_text()
    if word == "good": return "good"
    if word == "own": raise EventDataError(f"{path}: is not good; write it again")
    if word == "nameless": raise EventDataError("something is not good")
    if word == "foreign": raise KeyError(word)
    if word == "crash": os.abort()
    if word == "flood": return np.ones(2**28).sum()
    if word == "slow":
        stop = time.process_time() + 1.5
        while time.process_time() < stop: pass
    return word


def test_every_fault_is_named():
    words = ["good", "own", "nameless", "foreign", "crash", "flood", "slow", "other", "good"]
    report = judge(f"{__file__}:misbehave", [(w, w.encode()) for w in words], suffix=".txt", whole=b"good", seconds=1)
    expected = ["same", "error", "foreign error", "foreign error", "crash", "flood", "hang", "silent change", "same"]
    assert [row[1] for row in report.rows] == expected
    assert len(report.bad) == 6
    allowed = judge(f"{__file__}:misbehave", [("other", b"other")], suffix=".txt", whole=b"good", silent=("other",))
    assert allowed.bad == []


def test_mutants_repeat_and_differ():
    data = bytes(range(256)) * 4
    one, two = list(mutants(data, 90, seed=3)), list(mutants(data, 90, seed=3))
    assert one == two and one != list(mutants(data, 90, seed=4))
    assert {k for k, _ in one} == {"cut", "bit", "byte", "zeros", "insert", "remove", "repeat", "swap", "word"}
    assert sum(made != data for _, made in one) > 80
    assert all(made[:100] == data[:100] for _, made in mutants(data, 45, seed=1, start=100) if len(made) >= 100)
