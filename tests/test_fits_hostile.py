"""Files that are damaged, hostile or merely large: bounded time, bounded memory, one bounded sentence."""

import io
import os
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from make_mission_fixtures import nustar, write

from xrt_nb.data import XRTWarning, in_gti, merge_gti
from xrt_nb.fits import EventFileError, as_region, intersect_gti, read_event_list, read_tables


def all_columns(header, columns, primary):
    return list(columns)


def gtis(draw):
    edges = np.cumsum(draw)
    return edges[: len(edges) // 2 * 2].reshape(-1, 2)


@settings(max_examples=200, deadline=None)
@given(*[st.lists(st.integers(1, 9), max_size=24)] * 2)
def test_intersection_is_what_both_hold(a, b):
    a, b = gtis(a), gtis(b)
    both, t = intersect_gti(a, b), np.arange(-1, 250) + 0.5
    assert np.array_equal(in_gti(t, both), in_gti(t, a) & in_gti(t, b))
    assert np.array_equal(both, merge_gti(both)) and (both[:, 1] > both[:, 0]).all()
    assert np.array_equal(both, intersect_gti(b, a))


def test_long_lists_of_good_times_intersect_in_linear_time():
    rng = np.random.default_rng(1)
    a, b = (np.cumsum(rng.uniform(0.1, 2, 200_000)).reshape(-1, 2) for _ in range(2))
    tracemalloc.start()
    start = time.process_time()
    both = intersect_gti(a, b)
    took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 1 and peak < 200e6 and len(both) > 50_000
    t = rng.uniform(0, 2e5, 10_000)
    assert np.array_equal(in_gti(t, both), in_gti(t, a) & in_gti(t, b))


def test_pipes_folders_and_odd_names_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.evt")
    for read in (read_event_list, as_region, lambda p: read_tables(p, all_columns)):
        with pytest.raises(EventFileError, match="pipe.evt: not a file but"):
            read(tmp_path / "pipe.evt")
        with pytest.raises(EventFileError, match="(not a file but|Is a directory)"):
            read(tmp_path)
    with pytest.raises(EventFileError, match="not a file name"):
        read_event_list("a\0b.fits")
    with pytest.raises(EventFileError, match="/dev/zero: not a file but"):
        read_event_list("/dev/zero")


@pytest.mark.parametrize("size", [50_000, 30_000_000])
def test_a_header_without_end_is_not_read_to_the_end(tmp_path, size):
    path = tmp_path / "endless.fits"
    cards = b"SIMPLE  =                    T".ljust(80) + b"COMMENT nothing".ljust(80) * (size // 80)
    path.write_bytes(cards)
    start = time.process_time()
    with pytest.raises(
        EventFileError, match="endless.fits: the header after 0 bytes can't be read.*no END"
    ) as err:
        read_event_list(path)
    assert time.process_time() - start < 2 and len(str(err.value)) < 500


def test_ten_thousand_extensions_are_refused(tmp_path):
    one = io.BytesIO()
    table = fits.BinTableHDU.from_columns([fits.Column("START", "D", array=[1.0])], name="GTI")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(one)
    path = tmp_path / "many.fits"
    path.write_bytes(one.getvalue()[:2880] + one.getvalue()[2880:] * 10_000)
    start = time.process_time()
    with pytest.raises(EventFileError, match="many.fits: more than 2048 extensions"):
        read_tables(path, lambda *a: None)
    assert time.process_time() - start < 10


def test_sentences_about_long_values_are_short(tmp_path):
    for key in ("TELESCOP", "TIMESYS", "TIMEUNIT", "MJDREFI", "EXTNAME"):
        case = nustar()
        case.keys[key] = "x" * 5000
        write(case, tmp_path / "long.fits")
        with pytest.raises(EventFileError) as err:
            read_event_list(tmp_path / "long.fits")
        assert str(err.value).startswith(str(tmp_path / "long.fits")) and len(str(err.value)) < 1000 + len(
            str(tmp_path)
        )


def test_a_header_sum_without_a_data_sum_is_checked(tmp_path):
    path = write(nustar(), tmp_path / "sums.fits").path
    data = bytearray(path.read_bytes())
    at = data.index(b"DATASUM ", data.index(b"'EVENTS"))
    letter = next(i for i in range(at + 34, at + 80, 4) if chr(data[i]).isalpha())
    data[at + 6] += (
        1  # another name, DATASUN, and elsewhere a letter less, so that the sum of the header is the same
    )
    data[letter] -= 1
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_event_list(path, energy_range=None)
    data[data.index(b"END" + b" " * 77, at) // 2880 * 2880 + 2880 + 3] ^= 1  # a bit of the first time
    path.write_bytes(data)
    with pytest.warns(XRTWarning, match="its checksum disagrees"):
        read_event_list(path, energy_range=None)
