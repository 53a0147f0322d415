"""The default search: `search(events, query)`."""

import io

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from xrt_nb.cli import main
from xrt_nb.data import EventDataError, EventTable, UnknownSourceError
from xrt_nb.default_search import SCORES, default_score, search
from xrt_nb.finder import AnalogFinder
from xrt_nb.runs import SEARCH_FLAGS, read_run, run
from xrt_nb.scores import ScoreError
from xrt_nb.shapes import search_features, shared_flares, without_energies
from xrt_nb.simulation import XRT_200515, simulate_archive, simulate_source


@pytest.fixture(scope="module")
def archive():
    events, truth = simulate_archive(500, 91, edition=2, fractions={"flare": 0.06, "burst": 0.03})
    return events, truth, search_features(events)


def test_hits_are_ranked_and_never_the_query(archive):
    events, truth, features = archive
    queries = truth.index[truth.known][:3].tolist()
    hits = search(events, queries, k=7, features=features)
    assert len(hits) == 21 and not (hits["query"] == hits.obsreg_id).any()
    for _, one in hits.groupby("query"):
        assert (one["rank"] == list(range(1, 8))).all() and (one["score"].diff().dropna() <= 0).all()
    assert hits.chance.between(0, 1).all() and not hits.unfamiliar.any()


def test_a_burst_finds_bursts_and_flares(archive):
    events, truth, features = archive
    burst = simulate_source("burst", counts=190, background=9, exposure=25_000, rng=1, id="new", **XRT_200515)
    hits = search(events, burst, features=features)
    kinds = truth.kind[hits.obsreg_id]
    assert kinds.isin(["burst", "flare", "flares"]).sum() >= 9 and truth.detectable[hits.obsreg_id].sum() >= 9
    assert hits.chance.median() < 0.02


def test_the_order_of_the_archive_never_matters(archive):
    events, truth, features = archive
    query = truth.index[truth.known][0]
    turned = events[events.ids[::-1].tolist()]
    a, b = search(events, query, features=features), search(turned, query)
    assert a.obsreg_id.tolist() == b.obsreg_id.tolist()


def test_other_observations_of_the_source_can_be_left_out(archive):
    events, truth, features = archive
    twice = truth[truth.known].source
    query = next(i for i in twice.index if (truth.source == truth.source[i]).sum() > 1)
    hits = search(events, query, k=50, features=features, exclude_same_source=True)
    assert (truth.source[hits.obsreg_id] != truth.source[query]).all()


@pytest.mark.parametrize("score", SCORES)
def test_every_score_works_without_energies(archive, score):
    events, truth, _ = archive
    query = truth.index[truth.known][0]
    bare = without_energies(events)
    assert len(search(bare, query, score=score)) == 10
    assert len(search(bare, events[[query]], k=3, score=score)) == 3  # its energies are left aside


def test_bad_queries_are_said(archive):
    events, _, features = archive
    with pytest.raises(UnknownSourceError, match="nobody"):
        search(events, "nobody", features=features)
    with pytest.raises(EventDataError, match="energies"):
        search(events, without_energies(events[[events.ids[0]]]), features=features)
    with pytest.raises(ScoreError, match="fusion, learned, label-free"):
        default_score("nearest")


@pytest.mark.parametrize("n", [2, 3, 5])
def test_queries_of_few_events_are_answered(archive, n):
    events, _, features = archive
    few = EventTable(["few"], [0, n], np.linspace(10, 900, n), np.full(n, 1500.0), np.array([[0.0, 1000.0]]), [0, 1])
    hits = search(events, few, features=features)
    assert len(hits) == 10 and np.isfinite(hits.score).all() and hits.unfamiliar.all() == (n < 5)


def test_identical_lists_are_a_tie_in_order_of_ids():
    events = EventTable([f"s{i}" for i in range(12)], np.arange(13) * 5, np.tile(np.linspace(1, 90, 5), 12), np.full(60, 1e3),
                        np.tile([[0.0, 100.0]], (12, 1)), np.arange(13))
    hits = search(events, "s3", k=4)
    assert len(set(hits.obsreg_id) - {"s3"}) == 4
    # some processors multiply the rows of a matrix with other last bits, so which ones tie is theirs; equal scores go by id
    tied = hits.sort_values(["score", "obsreg_id"], ascending=[False, True])
    assert hits.obsreg_id.tolist() == tied.obsreg_id.tolist()


def crowded(seed=8, n=60):
    "Lists of which thirty are of one observation, with a flare of the background in all of them; others flare alone."
    rng = np.random.default_rng(seed)
    ids = [f"7_{k}" if k < 30 else f"{k}_1" for k in range(n)]
    times = [np.sort(rng.uniform(0, 30_000, 40)) for _ in range(n)]
    for k in range(n):
        if k < 30 or k >= 50:
            times[k] = np.sort(np.r_[times[k], rng.uniform(9000, 11_000, rng.integers(25, 45))])
    offsets = np.r_[0, np.cumsum([len(t) for t in times])]
    energy = np.exp(rng.uniform(np.log(500), np.log(7000), offsets[-1]))
    return EventTable(ids, offsets, np.concatenate(times), energy, np.tile([[0.0, 30_000.0]], (n, 1)), np.arange(n + 1))


def test_flares_of_the_background_come_last_and_are_flagged():
    events = crowded()
    shared = shared_flares(events)
    assert shared.iloc[:30].all() and not shared.iloc[30:].any()
    hits = search(events, "55_1", k=59)
    assert hits["shared"].is_monotonic_increasing and hits["shared"].sum() == 30


@pytest.fixture(scope="module")
def crowd_run(tmp_path_factory):
    events = crowded()
    events.write(tmp_path_factory.mktemp("crowd") / "events.parquet")
    known = pd.Series({"55_1": "flare", "52_1": "flare", "7_3": "flare"})
    made = run("2D-PCA", events, tmp_path_factory.mktemp("runs") / "crowd", known, perplexity=10, max_iter=250, k=57)
    return events, read_run(made)


ALL = 57  # hits of a query: all but three that the run's lists leave out


@pytest.mark.parametrize("query", ["55_1", "7_3"])
@pytest.mark.filterwarnings("ignore:exclude_same_source")
def test_search_run_place_command_line_and_finder_give_one_order(crowd_run, query):
    events, made = crowd_run
    want = search(events, query, k=ALL)
    assert want["shared"].any() and not want["shared"].all()
    mine = made.analogs[(made.analogs["query"] == query) & (made.analogs["space"] == "search")]
    placed = made.place(events[[query]], k=ALL, exclude_same_source=False).analogs
    found = AnalogFinder(made).analogs_of(query, ALL)
    typed = CliRunner().invoke(main, ["analogs", str(made.path), query, "-k", str(ALL)])
    assert typed.exit_code == 0, typed.output
    typed = pd.read_csv(io.StringIO(typed.stdout))
    for hits in (mine, placed, found, typed):
        assert hits["obsreg_id"].tolist() == want["obsreg_id"].tolist()
    for hits in (mine, placed, typed):
        assert hits["shared"].tolist() == want["shared"].tolist()
        assert hits["unfamiliar"].tolist() == want["unfamiliar"].tolist()
    whole = made.class_analogs
    whole = whole[whole["space"] == "search"]
    assert whole["shared"].is_monotonic_increasing and whole["shared"].any()


def test_photons_that_are_not_in_the_archive_find_the_same_in_a_run(crowd_run):
    events, made = crowd_run
    new = crowded(seed=9)[["55_1", "7_3"]]
    new = EventTable(["new flare", "new crowd"], new.offsets, new.time, new.energy, new.gti, new.gti_offsets)
    want = search(events, new, k=60)
    placed = made.place(new, k=60, exclude_same_source=False).analogs
    assert placed[["query", "obsreg_id"]].equals(want[["query", "obsreg_id"]])
    assert placed["shared"].equals(want["shared"]) and placed["unfamiliar"].equals(want["unfamiliar"])


def test_flags_of_a_run_are_properties_but_no_features(crowd_run):
    _, made = crowd_run
    assert made.properties["shared"].dtype == bool and made.properties["shared"].sum() == 30
    assert not {*SEARCH_FLAGS} & {*made.spaces["summary"].frame.columns}
