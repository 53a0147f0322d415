"""The documentation site builds without a warning, holds everything, and needs no network."""

import ast
import importlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import make_site  # noqa: E402

NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


FORMULA = re.compile(r"\\(frac|mathrm|sqrt|Delta|le)\b")


class Page(HTMLParser):
    "The tags of a page with their attributes, its text and its anchors."

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.prose = [], [], []  # prose: what stands neither in code nor in its output
        self.code = 0
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.words)
        self.ids = {attributes["id"] for _, attributes in self.tags if attributes.get("id")}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {k: v or "" for k, v in attributes}))
        self.code += tag in ("pre", "code")

    def handle_endtag(self, tag):
        self.code -= tag in ("pre", "code")

    def handle_data(self, data):
        self.words.append(data)
        if not self.code:
            self.prose.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The site, built once, or the error that stopped it."
    out = tmp_path_factory.mktemp("site") / "_site"
    try:
        make_site.build(ROOT, out)
    except make_site.SiteError as error:
        return error
    return out


@pytest.fixture(scope="module")
def site(built):
    "The folder of the site."
    if isinstance(built, Exception):
        pytest.skip("the site did not build")
    return built


@pytest.fixture(scope="module")
def pages(site):
    "Every page, by its path."
    return {p.relative_to(site).as_posix(): Page(p) for p in site.rglob("*.html")}


def page_of(notebook):
    "The page that a notebook becomes: without its number, as nbdev names it; the front page keeps its own name."
    stem = re.sub(r"^\d+[a-z]?_", "", notebook.stem)
    return (notebook.stem if stem == "index" else stem) + ".html"


def test_the_site_builds_without_a_warning(built):
    assert not isinstance(built, Exception), str(built)[-6000:]


def test_every_notebook_has_a_page_with_its_pictures(pages):
    for notebook in NOTEBOOKS:
        folder = notebook.parent.relative_to(ROOT / "nbs").as_posix()
        name = page_of(notebook) if folder == "." else f"{folder}/{page_of(notebook)}"
        assert name in pages, f"{notebook.name} has no page {name}"
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        shown = [c for c in cells if c["cell_type"] == "code" and not re.search(r"^#\|\s*(hide|exporti?)\b", "".join(c["source"]), re.M)]
        drawn = sum("image/png" in o.get("data", {}) for c in shown for o in c["outputs"])
        found = [a for tag, a in pages[name].tags if tag == "img" and "_images" in a["src"]]
        assert len(found) >= drawn, f"{name}: {len(found)} of {drawn} pictures"


def test_pictures_and_links_lead_somewhere(site, pages):
    for name, page in pages.items():
        for tag, attributes in page.tags:
            goal = attributes.get("src" if tag == "img" else "href", "") if tag in ("img", "a") else ""
            if not goal or re.match(r"[a-z]+:", goal):
                continue
            path, _, anchor = goal.partition("#")
            target = (site / name).parent / path if path else site / name
            assert target.resolve().is_file(), f"{name}: {goal}"
            other = target.resolve().relative_to(site.resolve()).as_posix()
            if anchor and other in pages and name not in ("genindex.html", "search.html"):
                assert anchor in pages[other].ids, f"{name}: nothing is named {goal}"


def test_formulas_are_rendered(pages):
    count = sum(tag == "math" for page in pages.values() for tag, _ in page.tags)
    assert count > 3
    for name, page in pages.items():
        assert not FORMULA.search(" ".join(page.prose)), f"{name} shows a formula as text"


def test_a_formula_left_as_text_is_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(r"<p>half is \frac{1}{2}</p><pre>a \sqrt in code</pre>", encoding="utf-8")
    assert FORMULA.findall(" ".join(Page(page).prose)) == ["frac"]


def test_a_formula_that_cannot_be_rendered_stops_the_build():
    from docutils.utils.math import MathError
    from docutils.utils.math.latex2mathml import tex2mathml

    assert "<mfrac>" in tex2mathml(r"\frac{a}{b}")
    with pytest.raises(MathError):
        tex2mathml(r"\nosuchcommand{a}")


def test_nothing_comes_from_a_network(site, pages):
    outside = re.compile(r"^(https?:)?//")
    for name, page in pages.items():
        for tag, attributes in page.tags:
            if tag in ("script", "img", "iframe", "source", "embed") and outside.match(attributes.get("src", "")):
                pytest.fail(f"{name}: {tag} {attributes['src']}")
            if tag == "link" and attributes.get("rel") != "canonical" and outside.match(attributes.get("href", "")):
                pytest.fail(f"{name}: link {attributes['href']}")
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import\s+['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_search_finds_names(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8").lower()
    assert "eventtable" in index and "gti" in index


def test_api_page_lists_every_public_name(pages):
    text = pages["api.html"].text
    for module in (p for p in (ROOT / "xrt_nb").glob("*.py") if not p.name.startswith("_")):
        public = importlib.import_module(f"xrt_nb.{module.stem}").__all__
        tree = ast.parse(module.read_text(encoding="utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        assert not [n for n in defined & set(public) if n not in text], module.name
    links = [a["href"] for tag, a in pages["api.html"].tags if tag == "a" and a.get("href", "").startswith("data.html#")]
    assert {"data.html#eventtable", "data.html#eventtable-filter"} <= set(links)


def test_a_method_is_explained_with_its_parameters(pages):
    page = pages["data.html"]
    assert "eventtable.filter" in page.ids
    assert re.search(r"Parameters\s*:?", page.text[page.text.index("EventTable.filter"):])


def test_the_gallery_shows_a_figure_of_most_notebooks(site, pages):
    shown = [a["src"] for tag, a in pages["gallery.html"].tags if tag == "img" and a.get("src", "").startswith("gallery/")]
    assert len(shown) > 20 and all((site / picture).stat().st_size > 1000 for picture in shown)


def test_every_command_has_its_part_of_a_page(pages):
    text = pages["command_line.html"].text
    from xrt_nb.cli import main

    for name, command in main.commands.items():
        assert f"xrt-nb {name}" in text
        assert not [p.opts[-1] for p in command.params if p.opts[-1].startswith("--") and p.opts[-1] not in text], name


def test_names_in_backticks_are_links(pages):
    assert any(tag == "a" and a.get("href") == "#eventlist" for tag, a in pages["data.html"].tags)


def test_no_path_of_this_machine(pages):
    for name, page in pages.items():
        assert str(ROOT) not in page.text, name


def test_links_are_led_to_their_pages():
    cfg = make_site.settings(ROOT)
    links = make_site.Links(ROOT, cfg, {"nbs/00_data.ipynb": "data.ipynb", "nbs/tutorials/a.ipynb": "tutorials/a.ipynb", "CHANGELOG.md": "changelog.md"},
                            {"data.ipynb": ["EventTable"]})
    lead = lambda text: links.rewrite(text, "nbs/tutorials", "tutorials/a.ipynb")
    assert lead("[x](../00_data.ipynb#try)") == "[x](../data.ipynb#try)"
    assert lead("[x](../../CHANGELOG.md)") == "[x](../changelog.md)"
    assert lead("[x](../../LICENSE)") == f"[x]({cfg['git_url']}/blob/{cfg['branch']}/LICENSE)"
    assert lead(f"[`EventTable`]({cfg['doc_host']}{cfg['doc_baseurl']}/data.html#eventtable)") == "[`EventTable`](../data.ipynb#eventtable)"
    assert lead(f"[`EventTable.filter`]({cfg['doc_host']}{cfg['doc_baseurl']}/data.html#eventtable.filter)").endswith("(../data.ipynb#eventtable)")
    assert lead(f"the [`_private`]({cfg['doc_host']}{cfg['doc_baseurl']}/data.html#_private) one") == "the `_private` one"
    assert lead("[source](https://example.org){target=\"_blank\" style=\"x\"}") == "[source](https://example.org)"
    assert lead("```\n[x](../00_data.ipynb)\n```") == "```\n[x](../00_data.ipynb)\n```"


def test_descriptions_of_several_lines_stay_comments():
    text = "### x\n\n```python\ndef f(\n    a:int, # One, by the\norder of `P`.\n)->tuple: # Right\nby `Q`.\n\n```\n\nprose # here\nmore\n"
    made = make_site.one_line_comments(text)
    assert "    a:int, # One, by the order of `P`.\n)->tuple: # Right by `Q`.\n" in made and made.endswith("prose # here\nmore\n")
    ast.parse(made.split("```")[1].removeprefix("python\n").rstrip() + "\n    pass")


def test_sections_of_a_docstring_become_definitions():
    text = "Scale.\n\nParameters\n----------\nx, y : (N,) array\n    Values [s], as in [1]_.\n\n    More.\nk : int\n    How many.\n\n"
    text += "Returns\n-------\nDataFrame\n    One row each.\n\nReferences\n----------\n.. [1] A paper."
    assert make_site.numpydoc(text) == (
        "Scale.\n\n**Parameters**\n\n`x, y` : (N,) array\n: Values [s], as in [1].\n  \n  More.\n\n`k` : int\n: How many.\n\n"
        "**Returns**\n\nDataFrame\n: One row each.\n\n**References**\n\n[1] A paper.")
