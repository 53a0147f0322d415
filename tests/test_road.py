"""The README's shell block, line by line as it stands there: from one's own event file to its analogs, on any machine."""

import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request

import browser_tools as bt
import pandas as pd
import pytest
from astropy.io import fits
from click.testing import CliRunner
from xrt_nb._standins import FileService, make_products
from test_cli import small_event_file

from xrt_nb.cli import main
from xrt_nb.data import EventDataError, read_events
from xrt_nb.runs import read_run

pytestmark = pytest.mark.usefixtures("few_figures")
PLACEHOLDER = "evt.fits"
FEW_PAIRS = 6 / 19_000  # chances count random pairs: one query or many differ in the last bit, ties may tip, and one judge counts double


def block(root):
    "The commands of the README's section on the shell, comments taken away."
    text = (root / "README.md").read_text(encoding="utf-8")
    shell = re.search(r"## From the shell\n.*?```sh\n(.*?)```", text, re.S)[1]
    lines = [shlex.split(line, comments=True) for line in shell.splitlines()]
    return [words for words in lines if words]


def own_files(folder):
    "The user's own event file and region: the real XRT 200515 where it is, else a simulated file."
    real = os.path.join(os.environ["XRT_NB_SHARED"], "data", "xrt200515")
    if os.path.isdir(real):
        # under the catalog's own names inside the headers; the README calls them evt.fits and src.reg
        unzip(os.path.join(real, "acisf23022_000N027_r0122_regevt3.fits.gz"), folder / "evt.fits")
        unzip(os.path.join(real, "acisf23022_000N020_r0122_reg3.fits.gz"), folder / "src.reg")
        return True
    small_event_file(folder / "evt.fits", n=60)
    for extension in (1, 2):  # it calls itself what the real one does
        fits.setval(folder / "evt.fits", "OBS_ID", value="23022", ext=extension)
        fits.setval(folder / "evt.fits", "REGIONID", value="0122", ext=extension)
    (folder / "src.reg").write_text("# Region file format: DS9\nphysical\ncircle(4000,4000,40)\n")
    return False


def unzip(path, out):
    import gzip
    with gzip.open(path, "rb") as f:
        out.write_bytes(f.read())


class Road:
    "A folder in which the lines are typed one after the other, each in a process of its own or all in this one."
    def __init__(self, folder, alone): self.folder, self.alone, self.said = folder, alone, []

    def type(self, words, fetch_from):
        "Run one line; what it prints is kept."
        assert words[0] == "xrt-nb", f"the block has another command: {words}"
        if words[1] == "app": return self.look(words)
        if words[1] == "fetch": return self.fetch(words, fetch_from)
        if not self.alone: return self.here(words)
        code = "from xrt_nb.cli import main; main(prog_name='xrt-nb')"
        done = subprocess.run([sys.executable, "-c", code, *words[1:]], cwd=self.folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, (words, done.stderr[-2000:])
        self.said.append(done.stdout + done.stderr)

    def here(self, words):
        "A line in this process."
        done = CliRunner().invoke(main, words[1:], prog_name="xrt-nb")
        assert done.exit_code == 0, (words, done.output[-2000:])
        self.said.append(done.output)

    def look(self, words):
        "`xrt-nb app`: started, looked at, ended."
        start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from xrt_nb.cli import main; main()"
        with bt.process(["-c", start, *words[1:], "--no-open", "--port", bt.free_port()], self.folder) as (server, log):
            bt.wait_for(lambda: "Press Ctrl-C" in log.read_text(), 180, server=server, log=log)
            address = next(word for word in log.read_text().split() if word.startswith("http"))
            with urllib.request.urlopen(address, timeout=180) as page:
                assert "widget-view+json" in page.read().decode()
            bt.end(server, signal.SIGINT)
        self.said.append("next: nothing")

    def fetch(self, words, monkeypatch):
        "`xrt-nb fetch`, from a stand-in for the file service."
        from xrt_nb import products
        obsid, region = next(w for w in words if re.fullmatch(r"\d+_\d+", w)).split("_")
        with FileService(make_products(self.folder / "served", [int(obsid)], int(region))) as csc:
            monkeypatch.setattr(products, "fetch_events", functools.partial(products.fetch_events, base_url=csc.url))
            self.here(words)


@pytest.mark.parametrize("alone", [pytest.param(True, id="processes", marks=pytest.mark.slow), pytest.param(False, id="here")])
def test_the_readme_block_as_it_stands(alone, root, tmp_path, monkeypatch):
    lines, n = block(root), 300 if alone else 160
    if not any(words[1] == "place" for words in lines): pytest.skip("the README's block is older than `place`")
    real, road = own_files(tmp_path), Road(tmp_path, alone)
    monkeypatch.chdir(tmp_path)
    road.type(["xrt-nb", "demo", "--sources", str(n)], None)  # what `make demo` leaves; smaller
    for words in lines:
        road.type(words, monkeypatch)
    for said in road.said:
        assert "next: " in said, said
    run = next(words[words.index("--out") + 1] for words in lines if words[1] == "run")
    found = read_run(tmp_path / run)
    joined = next(w for words in lines if words[1] == "run" for w in words if w.endswith(".parquet"))
    assert found.events == read_events(tmp_path / joined) and len(found.events) == n + 1
    placed = tmp_path / next(words[words.index("--out") + 1] for words in lines if words[1] == "place")
    at, hits = pd.read_csv(placed / "placement.csv", dtype=str), pd.read_csv(placed / "analogs.csv", dtype={"query": str, "obsreg_id": str})
    assert list(at.columns) == ["obsreg_id", "tsne1", "tsne2", "extrapolated"] and len(at) == 1
    assert list(hits["rank"]) == list(range(1, 11)) and (hits["query"] == at.obsreg_id[0]).all()
    assert at.obsreg_id[0] not in set(hits.obsreg_id) and "<figure>" in (placed / "report.html").read_text()
    if real: assert at.obsreg_id[0] in found.events and len(found.events[at.obsreg_id[0]]) == 188


def test_a_run_that_was_moved_and_may_not_be_written_opens(tmp_path, archive):
    events, run = archive
    moved = shutil.copytree(run.path, tmp_path / "elsewhere" / "r")
    for path in [*moved.rglob("*"), moved]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        r = read_run(moved)
        assert r.events == events and r.known.equals(run.known) and len(r.place(events[:3], k=2)) == 3
    finally:
        for path in [moved, *moved.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    "A small archive in a file, and its run."
    from xrt_nb.runs import run
    from xrt_nb.simulation import known_ids, simulate_archive
    events, truth = simulate_archive(150, random_state=21)
    folder = tmp_path_factory.mktemp("road")
    events.write(folder / "e.parquet")
    made = run("2D-PCA", folder / "e.parquet", folder / "run", known_ids(truth), perplexity=15, max_iter=250, min_samples=8)
    (folder / "e.parquet").unlink()  # the input is gone
    return events, read_run(made)


def test_placing_the_archive_into_its_own_run_gives_its_features_and_neighbors(archive):
    from xrt_nb.runs import SEARCH_FLAGS, features_in
    events, run = archive
    some = events[list(run.features.index[:50])]
    found = features_in(run, some, "summary")[0] | features_in(run, some)[0]
    top = run.features.abs().to_numpy().max()
    assert abs(found["features"] - run.features.loc[some.ids]).to_numpy().max() < 1e-6 * top
    flags = list(SEARCH_FLAGS)
    assert found["summary"].equals(run.properties.loc[some.ids].drop(columns=flags))
    assert found["search"].astype(float).equals(run.search_features.loc[some.ids])
    q = run.analogs["query"].iloc[0]
    mine = run.place(events[[q]], k=10).analogs
    theirs = run.analogs[(run.analogs["query"] == q) & (run.analogs.space == "search")]
    assert list(mine.obsreg_id) == list(theirs.obsreg_id)
    assert list(mine.chance) == pytest.approx(list(theirs.chance), abs=FEW_PAIRS)
    assert mine.score.to_numpy() == pytest.approx(theirs.score.to_numpy(), rel=1e-9) and mine.closeness.to_numpy() == pytest.approx(theirs.closeness.to_numpy())


def test_a_table_without_good_times_is_placed_where_that_can_be(archive, tmp_path):
    "The published layout has no exposures; the sentence names what else can be done, and that can be done."
    events, run = archive
    events[:2].to_frame().to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(EventDataError, match="no good times .* --space features"): run.place(tmp_path / "new.csv")
    said = CliRunner().invoke(main, ["place", str(tmp_path / "new.csv"), "--in", str(run.path), "--space", "features", "-k", "3", "--out", str(tmp_path / "p")], prog_name="xrt-nb")
    assert said.exit_code == 0 and len(pd.read_csv(tmp_path / "p" / "analogs.csv")) == 6, said.output


def test_the_numbers_of_a_run_agree_wherever_they_are_read(archive, tmp_path, monkeypatch):
    "analogs.csv, class_analogs.csv, the command line and a search by hand."
    from xrt_nb.analogs import find_analogs
    events, run = archive
    for space, file, options in (("features", "features.parquet", []), ("summary", "properties.parquet", ["--standardize"])):
        table = run.analogs[run.analogs.space == space]
        q = table["query"].iloc[0]
        mine = table[table["query"] == q].set_index("obsreg_id").distance
        hand = find_analogs(run.spaces[space].frame, q, k=60, score=run.spaces[space].score).set_index("obsreg_id").distance
        said = CliRunner().invoke(main, ["analogs", str(run.path / file), q, "-k", "60", "--out", str(tmp_path / f"{space}.csv"), *options], prog_name="xrt-nb")
        assert said.exit_code == 0, said.output
        shell = pd.read_csv(tmp_path / f"{space}.csv", dtype={"obsreg_id": str}).set_index("obsreg_id").distance
        assert hand.loc[mine.index].to_numpy() == pytest.approx(mine.to_numpy()) and shell.loc[mine.index].to_numpy() == pytest.approx(mine.to_numpy())
        per_class = run.class_analogs[(run.class_analogs.space == space) & (run.class_analogs["query"] == q)].set_index("obsreg_id").distance
        both = [i for i in per_class.index if i in hand.index]
        assert both and per_class.loc[both].to_numpy() == pytest.approx(hand.loc[both].to_numpy())
    said = CliRunner().invoke(main, ["analogs", str(run.path), q, "-k", "10", "--space", "summary"], prog_name="xrt-nb")
    assert [line.split(",")[1] for line in said.stdout.splitlines()[1:11]] == list(run.analogs[(run.analogs["query"] == q) & (run.analogs.space == "summary")].obsreg_id)


def test_the_default_search_gives_the_same_numbers_everywhere(archive, tmp_path):
    "Run, class lists, command line, finder, place and `xrt_nb.search` itself."
    from xrt_nb import AnalogFinder, search
    events, run = archive
    table = run.analogs[run.analogs.space == "search"]
    q = table["query"].iloc[0]
    mine = table[table["query"] == q].set_index("obsreg_id")[["score", "chance"]]
    direct = search(events[list(run.search_features.index)], q, k=10, exclude_same_source=True)
    assert list(direct.obsreg_id) == list(mine.index)
    assert list(direct.score) == pytest.approx(list(mine.score))
    assert list(direct.chance) == pytest.approx(list(mine.chance), abs=FEW_PAIRS)
    said = CliRunner().invoke(main, ["analogs", str(run.path), q, "--out", str(tmp_path / "a.csv")], prog_name="xrt-nb")
    assert said.exit_code == 0, said.output
    shell = pd.read_csv(tmp_path / "a.csv", dtype={"obsreg_id": str}).set_index("obsreg_id")[["score", "chance"]]
    assert list(shell.index) == list(mine.index) and list(shell.score) == pytest.approx(list(mine.score))
    assert list(shell.chance) == pytest.approx(list(mine.chance), abs=FEW_PAIRS)
    found = AnalogFinder(run).analogs_of(q, 10, exclude_own=True)
    assert list(found.obsreg_id) == list(mine.index) and list(found.score) == pytest.approx(list(mine.score))
    classes = run.class_analogs[(run.class_analogs.space == "search") & (run.class_analogs["query"] == q)]
    both = classes.set_index("obsreg_id").score
    both = both[both.index.isin(mine.index)]
    assert len(both) and list(both) == pytest.approx(list(mine.score[both.index]))


def test_another_score_and_space_are_found_as_asked(archive, tmp_path):
    from xrt_nb.default_search import search
    events, run = archive
    some, q = events[list(run.search_features.index)], run.analogs["query"].iloc[0]
    for score, name in (("learned", "learned"), ("cosine", "label-free"), ("fusion", "fusion")):
        out = tmp_path / f"{score}.csv"
        said = CliRunner().invoke(main, ["analogs", str(run.path), q, "--score", score, "--out", str(out)], prog_name="xrt-nb")
        assert said.exit_code == 0, said.output
        by_hand = search(some, q, score=name, exclude_same_source=True)
        shell = pd.read_csv(out, dtype={"obsreg_id": str})
        assert list(shell.obsreg_id) == list(by_hand.obsreg_id) and list(shell.score) == pytest.approx(list(by_hand.score))
        placed = run.place(events[[q]], score=score).analogs
        assert list(placed.obsreg_id) == list(by_hand.obsreg_id)
    said = CliRunner().invoke(main, ["analogs", str(run.path), q, "--space", "summary", "--score", "learned"], prog_name="xrt-nb")
    assert said.exit_code == 1 and "compares search features only" in said.output


def without_search(folder):
    "A run as it was before there were search features."
    import json
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["steps"]["features"]["files"]["search.parquet"]
    (folder / "search.parquet").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_run_without_search_features_still_opens(archive, tmp_path):
    events, run = archive
    old = read_run(without_search(shutil.copytree(run.path, tmp_path / "old")))
    assert list(old.spaces) == ["features", "summary"] and old.place(events[:2], k=3).space == "summary"
    q = old.analogs["query"].iloc[0]
    said = CliRunner().invoke(main, ["analogs", str(old.path), q, "-k", "10"], prog_name="xrt-nb")
    theirs = old.analogs[(old.analogs["query"] == q) & (old.analogs.space == "summary")].obsreg_id
    assert [line.split(",")[1] for line in said.stdout.splitlines()[1:11]] == list(theirs)
    with pytest.raises(ValueError, match="must be one of features, summary"): old.place(events[:2], space="search")


XRT_200515 = ("acisf23022_000N027_r0122_regevt3.fits.gz", "acisf23022_000N020_r0122_reg3.fits.gz")


def burst_files(shared):
    "The real event file and its region, or a skip."
    files = [shared / "data" / "xrt200515" / name for name in XRT_200515]
    if not all(f.is_file() for f in files): pytest.skip("no XRT 200515 here")
    return files


def test_the_real_burst_finds_bursts_and_flares_in_the_archive_of_the_demo(shared):
    "XRT 200515: at least 9 of its 10 analogs in the default search are bursts or flares."
    from xrt_nb import read_event_list, search
    from xrt_nb.runs import DEMO_SEED, DEMO_SOURCES
    from xrt_nb.simulation import simulate_archive
    events, truth = simulate_archive(DEMO_SOURCES, DEMO_SEED)
    hits = search(events, read_event_list(*burst_files(shared)), k=10)
    assert truth.kind[hits.obsreg_id].isin(["burst", "flare", "flares"]).sum() >= 9


@pytest.mark.slow
def test_the_real_burst_placed_in_the_demo_run(shared, tmp_path):
    "The same by `xrt-nb place`, and the page begins with them."
    from xrt_nb.runs import demo
    evt, reg = map(str, burst_files(shared))
    made = demo(tmp_path / "demo", max_iter=250)
    words = ["place", evt, "--region", reg, "--in", str(made), "--out", str(tmp_path / "p")]
    said = CliRunner().invoke(main, words, prog_name="xrt-nb")
    assert said.exit_code == 0, said.output
    hits = pd.read_csv(tmp_path / "p" / "analogs.csv", dtype={"query": str, "obsreg_id": str})
    assert len(hits) == 10 and hits.kind.isin(["burst", "flare", "flares"]).sum() >= 9 and (hits.chance < 0.05).all()
    page = (tmp_path / "p" / "report.html").read_text()
    first = page[:page.index("<h2>On the embedding")]
    assert all(i in first for i in hits.obsreg_id) and f"{(hits.kind == 'burst').sum()} are of kind burst" in first


@pytest.mark.slow
def test_figures_show_after_a_run(tmp_path):
    "The back end is the user's before and after; nothing of the run stays in pyplot."
    code = ("import matplotlib; matplotlib.use('svg'); import matplotlib.pyplot as plt; from xrt_nb.runs import demo\n"
            "demo('d', n_sources=80, perplexity=10, max_iter=250, min_samples=5)\nprint(plt.get_backend(), plt.get_fignums())")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["svg", "[]"], done.stderr[-1000:]
