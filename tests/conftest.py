"""What every test shares: where the project is, and quiet, headless, bounded libraries."""

import functools
import os
import threading
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


@pytest.fixture(scope="module")
def few_figures():
    "Reports draw one class in each space: drawing is most of a run's time, and one figure shows as much as six."
    from xrt_nb import runs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "analog_figures", functools.partial(runs.analog_figures, n_classes=1))
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
