"""From an archive to candidates: the event in a list, stability, the catalog that others read, pages, and calls that are cut short."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from xrt_nb import candidates, cards
from xrt_nb._store import StoreExists
from xrt_nb.candidates import (answer_of, chosen, event_columns, find_candidates, first_of, own_null, others_given, others_of,
                               over_the_catalog, own_stretch, resampled)
from xrt_nb.cards import about, catalog_frame, iau_name, meanings, write_candidates
from xrt_nb.cli import main
from xrt_nb.data import EventDataError, EventList, EventTable
from xrt_nb.injection import inject
from xrt_nb.simulation import simulate_archive

FAST = dict(most=2, n_resamples=1, cards=2)


@pytest.fixture(scope="module")
def archive():
    events, truth = simulate_archive(70, 8, edition=2)
    return events, truth.loc[truth["known"], "kind"]


@pytest.fixture(scope="module")
def table(archive):
    events, known = archive
    return find_candidates(events, known=known, most=3, n_resamples=2)


@pytest.fixture(scope="module")
def folder(archive, tmp_path_factory):
    events, known = archive
    return write_candidates(events, tmp_path_factory.mktemp("made") / "out", known=known, **FAST)


def flat(n=100, live=10_000.0, seed=0, id="flat"):
    return EventList(np.sort(np.random.default_rng(seed).uniform(0, live, n)), id=id, gti=[[0, live]])


# --- the event ----------------------------------------------------------------------------------------------------


def evidence(k, mu, n):
    "The formula of the notebook, by scipy's entropies."
    from scipy.special import xlogy
    return xlogy(k, k / mu) + xlogy(n - k, (n - k) / (n - mu)) if 0 < mu < n else 0.0


def brute_force(t, live, frame):
    "Best excess and deficit over all windows between photons with every count, no ladder."
    n, best = len(t), {"excess": -np.inf, "deficit": -np.inf}
    for k in range(2, n):
        for i in range(n - k + 1):
            half = max((t[i + k - 1] - t[i]) / (k - 1), frame) / 2
            a, b = max(t[i] - half, 0), min(t[i + k - 1] + half, live)
            if b - a <= live / 2 and k > n * (b - a) / live:
                best["excess"] = max(best["excess"], evidence(k, n * (b - a) / live, n) - np.log(live / (b - a)))
    edge = np.r_[0, t, live]
    for k in range(n):
        w = edge[k + 1:] - edge[:n + 1 - k]
        w = w[(w <= live / 2) & (k < n * w / live)]
        best["deficit"] = max([best["deficit"], *(evidence(k, n * x / live, n) - np.log(live / x) for x in w)])
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_window_is_the_best_of_all(seed):
    "The ladder tries every count up to six, and every sixth part above: it may lose a little, and never wins."
    one = flat(25 if seed % 2 else 60, seed=seed)
    if seed > 3:
        one = inject(one, "gauss", 25, 300, random_state=seed)[0][0]
    found = event_columns(one).iloc[0]
    step = max(0.01, min(4.0, np.diff(one.time)[np.diff(one.time) > 0.01].min()))
    best = brute_force(one.time, 10_000.0, step)
    assert found["event_evidence"] <= max(best.values()) + 1e-9
    assert found["event_evidence"] >= 0.8 * max(best.values()) - 0.5


def test_fluence_and_error_are_those_of_counting():
    "A burst of known photons on an empty background: all of them, and the square root."
    t = np.r_[np.linspace(100, 9_900, 20), np.linspace(5000, 5100, 200)]
    one = EventList(np.sort(t), id="a", gti=[[0, 10_000]])
    found = event_columns(one).iloc[0]
    assert found["event"] == "excess" and abs(found["fluence"] - 200) < 2
    assert found["fluence_error"] == pytest.approx(np.sqrt(200), rel=0.03) and found["t90"] == pytest.approx(90, rel=0.05)
    assert 5000 <= found["peak_time"] <= 5100 and found["event_start"] < 5020 and found["event_stop"] > 5080  # a ladder of sixths


def test_good_time_counts_not_the_clock():
    "The same photons with a gap of a day in between: the same event, later on the file's clock."
    base = inject(flat(80), "box", 60, 400, peak=[7000.0], random_state=1)[0][0]
    late = base.time + np.where(base.time >= 5000, 86_400, 0)
    gap = EventList(late, id="gap", gti=[[0, 5000], [91_400, 96_400]])
    a, b = (event_columns(x).iloc[0] for x in (base, gap))
    same = ["event", "event_start", "event_stop", "fluence", "t90", "event_evidence"]
    for name in same:
        assert a[name] == b[name] if isinstance(a[name], str) else a[name] == pytest.approx(b[name])
    assert b["peak_time"] - a["peak_time"] == pytest.approx(86_400)


def test_too_few_photons_are_no_event():
    few = EventTable.from_lists([EventList(np.arange(n) * 10.0, id=f"n{n}", gti=[[0, 1000]]) for n in range(3)])
    found = event_columns(few)
    assert found["event"][["n0", "n1"]].tolist() == ["", ""] and found.loc["n0"].drop("event").isna().all()


# --- again --------------------------------------------------------------------------------------------------------


def test_resampled_photons_stay_in_their_stretch_and_good_time():
    gti = [[0, 400], [1000, 1600]]
    rng = np.random.default_rng(0)
    time = np.sort(np.r_[rng.uniform(1, 399, 30), rng.uniform(1001, 1599, 40)])  # regular times would be frames
    one = EventList(time, np.linspace(600, 6000, 70), "a", gti)
    table = EventTable.from_lists([one])
    low, high = own_stretch(table)
    assert (low <= one.time).all() and (one.time <= high).all() and (low[1:] >= high[:-1]).all() and high[29] == 400 and low[30] == 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing falls outside
        again = resampled(table, 300, 2)
    counts = again.counts
    assert stats.kstest(counts, stats.poisson(70).cdf).pvalue > 1e-6 and counts.var() == pytest.approx(70, rel=0.35)
    assert set(np.unique(again.energy)) <= set(one.energy)
    assert all(len(np.unique(x.time)) == len(x) for x in again)  # nobody stands on another


def test_copies_of_many_lists_are_in_order_and_complete():
    "Rows are the n copies of the first table, then of the second ...; each has the good times and facts of its list."
    lists = [EventList(np.sort(np.random.default_rng(k).uniform(300, 500, 40)), None, f"a_{k}", [[0, 200], [300, 500 + k]][-k:],
                       {"obsid": str(k)}) for k in range(1, 4)]
    lists.append(EventList([], None, "a_none", [[0, 9]], {"obsid": "9"}))
    table = EventTable.from_lists(lists)
    again = resampled(table, 3, 5)
    assert again.ids.tolist() == [f"{i}#{k}" for k in (1, 2, 3) for i in table.ids]
    for i, one in zip(np.tile(table.ids, 3), again):
        assert np.array_equal(one.gti, table[i].gti) and one.meta["obsid"] == table[i].meta["obsid"]
        assert len(one) == 0 or np.isin(one.time, table[i].time).sum() > 10
    assert resampled(table, 3, 5) == again and resampled(table, 3, 6) != again


def test_stability_does_not_depend_on_who_else_is_looked_at(archive):
    events, known = archive
    one, three = (find_candidates(events, known=known, most=n, n_resamples=3) for n in (1, 3))
    first = chosen(three, 0.05)[:1]
    assert one.loc[first].equals(three.loc[first])


def test_resampling_keeps_the_rate():
    burst = inject(flat(60), "gauss", 100, 300, peak=[5000.0], random_state=3)[0]
    again = resampled(burst, 300, 1)
    inside = np.mean([((x.time > 4700) & (x.time < 5300)).sum() for x in again])
    truth = ((burst.time > 4700) & (burst.time < 5300)).sum()
    assert abs(inside - truth) < 5 * np.sqrt(truth / 300) + 1


def test_answers_leave_out_the_query_and_know_ties():
    values = np.array([9.0, 1, 5, 5, 3])
    got = answer_of(values, 0, 3, np.array([0, 4]), np.array(["burst", "dip"], dtype=object))
    assert got.neighbors.tolist() == [2, 3, 4] and got.known == 4 and got.known_class == "dip" and got.known_rank == 3
    alone = answer_of(values, 4, 3, np.array([4]), np.array(["dip"], dtype=object))
    assert alone.known == -1 and alone.known_rank == 0
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (20, 50)).astype(float)
    assert (first_of(x, 7) == np.argsort(-x, axis=1, kind="stable")[:, :7]).mean() > 0.7  # the same but for ties at the edge
    assert (np.take_along_axis(x, first_of(x, 7), 1) == -np.sort(-x, axis=1)[:, :7]).all()


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_is_whole_and_typed(archive, table):
    events, _ = archive
    assert table.index.tolist() == events.ids.tolist()
    assert table["p"].between(0, 1).all() and (table["q"] >= table["p"] - 1e-15).all() and table["candidate"].dtype == bool
    assert (table["candidate"] == (table["q"] < 0.05)).all()
    assert [c for c in table if c.startswith("p_")] and all(table[c].dtype == bool for c in table if c.startswith("flag_"))
    assert {"peak_time", "t90", "fluence", "hardness", "stability"} <= set(table)
    assert np.allclose(table["expected_false"], len(table) * table["p"])


def test_q_is_benjamini_and_hochbergs_by_hand():
    p = np.random.default_rng(1).uniform(size=50) ** 3
    frame = over_the_catalog(pd.DataFrame({"p": p, "p_a": p}))
    order = np.argsort(p)
    by_hand = np.minimum.accumulate((p[order] * 50 / np.arange(1, 51))[::-1])[::-1]
    assert np.allclose(frame["q"].to_numpy()[order], np.minimum(by_hand, 1))


def test_pieces_give_the_same_numbers(archive, table, monkeypatch):
    events, known = archive
    for name in ("PIECE", "JUDGED"):
        monkeypatch.setattr(candidates, name, 1500)
    again = find_candidates(events, known=known, most=3, n_resamples=2)
    number = again.select_dtypes("number").columns
    assert np.allclose(again[number], table[number], equal_nan=True, rtol=1e-6) and len(list(events.chunks(1500))) > 3


def test_photons_without_energies_go_through(archive):
    events, known = archive
    bare = EventTable(events.ids, events.offsets, events.time, None, events.gti, events.gti_offsets, events.meta)
    found = find_candidates(bare, known=known, most=2, n_resamples=1)
    assert found["hardness"].isna().all() and any("no energies" in r for r in found.attrs["remarks"])


def test_what_is_missing_is_told(archive):
    events, _ = archive
    some = EventTable(events.ids[:30], events.offsets[:31], events.time[:events.offsets[30]], events.energy[:events.offsets[30]],
                      events.gti[:events.gti_offsets[30]], events.gti_offsets[:31], events.meta[:30][["frame_time"]])
    said = " ".join(find_candidates(some, n_resamples=0).attrs["remarks"])
    assert "could not be judged" in said and "no background region" in said and "no list of known transients" in said
    other = find_candidates(some, n_resamples=0, known={"burst": ["77_1", "78_1"]}).attrs["remarks"]
    assert "none of the 2 known transients is among these detections" in other


def test_hardness_needs_only_the_lists_that_are_asked_about(archive, table):
    "An archive of millions of photons isn't laid on the clock once more for a few hundred candidates."
    events, _ = archive
    ids = table.index[[3, 40, 11]]
    one = candidates.hardness_columns(events, table, ids, "livetime")
    other = pd.concat([candidates.hardness_columns(events[[i]], table, [i], "livetime") for i in ids])
    pd.testing.assert_frame_equal(one, other, check_names=False)
    assert one.notna().all().all() and not len(candidates.hardness_columns(events, table, [], "livetime"))


def test_flags_of_parts_are_those_of_the_whole(monkeypatch):
    "Observations in disorder, some of one list, flares that a whole observation shares."
    from xrt_nb.flags import flag_table
    rng, lists = np.random.default_rng(4), []
    for k in range(75):
        t = np.r_[rng.uniform(0, 1e4, 40), rng.uniform(4000, 5000, 20 if k < 25 else 0)]
        meta = {"ra": 10 + k // 2 * 1e-4, "dec": 5.0}
        lists.append(EventList(np.sort(t), None, f"{k // 25 if k < 60 else k}_{k}", [[0, 1e4]], meta))
    table = EventTable.from_lists(lists)[rng.permutation(75)]
    whole = flag_table(table)
    monkeypatch.setattr(candidates, "PIECE", 700)
    pd.testing.assert_frame_equal(candidates.flags_in_parts(table), whole)
    assert whole["flag_common_mode"].sum() > 5 and whole["flag_non_unique"].any() and whole["flag_common_mode"].isna().any()


def test_an_unknown_exposure_is_refused_by_name():
    with pytest.raises(EventDataError, match="'a'"):
        find_candidates(EventList(np.arange(20.0), id="a"))


@pytest.mark.parametrize("bad", [dict(q=0), dict(q=2), dict(most=-1), dict(k=0), dict(n_resamples=-1), dict(random_state="x"),
                                 dict(known=["a"])])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError):
        find_candidates(flat(), **bad)


# each bad input of the road from an archive to a catalog: said, none guessed


def bare(windows, ids="abcd", n=30, **more):
    "Lists without good times, positions, energies or observations; their windows in meta."
    rng, k = np.random.default_rng(1), len(windows)
    times = [np.sort(rng.uniform(*w, n)) for w in windows]
    meta = pd.DataFrame({"t_start": [w[0] for w in windows], "t_stop": [w[1] for w in windows]}, index=list(ids[:k]))
    return EventTable(list(ids[:k]), np.arange(k + 1) * n, np.concatenate(times), meta=meta, **more)


def test_no_good_times_no_positions_no_background_are_told(tmp_path):
    table = bare([(0.0, 1e4)] * 3)
    found = find_candidates(table, n_resamples=0)
    said = " | ".join(found.attrs["remarks"])
    assert "no good time intervals: the exposure is taken as one stretch" in said and "no background region was given" in said
    unknown = found["flags_unknown"].str.split(", ").map(set)
    assert all({"gti_edge", "non_unique", "bkg_correlated", "snr_match", "edge_affected"} <= names for names in unknown)
    assert not found.filter(like="flag_non_unique").any(axis=None)
    catalog = catalog_frame(table, found, q=1.0 + 1e-9)  # all of them
    assert catalog["name"].tolist() == catalog["obsreg_id"].tolist() and "ra" not in catalog  # no name made of no position


def test_exposure_zero_and_good_times_of_zero_length_are_refused_by_name():
    with pytest.raises(EventDataError, match="'b'"):
        find_candidates(bare([(0.0, 1e4), (5.0, 5.0)]), n_resamples=0)


def test_good_times_without_events_are_no_candidate():
    lists = [EventList([], None, "empty", [[0, 100], [200, 300]]), flat(40, 300.0, id="full")]
    found = find_candidates(EventTable.from_lists(lists), n_resamples=2, q=1.0)
    row = found.loc["empty"]
    assert row["p"] == 1 and row["event"] == "" and row["n_events"] == 0 and row["livetime"] == 200


def test_one_event_is_no_candidate():
    found = find_candidates(EventTable.from_lists([EventList([50.0], None, "one", [[0, 100]]), flat(id="b")]), n_resamples=0)
    assert not found.at["one", "candidate"] and found.at["one", "event"] == "" and found.at["one", "flag_few_counts"]


def test_a_background_of_other_detections_is_refused():
    table = bare([(0.0, 1e4)] * 2)
    other = bare([(0.0, 1e4)] * 2, "xy")
    other.meta["area_ratio"] = 9.0
    with pytest.raises(EventDataError, match="none of its 2 ids"):
        find_candidates(table, background=other, n_resamples=0)


def test_positions_of_other_detections_are_unknown_and_wrong_ones_refused():
    table = bare([(0.0, 1e4)] * 2)
    elsewhere = pd.DataFrame({"ra": [10.0], "dec": [5.0]}, index=["77_1"])
    assert all("non_unique" in names for names in find_candidates(table, positions=elsewhere, n_resamples=0)["flags_unknown"])
    with pytest.raises(EventDataError, match="'dec' is missing"):
        find_candidates(table, positions=elsewhere[["ra"]], n_resamples=0)


def test_one_detection_alone_and_none():
    alone = find_candidates(flat())
    assert len(alone) == 1 and alone["neighbors"].tolist() == [""] and alone["p"].between(0, 1).all()


def test_a_bright_burst_is_stable_and_first():
    lists = [flat(40, seed=k, id=f"s{k}") for k in range(40)]
    events = EventTable.from_lists(lists)
    events = EventTable.from_lists([*events[1:], inject(events[:1], "fred", 80, 200, peak=[5000.0], random_state=1)[0][0]])
    found = find_candidates(events, n_resamples=5)
    assert chosen(found, 0.05)[0] == "s0" and found.at["s0", "stability"] == 1
    assert abs(found.at["s0", "peak_time"] - 5000) < 100


# --- the catalog --------------------------------------------------------------------------------------------------


def test_every_column_has_a_valid_ucd_and_a_unit(table, archive):
    from astropy import units
    from astropy.io.votable.ucd import parse_ucd
    catalog = catalog_frame(archive[0], table)
    for name in {*catalog.columns, *meanings()}:
        unit, ucd, meaning = about(name)
        parse_ucd(ucd, check_controlled_vocabulary=True, has_colon=False)
        units.Unit(unit, format="vounit")
        assert meaning


def test_names_are_truncated_as_astropys_angles():
    from astropy.coordinates import Angle
    rng = np.random.default_rng(3)
    for ra, dec in zip(rng.uniform(0, 360, 300), rng.uniform(-90, 90, 300)):
        h, m, s = Angle(ra, "deg").hms
        sign, d, am, asec = Angle(dec, "deg").signed_dms
        want = f"J{int(h):02d}{int(m):02d}{int(s):02d}.{int(s * 10) % 10}{'-' if sign < 0 else '+'}{int(d):02d}{int(am):02d}{int(asec):02d}"
        assert iau_name(ra, dec) == f"XRTNB {want}"
    assert iau_name(15.0, 45.0) == "XRTNB J010000.0+450000"  # exact numbers don't fall below themselves


def test_astropys_validator_finds_nothing(folder, tmp_path):
    from astropy.io.votable import validate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        validate(str(folder / "candidates.vot"), output=(tmp_path / "said.txt").open("w"), xmllint=False)
    assert "found no violations" in (tmp_path / "said.txt").read_text().lower()
    from astropy.io.votable import parse
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse(folder / "candidates.vot", verify="exception")


def test_pyvo_reads_it(folder):
    pyvo = pytest.importorskip("pyvo")
    from astropy.io.votable import parse
    results = pyvo.dal.DALResults(parse(folder / "candidates.vot"))
    assert results.fieldname_with_ucd("pos.eq.ra") == "ra" and len(results) > 0
    assert results[0]["obsreg_id"] == pd.read_parquet(folder / "detections.parquet").sort_values("p").index[0]


def test_all_formats_hold_the_same(folder):
    from astropy.table import Table
    vot, fits, ecsv = (Table.read(folder / f"candidates.{end}") for end in ("vot", "fits", "ecsv"))
    assert vot.colnames == fits.colnames == ecsv.colnames

    def plain(column):
        "Values; missing texts empty, missing numbers NaN."
        text = column.dtype.kind in "OSU"
        return [*column.filled("" if text else np.nan)] if hasattr(column, "filled") and column.dtype.kind not in "ib" else [*column]

    for name in vot.colnames:
        a, b, c = (plain(t[name]) for t in (vot, fits, ecsv))
        number = isinstance(a[0], float)
        assert np.array_equal(a, b, equal_nan=number) and np.array_equal(b, c, equal_nan=number), name


def test_texts_of_the_data_are_text_everywhere(archive, tmp_path):
    "An id and a class that would be markup, in an archive and its known list."
    events, _ = archive
    ids = [f"<script>alert({k})</script>&" for k in range(len(events))]
    meta = events.meta.set_axis(ids)
    nasty = EventTable(ids, events.offsets, events.time, events.energy, events.gti, events.gti_offsets, meta)
    out = write_candidates(nasty, tmp_path / "out", known={"<b>bold</b>": ids[:40]}, source="</title><script>x", **FAST)
    for page in [out / "index.html", *(out / "cards").iterdir()]:
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text and "<script>x" not in text and "<b>bold" not in text
        assert "&lt;script&gt;alert" in text
    from astropy.io.votable import parse_single_table
    assert "<script>" in parse_single_table(out / "candidates.vot").to_table()["obsreg_id"][0]


def test_pages_ask_nothing_of_the_network(folder):
    import re
    for page in [folder / "index.html", *(folder / "cards").iterdir()]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?:src|@import|url\()\s*=?\s*[\"']?(?:https?:)?//", text) and "<link" not in text and "fetch(" not in text
    linked = re.findall(r'href="(cards/[^"]+)"', (folder / "index.html").read_text(encoding="utf-8"))
    assert linked and all((folder / name).is_file() for name in linked)


def test_provenance_says_what_it_depends_on(folder):
    told = json.loads((folder / "provenance.json").read_text())
    assert told["parameters"]["random_state"] == 0 and told["versions"]["numpy"] == np.__version__
    assert len(told["input"]["events"]["sha256"]) == 64 and "/" not in told["input"]["events"]["name"]
    assert told["input"]["events"]["sha256"] in (folder / "candidates.vot").read_text()


# --- further chances ----------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    "A few constant sources instead of thousands."
    real = candidates.OwnNull
    monkeypatch.setattr(candidates, "OwnNull", lambda scorer, counts, random_state: real(scorer, 200, (10, 80, 600), random_state))
    return monkeypatch


def test_further_chances_stand_beside_and_change_nothing_else(archive, folder, tmp_path, quick):
    from astropy.table import Table
    events, known = archive
    both = dict(known=known, others=("analog", "outlier"), **FAST)
    quick.setattr(cards, "catalog_frame", lambda *a: 1 / 0)  # cut short behind the further chances
    with pytest.raises(ZeroDivisionError):
        write_candidates(events, tmp_path / "out", **both)
    quick.setattr(cards, "catalog_frame", catalog_frame)
    quick.setattr(cards, "others_of", lambda *a: 1 / 0)  # they are kept
    out = write_candidates(events, tmp_path / "out", **both)
    made, plain = (pd.read_parquet(f / "detections.parquet") for f in (out, folder))
    pd.testing.assert_frame_equal(made.drop(columns=["p_analog", "p_outlier"]), plain)
    assert list(made.columns).index("p_outlier") == list(made.columns).index("note") - 1
    near = known.index.intersection(made.index[made["n_events"] >= 5])
    assert len(near) and set(made.index[made["p_analog"].isna()]) == set(near) and made["p_outlier"].between(0, 1).all()
    told = json.loads((out / "provenance.json").read_text())
    assert told["parameters"]["others"] == dict.fromkeys(("analog", "outlier"), "made from this archive")
    assert f"likeness to the {len(near)} known transients" in told["remarks"][-1]
    listed = Table.read(out / "candidates.vot")
    assert "no part in p" in listed["p_outlier"].description and "p_outlier" in (out / "index.html").read_text(encoding="utf-8")
    assert all("as far from the usual" in page.read_text(encoding="utf-8") for page in (out / "cards").iterdir())
    again = others_of(events, others_given("outlier", events, known), known, 0)
    pd.testing.assert_series_equal(again["p_outlier"], made["p_outlier"], check_exact=True)


@pytest.mark.parametrize("others, known, said", [
    ("analog", None, "analog needs known transients to compare with: give `known`"),
    (["analog"], {"burst": ["77_1"]}, "none of the 1 known ones has 5 photons or more"),
    (["outliers"], None, "others"),
    ({"z2": 1}, None, "p_z2 can't be a column"),
    ({"mine": 1}, None, "'mine' must be a fitted `OwnNull`, got int"),
])
def test_further_chances_that_cannot_be_had(archive, others, known, said):
    with pytest.raises(ValueError, match=said):
        find_candidates(archive[0], others=others, known=known)


def test_a_fitted_null_of_ones_own_and_lists_without_good_times():
    class Gap:
        def score_samples(self, events):
            windows = events.windows()
            return np.array([np.diff(np.r_[w[0], one.time, w[1]]).max() / (w[1] - w[0]) for one, w in zip(events, windows)])

    bare = pd.DataFrame({"t_start": 0.0, "t_stop": [100.0, 200.0, 100.0]}, index=["even", "gap", "one"])
    time = np.r_[np.linspace(1, 99, 20), np.linspace(1, 100, 20), 50.0]
    table = EventTable(["even", "gap", "one"], [0, 20, 40, 41], time, meta=bare)
    null = own_null(Gap(), table, 0)
    found = find_candidates(table, others={"mine": null}, n_resamples=0)
    assert len(null.quantiles_) == 5  # rungs up to 20 photons
    assert found.at["one", "p_mine"] == 1 and found.at["even", "p_mine"] > 0.99
    assert found.at["gap", "p_mine"] < 0.01  # a gap of half the time: 21 / 2^20 (Fisher 1929)
    assert not any(found["detector"] == "mine") and "by mine; no part in p" in about("p_mine")[2]


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_call_that_was_cut_short_goes_on(archive, folder, tmp_path, monkeypatch):
    events, known = archive
    asked, real_p, real_card = [], candidates.false_alarm_probabilities, cards.card_of

    def counted(table, **how):
        asked.extend([1] * (list(table.ids) == list(events.ids)))  # resampled lists are asked for as well
        return real_p(table, **how)

    monkeypatch.setattr(candidates, "false_alarm_probabilities", counted)

    def killed(*args):
        "The second card is never finished."
        if cut := len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append(cut)
        return real_card(*args)

    drawn = []
    monkeypatch.setattr(cards, "card_of", killed)
    with pytest.raises(KeyboardInterrupt):
        write_candidates(events, tmp_path / "out", known=known, **FAST)
    assert not (tmp_path / "out").exists() and len(asked) == 1
    monkeypatch.setattr(cards, "card_of", lambda *a: drawn.append(1) or real_card(*a))
    out = write_candidates(events, tmp_path / "out", known=known, **FAST)
    assert len(asked) == 1 and len(drawn) == 2  # nothing twice
    for p in folder.rglob("*"):
        if p.is_file():
            assert (out / p.relative_to(folder)).read_bytes() == p.read_bytes(), p.name
    assert sorted(p.name for p in out.rglob("*")) == sorted(p.name for p in folder.rglob("*"))


def test_unfinished_work_of_another_call_is_refused(archive, tmp_path, monkeypatch):
    events, known = archive
    monkeypatch.setattr(cards, "card_of", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_candidates(events, tmp_path / "out", known=known, **FAST)
    monkeypatch.undo()
    with pytest.raises(StoreExists, match="restart=True"):
        write_candidates(events, tmp_path / "out", known=known, **(FAST | {"cards": 1}))


def test_nothing_else_is_ever_replaced(archive, folder, tmp_path):
    events, known = archive
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("once upon a time")
    with pytest.raises(StoreExists, match="something else"):
        write_candidates(events, tmp_path / "thesis", overwrite=True, known=known, **FAST)
    shutil.copytree(folder, tmp_path / "mine")
    with pytest.raises(StoreExists, match="overwrite=True"):
        write_candidates(events, tmp_path / "mine", known=known, **FAST)


def test_no_candidates_make_an_empty_catalog(tmp_path):
    from astropy.table import Table
    calm = EventTable.from_lists([flat(20, seed=k, id=f"s{k}") for k in range(5)])
    out = write_candidates(calm, tmp_path / "out", q=1e-12)
    assert len(Table.read(out / "candidates.vot")) == 0 and "None of 5 detections" in (out / "index.html").read_text()


# --- the command --------------------------------------------------------------------------------------------------


def shell(*args):
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="xrt-nb")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from xrt_nb.runs import run
    events, truth = simulate_archive(70, 8, edition=2)
    with pytest.MonkeyPatch.context() as patch:
        from xrt_nb import runs
        patch.setattr(runs, "analog_figures", lambda *a, **k: [])
        return run("2D-PCA", events, tmp_path_factory.mktemp("runs") / "run", truth.loc[truth["known"], "kind"], max_iter=250, perplexity=15)


def test_the_command_makes_the_folder(run, tmp_path):
    done = shell("candidates", run, "--out", tmp_path / "c", "--most", 2, "--resamples", 1, "--cards", 1)
    assert done.exit_code == 0, done.output
    assert "candidates at q < 0.05" in done.stdout and "Chance alone would bring" in done.stdout and "index.html" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"next: xrt-nb app {run} ")
    assert (tmp_path / "c" / "candidates.fits").is_file()
    assert shell("candidates", run, "--out", tmp_path / "c", "--most", 2).exit_code == 1


def test_the_command_hands_on_what_else_is_wanted(run, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(cards, "write_candidates", lambda events, out, **given: asked.update(given) or 1 / 0)
    shell("candidates", run, "--out", tmp_path / "c", "--also", "outlier", "--also", "analog")
    assert asked["others"] == ("outlier", "analog") and len(asked["known"])
    assert shell("candidates", run, "--out", tmp_path / "c", "--also", "all").exit_code == 2


def test_another_versions_run_is_refused_by_name(run, tmp_path):
    shutil.copytree(run, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    manifest["versions"]["xrt_nb"] = "0.0.9"
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    done = shell("candidates", tmp_path / "old", "--out", tmp_path / "c")
    assert done.exit_code == 2 and "was made by xrt_nb 0.0.9" in done.stderr and "make the run again" in done.stderr


@pytest.mark.parametrize("text, said", [("obsreg_id,ra\n1,2\n", "column 'dec' is missing"), ("", "not a table of positions")])
def test_positions_that_cannot_be_used(run, tmp_path, text, said):
    (tmp_path / "p.csv").write_text(text)
    done = shell("candidates", run, "--out", tmp_path / "c", "--positions", tmp_path / "p.csv")
    assert done.exit_code == 1 and said in done.stderr and "Traceback" not in done.stderr
