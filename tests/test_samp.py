"""The finder and a second program on one SAMP hub of this machine: tables go over, rows and positions come back."""

import os
import time
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from xrt_nb import samp
from xrt_nb.data import XRTError
from xrt_nb.finder import AnalogFinder


def wait(what, seconds=60):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A hub of our own, which no other program of this machine knows."
    lock = tmp_path / "samp"
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{lock.as_uri()}")
    library = samp.library()
    with library.conf.set_temp("use_internet", False):
        made = library.SAMPHubServer(web_profile=False, addr="127.0.0.1", lockfile=str(lock))
        made.start()
        yield library
        made.stop()


@pytest.fixture
def program(hub):
    "TOPCAT's part: it loads tables and is pointed at positions."
    client = hub.SAMPIntegratedClient(name="table program", addr="127.0.0.1")
    client.connect()
    client.heard = []
    for mtype in ("table.load.votable", "coord.pointAt.sky"):
        client.bind_receive_notification(mtype, lambda key, sender, mtype, params, extra: client.heard.append((mtype, params)))
    yield client
    client.disconnect()


@pytest.fixture
def desk():
    rng, n = np.random.default_rng(3), 40
    frame = pd.DataFrame({"tsne1": rng.normal(size=n), "tsne2": rng.normal(size=n), "obsreg_id": [f"{k}_1" for k in range(n)],
                          "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-80, 80, n), "hard_hs": rng.normal(size=n)})
    made = AnalogFinder(frame)
    yield made
    if made._link is not None:
        made._link.close()


def test_a_selection_goes_over_and_rows_come_back(desk, program):
    desk.query("hard_hs > 0")
    desk.sort_by("hard_hs")
    order = desk._ids[desk._ordered()].tolist()
    assert desk.send_selection() == ["table program"] and "sent to table program" in desk.status
    assert wait(lambda: program.heard)
    params = program.heard[0][1]
    table = Table.read(urlparse(params["url"]).path, format="votable")
    assert table["obsreg_id"].tolist() == order and "Hardness ratio" in table["hard_hs"].description and str(table["ra"].unit) == "deg"
    program.notify_all({"samp.mtype": "table.highlight.row", "samp.params": {"table-id": params["table-id"], "row": "2"}})
    assert wait(lambda: desk.focus == order[2])
    program.call_all("tag", {"samp.mtype": "table.highlight.row", "samp.params": {"url": params["url"], "row": "0"}})
    assert wait(lambda: desk.focus == order[0])
    program.notify_all({"samp.mtype": "table.select.rowList", "samp.params": {"table-id": params["table-id"], "row-list": ["1", "3", "999", "x"]}})
    assert wait(lambda: desk.selection == sorted([order[1], order[3]]))


def test_positions_both_ways(desk, program):
    row = desk.frame.iloc[7]
    desk.focus_on("7_1")
    assert desk.point_at() == ["table program"] and wait(lambda: program.heard)
    sent = program.heard[0][1]
    assert (float(sent["ra"]), float(sent["dec"])) == (row.ra, row.dec)
    other = desk.frame.iloc[11]
    point = {"ra": str(other.ra), "dec": str(other.dec + 5 / 3600)}
    program.notify_all({"samp.mtype": "coord.pointAt.sky", "samp.params": point})
    assert wait(lambda: desk.focus == "11_1")
    for ra, dec in (("nan", "0"), ("12", "91"), ("x", ""), (str(other.ra), str(other.dec + 0.01))):
        program.notify_all({"samp.mtype": "coord.pointAt.sky", "samp.params": {"ra": ra, "dec": dec}})
    assert wait(lambda: "no source within 10 arcsec" in desk.message) and desk.focus == "11_1"


def test_without_a_hub_it_is_said_what_to_start(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'none').as_uri()}")
    desk.select_all()
    with pytest.raises(XRTError, match="no SAMP hub runs on this machine .*start TOPCAT or Aladin"):
        desk.send_selection()


def test_what_is_asked_of_nobody(desk, program):
    with pytest.raises(ValueError, match="nothing is selected"):
        desk.send_selection()
    with pytest.raises(ValueError, match="no source is in focus"):
        desk.point_at()
    assert not program.heard and os.environ["SAMP_HUB"] and Path(urlparse(os.environ["SAMP_HUB"].split(":", 1)[1]).path).exists()
