"""A case and a step in a user's own script: one object each, seen by run, command line, report and finder."""

import sys
from types import SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xrt_nb import runs
from xrt_nb._parameters import PARAMETERS
from xrt_nb.cli import main
from xrt_nb.data import XRTError
from xrt_nb.invariant import SortedProfile
from xrt_nb.representations import EtMap
from xrt_nb.runs import Case, Step, case_of, read_manifest, read_run, register_case, register_step, run
from xrt_nb.scores import CosineLogNorm, Euclidean
from xrt_nb.simulation import known_ids, simulate_archive

pytestmark = pytest.mark.usefixtures("few_figures")
QUICK = dict(perplexity=10.0, max_iter=250, min_samples=5)
SCRIPT = '''
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xrt_nb.invariant import SortedProfile
from xrt_nb.runs import Case, Step, html_table

class Mine(SortedProfile):
    "Code of the user's own."

profile = Case("profile", Mine(n_times=(12, 24)), make_pipeline(StandardScaler(), PCA(8)), dict(perplexity=10, max_iter=250))

def make(job):
    p = job.read("properties.parquet").log_counts
    job.write("brightest.csv", p.nlargest(job.parameters["brightest"]["n_brightest"]).reset_index())

def section(job):
    return {"title": "The brightest", "tables": [html_table(job.read("brightest.csv"))]}

brightest = Step("brightest", {"n_brightest": 5}, ["brightest.csv"], make, section)
not_a_case = 3
'''


@pytest.fixture(scope="module")
def archive():
    return simulate_archive(80, random_state=8)


@pytest.fixture(autouse=True)
def registers():
    "What a test registers is gone after it."
    cases, steps = dict(runs.CASES), list(runs.STEPS)
    yield
    runs.CASES.clear()
    runs.CASES.update(cases)
    runs.STEPS[:] = steps
    for name in [m for m in sys.modules if m.startswith("_script_")]:
        del sys.modules[name]


def shell(*args):
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="xrt-nb")


def test_a_case_and_a_step_of_a_script_are_seen_everywhere(archive, tmp_path, monkeypatch):
    from xrt_nb import AnalogFinder
    events, truth = archive
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_script.py").write_text(SCRIPT)
    events.write("e.parquet")
    known_ids(truth).rename("class").to_csv("known.csv")
    said = shell("run", "e.parquet", "--case", "my_script.py:profile", "--step", "my_script.py:brightest", "--set", "n_brightest=3",
                 "--set", "n_energy=12", "-ms", "5", "--known", "known.csv", "--out", "r")
    assert said.exit_code == 0, said.output
    assert "profile" in shell("cases").stdout
    r = read_run("r")
    assert r.case == "profile" and r.features.shape == (80, 8) and r.manifest["parameters"]["representations"]["n_energy"] == 12
    assert len(r.table("brightest.csv")) == 3 and "brightest" in r.manifest["steps"]
    page = (r.path / "report.html").read_text()
    assert "profile: analogs of known transients" in page and "<h2>The brightest" in page and "similar Mine lie together" in page
    assert AnalogFinder(r).analogs_of(r.features.index[0], 3, space="features").shape[0] == 3
    placed = r.place(events[:10], k=2, exclude_same_source=False).placement.set_index("obsreg_id")
    own = r.embedding.set_index("obsreg_id").loc[placed.index]
    apart = np.linalg.norm(placed[["tsne1", "tsne2"]].to_numpy() - own.to_numpy(), axis=1)
    assert np.median(apart) < 0.1 * np.ptp(r.embedding.tsne1)
    assert {p.name for p in tmp_path.iterdir()} == {"my_script.py", "e.parquet", "known.csv", "r"}, "a script leaves no file behind"


def test_another_program_opens_the_run_and_reads_no_code(archive, tmp_path):
    "Tables, spaces, finder and report without the script; placing names what is missing, and takes it from the command line."
    events, truth = archive
    (tmp_path / "my_script.py").write_text(SCRIPT)
    case = runs.from_script(f"{tmp_path}/my_script.py:profile", Case)
    out = run(case, events, tmp_path / "r", known=known_ids(truth), min_samples=5)
    del runs.CASES["profile"]
    r = read_run(out)
    assert list(r.spaces) == ["search", "features", "summary"] and len(r.clusters) == 80
    with pytest.raises(XRTError, match="the case 'profile', which isn't known here; name the script"): r.place(events[:1])
    events[:2].write(tmp_path / "new.parquet")
    said = shell("place", tmp_path / "new.parquet", "--in", out, "--out", tmp_path / "p", "--case", f"{tmp_path}/my_script.py:profile")
    assert said.exit_code == 0 and len(pd.read_csv(tmp_path / "p" / "placement.csv")) == 2, said.output
    (tmp_path / "my_script.py").write_text("raise SystemExit('code was read')")
    del runs.CASES["profile"]
    again = read_run(out)
    assert list(again.spaces) == list(r.spaces) and again.analogs.equals(r.analogs)


def test_a_changed_case_of_the_same_name_is_another(archive, tmp_path):
    events, truth = archive
    first = Case("mine", SortedProfile(n_times=(12,)), PCA(5), dict(perplexity=10, max_iter=250))
    out = run(first, events, tmp_path / "r", known=known_ids(truth), min_samples=5)
    other = Case("mine", SortedProfile(n_times=(24,)), PCA(5), dict(perplexity=10, max_iter=250))
    with pytest.raises(ValueError, match="there is another case 'mine'"): register_case(other)
    register_case(other, replace=True)
    with pytest.raises(FileExistsError, match="n_times: .12. there, .24. now"): run("mine", events, out, known=known_ids(truth), min_samples=5)
    with pytest.raises(XRTError, match="made with another case of the name 'mine'"):
        register_case(Case("mine", SortedProfile(n_times=(12,)), make_pipeline(StandardScaler(), PCA(5))), replace=True)
        read_run(out).place(events[:2])


@pytest.mark.parametrize("part, value, said", [
    ("representation", "picture", "case 'c': its representation is 'picture'; give a transformer, such as SortedProfile"),
    ("representation", SortedProfile, "its representation is <class"), ("representation", 3, "its representation is 3"),
    ("features", "pca", "its features is 'pca'; give a transformer"), ("features", None, "its features is None"),
    ("search", "euclidean", "its search is 'euclidean'; give a score"), ("embedding", {"perplexty": 3}, "no setting 'perplexty'"),
    ("name", "", "a case needs a name"), ("name", 3, "a case needs a name"), ("name", "a\x07b", "a case needs a name"),
])
def test_a_case_with_an_unknown_part_is_refused_by_name(part, value, said):
    parts = {"name": "c", "representation": EtMap(), "features": PCA(3), part: value}
    with pytest.raises(ValueError) as err: Case(**parts)
    assert said in str(err.value)


def test_cases_and_steps_that_clash_are_refused(archive, tmp_path):
    step = Step("mine", {"eps": 1}, ["a.csv"], lambda job: None)
    for wrong in ("mine", None, PCA(2)):
        with pytest.raises(ValueError, match="a step is a"): register_step(wrong)
        with pytest.raises(ValueError, match="a case is a"): register_case(wrong)
    with pytest.raises(ValueError, match="there is no step 'nowhere'"): register_step(step, before="nowhere")
    register_step(step)
    with pytest.raises(ValueError, match="another step 'mine'"): register_step(Step("mine", {}, [], lambda job: None))
    with pytest.raises(ValueError, match="`eps` belongs to two steps"): run(archive[0], tmp_path / "r")
    register_step(Step("mine", {}, ["a.csv"], lambda job: None), replace=True)
    with pytest.raises(XRTError, match="the step 'mine' did not write its file a.csv"): run("2D-PCA", archive[0], tmp_path / "r", **QUICK)


def test_changed_code_of_a_step_runs_again(archive, tmp_path):
    events, _ = archive
    write = "def make(job):\n    job.write('n.csv', job.read('properties.parquet').head({}))\nfrom xrt_nb.runs import Step\nmine = Step('mine', {{}}, ['n.csv'], make)\n"
    for n in (2, 3):
        (tmp_path / f"s{n}.py").write_text(write.format(n))
        register_step(runs.from_script(f"{tmp_path}/s{n}.py:mine", Step), replace=True)
        out = run("2D-PCA", events, tmp_path / "r", overwrite=True, **QUICK)
        assert len(read_run(out).table("n.csv")) == n
    again = [s for s, e in read_manifest(out)["steps"].items() if not e.get("reused")]
    assert again == ["mine", "report"]


@pytest.mark.parametrize("named, said", [
    ("my_script.py:not_a_case", "has no Case 'not_a_case'; it has profile"), ("my_script.py:nothing", "has no Case 'nothing'"),
    ("nowhere.py:profile", "there is no such script"), ("broken.py:profile", "the script ends with ZeroDivisionError"),
    ("data.csv.py:", "named as SCRIPT.py:NAME"), ("profile", "`case` must be one of"),
])
def test_scripts_that_cannot_be_used_end_in_a_sentence(named, said, tmp_path, monkeypatch, archive):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_script.py").write_text(SCRIPT)
    (tmp_path / "broken.py").write_text("1 / 0")
    archive[0].write("e.parquet")
    r = shell("run", "e.parquet", "--case", named, "--out", "r")
    assert r.exit_code == 1 and said in r.output and "Traceback" not in r.output and not (tmp_path / "r").exists()


@pytest.mark.parametrize("score", [Euclidean(), Euclidean(standardize=False), CosineLogNorm(), CosineLogNorm(gain=3)], ids=repr)
def test_a_manifest_tells_which_score_a_case_has(score):
    told = {"recipe": {"search": runs.plain_json(runs.recipe_of(score))}}
    assert repr(runs.score_in(SimpleNamespace(case="elsewhere", manifest=told))) == repr(score)


@pytest.mark.parametrize("told", [None, 3, {}, {"class": "Euclidean"}, {"class": "os.system", "parameters": {}}, {"class": "Euclidean", "parameters": {"x": 1}},
                                  {"class": "Euclidean", "parameters": {}, "code": "abc"}, {"class": "Euclidean", "parameters": {"standardize": {"array": "1"}}}], ids=repr)
def test_a_score_that_is_not_known_here_is_left_out(told):
    assert runs.score_in(SimpleNamespace(case="elsewhere", manifest={"recipe": {"search": told}})) is None
    assert runs.score_in(SimpleNamespace(case="elsewhere", manifest={})) is None


def test_the_score_of_a_case_is_that_of_its_space(archive, tmp_path):
    search = CosineLogNorm()
    events, truth = archive
    case = Case("scored", SortedProfile(n_times=(12,)), PCA(5), dict(perplexity=10, max_iter=250), search)
    r = read_run(run(case, events, tmp_path / "r", known=known_ids(truth), min_samples=5))
    del runs.CASES["scored"]
    alone = read_run(r.path)
    assert repr(alone.spaces["features"].score) == repr(case.search)
    q = r.features.index[:3]
    assert np.array_equal(alone.spaces["features"].score.score(r.features.loc[q], r.features), r.spaces["features"].score.score(r.features.loc[q], r.features))


def test_small_archives_take_fewer_components_and_published_cases_refuse(archive, tmp_path):
    events, _ = archive
    few = Case("few", SortedProfile(n_times=(12,)), PCA(40), dict(max_iter=250))
    r = read_run(run(few, events[:12], tmp_path / "few", min_samples=3))
    assert r.features.shape == (12, 11) and r.manifest["parameters"]["embedding"]["perplexity"] == 3
    with pytest.raises(ValueError, match="allow at most 11"): run("2D-PCA", events[:12], tmp_path / "no")


def test_every_parameter_reaches_the_run_from_the_command_line(archive, tmp_path, monkeypatch):
    "Each option that is made of a parameter, for `run` and `demo`."
    asked = []
    monkeypatch.setattr(runs, "run", lambda *a, **k: asked.append(k) or tmp_path)
    monkeypatch.setattr(runs, "demo", lambda *a, **k: asked.append(k) or tmp_path)
    monkeypatch.setattr("xrt_nb.cli.say_done", lambda run: None)
    values = {"energy_range": ["600", "6000"], "encoder": [str(tmp_path / "e.h5")], "exclude_same_source": []}
    (tmp_path / "e.h5").touch()
    archive[0].write(tmp_path / "e.parquet")
    for command in (["run", tmp_path / "e.parquet", "--out", tmp_path / "r"], ["demo"]):
        given = []
        for name, p in PARAMETERS.items():
            flag = "--neighbors" if name == "k" else f"--{name.replace('_', '-')}"
            given += [flag, *values.get(name, [p.kind[0] if isinstance(p.kind, tuple) else "7"])]
        said = shell(*command, *given)
        assert said.exit_code == 0, said.output
        assert set(asked[-1]) - {"n_jobs", "workers", "chunked"} == set(PARAMETERS) and asked[-1]["energy_range"] == (600.0, 6000.0) and asked[-1]["exclude_same_source"] is True


def test_the_page_of_the_command_line_knows_every_option(root):
    sys.path.insert(0, str(root / "docs"))
    try:
        from cli_page import markdown, walk
    finally:
        sys.path.pop(0)
    page = markdown()
    for context, command in walk(main, "xrt-nb"):
        part = page.split(f"\n## {context.command_path}\n")[1].split("\n## ")[0]
        assert "For example" in part and "## Command" not in page
        for option in command.params:
            if isinstance(option, click.Option): assert all(f"`{name}`" in part for name in option.opts) and (option.help or "").split("|")[0] in part, option.name
            else: assert option.make_metavar(context) in part
    assert "| `-eps`, `--eps` `FLOAT` | Radius of a neighborhood on the embedding. Published: 2.5. | 2.5 |" in page


def test_the_parameters_of_published_cases(tmp_path):
    assert case_of("2D-PCA").parameters()["features"] == {"n_components": 15, "pca_seed": 11}
    assert case_of("3D-AE").parameters()["features"] == {"n_components": 24, "ae_seed": 2, "epochs": 60, "encoder": None}
    assert case_of("3D-PCA").parameters()["representations"]["n_dt"] == 16 and case_of("shape-metric").parameters()["representations"] == {}
