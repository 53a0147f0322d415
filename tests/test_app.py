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
from support.absent import absent
from xrt_nb import app
from xrt_nb.cli import main



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


def test_the_extra_is_missing(run):
    with absent("voila", "jscatter"): done = shell(run)
    assert done.exit_code == 1 and 'voila and jscatter are not installed: pip install "xrt_nb[finder]"' in done.stderr


def test_a_damaged_file_of_labels_is_named_before_anything_starts(run, tmp_path):
    (tmp_path / "labels.json").write_text('{"labels": [')
    done = shell(run, "--labels", tmp_path / "labels.json")
    assert done.exit_code == 1 and "labels.json: not a file of labels" in done.stderr


def test_the_browser_is_not_told_the_token_where_others_can_read_it(tmp_path, monkeypatch):
    import webbrowser
    asked, said = [], []
    monkeypatch.setattr(webbrowser, "open", lambda url: asked.append(url) or True)
    app._announce("http://127.0.0.1:8866/?token=s3cret", str(tmp_path), said.append)
    (url,), (door,) = asked, tmp_path.iterdir()
    assert "s3cret" not in url and url == door.as_uri() and door.stat().st_mode & 0o077 == 0
    assert "http://127.0.0.1:8866/?token=s3cret" in door.read_text() and "s3cret" in said[0]
    app._announce("http://127.0.0.1:8866/?token=s3cret", None, said.append)
    assert len(asked) == 1


STRANGERS = ["jscatter.py", "voila.py", "jupyter_config.py", "jupyter_voila_config.py", "voila_config.py", "ipykernel.py", "ipywidgets.py", "matplotlib.py",
             "ipython_config.py", "ipython_kernel_config.py", "anywidget.py", "tornado.py", "webbrowser.py", "numpy.py", "sitecustomize.py", "PIL.py"]


@pytest.mark.parametrize("start", [pytest.param(["-m", "xrt_nb"], id="module", marks=pytest.mark.slow),
                                   pytest.param(["-c", "from xrt_nb.cli import main; main()"], id="script")])
def test_nothing_that_lies_in_the_current_folder_is_run(start, run, tmp_path):
    "A downloaded run brings modules and settings along; none of them is executed, by the server or by the kernel of the page."
    if start[0] == "-c":
        start = ["-P", *start]  # as a console script: the current folder isn't on the path of Python's own accord
    here = tmp_path / "downloaded"
    here.mkdir()
    names = STRANGERS if start[0] == "-P" else [n for n in STRANGERS if n in ("jscatter.py", "voila.py", "jupyter_config.py", "jupyter_voila_config.py", "ipykernel.py", "ipywidgets.py", "anywidget.py", "tornado.py")]
    for name in names:
        (here / name).write_text(f"open({str(tmp_path / 'ran.txt')!r}, 'a').write('{name} ')\n")
    with bt.process([*start, "app", run, "--no-open", "--port", bt.free_port()], here) as (server, log):
        bt.wait_for(lambda: "Press Ctrl-C" in log.read_text(), 120, server=server, log=log)
        address = next(word for word in log.read_text().split() if word.startswith("http"))
        with urllib.request.urlopen(address, timeout=600) as page:
            text = page.read().decode()
    assert "widget-view+json" in text  # the kernel has run and made the finder
    assert not (tmp_path / "ran.txt").exists(), (tmp_path / "ran.txt").read_text()


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
        with urllib.request.urlopen(address.split("?")[0], timeout=600) as login:
            assert "/login" in login.url
        with urllib.request.urlopen(address, timeout=600) as page:
            text = page.read().decode()
        assert "Content-Security-Policy" in text and "widget-view+json" in text and "cdn." not in text
        assert len(list(tmp_path.glob("xrt_nb_app_*"))) == 1
        bt.end(server, signal.SIGINT)
        assert server.returncode == 0 and log.read_text().rstrip().endswith("The finder has ended.")
    assert not list(tmp_path.glob("xrt_nb_app_*")) and not list(tmp_path.glob("voila_*"))


def test_the_help_of_app_comes_without_the_extra():
    code = "import sys; from xrt_nb.cli import main\ntry: main(['app', '--help'])\nexcept SystemExit: pass\nprint(sorted({'voila', 'jscatter', 'ipywidgets', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip().endswith("[]") and "--no-open" in done.stdout
