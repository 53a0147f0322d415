"""What the browser tests stand on: a big archive as a run, private servers on free loopback ports, Chromium, and a mouse on a map.

Chromium is the one of the system (`apt-get install chromium`); WebGL runs in software, so no graphics card is needed.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from xrt_nb.data import EventTable
from xrt_nb.runs import file_hash

ROOT = Path(__file__).resolve().parent.parent
ARTEFACTS = ROOT / "tests" / "artefacts"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SIZES = {"1280x800": (1280, 800), "1920x1080": (1920, 1080)}


def chromium():  # path of the browser, or None
    "Find the system's Chromium."
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# --- an archive ---------------------------------------------------------------------------------------------------

FLARES, DIPS = [f"9000{k}_1" for k in range(4)], [f"9100{k}_1" for k in range(3)]  # known transients


def make_run(folder, n=100_000, seed=7):
    "Write a finished run of `n` sources with about 6 photons each: two clouds, and known transients standing alone at the rim."
    rng, folder = np.random.default_rng(seed), Path(folder)
    (folder / "input").mkdir(parents=True)
    far = len(FLARES) + len(DIPS)
    ids = np.array([f"{10_000 + k // 20}_{k % 20}" for k in range(n - far)] + FLARES + DIPS)
    second = rng.random(n - far) < 0.3
    place = np.where(second[:, None], rng.normal([18, -8], 5, (n - far, 2)), rng.normal([-10, 6], 9, (n - far, 2)))
    angle = np.linspace(0.3, 2 * np.pi + 0.3, far, endpoint=False)
    place = np.vstack([np.clip(place, -44, 44), 54 * np.column_stack([np.cos(angle), np.sin(angle)])])
    photons = rng.poisson(5, n) + 1
    time_ = np.sort(rng.uniform(0, 20_000, photons.sum()) + 1e6 * np.repeat(np.arange(n), photons)) - 1e6 * np.repeat(np.arange(n), photons)
    meta = pd.DataFrame({"name": [f"2CXO J{k // 2:06d}" for k in range(n)], "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-90, 90, n)}, index=ids)
    EventTable(ids, np.concatenate([[0], np.cumsum(photons)]), time_, rng.uniform(500, 7000, len(time_)), meta=meta).write(folder / "input" / "events.parquet")
    clusters = pd.DataFrame({"tsne1": place[:, 0], "tsne2": place[:, 1], "obsreg_id": ids, "cluster": np.r_[1 + second, np.zeros(far, int)]})
    clusters.to_csv(folder / "clusters.csv", index=False)
    index = pd.Index(ids, name="obsreg_id")
    pd.DataFrame(np.column_stack([place / 20, rng.normal(size=(n, 3))]), index, list("abcde")).to_parquet(folder / "features.parquet")
    pd.DataFrame({"gl_log_odds": rng.exponential(2, n), "hard_hs": rng.uniform(-1, 1, n), "log_counts": np.log10(photons)}, index).to_parquet(folder / "properties.parquet")
    pd.DataFrame([(q, c, ids[0], 1, 0.1, "features") for c, qs in (("flare", FLARES), ("dip", DIPS)) for q in qs],
                 columns=["query", "known_class", "obsreg_id", "rank", "distance", "space"]).to_csv(folder / "analogs.csv", index=False)
    pd.DataFrame({"query": []}).to_csv(folder / "retrieval.csv", index=False)
    files = {p.name: file_hash(p) for p in sorted(folder.iterdir()) if p.is_file()}
    manifest = {"case": "2D-PCA", "status": "complete", "fingerprint": "f00d" * 16, "steps": {"all": {"files": files}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return clusters


# --- servers ------------------------------------------------------------------------------------------------------


def free_port():
    "A port that was free a moment ago."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def process(command, folder, theme="JupyterLab Light", **more):
    "A server in a process group of its own, with fresh settings; it is ended by its own number, whatever happens."
    env = os.environ | {name: str(Path(folder, "settings", name)) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR",
                        "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]), "JUPYTER_NO_CONFIG": "1", "PYTHONUNBUFFERED": "1"} | more
    quiet = Path(env["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "apputils-extension")
    quiet.mkdir(parents=True, exist_ok=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (quiet / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    log = Path(folder, "server.log")
    with log.open("w") as out:
        server = subprocess.Popen([sys.executable, *map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=folder, start_new_session=True)
        try:
            yield server, log
        finally:
            end(server)


def end(server, how=signal.SIGTERM):
    "End a server; neither it nor a kernel of its may be left."
    everyone = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
    server.send_signal(how)
    _, left = psutil.wait_procs(everyone, timeout=60)
    for one in left:
        one.kill()
    server.wait(10)
    assert not left, f"still there after signal {how}: {left}"


def wait_for(what, seconds=60, server=None, log=None):
    "Ask until the answer is true; say what the server said if it never is."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := what():
            return answer
        if server is not None and server.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain" + (f"; the server said:\n{log.read_text()[-3000:]}" if log else ""))


def answers(address):
    "Whether a server answers there."
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def jupyterlab(folder, theme="JupyterLab Light"):  # its address
    "A JupyterLab without password on the loopback, for one folder, in a theme."
    port = free_port()
    command = ["-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=",
               "--allow-root", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True", "--ServerApp.disable_check_xsrf=True"]
    with process(command, folder, theme) as (server, log):
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/lab"), server=server, log=log)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def app(folder, run, *options):  # its address with the token
    "`xrt-nb app` on a run."
    with process(["-c", "from xrt_nb.cli import main; main()", "app", run, "--no-open", "--port", free_port(), *options], folder) as (server, log):
        wait_for(lambda: "Press Ctrl-C" in log.read_text(), server=server, log=log)
        yield next(word for word in log.read_text().split() if word.startswith("http://127.0.0.1"))


# --- the browser --------------------------------------------------------------------------------------------------

LOCAL = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")


@contextlib.contextmanager
def browser(size=SIZES["1280x800"]):  # a page with .strangers and .errors
    "A page in a fresh Chromium that notes every request that leaves this machine and every error in its console."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        try:
            page = chrome.new_page(viewport={"width": size[0], "height": size[1]})
            page.set_default_timeout(180_000)  # a busy machine is no fault
            page.strangers, page.errors = [], []
            page.on("request", lambda r: None if r.url.startswith(LOCAL) else page.strangers.append(r.url))
            page.on("websocket", lambda w: None if w.url.startswith(LOCAL) else page.strangers.append(w.url))
            page.on("console", lambda m: page.errors.append(f"{m.text[:300]} ({m.location.get('url')})") if m.type == "error" else None)
            page.on("pageerror", lambda e: page.errors.append(f"uncaught: {str(e)[:300]}"))
            try:
                yield page
            except BaseException:
                ARTEFACTS.mkdir(exist_ok=True)
                page.screenshot(path=ARTEFACTS / "failure.png")
                print("console:", page.errors, "requests elsewhere:", page.strangers, "page:", page.inner_text("body")[-2000:], sep="\n")
                raise
        finally:
            chrome.close()


def open_notebook(page, address, name):
    "Open a notebook in JupyterLab and wait for its kernel."
    page.goto(f"{address}/lab/workspaces/w{time.time_ns()}/tree/{name}?reset")
    page.wait_for_selector(".jp-NotebookPanel")
    page.evaluate("async () => { await window.jupyterapp.restored; const w = window.jupyterapp.shell.currentWidget; await w.context.ready; await w.revealed }")

    def ready():
        for accept in page.locator(".jp-Dialog button.jp-mod-accept").all():  # which kernel? the one it proposes
            accept.click()
        return page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status") == "idle" and page.locator("#jupyterlab-splash").count() == 0

    wait_for(ready)
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")


def run_all(page):
    "Run every cell and wait for the end."
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")


def ask(page, expression):
    "The value of a Python expression in the notebook's kernel, by way of JSON."
    reply = page.evaluate("""async code => (await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute(
        {code: "", silent: true, user_expressions: {answer: code}}).done).content.user_expressions.answer""", f"__import__('json').dumps({expression})")
    assert reply["status"] == "ok", reply
    import ast
    return json.loads(ast.literal_eval(reply["data"]["text/plain"]))


def code_notebook(path, *sources):
    "Write a notebook of these cells."
    cells = [{"cell_type": "code", "id": f"cell{k}", "execution_count": None, "metadata": {}, "outputs": [], "source": s} for k, s in enumerate(sources)]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    Path(path).write_text(json.dumps({"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}))


# --- a hand on the map --------------------------------------------------------------------------------------------


class Map:
    "Where sources are on the screen: the map shows the square around all sources, as high as its canvas, in the middle."
    def __init__(self, page, frame):
        self.page, self.place = page, frame[["tsne1", "tsne2"]].to_numpy()
        self.ids = frame["obsreg_id"].to_numpy()
        self.low, self.high = self.place.min(axis=0), self.place.max(axis=0)
        self.canvas = page.locator(".xrt-finder canvas").first

    def view(self):  # middle of the canvas [pixels], middle of the map, pixels per unit
        box = self.canvas.bounding_box()
        half = (self.high - self.low).max() / 2 * 1.04
        return np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]), (self.low + self.high) / 2, box["height"] / 2 / half

    def pixels(self, points):
        "Positions on the screen, in whole pixels as a mouse has them."
        middle, centre, scale = self.view()
        return np.round(middle + (np.asarray(points) - centre) * [scale, -scale])

    def snapped(self, points):
        "The points of the map that lie at these points' pixels."
        middle, centre, scale = self.view()
        return centre + (self.pixels(points) - middle) / [scale, -scale]

    def inside(self, polygon):  # ids
        "The sources inside a polygon on the map, counted here and not by the widget."
        from matplotlib.path import Path as Line
        return set(self.ids[Line(self.snapped(polygon)).contains_points(self.place)])

    def drag(self, points):
        "Draw with the mouse through points of the map; the lasso closes itself."
        mouse, line = self.page.mouse, self.pixels(points)
        mouse.move(*(line[0] + 5))
        mouse.down()  # the line begins where the mouse first moves to
        for x, y in line:
            mouse.move(x, y)
            self.page.wait_for_timeout(40)  # a faster hand than any: the map skips corners
        mouse.up()

    def picture(self):  # (H, W, 3) uint8
        "What the canvas shows."
        import io

        from matplotlib.image import imread
        return (imread(io.BytesIO(self.canvas.screenshot()))[..., :3] * 255).astype(np.uint8)


def keep(page, name, sizes=tuple(SIZES)):
    "Keep a picture of the page at these sizes; the last one leaves the page as it was."
    before = page.viewport_size
    for size in sizes:
        page.set_viewport_size(dict(zip(("width", "height"), SIZES[size])))
        page.wait_for_timeout(200)
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{name}-{size}.png")
    page.set_viewport_size(before)
    page.wait_for_timeout(100)


ROLES = ("button", "checkbox", "combobox", "textbox", "spinbutton", "radio", "slider", "tab", "link")


def controls(page):  # list of (role, name)
    "The controls of the finder as the browser's accessibility tree has them."
    lines = re.findall(r"^ *- ([a-z]+)(?: \"((?:[^\"\\\\]|\\\\.)*)\")?", page.locator(".xrt-finder").aria_snapshot(), re.M)
    return [(role, name) for role, name in lines if role in ROLES]


def tab_stops(page, most=90):  # set of classes
    "Walk through the finder with the Tab key; the xrt- classes of everything that gets the focus."
    page.locator(".xrt-embedding select").focus()
    seen = set()
    for _ in range(most):
        here = page.evaluate("""() => { const found = []; for (let e = document.activeElement; e; e = e.parentElement) found.push(...[...e.classList].filter(c => c.startsWith('xrt-')));
            return document.activeElement.closest('.xrt-finder') ? found : null }""")
        if here is None:
            break
        seen |= set(here)
        page.keyboard.press("Tab")
    return seen
