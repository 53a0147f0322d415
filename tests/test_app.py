"""`xrt-nb app` without a browser: what it refuses, where it listens, that nothing is left of it."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

import browser_tools as bt
from xrt_nb import app
from xrt_nb.cli import main
from xrt_nb.data import XRTError
from xrt_nb.labels import Labels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A finished run of 300 sources."
    folder = tmp_path_factory.mktemp("app") / "run"
    bt.make_run(folder, 300)
    return folder


def shell(*args):
    return CliRunner().invoke(main, ["app", *map(str, args)], prog_name="xrt-nb")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: (p.mkdir(), (p / "manifest.json").write_text('{"status": "running"}')), lambda p: p.write_text("a file")])
def test_a_path_that_is_no_run(make, tmp_path):
    make(tmp_path / "my_run")
    done = shell(tmp_path / "my_run")
    assert done.exit_code == 2 and "my_run is not a finished run" in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_is_refused_or_passed_over(run, monkeypatch):
    with socket.socket() as taken:
        taken.bind((app.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = shell(run, "--port", port)
        assert done.exit_code == 1 and f"port {port} is in use; choose another" in done.stderr
        monkeypatch.setattr(app, "FIRST_PORT", port)
        assert port < app.pick_port() < port + 200


def test_the_extra_is_missing(run, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None if name in ("voila", "jscatter") else True)
    done = shell(run)
    assert done.exit_code == 1 and 'needs voila, jscatter: pip install "xrt_nb[finder]"' in done.stderr


def test_labels_of_another_run_are_refused_before_anything_starts(run, tmp_path):
    labels = Labels(run="another")
    labels.mark(bt.FLARES, "flare")
    done = shell(run, "--labels", labels.save(tmp_path / "labels.json"))
    assert done.exit_code == 1 and "labels.json belongs to another run" in done.stderr
    strange = Labels(run="f00d" * 16)
    strange.mark("9_9", "dip")
    with pytest.raises(XRTError, match="not in this archive"):
        app.serve(run, labels=strange.save(tmp_path / "strange.csv"))


@pytest.mark.parametrize("name", ["plain", "it's \"quoted\" {run} \\ ünder"])
def test_any_name_of_a_folder_gives_the_same_cell(name, tmp_path):
    book = app.write_page(tmp_path / "site", tmp_path / name, tmp_path / name / "e.parquet")
    import ast
    import json
    tree = ast.parse(json.loads(book.read_text())["cells"][0]["source"])
    words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    assert {str(tmp_path / name), str(tmp_path / name / "e.parquet"), str(tmp_path / f"{name}_labels.csv")} <= set(words)


def test_ctrl_c_with_a_page_open_leaves_nothing(run, tmp_path):
    "The address without its token is a login page; with it, a page of this server alone; after Ctrl-C no kernel and no file is left."
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from xrt_nb.cli import main; main()"  # a job in the background inherits a deaf ear
    with bt.process(["-c", start, "app", run, "--no-open", "--port", bt.free_port()], tmp_path, TMPDIR=str(tmp_path)) as (server, log):
        bt.wait_for(lambda: "Press Ctrl-C" in log.read_text(), server=server, log=log)
        address = next(word for word in log.read_text().split() if word.startswith("http"))
        with urllib.request.urlopen(address.split("?")[0], timeout=20) as login:
            assert "/login" in login.url
        with urllib.request.urlopen(address, timeout=60) as page:
            text = page.read().decode()
        assert "Content-Security-Policy" in text and "widget-view+json" in text and "cdn." not in text
        assert len(list(tmp_path.glob("xrt_nb_app_*"))) == 1
        bt.end(server, signal.SIGINT)
        assert server.returncode == 0 and log.read_text().rstrip().endswith("The finder has ended.")
    assert not list(tmp_path.glob("xrt_nb_app_*")) and not list(tmp_path.glob("voila_*"))


def test_the_help_of_app_comes_without_the_extra():
    code = "import sys; from xrt_nb.cli import main\ntry: main(['app', '--help'])\nexcept SystemExit: pass\nprint(sorted({'voila', 'jscatter', 'ipywidgets', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]") and "--no-open" in done.stdout
