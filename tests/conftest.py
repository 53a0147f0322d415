"""What every test shares: where the project is, and quiet, headless, bounded libraries."""

import functools
import os
import threading
import weakref
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "agg")
# tqdm's own lock is a semaphore that a forked child shares: a child killed while it holds it would lock its parent for ever
tqdm.set_lock(threading.RLock())
# the real data lie beside the project; tests that need them skip, with a reason, where they are not
os.environ.setdefault("XRT_NB_SHARED", str(ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def root():
    "The project's root folder."
    return ROOT


@pytest.fixture(scope="session")
def shared():
    "The folder of real data, or a skip."
    path = Path(os.environ["XRT_NB_SHARED"])
    if not (path / "data").is_dir():
        pytest.skip("no real data here: set XRT_NB_SHARED")
    return path


def text_of(*parts):
    "Frames and series as CSV, anything else as Python shows it: equal for what looks equal on a figure."
    return tuple(p.to_csv() if hasattr(p, "to_csv") else repr(p) for p in parts)


def drawn_once(draw, what=text_of):
    "A function that draws, which gives the same object again when it is asked to draw the same once more."
    kept = {}

    def once(*args):
        mark = what(*args)
        if mark not in kept:
            kept[mark] = draw(*args)
        return kept[mark]
    once.func = getattr(draw, "func", draw)
    return once


@pytest.fixture(scope="module")
def few_figures():
    """Reports draw one class in each space, and what looks the same once for all runs of a module.

    Drawing is most of a small run's time. One figure shows as much as six, and a second time as much as the first.
    """
    from xrt_nb import runs
    real, pictures = runs.png, weakref.WeakKeyDictionary()

    def lists_of(events, *rest):
        return runs.fingerprint_events(events), *text_of(*rest)

    def png(fig):
        return pictures.get(fig) or pictures.setdefault(fig, real(fig))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "analog_figures", drawn_once(functools.partial(runs.analog_figures, n_classes=1), lists_of))
        for name in ("embedding_figure", "cluster_figure"):
            patch.setattr(runs, name, drawn_once(getattr(runs, name)))
        patch.setattr(runs, "png", png)
        yield


@pytest.fixture
def httpserver():
    "A server at 127.0.0.1 whose answers the test orders."
    from tests.support.http_server import HTTPServer
    with HTTPServer() as server:
        yield server


@pytest.fixture
def ax():
    "Axes to draw into, closed afterwards."
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def pytest_collection_modifyitems(items):
    "Start what takes longest first, so that two workers end together (`--dist worksteal` keeps neighbours on one of them)."
    first = ["test_browser", "test_site", "test_notebooks"]
    slow = ("comparison", "02e_deepsets", "02d_autoencoder", "tutorials/")  # the longest notebooks
    items.sort(key=lambda item: (first.index(item.module.__name__) if item.module.__name__ in first else len(first), not any(name in item.name for name in slow)))
