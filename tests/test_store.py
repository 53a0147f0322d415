"""Files and folders that are whole or absent: killed at every system call and at random moments, raced, linked, full.

`killed_at_every_call` runs an action in a forked child that ends, without any clean-up, at its k-th call of the system,
for k = 1, 2, 3, … until the action comes through; after each of them the property must hold and a new call succeed.
"""

import errno
import itertools
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xrt_nb import _store
from xrt_nb._store import (StoreBusy, StoreError, StoreExists, StoreMissing, WorkFolder, XRTError, append, atomic, file_hash,
                           fingerprint, finish_part, finished_part, inside, locked, read_json, store_error, sweep, write_text, writing)

CALLS = ("open", "close", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "chmod", "fsync", "write")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child")


def hidden(folder):
    "What lies in a folder under names with a dot."
    return sorted(p.name for p in Path(folder).iterdir() if p.name.startswith("."))


def dies_at(k, action):
    "Run `action` in a child that dies at its k-th system call; True if it came through before."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    try:
        count = itertools.count(1)
        def dying(call):
            def f(*a, **kw):
                if next(count) == k: os._exit(9)
                return call(*a, **kw)
            return f
        for name in CALLS: setattr(os, name, dying(getattr(os, name)))
        exchange = _store._exchange
        _store._exchange = dying(exchange)
        action()
        os._exit(0)
    except BaseException as err:
        print(type(err).__name__, err, file=sys.stderr)
        os._exit(3)


def killed_at_every_call(action, check, most=400):
    "Die at the 1st, 2nd, … call; `check` after each. The number of deaths."
    for k in range(1, most):
        through = dies_at(k, action)
        check()
        if through: return k - 1
    raise AssertionError(f"the action never came through in {most} calls")


# --- single files -------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_old_or_new_wherever_its_writer_dies(tmp_path, overwrite):
    path = tmp_path / "labels.csv"

    def action():
        with atomic(path, overwrite) as tmp:
            tmp.write_text("new" * 1000)

    def check():
        text = path.read_text() if path.exists() else None
        assert text in ({"old", "new" * 1000} if overwrite else {None, "new" * 1000})
        if overwrite: write_text(path, "old", overwrite=True)
        else: path.unlink(missing_ok=True)

    if overwrite: path.write_text("old")
    assert killed_at_every_call(action, check) > 4
    _store._swept.clear()
    write_text(path, "last", overwrite=True)
    assert hidden(tmp_path) == [], "the next writer clears away what killed ones left"


def test_only_one_of_many_makes_a_file(tmp_path):
    done, path, gate = [], tmp_path / "once", threading.Barrier(8)

    def make(n):
        gate.wait()
        try:
            with atomic(path) as tmp:
                tmp.write_text(f"{n}")
                gate.wait()
            done.append(n)
        except StoreExists: pass

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(done) == 1 and path.read_text() == f"{done[0]}" and hidden(tmp_path) == []


@pytest.mark.parametrize("place", ["link", "dangling", "link to a folder", "folder", "pipe"])
@pytest.mark.parametrize("write", [lambda p: write_text(p, "through", overwrite=True), lambda p: append(p, "through")])
def test_nothing_is_written_through(tmp_path, place, write):
    target, path = tmp_path / "target", tmp_path / "out"
    if "folder" in place: target.mkdir()
    elif place == "link": target.write_text("mine")
    if place == "folder": path.mkdir()
    elif place == "pipe": os.mkfifo(path)
    else: path.symlink_to(target)
    before = os.lstat(path)
    with pytest.raises(StoreExists, match=f"{path}"): write(path)
    assert os.lstat(path).st_ino == before.st_ino
    assert not target.exists() or target.is_dir() or target.read_text() == "mine"
    assert not target.is_dir() or not os.listdir(target)


def test_permissions(tmp_path):
    old = os.umask(0o027)
    try: write_text(tmp_path / "a", "1")
    finally: os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    os.chmod(tmp_path / "a", 0o604)
    write_text(tmp_path / "a", "2", overwrite=True)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604
    os.chmod(tmp_path / "a", 0o400)
    with pytest.raises(StoreError, match="write-protected"): write_text(tmp_path / "a", "3", overwrite=True)
    assert (tmp_path / "a").read_text() == "2"


def test_no_room_changes_the_mask_of_all_threads():
    for path in Path(_store.__file__).parent.glob("*.py"):
        assert not re.search(r"os\.umask\(", path.read_text()), f"{path.name}: os.umask is one for all threads"


def test_long_names_and_strange_ones(tmp_path):
    write_text(tmp_path / ("é" * 127), "1")
    with pytest.raises(StoreError, match="shorter name"): write_text(tmp_path / ("x" * 300), "1")
    with pytest.raises(StoreMissing, match="make it first"): write_text(tmp_path / "none" / "x", "1")
    with pytest.raises(StoreError): write_text(tmp_path / "a\0b", "1")
    assert hidden(tmp_path) == []


FULL = """
import resource, sys
from pathlib import Path
from xrt_nb._store import StoreError, atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with atomic(sys.argv[1], overwrite=True) as tmp: tmp.write_bytes(bytes(100_000))
except StoreError as err: print(err)
"""


def test_a_full_disk_names_the_file_and_the_cure(tmp_path):
    path = write_text(tmp_path / "out", "old")
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert said.stdout.startswith(f"{path}: the disk is full") and "restart" in said.stdout, said
    assert path.read_text() == "old" and hidden(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_permission_refused_names_the_file_and_the_cure(tmp_path, monkeypatch, number):
    def refuse(path, *_, **__): raise OSError(number, os.strerror(number), str(path))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=f"{tmp_path / 'out'}: not allowed.*restart"): write_text(tmp_path / "out", "1")


def test_an_error_of_an_input_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="input") as e:
        with writing(tmp_path / "out"): (tmp_path / "input").read_text()
    assert not isinstance(e.value, StoreError)
    with pytest.raises(PermissionError) as e:
        with writing(tmp_path / "out"): raise PermissionError(errno.EACCES, "denied", "/elsewhere/input")
    assert not isinstance(e.value, StoreError)


def test_sweeping_leaves_the_living_and_strangers(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout.strip()
    mine = _store._temporary(tmp_path / "a", "partial").name
    of = {"dead": mine.replace(f"-{os.getpid()}-", f"-{dead}-"), "alive": mine.replace(f"-{os.getpid()}-", "-1-"), "mine": mine}
    of |= {"elsewhere": of["dead"].replace(_store._HOST, "00000000"), "stranger": ".notes.partial"}
    for name in of.values(): (tmp_path / name).write_text("")
    (tmp_path / of["dead"].replace(".a.", ".b.")).symlink_to(tmp_path / "x")
    sweep(tmp_path)
    assert not (tmp_path / of["dead"]).exists() and len(hidden(tmp_path)) == 5


def test_a_long_call_sweeps_a_folder_where_its_program_wrote_before(tmp_path):
    (write_text(tmp_path / "first", "1"), write_text(tmp_path / "first", "2", overwrite=True)) # this program has swept here
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout.strip()
    left = _store._temporary(tmp_path / "a", "partial").name.replace(f"-{os.getpid()}-", f"-{dead}-")
    (tmp_path / left).write_text("killed between its file's new name and the end of the old one")
    with WorkFolder(tmp_path / "a") as work: work.remove()
    assert hidden(tmp_path) == []


# --- contents -----------------------------------------------------------------------------------------------------


def test_fingerprints_see_contents_only(tmp_path):
    import numpy as np
    a, b = write_text(tmp_path / "a", "1"), write_text(tmp_path / "b", "1")
    assert fingerprint(a) == fingerprint(b)
    values = [1, 1.0, "1", True, None, b"1", [1], {"1": 1}, np.array([1]), np.array([1.0]), np.array([[1]]), np.array(["1"], dtype=object), float("nan"), a]
    assert len({fingerprint(v) for v in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) and fingerprint({1, 2, 3}) == fingerprint({3, 2, 1})
    with pytest.raises(TypeError, match="give its values"): fingerprint(fingerprint)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (file_hash, read_json):
        with pytest.raises(StoreError, match="not an ordinary file"): read(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "..", "a\\b", "C:x", "x\n", "a\0", None, 3, ["a"], b"a"])
def test_names_stay_in_their_folder(tmp_path, name):
    with pytest.raises(StoreError): inside(tmp_path, name)


def test_names_do_not_lead_through_links(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "sub").symlink_to(tmp_path)
    (tmp_path / "f" / "file").symlink_to(tmp_path / "x")
    for name in ("sub/x", "file"):
        with pytest.raises(StoreError, match="symbolic link"): inside(tmp_path / "f", name)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 10**6, b'{"a": 1} x', b"9" * 5000, b"\x00" * 9])
def test_damaged_json_is_one_sentence(tmp_path, text):
    (tmp_path / "m.json").write_bytes(text)
    with pytest.raises(StoreError, match="m.json is damaged.*restart") as e: read_json(tmp_path / "m.json")
    assert len(str(e.value)) < 400 + len(str(tmp_path))


def test_parts_count_only_as_they_were(tmp_path):
    write_text(tmp_path / "p", "1")
    finish_part(tmp_path, "p", "mark", ["p"], n=1, notes=[["f", "why"]])
    assert finished_part(tmp_path, "p", "mark") == {"n": 1, "notes": [["f", "why"]]}
    assert finished_part(tmp_path, "p", "other") is None and finished_part(tmp_path, "q", "mark") is None
    whole = (tmp_path / "p.done").read_bytes()
    rng = random.Random(0)
    for _ in range(100):
        bad = bytearray(whole)
        bad[k := rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        (tmp_path / "p.done").write_bytes(bad)
        assert finished_part(tmp_path, "p", "mark") in (None, {"n": 1, "notes": [["f", "why"]]}), k
    (tmp_path / "p.done").write_bytes(whole)
    stamp = os.stat(tmp_path / "p")
    (tmp_path / "p").write_text("2")
    os.utime(tmp_path / "p", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert finished_part(tmp_path, "p", "mark") is None, "size and time are kept, the contents aren't"


# --- locks --------------------------------------------------------------------------------------------------------

COUNT = """
import sys
from pathlib import Path
from xrt_nb._store import locked, write_text
path = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with locked(path): write_text(path, str(int(path.read_text()) + 1), overwrite=True)
"""


def start(code, *args):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)


def test_two_programs_lose_nothing(tmp_path):
    path = write_text(tmp_path / "n", "0")
    with start(COUNT, path, 40) as a, start(COUNT, path, 40) as b: pass
    assert a.returncode == b.returncode == 0
    assert path.read_text() == "80" and hidden(tmp_path) == []


@posix
def test_a_lock_dies_with_its_owner_and_is_not_inherited(tmp_path):
    path = tmp_path / "n"
    with locked(path):
        with pytest.raises(StoreBusy, match="let it finish"):
            with locked(path, wait=0): pass
        if not (child := os.fork()):
            time.sleep(30)
            os._exit(0)
    try:
        with locked(path, wait=0): pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert killed_at_every_call(lambda: locked(path, wait=0).__enter__() and write_text(path, "1", True), lambda: None)
    with locked(path, wait=0): pass
    assert not (tmp_path / ".n.lock").exists()


@pytest.mark.parametrize("place", ["link", "folder", "pipe"])
def test_a_lock_is_not_followed(tmp_path, place):
    lock = tmp_path / ".n.lock"
    if place == "link": lock.symlink_to(tmp_path / "target")
    elif place == "folder": lock.mkdir()
    else: os.mkfifo(lock)
    with pytest.raises(StoreError, match=".n.lock"):
        with locked(tmp_path / "n"): pass
    assert not (tmp_path / "target").exists() and os.path.lexists(lock)


# --- folders ------------------------------------------------------------------------------------------------------


def build(out, text, **kw):
    "Replace a folder by one whose three files hold `text`."
    with WorkFolder(out, restart=True, **kw) as work:
        for name in "abc": write_text(work.path / name, text)
        work.publish(overwrite=True)


def holds(out):
    "The texts of a folder's files."
    return {n: (out / n).read_text() for n in os.listdir(out) if not n.startswith(".")}


@pytest.fixture
def quick(monkeypatch):
    "Nothing waits for the disk; the calls still count."
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@posix
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_is_old_or_new_wherever_its_builder_dies(tmp_path, monkeypatch, quick, exchange, there):
    if not exchange: monkeypatch.setattr(_store, "_exchange", lambda a, b: False)
    out, old, new = tmp_path / "run", dict.fromkeys("abc", "old"), dict.fromkeys("abc", "new")

    def check():
        if exchange or not there:
            assert (holds(out) if out.exists() else None) in (old if there else None, new)
        with WorkFolder(out, restart=True):
            assert (holds(out) if out.exists() else None) in (old if there else None, new), "put back where names can't be exchanged"
            assert not out.exists() or not hidden(out)
        assert hidden(tmp_path) == []
        if there: build(out, "old")
        elif out.exists(): (tmp_path / f"{time.monotonic_ns()}").mkdir() or out.rename(tmp_path / f"{time.monotonic_ns()}")

    if there: build(out, "old")
    assert killed_at_every_call(lambda: build(out, "new"), check) > 20


@posix
def test_removing_may_die_as_well(tmp_path, quick):
    out = tmp_path / "x.parquet"

    def action():
        with WorkFolder(out, name="x.parts", fingerprint="1") as work:
            (work.path / "sub").mkdir(exist_ok=True)
            write_text(work.path / "sub" / "f", "1", overwrite=True)
            work.remove()

    def check():
        with WorkFolder(out, name="x.parts", fingerprint="1") as work: work.remove()
        assert os.listdir(tmp_path) == []

    assert killed_at_every_call(action, check) > 10


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("place", ["link", "dangling link", "file", "folder", "forged mark", "half a mark", "mark as a link"])
def test_strangers_are_left_alone(tmp_path, place, restart):
    work, thesis = tmp_path / ".run.partial", tmp_path / "thesis"
    thesis.mkdir()
    write_text(thesis / "chapter.tex", "1")
    if place == "link": work.symlink_to(thesis)
    elif place == "dangling link": work.symlink_to(tmp_path / "none")
    elif place == "file": work.write_text("1")
    else:
        work.mkdir()
        write_text(work / "chapter.tex", "1")
        if place == "forged mark": write_text(work / ".owner.json", '{"xrt_nb": "mine"}')
        if place == "half a mark": write_text(work / ".owner.json", '{"xrt_nb": "work fol')
        if place == "mark as a link": (work / ".owner.json").symlink_to(thesis / "chapter.tex")
    with pytest.raises(StoreExists, match="in the way.*restart"): WorkFolder(tmp_path / "run", restart=restart).__enter__()
    assert (thesis / "chapter.tex").exists() and os.path.lexists(work)
    assert not work.is_dir() or (work / "chapter.tex").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_work_is_left_alone(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with WorkFolder(tmp_path / "run") as w: write_text(w.path / "f", "1"); 1 / 0
    os.chown(w.path, 12345, 12345)
    with pytest.raises(StoreExists, match="another user"): WorkFolder(tmp_path / "run").__enter__()
    assert (w.path / "f").exists()


def test_links_inside_a_work_folder_are_removed_not_followed(tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    write_text(thesis / "chapter.tex", "1")
    for restart in (False, True):
        with pytest.raises(ZeroDivisionError):
            with WorkFolder(tmp_path / "run") as w:
                (w.path / "sub").symlink_to(thesis)
                (w.path / "f").symlink_to(thesis / "chapter.tex")
                1 / 0
        with WorkFolder(tmp_path / "run", restart=restart) as w: assert not set(os.listdir(w.path)) - {".owner.json", ".owner.lock"}
    assert (thesis / "chapter.tex").read_text() == "1"


@pytest.mark.parametrize("place", ["link", "file"])
def test_out_is_not_replaced_where_it_is_no_folder(tmp_path, place):
    out, thesis = tmp_path / "run", tmp_path / "thesis"
    thesis.mkdir()
    if place == "link": out.symlink_to(thesis)
    else: out.write_text("1")
    with pytest.raises(StoreExists, match="symbolic link|is a file"): build(out, "new")
    assert os.path.lexists(out) and not os.listdir(thesis)


def test_an_existing_folder_needs_a_word(tmp_path):
    build(tmp_path / "run", "old")
    with pytest.raises(StoreExists, match="overwrite=True"):
        with WorkFolder(tmp_path / "run") as w: write_text(w.path / "a", "new"); w.publish()
    assert holds(tmp_path / "run") == dict.fromkeys("abc", "old")
    with WorkFolder(tmp_path / "run") as w:
        write_text(w.path / "x", "scratch")
        w.publish(overwrite=True, keep=["a"])
    assert holds(tmp_path / "run") == {"a": "new"}
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty", "new")


HOLD = """
import sys, time
from xrt_nb._store import WorkFolder, write_text
with WorkFolder(sys.argv[1], fingerprint=sys.argv[2]) as w:
    write_text(w.path / "f", "theirs", overwrite=True)
    print("in", flush=True)
    time.sleep(60)
"""


def test_two_builders_do_not_mix_and_a_kill_frees_at_once(tmp_path):
    with start(HOLD, tmp_path / "run", "1") as child:
        assert child.stdout.readline() == "in\n"
        with pytest.raises(StoreBusy, match="another program is at work.*another output"): WorkFolder(tmp_path / "run", wait=0).__enter__()
        child.kill()
    with pytest.raises(StoreExists, match="restart=True"): WorkFolder(tmp_path / "run", fingerprint="2", wait=0).__enter__()
    with WorkFolder(tmp_path / "run", fingerprint="1", wait=0) as w:
        assert w.resumed and (w.path / "f").read_text() == "theirs"
        w.remove()
    assert os.listdir(tmp_path) == []


def test_no_folder_and_no_rights(tmp_path):
    with pytest.raises(StoreMissing, match="make it first"): WorkFolder(tmp_path / "none" / "run").__enter__()
    with pytest.raises(StoreError, match="choose a folder's name"): WorkFolder("/")
    assert issubclass(StoreError, XRTError) and issubclass(StoreMissing, FileNotFoundError) and issubclass(StoreExists, FileExistsError)
    assert store_error(OSError(errno.ENOENT, ""), "x/y").errno == errno.ENOENT


# --- random kills -------------------------------------------------------------------------------------------------

REPLACE = """
import itertools, sys
from pathlib import Path
from xrt_nb import _store
from xrt_nb._store import WorkFolder, append, atomic, finish_part, finished_part, locked, read_json, write_json, write_text
here = Path(sys.argv[1])
if sys.argv[2] == "aside": _store._exchange = lambda a, b: False
with WorkFolder(here / "run"): pass
first = int((here / "run" / "a").read_text()) + 1 if (here / "run").exists() else 0
print("go", flush=True)
for n in itertools.count(first):
    with WorkFolder(here / "run") as w:
        for k in "abc":
            if finished_part(w.path, k, str(n)) is None:
                write_text(w.path / k, str(n) + " " * 5000, overwrite=True)
                finish_part(w.path, k, str(n), [k])
        w.publish(overwrite=True, keep="abc")
    print("published", flush=True)
    with locked(here / "labels"):
        labels = read_json(here / "labels") if (here / "labels").exists() else {}
        write_json(here / "labels", labels | {str(n): 1}, overwrite=True)
"""


class Forked:
    "A program in a fork of this process, where nothing has to be imported again; for a `with` block, like `start`."

    def __init__(self, code, *args):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.dup2(writing, 1)
                sys.argv, sys.stdout = ["-c", *map(str, args)], os.fdopen(1, "w")
                exec(code, {"__name__": "__main__"})
            finally:
                os._exit(1)
        os.close(writing)
        self.stdout = os.fdopen(reading)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stdout.close()
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL


def random_kills(here, n, how, seed):
    "Kill n times at random moments; look each time."
    rng, last, kept = random.Random(seed), -1, {}
    for k in range(n):
        with Forked(REPLACE, here, how) as child:
            assert child.stdout.readline() == "go\n"
            if k % 2 == 0: assert child.stdout.readline() == "published\n"  # however busy the machine is
            time.sleep(rng.uniform(0, 0.3))
            child.kill()
        if how == "aside" and not (here / "run").exists():
            with WorkFolder(here / "run"): pass
        found = {k: v.split() for k, v in holds(here / "run").items()} if (here / "run").exists() else {}
        if found: assert sorted(found) == ["a", "b", "c"] and len({str(v) for v in found.values()}) == 1, found
        now = int(found["a"][0]) if found else -1
        labels = json.loads((here / "labels").read_text()) if (here / "labels").exists() else {}
        assert now >= last and kept.items() <= labels.items() and len(labels) <= now + 1
        last, kept = now, labels
    with WorkFolder(here / "run", restart=True): pass
    with locked(here / "labels", wait=1): pass
    _store._swept.clear()
    write_text(here / "labels", "{}", overwrite=True)
    assert sorted(os.listdir(here)) == ["labels", "run"] and sorted(os.listdir(here / "run")) == ["a", "b", "c"]
    return last


@pytest.mark.parametrize("how", ["exchange", "aside"])
def test_kills_at_random_moments(tmp_path, how):
    random_kills(tmp_path, 5, how, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exchange", "aside"])
def test_a_hundred_kills_at_random_moments(tmp_path, how):
    assert random_kills(tmp_path, 100, how, seed=2) >= 49
