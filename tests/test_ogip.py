"""Spectra, areas and responses: every layout of a matrix, files of other makers, and what must be refused."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from xrt_nb.data import EventList, XRTWarning
from xrt_nb.ogip import (Arf, Rmf, Spectrum, extract_spectrum, read_arf, read_pha, read_rmf, read_spectrum, simulated_response, write_arf,
                         write_pha, write_rmf)
from xrt_nb.regions import EventFileError, Region

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / os.environ.get("XRT_NB_SHARED", "../shared") / "data" / "xrt200515" / "spectrum"
needs_files = pytest.mark.skipif(not SHARED.exists(), reason="the real spectrum is not here (XRT_NB_SHARED)")


def matrix(n=20, channels=30, density=0.4, seed=0):
    "A random sparse matrix."
    return csr_array(random_array((n, channels), density=density, rng=np.random.default_rng(seed)))


def response(m, first=1, **meta):
    "A response with that matrix."
    e, c = np.linspace(0.3, 8, m.shape[0] + 1), np.linspace(0.1, 9, m.shape[1] + 1)
    return Rmf(e[:-1], e[1:], m, c[:-1], c[1:], first, meta)


def ebounds(n, first=1, unit="keV"):
    "A table EBOUNDS."
    e = np.linspace(0.1, 9, n + 1)
    return fits.BinTableHDU.from_columns(
        [fits.Column("CHANNEL", "J", array=np.arange(first, first + n)), fits.Column("E_MIN", "D", unit, array=e[:-1]),
         fits.Column("E_MAX", "D", unit, array=e[1:])], name="EBOUNDS")


def groups_of(row):
    "(first index, length) of each run of entries that are not zero, the slow way."
    out, begin = [], None
    for k, v in enumerate([*row, 0]):
        if v and begin is None:
            begin = k
        if not v and begin is not None:
            out.append((begin, k - begin))
            begin = None
    return out


def ragged(rows, form):
    "A column of variable length."
    out = np.empty(len(rows), dtype=object)
    for k, r in enumerate(rows):
        out[k] = np.asarray(r)
    return f"P{form}()", out


def by_hand(path, dense, layout, first=1, tlmin=True, name="MATRIX", unsigned=False, more=()):
    "A response file in one of the layouts that are in use, written without the library."
    groups = [groups_of(r) for r in dense]
    f = [[a + first for a, _ in g] for g in groups]
    n = [[b for _, b in g] for g in groups]
    v = [np.concatenate([r[a:a + b] for a, b in g] or [[]]) for r, g in zip(dense, groups)]
    if layout == "one group":  # scalars, a vector of fixed length
        f, n = [0 + first] * len(dense), [dense.shape[1]] * len(dense)
        columns = [("N_GRP", "I", [1] * len(dense)), ("F_CHAN", "I", f), ("N_CHAN", "I", n),
                   ("MATRIX", f"{dense.shape[1]}E", dense)]
    elif layout == "vectors":  # fixed length, filled up with zeros
        most = max(map(len, f))
        wide = [[r + [0] * (most - len(r)) for r in x] for x in (f, n)]
        length = max(map(len, v))
        columns = [("N_GRP", "I", list(map(len, groups))), ("F_CHAN", f"{most}I", wide[0]), ("N_CHAN", f"{most}I", wide[1]),
                   ("MATRIX", f"{length}E", [np.r_[r, np.zeros(length - len(r))] for r in v])]
    else:
        columns = [("N_GRP", "J", list(map(len, groups))), ("F_CHAN", *ragged(f, "J")), ("N_CHAN", *ragged(n, "J")),
                   ("MATRIX", *ragged(v, "D"))]
    e = np.linspace(0.3, 8, len(dense) + 1)
    columns = [("ENERG_LO", "E", e[:-1]), ("ENERG_HI", "E", e[1:]), *columns]
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(a, b, "keV" if a.startswith("EN") else None, array=c, bzero=2**15 if unsigned and b == "I" and "CHAN" in a else None)
         for a, b, c in columns], name=name)
    if tlmin:
        hdu.header["TLMIN4"] = first
    fits.HDUList([fits.PrimaryHDU(), hdu, *more, ebounds(dense.shape[1], first)]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("layout", ["one group", "vectors", "variable"])
@pytest.mark.parametrize("name", ["MATRIX", "SPECRESP MATRIX"])
def test_every_layout_of_a_matrix_is_read(tmp_path, layout, first, name):
    dense = matrix(seed=3).toarray().astype(np.float32)
    dense[4] = 0  # an energy that no channel sees
    dense[5, :3] = dense[5, -3:] = 0.5
    got = read_rmf(by_hand(tmp_path / "a.rmf", dense, layout, first, name=name))
    np.testing.assert_array_equal(got.matrix.toarray(), dense)
    assert got.first_channel == first and got.n_channels == 30


def test_unsigned_places_are_read(tmp_path):
    dense = matrix(seed=4).toarray().astype(np.float32)
    got = read_rmf(by_hand(tmp_path / "a.rmf", dense, "one group", unsigned=True))
    np.testing.assert_array_equal(got.matrix.toarray(), dense)


@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_tlmin_is_the_first_channel(tmp_path, first):
    dense = matrix(seed=5).toarray()
    got = read_rmf(by_hand(tmp_path / "a.rmf", dense, "variable", first, tlmin=False))
    np.testing.assert_array_equal(got.matrix.toarray(), dense)


def test_a_tlmin_that_differs_from_ebounds_is_told(tmp_path):
    dense = matrix(seed=5).toarray()
    path = by_hand(tmp_path / "a.rmf", dense, "variable", 0)
    with fits.open(path, mode="update") as f:
        f["EBOUNDS"].data["CHANNEL"] += 1
    with pytest.warns(XRTWarning, match="F_CHAN counts from 0, EBOUNDS from 1"):
        got = read_rmf(path)
    np.testing.assert_array_equal(got.matrix.toarray(), dense)
    assert got.first_channel == 1


def test_one_of_several_matrices_and_their_sum(tmp_path):
    a, b = (matrix(seed=k).toarray().astype(np.float32) for k in (1, 2))
    with fits.open(by_hand(tmp_path / "b.rmf", b, "vectors")) as f:
        path = by_hand(tmp_path / "a.rsp", a, "vectors", more=[f["MATRIX"].copy()])
    with pytest.raises(EventFileError, match=r"2 response matrices. Say which one is meant, matrix=1 to 2"):
        read_rmf(path)
    np.testing.assert_array_equal(read_rmf(path, matrix=2).matrix.toarray(), b)
    np.testing.assert_array_equal(read_rmf(f"{path}{{1}}").matrix.toarray(), a)
    np.testing.assert_allclose(read_rmf(path, matrix="sum").matrix.toarray(), a + b.astype(float), rtol=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.floats(0, 1), st.integers(0, 3), st.integers(0, 2**31))
def test_a_response_comes_back_bit_by_bit(tmp_path_factory, n, channels, density, first, seed):
    rmf = response(matrix(n, channels, density, seed), first)
    path = write_rmf(rmf, tmp_path_factory.mktemp("r") / "a.rmf")
    again = read_rmf(path)
    assert again == rmf
    np.testing.assert_array_equal(again.matrix.toarray(), rmf.matrix.toarray())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_a_spectrum_comes_back_bit_by_bit(tmp_path_factory, n, columns, grouped, seed):
    rng = np.random.default_rng(seed)
    s = Spectrum(np.arange(5, 5 + n), rng.poisson(2, n) + 1, rng.uniform(1, 9), rng.random(n) + 0.1 if columns else rng.random() + 0.1,
                 1.0, quality=rng.integers(0, 3, n) if columns else None)
    s = replace(s, background=Spectrum(s.channels, rng.poisson(1, n) + 1, 1 / 3, backscal=7.0))
    s = s.group(3) if grouped else s
    path = tmp_path_factory.mktemp("s") / "a.pha.gz"
    s.write(path)
    assert read_spectrum(path) == s


def test_written_twice_the_bytes_are_the_same(tmp_path):
    rmf, arf = simulated_response(20, 30)
    assert write_rmf(rmf, tmp_path / "a.rmf").read_bytes() == write_rmf(rmf, tmp_path / "b.rmf").read_bytes()
    assert write_arf(arf, tmp_path / "a.arf.gz").read_bytes() == write_arf(arf, tmp_path / "b.arf.gz").read_bytes()
    assert read_arf(tmp_path / "a.arf.gz") == arf


def test_an_existing_file_is_kept(tmp_path):
    arf = simulated_response(20, 30)[1]
    write_arf(arf, tmp_path / "a.arf")
    with pytest.raises(FileExistsError):
        write_arf(arf, tmp_path / "a.arf")
    write_arf(arf, tmp_path / "a.arf", overwrite=True)


# --- spectra of other makers ----------------------------------------------------------------------------------------


def pha(path, columns, cards=None, more=()):
    "A PHA file, written without the library."
    hdu = fits.BinTableHDU.from_columns([fits.Column(*c[:2], array=c[2]) for c in columns], name="SPECTRUM")
    hdu.header.update({"HDUCLAS1": "SPECTRUM", "EXPOSURE": 100.0} | (cards or {}))
    fits.HDUList([fits.PrimaryHDU(), hdu, *more]).writeto(path, overwrite=True)
    return path


CHANNEL = ("CHANNEL", "I", np.arange(4))


def test_a_rate_becomes_counts(tmp_path):
    s = read_pha(pha(tmp_path / "a.pha", [CHANNEL, ("RATE", "E", np.array([0, 3, 7, 12345]) / 100)]))
    assert s.counts.tolist() == [0, 3, 7, 12345] and s.counts.dtype == np.int64


def test_a_rate_that_is_no_count_is_refused(tmp_path):
    path = pha(tmp_path / "a.pha", [CHANNEL, ("RATE", "D", [0, 0.03, 0.0712, 1])])
    with pytest.raises(EventFileError, match="RATE times exposure is 7.12 in row 3"):
        read_pha(path)


def test_scales_and_flags_are_columns_or_cards(tmp_path):
    a = pha(tmp_path / "a.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])], {"BACKSCAL": 0.5, "AREASCAL": 0.9, "QUALITY": 0})
    b = pha(tmp_path / "b.pha", [CHANNEL, ("COUNTS", "D", [1, 2, 3, 4]), ("BACKSCAL", "E", [0.5] * 4), ("AREASCAL", "D", [0.9] * 4)])
    assert read_pha(a) == read_pha(b)
    c = pha(tmp_path / "c.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4]), ("BACKSCAL", "E", [0.5, 1, 0, 1]), ("QUALITY", "I", [0, 2, 0, 0]),
                                 ("GROUPING", "I", [1, -1, 1, 0])])
    got = read_pha(c)
    assert got.backscal.tolist() == [0.5, 1, 0, 1] and got.starts.tolist() == [0, 2, 3]
    assert got.without_bad().counts.tolist() == [1, 3, 4]


def test_type_two_holds_several(tmp_path):
    counts = np.arange(12).reshape(3, 4)
    path = pha(tmp_path / "a.pha", [("SPEC_NUM", "I", [1, 2, 3]), ("CHANNEL", "4I", np.tile(np.arange(1, 5), (3, 1))), ("COUNTS", "4J", counts),
                                    ("BACKSCAL", "D", [1.0, 2.0, 3.0]), ("EXPOSURE", "D", [10.0, 20.0, 30.0]), ("ANCRFILE", "8A", ["a", "b", "none"])])
    with pytest.raises(EventFileError, match=r"it holds 3 spectra \(type II\); pick one by number=1 to 3"):
        read_pha(path)
    two = read_pha(path, number=2)
    assert two.counts.tolist() == [4, 5, 6, 7] and (two.exposure, two.backscal, two.meta["ancrfile"]) == (20.0, 2.0, "b")
    assert "ancrfile" not in read_pha(path, 3).meta
    with pytest.raises(ValueError, match="`number` must be a whole number of at least 1 and of at most 3"):
        read_pha(path, number=4)


def test_a_background_in_the_same_file(tmp_path):
    "As the Chandra Source Catalog keeps them: SPECTRUM1, and SPECTRUM2 which says HDUCLAS2 = BKG."
    with fits.open(pha(tmp_path / "b.pha", [CHANNEL, ("COUNTS", "J", [9, 9, 9, 9])], {"HDUCLAS2": "BKG", "EXTNAME": "SPECTRUM2"})) as f:
        cards = {"EXTNAME": "SPECTRUM1", "BACKFILE": "x_pha3.fits", "HDUCLAS2": "TOTAL"}
        path = pha(tmp_path / "x_pha3.fits", [CHANNEL, ("COUNTS", "J", [1, 0, 0, 2])], cards, [f[1].copy()])
    s = read_spectrum(path)
    assert s.counts.sum() == 3 and s.background.counts.sum() == 36
    assert s.meta["background_from"] == "x_pha3.fits (same file)"
    assert read_spectrum(path, background=False).background is None


def test_channels_that_fall_are_put_in_order(tmp_path):
    s = read_pha(pha(tmp_path / "a.pha", [("CHANNEL", "I", [3, 2, 1]), ("COUNTS", "J", [30, 20, 10])]))
    assert s.channels.tolist() == [1, 2, 3] and s.counts.tolist() == [10, 20, 30]


def test_no_counts_at_all_is_said(tmp_path):
    with pytest.warns(XRTWarning, match="no counts in any channel"):
        read_pha(pha(tmp_path / "a.pha", [CHANNEL, ("COUNTS", "J", [0] * 4)]))


@pytest.mark.parametrize("column, value, says", [
    ("COUNTS", [1, -2, 3, 4], "1 channels have negative counts, the first -2 in row 2"),
    ("COUNTS", [1, np.nan, 3, 4], "COUNTS is nan in row 2, not a finite number"),
    ("COUNTS", [1, 2.5, 3, 4], "row 2 holds 2.5, not a number of counts"),
    ("COUNTS", [1, 1e300, 3, 4], "not a number of counts"),
    ("CHANNEL", [0, 1, 1, 2], "channel 1 follows channel 1"),
    ("CHANNEL", [0, 1, 2.5, 3], "CHANNEL is 2.5 in row 3, not a whole number"),
    ("CHANNEL", [-1, 0, 1, 2], "its channels are not whole numbers from 0 on"),
    ("GROUPING", [1, -1, 0, -1], "GROUPING of row 4 continues a group"),
    ("GROUPING", [-1, -1, 1, -1], "GROUPING of row 1 continues a group"),
    ("GROUPING", [1, 5, 1, -1], "GROUPING is 5 in row 2"),
    ("BACKSCAL", [1, -1, 1, 1], "backscal must be positive"),
    ("AREASCAL", [0, 0, 0, 0], "areascal must be positive"),
])
def test_wrong_columns_are_refused_by_name(tmp_path, column, value, says):
    columns = {"CHANNEL": ("CHANNEL", "D", np.arange(4)), "COUNTS": ("COUNTS", "D", [1, 2, 3, 4])} | {column: (column, "D", value)}
    with pytest.raises(EventFileError, match=says) as err:
        read_pha(pha(tmp_path / "a.pha", list(columns.values())))
    assert "a.pha" in str(err.value)


@pytest.mark.parametrize("cards, says", [
    ({"EXPOSURE": 0.0}, "exposure` must be a finite number above 0"),
    ({"EXPOSURE": "long"}, "EXPOSURE = 'long' is not a number"),
    ({"BACKSCAL": 0.0}, "backscal` must be a finite number above 0"),
    ({"AREASCAL": -1.0}, "areascal` must be a finite number above 0"),
])
def test_wrong_cards_are_refused_by_name(tmp_path, cards, says):
    with pytest.raises(EventFileError, match=says):
        read_pha(pha(tmp_path / "a.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])], cards))


def test_a_background_without_exposure_is_refused(tmp_path):
    b = pha(tmp_path / "b.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])], {"EXPOSURE": 0.0})
    a = pha(tmp_path / "a.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])], {"BACKFILE": "b.pha"})
    with pytest.raises(EventFileError, match="b.pha: exposure` must be"):
        read_spectrum(a)
    assert read_spectrum(a, background=False).counts.sum() == 10
    assert b.exists()


def test_files_are_found_beside_only(tmp_path):
    (tmp_path / "here").mkdir()
    b = pha(tmp_path / "b.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])])
    a = pha(tmp_path / "here" / "a.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])], {"BACKFILE": "../b.pha"})
    with pytest.warns(XRTWarning, match=r"BACKFILE names ../b.pha, which isn't beside it"):
        assert read_spectrum(a).background is None
    assert read_spectrum(a, background=b).background.counts.sum() == 10


def test_wrong_arguments_are_told(tmp_path):
    path = pha(tmp_path / "a.pha", [CHANNEL, ("COUNTS", "J", [1, 2, 3, 4])])
    assert read_pha(path, number=1).counts.sum() == 10
    with pytest.raises(EventFileError, match=r"it holds one spectrum \(type I\), so there is no number 3"):
        read_pha(path, number=3)
    rmf = simulated_response(10, 40)[0]
    with pytest.raises(ValueError, match="`flux`: .* is nan"):
        rmf.fold([np.nan] * 10)
    with pytest.raises(TypeError, match="`events` must be an EventList, got 'events.csv'"):
        extract_spectrum("events.csv", rmf)


# --- files that lie -------------------------------------------------------------------------------------------------


def broken(tmp_path, **columns):
    "A response of three rows in which some columns are replaced."
    given = {"N_GRP": ("J", [1, 1, 1]), "F_CHAN": ("J", [1, 1, 1]), "N_CHAN": ("J", [4, 4, 4]), "MATRIX": ("4D", np.full((3, 4), 0.25)),
             "ENERG_LO": ("D", [1.0, 2.0, 3.0]), "ENERG_HI": ("D", [2.0, 3.0, 4.0])} | columns
    order = ["ENERG_LO", "ENERG_HI", "N_GRP", "F_CHAN", "N_CHAN", "MATRIX"]
    hdu = fits.BinTableHDU.from_columns([fits.Column(k, given[k][0], array=given[k][1]) for k in order if given[k]], name="MATRIX")
    hdu.header["TLMIN4"] = 1
    path = tmp_path / "bad.rmf"
    fits.HDUList([fits.PrimaryHDU(), hdu, ebounds(4)]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("column, value, says", [
    ("N_GRP", ("J", [1, 7, 1]), "row 2: N_GRP = 7, but F_CHAN and N_CHAN hold 1"),
    ("N_GRP", ("J", [1, -1, 1]), "row 2: N_GRP = -1"),
    ("N_GRP", ("J", [1, 2**31 - 1, 1]), "N_GRP is 2147483647 in row 2"),
    ("N_CHAN", ("J", [4, 4, 10**9]), "row 3: its group of 1000000000 channels from F_CHAN = 1 on does not lie within the 4"),
    ("N_CHAN", ("J", [4, -4, 4]), "row 2: N_CHAN = -4"),
    ("F_CHAN", ("J", [1, 2, 1]), "row 2: its group of 4 channels from F_CHAN = 2 on"),
    ("F_CHAN", ("J", [0, 1, 1]), "row 1: its group of 4 channels from F_CHAN = 0 on"),
    ("F_CHAN", ("D", [1, np.nan, 1]), "F_CHAN is nan in row 2, not a whole number"),
    ("MATRIX", ("2D", np.full((3, 2), 0.5)), "row 1: its groups have 4 channels, but MATRIX holds 2 entries"),
    ("MATRIX", ("4D", np.full((3, 4), np.inf)), "MATRIX is inf in row 1"),
    ("MATRIX", ("4D", np.full((3, 4), -0.1)), "row 1 of its matrix holds -0.1, not a probability"),
    ("MATRIX", ("4A", ["text"] * 3), "the column MATRIX must hold numbers"),
    ("ENERG_LO", ("D", [1.0, 3.0, 3.0]), "energy bin 2 runs from 3 to 3 keV"),
    ("ENERG_LO", ("D", [1.0, 0.5, 3.0]), "its energies neither rise nor fall"),
    ("N_GRP", None, "missing column N_GRP"),
])
def test_a_matrix_that_leads_out_of_itself_is_refused(tmp_path, column, value, says):
    with pytest.raises(EventFileError, match=says) as err:
        read_rmf(broken(tmp_path, **{column: value}))
    assert "bad.rmf" in str(err.value)


def test_groups_that_overlap_are_added_and_told(tmp_path):
    path = broken(tmp_path, N_GRP=("J", [2, 2, 2]), F_CHAN=("2J", [[1, 2]] * 3), N_CHAN=("2J", [[2, 2]] * 3))
    with pytest.warns(XRTWarning, match="groups of channels overlap"):
        got = read_rmf(path)
    np.testing.assert_array_equal(got.matrix.toarray(), [[0.25, 0.5, 0.25, 0]] * 3)


def test_entries_of_no_group_are_told(tmp_path):
    with pytest.warns(XRTWarning, match="MATRIX holds entries that belong to no group"):
        read_rmf(broken(tmp_path, N_CHAN=("J", [3, 4, 4])))


def heap_file(tmp_path, change):
    "A response whose heap is pointed into by other numbers."
    path = write_rmf(response(matrix(6, 8)), tmp_path / "heap.rmf")
    with fits.open(path) as f:
        start, width = f["MATRIX"]._data_offset, f["MATRIX"].header["NAXIS1"]
    data = bytearray(path.read_bytes())
    at = start + width - 8  # the descriptor of MATRIX in the first row
    data[at:at + 8] = np.array(change, ">i4").tobytes()
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("change", [(2**31 - 1, 0), (-1, 0), (4, -8), (4, 2**31 - 1), (2, 10**6), (10**4, 0)])
def test_places_outside_the_heap_are_refused(tmp_path, change):
    with pytest.raises(EventFileError, match="column 'matrix', row 1: .* lie outside the heap"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_rmf(heap_file(tmp_path, change))


def test_rows_that_share_a_heap_cannot_ask_for_more_than_there_is(tmp_path):
    n = 2000
    column = fits.Column("MATRIX", "PD()", array=ragged([[0.5] * 10] * n, "D")[1])
    hdu = fits.BinTableHDU.from_columns([column], name="MATRIX")
    path = tmp_path / "a.fits"
    hdu.writeto(path)
    with fits.open(path) as f:
        start, heap = f[1]._data_offset, f[1].header["PCOUNT"]
    data = bytearray(path.read_bytes())
    data[start:start + 8 * n] = np.tile(np.array([heap // 8, 0], ">i4"), n).tobytes()
    path.write_bytes(bytes(data))
    from xrt_nb.fits import read_tables
    with pytest.raises(EventFileError, match="its rows ask for .* unlike any real file"):
        read_tables(path, lambda h, columns, primary: list(columns))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error_or_the_same_kind_of_thing(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("d")
    good = write_rmf(response(matrix(5, 7)), folder / "a.rmf").read_bytes()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    (folder / "b.rmf").write_bytes(bytes(bad[:data.draw(st.integers(len(bad) // 2, len(bad)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = read_rmf(folder / "b.rmf")
        except EventFileError as err:
            assert "b.rmf" in str(err)
            return
    assert np.isfinite(got.fold(np.ones(len(got.energy_lo)))).all()


# --- what belongs together ------------------------------------------------------------------------------------------


def test_parts_that_do_not_belong_together(tmp_path):
    rmf, arf = simulated_response(20, 30)
    s = Spectrum(rmf.channels, np.ones(30), 10.0, rmf=rmf, arf=arf)
    with pytest.raises(EventFileError, match="energy grid"):
        replace(s, arf=Arf(arf.energy_lo[1:], arf.energy_hi[1:], arf.area[1:]))
    with pytest.raises(EventFileError, match="energy grid"):
        replace(s, arf=Arf(arf.energy_lo + 0.01, arf.energy_hi + 0.01, arf.area))
    with pytest.raises(EventFileError, match="channels 1 to 30 are not those of the response, 0 to 29"):
        replace(s, rmf=replace(rmf, first_channel=0))
    with pytest.raises(EventFileError, match="an effective area alone can't be used"):
        replace(s, rmf=None)
    write_pha(s, tmp_path / "a.pha")
    write_rmf(simulated_response(20, 60)[0], tmp_path / "wide.rmf")
    with pytest.raises(EventFileError, match=r"channels 1 to 30 of 30 are not those of wide.rmf, 1 to 60"):
        read_spectrum(tmp_path / "a.pha", rmf=tmp_path / "wide.rmf")


def test_an_area_that_the_response_holds_already_is_told(tmp_path):
    rmf, arf = simulated_response(20, 30)
    full = Rmf(rmf.energy_lo, rmf.energy_hi, rmf.matrix * arf.area[:, None], rmf.emin, rmf.emax, 1, {"full": True})
    write_rmf(full, tmp_path / "a.rsp")
    write_arf(arf, tmp_path / "a.arf")
    write_pha(Spectrum(rmf.channels, np.ones(30), 10.0), tmp_path / "a.pha", rmf="a.rsp", arf="a.arf")
    with pytest.warns(XRTWarning, match="holds the effective area already"):
        read_spectrum(tmp_path / "a.pha")
    flux = np.linspace(1, 2, 20)
    alone = read_spectrum(tmp_path / "a.pha", arf=False)
    np.testing.assert_allclose(alone.fold(flux), 10 * rmf.fold(flux * arf.area), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 6))
def test_groups_hold_enough_and_no_more_than_needed(counts, least):
    s = Spectrum(np.arange(len(counts)), counts, 1.0).group(least)
    sums = np.add.reduceat(s.counts, s.starts)
    assert sums.sum() == sum(counts)
    assert (sums[:-1] >= least).all()
    last = s.counts[np.r_[s.starts[1:], len(counts)] - 1]
    done = sums >= least
    assert ((sums - last)[done] < least).all()  # the last channel closed the group
    assert (s.quality[s.starts] == np.where(done, 0, 2)).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(0.11, 8.9), st.floats(0.01, 5), st.integers(1, 5), st.integers(0, 1000))
def test_a_selection_is_what_overlaps(lo, width, least, seed):
    rmf, arf = simulated_response(20, 60)
    s = Spectrum(rmf.channels, np.random.default_rng(seed).poisson(1, 60), 1.0, rmf=rmf, arf=arf).group(least)
    got = set(s.select(lo, lo + width).channels.tolist())
    for a, b in zip(s.starts, [*s.starts[1:], 60]):
        overlaps = rmf.emax[b - 1] > lo and rmf.emin[a] < lo + width
        assert {c in got for c in s.channels[a:b].tolist()} == {overlaps}


# --- spectra from events --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.tuples(st.floats(0, 90), st.floats(1, 50)), min_size=1, max_size=4), st.floats(0.5, 1))
def test_counts_and_exposure_against_a_loop(seed, pairs, alive):
    rng, rmf = np.random.default_rng(seed), simulated_response(10, 40)[0]
    gti = np.array([(0.0, 30.0), (40.0, 55.0), (70.0, 100.0)])
    t = np.sort(np.r_[rng.uniform(0, 30, 20), rng.uniform(40, 55, 9), rng.uniform(70, 100, 20)])
    e = rng.uniform(10, 14_900, len(t))
    asked = [(a, a + b) for a, b in pairs]
    grid = np.linspace(0, 150, 150_001)[:-1] + 0.0005
    good = np.any([(grid >= a) & (grid < b) for a, b in gti], axis=0) & np.any([(grid >= a) & (grid < b) for a, b in asked], axis=0)
    events = EventList(t, e, gti=gti, meta={"deadtime_correction": alive})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            s = extract_spectrum(events, rmf, time=asked)
        except ValueError as err:
            assert "no good time in it" in str(err) and good.sum() < 20
            return
    assert s.exposure == pytest.approx(alive * good.sum() * 1e-3, abs=0.02)
    expected = np.zeros(40, int)
    for x, y in zip(t, e / 1e3):
        if any(a <= x < b for a, b in asked):
            expected[[k for k in range(40) if rmf.emin[k] <= y < rmf.emax[k]]] += 1
    assert s.counts.tolist() == expected.tolist()


def box(n=300, seed=0, **more):
    "Events in a square, with channels."
    rng = np.random.default_rng(seed)
    columns = {"x": rng.uniform(0, 100, n), "y": rng.uniform(0, 100, n), "pi": rng.integers(1, 41, n)}
    return EventList(np.sort(rng.uniform(0, 10, n)), rng.uniform(300, 9000, n), "box", [(0, 10)], more, columns)


def test_regions_of_one_list_are_two_spectra():
    rmf, events = simulated_response(10, 40)[0], box()
    circle, ring = (Region([[(True, *r)]]) for r in (("circle", (50, 50, 20)), ("annulus", (50, 50, 25, 50))))
    s = extract_spectrum(events, rmf, region=circle, background=ring)
    r = np.hypot(events.columns["x"] - 50, events.columns["y"] - 50)
    assert s.counts.tolist() == np.bincount(events.columns["pi"][r <= 20], minlength=41)[1:].tolist()
    assert s.background.counts.sum() == ((r > 25) & (r <= 50)).sum()
    assert s.scale == pytest.approx(20**2 / (50**2 - 25**2)) and s.meta["channel_rule"] == "column pi"


def test_a_background_list_takes_its_ratio_from_meta_or_the_caller():
    rmf = simulated_response(10, 40)[0]
    a = extract_spectrum(box(area_ratio=4.0), rmf, background=box(seed=1))
    b = extract_spectrum(box(), rmf, background=box(seed=1), area_ratio=4.0)
    assert a == b and a.scale == pytest.approx(0.25)


def test_events_cut_by_energy_are_told():
    with pytest.warns(XRTWarning, match="5 of 100 events had been cut by energy"):
        extract_spectrum(box(n_channel=100, n_energy=95), simulated_response(10, 40)[0])


def test_channels_that_the_response_has_not_are_told():
    with pytest.warns(XRTWarning, match="events are in none of the response's channels"):
        s = extract_spectrum(box(), simulated_response(10, 30)[0])
    assert s.counts.sum() + s.meta["n_outside"] == 300


def test_a_response_of_another_telescope_is_refused():
    events, rmf = box(telescope="CHANDRA", instrument="ACIS"), simulated_response(10, 40)[0]
    swift = replace(rmf, meta={"telescope": "SWIFT", "instrument": "XRT"})
    with pytest.raises(EventFileError, match="is for telescope = 'SWIFT', the spectrum for 'CHANDRA'"):
        extract_spectrum(events, swift)
    assert extract_spectrum(events, swift, force=True).counts.sum() == 300


def test_an_extracted_spectrum_comes_back(tmp_path):
    s = extract_spectrum(box(), *simulated_response(10, 40), background=box(seed=1), area_ratio=3.0)
    s.write(tmp_path / "a.pha")
    assert read_spectrum(tmp_path / "a.pha") == s


@needs_files
def test_the_real_response_agrees_with_astropy_row_by_row():
    rmf = read_rmf(SHARED / "flaresp.rmf.gz")
    with fits.open(SHARED / "flaresp.rmf.gz") as f:
        t = f["MATRIX"].data
        for k in range(0, len(t), 97):
            row, at = np.zeros(1024), 0
            for a, n in zip(np.ravel(t["F_CHAN"][k]), np.ravel(t["N_CHAN"][k])):
                row[a - 1:a - 1 + n] = t["MATRIX"][k][at:at + n]
                at += n
            np.testing.assert_array_equal(rmf.matrix[[k]].toarray()[0], row)


@needs_files
def test_the_real_spectrum_comes_back(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = read_spectrum(SHARED / "flaresp_grp1.pha.gz")
    s.write(tmp_path / "again.pha")
    assert read_spectrum(tmp_path / "again.pha") == s
    assert s.scale == pytest.approx(5.801719e-05 / 0.00043894092978806, rel=1e-5)
