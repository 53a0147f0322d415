"""The finder in a real browser, with a real mouse: 100,000 sources in JupyterLab, and as a page of its own.

A few long tests rather than twenty short ones: starting a server, a browser and a map of this size takes longer than all the looking.
The two with 100,000 sources are slow ones; the dark pages, with a few hundred, belong to every run of the tests.
Pictures of every state are left in `tests/artefacts/`.
"""

import os
import re
import time

import numpy as np
import pandas as pd
import pytest

import browser_tools as bt
from xrt_nb.labels import Labels

LASSO = [[-25, -6], [-4, -9], [5, 12], [-8, 22], [-14, 12], [-27, 14]]
BOX = [[8, -18], [26, 2]]


@pytest.fixture(scope="module")
def chrome():
    "Nothing to hand out: there is a browser, or these tests are passed over (and fail where they must not be)."
    if bt.chromium() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium on this machine: apt-get install chromium")
        print("no Chromium on this machine: the tests in a browser are passed over; apt-get install chromium")
        pytest.skip("no Chromium on this machine: apt-get install chromium")


@pytest.fixture
def archive(tmp_path):
    "A folder with a finished run of 100,000 sources, and its map."
    return tmp_path, bt.make_run(tmp_path / "run")


class Desk:
    "The finder on a page: its controls by their class, what it says, what it did."

    def __init__(self, page, frame, name):
        self.page, self.map, self.name = page, bt.Map(page, frame), name

    def at(self, control, inner="input, select, button, textarea"):
        return self.page.locator(f".xrt-{control}").locator(inner) if inner else self.page.locator(f".xrt-{control}")

    def status(self):
        return self.page.locator(".xrt-status").inner_text().strip()

    def wait(self, pattern, seconds=30):
        "Wait until the status line says something; it is changed last, after all pictures."
        try:
            bt.wait_for(lambda: re.search(pattern, self.status()), seconds)
        except AssertionError:
            raise AssertionError(f"the status line never said {pattern!r}, but {self.status()!r}; console: {self.page.errors}") from None

    def keep(self, state):
        "Keep pictures of the page: of the page by itself at every size, of JupyterLab at one."
        bt.keep(self.page, f"{self.name}-{state}", list(bt.SIZES)[:2 if self.name == "page" else 1])

    def click(self, control):
        self.page.locator(f"button.xrt-{control}").click()

    def fill(self, control, text):
        field = self.at(control)
        field.fill(str(text))
        field.press("Tab")

    def selected(self, pattern="sources selected"):
        "How many sources the status line says are selected, once it says so."
        self.wait(rf"^[1-9]\d* of \d+ {pattern}")
        return int(re.match(r"\d+", self.status())[0])

    def saved(self, folder, name):
        "Save the selection by the controls of the page, and read the file that is on the disk."
        self.fill("path", name)
        self.click("save")
        bt.wait_for(lambda: (folder / name).exists(), 20)
        return list(pd.read_csv(folder / name, dtype={"obsreg_id": str}).obsreg_id)

    def pictures(self):
        "The pictures of the panel on show, loaded: their descriptions and heights."
        return self.page.evaluate("() => [...document.querySelectorAll('.xrt-panel img')].filter(e => e.complete && e.offsetParent).map(e => [e.alt, e.naturalHeight])")

    def changes(self, act, seconds=15):
        "Whether the map looks different after an action, by how many pixels."
        self.page.mouse.move(2, 2)
        before = self.map.picture()
        act()
        return bt.wait_for(lambda: int((np.abs(self.map.picture().astype(int) - before).max(axis=2) > 30).sum()), seconds)


def overlap(a, b):
    return len(set(a) & set(b)) / len(set(a) | set(b))


def start(desk):
    "The finder has come, with its whole map."
    desk.page.wait_for_selector(".xrt-status")
    desk.page.wait_for_selector(".xrt-finder canvas")
    desk.page.locator(".xrt-finder").evaluate("e => e.scrollIntoView()")
    desk.wait("^0 of 100000 sources selected")
    bt.wait_for(lambda: (desk.map.picture() < 250).any(), 30)


def lasso_and_box(desk, ids):
    "What Python holds is what lies inside the line that was drawn, counted here."
    times = []
    for mode, drawn, polygon in (("lasso", LASSO, LASSO), ("box", BOX, [[8, -18], [26, -18], [26, 2], [8, 2]])):
        desk.page.locator(".xrt-mouse button", has_text=mode).click()
        before = desk.status()
        desk.map.drag(drawn if mode == "lasso" else [drawn[0], np.mean(drawn, axis=0), drawn[1]])
        clock = time.monotonic()
        bt.wait_for(lambda: desk.status() != before and desk.selected() > 1, 30)
        times.append(round(time.monotonic() - clock, 2))
        held, inside = ids(mode), desk.map.inside(polygon)
        print(f"{mode}: {len(held)} sources held, {len(inside)} inside, overlap {overlap(held, inside):.5f}")
        assert len(held) == desk.selected() > 1000 and overlap(held, inside) >= 0.99
        (alt, height), = desk.pictures()
        assert height > 100 and alt.startswith("Light curves of ") and len(set(alt[16:].split(", ")) & set(held)) == 6
        desk.keep(mode)
    print(f"{desk.name}: mouse-up to pictures {times} s")


def hover_and_click(desk):
    "A known transient stands alone at the rim: the mouse over it names it, a click selects it."
    flare, place = bt.FLARES[0], desk.map.place[desk.map.ids == bt.FLARES[0]][0]
    (x, y), = desk.map.pixels([place])
    desk.page.mouse.move(x + 9, y + 9)
    desk.page.mouse.move(x, y)
    bt.wait_for(lambda: desk.page.locator(".xrt-finder").get_by_text(flare, exact=True).count(), 15)
    desk.keep("hover")
    (x, y), = desk.map.pixels([place])
    desk.page.mouse.move(x + 9, y + 9)
    desk.page.mouse.click(x, y)
    desk.wait("^1 of 100000")
    bt.wait_for(lambda: desk.at("analog-id").input_value(), 15)  # the field follows the status on a busy machine
    assert desk.at("analog-id").input_value() == flare


def colors_and_classes(desk):
    "Another property and the known transients change what the canvas shows, and the legend says so."
    desk.click("clear")
    desk.wait("^0 of")
    assert desk.changes(lambda: desk.at("color").select_option("cluster")) > 2000
    assert all(word in desk.at("legend", None).inner_text() for word in ("cluster", "1 (", "2 ("))
    assert desk.changes(lambda: desk.at("known-flare").check()) > 30
    assert "flare (4)" in desk.at("known", None).inner_text()
    desk.keep("classes")
    assert desk.changes(lambda: desk.at("known-flare").uncheck()) > 30


def analogs(desk):
    "Typed on the keyboard alone: the analogs of a flare, in the order of their distance."
    desk.fill("analog-id", bt.FLARES[0])
    desk.fill("analog-k", 5)
    desk.at("analog-space").select_option("map")
    desk.page.locator("button.xrt-analogs-go").press("Enter")
    desk.wait(f"^5 of .* analogs of {bt.FLARES[0]}")
    (alt, _), = desk.pictures()
    near = np.argsort(((desk.map.place - desk.map.place[desk.map.ids == bt.FLARES[0]]) ** 2).sum(axis=1))[1:6]
    assert alt == "Light curves of " + ", ".join(desk.map.ids[near])
    desk.keep("analogs")
    for name, tab in (("maps", "E–t maps"), ("photons", "Photons"), ("table", "Table"), ("card", "Card")):
        desk.page.locator(".xrt-tabs").get_by_role("tab", name=tab).click()
        desk.page.locator(f".xrt-panel-{name} :is(img, table)").first.wait_for()
        desk.wait(f"; {tab} 1 ")
        desk.keep(name)
    assert desk.map.ids[near[0]] in desk.at("panel-card", None).inner_text()
    desk.page.locator(".xrt-tabs").get_by_role("tab", name="Light curves").click()


def mark(desk, word="flare"):
    "Label what is selected."
    desk.at("label").select_option(word)
    desk.click("mark")
    desk.wait("labeled " + word)


def accessible(desk):
    "Every control has a name, and the Tab key reaches it."
    listed = bt.controls(desk.page)
    assert len(listed) > 25 and [role for role, name in listed if not name.strip()] == []
    names = {"color", "embedding", "mouse", "query", "query-go", "cluster", "all", "invert", "clear", "undo", "analog-id", "analog-k", "analog-space", "analog-own", "analogs-go",
             "known-flare", "label", "label-text", "mark", "path", "save", "open", "binsize", "tabs"}
    assert {f"xrt-{n}" for n in names} - bt.tab_stops(desk.page) == set()


def clean(page):
    "Nothing left this machine, and the console is empty."
    assert page.strangers == [] and page.errors == []


@pytest.mark.slow
def test_in_jupyterlab(chrome, archive):
    folder, frame = archive
    bt.code_notebook(folder / "finder.ipynb", "from xrt_nb.finder import AnalogFinder\nfinder = AnalogFinder('run')\nfinder")
    with bt.jupyterlab(folder) as address, bt.browser() as page:
        bt.open_notebook(page, address, "finder.ipynb")
        page.errors.clear()  # JupyterLab's own, before there was a finder
        bt.run_all(page)
        desk = Desk(page, frame, "jupyterlab")
        start(desk)
        lasso_and_box(desk, lambda _: bt.ask(page, "finder.selection"))
        assert bt.ask(page, "sorted(finder.frame.obsreg_id[finder.scatter.widget.selection])") == bt.ask(page, "finder.selection")
        hover_and_click(desk)
        colors_and_classes(desk)
        analogs(desk)
        mark(desk)
        held = bt.ask(page, "finder.selection")
        assert sorted(desk.saved(folder, "chosen.csv")) == held and bt.ask(page, "finder.labels.ids_of('flare')") == held
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        clean(page)
        page.reload()  # the kernel lives on
        start_again(desk, "^5 of 100000")
        assert bt.ask(page, "finder.labels.ids_of('flare')") == held


def start_again(desk, pattern):
    "The page was loaded again."
    desk.page.wait_for_selector(".xrt-finder canvas")
    desk.wait(pattern)


@pytest.mark.slow
def test_as_a_page(chrome, archive):
    folder, frame = archive
    with bt.app(folder, folder / "run") as address, bt.browser() as page:
        page.goto(address)
        desk = Desk(page, frame, "page")
        start(desk)
        desk.keep("start")
        lasso_and_box(desk, lambda mode: desk.saved(folder, f"{mode}.csv"))
        hover_and_click(desk)
        colors_and_classes(desk)
        analogs(desk)
        mark(desk)
        held = sorted(desk.saved(folder, "chosen.csv"))
        accessible(desk)
        page.reload()  # a new kernel, which opens the labels that were saved
        start(desk)
        desk.fill("ids", held[0])
        desk.click("ids-go")
        desk.wait("^1 of")
        page.locator(".xrt-tabs").get_by_role("tab", name="Card").click()
        desk.page.wait_for_function("() => document.querySelector('.xrt-panel-card').innerText.includes('flare')")
        (path,) = folder.glob("*labels.csv")
        assert Labels.read(path).ids_of("flare") == held
        clean(page)


CONTRAST = """selectors => {
    const numbers = text => { const m = text.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
    const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                         return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c[3] > 0.5) return c; } return [255, 255, 255, 1]; };
    const out = {};
    for (const s of selectors) for (const e of document.querySelectorAll(s)) if (e.textContent.trim() && e.offsetParent) {
        const paper = behind(e), ink = numbers(getComputedStyle(e).color);
        const a = light([0, 1, 2].map(k => ink[3] * ink[k] + (1 - ink[3]) * paper[k])), b = light(paper.slice(0, 3));
        out[s] = Math.min(out[s] ?? 99, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
    return out; }"""
TEXTS = [".xrt-status .widget-html-content", ".xrt-legend .widget-html-content", ".xrt-known label", ".xrt-page .widget-html-content", ".xrt-keys .widget-html-content",
         ".xrt-panel caption", ".xrt-panel td", ".xrt-panel th", ".xrt-panel th button", ".xrt-finder .widget-label"]


def least_contrasts(page, tabs=("Table", "Card")):
    "The least contrast of each kind of text, over these tabs."
    seen = {}
    for tab in tabs:
        page.locator(".xrt-tabs").get_by_role("tab", name=tab).click()
        page.locator(f".xrt-panel-{tab.lower()} table").wait_for()
        for kind, contrast in page.evaluate(CONTRAST, TEXTS).items():
            seen[kind] = min(contrast, seen.get(kind, 99))
    print({k: round(v, 1) for k, v in seen.items()})
    return seen


def assert_fits(page):
    "Nothing is wider than the window, the picture lies within its panel, and the map's canvas holds the whole map."
    width = page.viewport_size["width"]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    panel, shown = page.locator(".xrt-panel-lc").bounding_box(), page.locator(".xrt-panel-lc img").bounding_box()
    assert panel["x"] <= shown["x"] and shown["x"] + shown["width"] <= panel["x"] + panel["width"] <= width
    canvas = page.locator(".xrt-canvas canvas").first.bounding_box()
    assert canvas["x"] >= 0 and canvas["x"] + canvas["width"] <= width and canvas["width"] >= canvas["height"]


def light_of(png):  # 0 to 1
    "How dark the paper of a picture is: the median of its pixels."
    import io

    from matplotlib.image import imread
    return float(np.median(imread(io.BytesIO(png))[..., :3]))


def test_jupyterlab_in_the_dark(chrome, tmp_path):
    "Every text readable on JupyterLab's dark theme, and pictures that don't glare; nothing wider than the window."
    frame = bt.make_run(tmp_path / "run", 300)
    bt.code_notebook(tmp_path / "finder.ipynb", "from xrt_nb.finder import AnalogFinder\nfinder = AnalogFinder('run')\nfinder")
    with bt.jupyterlab(tmp_path, "JupyterLab Dark") as address, bt.browser() as page:
        bt.open_notebook(page, address, "finder.ipynb")
        page.errors.clear()
        bt.run_all(page)
        desk = Desk(page, frame, "jupyterlab-dark")
        page.wait_for_selector(".xrt-finder canvas")
        assert page.evaluate("() => document.body.dataset.jpThemeLight") == "false"
        desk.wait("^0 of 300 sources selected")
        desk.click("all")
        desk.wait("^300 of 300")
        assert light_of(page.locator(".xrt-tiles img").screenshot()) < 0.3
        assert_fits(page)
        seen = least_contrasts(page)
        assert len(seen) == len(TEXTS) and min(seen.values()) >= 4.5, seen
        desk.keep("card")
        clean(page)


def moved_run(folder):
    "A run whose input is gone, at another path, which nobody may write to."
    from xrt_nb.runs import run
    from xrt_nb.simulation import known_ids, simulate_archive
    events, truth = simulate_archive(120, random_state=3)
    source = events.write(folder / "photons.parquet") or folder / "photons.parquet"
    run("2D-PCA", source, folder / "run", known=known_ids(truth), perplexity=20, max_iter=250, min_samples=10)
    source.unlink()
    there = folder / "elsewhere" / "moved"
    there.parent.mkdir()
    (folder / "run").rename(there)
    for p in [there, *there.rglob("*")]:
        p.chmod(0o555 if p.is_dir() else 0o444)
    return there


def test_a_moved_run_in_the_dark_from_the_keyboard(chrome, tmp_path):
    "Light curves without the input; every text readable on a dark page; Enter, keys, tiles, rows and headers do what they say."
    path = moved_run(tmp_path)
    with bt.app(tmp_path, path, "--theme", "dark") as address, bt.browser() as page:
        page.goto(address)
        page.wait_for_selector(".xrt-finder canvas")
        desk = Desk(page, pd.read_csv(path / "clusters.csv", dtype={"obsreg_id": str}), "dark")
        query = desk.at("query")
        query.fill("log_counts > 1.2")
        query.press("Enter")
        desk.wait(r"^[1-9]\d* of 120 sources selected where log_counts > 1.2", 180)
        chosen = desk.selected()
        tiles = page.locator(".xrt-tiles button")
        assert page.locator(".xrt-tiles img").get_attribute("alt").startswith("Light curves of ") and tiles.count() == 6
        names = [t.get_attribute("data-value") for t in tiles.all()]
        tiles.nth(1).click()
        desk.wait(f"looking at {names[1]}", 180)
        assert desk.selected() == chosen  # the selection stays
        page.keyboard.press("n")
        desk.wait(f"looking at {names[2]}", 180)
        page.keyboard.press("2")
        desk.wait(f"looking at {names[3]}.*{names[2]} labeled dip", 180)
        page.locator(".xrt-tabs").get_by_role("tab", name="Table").click()
        page.locator(".xrt-table tbody tr").nth(1).click()
        desk.wait(f"Table 1 .*looking at {names[1]}", 180)
        page.locator(".xrt-table th button", has_text="hard_hs").click()
        page.locator(".xrt-table th[aria-sort=ascending]").wait_for()
        said = page.locator(".xrt-table th button", has_text="hard_hs").get_attribute("title")
        assert said.startswith("Hardness ratio of the hard and the soft band")
        seen = least_contrasts(page)
        assert len(seen) == len(TEXTS) and min(seen.values()) >= 4.5, seen
        desk.keep("card")
        page.set_viewport_size({"width": 390, "height": 1500})
        page.locator(".xrt-tabs").get_by_role("tab", name="Light curves").click()
        desk.wait("; Light curves 1 ", 180)  # said when the pictures are there; those from before the table are replaced
        page.locator(".xrt-panel-lc img").wait_for()
        page.wait_for_timeout(500)
        assert_fits(page)
        clean(page)
    assert Labels.read(path.with_name("moved_labels.csv")).ids_of("dip") == [names[2]]


@pytest.mark.slow
def test_pictures_for_the_notebook(chrome, tmp_path):
    "The task of 08d_finder with the mouse; its pictures go into the notebook by tools/attach_pictures.py."
    from xrt_nb.runs import demo
    run = demo(tmp_path / "demo_run", 200, perplexity=20, max_iter=250, min_samples=10)
    with bt.app(tmp_path, run) as address, bt.browser() as page:
        page.goto(address)
        page.wait_for_selector(".xrt-finder canvas")
        desk = Desk(page, pd.read_csv(run / "clusters.csv", dtype={"obsreg_id": str}), "finder")
        desk.wait("^0 of 200 sources selected", 180)
        page.locator(".xrt-known-flare input").check()
        known = pd.read_csv(run / "analogs.csv", dtype=str).set_index("query").known_class
        flare = known.index[known == "flare"][0]
        desk.fill("ids", flare)
        desk.click("ids-go")
        desk.wait("^1 of 200", 180)
        picture(page, "start")
        desk.fill("analog-id", flare)
        desk.fill("analog-k", 8)
        desk.click("analogs-go")
        desk.wait("^8 of 200 sources selected, the analogs of", 180)
        picture(page, "analogs")
        page.locator("button.xrt-next").first.click()
        desk.wait("looking at", 180)
        first = page.locator(".xrt-tiles button").nth(1).get_attribute("data-value")
        desk.click("focus-flare")
        desk.wait(f"{first} labeled flare", 180)
        picture(page, "label")
        clean(page)
    assert Labels.read(run.with_name("demo_run_labels.csv")).ids_of("flare") == [first]


def picture(page, name):
    "A picture of the page as it is, for the notebook."
    page.mouse.move(2, 2)
    page.wait_for_timeout(1500)
    bt.ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=bt.ARTEFACTS / f"finder-{name}.png")
    assert (bt.ARTEFACTS / f"finder-{name}.png").stat().st_size > 20_000
