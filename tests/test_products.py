"""Products: packages, faults, hostile archives, kills and resumes, the published table, the command line. All on this machine."""
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from click.testing import CliRunner
from xrt_nb._standins import FileService, TableService, make_products, simulate_catalog, tar_of
from xrt_nb import _store
from xrt_nb import products as P
from xrt_nb.catalogs import CatalogError
from xrt_nb.cli import main
from xrt_nb.data import EventDataError, XRTError, XRTWarning, read_events
from xrt_nb.fits import read_event_list
from xrt_nb.products import Detection, archive, as_detections, convert_table, fetch_events, fetch_products, package_url, take_members, verify_products

ROOT = Path(__file__).parent.parent
REAL = Path(os.environ["XRT_NB_SHARED"]) / "data" / "xrt200515"
QUICK = {"backoff": 0.002, "progress": False}
ids_of = lambda n: [f"{k}_1" for k in range(1, n + 1)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    "250 simulated detections, 500 files."
    return make_products(tmp_path_factory.mktemp("csc"), range(1, 251))


def sums(folder): return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(folder).iterdir() if not p.name.startswith(".")}


def whole(dest, csc, n):
    "Every wanted file once, with the right bytes, in the folder and in the manifest; nothing else."
    expected = {k: v for k, v in csc.sums.items() if int(k[5:10]) <= n}
    rows = [json.loads(line) for line in (dest / "manifest.jsonl").read_text().splitlines()]
    assert sums(dest / "files") == expected == {r["file"]: r["sha256"] for r in rows}
    assert len(rows) == len(expected) and verify_products(dest).ok.all()
    assert sorted(p.name for p in dest.iterdir()) in (["files", "manifest.jsonl"], [".lock", "files", "manifest.jsonl"])


# --- addresses and ids ---------------------------------------------------------------------------------------------


def test_the_documented_address():
    url = package_url([(Detection(23022, 122), "regevt3"), (Detection(735, 4, 1), "pha3")])
    assert url == "http://cda.cfa.harvard.edu/csccli/retrieve?version=rel2.1&packageset=23022.0.122/regevt3/b,735.1.4/spectrum/b"
    assert package_url([(Detection(1, 2), "lc3")], "http://x/", "rel2.0", "w") == "http://x/retrieve?version=rel2.0&packageset=1.0.2/lightcurve/w"


def test_ids_from_everything():
    want = [Detection(735, 4, 1), Detection(23022, 122)]
    frame = pd.DataFrame({"obsid": [23022, 735, 735], "obi": [0, 1, 1], "region_id": [122, 4, 4]})
    assert as_detections(["23022_122", "735.1.4"]) == as_detections(frame) == as_detections(Table.from_pandas(frame)) == want
    assert as_detections(pd.DataFrame({"obsreg_id": ["5_1"]})) == as_detections(pd.DataFrame(index=pd.Index(["5_1"], name="obsreg_id"))) == as_detections("5_1") == [Detection(5, 1)]
    for bad in ("23022", "1_2_3", "a_b", "1.2", "-1_2", "1_2/../x", "1_2\n3_4", "٣_1"):
        with pytest.raises(ValueError, match="`ids`"): as_detections([bad])
    masked = Table({"obsid": np.ma.array([1, 2], mask=[False, True]), "region_id": [1, 1]})
    with pytest.raises(ValueError, match="column 'obsid' in row 1"): as_detections(masked)
    with pytest.raises(ValueError, match="needs obsid and region_id"): as_detections(pd.DataFrame({"ra": [1.0]}))


# --- many packages -------------------------------------------------------------------------------------------------


def test_500_files_killed_at_random_and_repeated(served, tmp_path):
    code = ("import sys; from xrt_nb.products import fetch_products\n"
            "fetch_products([f'{k}_1' for k in range(1, 251)], sys.argv[1], base_url=sys.argv[2], per_request=5, backoff=0.002, progress=False)")
    rng, dest = random.Random(3), tmp_path / "out"
    with FileService(served, pause=0.02) as csc:
        for _ in range(2):
            known = len(verify_products(dest)) if (dest / "manifest.jsonl").exists() else 0
            p = subprocess.Popen([sys.executable, "-c", code, str(dest), csc.url], env=os.environ | {"PYTHONPATH": str(ROOT)})
            end, goal = time.monotonic() + 900, known + rng.randint(1, 200)
            while p.poll() is None and time.monotonic() < end and (not (dest / "manifest.jsonl").exists() or (dest / "manifest.jsonl").read_bytes().count(b"\n") < goal): time.sleep(0.002)
            p.send_signal(signal.SIGKILL)
            p.wait()
            kept = {(r.obsid, r.obi, r.region_id, r.product) for r in verify_products(dest).itertuples() if r.ok}
            assert known < len(kept) < 500
            csc.sent.clear()
        got = fetch_products(ids_of(250), dest, base_url=csc.url, per_request=5, **QUICK)
        assert got.ok and len(got.files) == 500 and got.n_new == 500 - len(kept)
        assert not kept & set(csc.sent) and len(csc.sent) == len(set(csc.sent)) # nothing twice
        whole(dest, csc, 250)


@pytest.mark.parametrize("seed", range(6))
def test_interrupted_anywhere(served, tmp_path, monkeypatch, seed):
    "Ctrl-C at a random call of the innermost steps, twice; a torn last line of the manifest."
    rng, real_store, real_add = random.Random(seed), P._store, P.Manifest.add
    with FileService(served) as csc:
        for _ in range(2):
            left = [rng.randint(1, 25)]
            def maybe(f, before):
                def g(*a):
                    left[0] -= 1
                    if left[0] == 0 and before: raise KeyboardInterrupt
                    out = f(*a)
                    if left[0] == 0: raise KeyboardInterrupt
                    return out
                return g
            monkeypatch.setattr(P, "_store", maybe(real_store, rng.random() < 0.5))
            monkeypatch.setattr(P.Manifest, "add", maybe(real_add, rng.random() < 0.5))
            with pytest.raises(KeyboardInterrupt): fetch_products(ids_of(40), tmp_path / "o", base_url=csc.url, per_request=4, **QUICK)
            m = tmp_path / "o" / "manifest.jsonl"
            m.write_bytes(m.read_bytes()[:-rng.randint(0, 30)] or b"")
            (tmp_path / "o" / "files" / ".x.fits.abc.partial").write_bytes(b"half")
        monkeypatch.undo()
        assert fetch_products(ids_of(40), tmp_path / "o", base_url=csc.url, per_request=4, **QUICK).ok
        whole(tmp_path / "o", csc, 40)


def test_packages_are_polite(served, tmp_path):
    now, most, lock = [0], [0], threading.Lock()
    def slow(n, wanted, service):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock: now[0] -= 1
    with FileService(served, slow) as csc:
        fetch_products(ids_of(100), tmp_path / "a", base_url=csc.url, **QUICK)
        assert len(csc.requests) == 2 and all(r.count("regevt3") == 50 for r in csc.requests)
        fetch_products(ids_of(60), tmp_path / "b", base_url=csc.url, per_request=5, workers=3, **QUICK)
        assert len(csc.requests) == 2 + 12 and 1 < most[0] <= 3
        fetch_products(ids_of(60), tmp_path / "b", base_url=csc.url, per_request=5, **QUICK)
        assert len(csc.requests) == 14 # all there: nobody is asked


def cut_in_the_middle(csc, wanted): body = tar_of(csc.members(wanted)); return 200, {"Content-Length": str(len(body))}, body[:len(body) // 2]
def cut_unnoticed(csc, wanted): body = tar_of(csc.members(wanted)); return 200, {}, body[:len(body) // 2]
def cut_between_members(csc, wanted): return 200, {}, tar_of(csc.members(wanted)[:3], end=False)
def late(csc, wanted): time.sleep(0.7); return 200, {}, b""


FAULTS = {
    "redirect": lambda csc, w: (303, {"Location": csc.requests[-1].replace("/retrieve", "/elsewhere/retrieve")}, b""),
    "error 500": lambda csc, w: (500, {}, b"oops"), "busy": lambda csc, w: (503, {"Retry-After": "0"}, b""), "late": late,
    "cut in the middle": cut_in_the_middle, "cut unnoticed": cut_unnoticed, "cut between members": cut_between_members,
    "a web page": lambda csc, w: (200, {"Content-Type": "text/html"}, b"<html><title>Sorry</title></html>"), "empty": lambda csc, w: (200, {}, b""),
    "json": lambda csc, w: (200, {}, b'{"error": 1}'), "gzip, cut": lambda csc, w: (200, {}, gzip.compress(tar_of(csc.members(w)))[:-3000]),
    "damaged member": lambda csc, w: (200, {}, tar_of([(n, b[:-20] + bytes(20)) for n, b in csc.members(w)])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_now_and_then_costs_nothing(served, tmp_path, fault):
    with FileService(served, lambda n, wanted, csc: FAULTS[fault](csc, wanted) if n in (0, 2) else None) as csc:
        got = fetch_products(ids_of(12), tmp_path / "o", base_url=csc.url, per_request=4, workers=1, timeout=(1, 0.4), **QUICK)
        assert got.ok and got.n_new == 24, got
        whole(tmp_path / "o", csc, 12)


@pytest.mark.parametrize("fault, reason", [
    ("error 500", "last one ended with 500"), ("late", "Timeout|timed out"), ("cut in the middle", "broke off"), ("a web page", "a web page: 'Sorry'"), ("empty", "the answer is empty"),
    ("json", "no tar archive"), ("damaged member", "damaged or truncated")])
def test_a_fault_that_stays_is_named_and_leaves_nothing(served, tmp_path, fault, reason):
    with FileService(served, lambda n, wanted, csc: FAULTS[fault](csc, wanted)) as csc:
        with pytest.raises(CatalogError, match=f"(?s)gave up after 2 packages.*{reason}"):
            fetch_products(ids_of(8), tmp_path / "o", base_url=csc.url, per_request=4, retries=1, timeout=(1, 0.2), patience=2, **QUICK)
    left = [p.name for p in (tmp_path / "o").rglob("*") if p.is_file() and p.name != ".lock"]
    assert left in (["manifest.jsonl"], []) and not (tmp_path / "o" / "manifest.jsonl").read_text()


def test_a_service_that_wants_to_be_left_alone_is(served, tmp_path):
    with FileService(served, lambda n, *_: (503, {"Retry-After": "7200"}, b"") if n else None) as csc, pytest.raises(CatalogError, match="(?s)gave up after 1 package in a row.*come back in 7200 s.*8 files are kept"):
        fetch_products(ids_of(40), tmp_path / "o", base_url=csc.url, per_request=4, workers=1, **QUICK)
    assert len(csc.requests) == 2


def test_gzipped_packages_and_plain_files(tmp_path):
    plain = make_products(tmp_path / "plain", range(1, 6), zipped=False)
    with FileService(plain, lambda n, wanted, csc: (200, {}, gzip.compress(tar_of(csc.members(wanted))))) as csc:
        assert fetch_products(ids_of(5), tmp_path / "o", base_url=csc.url, **QUICK).ok
        assert sums(tmp_path / "o" / "files") == csc.sums


def test_bad_ids_are_named_and_do_not_spoil_the_others(served, tmp_path):
    def moody(n, wanted, csc):
        if any(k[0] == 7 for k in wanted): return 500, {}, b""
    with FileService(served, moody) as csc:
        got = fetch_products(ids_of(20) + ["9999_1"], tmp_path / "o", base_url=csc.url, retries=0, **QUICK)
    assert got.absent.obsreg_id.tolist() == ["7_1", "7_1", "9999_1", "9999_1"] and len(got.files) == 38 and not got.ok
    assert got.absent.reason.str.contains("500").tolist() == [True, True, False, False] and "the service has no such file" in repr(got)


def test_changed_files_other_release_overwrite_and_lock(served, tmp_path):
    with FileService(served) as csc:
        opts = dict(base_url=csc.url, **QUICK)
        fetch_products(ids_of(6), tmp_path / "o", **opts)
        files = sorted((tmp_path / "o" / "files").iterdir())
        files[0].write_bytes(b"changed")
        files[1].unlink()
        assert (~verify_products(tmp_path / "o").ok).sum() == 2
        csc.sent.clear()
        assert fetch_products(ids_of(6), tmp_path / "o", **opts).n_new == 2 and len(csc.sent) == 2
        assert fetch_products(ids_of(6), tmp_path / "o", overwrite=True, **opts).n_new == 12
        whole(tmp_path / "o", csc, 6)
        with pytest.raises(ValueError, match="holds files of release rel2.1"): fetch_products(ids_of(6), tmp_path / "o", release="rel2.0", **opts)
        if sys.platform != "win32":
            with P._alone(tmp_path / "o"), pytest.raises(CatalogError, match="another program is fetching"): fetch_products(ids_of(6), tmp_path / "o", **opts)
    with pytest.raises(FileNotFoundError, match="manifest.jsonl does not exist"): verify_products(tmp_path)


# --- hostile archives ----------------------------------------------------------------------------------------------


def special(name, kind, target="", size=0):
    m = tarfile.TarInfo(name)
    m.type, m.linkname, m.size = kind, target, size
    return m


NAME = "acisf00001_000N001_r0001_regevt3.fits.gz"
HOSTILE = [("../" + NAME, "out of the folder"), ("a/../../" + NAME, "out of the folder"), ("/tmp/" + NAME, "out of the folder"), ("..\\" + NAME, "out of the folder"), ("C:" + NAME, "out of the folder"),
           (special(NAME, tarfile.SYMTYPE, "/etc/passwd"), "a link"), (special(NAME, tarfile.LNKTYPE, "../../x"), "a link"), (special(NAME, tarfile.CHRTYPE), "not an ordinary"),
           (special(NAME, tarfile.FIFOTYPE), "not an ordinary"), (special(NAME, tarfile.BLKTYPE), "not an ordinary"), ("acisf00001_000N001_r0001_evil.sh", "no name"), (".bashrc", "no name"),
           (NAME + "\n", "no name"), (NAME.replace("00001_0", "00002_0"), "not asked for")]


@pytest.mark.parametrize("member, reason", HOSTILE)
def test_hostile_members_stay_in_the_archive(served, tmp_path, member, reason):
    good = (served / NAME).read_bytes()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "x.tar").write_bytes(tar_of([(member, good) if isinstance(member, str) else member, (NAME, good)]))
    (inner / "files").mkdir()
    taken, refused, broken = take_members(inner / "x.tar", {(Detection(1, 1), "regevt3")}, inner / "files")
    assert len(refused) == 1 and reason in refused[0][1] and not broken
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*")) if not p.is_dir()] == [f"a/b/files/{NAME}", "a/b/x.tar"]
    assert (inner / "files" / NAME).read_bytes() == good and not (inner / "files" / NAME).is_symlink()


def test_a_second_file_of_the_same_product(served, tmp_path):
    good, other = (served / NAME).read_bytes(), NAME.replace("N001", "N002")
    (tmp_path / "x.tar").write_bytes(tar_of([(NAME, good), (other, good), ("d/" + NAME, good)]))
    taken, refused, broken = take_members(tmp_path / "x.tar", {(Detection(1, 1), "regevt3")}, tmp_path)
    assert list(taken.values()) == [NAME] and all("a second file of the same product" in r for _, r in refused) and len(refused) == 2


def test_bombs(served, tmp_path):
    want = {(Detection(1, 1), "regevt3")}
    def of(data): (tmp_path / "x.tar").write_bytes(data); return tmp_path / "x.tar"
    with pytest.raises(CatalogError, match="a bomb"): take_members(of(gzip.compress(bytes(20_000_000))), want, tmp_path)
    with pytest.raises(CatalogError, match="more than 104 members"): take_members(of(tar_of([("d/x", b"")] * 300)), want, tmp_path)
    with pytest.raises(CatalogError, match="claim more than 5000 bytes"): take_members(of(tar_of([(NAME, bytes(6000))])), want, tmp_path, max_bytes=5000)
    inner = gzip.compress(b"SIMPLE  =" + bytes(140_000_000)) # a product that is a bomb itself
    taken, refused, broken = take_members(of(tar_of([(NAME, inner)])), want, tmp_path)
    assert not taken and "unlike any event file" in refused[0][1] and sorted(p.name for p in tmp_path.iterdir()) == ["x.tar"]
    with FileService(served, lambda n, w, csc: (200, {"Content-Length": None, "Connection": "close"}, bytes(3_000_000))) as csc, pytest.raises(CatalogError, match="longer than 1000000 bytes"):
        fetch_products("1_1", tmp_path / "o", base_url=csc.url, max_bytes=1_000_000, patience=1, retries=0, **QUICK)


def test_cut_anywhere_nothing_half_is_taken(served, tmp_path):
    names = [f"acisf{k:05d}_000N001_r0001_{p}.fits.gz" for k in range(1, 4) for p in ("regevt3", "reg3")]
    want = {(Detection(k, 1), p) for k in range(1, 4) for p in ("regevt3", "reg3")}
    data, rng = tar_of([(n, (served / n).read_bytes()) for n in names]), random.Random(0)
    end = data.rstrip(b"\0")
    for k, cut in enumerate([1, 511, 512, *(rng.randrange(len(end)) for _ in range(60)), *(512 * rng.randrange(len(end) // 512) for _ in range(40))]):
        (tmp_path / "x.tar").write_bytes(data[:cut])
        out = tmp_path / f"{k}"
        out.mkdir()
        try: taken, _, broken = take_members(tmp_path / "x.tar", want, out)
        except CatalogError: taken, broken = {}, "no archive"
        assert broken and len(taken) < 6
        for n in taken.values(): assert (out / n).read_bytes() == (served / n).read_bytes()
        assert sorted(taken.values()) == sorted(p.name for p in out.iterdir())


def test_random_damage_to_headers(served, tmp_path):
    names = [f"acisf{k:05d}_000N001_r0001_reg3.fits.gz" for k in range(1, 5)]
    data, rng = tar_of([(n, (served / n).read_bytes()) for n in names]), random.Random(1)
    heads = [i for i in range(0, len(data), 512) if data[i + 257:i + 262] == b"ustar"]
    for k in range(150):
        bad = bytearray(data)
        for _ in range(rng.randint(1, 6)): bad[rng.choice(heads) + rng.randrange(512)] = rng.randrange(256)
        if k % 2: # with a right checksum, so that the damage is believed
            for h in heads: bad[h + 148:h + 156] = b"%06o\0 " % (sum(bad[h:h + 148]) + 256 + sum(bad[h + 156:h + 512]))
        (tmp_path / "x.tar").write_bytes(bad)
        (tmp_path / "f").mkdir(exist_ok=True)
        try: taken, _, broken = take_members(tmp_path / "x.tar", {(Detection(i, 1), "reg3") for i in range(1, 5)}, tmp_path / "f")
        except CatalogError: continue
        assert {p.name for p in (tmp_path / "f").iterdir()} <= set(names)
        for n in taken.values(): assert (tmp_path / "f" / n).read_bytes()[:2] == b"\x1f\x8b"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "x.tar"]


# --- photons -------------------------------------------------------------------------------------------------------


def test_photons_are_those_of_the_files_and_the_archive_grows(served, tmp_path):
    with FileService(served) as csc:
        got = fetch_events(ids_of(6), tmp_path / "o", base_url=csc.url, progress=False)
        table = read_events(got.path)
        assert got.ok and len(table) == 6
        f = tmp_path / "o" / "files"
        assert table["3_1"] == read_event_list(f / "acisf00003_000N001_r0001_regevt3.fits.gz", f / "acisf00003_000N001_r0001_reg3.fits.gz")
        before = got.path.stat().st_mtime_ns
        assert fetch_events(ids_of(4), tmp_path / "o", base_url=csc.url, progress=False).ingest is None and got.path.stat().st_mtime_ns == before
        assert fetch_events(ids_of(4), tmp_path / "o", base_url=csc.url, progress=False, energy_range=(500, 2000)).ingest.n_events < table.n_events
        assert fetch_events(["8_1"], tmp_path / "o", base_url=csc.url, progress=False).n_new == 2
        assert read_events(got.path).ids.tolist() == [*ids_of(6), "8_1"]
        with pytest.raises(ValueError, match="lacks reg3"): fetch_events("1_1", tmp_path / "p", products=["regevt3"])
        with pytest.raises(CatalogError, match="no event file came"): fetch_events("9999_1", tmp_path / "p", base_url=csc.url, progress=False)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real data here: set XRT_NB_SHARED")
def test_the_real_files_of_xrt_200515(tmp_path):
    with FileService(REAL) as csc:
        got = fetch_events("23022_122", tmp_path / "o", base_url=csc.url, products=("regevt3", "reg3", "arf3", "lc3"), progress=False)
    ev = read_events(got.path)["23022_122"]
    assert len(ev) == 188 and ev.light_curve(500).counts[45:47].tolist() == [117, 43]
    assert set(got.files["product"]) == {"regevt3", "reg3", "arf3"} and got.absent.values.tolist() == [["23022_122", "lc3", "the service has no such file"]]


# --- the published table -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    "A table of 60,000 photons in the published layout; photons of a source stand together."
    rng, n = np.random.default_rng(0), 60_000
    frame = pd.DataFrame({"obsreg_id": [f"{k}_{k % 7}" for k in rng.integers(1, 400, n)], "time": rng.uniform(0, 1e5, n), "energy": rng.lognormal(7.4, 0.6, n)})
    return frame.sort_values(["obsreg_id", "time"], ignore_index=True)


@pytest.mark.parametrize("order", ["together", "mixed", "two blocks"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_a_table_of_any_order_in_bounded_memory(table, tmp_path, monkeypatch, order, ending):
    frame = {"together": table, "mixed": table.sort_values("time"), "two blocks": pd.concat([table[::2], table[1::2]])}[order]
    frame.to_csv(tmp_path / f"t{ending}", index=False)
    monkeypatch.setattr(P, "EVENTS", 4000)
    most, real = [], P.ParquetEvents.write
    monkeypatch.setattr(P.ParquetEvents, "write", lambda self, t: (most.append(t.n_events), real(self, t))[1])
    if order == "two blocks":
        with pytest.warns(UserWarning, match="not sorted"): done = convert_table(tmp_path / f"t{ending}", tmp_path / "o.parquet", piece=30_000)
        with pytest.warns(UserWarning, match="not sorted"): want = read_events(tmp_path / f"t{ending}")
    else: done, want = convert_table(tmp_path / f"t{ending}", tmp_path / "o.parquet", piece=30_000), read_events(tmp_path / f"t{ending}")
    assert read_events(done.path) == want and (done.n_sources, done.n_events) == (len(want), 60_000)
    assert len(most) > 10 and max(most) < 8000 # photons in memory at a time
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.parquet", f"t{ending}"]
    some = want.ids[[5, 100]].tolist()
    assert read_events(done.path, ids=some) == want[some]


def test_tables_that_are_not(tmp_path):
    def fails(text, match, name="t.csv", **kw):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(EventDataError, match=match): convert_table(tmp_path / name, tmp_path / "o.parquet", **kw)
        assert not (tmp_path / "o.parquet").exists()
    head = b"obsreg_id,time,energy\n"
    fails(b"", "not a complete table")
    fails(head, "no rows")
    fails(b"id,time,energy\na,1,2\n", "not a complete table with columns obsreg_id")
    fails(head + b"a,1,900\na,2\n", "not a complete table")
    fails(head + b"a,1,900\nb,x,900\n", "not a complete table")
    fails(head + b"a,1,900\n,2,900\n", "the id is empty in row 1")
    fails(head + b"a,1,900\nb,2,-5\n", "detection 'b', column 'energy'")
    fails(b"<html><title>Sorry</title>", "a web page")
    fails(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "not a complete table")
    fails(gzip.compress(head + b"a,1,900\n" * 5000)[:-50], "not a complete table", "t.csv.gz")
    (tmp_path / "t.csv").write_bytes(head + b"a,1,900\na,nan,900\nb,1,900\n")
    with pytest.warns(UserWarning, match="1 of 3 rows dropped"): assert convert_table(tmp_path / "t.csv", tmp_path / "o.parquet", bad="drop").n_events == 2
    (tmp_path / "t.csv").write_bytes(b"row,obsreg_id,time,energy,pi\n0,a,1,900,3\n")
    assert convert_table(tmp_path / "t.csv", tmp_path / "p.parquet").remarks.reason.tolist() == ["columns left out: row, pi"]
    with pytest.raises(ValueError, match="must end in .parquet"): convert_table(tmp_path / "t.csv", tmp_path / "o.csv")


def test_the_published_table_goes_on_where_it_stopped(table, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    want, size = read_events(tmp_path / "t.csv"), (tmp_path / "t.csv").stat().st_size
    out = tmp_path / "o.parquet"
    opts = {"progress": False, "download_options": {"retries": 0}}
    for version, resumed in (('"v1"', True), ('"v2"', False)): # the same version goes on, a new one begins anew
        with TableService(tmp_path / "t.csv", cut=size // 2) as s, pytest.raises(CatalogError, match="broke off 1 times"): archive(out, s.url + "/t.csv", overwrite=True, **opts)
        url = s.url + "/t.csv"
        assert (tmp_path / "o.parquet.table.csv").stat().st_size == size // 2 // P.CHUNK * P.CHUNK or (tmp_path / "o.parquet.table.csv").stat().st_size == size // 2
        with TableService(tmp_path / "t.csv", version=version) as s:
            note = tmp_path / "o.parquet.table.csv.json"
            note.write_text(note.read_text().replace(url, s.url + "/t.csv")) # the stand-in has another port now
            assert read_events(archive(out, s.url + "/t.csv", overwrite=True, **opts).path) == want
            assert ("Range" in s.headers[0]) and len(s.headers) == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["o.parquet", "t.csv"]
    with pytest.raises(FileExistsError): archive(out, tmp_path / "t.csv", **opts)


def test_a_source_that_comes_back_in_a_later_piece():
    import pyarrow as pa
    c = P._Census()
    for piece in (["a", "b"], ["b", "c"], ["a"]): c.add(pa.array(piece))
    assert not c.together and c.counts.tolist() == [2, 2, 1]


def test_another_address_begins_anew(table, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    opts = {"progress": False, "download_options": {"retries": 0}}
    with TableService(tmp_path / "t.csv", cut=500_000) as s:
        with pytest.raises(CatalogError, match="broke off"): archive(tmp_path / "o.parquet", s.url + "/one.csv", **opts)
        archive(tmp_path / "o.parquet", s.url + "/two.csv", **opts)
        assert "Range" not in s.headers[1]
    assert read_events(tmp_path / "o.parquet") == read_events(tmp_path / "t.csv")


# --- the command line ----------------------------------------------------------------------------------------------


def shell(*args): return CliRunner().invoke(main, [str(a) for a in args], prog_name="xrt-nb")


def test_fetch_from_the_shell(served, tmp_path):
    (tmp_path / "list.txt").write_text("3_1\n4_1\n")
    pd.DataFrame({"obsreg_id": ["5_1"], "ra": [1.0]}).to_csv(tmp_path / "list.csv", index=False)
    with FileService(served) as csc:
        done = shell("fetch", "1_1", "2_1", "--ids", tmp_path / "list.txt", "--out", tmp_path / "o", "--service", csc.url)
        assert done.exit_code == 0 and "8 files" in done.stdout and "4 detections" in done.stdout, done.output
        assert shell("fetch", "--ids", tmp_path / "list.csv", "--out", tmp_path / "o", "--service", csc.url).exit_code == 0
        assert len(read_events(tmp_path / "o" / "events.parquet")) == 5
        done = shell("fetch", "1_1", "999_1", "--out", tmp_path / "o", "--service", csc.url)
        assert done.exit_code == 3 and "999_1 regevt3: the service has no such file" in done.stderr
    done = shell("fetch", "--out", tmp_path / "o")
    assert done.exit_code == 2 and "nothing to fetch" in done.stderr
    done = shell("fetch", "hello", "--out", tmp_path / "o")
    assert done.exit_code == 1 and "'hello' is neither an obsreg_id" in done.stderr


def test_archive_from_the_shell(table, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    with TableService(tmp_path / "t.csv") as s: done = shell("fetch", "archive", "--table", s.url + "/t.csv", "--out", tmp_path / "o.parquet")
    assert done.exit_code == 0 and "60,000 events" in done.stdout, done.output
    assert read_events(tmp_path / "o.parquet") == read_events(tmp_path / "t.csv")
    assert shell("fetch", "archive", "5_1", "--out", tmp_path / "p.parquet").exit_code == 2


def test_a_query_from_the_shell(tmp_path, monkeypatch):
    from xrt_nb import catalogs
    tables = simulate_catalog(60, random_state=1)
    real = catalogs.Catalog
    monkeypatch.setattr(catalogs, "Catalog", lambda release: real(release, catalogs.LocalService(tables), cache=False))
    hits = real("2.1", catalogs.LocalService(tables), cache=False).query("observation", where="var_index_b >= 8").frame()
    wanted = as_detections(hits)
    asked = []
    monkeypatch.setattr(P, "fetch_events", lambda ids, out, **kw: (asked.append((ids, kw)), P.Fetch(out, pd.DataFrame(), pd.DataFrame(columns=["obsreg_id", "product", "reason"]), pd.DataFrame(), 0))[1])
    done = shell("fetch", "--query", "var_index_b >= 8", "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert sorted(set(asked[0][0])) == wanted and len(wanted) > 1 and asked[0][1]["release"] == "rel2.1"
    assert f"{len(hits)} detections with var_index_b >= 8" in done.stderr
    assert shell("fetch", "--query", "os.system('x')", "--out", tmp_path / "o").exit_code == 1


# --- links, damaged manifests, kills at any moment ------------------------------------------------------------------


@pytest.mark.parametrize("place", ["dest", "files", "manifest.jsonl", ".manifest.jsonl.lock", "file", "inputs.csv", "events.parquet"])
def test_downloads_are_never_written_through_a_link(served, tmp_path, place):
    dest, thesis = tmp_path / "out", tmp_path / "thesis"
    thesis.mkdir()
    chapter = thesis / "chapter.tex"
    chapter.write_text("mine")
    name = "acisf00001_000N001_r0001_regevt3.fits.gz"
    if place == "dest": dest.symlink_to(thesis)
    else:
        (dest / ("x" if place == "files" else "files")).mkdir(parents=True)
        at = dest / "files" / name if place == "file" else dest / place
        at.symlink_to(thesis if place == "files" else chapter)
    with FileService(served) as csc, pytest.raises(XRTError, match="link"):
        fetch_events(ids_of(2), dest, base_url=csc.url, progress=False, download_options={"backoff": 0.001, "retries": 1})
    assert chapter.read_text() == "mine" and os.listdir(thesis) == ["chapter.tex"]


@pytest.mark.parametrize("place", ["table", "note"])
def test_a_table_is_never_written_through_a_link(tmp_path, place):
    (tmp_path / "t.csv").write_text("obsreg_id,time,energy\na,1,600\na,2,600\n")
    chapter = tmp_path / "chapter.tex"
    chapter.write_text("mine")
    at = tmp_path / "a.parquet.table.csv"
    (at if place == "table" else Path(f"{at}.json")).symlink_to(chapter)
    with TableService(tmp_path / "t.csv") as service, pytest.raises(XRTError, match="link"):
        archive(tmp_path / "a.parquet", service.url, progress=False)
    assert chapter.read_text() == "mine"


LINE = {"file": "acisf00001_000N001_r0001_regevt3.fits.gz", "bytes": 5, "sha256": "0" * 64, "release": "rel2.1", "fetched": "2026"}
DAMAGE = [b"[]", b"5", b"null", b"{", b"\xff\xfe\x00", b"[" * 100_000, *(json.dumps(LINE | {k: v}).encode() for k in LINE for v in (None, 5.5, [], {})),
          *(json.dumps({k: v for k, v in LINE.items() if k != gone}).encode() for gone in LINE),
          *(json.dumps(LINE | {"file": f}).encode() for f in ("../../etc/passwd", "/etc/passwd", "a/" + LINE["file"], "../" + LINE["file"], "..", "", LINE["file"] + "\n", "x" * 10_000))]


def test_damaged_lines_of_a_manifest_are_said_and_mended(served, tmp_path):
    dest = tmp_path / "out"
    with FileService(served) as csc:
        fetch_products(ids_of(2), dest, base_url=csc.url, **QUICK)
        good = (dest / "manifest.jsonl").read_bytes()
        before = sorted(os.listdir(tmp_path))
        (dest / "manifest.jsonl").write_bytes(b"\n".join(DAMAGE) + b"\n" + good)
        with pytest.warns(XRTWarning, match=f"{len(DAMAGE)} damaged lines"): assert verify_products(dest).ok.tolist() == [True] * 4
        with pytest.warns(XRTWarning, match="damaged lines"): got = fetch_products(ids_of(2), dest, base_url=csc.url, **QUICK)
        assert got.n_new == 0 and (dest / "manifest.jsonl").read_bytes() == good
        (dest / "manifest.jsonl").write_bytes(good[:-30])  # a line cut by a kill is no news
        assert fetch_products(ids_of(2), dest, base_url=csc.url, **QUICK).n_new == 1
    assert sorted(os.listdir(tmp_path)) == before and (dest / "manifest.jsonl").read_bytes().count(b"\n") == 4


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b"\xff", b'{"url": 5, "etag": [], "done": true}', b"[" * 100_000])
def test_a_damaged_note_beside_a_table_begins_anew(tmp_path, note):
    (tmp_path / "t.csv").write_text("obsreg_id,time,energy\na,1,600\na,2,600\n")
    out = tmp_path / "a.parquet"
    (tmp_path / "a.parquet.table.csv").write_bytes(b"half of something else")
    (tmp_path / "a.parquet.table.csv.json").write_bytes(note)
    with TableService(tmp_path / "t.csv") as service: archive(out, service.url, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("a.", ".a"))) == ["a.parquet"]


def test_a_killed_conversion_leaves_nothing_that_stays(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("obsreg_id,time,energy\na,1,600\nb,2,600\na,3,600\n")
    if not (child := os.fork()):
        monkeypatch.setattr(P, "_mixed", lambda *_: os._exit(9))
        convert_table(tmp_path / "t.csv", tmp_path / "a.parquet")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(os.listdir(tmp_path)) > 1
    _store._swept.clear()
    convert_table(tmp_path / "t.csv", tmp_path / "a.parquet")
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "t.csv"]


def killed_downloads(served, tmp_path, n, seed):
    "Kill a download n times at random moments, then let it finish."
    rng, dest, total = random.Random(seed), tmp_path / "out", 100
    with FileService(served, pause=0.01) as csc:
        for k in range(n):
            if not (child := os.fork()):
                try: fetch_products(ids_of(total), dest, base_url=csc.url, per_request=5, overwrite=k % 10 == 9, **QUICK)
                finally: os._exit(0)
            time.sleep(rng.uniform(0, 0.3))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if (dest / "manifest.jsonl").exists(): assert verify_products(dest).ok.all()
        got = fetch_products(ids_of(total), dest, base_url=csc.url, per_request=5, **QUICK)
        assert got.ok and len(got.files) == 2 * total
        whole(dest, csc, total)
    assert not [p for p in dest.rglob(".*")]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child")
def test_a_hundred_killed_downloads(served, tmp_path): killed_downloads(served, tmp_path, 100, seed=1)
