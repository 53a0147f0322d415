"""The finder in a real browser: a million sources open and a lasso returns; the same lasso at 100,000 beside a plotly FigureWidget.

    python benchmarks/bench_finder.py [--sources 1000000] [--compare 100000]

Needs Chromium (`apt-get install chromium`). The comparison needs plotly, which nothing else here does: `pip install plotly`
(its widget is built on anywidget, which the finder brings); without it the script says so and reports the finder alone.
WebGL runs in software, so seconds are those of a machine without a graphics card; the ratio is the result.
"""

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import browser_tools as bt  # noqa: E402

LASSO = [[-25, -6], [-4, -9], [5, 12], [-8, 22], [-14, 12], [-27, 14]]
SEEN = """
import time, numpy as np
held, at, drawn = [], 0.0, None
"""
FINDER = SEEN + """
from xrt_nb.finder import AnalogFinder
finder = AnalogFinder("run")
take = finder._set_rows
def note(rows, *more):
    global held, at, drawn
    held, at = np.asarray(rows), time.time()
    take(rows, *more)
    drawn = time.time()
finder._set_rows = note
finder
"""
PLOTLY = SEEN + """
import pandas as pd, plotly.graph_objects as go, anywidget
frame = pd.read_csv("run/clusters.csv")
figure = go.FigureWidget(go.Scattergl(x=frame.tsne1, y=frame.tsne2, mode="markers", marker_size=3))
half = 1.04 * max(np.ptp(frame.tsne1), np.ptp(frame.tsne2)) / 2
mx, my = (frame.tsne1.max() + frame.tsne1.min()) / 2, (frame.tsne2.max() + frame.tsne2.min()) / 2
figure.update_layout(width=540, height=460, dragmode="lasso", margin=dict(l=0, r=0, t=0, b=0), showlegend=False)
figure.update_xaxes(range=[mx - half * 540 / 460, mx + half * 540 / 460], visible=False)
figure.update_yaxes(range=[my - half, my + half], visible=False)
def note(trace, points, selector):
    global held, at, drawn
    held, at = np.asarray(points.point_inds), time.time()
    drawn = at
figure.data[0].on_selection(note)
figure
"""


def measure(name, cell, canvas, n, patience):  # (seconds to open, seconds from mouse-up to ids in Python)
    "Open `n` sources, draw a lasso, wait for its ids in Python."
    with tempfile.TemporaryDirectory() as folder:
        frame = bt.make_run(Path(folder) / "run", n)
        bt.code_notebook(Path(folder) / "bench.ipynb", cell)
        with bt.jupyterlab(folder) as address, bt.browser() as page:
            page.set_default_timeout(1000 * patience)
            bt.open_notebook(page, address, "bench.ipynb")
            start = time.time()
            bt.run_all(page)
            page.wait_for_selector(canvas)
            desk = bt.Map(page, frame)
            desk.canvas = page.locator(canvas).first
            bt.wait_for(lambda: (desk.picture() < 230).any(), patience)
            opened = time.time() - start
            page.wait_for_timeout(3000)
            page.locator(canvas).first.evaluate("e => e.scrollIntoView({block: 'center'})")
            desk.drag(LASSO)
            up = time.time()
            bt.wait_for(lambda: bt.ask(page, "drawn"), patience)
            waited, inside, drawn = bt.ask(page, "at") - up, desk.inside(LASSO), bt.ask(page, "drawn")
            held = set(desk.ids[bt.ask(page, "held.tolist()")])
    same = len(held & inside) / len(held | inside)
    print(f"{name:8s} {n:9,d} sources: open in {opened:6.1f} s; mouse-up to {len(held):,} ids in Python {waited:6.2f} s; agreement with the polygon {same:.4f}; "
          f"everything else has followed after {drawn - up:.2f} s", flush=True)
    return opened, waited


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=1_000_000)
    parser.add_argument("--compare", type=int, default=100_000)
    args = parser.parse_args()
    if bt.chromium() is None:
        print("no Chromium on this machine: apt-get install chromium; nothing measured")
        return
    _, ours = measure("finder", FINDER, ".xrt-finder canvas", args.compare, 120)
    if find_spec("plotly") is None:
        print("plotly is not installed, so there is no comparison: pip install plotly")
    else:
        _, theirs = measure("plotly", PLOTLY, ".js-plotly-plot .gl-canvas", args.compare, 240)
        print(f"plotly takes {theirs / ours:.1f} times as long")
    measure("finder", FINDER, ".xrt-finder canvas", args.sources, 400)


if __name__ == "__main__":
    main()
