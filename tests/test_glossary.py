"""The glossary: a sentence for every column that is made, one place for all of them, and a page of the same tables."""
import re
import sys
from pathlib import Path

import pytest

from xrt_nb._glossary import FAMILIES, TERMS, VOCABULARY, explain, find, terms_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))
import glossary_page  # noqa: E402


@pytest.fixture(scope="module")
def columns():
    "Every column that features, shapes, properties and quality have."
    from xrt_nb.features import summary_features
    from xrt_nb.properties import catalog_columns
    from xrt_nb.representations import quality_table
    from xrt_nb.shapes import search_features, search_names
    from xrt_nb.simulation import simulate_archive

    events, truth = simulate_archive(30, random_state=2)
    made = {"summary": [*summary_features(events)], "catalog": [*catalog_columns(events)], "quality": [*quality_table(events)], "meta": [*events.meta],
            "search": [*search_features(events)], "raw search": search_names(), "truth": ["kind"], "analogs": ["rank", "distance", "score", "chance", "label"]}
    assert len(made["summary"]) > 50 and len(made["search"]) > 400
    return made


def test_every_column_that_is_made_has_a_sentence(columns):
    assert {group: [c for c in names if len(explain(c)) < 10] for group, names in columns.items()} == dict.fromkeys(columns, [])
    assert explain("my column") == "" and explain(7) == ""


@pytest.mark.slow
def test_every_column_of_a_run_has_a_sentence(tmp_path):
    import pandas as pd

    from xrt_nb.runs import demo
    folder = demo(tmp_path / "run", 150, perplexity=20, max_iter=250, min_samples=10)
    tables = {p.name: list(pd.read_csv(p, nrows=1)) for p in folder.glob("*.csv")} | {p.name: list(pd.read_parquet(p)) for p in folder.glob("*.parquet")}
    assert len(tables) >= 9 and {"clusters.csv", "properties.parquet", "search.parquet"} <= set(tables)
    assert {name: [c for c in names if not explain(c)] for name, names in tables.items()} == dict.fromkeys(tables, [])


def test_no_family_speaks_of_a_name_that_stands_alone(columns):
    "Each name has one meaning: no two families claim a column."
    for name in {c for names in columns.values() for c in names} - set(TERMS):
        claims = [p for p in FAMILIES if re.fullmatch(p, name)]
        assert len(claims) == 1, (name, claims)


def test_sentences_are_sentences(columns):
    for name in {c for names in columns.values() for c in names} | set(TERMS):
        said = explain(name)
        assert said.endswith(".") and "{" not in said and "  " not in said and len(said) < 180, said
    for term in [*TERMS.values(), *FAMILIES.values(), *VOCABULARY.values()]:
        assert term.group and term.meaning[0].isupper() or term.meaning[0] in "{1"


def test_a_name_is_written_down_once():
    "A dictionary would take the later of two lines in silence."
    source = (Path(glossary_page.__file__).parent.parent / "xrt_nb" / "_glossary.py").read_text(encoding="utf-8")
    for table, made in (("TERMS", TERMS), ("FAMILIES", FAMILIES), ("VOCABULARY", VOCABULARY)):
        blocks = re.findall(rf'^{table} \|?= terms_of\(\n    r?"""\n(.*?)"""', source, re.M | re.S)
        assert sum(len(block.strip().splitlines()) for block in blocks) == len(made) > 20, table


def test_a_broken_line_stops():
    with pytest.raises(ValueError):
        terms_of("ra | deg | Right ascension.", "Detections")


def test_the_page_has_every_term():
    page = glossary_page.page()
    for name in [*TERMS, *map(glossary_page.first_of, FAMILIES)]:
        assert f"`{name}`" in page, name
    for term in VOCABULARY.values():
        assert f"**{term.name}**" in page and term.meaning in page
    assert "{0}" not in page and page.startswith("# Glossary\n\n> ")
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_the_first_of_each_family_is_found_by_its_family():
    for pattern, term in FAMILIES.items():
        first = find(glossary_page.first_of(pattern))
        assert first is not None and (first.group == term.group or first.group == "Run"), pattern
