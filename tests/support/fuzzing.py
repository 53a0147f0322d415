"""Break a file in many ways, always the same ones, and see what a reader makes of it.

`mutants` gives the broken versions of some bytes. `judge` hands them to a function in a process of its own, which is
watched: a crash, a hang, a flood of memory, a foreign error and a silently changed answer are each found and named.

    report = judge("tests.support.readers:csv_events", mutants(data, 300, seed=1), suffix=".csv", known="quiet.csv")
    assert report.bad == []

The function gets a path and returns anything that `repr` describes fully (best a string: a digest of what was read); it is
named as "module:function" (or "path/to/file.py:function") because the process that calls it imports it afresh.
"""
import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
EDGES = (b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"nan", b"-1", b"1e999", b"99999999999999999999", b"\x7f" * 8)


def mutants(data, n, seed, start=0):
    "Yield `n` pairs (kind, bytes): `data` cut, flipped, overwritten, repeated or with a hostile word in it, from byte `start`."
    rng = np.random.default_rng(seed)
    size = len(data)
    kinds = ("cut", "bit", "byte", "zeros", "insert", "remove", "repeat", "swap", "word")
    for k in range(n):
        kind = kinds[k % len(kinds)]
        at = int(rng.integers(start, max(size, start + 1)))
        long = int(min(rng.geometric(0.1), max(size - at, 1)))
        if kind == "cut": made = data[:at]
        elif kind == "bit": made = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1:]
        elif kind == "byte": made = data[:at] + bytes([int(rng.integers(256))]) + data[at + 1:]
        elif kind == "zeros": made = data[:at] + bytes(long) + data[at + long:]
        elif kind == "insert": made = data[:at] + rng.bytes(long) + data[at:]
        elif kind == "remove": made = data[:at] + data[at + long:]
        elif kind == "repeat": made = data[:at] + data[at:at + long] * 3 + data[at + long:]
        elif kind == "swap":
            other = int(rng.integers(start, max(size - long, start + 1)))
            made = data[:at] + data[other:other + long] + data[at + long:]
        else: made = data[:at] + EDGES[int(rng.integers(len(EDGES)))] + data[at + long:]
        yield kind, made


@dataclass
class Report:
    "What became of each mutant: (kind, outcome, seconds, what was said)."
    rows: list = field(default_factory=list)
    peak: float = 0.0  # [MB]

    @property
    def counts(self): return Counter(outcome for _, outcome, _, _ in self.rows)

    @property
    def bad(self):
        "Everything that must not be."
        return [row for row in self.rows if row[1] in ("crash", "hang", "foreign error", "silent change", "flood")]


def function_of(name):
    "The function named `module:function` or `file.py:function`."
    where, _, what = name.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location("fuzzed_" + Path(where).stem, where)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else: module = importlib.import_module(where)
    return getattr(module, what)


def outcome(function, path, whole, errors):
    "Call once: same, warned, error (one of ours that names the file), or what must not be."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try: got = repr(function(path))
        except errors as err:
            said = str(err)
            if len(said) > 2000: return "foreign error", f"a message of {len(said)} characters: {said[:80]}"
            return ("error", said) if Path(path).name in said else ("foreign error", f"does not name the file: {said[:300]}")
        except MemoryError: return "flood", "MemoryError"
        except Exception as err: return "foreign error", f"{type(err).__name__}: {err}"[:400]
    if got == whole: return "same", ""
    said = [str(w.message) for w in caught if w.category.__name__ == "XRTWarning"]
    return ("warned", said[0][:300]) if said else ("silent change", f"{got[:200]} instead of {str(whole)[:200]}")


def _serve():
    "The watched process: one JSON line in (a path), one out (outcome, seconds, what was said, peak MB)."
    task = json.loads(sys.stdin.readline())
    sys.path[:0] = [str(ROOT)]
    limit = task["memory"] + _now()
    resource.setrlimit(resource.RLIMIT_AS, (int(limit * 2**20), resource.RLIM_INFINITY))
    function = function_of(task["function"])
    errors = tuple(function_of(name) for name in task["errors"])
    whole = repr(function(task["whole"])) if task["whole"] else None
    print(json.dumps(["ready", peak_memory()]), flush=True)
    for line in sys.stdin:
        t = time.process_time()
        what, said = outcome(function, json.loads(line), whole, errors)
        print(json.dumps([what, time.process_time() - t, said, peak_memory()]), flush=True)


def peak_memory():
    "Most memory that this process has held [MB]; `ru_maxrss` would remember that of the process which started it."
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _now():
    "Address space in use [MB]: what the libraries map is not the reader's doing."
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() / 2**20


def _start(task):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1",
                        "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-m", "tests.support.fuzzing"], cwd=ROOT, env=env, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.said = []  # drained, so that a talkative library cannot block the pipe
    child.reader = threading.Thread(target=lambda: child.said.extend(child.stderr), daemon=True)
    child.reader.start()
    print(json.dumps(task), file=child.stdin, flush=True)
    ready = child.stdout.readline()
    if not ready:
        _end(child)
        raise RuntimeError("the fuzzed function cannot be prepared: " + "".join(child.said)[-2000:])
    return child, json.loads(ready)[1]


def _end(child):
    "Kill and tidy: no process, pipe or thread is left."
    child.kill()
    child.wait()
    child.reader.join()
    for pipe in (child.stdin, child.stdout, child.stderr):
        try: pipe.close()
        except BrokenPipeError: pass


def judge(function, broken, *, suffix, whole=None, errors=("xrt_nb.data:XRTError",), seconds=5, memory=1024, silent=()):
    """Call `function` on every mutant, in a process that is started again whenever it dies.

    Parameters
    ----------
    function : str
        "module:function" or "file.py:function"; takes a path.
    broken : iterable of (str, bytes)
        Kind and content of each broken file, as `mutants` gives them.
    suffix : str
        The ending of the files' names, ".csv".
    whole : bytes, optional
        The good file. Answers are compared with its; without it every answer counts as "changed knowingly" only if warned.
    errors : tuple of str
        Our own errors, each as "module:Class".
    seconds, memory : float
        Processor time [s] that one file may take (a hang is declared at 20 times that on the clock), and memory [MB]
        beyond what the imported libraries take.
    silent : tuple of str
        Kinds for which another answer is right (a changed digit in a file that has no checksum).

    Returns
    -------
    Report
    """
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / f"whole{suffix}"
        if whole is not None: good.write_bytes(whole)
        task = {"function": function, "whole": str(good) if whole is not None else None, "errors": list(errors), "memory": memory}
        child, base = _start(task)
        try:
            for k, (kind, data) in enumerate(broken):
                path = Path(folder) / f"mutant-{k:05d}{suffix}"
                path.write_bytes(data)
                watch = threading.Timer(20 * seconds, child.kill)
                watch.start()
                try: print(json.dumps(str(path)), file=child.stdin, flush=True)
                except BrokenPipeError: pass
                line = child.stdout.readline()
                hung = not watch.is_alive()
                watch.cancel()
                path.unlink()
                if not line:
                    code = child.wait()
                    _end(child)
                    report.rows.append((kind, "hang" if hung else "crash", 20 * seconds if hung else 0.0, f"exit {code}"))
                    child, base = _start(task)
                    continue
                what, cpu, said, rss = json.loads(line)
                if cpu > seconds: what = "hang"
                if what == "silent change" and kind in silent: what = "changed"
                report.rows.append((kind, what, cpu, said))
                report.peak = max(report.peak, rss - base)
        finally:
            _end(child)
    return report


if __name__ == "__main__": _serve()
