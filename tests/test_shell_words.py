"""What the shell says: numbers agree with their nouns, options are called options, and what can't be obeyed is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from xrt_nb import cli
from xrt_nb.data import XRTError, read_events

ROOT = Path(__file__).resolve().parent.parent
NOUNS = "detections|events|files|sources|candidates|analogs|clusters|features|positions|outliers|classes"


def shell(*words):
    return CliRunner().invoke(cli.main, [str(w) for w in words])


@pytest.fixture
def photons(tmp_path, monkeypatch):
    "A folder with one detection in a CSV, and the same without energies."
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    one = pd.DataFrame({"obsreg_id": "a", "time": np.sort(rng.uniform(0, 1e4, 40)), "energy": rng.uniform(500, 7000, 40)})
    one.to_csv("one.csv", index=False)
    one.drop(columns="energy").to_csv("times.csv", index=False)
    one.rename(columns={"obsreg_id": "src", "time": "TIME"}).to_csv("other.csv", index=False)
    one.assign(energy=one.energy / 1000).to_csv("kev.csv", index=False)
    return tmp_path


def test_one_is_said_as_one(photons):
    said = shell("ingest", "one.csv", "--out", "one.parquet")
    assert said.exit_code == 0 and said.stdout.startswith("1 detection, 40 events in")


def test_no_message_of_the_shell_counts_without_its_helper():
    text = (ROOT / "xrt_nb" / "cli.py").read_text(encoding="utf-8")
    assert not re.findall(rf"(?<!of )\{{[^{{}}]+\}} (?:{NOUNS})\b", text)


@pytest.mark.parametrize("said, command, right", [
    ("Give its response with rmf=..., or read times alone with energies=False", "ingest", "Give its response with --rmf RMF, or read times alone with --times-only"),
    ("Name yours with id=, time=, energy=", "ingest", "Name yours with --id, --time, --energy"),
    ("read them with energy_unit='keV'", "place", "read them with --energy-unit keV"),
    ("leave them out, or pass there='skip'", "reference", "leave them out, or pass --skip-known"),
    ("perplexity=30.5 is too much; use init='random'.", "run", "--perplexity 30.5 is too much; use --init random."),
    ("read_event_list(..., mission=Mission('x', (), energy=(('pi', 10, 0),)))", "ingest", "read_event_list(..., mission=Mission('x', (), energy=(('pi', 10, 0),)))"),
    ("wants a response (rmf=...), or cut (`filter(time=...)`)", "ingest", "wants a response (--rmf RMF), or cut (`filter(time=...)`)"),
    ("or use time_axis='events'", "candidates", "or use time_axis='events'"),
])
def test_arguments_are_said_as_options_where_the_command_has_them(said, command, right):
    assert cli.for_the_shell(ValueError(said), cli.main.commands[command]) == right


def test_messages_on_the_way_out_are_in_the_words_of_the_shell(photons):
    assert "--id, --time, --energy" in shell("ingest", "other.csv", "--out", "x.parquet").stderr
    noted = shell("ingest", "kev.csv", "--out", "x.parquet").stderr
    assert "read them with --energy-unit keV" in noted and noted.count("--energy-unit") == 1


@pytest.mark.parametrize("option", [("--region", "one.csv"), ("--rmf", "one.csv"), ("--energy-range", 500, 2000), ("--force-rmf",)])
def test_an_option_of_event_files_is_refused_for_tables(photons, option):
    said = shell("ingest", "one.csv", *option, "--out", "x.parquet")
    assert said.exit_code == 2 and f"{option[0]} is for event files" in said.stderr


def test_times_only_reads_tables_without_energies(photons):
    for name in ("times.csv", "one.csv"):
        assert shell("ingest", name, "--times-only", "--overwrite", "--out", "t.parquet").exit_code == 0
        assert not read_events("t.parquet").has_energy


def test_a_table_under_another_extension_is_read_or_told_what_to_do(photons):
    from astropy.table import Table

    from xrt_nb.data import EventTable
    frame = pd.read_csv("one.csv")
    table = Table.from_pandas(frame)
    table["time"].unit, table["energy"].unit = "s", "keV"
    table.write("one.ecsv", format="ascii.ecsv")
    frame.to_csv("one.tsv", sep="\t", index=False)
    right = read_events("one.csv")
    assert np.array_equal(read_events("one.tsv").energy, right.energy)
    assert np.allclose(read_events("one.ecsv").energy, 1000 * right.energy, rtol=1e-12)  # it says keV
    assert shell("ingest", "one.ecsv", "one.csv", "--out", "x.parquet").exit_code == 1  # one detection twice
    assert shell("ingest", "one.tsv", "--out", "x.parquet").exit_code == 0
    (photons / "one.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    said = shell("ingest", "one.hdf5", "--out", "y.parquet").stderr
    assert "not a FITS file" in said and ".parquet" in said
    with pytest.raises(ValueError, match="extension must be"): EventTable.from_frame(frame).write("one.ecsv", overwrite=True)


def test_an_archive_of_nothing_is_not_written(photons):
    (photons / "head.csv").write_text("obsreg_id,time,energy\n")
    said = shell("ingest", "head.csv", "--out", "x.parquet")
    assert said.exit_code == 1 and "no detection" in said.stderr and not (photons / "x.parquet").exists()


def test_a_log_gets_a_line_for_each_step_and_no_bars(photons):
    rng = np.random.default_rng(5)
    rows = [pd.DataFrame({"obsreg_id": f"s{i}", "time": np.sort(rng.uniform(0, 1e4, 30)), "energy": rng.uniform(500, 7000, 30)}) for i in range(12)]
    pd.concat(rows).to_csv("many.csv", index=False)
    said = shell("run", "many.csv", "--out", "run", "--max-iter", 250).stderr
    assert "\r" not in said and "it/s" not in said
    assert [line.split()[0] for line in said.splitlines() if line.endswith(" s")][-1] == "report"
    assert "\r" not in shell("ingest", "one.csv", "many.csv", "--out", "both.parquet").stderr


def test_words_of_python_in_backticks_are_options_too():
    said = ValueError("`n_components` is 15, `no_such_thing` is kept, and so is `time`")
    assert cli.for_the_shell(said, cli.main.commands["run"]) == "`--n-components` is 15, `no_such_thing` is kept, and so is `time`"


@pytest.mark.parametrize("call, says", [
    (lambda x: x.light_curve("s"), "expected an EventList, got a str"),
    (lambda x: x.plot_light_curves(["s"]), "expected an EventList"),
    (lambda x: x.embed(x.EventTable(["a"], [0, 1], [1.0])), "must be numbers"),
    (lambda x: x.plot_analogs({}, pd.DataFrame({"a": [1]})), "no column 'query'"),
    (lambda x: x.read_known(True), "True is no path"),
])
def test_wrong_kinds_are_refused_in_our_words(call, says):
    import xrt_nb
    with pytest.raises((TypeError, ValueError, XRTError), match=says): call(xrt_nb)


def test_too_few_for_an_embedding_is_said_without_impossible_advice():
    from xrt_nb import embed
    with pytest.warns(UserWarning, match="places of so few mean nothing"): embed(np.eye(3), perplexity=1, max_iter=250)
    with pytest.warns(UserWarning, match="up to 3 would be safe"): embed(np.random.default_rng(1).normal(size=(11, 3)), perplexity=5, max_iter=250)


def test_exposures_of_a_csv_come_from_a_second_one(photons):
    from xrt_nb.data import EventTable
    edges = pd.DataFrame({"obsreg_id": ["a"], "t_start": [-5.0], "t_stop": [2e4]})
    edges.to_csv("edges.csv", index=False)
    assert shell("ingest", "one.csv", "--exposures", "edges.csv", "--out", "e.parquet").exit_code == 0
    assert read_events("e.parquet")["a"].window == (-5.0, 2e4)
    for wrong in (edges.assign(t_stop=100.0), edges.assign(t_start=3e4), edges.assign(obsreg_id="b"), edges.assign(t_stop="x"), edges.assign(t_stop=np.nan)):
        wrong.to_csv("wrong.csv", index=False)
        said = shell("ingest", "one.csv", "--exposures", "wrong.csv", "--out", "w.parquet")
        assert said.exit_code == 1 and "no exposure that holds all events, for 1 of 1 detections, first 'a'" in said.stderr
    pd.concat([edges, edges]).to_csv("wrong.csv", index=False)
    assert "'a' stands there twice" in shell("ingest", "one.csv", "--exposures", "wrong.csv", "--out", "w.parquet").stderr
    assert isinstance(read_events("e.parquet"), EventTable) and not (photons / "w.parquet").exists()


def test_advice_names_options_that_the_command_has(photons):
    pd.read_csv("one.csv").assign(energy=np.nan).to_csv("nan.csv", index=False)
    assert "read it with --drop-bad" in shell("ingest", "nan.csv", "--out", "x.parquet").stderr
    assert "read it with `xrt-nb ingest --drop-bad`" in shell("run", "nan.csv", "--out", "x").stderr
    assert "xrt-nb ingest FILE --id ID" in shell("run", "other.csv", "--out", "x").stderr
    for option in ("--known", "--truth"):  # a list of transients has no columns to be named
        assert "Name yours" not in shell("run", "one.csv", option, "one.csv", "--out", "x").stderr


def test_an_interrupt_says_what_is_left(photons, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(cli, "ingest_tables", stop)
    said = shell("ingest", "one.csv", "--out", "x.parquet")
    assert said.exit_code == 1 and "go on from what is done" in said.stderr


def test_the_install_page_tells_of_every_extra():
    settings, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("settings.ini", "docs/install.md"))
    extras = set(re.findall(r"^(\w+)_requirements", settings, re.M)) - {"dev", "docs", "pip", "conda", "all"}
    assert extras == set(re.findall(r"^\| `(\w+)` \|", page, re.M))
