"""The default search: `search(events, query)`."""

import numpy as np
import pytest

from xrt_nb.data import EventDataError, EventTable, UnknownSourceError
from xrt_nb.default_search import SCORES, default_score, search
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


def test_flares_of_the_background_come_last_and_are_flagged():

    rng, n = np.random.default_rng(8), 60
    crowd = [f"7_{k}" if k < 30 else f"{k}_1" for k in range(n)]  # one crowded observation, thirty lonely ones
    times = [np.sort(rng.uniform(0, 30_000, 40)) for _ in range(n)]
    for k in range(n):
        if k < 30 or k >= 50:
            times[k] = np.sort(np.r_[times[k], rng.uniform(9000, 11_000, 40)])
    offsets = np.r_[0, np.cumsum([len(t) for t in times])]
    gti = np.tile([[0.0, 30_000.0]], (n, 1))
    events = EventTable(crowd, offsets, np.concatenate(times), None, gti, np.arange(n + 1))
    shared = shared_flares(events)
    assert shared.iloc[:30].all() and not shared.iloc[30:].any()
    hits = search(events, "55_1", k=59)
    assert hits["shared"].is_monotonic_increasing and hits["shared"].sum() == 30
