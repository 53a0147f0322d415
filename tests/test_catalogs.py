"""Catalogue queries without a TAP server: faults served on purpose, the recorded real answer, kept answers, and text that tries to be ADQL."""

import re
import threading
import time
from email.utils import formatdate

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.absent import absent
from tests.support.http_server import Script
from xrt_nb import _http, catalogs
from xrt_nb._conditions import cuts, identifier, literal
from xrt_nb._http import polite_get, polite_session
from xrt_nb._standins import simulate_catalog
from xrt_nb._votable import read_answer
from xrt_nb.catalogs import Catalog, CatalogError, LocalService, Tap, TapService, resolve, separation, sky_boxes
from xrt_nb.data import UnknownSourceError, XRTError, XRTWarning

INFO = "<INFO name='QUERY_STATUS' value='{}'>{}</INFO>"
VOT = ("<?xml version='1.0'?><VOTABLE version='1.3' xmlns='http://www.ivoa.net/xml/VOTable/v1.3'><RESOURCE type='results'>{}<TABLE>"
       "<FIELD name='name' datatype='char' arraysize='*'/><FIELD name='ra' datatype='double'/><FIELD name='dec' datatype='double' unit='deg'/>"
       "<FIELD name='obsid' datatype='int'><VALUES null='-2147483648'/></FIELD><FIELD name='rate' datatype='float' unit='furlong/fortnight'/>"
       "<DATA><TABLEDATA><TR><TD>2CXO J1</TD><TD>10.5</TD><TD>-5</TD><TD>-2147483648</TD><TD>1.5</TD></TR><TR><TD>2CXO J2</TD><TD>11.5</TD><TD>6</TD><TD>4884</TD><TD/></TR>"
       "</TABLEDATA></DATA></TABLE>{}</RESOURCE></VOTABLE>")
GOOD = VOT.format(INFO.format("OK", ""), "").encode()
XML = {"Content-Type": "application/x-votable+xml"}
HTML = {"Content-Type": "text/html"}
ADQL = "SELECT name, ra FROM csc21.master_source"


@pytest.fixture
def faulty(httpserver):
    "A server with a script of answers, and what it was asked."
    gone = threading.Event()
    yield Script(httpserver, gone)
    gone.set()


@pytest.fixture
def slept(monkeypatch):
    "Waiting times, instead of waiting."
    times = []
    monkeypatch.setattr(_http.time, "sleep", times.append)
    return times


def ask(server, *steps, retries=2, timeout=0.5, **kwargs):
    "Put one question to a service that answers with these steps."
    server.script["/tap/sync"] = list(steps)
    with polite_session(retries=retries, timeout=timeout, backoff=0.5, whole=True) as session:
        return Tap(TapService(f"{server.url}/tap", session=session), cache=False).ask(ADQL, **kwargs)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [(500, HTML, b"oops"), (500, {"Content-Type": "application/xhtml+xml"}, b"<html/>"), (502, {}, b""), (503, XML, b"<VOTABLE/>"), (503, {}, b"busy"), (504, {}, b""), (429, {}, b""), (200, XML, GOOD[:300], "short")], ids=lambda s: f"{s[0]}{s[3:]}")
def test_a_temporary_fault_is_asked_again(faulty, slept, step):
    t = ask(faulty, step, step, (200, XML, GOOD))
    assert len(t) == 2 and slept == [0.5, 1.0]
    assert {v[3] for v in faulty.visits} == {faulty.visits[0][3]} and "SELECT" in faulty.visits[0][3]  # the whole question each time


@pytest.mark.parametrize("step, reason", [((500, HTML, b"oops"), "500"), ((200, XML, GOOD[:300], "short"), "IncompleteRead|Connection"), ((200, XML, b"", "slow"), "Timeout|timed out")])
def test_a_lasting_fault_is_an_error_with_its_reason(faulty, slept, step, reason):
    with pytest.raises(CatalogError, match=f"no answer in 3 attempts.*({reason})"):
        ask(faulty, step, timeout=0.1)
    assert len(faulty.visits) == 3


def test_nobody_listening(slept):
    with pytest.raises(CatalogError, match="no answer in 3 attempts.*Connection"):
        polite_get("http://127.0.0.1:9/", retries=2)
    assert slept == [1.0, 2.0]
    for bad in ("no address", "http://[half", "ftp://127.0.0.1/x"):
        with pytest.raises(CatalogError):
            polite_get(bad)


@pytest.mark.parametrize("asked, waits", [("7", [7.0]), ("0", [0.0]), ("in a while", [0.5])])
def test_retry_after_is_kept(faulty, slept, asked, waits):
    assert len(ask(faulty, (503, {"Retry-After": asked}, b""), (200, XML, GOOD))) == 2
    assert slept == waits


def test_retry_after_as_a_date(faulty, slept):
    ask(faulty, (503, {"Retry-After": formatdate(time.time() + 60, usegmt=True)}, b""), (200, XML, GOOD))
    assert 55 < slept[0] <= 60


@pytest.mark.parametrize("asked", ["86400", "inf", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wait_too_long_is_left_to_the_user(faulty, slept, asked):
    with pytest.raises(CatalogError, match="503.*come back in"):
        ask(faulty, (503, {"Retry-After": asked}, b""))
    assert slept == [] and len(faulty.visits) == 1


def test_a_wrong_query_is_not_repeated_even_with_status_500(faulty, slept):
    for status in (400, 500, 200):
        faulty.visits.clear()
        with pytest.raises(CatalogError, match="refuses the query: no such column"):
            ask(faulty, (status, XML, VOT.format(INFO.format("ERROR", "no such column"), "").encode()))
        assert len(faulty.visits) == 1 and slept == []


def test_a_service_that_moved_gets_the_whole_question(faulty):
    def moved(request):
        there = faulty.url.replace("127.0.0.1", "localhost") + "/tap/sync"
        return (303, {"Location": there}, b"") if request.host.startswith("127") else (200, XML, GOOD)
    assert len(ask(faulty, moved)) == 2
    assert [v[:3] for v in faulty.visits] == [("POST", "127.0.0.1", "/tap/sync"), ("POST", "localhost", "/tap/sync")]
    assert faulty.visits[0][3] == faulty.visits[1][3]


def test_a_redirect_to_the_result_is_followed_as_meant(faulty):
    faulty.script["/tap/result/1"] = [(200, XML, GOOD)]
    assert len(ask(faulty, (303, {"Location": "/tap/result/1"}, b""))) == 2
    assert [v[:3:2] for v in faulty.visits] == [("POST", "/tap/sync"), ("GET", "/tap/result/1")]


def test_redirects_in_a_circle_end(faulty, slept):
    with pytest.raises(CatalogError, match="[Rr]edirects"):
        ask(faulty, (303, {"Location": "/tap/sync"}, b""))


@pytest.mark.parametrize("status, headers, body, words", [
    (200, HTML, b"<html><head><title>Scheduled\n downtime</title>", "web page instead of a table: 'Scheduled downtime'"),
    (200, XML, b"<?xml version='1.0'?><!DOCTYPE html><HTML><title>Login</title></HTML>", "web page.*Login"),
    (404, HTML, b"<title>No such service</title>", "404.*No such service"), (403, HTML, b"", "403"), (200, XML, b"", "empty answer"), (200, XML, GOOD[:-80], "not a complete VOTable"),
    (200, {"Content-Type": "text/csv"}, b"name,ra\nx,1\n", "not a complete VOTable.*begins with b'name,ra"), (200, XML, b"\x00\x01\x02", "not a complete VOTable"),
    (200, XML, VOT.format(INFO.format("OK", ""), INFO.format("ERROR", "disk full in row 3")).encode(), "disk full"),
    (200, XML, b"<VOTABLE version='1.3'><RESOURCE type='results'><INFO name='QUERY_STATUS' value='OK'/></RESOURCE></VOTABLE>", "not a complete VOTable.*missing results table")])
def test_what_is_no_answer_is_refused(faulty, slept, status, headers, body, words):
    with pytest.raises(CatalogError, match=words):
        ask(faulty, (status, headers, body))
    assert len(faulty.visits) == 1


@pytest.mark.parametrize("where", [0, 1])
def test_overflow_is_said_before_or_after_the_rows(faulty, where):
    parts = [INFO.format("OK", ""), ""] if where == 0 else [INFO.format("OK", ""), INFO.format("OVERFLOW", "")]
    body = VOT.format(*(parts if where else [INFO.format("OVERFLOW", ""), ""])).encode()
    for maxrec, words in ((None, "larger `maxrec`,"), (2, "larger `maxrec` than 2"), (100, "the service's own limit")):
        with pytest.raises(CatalogError, match=f"truncated after 2 rows.*{words}"):
            ask(faulty, (200, XML, body), maxrec=maxrec)
        with pytest.warns(XRTWarning, match=words):
            t = ask(faulty, (200, XML, body), maxrec=maxrec, overflow="warn")
        assert (len(t), t.meta["complete"]) == (2, False)
    assert ("MAXREC=100" in faulty.visits[-1][3]) and ("MAXREC" not in faulty.visits[0][3])


def test_nulls_and_units(faulty):
    t = ask(faulty, (200, XML, GOOD))
    assert t["obsid"].mask.tolist() == [True, False] and t["obsid"][1] == 4884
    assert (t["ra"].unit, t["dec"].unit, t["rate"].unit) == (u.deg, u.deg, None)  # filled in, served, unknown to astropy
    assert "furlong" in t["rate"].description and t["name"].dtype.kind == "U"
    assert t.meta["complete"] is True and t.meta["adql"] == ADQL


def test_bad_parameters_are_named(faulty):
    for kwargs in (dict(maxrec=0), dict(maxrec=-1), dict(maxrec=1.5), dict(overflow="ignore")):
        with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}`"):
            ask(faulty, (200, XML, GOOD), **kwargs)
    assert not faulty.visits
    with pytest.raises(ValueError, match="`mode`"):
        TapService("http://127.0.0.1", mode="later")
    assert issubclass(CatalogError, XRTError)


def test_a_page_as_a_stream(faulty):
    faulty.script["/file"] = [(503, {"Retry-After": "0"}, b""), (200, {}, b"x" * 100_000)]
    with polite_session() as session, polite_get(f"{faulty.url}/file", session=session, stream=True, params={"a": "1&b=2"}, headers={"X": "y"}) as r:
        assert sum(map(len, r.iter_content(8192))) == 100_000
    assert faulty.visits[-1][3] == "a=1%26b%3D2" and len(faulty.visits) == 2
    with polite_session(retries=0) as session:
        assert session.headers["User-Agent"].startswith("xrt_nb/")


def test_a_polite_session_is_not_polite_twice(faulty, slept):
    faulty.script["/down"] = [(500, {}, b"")]
    with polite_session(retries=3) as session, pytest.raises(CatalogError, match="no answer in 2 attempts"):
        polite_get(f"{faulty.url}/down", session=session, retries=1)
    assert len(faulty.visits) == 2


# --- the recorded real answer -------------------------------------------------------------------------------------


def test_the_real_answer(shared):
    raw = (shared / "data" / "csc" / "csc_response.vot").read_bytes()
    t, short = read_answer(raw)
    assert (len(t), len(t.colnames), short) == (1, 30, False)
    assert (t["name"][0], t["obsid"][0], t["likelihood_class"][0]) == ("2CXO J004307.5-092302", 4884, "TRUE")
    assert {c: str(t[c].unit) for c in ("ra", "dec", "err_ellipse_r0", "bb_kt", "var_mean_b")} == {"ra": "deg", "dec": "deg", "err_ellipse_r0": "arcsec", "bb_kt": "keV", "var_mean_b": "ct / s"}
    assert [c for c in t.colnames if np.ma.getmaskarray(t[c])[0]] == ["powlaw_gamma", "bb_kt", "var_sigma_u"]
    missing, _ = read_answer(raw.replace(b"<TD>4884</TD>", b"<TD>-2147483648</TD>"))
    assert missing["obsid"].mask[0]
    with pytest.raises(CatalogError, match="not a complete VOTable"):
        read_answer(raw[:-200])


def test_the_real_answer_replayed(shared, tmp_path):
    csc = Catalog("2.1", cache=tmp_path, offline=True)
    q = csc.query(names="2CXO J004307.5-092302", columns=["ra", "dec", "significance"], near=(10.78, -9.384), radius=30)
    csc.record(q.adql, (shared / "data" / "csc" / "csc_response.vot").read_bytes(), date="2025-01-01")
    t = q.table()
    assert t.colnames == ["name", "ra", "dec", "significance", "separation"] and t.meta["date"] == "2025-01-01"
    assert t["ra"].unit == u.deg and 0 < t["separation"][0].to_value("arcsec") < 10


# --- kept answers -------------------------------------------------------------------------------------------------


class Counting:
    "A service that counts what it is asked."
    def __init__(self, url="counting", body=GOOD):
        self.url, self.body, self.asked = url, body, []

    def fetch(self, adql, maxrec=None, uploads=None):
        self.asked.append((adql, maxrec))
        return self.body


def test_an_answer_is_kept_under_everything_that_made_it(tmp_path):
    service = Counting()
    one, two = Table({"obsid": [1]}), Table({"obsid": [2]})
    for release, adql, maxrec, uploads in (("2.1", ADQL, None, None), ("2.0", ADQL, None, None), ("2.1", ADQL + " ", None, None), ("2.1", ADQL, 5, None), ("2.1", ADQL, None, {"w": one}),
                                           ("2.1", ADQL, None, {"w": two}), ("2.1", ADQL, None, {"v": one})):
        for _ in range(2):
            Tap(service, cache=tmp_path, release=release).ask(adql, maxrec, uploads)
    assert len(service.asked) == 7
    Tap(Counting("elsewhere"), cache=tmp_path, release="2.1").ask(ADQL)
    assert len(list(tmp_path.glob("*.vot"))) == len(list(tmp_path.glob("*.json"))) == 8


def test_refresh_offline_and_no_cache(tmp_path):
    service = Counting()
    tap = Tap(service, cache=tmp_path)
    first, again = tap.ask(ADQL), tap.ask(ADQL)
    assert first.meta == again.meta and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", first.meta["date"])
    tap.ask(ADQL, refresh=True)
    assert len(service.asked) == 2
    assert len(Tap(service, cache=tmp_path, offline=True).ask(ADQL, refresh=True)) == 2 and len(service.asked) == 2
    with pytest.raises(CatalogError, match="offline, and no answer to this query is kept: SELECT 1"):
        Tap(service, cache=tmp_path, offline=True).ask("SELECT 1")
    Tap(service, cache=False).ask(ADQL)
    assert len(service.asked) == 3 and len(list(tmp_path.iterdir())) == 2


def test_a_damaged_answer_is_asked_again(tmp_path):
    service = Counting()
    tap = Tap(service, cache=tmp_path)
    for name, damage in (("*.vot", lambda b: b.replace(b"10.5", b"99.9")), ("*.vot", lambda b: b[:100]), ("*.json", lambda b: b[:20]), ("*.json", lambda b: b.replace(b'"sha256": "', b'"sha256": "0'))):
        tap.ask(ADQL)
        before = len(service.asked)
        path = next(tmp_path.glob(name))
        path.write_bytes(damage(path.read_bytes()))
        assert tap.ask(ADQL)["ra"][0] == 10.5 and len(service.asked) == before + 1
        with pytest.raises(CatalogError, match="offline"):
            path.write_bytes(damage(path.read_bytes()))
            Tap(service, cache=tmp_path, offline=True).ask(ADQL)


def test_only_answers_are_kept(tmp_path):
    for body in (b"", b"<html>", VOT.format(INFO.format("ERROR", "x"), "").encode(), VOT.format(INFO.format("OVERFLOW", "x"), "").encode(), GOOD[:-20]):
        with pytest.raises(CatalogError):
            Tap(Counting(body=body), cache=tmp_path).ask(ADQL)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # taken truncated, it says so again when it is read from disk
        with pytest.warns(XRTWarning):
            assert Tap(Counting(body=VOT.format(INFO.format("OVERFLOW", "x"), "").encode()), cache=tmp_path).ask(ADQL, overflow="warn").meta["complete"] is False


def test_an_interrupted_list_goes_on_where_it_stopped(tmp_path):
    tables = simulate_catalog(200, random_state=4)
    o = tables["csc21.observation_source"]
    ids = [f"{a}_{b}" for a, b in zip(o["obsid"], o["region_id"])]

    class Flaky(LocalService):
        asked = 0

        def fetch(self, *args):
            self.asked += 1
            if self.asked == 4:
                raise CatalogError("cable pulled")
            return super().fetch(*args)
    service = Flaky(tables)
    q = Catalog("2.1", service, tmp_path, chunk=40).query("observation", columns="hard_hs", ids=ids)
    with pytest.raises(CatalogError, match="cable pulled"):
        q.frame()
    whole = q.frame()
    assert len(whole) == len(set(zip(o["obsid"], o["obi"], o["region_id"]))) and service.asked == len(q.parts) + 1


def test_where_answers_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XRT_NB_CACHE", str(tmp_path / "here"))
    assert catalogs.default_cache() == tmp_path / "here" / "tap" and Tap("vizier").cache == tmp_path / "here" / "tap"
    monkeypatch.delenv("XRT_NB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert catalogs.default_cache() == tmp_path / "there" / "xrt_nb" / "tap"


def test_resolve_asks_for_a_name_only(tmp_path):
    asked = Counting(body=VOT.format(INFO.format("OK", ""), "").encode())
    assert resolve("M 82", asked, cache=False) == (10.5, -5.0)
    with pytest.raises(ValueError):
        resolve("a\\b", asked, cache=False)
    assert resolve("O'Neill", asked, cache=False) and asked.asked[-1][0].endswith("WHERE ident.id = 'O''Neill'")
    rows = re.compile(b"<TR>.*</TR>", re.S)
    with pytest.raises(UnknownSourceError, match="knows no object 'nobody'"):
        resolve("nobody", Counting(body=rows.sub(b"", GOOD)), cache=False)


# --- text that tries to be ADQL -----------------------------------------------------------------------------------


NASTY = st.text(alphabet=st.sampled_from("'\"\\;-/*%_ ()=\n\0aé★0") | st.characters(), max_size=30)


@settings(deadline=None, max_examples=300)
@given(NASTY)
@example("x' OR '1'='1")
@example("'")
@example("'; DROP TABLE t; --")
def test_a_text_stays_that_text(text):
    import sqlite3
    try:
        written = literal(text)
    except ValueError:
        assert not text.isprintable() or "\\" in text
        return
    assert re.fullmatch(r"'(?:[^']|'')*'", written)
    db = sqlite3.connect(":memory:")
    assert db.execute(f"SELECT {written}").fetchall() == [(text,)]
    db.close()


@settings(deadline=None, max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2**60, 2**60))
def test_a_number_stays_that_number(number):
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", literal(number)) and type(number)(literal(number)) == number


@settings(deadline=None, max_examples=150)
@given(NASTY | st.from_regex(r"[a-z_]{1,8}[ ;.'-]?[a-z]{0,3}"))
def test_only_names_are_names(text):
    csc = Catalog("2.1", offline=True, cache=False)
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", text)
    for use in (identifier, lambda t: csc.query(columns=[t]), lambda t: csc.query(order=t)):
        try:
            use(text)
        except ValueError:
            assert not plain
        else:
            assert plain or text == "" or re.fullmatch(r"-?([masbo]\.|master\.|stack\.|observation\.)?[A-Za-z][A-Za-z0-9_]*", text)


@settings(deadline=None, max_examples=200)
@given(st.lists(NASTY, min_size=1, max_size=5))
def test_only_ids_are_ids(texts):
    csc = Catalog("2.1", offline=True, cache=False)
    if all(re.fullmatch(r"[0-9]{1,9}_[0-9]{1,9}", t) for t in texts):
        return
    with pytest.raises(ValueError, match="is not an id of the form obsid_region"):
        csc.query("observation", ids=texts)


@settings(deadline=None, max_examples=50)
@given(st.lists(NASTY.filter(lambda t: t.isprintable() and "\\" not in t), min_size=2, max_size=6, unique=True), st.booleans())
def test_a_name_finds_its_own_row_and_no_other(names, upload):
    table = Table({"name": np.array(names, dtype=str), "ra": np.arange(len(names), dtype=float)})
    csc = Catalog("2.1", LocalService({"csc21.master_source": table}), cache=False, upload=upload)
    for k, name in enumerate(names):
        got = csc.query(columns="ra", names=name).frame()
        assert list(got.ra) == [k]
    got = csc.query(columns="ra", where=f"name == {names[0]!r}").frame()
    assert list(got.ra) == [0]


TOKEN = re.compile(r"\s*(?:'(?:[^']|'')*'|[A-Za-z][A-Za-z0-9_]*|-?\d[\d.]*(?:e[+-]?\d+)?|<=|>=|<>|[=<>(),])", re.A)


@settings(deadline=None, max_examples=400)
@given(NASTY | st.lists(st.sampled_from("ra dec and or not in is None < == > ( ) [ ] , 'x' \"y'\" 3 -1e5 ; -- . = + f( lambda : * @ # \\".split()), max_size=9).map(" ".join))
@example("ra > 3 # ; DROP TABLE x")
@example("ra > 3 if True else 4")
@example("ra == f'{x}'")
@example("ra == b'x'")
@example("ra < 1j")
@example("ra < 1e999")
@example("(((" * 500)
@example("not " * 1200 + "a > 1")
@example("(y := ra) > 3")
def test_cuts_give_comparisons_or_a_refusal(text):
    try:
        adql = cuts(text)
    except ValueError:
        return
    rest = adql
    while rest:
        found = TOKEN.match(rest)
        assert found, (text, adql)
        rest = rest[found.end():]
    words = set(re.findall(r"[A-Za-z]\w*", re.sub(r"'(?:[^']|'')*'", "", adql))) - {"AND", "OR", "NOT", "IN", "IS", "NULL"}
    assert all(w in text or re.fullmatch(r"e\d*", w) for w in words)


ROWS = pd.DataFrame({"a": [1.0, 2.0, np.nan, -3.5, 1.0], "b": [2.0, 2.0, 0.0, np.nan, -1.0], "c": ["x", "it's", "", "x", "AND"]})
SIDE = st.sampled_from(["a", "b"]) | st.sampled_from([1.0, 2.0, -3.5, 0.0, -1.0])
COMPARISON = st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), SIDE, SIDE) | st.tuples(st.just("null"), st.sampled_from("ab"), st.booleans()) | \
    st.tuples(st.just("in"), st.sampled_from("ab"), st.lists(st.sampled_from([1.0, 2.0, -1.0]), min_size=1, max_size=2), st.booleans()) | st.tuples(st.just("text"), st.sampled_from(["x", "it's", "AND"]))
TREE = st.recursive(COMPARISON, lambda sub: st.tuples(st.sampled_from(["and", "or"]), sub, sub) | st.tuples(st.just("not"), sub), max_leaves=8)


def said(tree):
    "A tree as a cut in Python's syntax."
    kind, *rest = tree
    if kind in ("and", "or"):
        return f"({said(rest[0])} {kind} {said(rest[1])})"
    if kind == "not":
        return f"not {said(rest[0])}"
    if kind == "null":
        return f"{rest[0]} is {'not ' * rest[1]}None"
    if kind == "in":
        return f"{rest[0]} {'not ' * rest[2]}in {rest[1]!r}"
    return f"c == {rest[0]!r}" if kind == "text" else f"{rest[0]} {kind} {rest[1]}"


def true(tree, row):
    "Its truth in SQL's three-valued logic: True, False, None for unknown."
    kind, *rest = tree
    if kind in ("and", "or"):
        two = [true(r, row) for r in rest]
        decided = kind == "or"
        return decided if decided in two else None if None in two else not decided
    if kind == "not":
        inner = true(rest[0], row)
        return None if inner is None else not inner
    if kind == "text":
        return row["c"] == rest[0]
    values = [row[r] if isinstance(r, str) else r for r in (rest[:2] if kind not in ("null", "in") else rest[:1])]
    unknown = any(v != v for v in values)
    if kind == "null":
        return unknown != rest[1]
    if unknown:
        return None
    if kind == "in":
        return (values[0] in rest[1]) != rest[2]
    a, b = values
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}[kind]


@settings(deadline=None, max_examples=300)
@given(TREE)
def test_cuts_mean_what_they_say(tree):
    if "local" not in test_cuts_mean_what_they_say.__dict__:
        table = Table.from_pandas(ROWS.assign(n=range(len(ROWS))))
        test_cuts_mean_what_they_say.local = LocalService({"x.rows": table})
    db = test_cuts_mean_what_they_say.local.db
    got = {r[0] for r in db.execute(f"SELECT n FROM x.rows WHERE {cuts(said(tree))}")}
    assert got == {n for n, row in ROWS.iterrows() if true(tree, row) is True}


# --- places -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(st.floats(0, 360), st.floats(-90, 90) | st.sampled_from([90.0, -90.0, 89.999]), st.floats(1e-4, 60), st.floats(0, 360), st.floats(0, 1))
def test_a_cone_lies_in_its_box(ra, dec, radius, angle, share):
    a, d, r, t = np.radians([ra, dec, share * radius, angle])
    centre, east, north = np.array([[np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], [-np.sin(a), np.cos(a), 0], [-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)]])
    x, y, z = centre * np.cos(r) + (east * np.sin(t) + north * np.cos(t)) * np.sin(r)
    there, up = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(z, np.hypot(x, y)))
    ranges, (low, high) = sky_boxes(ra, dec, radius)
    near = 1e-9 / max(np.hypot(x, y), 1e-12)  # what rounding does to a right ascension
    assert low - 1e-9 <= up <= high + 1e-9
    assert any(a - near <= place <= b + near for a, b in ranges for place in (there, there + 360, there - 360))
    assert all(0 <= a <= b <= 360 for a, b in ranges)
    assert np.isclose(separation(there, up, ra, dec), share * radius * 3600, rtol=1e-6, atol=1e-6)


def test_no_place():
    for bad in ((np.nan, 0, 1), (0, 90.1, 1), (0, 0, 0), (0, 0, -1), (0, 0, np.inf), (0, 0, 181)):
        with pytest.raises(ValueError, match="no cone"):
            sky_boxes(*bad)
    csc = Catalog("2.1", offline=True, cache=False)
    for near in ("M 82", 5, (1,), (1, 2, 3), SkyCoord([1, 2], [3, 4], unit="deg"), ("a", "b")):
        with pytest.raises(ValueError, match="`near`"):
            csc.query(near=near)
    one = csc.query(near=SkyCoord(10, 20, unit="deg"), radius=0.5 * u.arcmin)
    assert one.near == (10.0, 20.0) and one.radius == 30.0 and one.adql == csc.query(near=(10 * u.deg, 1200 * u.arcmin), radius=30).adql


def test_limits_count_members_of_the_cone_not_of_the_box():
    ra, dec = np.meshgrid(np.linspace(9, 11, 21), np.linspace(-1, 1, 21))
    table = Table({"name": [f"s{k:03d}" for k in range(ra.size)], "ra": ra.ravel(), "dec": dec.ravel()})
    csc = Catalog("2.1", LocalService({"csc21.master_source": table}), cache=False)
    f = csc.query(columns=[], near=(10, 0), radius=3600, limit=5).frame()
    assert list(f.separation.round(3)) == [0, 360, 360, 360, 360] and "TOP" not in csc.query(near=(10, 0), limit=5).adql
    assert len(csc.query(columns=[], near=(10, 0), radius=3600).frame()) == (np.hypot(ra - 10, dec) <= 1 + 1e-4).sum() < ra.size


# --- answers against pandas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", ["u", "a", None])
def test_the_join_of_five_tables_is_that_of_pandas(match):
    tables = simulate_catalog(300, release="2.0", random_state=9)
    f = {k.split(".")[1]: t.to_pandas() for k, t in tables.items()}
    a = f["master_stack_assoc"]
    t = f["master_source"][["name", "ra"]].merge(a if match is None else a[a.match_type == match]).merge(f["stack_source"][["detect_stack_id", "region_id"]])
    t = t.merge(f["stack_observation_assoc"]).merge(f["observation_source"][["obsid", "obi", "region_id", "hard_hs", "var_index_b"]])
    t = t.assign(obsreg_id=t.obsid.astype(str) + "_" + t.region_id.astype(str))
    ids = np.random.default_rng(1).choice(f["observation_source"].obsid.astype(str) + "_" + f["observation_source"].region_id.astype(str), 200)
    got = Catalog("2.0", LocalService(tables), cache=False, chunk=30).query("observation", columns=["master.name", "master.ra", "hard_hs", "var_index_b", "a.match_type"], ids=ids, match=match).frame()
    want = t[t.obsreg_id.isin(ids)].sort_values(["obsid", "obi", "region_id", "name"])
    keys = ["obsid", "obi", "region_id", "name", "ra", "hard_hs", "match_type"]
    got = got.sort_values(["obsid", "obi", "region_id", "name"])
    pd.testing.assert_frame_equal(got[keys].reset_index(drop=True), want[keys].reset_index(drop=True), check_dtype=False, check_exact=True)
    assert got.var_index_b.isna().tolist() == want.var_index_b.isna().tolist()


def test_levels_and_their_columns():
    csc = Catalog("2.1", offline=True, cache=False)
    for level, tables in (("master", 1), ("stack", 1), ("observation", 1)):
        assert csc.query(level).adql.count("csc21.") == tables
    q = csc.query("stack", columns=["ra", "master.ra", "observation.region_id"])
    assert q.adql.startswith("SELECT DISTINCT s.detect_stack_id, s.region_id, s.ra, m.ra AS master_ra, o.region_id AS observation_region_id")
    assert all(f"csc21.{t} " in q.adql for t in catalogs.TABLES.values())
    with pytest.raises(ValueError, match="one of them"):
        csc.query(names="x", ids="1_1")
    assert "csc2." in Catalog("2.0", offline=True, cache=False).query().adql


def test_empty_answers_keep_their_columns():
    csc = Catalog("2.1", LocalService(simulate_catalog(30)), cache=False)
    for ask_for in (dict(near=(150, 3)), dict(names="nobody"), dict(where="significance < 0")):
        t = csc.query(**ask_for).table()
        assert len(t) == 0 and "ra" in t.colnames and t["ra"].unit == u.deg
    f = csc.query("observation", ids=["1_1", "2_2"]).frame()
    assert len(f) == 0 and "obsreg_id" in f


def test_without_the_extra_the_install_command_is_given():
    said = r'pyvo and requests are not installed: pip install "xrt_nb\[catalogs\]"'
    for call in (polite_session, lambda: catalogs.TapService("http://127.0.0.1:9/tap")):
        with absent("pyvo", "requests"), pytest.raises(CatalogError, match=said): call()
