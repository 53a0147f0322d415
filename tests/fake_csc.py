"""A small stand-in for the Chandra Source Catalog's file service, on this machine only, and small simulated products to serve.

It answers `/retrieve?version=rel2.1&packageset=<obsid>.<obi>.<region>/<type>/<band>,...` with a tar of the files of a folder, and fails on purpose
where a script says so. The tests and the notebook on products use it.
"""
import gzip
import hashlib
import http.server
import io
import re
import tarfile
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits

TYPES = {"regevt3": "regevt3", "srcreg": "reg3", "lightcurve": "lc3", "spectrum": "pha3", "arf": "arf3", "rmf": "rmf3"}
MARK = b"simulated 00000"


def _events(n=40, seed=1):
    "A small simulated ACIS event file."
    rng = np.random.default_rng(seed)
    t = np.sort(7e8 + rng.uniform(0, 1e4, n))
    cols = [("time", "D", None, t), ("ccd_id", "I", None, np.full(n, 7)), ("x", "E", None, rng.normal(4000, 3, n)), ("y", "E", None, rng.normal(4000, 3, n)),
            ("pha", "J", None, np.full(n, 200)), ("grade", "I", None, np.zeros(n)), ("energy", "E", "eV", rng.lognormal(7.4, 0.5, n))]
    ev = fits.BinTableHDU.from_columns([fits.Column(a, f, u, array=v) for a, f, u, v in cols], name="EVENTS")
    ev.header.update({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBJECT": MARK.decode(), "MJDREF": 50814.0, "TIMESYS": "TT", "TSTART": 7e8, "TSTOP": 7e8 + 1e4})
    gti = fits.BinTableHDU.from_columns([fits.Column(c, "D", array=[v]) for c, v in (("START", 7e8), ("STOP", 7e8 + 1e4))], name="GTI")
    gti.header["CCD_ID"] = 7
    return _bytes(fits.HDUList([fits.PrimaryHDU(), ev, gti]))


def _region():
    "A source ellipse that holds nearly all of `_events`."
    cols = [("SHAPE", "16A", ["Ellipse"]), ("X", "D", [4000.0]), ("Y", "D", [4000.0]), ("R", "2D", [[12.0, 10.0]]), ("ROTANG", "D", [30.0]), ("COMPONENT", "I", [1])]
    hdu = fits.BinTableHDU.from_columns([fits.Column(a, f, array=np.array(v)) for a, f, v in cols], name="ECF90REGB")
    hdu.header["OBJECT"] = MARK.decode()
    return _bytes(hdu)


def _bytes(hdus):
    out = io.BytesIO()
    hdus.writeto(out)
    return out.getvalue()


def make_products(folder, obsids, region=1, zipped=True):
    "Write a simulated pair of event and region file for each observation; every file differs from every other."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, template in (("regevt3", _events()), ("reg3", _region())):
        for o in obsids:
            data = template.replace(MARK, b"simulated %05d" % o)
            name = f"acisf{o:05d}_000N001_r{region:04d}_{kind}.fits"
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data, 1, mtime=0) if zipped else data)
    return folder


def tar_of(members, end=True):
    "A tar archive of (name, bytes) pairs or ready TarInfo objects; without its end marks if wanted."
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for m in members:
            if isinstance(m, tarfile.TarInfo):
                t.addfile(m)
                continue
            info = tarfile.TarInfo(m[0])
            info.size = len(m[1])
            t.addfile(info, io.BytesIO(m[1]))
        size = t.offset
    return out.getvalue() if end else out.getvalue()[:size]


class FileService:
    "The service: `with FileService(folder) as csc: csc.url`. `script(n, wanted, service)` may return (status, headers, body) instead of the files."
    def __init__(self, folder, script=None, pause=0.0):
        self.folder, self.script, self.pause, self.requests, self.sent = Path(folder), script, pause, [], []
        names = [(f, re.match(r"(?:acis|hrc)f0*(\d+)_(\d+)N.*_r0*(\d+)[a-z]?_(\w+)\.fits", f.name)) for f in sorted(self.folder.iterdir())]
        self.files = {(int(m[1]), int(m[2]), int(m[3]), m[4]): f for f, m in names if m}
        self.sums = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in self.files.values()}
        self.lock = threading.Lock()

    def wanted(self, query):
        "Keys of a packageset."
        out = []
        for item in query["packageset"][0].split(","):
            place, kind, band = item.split("/")
            out.append((*map(int, place.split(".")), TYPES[kind]))
        return out

    def members(self, wanted): return [(f"package/{self.files[k].name}", self.files[k].read_bytes()) for k in wanted if k in self.files]

    def answer(self, path, headers):
        query = parse_qs(urlsplit(path).query)
        with self.lock:
            n = len(self.requests)
            self.requests.append(path)
        time.sleep(self.pause)
        if not urlsplit(path).path.endswith("/retrieve"): return 404, {}, b"<html><title>no such service</title></html>"
        wanted = self.wanted(query)
        if self.script and (said := self.script(n, wanted, self)) is not None: return said
        with self.lock: self.sent += wanted
        return 200, {"Content-Type": "application/x-tar"}, tar_of(self.members(wanted))

    def __enter__(self):
        service = self
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, headers, body = service.answer(self.path, self.headers)
                try:
                    self.send_response(status)
                    for k, v in ({"Content-Length": str(len(body))} | headers).items():
                        if v is not None: self.send_header(k, v)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError: pass # the client has gone
            def log_message(self, *_): pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class TableService(FileService):
    "Serves one file with a version, and parts of it on request; the first answer breaks off after `cut` bytes."
    def __init__(self, path, cut=None, version='"v1"'):
        super().__init__(Path(path).parent)
        self.path, self.cut, self.version, self.headers = Path(path), cut, version, []

    def answer(self, path, headers):
        self.headers.append(dict(headers))
        body, begin = self.path.read_bytes(), 0
        if "Range" in headers and headers.get("If-Range") == self.version: begin = int(headers["Range"].removeprefix("bytes=").rstrip("-"))
        said = {"ETag": self.version, "Content-Length": str(len(body) - begin)}
        if begin: said["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        end = self.cut if self.cut and len(self.headers) == 1 else None
        return 206 if begin else 200, said, body[begin:end]
