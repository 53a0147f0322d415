"""Broken, hostile and merely large event tables: refused in one sentence, or read as they are; never a crash, never other values."""

import base64
import gzip
import json
import os
import struct
import warnings

import numpy as np
import pandas as pd
import pytest

from tests.support.data_readers import archive, digest
from tests.support.fuzzing import judge, mutants
from xrt_nb import tables
from xrt_nb.data import EventDataError, EventTable, XRTWarning, read_events

MORE = int(os.environ.get("XRT_NB_FUZZ", 0))


def first_format(table, path, group=200):
    "Write a table as version 0.1 did: sources in the footer, no checksums."
    import pyarrow as pa
    import pyarrow.parquet as pq
    src = {"obsreg_id": pa.array(table.ids.tolist(), pa.string()), "counts": pa.array(table.counts)}
    for n, name in enumerate(("gti_start", "gti_stop")):
        src[name] = pa.LargeListArray.from_arrays(pa.array(table.gti_offsets), pa.array(np.ascontiguousarray(table.gti[:, n])))
    src |= {f"meta:{c}": pa.array(table.meta[c], from_pandas=True) for c in table.meta.columns}
    ids = pa.DictionaryArray.from_arrays(pa.array(table.detection_index.astype(np.int32)), pa.array(table.ids.tolist(), pa.string()))
    rows = pa.table({"obsreg_id": ids, "time": table.time, "energy": table.energy} | {k: pa.array(v) for k, v in table.columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.table(src).schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as w: w.write_table(pa.table(src))
    with pq.ParquetWriter(path, rows.schema, compression="zstd", use_dictionary=["obsreg_id"]) as w:
        w.write_table(rows, row_group_size=group)
        w.add_key_value_metadata({"xrt_nb": json.dumps({"format": 1}), "xrt_nb_sources": base64.b64encode(sink.getvalue())})
    return path


def base(kind, folder, monkeypatch):
    "The whole file of a kind, its suffix, and the function that reads it."
    table = archive(np.random.default_rng(5), n=40)
    if kind == "parquet":
        monkeypatch.setattr(tables, "ROW_GROUP", 100)  # many groups
        return table.write(folder / "t.parquet").read_bytes(), ".parquet", "events"
    if kind == "parquet of version 0.1": return first_format(table, folder / "t.parquet").read_bytes(), ".parquet", "events"
    if kind == "list of known transients":
        return b"obsreg_id,class\n" + b"".join(b"%d_%d,%s\n" % (k, k, c) for k, c in enumerate([b"flare", b"dip", b"NA"] * 9)), ".csv", "known"
    plain = archive(np.random.default_rng(6), n=9, columns=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRTWarning)
        path = plain.write(folder / ("t.csv.gz" if kind == "csv.gz" else "t.csv"))
    return path.read_bytes(), "".join(path.suffixes), "events" if kind == "csv.gz" else "csv_agrees"


KINDS = ["parquet", "csv", "csv.gz", "list of known transients"]


@pytest.mark.parametrize("kind, n", [(k, 60) for k in KINDS] + [
    pytest.param(k, n, marks=pytest.mark.slow) for k, n in [("parquet", 720), ("csv", 400), ("csv.gz", 300), ("list of known transients", 300)]])
def test_broken_files(kind, n, tmp_path, monkeypatch):
    whole, suffix, function = base(kind, tmp_path, monkeypatch)
    report = judge(f"tests.support.data_readers:{function}", mutants(whole, n + MORE, seed=n), suffix=suffix, whole=whole)
    assert report.bad == [] and len(report.rows) == n + MORE
    assert report.counts["error"] > n / 4 and report.peak < 1024


def test_broken_files_of_version_0_1_never_crash(tmp_path, monkeypatch):
    whole, suffix, function = base("parquet of version 0.1", tmp_path, monkeypatch)
    report = judge(f"tests.support.data_readers:{function}", mutants(whole, 60 + MORE, seed=2), suffix=suffix, whole=whole)
    assert [r for r in report.bad if r[1] != "silent change"] == []  # they had no checksums


def test_every_flipped_bit_of_seal_index_and_footer_is_noticed(tmp_path):
    table = archive(np.random.default_rng(1), n=2, photons=5)
    whole = table.write(tmp_path / "t.parquet").read_bytes()
    start = whole.rindex(b'{"format"')
    for bit in range(8 * start, 8 * len(whole), 11):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "broken.parquet").write_bytes(broken)
        with pytest.raises(EventDataError, match="broken.parquet: not a complete Parquet file"):
            read_events(tmp_path / "broken.parquet")


def test_flipped_bits_of_photons_sources_and_gtis_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 50)
    whole = archive(np.random.default_rng(1), n=12).write(tmp_path / "t.parquet").read_bytes()
    for at in np.random.default_rng(0).integers(4, whole.rindex(b'{"format"'), 200):
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        (tmp_path / "broken.parquet").write_bytes(broken)
        with pytest.raises(EventDataError, match="bytes .* were changed"):
            read_events(tmp_path / "broken.parquet")


def test_files_of_version_0_1_are_read(tmp_path):
    table = archive(np.random.default_rng(2))
    back = read_events(first_format(table, tmp_path / "old.parquet"))
    assert back == table and digest(back) == digest(table)
    assert read_events(tmp_path / "old.parquet", ids=["1003_3"]) == table[["1003_3"]]
    header = pd.DataFrame({"name": "M31", "energy_rule": "PI"}, index=table.ids)
    old = EventTable(table.ids, table.offsets, table.time, table.energy, table.gti, table.gti_offsets, header)
    assert read_events(first_format(old, tmp_path / "older.parquet")).meta.target.tolist() == ["M31"] * len(table)


def second_format(table, path):
    "A file as it was written before detections had tables of several parts: one of all detections, one of all GTIs."
    class Old(tables.ParquetEvents): pass
    def finish(out):
        meta, counts, n_gti, gti = out.waiting[0]
        index = {"format": 2, "groups": out.groups}
        src = tables._source_table([meta], [counts], [] if gti is None else [n_gti])
        for name, rows in (("sources", src), ("gtis", None if gti is None else tables._gti_table([gti]))):
            if rows is None: continue
            out.sink.write(tables._parquet_bytes(rows))
            index[name] = [rows.num_rows, *out.sink.cut()]
        text, at = json.dumps(index).encode(), out.sink.at
        out.sink.write(text)
        out.sink.write(bytes(tables.SEAL.size))
        out.writer.close()
        out.sink.file.close()
        tables._put_seal(out.path, at, text)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(tables, "_finish", finish)
        with Old(path) as out: out.write(table)
    return path


def test_files_of_the_second_format_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 50)
    table = archive(np.random.default_rng(2))
    path = second_format(table, tmp_path / "old.parquet")
    assert b'{"format": 2' in path.read_bytes() and read_events(path) == table and digest(read_events(path)) == digest(table)
    some = [table.ids[30], table.ids[3]]
    assert read_events(path, ids=some) == table[some] == tables.EventFile(path)[:][some]
    with pytest.raises(KeyError, match="no detection 'x' among its 40"): read_events(path, ids=["x"])


@pytest.mark.parametrize("gtis", [True, False])
def test_one_detection_reads_only_what_holds_it(tmp_path, monkeypatch, gtis):
    monkeypatch.setattr(tables, "ROW_GROUP", 64)
    monkeypatch.setattr(tables, "SOURCES", 16)
    n, rng = 1000, np.random.default_rng(0)
    each, span = np.arange(0, 5 * n + 1, 5), np.tile([0.0, 100.0], (n, 1)) if gtis else None
    meta = pd.DataFrame({"ra": rng.uniform(0, 360, n)}, index=[f"s{k}" for k in rng.permutation(n)])
    table = EventTable(list(meta.index), each, np.sort(rng.uniform(0, 100, (n, 5)), axis=1).ravel(), np.full(5 * n, 700.0), span,
                       np.arange(n + 1) if gtis else None, meta)
    path, read, real = table.write(tmp_path / "t.parquet"), [], tables._part
    monkeypatch.setattr(tables, "_part", lambda path, part: (read.append(part[2] - part[1]), real(path, part))[1])
    assert read_events(path) == table and len(read) > (200 if gtis else 130)
    whole = sum(read)
    for k in (0, 15, 16, 500, 999):
        read.clear()
        one = read_events(path, ids=[table.ids[k]])
        assert one == table[[k]] and one.meta.equals(table.meta.iloc[[k]])
        assert len(read) <= 5 + gtis and sum(read) < whole / 20  # ids, detections, GTIs, and a row group or two
    opened = tables.EventFile(path)
    read.clear()
    assert opened[990:] == table[990:] and sum(read) < whole / 20


def test_ids_of_one_checksum_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "SOURCES", 4)
    ids = [f"s{k}" for k in range(11)] + ["plumless", "buckeroo"]  # a known pair of equal CRC-32
    import zlib
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    table = EventTable(ids, np.arange(14), np.arange(13.0))
    path = table.write(tmp_path / "t.parquet")
    for i in ids: assert read_events(path, ids=[i])[i] == table[i]
    monkeypatch.setattr(tables, "_keys", lambda ids: np.full(len(ids), 7, np.uint32))  # the worst case: one checksum for all
    path = table.write(tmp_path / "all.parquet")
    assert read_events(path, ids=["s3", "buckeroo"]) == table[["s3", "buckeroo"]]
    with pytest.raises(KeyError, match="no detection 'z'"): read_events(path, ids=["z"])


def test_tables_written_in_pieces_are_the_whole_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "SOURCES", 7)
    table = archive(np.random.default_rng(3))
    table.meta["odd"] = [None if k < 20 else k for k in range(len(table))]
    for size in (1, 3, 7, 8, 40):
        with tables.ParquetEvents(tmp_path / f"{size}.parquet") as out:
            for a in range(0, len(table), size): out.write(table[a:a + size])
        back = read_events(out.path)
        assert back == table and back.meta.odd.isna().sum() == 20 and digest(back) == digest(read_events(table.write(tmp_path / "w.parquet", overwrite=True)))


@pytest.mark.slow
def test_a_footer_of_version_0_1_over_the_readers_limit_is_read(tmp_path):
    n = 170_000
    gti = np.random.default_rng(0).uniform(0, 1, (n, 60)).cumsum(axis=1).reshape(-1, 2)
    table = EventTable([f"{k}_1" for k in range(n)], np.zeros(n + 1, int), [], [], gti, np.arange(n + 1) * 30)
    path = first_format(table, tmp_path / "old.parquet")
    assert struct.unpack("<I", path.read_bytes()[-8:-4])[0] > 100_000_000  # what pyarrow reads by default
    assert read_events(path) == table


@pytest.mark.slow
@pytest.mark.parametrize("sources, photons, intervals", [(1_000_000, 1, 4), (100_000, 1, 50), (2_000_000, 5, 0)])
def test_large_archives_are_written_and_read_back_equal(sources, photons, intervals, tmp_path):
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(0, 1e4, (sources, photons)), axis=1).ravel()
    edges = np.linspace(0, 1e4, intervals + 1)
    gti = np.tile(np.c_[edges[:-1], edges[1:]], (sources, 1)) if intervals else None
    table = EventTable([f"{k}_1" for k in range(sources)], np.arange(sources + 1) * photons, time, rng.uniform(500, 7000, len(time)),
                       gti, np.arange(sources + 1) * intervals if intervals else None)
    path = table.write(tmp_path / "t.parquet")
    assert read_events(path) == table
    assert read_events(path, ids=["77_1"])["77_1"] == table["77_1"]


def test_writing_is_linear_in_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 1000)
    def size(n): return EventTable([f"{k:06d}_1" for k in range(n)], np.arange(n + 1), np.arange(n) * 1.0).write(tmp_path / f"{n}.parquet").stat().st_size
    assert size(40_000) < 4.5 * size(10_000)  # ids stand once, not once a row group


def test_a_rewritten_archive_is_not_taken_for_ours(tmp_path):
    import pyarrow.parquet as pq
    path = archive(np.random.default_rng(3)).write(tmp_path / "t.parquet")
    pq.write_table(pq.read_table(path), tmp_path / "again.parquet")
    with pytest.raises(EventDataError, match="again.parquet.*another program wrote it anew"):
        read_events(tmp_path / "again.parquet")
    plain = EventTable.from_frame(pd.read_parquet(path))  # other tools see the photons
    assert plain.n_events == read_events(path).n_events


def sealed(path, change):
    "Change a file's index and seal it again, as somebody with bad intentions would."
    whole = path.read_bytes()
    length = struct.unpack("<I", whole[-8:-4])[0]
    footer = whole[-8 - length:-8]
    start = whole.rindex(b'{"format"')
    index = json.loads(whole[start:len(whole) - 8 - length - tables.SEAL.size])
    change(index)
    text = json.dumps(index).encode()
    path.write_bytes(whole[:start] + text + tables._seal(text, footer) + footer + whole[-8:])
    return path


@pytest.mark.parametrize("change", [
    lambda i: i["sources"][0].__setitem__(0, 10**15), lambda i: i["sources"][0].__setitem__(3, 7), lambda i: i["sources"][0].pop(),
    lambda i: i["ids"][0].__setitem__(0, 3), lambda i: i.update(format=2), lambda i: i["sources"].append(i["sources"][0]), lambda i: i["groups"][0].__setitem__(0, 2**62), lambda i: i["groups"][0].__setitem__(0, -1),
    lambda i: i["groups"][0].__setitem__(1, 10**12), lambda i: i["groups"].clear(), lambda i: i.pop("sources"), lambda i: i.update(groups=None),
    lambda i: i.update(groups={}), lambda i: i.update(format="2"), lambda i: i["gtis"][0].__setitem__(0, 0), lambda i: i["groups"][0].__setitem__(1, None),
    lambda i: i["groups"][0].__setitem__(1, 2), lambda i: i["groups"].append(i["groups"][0]), lambda i: i["gtis"][0].__setitem__(1, "x")])
def test_an_index_that_lies_is_refused(change, tmp_path):
    path = sealed(archive(np.random.default_rng(4)).write(tmp_path / "t.parquet"), lambda i: None)
    assert len(read_events(path)) == 40
    with pytest.raises(EventDataError, match="t.parquet"):
        read_events(sealed(path, change))


@pytest.mark.parametrize("counts", [[3, -1], [2**62, 2**62], [1, 2], [None, 2], [1.0, 1.0]])
def test_counts_that_lie_are_refused(counts, tmp_path, monkeypatch):
    import pyarrow as pa
    real = tables._source_table
    def lie(*args):
        table = real(*args)
        return table.set_column(1, "counts", pa.array(counts))
    monkeypatch.setattr(tables, "_source_table", lie)
    monkeypatch.setattr(tables, "_read_back", lambda out: None)
    path = EventTable.from_dict({"a": ([1.0], [600]), "b": ([1.0], [600])}).write(tmp_path / "t.parquet")
    with pytest.raises(EventDataError, match="t.parquet.*the numbers of events don't add up to 2"):
        read_events(path)


def test_what_cannot_be_read_back_is_not_kept(tmp_path, monkeypatch):
    table = archive(np.random.default_rng(4))
    real = tables._put_seal
    def flip(path, at, index):
        real(path, at, index)
        with open(path, "r+b") as f:
            f.seek(100)
            byte = f.read(1)[0]
            f.seek(100)
            f.write(bytes([byte ^ 4]))
    monkeypatch.setattr(tables, "_put_seal", flip)
    with pytest.raises(EventDataError, match="were changed"):
        table.write(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_columns_that_cannot_be_written_are_named(tmp_path):
    for column in (np.zeros((2, 3)), np.array([1j, 2]), np.array([{}, 1], dtype=object), np.array([[1], "a"], dtype=object)):
        table = EventTable(["a"], [0, 2], [1.0, 2], columns={"odd": column})
        with pytest.raises(EventDataError, match="column 'odd' can't be written"):
            table.write(tmp_path / "t.parquet")
    one, other = (EventTable(["a"], [0, 1], [1.0], columns={"c": np.array([v], dtype=object)}) for v in (1, "x"))
    with pytest.raises(EventDataError, match="another type than in the tables before"), tables.ParquetEvents(tmp_path / "t.parquet") as out:
        out.write(one)
        out.write(other[:])
    with pytest.raises(EventDataError, match="same columns"), tables.ParquetEvents(tmp_path / "t.parquet") as out:
        out.write(one)
        out.write(EventTable(["b"], [0, 1], [1.0]))


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    table = archive(np.random.default_rng(4), n=400)
    real = tables._Counted.write
    def full(self, content):
        if self.at > 3000: raise OSError(28, "No space left on device")
        return real(self, content)
    monkeypatch.setattr(tables._Counted, "write", full)
    with pytest.raises(OSError, match="t.parquet.*disk is full"):
        table.write(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_a_foreign_parquet_file_that_lies_is_refused(tmp_path):
    frame = pd.DataFrame({"obsreg_id": ["a"] * 2000, "time": np.arange(2000.0), "energy": 700.0})
    frame.to_parquet(tmp_path / "t.parquet", compression="none")
    whole = (tmp_path / "t.parquet").read_bytes()
    assert read_events(tmp_path / "t.parquet").n_events == 2000
    report = judge("tests.support.data_readers:events", [("bit", whole[:a] + bytes([whole[a] ^ 16]) + whole[a + 1:])
                   for a in range(len(whole) - 700, len(whole) - 8, 10)], suffix=".parquet", whole=whole)
    assert [r for r in report.bad if r[1] != "silent change"] == []


def test_long_ids_cost_nothing(tmp_path):
    body = "obsreg_id,time,energy\n" + "".join(f"{k}_1,1,600\n" for k in range(20_000)) + "x" * 10_000 + ",1,600\n"
    report = judge("tests.support.data_readers:events", [("long", body.encode()), ("long", gzip.compress(body.encode()))], suffix=".csv", memory=300)
    assert all(row[1] == "error" and "has 10000 characters" in row[3] for row in report.rows), report.rows
