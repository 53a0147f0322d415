"""What the fuzzers of event tables call: everything that a file says, as one digest, or a comparison with a reader of our own."""
import csv
import gzip
import hashlib
import io
import warnings

import numpy as np

from xrt_nb.data import EventList, EventTable, XRTWarning
from xrt_nb.tables import read_events, read_table


def archive(rng, n=40, photons=30, columns=True):
    "A table with GTIs, meta of all kinds and further columns."
    lists = []
    for k in range(n):
        m = int(rng.integers(0, photons))
        t = np.sort(rng.uniform(0, 9e3, m).round(3))
        gti = [[0, 4e3 + k], [4.5e3 + k, 1e4]]
        t = t[(t <= gti[0][1]) | (t >= gti[1][0])]
        more = {"chipx": np.arange(len(t)), "inst": np.array(["PN", "é"] * len(t), dtype=object)[:len(t)]} if columns else None
        meta = {"obsid": k, "name": f"source {k}", "ra": k / 7, "exposure": None if k % 3 else 1e4, "note": "x" if k % 2 else None}
        lists.append(EventList(t, rng.uniform(500, 7000, len(t)).round(1), f"{1000 + k}_{k}", gti, meta, more))
    return EventTable.from_lists(lists)


def digest(table):
    "Every value of a table in one line."
    parts = [table.ids, table.offsets, table.time, table.energy, table.gti, table.gti_offsets, *table.columns.values()]
    h = hashlib.sha256()
    for p in parts:
        h.update(b"-" if p is None else repr(p.tolist()).encode() if p.dtype == object else p.dtype.str.encode() + p.tobytes())
    h.update(repr((sorted(table.columns), table.meta.astype(object).where(table.meta.notna(), None).to_dict("split"))).encode())
    return h.hexdigest()


def events(path):
    "A digest of what a file holds, whole and one source of it."
    table = read_events(path)
    if len(table):
        some = read_events(path, ids=table.ids[-1:].tolist())
        assert some == table[-1:]
    return digest(table)


def reference(path):
    "The rows of a CSV file by the standard library, as strictly: ids, times, energies."
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    rows = [r for r in csv.reader(io.StringIO(text, newline="")) if r and not r[0].startswith("#")]
    names = [n.strip() for n in rows[0]]
    assert all(len(r) == len(names) for r in rows[1:]), "ragged"
    i, t, e = (names.index(n) for n in ("obsreg_id", "time", "energy"))
    return sorted((r[i].strip("\ufeff\u200b \t\xa0"), float(r[t]), float(r[e])) for r in rows[1:])


def csv_agrees(path):
    "Does the reader see in a CSV file what the standard library sees?"
    from pathlib import Path
    table = read_events(path)
    got = sorted(zip(np.repeat(table.ids, table.counts).tolist(), table.time.tolist(), table.energy.tolist()))
    return "agrees" if got == reference(Path(path)) else f"differs: {got[:2]} and {reference(Path(path))[:2]}"


def known(path):
    "Does the reader of lists see in a CSV file what the standard library sees?"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRTWarning)
        frame = read_table(path, ["obsreg_id", "class"], None)
    with open(path, encoding="utf-8-sig", newline="") as f: rows = [r for r in csv.reader(f) if r and not r[0].startswith("#")]
    want = [[v.strip() or None for v in r] for r in rows[1:]]
    return "agrees" if frame.to_numpy(dtype=object).tolist() == want else f"differs: {frame.to_numpy().tolist()[:2]} and {want[:2]}"
