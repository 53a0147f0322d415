"""Services that mean no good, or are merely broken: answers that read files, never end, unpack to anything, send us elsewhere; arguments of the wrong kind."""

import gzip
import io
import os
import time
import tracemalloc
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.table import Table

from tests.support.fuzzing import judge, mutants
from tests.support.http_server import HTTPServer, Response
from xrt_nb import _http
from xrt_nb._conditions import cuts, literal
from xrt_nb._http import polite_get, polite_session
from xrt_nb._standins import simulate_catalog
from xrt_nb._votable import read_answer
from xrt_nb.catalogs import Catalog, CatalogError, LocalService, Tap, TapService, resolve
from xrt_nb.data import XRTError, XRTWarning

VOT = ("<?xml version='1.0'?>{doctype}<VOTABLE version='1.3' xmlns='http://www.ivoa.net/xml/VOTable/v1.3'><RESOURCE type='results'>"
       "<INFO name='QUERY_STATUS' value='OK'/><TABLE{table}><FIELD name='ra' datatype='double'/>{field}<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>")
ROWS = "<TABLEDATA><TR><TD>1.5</TD></TR></TABLEDATA>"


def vot(data=ROWS, doctype="", table="", field=""): return VOT.format(data=data, doctype=doctype, table=table, field=field).encode()


# --- VOTables that do more than hold a table ----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["file", "http", "ftp", "https"])
@pytest.mark.parametrize("kind", ["BINARY", "BINARY2", "FITS", "PARQUET type='VOTable-remote-file'"])
@pytest.mark.parametrize("encoding", ["", " encoding='base64'", " encoding='gzip'"])
def test_no_row_is_fetched_from_elsewhere(tmp_path, monkeypatch, scheme, kind, encoding):
    def never(*_, **__): raise AssertionError("something was opened")
    monkeypatch.setattr("urllib.request.urlopen", never)
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([4.2], dtype=">f8").tobytes())
    href = secret.as_uri() if scheme == "file" else f"{scheme}://127.0.0.1:9/x"
    data = f"<{kind}><STREAM href='{href}'{encoding}/></{kind.split()[0]}>"
    with pytest.raises(CatalogError, match="rows lie elsewhere|form that no answer needs"): read_answer(vot(data))
    with pytest.raises(CatalogError, match="rows lie elsewhere|form that no answer needs"): read_answer(gzip.compress(vot(data)))
    with pytest.raises(CatalogError, match="rows lie elsewhere|form that no answer needs"): read_answer(vot(data).decode().replace("<?xml version='1.0'?>", "").encode("utf-16"))
    prefixed = vot(data).replace(b"<", b"<v:").replace(b"<v:/", b"</v:").replace(b"<v:?", b"<?").replace(b"xmlns=", b"xmlns:v=")
    with pytest.raises(CatalogError): read_answer(prefixed)


BOMBS = {"rows": vot(table=" nrows='99999999999'"), "width": vot(field="<FIELD name='c' datatype='char' arraysize='9999999999'/>"),
         "shape": vot(field="<FIELD name='c' datatype='double' arraysize='99999x99999'/>"), "digits": vot(table=f" nrows='{'9' * 5000}'"),
         "columns": vot(field="<FIELD name='c' datatype='int'/>" * 20_000), "depth": vot(field="<GROUP>" * 5000 + "</GROUP>" * 5000),
         "gzip": gzip.compress(bytes(1 << 29), 9), "gzip of a table": gzip.compress(vot(field=" " * (1 << 29)), 9),
         "laughs": vot(doctype="<!DOCTYPE v [<!ENTITY a 'haha'>" + "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi")) + "]>", data="<TABLEDATA><TR><TD>&i;</TD></TR></TABLEDATA>"),
         "entity from a file": vot(doctype="<!DOCTYPE v [<!ENTITY a SYSTEM '" + "file:" + "///etc/hostname'>]>", data="<TABLEDATA><TR><TD>&a;</TD></TR></TABLEDATA>")}


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_answers_stay_small(bomb):
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(CatalogError): read_answer(BOMBS[bomb])
        assert tracemalloc.get_traced_memory()[1] < 700e6 and time.process_time() - start < 10
    finally: tracemalloc.stop()


def test_what_would_be_cut_or_clipped_is_an_error_and_blanks_are_said():
    with pytest.raises(CatalogError, match="out of range"):
        read_answer(vot("<TABLEDATA><TR><TD>1</TD><TD>70000</TD></TR></TABLEDATA>", field="<FIELD name='n' datatype='short'/>"))
    with pytest.raises(CatalogError, match="too long"):
        read_answer(vot("<TABLEDATA><TR><TD>1</TD><TD>2CXO J1</TD></TR></TABLEDATA>", field="<FIELD name='n' datatype='char' arraysize='4'/>"))
    with pytest.raises(CatalogError, match="nrows"): read_answer(vot(table=" nrows='3'"))
    for cell in ("1.2.3", "abc"):
        with pytest.raises((CatalogError, XRTWarning), match="no numbers|ValueError|float"): read_answer(vot(f"<TABLEDATA><TR><TD>{cell}</TD></TR></TABLEDATA>"))


# --- bodies, redirects --------------------------------------------------------------------------------------------


def forever(piece=bytes(1 << 16)):
    "A body that never ends."
    while True: yield piece


def drops():
    "A body that drips."
    for _ in range(600):
        yield b" "
        time.sleep(0.02)


XML = {"Content-Type": "text/xml"}


def endless(_): return Response(forever(), headers=XML)


def packed(_):
    "A body that unpacks to a gigabyte."
    return Response(iter([gzip.compress(bytes(1 << 27), 9) * 8]), headers={"Content-Encoding": "gzip"})


def twice(_): return Response(iter([gzip.compress(gzip.compress(bytes(1 << 20)))]), headers={"Content-Encoding": "gzip, gzip"})


def drip(_): return Response(drops(), headers=XML)


def order(server, answers):
    "Answers of a server by address."
    for path, answer in answers.items(): server.expect_request(path).respond_with_handler(answer)


def visits(server): return [request.path for request, _ in server.log]


def sent_to(location): return lambda _: Response(b"", 303, {"Location": location})


@pytest.mark.parametrize("answer, words", [(endless, "longer than"), (packed, "longer than|truncated"), (twice, "packed as"), (drip, "bytes came in")])
@pytest.mark.parametrize("how", ["get", "sync", "async"])
def test_every_body_has_an_end(httpserver, monkeypatch, answer, words, how):
    monkeypatch.setattr(_http, "_SLOW", (0.3, 1000.0))
    monkeypatch.setattr(time, "sleep", lambda s, sleep=time.sleep: sleep(min(s, 0.02)))
    order(httpserver, dict.fromkeys(["/x", "/tap/sync", "/tap/async"], answer))
    session = polite_session(retries=0, timeout=(2, 2), whole=True, max_bytes=1 << 22)
    with session, pytest.raises(CatalogError, match=words):
        if how == "get": polite_get(httpserver.url_for("/x"), retries=0, timeout=(2, 2), max_bytes=1 << 22)
        else: TapService(httpserver.url_for("/tap"), mode=how, session=session).fetch("SELECT 1")


def test_the_page_of_an_error_or_a_redirect_may_be_endless_too(httpserver):
    order(httpserver, {"/error": lambda _: Response(forever(b"<title>Not here</title>" + bytes(1 << 16)), 404), "/away": lambda _: Response(forever(), 302, {"Location": "/x"}), "/x": lambda _: Response(b"here")})
    with pytest.raises(CatalogError, match="404 Not Found: 'Not here'"): polite_get(httpserver.url_for("/error"), retries=0)
    assert polite_get(httpserver.url_for("/away"), retries=0).content == b"here"


MALFORMED = ["file:" + "///etc/hostname", "ftp://127.0.0.1/x", "http://[::1", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://me:pw@127.0.0.1/", "gopher://x/", "javascript:1",
             "data:text/plain,x", "http://a b/", "http://\x01/", "http://" + "a" * 9000 + "/", "//[", "\\\\host\\share"]
FOREIGN = ["http://192.0.2.1/x", "http://169.254.169.254/latest", "http://localhost:1/x", "http://127.0.0.1.example.org/", "https://127.0.0.1/x", "http://0.0.0.0/", "http://2130706433/", "//192.0.2.1/x"]


@pytest.mark.parametrize("location", MALFORMED + FOREIGN)
@pytest.mark.parametrize("how", ["get", "sync", "async", "own session"])
def test_redirects_elsewhere_are_refused(httpserver, location, how):
    import requests
    order(httpserver, dict.fromkeys(["/x", "/tap/sync", "/tap/async"], sent_to(location)))
    with pytest.raises(CatalogError, match="sends us to|40|Redirect|Invalid|no http"):
        if how == "get": polite_get(httpserver.url_for("/x"), retries=0)
        elif how == "own session":
            with requests.Session() as own: polite_get(httpserver.url_for("/x"), retries=0, session=own)
        else:
            with polite_session(retries=0, whole=True) as s: TapService(httpserver.url_for("/tap"), mode=how, session=s).fetch("SELECT 1")
    assert len(visits(httpserver)) == 1


def test_another_port_is_another_service_unless_trusted(httpserver):
    with HTTPServer() as other:
        other.expect_request("/x").respond_with_data("secret")
        httpserver.expect_request("/x").respond_with_handler(sent_to(other.url_for("/x")))
        with pytest.raises(CatalogError, match="another host or port; if you trust 127.0.0.1"): polite_get(httpserver.url_for("/x"), retries=0)
        assert visits(other) == []
        with polite_session(trust="127.0.0.1") as s: assert polite_get(httpserver.url_for("/x"), session=s).content == b"secret"


def test_a_jobs_result_lies_at_the_service(httpserver):
    job = ("<uws:job xmlns:uws='http://www.ivoa.net/xml/UWS/v1.0' xmlns:xlink='http://www.w3.org/1999/xlink'><uws:jobId>1</uws:jobId><uws:phase>COMPLETED</uws:phase>"
           "<uws:results><uws:result id='result' xlink:href='{}'/></uws:results></uws:job>")
    for href in ("file:" + "///etc/hostname", "http://192.0.2.1/x", "http://[::1"):
        def page(_): return Response(job.format(href), headers=XML)
        order(httpserver, {"/tap/async": sent_to("/tap/async/1"), "/tap/async/1": page, "/tap/async/1/phase": page})
        with polite_session(retries=0, whole=True) as s, pytest.raises(CatalogError, match="sends us to|Invalid IPv6"):
            TapService(httpserver.url_for("/tap"), mode="async", session=s).fetch("SELECT 1")


def test_a_redirect_to_nowhere_is_no_answer(httpserver):
    httpserver.expect_request("/x").respond_with_data(b"", 302)
    httpserver.expect_request("/y").respond_with_data(b"", 304)
    for page in "xy":
        with pytest.raises(CatalogError, match="30[24]"): polite_get(httpserver.url_for(f"/{page}"), retries=0)


@pytest.mark.parametrize("url", ["", None, 5, "file:" + "///etc/hostname", "ftp://x/y", "x", "http://", "http://[", "http://a b", ["http://x"], "http://" + "a" * 9000])
def test_addresses_that_are_none(url):
    with pytest.raises(CatalogError, match="no http"): polite_get(url, retries=0)


# --- answers that were kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff\xfe", b"5", b"null", b'{"sha256": 5}', b'{"sha256": null, "date": 3}', b"[" * 100_000, b'{"a": "' + b"x" * (1 << 25) + b'"}'])
def test_damaged_facts_of_a_kept_answer_are_asked_again(tmp_path, damage):
    class Service:
        url, asked = "local", 0
        def fetch(self, *_):
            self.asked += 1
            return vot()
    service = Service()
    tap = Tap(service, cache=tmp_path)
    tap.ask("SELECT 1")
    (about,) = tmp_path.glob("*.json")
    about.write_bytes(damage)
    assert len(tap.ask("SELECT 1")) == 1 and service.asked == 2
    about.write_bytes(damage)
    with pytest.raises(CatalogError, match="offline, and no answer"): Tap("local", cache=tmp_path, offline=True).ask("SELECT 1")


def test_an_answer_that_cannot_be_kept_is_still_an_answer(tmp_path):
    class Service:
        url = "local"
        def fetch(self, *_): return vot()
    (tmp_path / "file").write_text("")
    with pytest.warns(XRTWarning, match="can't be kept.*XRT_NB_CACHE"): assert len(Tap(Service(), cache=tmp_path / "file").ask("SELECT 1")) == 1
    tap = Tap(Service(), cache=tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "thesis").write_text("mine")
    for file in tap._files("SELECT 1"): file.symlink_to(tmp_path / "thesis")
    with pytest.warns(XRTWarning, match="symbolic link"): tap.ask("SELECT 1")
    assert (tmp_path / "thesis").read_text() == "mine"


# --- arguments of the wrong kind ----------------------------------------------------------------------------------

ODD = [None, True, 0, -3, 1.5, float("nan"), float("inf"), 10**5000, "", "x", "'; DROP TABLE x --", "a\0b", "x" * 10_000, b"x", [], [None], [[]], {}, {"a": 1}, object(), lambda: 0,
       np.array([1, 2]), np.nan, pd.NA, pd.NaT, 3 * u.s, Table({"a": [1]}), pd.DataFrame({"a": [1]}), "not " * 1200 + "ra > 1", "(" * 300 + "ra > 1" + ")" * 300, "ra > " + "-" * 4000 + "1"]
CAT = Catalog(service=LocalService(simulate_catalog(40)), cache=False)


@pytest.mark.parametrize("argument", ["level", "columns", "where", "near", "radius", "names", "ids", "match", "order", "limit", "maxrec"])
def test_arguments_of_the_wrong_kind_are_named(argument):
    for k, odd in enumerate(ODD):
        kw = {"near": (1, 2)} if argument == "radius" else {}
        try: CAT.query(**kw | {argument: odd})
        except (XRTError, ValueError) as err:
            assert len(str(err)) < 600, (k, len(str(err)))
            assert str(err).startswith("`") or "column" in str(err) or "cone" in str(err) or "query" in str(err) or "id of the form" in str(err) or "detection" in str(err), (k, err)


@pytest.mark.parametrize("call", [lambda v: CAT.ask(v), lambda v: CAT.ask("SELECT 1 AS a", maxrec=v), lambda v: CAT.ask("SELECT 1 AS a", uploads=v), lambda v: CAT.ask("SELECT 1 AS a", overflow=v),
                                  lambda v: Catalog(release=v, service=LocalService({}), cache=False), lambda v: Catalog(chunk=v, service=LocalService({}), cache=False),
                                  lambda v: Tap(v if v is not None else 5, cache=False, offline=True).ask("SELECT 1"), lambda v: resolve(v, CAT.service, cache=False), cuts, literal])
def test_other_calls_with_odd_arguments(call):
    for odd in ODD:
        try: call(odd)
        except (XRTError, ValueError) as err: assert len(str(err)) < 12_000


def test_numbers_that_no_database_holds():
    for v in (1 << 63, -(1 << 70), 10**5000):
        with pytest.raises(ValueError, match="can't stand in a query"): literal(v)


# --- fuzzers ------------------------------------------------------------------------------------------------------


def whole_votable(n=12):
    "A table of every kind of column, as a service sends it."
    t = Table({"name": [f"2CXO J{k}" for k in range(n)], "ra": np.linspace(0, 300, n), "n": np.arange(n, dtype=np.int32), "f": np.linspace(0, 1, n, dtype=np.float32), "b": np.arange(n) % 2 == 0,
               "v": np.arange(3 * n, dtype=float).reshape(n, 3)})
    from astropy.io import votable
    out = []
    for form in ("tabledata", "binary", "binary2"):
        tree = votable.from_table(t)
        tree.resources[0].infos.append(votable.tree.Info(name="QUERY_STATUS", value="OK"))
        with io.BytesIO() as f:
            tree.to_xml(f, tabledata_format=form)
            out.append(f.getvalue().replace(b"<RESOURCE type=\"results\">", b"<RESOURCE type='results'>"))
    return out


def reply(body, **headers):
    "An HTTP answer as it goes over the wire."
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/x-votable+xml", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()), "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def whole_replies():
    "Answers with a length, in chunks, packed, and to the end of the line; and a redirect."
    body = whole_votable(3)[0]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[k:k + 500]), body[k:k + 500]) for k in range(0, len(body), 500)) + b"0\r\n\r\n"
    z = gzip.compress(body, mtime=0)
    return [reply(body, Content_Length=len(body)), reply(chunks, Transfer_Encoding="chunked"), reply(z, Content_Length=len(z), Content_Encoding="gzip"), reply(body),
            b"HTTP/1.1 303 See Other\r\nLocation: /tap/async/1\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"]


ALL = ("cut", "bit", "byte", "zeros", "insert", "remove", "repeat", "swap", "word")  # an answer has no checksum: a changed digit is another number


def fuzz(function, wholes, n, seed, suffix):
    "Break each of the good inputs n times; everything must end in an answer or in one sentence of ours."
    broken = chain.from_iterable(mutants(data, n, seed) for data in wholes)
    report = judge(f"tests.support.catalog_readers:{function}", broken, suffix=suffix, silent=ALL)
    bad = [row for row in report.bad if row[1] != "silent change"]
    assert bad == [] and report.peak < 1024, (bad[:3], report.peak)
    return report.counts


def test_broken_votables(): assert fuzz("answer", whole_votable(), 20, 1, ".vot")["error"] > 15


def test_broken_http(): assert fuzz("asked", whole_replies(), 12, 1, ".http")["error"] > 15


MANY = int(os.environ.get("XRT_NB_MUTANTS", 300))


@pytest.mark.slow
def test_hundreds_of_broken_votables(): assert fuzz("answer", whole_votable(), MANY, 2, ".vot")["error"] > MANY // 5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asked", "job", "page"])
def test_hundreds_of_broken_http_answers(how): assert fuzz(how, whole_replies(), MANY // 4, 2, ".http")["error"] > MANY // 5
