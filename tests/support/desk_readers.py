"Reading what the finder keeps, for the fuzzer: labels, sessions, selections."
import functools

import numpy as np
import pandas as pd

from xrt_nb.analogs import read_selection
from xrt_nb.finder import AnalogFinder
from xrt_nb.labels import Labels


def labels(path):
    "The marks of a label file."
    return Labels.read(path).frame().to_dict("records")


@functools.cache
def desk():
    "A small map."
    rng, n = np.random.default_rng(0), 30
    frame = pd.DataFrame({"tsne1": rng.normal(size=n), "tsne2": rng.normal(size=n), "obsreg_id": [f"{k}_1" for k in range(n)],
                          "cluster": np.arange(n) % 3, "hard_hs": rng.normal(size=n)})
    return AnalogFinder(frame, known={"flare": ["3_1", "4_1"], "dip": ["5_1"]})


def session(path):
    "The desk after a session was opened; a session that is refused leaves it as it was."
    before = desk().state()
    try:
        desk().open_session(path)
    except Exception:
        assert desk().state() == before, "a session was applied by half"
        raise
    after = desk().state()
    desk().clear()
    return {k: v for k, v in after.items() if k != "message"}


def selection(path):
    "The ids of a selection."
    return read_selection(path).obsreg_id.tolist()
