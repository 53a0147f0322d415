"""Properties of the simulated archive that must hold for any seed."""
import sys
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from xrt_nb import simulation as sim


@pytest.fixture(scope="module")
def archive():
    return sim.simulate_archive(2000, 42)


def test_contract(archive):
    events, truth = archive
    assert list(events.ids) == list(truth.index) == sorted(events.ids) and truth.index.name == "obsreg_id"
    assert {"kind", "known", "known_class", "source", "spectrum", "exposure", "signal_to_noise", "expected_background", "detectable"} <= set(truth)
    assert {"obsid", "region_id", "name", "ra", "dec", "mission", "t_start", "t_stop", "livetime"} <= set(events.meta)
    assert (events.meta["mission"] == "SIMULATED").all() and (events.meta["obsid"].astype(int) > 900_000).all()
    assert all(i == f"{o}_{r}" for i, o, r in zip(events.ids, events.meta["obsid"], events.meta["region_id"]))
    assert not set(truth.columns) & {"kind"} & set(events.meta.columns), "the truth must not leak into meta"


def test_counts_resemble_a_catalogue(archive):
    events, _ = archive
    assert events.counts.min() >= 5 and 20 < np.median(events.counts) < 60 and 1000 < events.counts.max() < 30_000


def test_events_lie_in_good_time_and_band(archive):
    events, _ = archive
    for one in events:
        assert ((one.time[:, None] >= one.gti[:, 0]) & (one.time[:, None] < one.gti[:, 1])).any(1).all()
    assert events.energy.min() > 500 and events.energy.max() < 7000


def test_all_kinds_present_and_shares_close(archive):
    _, truth = archive
    for kind, entry in sim.KINDS.items():
        n, expected = (truth["kind"] == kind).sum(), 2000*entry.fraction
        assert abs(n - expected) < 5*np.sqrt(expected*2) + 3, kind


def test_known_are_detectable_transients(archive):
    _, truth = archive
    known = truth[truth["known"]]
    assert len(known) and (known["known_class"] == known["kind"]).all()
    for kind, group in known.groupby("kind"):
        assert group["detectable"].all() or not truth.loc[truth["kind"] == kind, "detectable"].any()
    assert known["kind"].map(lambda k: sim.KINDS[k].transient).all()
    assert (truth.loc[~truth["known"], "known_class"] == "").all()
    assert sim.known_ids(truth).to_dict() == known["kind"].to_dict()


def test_same_seed_in_another_process(archive):
    code = "from xrt_nb.simulation import simulate_archive; e, t = simulate_archive(100, 42); print(repr(e.time.sum()), repr(e.energy.sum()))"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    first = archive[0][:100]
    assert out == [repr(first.time.sum()), repr(first.energy.sum())]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), n=st.integers(1, 40), more=st.integers(0, 20))
def test_first_sources_do_not_depend_on_the_size(seed, n, more):
    small, truth = sim.simulate_archive(n, seed)
    large, longer = sim.simulate_archive(n + more, seed)
    assert small == large[:n]
    assert truth.drop(columns=["known", "known_class"]).equals(longer[:n].drop(columns=["known", "known_class"]))


@pytest.mark.parametrize("kind", sim.KINDS)
@pytest.mark.parametrize("exposure", [200.0, 2000.0, 150_000.0])
def test_every_kind_at_every_exposure(kind, exposure):
    for seed in range(5):
        one = sim.simulate_source(kind, counts=50, exposure=exposure, rng=seed, n_gti=1 + seed % 3, start=6e8)
        assert ((one.time[:, None] >= one.gti[:, 0]) & (one.time[:, None] < one.gti[:, 1])).any(1).all()
        assert np.isclose(one.livetime, exposure) and 15 < len(one) < 110
        assert sim.simulate_source(kind, counts=50, exposure=exposure, rng=seed, n_gti=1 + seed % 3, start=6e8) == one


@pytest.mark.parametrize("kind", sim.KINDS)
def test_counts_of_a_source_are_poisson(kind):
    n = np.array([len(sim.simulate_source(kind, counts=40, background=10, exposure=5000, rng=s)) for s in range(400)])
    assert abs(n.mean() - 50) < 5*np.sqrt(50/400) and 0.7 < n.var()/n.mean() < 1.35


def test_hidden_population_of_one_kind():
    only = {k: 0.0 for k in sim.KINDS} | {"qpe": 1.0}
    events, truth = sim.simulate_archive(60, 0, fractions=only)
    assert (truth["kind"] == "qpe").all() and truth["source"].nunique() < 60
    only = {k: 0.0 for k in sim.KINDS} | {"burst": 1.0}
    assert (sim.simulate_archive(60, 0, fractions=only)[1]["kind"] == "burst").all()


@pytest.mark.parametrize("call, word", [
    (lambda: sim.simulate_archive(0, 1), "n_sources"), (lambda: sim.simulate_archive(2.5, 1), "n_sources"),
    (lambda: sim.simulate_archive(800_000, 1), "n_sources"), (lambda: sim.simulate_archive(5, "x"), "random_state"),
    (lambda: sim.simulate_archive(5, 1, fractions={"nova": .1}), "unknown kind"), (lambda: sim.simulate_archive(5, 1, fractions={"dip": -.1}), "dip"),
    (lambda: sim.simulate_archive(5, 1, fractions={"steady": .1}), "sum to 1"), (lambda: sim.simulate_archive(5, 1, fractions={"dip": float("nan")}), "dip"),
    (lambda: sim.simulate_archive(5, 1, known_fraction=-.1), "known_fraction"), (lambda: sim.simulate_archive(5, 1, known_fraction="all"), "known_fraction"),
    (lambda: sim.simulate_archive(5, 1, median_exposure=0), "median_exposure"), (lambda: sim.simulate_archive(5, 1, band=(0, 100)), "band"),
    (lambda: sim.simulate_archive(5, 1, band=7000), "band"), (lambda: sim.simulate_source("flare", decay=0), "decay"), (lambda: sim.simulate_source("pulsar", period=0), "period"), (lambda: sim.simulate_source("qpe", peak=float("nan")), "peak"),
    (lambda: sim.simulate_source("steady", spectrum="green"), "families"), (lambda: sim.simulate_source("flares", n=3), "unknown parameters"),
])
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def archive_digest(*args, **kwargs):
    "SHA-256 of an archive's photons (to a millisecond and a tenth of an eV) and kinds."
    import hashlib

    events, truth = sim.simulate_archive(*args, **kwargs)
    digest = hashlib.sha256()
    for x in (events.offsets, np.round(events.time * 1e3), np.round(events.energy * 10)):
        digest.update(np.ascontiguousarray(x).astype("<i8").tobytes())
    digest.update(" ".join(truth.kind).encode())
    return digest.hexdigest()


def test_edition_1_gives_the_archives_of_version_0_1_0():
    # digests taken with version 0.1.0, before there was a second edition
    assert archive_digest(200, 7, edition=1) == "c40ad6eb50b909a45860a90587f85866f6b7102c891fd487016c247945db1bb0"
    shares = dict(fractions={"flare": 0.3}, median_counts=60.0)
    assert archive_digest(120, 8, edition=1, **shares) == "14451a7fb58c9a74c0d47f299240e05dd0aa3e203c46e107ff6784393759fd32"


def test_edition_2_stays_as_it_was_first_published():
    assert archive_digest(200, 7, edition=2) == "f46df5b0afd40bc68eae3de7d6b528a02bf7a5bf44a40c04b016b12c9dbf1bc0"
    shares = dict(fractions={"dip": 0.3, "burst": 0.1}, median_counts=60.0)
    assert archive_digest(120, 8, edition=2, **shares) == "95b32b84b94015a076b5756b4661944c3771ad7f97a72c9d107b20ca57751904"


class Step(sim.Kind):
    "Ten lines of a user."
    name, about, fraction, transient = "step", "becomes brighter and stays so", 0.03, True

    def shape(self, t, peak, amplitude):
        return np.ones(len(t)), amplitude * (t > peak)

    def draw(self, rng, t, period=None):
        return {"peak": float(rng.choice(t)), "amplitude": float(rng.uniform(5, 30))}


@pytest.fixture
def step():
    yield sim.register_kind(Step())
    del sim.KINDS["step"]


def test_a_kind_of_ones_own_is_everywhere(step):
    events, truth = sim.simulate_archive(1500, 5, median_counts=60.0)
    mine = truth[truth.kind == "step"]
    assert abs(len(mine) - 45) < 30 and mine.n_events.eq(1).all() and mine.duration.isna().all()
    assert mine.known.any() and (mine.known_class[mine.known] == "step").all() and mine.detectable.any()
    assert set(sim.known_ids(truth)) >= {"step", "flare"}
    only = {k: 0.0 for k in sim.KINDS} | {"step": 1.0}
    assert (sim.simulate_archive(20, 5, fractions=only, edition=2)[1].kind == "step").all()
    one = sim.simulate_source("step", 3000, rng=1, peak=12_000.0, amplitude=20.0)
    assert (one.time > 12_000).mean() > 0.9 and one.meta["kind"] == "step"


def test_a_kind_of_ones_own_is_a_class_of_the_search(step):
    from xrt_nb.analogs import compare_retrieval
    from xrt_nb.invariant import SortedProfile

    events, truth = sim.simulate_archive(600, 5, fractions={"step": 0.1}, median_counts=100.0)
    table = compare_retrieval({"sorted": SortedProfile().transform(events)}, events.ids, truth, k=5)
    found = table[table.ranking == "sorted"].groupby("kind").precision.mean()
    assert found["step"] > 3 * table[table.ranking == "chance"].groupby("kind").precision.mean()["step"]


def test_a_kind_that_is_not_asked_for_changes_nothing(step):
    with_it = sim.simulate_archive(120, 8, fractions={"step": 0.0})
    del sim.KINDS["step"]
    assert sim.simulate_archive(120, 8)[0] == with_it[0]
    sim.KINDS["step"] = step  # for the fixture


@pytest.mark.parametrize("change, word", [
    (dict(name="flare"), "not taken"), (dict(name=""), "not taken"), (dict(fraction=2), "fraction"), (dict(fraction=np.nan), "fraction"),
    (dict(bright=0), "bright"), (dict(families={"green": 1.0}), "families"), (dict(families={"plasma": 0.5}), "families"),
    (dict(shape=lambda self, t: np.ones(len(t))), "two arrays|unexpected keyword"), (dict(shape=lambda self, t, peak, amplitude: (np.ones(3), np.ones(3))), "one value per frame"),
    (dict(shape=lambda self, t, peak, amplitude: (np.ones(len(t)), t * np.nan)), "finite rates"), (dict(shape=lambda self, t, peak, amplitude: (-np.ones(len(t)), 0 * t)), "at least 0")])
def test_kinds_that_cannot_be_drawn_are_not_let_in(change, word):
    before = list(sim.KINDS)
    with pytest.raises((ValueError, TypeError), match=word):
        sim.register_kind(type("Bad", (Step,), change)())
    with pytest.raises(TypeError, match="instance"):
        sim.register_kind(Step)
    assert list(sim.KINDS) == before


def test_edition_2_has_what_real_lists_taught():
    events, truth = sim.simulate_archive(3000, 11, edition=2, fractions={"dip": 0.1, "burst": 0.05})
    assert truth.background_flare.any() and truth.groupby("obsid").background_flare.nunique().max() == 1
    assert not truth.detectable[truth.kind == "steady"].any()
    assert (truth.counts[truth.kind == "steady"] > 1000).sum() > 3
    dips = truth[(truth.kind == "dip") & truth.period.isna()]
    assert ((dips.peak_time < 0.5 * dips.duration) | (dips.peak_time > dips.exposure - 0.5 * dips.duration)).mean() > 0.4
    repeated, again = sim.simulate_archive(3000, 11, edition=2, fractions={"dip": 0.1, "burst": 0.05})
    assert repeated == events and again.equals(truth)
