"""Figures: drawing imports no pyplot, keeps the back end, and uses the user's axes where there are any."""
import ast
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from xrt_nb import _style
from test_repository import MODULES, imports_of

DRAW = """
import sys
import matplotlib
matplotlib.use({backend!r}) if {backend!r} else None
before = matplotlib.rcParams._get_backend_or_none()
import numpy as np, pandas as pd
{pyplot}
from xrt_nb.simulation import simulate_archive
from xrt_nb.data import EventList
from xrt_nb.lightcurves import plot_light_curves
from xrt_nb.representations import EtDtCube, EtMap, plot_cube, plot_map
from xrt_nb.features import pca, plot_components, plot_scree
from xrt_nb.embedding import plot_embedding
from xrt_nb.clustering import plot_clusters, plot_k_distance
from xrt_nb.analogs import plot_analogs
from xrt_nb.training import plot_history
from xrt_nb.autoencoder import plot_reconstructions
from xrt_nb.counterparts import plot_reliability
events, truth = simulate_archive(40, 0)
one, maps = events[events.ids[0]], EtMap().fit_transform(events)
places = pd.DataFrame(np.random.default_rng(0).normal(size=(len(events), 2)), columns=["tsne1", "tsne2"])
places.insert(0, "obsreg_id", events.ids)
drawn = [
    one.plot_light_curve(), one.plot_events(), one.plot_cumulative(), *plot_light_curves([one, one]),
    plot_map(maps[0]), *plot_cube(EtDtCube(sparse=False).fit_transform(events[:2])[0]),
    plot_scree(pca(4).fit(maps)), *np.ravel(plot_components(pca(4).fit(maps), n=2)),
    plot_embedding(places), plot_clusters(places, np.arange(len(events)) % 3), plot_k_distance(places, 5, eps=1.0),
    *np.ravel(plot_analogs(events, events.ids[:2].tolist() if hasattr(events.ids, "tolist") else events.ids[:2])),
    plot_history(pd.DataFrame({{"loss": [2, 1.0], "val_loss": [2, 1.5]}})),
    *plot_reconstructions({{"shown": maps}}, [0, 1]).axes,
    plot_reliability(pd.DataFrame({{"mean_p": [0.2], "fraction": [0.3], "error": [0.1]}})),
]
assert all(ax.has_data() for ax in drawn if ax.get_label() != "<colorbar>"), "an empty figure"
print(before == matplotlib.rcParams._get_backend_or_none(), "matplotlib.pyplot" in sys.modules, len(drawn))
"""


def draw(backend, pyplot=""):
    "What a process says after drawing one figure of each kind."
    done = subprocess.run([sys.executable, "-c", DRAW.format(backend=backend, pyplot=pyplot)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_drawing_imports_no_pyplot_and_keeps_the_back_end():
    same, imported, n = draw("")
    assert (same, imported) == ("True", "False") and int(n) > 20


@pytest.mark.slow
def test_drawing_keeps_a_chosen_back_end():
    assert draw("svg", "import matplotlib.pyplot")[:2] == ["True", "True"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_room_imports_pyplot(path):
    assert not [name for name in imports_of(path) if name.startswith("matplotlib.pyplot")]
    calls = [n.func.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    assert "switch_backend" not in calls


def test_the_users_axes_come_first(ax):
    assert _style.axes(ax) is ax and _style.figure(ax.figure) is ax.figure
    assert _style.axes() is ax, "pyplot's current axes, since pyplot is there"


def test_png_is_the_same_twice_and_leaves_pyplot():
    import matplotlib.pyplot as plt

    fig = _style.figure(figsize=(2, 1))
    fig.add_subplot().plot([0, 1])
    assert fig.number in plt.get_fignums()
    first = _style.png(fig)
    assert fig.number not in plt.get_fignums() and first == _style.png(fig) and first.startswith(b"\x89PNG")


def test_dark_ground_ends_with_the_block():
    before = dict(matplotlib.rcParams)
    with _style.ground("dark", font__size=7):
        assert matplotlib.rcParams["font.size"] == 7 and matplotlib.rcParams["axes.facecolor"] == "#111111"
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="'light' or 'dark'"):
        _style.ground("blue")


def test_colors_of_text_on_dark_ground_are_readable():
    "The contrast of the web's guidelines: 4.5 to 1 for text."
    def light(color):
        rgb = np.array([int(color[k:k + 2], 16) for k in (1, 3, 5)]) / 255
        return np.dot([0.2126, 0.7152, 0.0722], np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4))
    for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"):
        assert (light(_style.DARK[name]) + 0.05) / (light(_style.DARK["figure.facecolor"]) + 0.05) > 4.5


class Events:
    "What happens at the end of a cell."

    def __init__(self): self.todo = []

    def register(self, event, what): self.todo.append(what)

    def unregister(self, event, what): self.todo.remove(what)


def test_a_figure_is_shown_once_at_the_end_of_its_cell_or_before(monkeypatch):
    session, shown = SimpleNamespace(kernel=1, events=Events()), []
    notebook = SimpleNamespace(version_info=(9, 0), get_ipython=lambda: session, display=SimpleNamespace(display=shown.append))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    ax = _style.axes()
    fig = _style.figure(figsize=(2, 1))
    assert fig._repr_png_().startswith(b"\x89PNG"), "as the result of the cell"
    for what in list(session.events.todo): what()
    assert shown == [ax.figure] and session.events.todo == []
    monkeypatch.setattr(notebook, "get_ipython", lambda: None)
    assert _style.shell() is None and _style.axes() is not ax
