"Lists of times without energies: what is timing works and is the same as with energies, what isn't is missing and says why."
import warnings

import numpy as np
import pandas as pd
import pytest

from xrt_nb.clustering import cluster
from xrt_nb.data import EventTable, XRTError, XRTWarning
from xrt_nb.embedding import embed
from xrt_nb.features import SummaryFeatures, summary_features
from xrt_nb.invariant import AlignedMap, PeakSpectrum, SortedProfile, WaveletPower
from xrt_nb.pairs import PairMap
from xrt_nb.properties import bayesian_blocks, catalog_columns, gregory_loredo, gregory_loredo_table
from xrt_nb.representations import EtDtCube, EtMap, quality_table
from xrt_nb.simulation import simulate_archive


def real_lists(shared, every=1):
    "Every so-and-so-many-th real list, with its good times."
    folder = shared / "data" / "real_lists"
    times, gti = pd.read_parquet(folder / "times.parquet"), pd.read_csv(folder / "gti.csv.gz", dtype={"obsreg_id": str})
    ids = times["obsreg_id"].drop_duplicates().to_numpy()[::every]
    times = times[times["obsreg_id"].isin(ids)].sort_values(["obsreg_id", "time"], kind="stable")
    gti = gti[gti["obsreg_id"].isin(ids)].sort_values(["obsreg_id", "start"], kind="stable")
    names, n = np.unique(times["obsreg_id"].to_numpy(str), return_counts=True)
    also, g = np.unique(gti["obsreg_id"].to_numpy(str), return_counts=True)
    assert list(names) == list(also)
    return EventTable(names, np.r_[0, np.cumsum(n)], times["time"].to_numpy(), None, gti[["start", "stop"]].to_numpy(), np.r_[0, np.cumsum(g)])


def try_all(table, n_blocks):
    "Everything that is timing, on one table."
    with pytest.warns(XRTWarning, match="no energies"): frame = summary_features(table)
    assert frame.shape == (len(table), 24) and np.isfinite(frame.to_numpy()).all()
    for rep in (SortedProfile(), WaveletPower()):
        x = rep.fit(table).transform(table)
        assert x.shape == (len(table), len(rep.get_feature_names_out())) and np.isfinite(x).all()
    with pytest.warns(XRTWarning, match="no energies"): columns = catalog_columns(table, m_max=12)
    assert columns["var_prob_b"].notna().all() and columns["hard_hs"].isna().all() and (columns["cnts_aper_b"] == table.counts).all()
    assert np.allclose(columns["var_prob_b"], gregory_loredo_table(table, 12)["var_prob"])
    q = quality_table(table)
    assert q["no_energy"].all() and not q["map_ok"].any()
    for ev in list(table[:n_blocks]):
        blocks = bayesian_blocks(ev)
        assert blocks["counts"].sum() == len(ev) and np.isfinite(gregory_loredo(ev, 20).log_odds)
    return frame


def test_real_lists_sampled(shared):
    table = real_lists(shared, every=15)
    frame = try_all(table, 5)
    positions = embed((frame - frame.mean()) / frame.std().replace(0, 1), perplexity=20, max_iter=250)
    assert cluster(positions).shape == (len(table),)


@pytest.mark.slow
def test_all_real_lists(shared):
    table = real_lists(shared)
    assert len(table) == 3129
    try_all(table, 100)


def test_the_same_numbers_as_with_energies():
    full, _ = simulate_archive(40, 3)
    bare = EventTable(full.ids, full.offsets, full.time, None, full.gti, full.gti_offsets)
    frame, want = try_all(bare, 3), summary_features(full)
    pd.testing.assert_frame_equal(frame, want[frame.columns])
    assert set(want) - set(frame) == {c for c in want if c.startswith(("e_", "hard_", "band"))} | {"block_hardness", "rho_et"}


@pytest.mark.parametrize("rep", [EtMap(), EtDtCube(), PairMap(), AlignedMap(), PeakSpectrum()], ids=lambda r: type(r).__name__)
def test_what_needs_energies_says_so(rep):
    with pytest.raises(XRTError, match="no energies"): rep.transform(EventTable(["a"], [0, 3], [1, 2, 4], gti=[[0, 9]], gti_offsets=[0, 1]))


def test_a_fitted_transformer_wants_the_same_kind_of_events():
    full, _ = simulate_archive(10, 4)
    bare = EventTable(full.ids, full.offsets, full.time, None, full.gti, full.gti_offsets)
    for rep in (SummaryFeatures(), SortedProfile()):
        with pytest.raises(XRTError, match="energies"): rep.fit(bare).transform(full)
        with warnings.catch_warnings(), pytest.raises(XRTError, match="energies"):
            warnings.simplefilter("ignore", XRTWarning)
            rep.fit(full).transform(bare)
