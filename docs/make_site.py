#!/usr/bin/env python3
"""The documentation site from the notebooks, without Quarto: `python docs/make_site.py --out _site` (`make docs`).

nbdev renders its directives (`proc_nbs`: hides, folds, documents every exported definition, links names in backticks); this
script turns the result into what Sphinx with myst-nb reads; Sphinx writes the pages, the search index and the navigation.
Notebooks are shown with their stored outputs and not run again. Warnings are errors. All work is done on a copy in a
temporary folder; the finished site is moved to its place in one step.
"""

import argparse
import ast
import base64
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "docs/conventions.md": "conventions.md",
         "docs/install.md": "install.md"}
MADE = {"command_line.md": "cli_page.py", "glossary.md": "glossary_page.py"}  # pages that a script beside this one prints
SHELVES = {"tutorials": "Tutorials", "guides": "Guides", "": "The library, in order", "below": "Below the library"}
TAGS = {"echo: false": "remove-input", "code-fold: true": "hide-input", "output: false": "remove-output"}
DIRECTIVE = re.compile(r"^[ \t]*#\|[ \t]*(.*?)[ \t]*$\n?", re.M)
LINK = re.compile(r"(?<!!)(\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
ATTRIBUTES = re.compile(r"(\]\([^)\s]*\))\{[^}\n]*\}")
HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)$", re.M)
IMPORTING = re.compile(r"^(import|from|if TYPE_CHECKING)", re.M)
OPEN = 16  # lines of a helper's definition that a page shows unfolded
ENTRIES = ("Parameters", "Returns", "Raises", "Attributes", "Yields", "Warns")
SECTIONS = re.compile(rf"^({'|'.join(ENTRIES)})\n-{{5,}}$", re.M)
SECTION = re.compile(rf"^({'|'.join(ENTRIES)}|Notes|References|Examples|See Also)\n-{{3,}}\n", re.M)
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)


def slug(title: str) -> str:  # the part of a link after the #
    "The anchor of a heading: as on GitHub for a title, as nbdev writes it for a name such as `EventTable.filter`."
    title = title.strip().lower()
    if not re.search(r"\s", title):
        return title
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def settings(root: Path) -> dict:
    "The facts of `settings.ini`."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


class SiteError(RuntimeError):
    "A step of the build failed; the message holds its own words."


# --- where a link leads -----------------------------------------------------------------------------------------------


class Links:
    "Turns the links of notebooks and pages into links of the site."

    def __init__(
        self,
        root: Path,  # the project
        cfg: dict,  # settings.ini
        pages: dict,  # {path in the project: path in the site's source}
        names: dict = None,  # {path in the site's source: names documented there}
    ):
        self.root, self.pages = root, pages
        self.anchors = {page: {slug(name) for name in found} for page, found in (names or {}).items()}
        self.site = cfg["doc_host"] + cfg["doc_baseurl"] + "/"
        self.code = f"{cfg['git_url']}/blob/{cfg['branch']}/"
        self.by_stem = {posixpath.splitext(page)[0]: page for page in pages.values()}

    def target(self, url: str, here: str, page: str) -> str:  # "" for a name that is explained nowhere
        "Where `url` leads on the site, from a notebook in the folder `here` that has become `page`."
        url, _, anchor = url.partition("#")
        if url.startswith(self.site):  # written by nbdev for a name in backticks
            goal = self.by_stem.get(posixpath.splitext(url.removeprefix(self.site))[0])
            anchor = next((a for a in (anchor, anchor.partition(".")[0]) if a in self.anchors.get(goal, ())), "")
            if not anchor:
                return ""
        elif not url or re.match(r"[a-z][a-z0-9+.-]*:", url):
            goal = None
        else:
            path = posixpath.normpath(posixpath.join(here, url))
            goal = self.pages.get(path)
            if goal is None and (self.root / path).exists() and not path.startswith("nbs/"):
                url = self.code + path
        if goal is not None:
            url = "" if goal == page and anchor else posixpath.relpath(goal, posixpath.dirname(page) or ".")
        return url + ("#" + anchor if anchor else "")

    def rewrite(self, text: str, here: str, page: str) -> str:
        "`text` with every link outside code led to its place on the site."
        def change(match):
            goal = self.target(match[2], here, page)
            return match[1] + goal + match[3] if goal else match[1][1:-2]

        parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
        return "".join(part if i % 2 else ATTRIBUTES.sub(r"\1", LINK.sub(change, part)) for i, part in enumerate(parts))


# --- one notebook -----------------------------------------------------------------------------------------------------


def front_matter(cell: dict) -> dict:  # {} when the cell is none
    "The facts in the raw cell that nbdev has put first."
    import yaml

    text = "".join(cell["source"]).strip() if cell["cell_type"] == "raw" else ""
    return yaml.safe_load(text.strip("-\n")) if text.startswith("---") else {}


def definitions(module: Path) -> dict:  # {name: its part of the syntax tree}, methods as `Class.method`
    "What a module defines, for its signatures and docstrings; a class has the methods of its bases in the module as well."
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tops = {n.name: n for n in ast.parse(module.read_text(encoding="utf-8")).body if isinstance(n, (*functions, ast.ClassDef))}

    def methods(node):
        own = {n.name: n for n in node.body if isinstance(n, functions) and n.name[0] != "_"}
        bases = [tops[b.id] for b in node.bases if isinstance(b, ast.Name) and isinstance(tops.get(b.id), ast.ClassDef)]
        for base in bases:
            own = own | {name: n for name, n in methods(base).items() if name not in own}
        return own

    found = {}
    for name, node in tops.items():
        found[name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{name}.{key}": n for key, n in methods(node).items()}
    return found


def entries(body: str) -> str:  # markdown
    "A section of entries, each a line with what is indented below it, as a list of definitions."
    made = []
    for term, text in re.findall(r"^(\S[^\n]*)\n((?:[ ]+[^\n]*\n?|\n(?=[ ]))*)", body.strip("\n") + "\n", re.M):
        name, colon, kind = term.partition(" : ")
        lines = textwrap.dedent(text).strip().splitlines() or ["\u00a0"]
        made.append((f"`{name}` : {kind}" if colon else term) + "\n: " + "\n  ".join(lines))
    return "\n\n".join(made)


def numpydoc(text: str) -> str:  # markdown
    """A docstring with its numpydoc sections as lists of definitions.

    Not by way of napoleon and `eval-rst`: MyST puts an empty line before each such block for every line of the page above it,
    ten thousand a cell, and docutils walks through all of them.
    """
    cited = re.sub(r"(\[\d+\])_|^\.\. (?=\[)", lambda m: m[1] or "", text, flags=re.M)
    intro, *sections = SECTION.split(cited)
    made = [intro.strip()]
    for head, body in zip(sections[::2], sections[1::2]):
        made += [f"**{head}**", entries(body) if head in ENTRIES else body.strip()]
    return "\n\n".join(part for part in made if part)


def declaration(name: str, node) -> str:  # markdown
    "What a user writes, with annotations and defaults, on as many lines as it needs."
    given = signature(node, annotated=True)
    word = "class" if isinstance(node, ast.ClassDef) else "def"
    if given is None:
        return f"```python\n{name if '.' in name else f'class {name}'}\n```"
    line = f"{word} {name}({', '.join(given)})"
    if len(line) > 88:
        line = f"{word} {name}(\n" + "".join(f"    {part},\n" for part in given) + ")"
    return f"```python\n{line}\n```"


def anchored(name: str, level: int) -> str:  # markdown
    "The heading of a definition, with nbdev's anchor where Sphinx writes another."
    heading = f'{"#" * level} ' + name.replace("_", r"\_")
    return f'<a id="{slug(name)}"></a>\n\n{heading}' if re.search(r"[._]", name) else heading


def explained(name: str, nodes: dict, level: int) -> str:  # markdown
    "Signature and docstring of a definition; a class with its public methods."
    node = nodes[name]
    parts = [declaration(name, node), numpydoc(ast.get_docstring(node) or "")]
    for key in (k for k in nodes if k.startswith(f"{name}.")):
        parts += [anchored(key, level + 1), declaration(key, nodes[key]), numpydoc(ast.get_docstring(nodes[key]) or "")]
    return "\n\n".join(parts)


def symbol_page(text: str, level: int, nodes: dict = None) -> tuple:  # (markdown, name)
    "The documentation of one definition as prose: a heading with nbdev's anchor, the signature, the docstring."
    text = re.sub(r"\A---\s*", "", text)
    name = HEADING.search(text)[2].replace("\\", "").strip()
    text = HEADING.sub(lambda _: anchored(name, level), text, count=1)
    if name[0].isupper() and "." not in name:
        text = text.replace(f"def {name}(", f"class {name}(", 1)
    text = re.sub(r"^``` ?python\s*$", "```python", text, flags=re.M)
    if nodes and name in nodes:
        text = text.replace("#LNone", f"#L{nodes[name].lineno}", 1)
        if re.search(SECTIONS, ast.get_docstring(nodes[name]) or ""):  # nbdev shows parameters only, and without types
            return text.partition("```python")[0] + explained(name, nodes, level), name
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)  # names in the comments of a signature are not links
    return "".join(re.sub(r"\[`([^`\]]+)`\]\([^)]*\)", r"\1", part) if i % 2 else part for i, part in enumerate(parts)), name


def documented_names(nb: dict, nodes: dict) -> list:
    "The names that `proc_nbs` has documented in a notebook, and the methods shown with their classes."
    shown = [c for c in nb["cells"] if c["cell_type"] == "code" and re.search(r"^show_doc\(", "".join(c["source"]), re.M)]
    names = [symbol_page("".join(c["outputs"][0]["data"]["text/markdown"]), 3)[1] for c in shown]
    sections = [n for n in names if n in nodes and SECTIONS.search(ast.get_docstring(nodes[n]) or "")]
    return names + [key for key in nodes if key.partition(".")[0] in sections and "." in key]


def one_line_comments(text: str) -> str:
    "Join the lines of a description that nbdev has put behind a comment sign, of which only the first is a comment."
    made, code = [], False
    for line in text.split("\n"):
        code = line.startswith("```") != code
        if code and made and "#" in made[-1] and re.match(r"[^\s)`]", line) and not re.match(r"(async )?(def|class) |@", line):
            made[-1] += " " + line
        else:
            made.append(line)
    return "\n".join(made)


def adapt(nb: dict, links: Links, here: str, page: str, nodes: dict):
    "Change `nb`, as `proc_nbs` leaves it, into what myst-nb reads."
    cells, level = [], 1
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        meta = front_matter(cell)
        if meta:
            text = f"# {meta.get('title', '')}" + (f"\n\n{{.subtitle}}\n{meta['description']}" if meta.get("description") else "")
            cells.append({"cell_type": "markdown", "id": cell["id"], "metadata": {}, "source": text})
            continue
        if "AUTOGENERATED" in source or not source.strip() or cell["cell_type"] == "raw":
            continue
        if cell["cell_type"] == "code":
            directives = [d for d in DIRECTIVE.findall(source)]
            if re.search(r"^show_doc\(", source, re.M):
                text = "".join(cell["outputs"][0]["data"]["text/markdown"])
                text, _ = symbol_page(one_line_comments(text), min(3, level + 1), nodes)
                level = max(level, min(3, level + 1))
                cells.append({"cell_type": "markdown", "id": cell["id"], "metadata": {}, "source": links.rewrite(text, here, page)})
                continue
            cell["metadata"] = {"tags": sorted({TAGS[d] for d in directives if d in TAGS})}
            cell["source"] = DIRECTIVE.sub("", source).strip("\n")
            cell.pop("has_sd", None)
        else:
            cell["source"] = links.rewrite(source, here, page)
            for name, kinds in cell.pop("attachments", {}).items():  # pictures that travel with a cell
                kind, data = next(iter(kinds.items()))
                inline = f"data:{kind};base64," + "".join("".join(data).split())
                cell["source"] = re.sub(r"\]\([^()]*attachment:" + re.escape(name) + r"\)", lambda _: f"]({inline})", cell["source"])
            found = HEADING.findall(CODE.sub("", source))
            level = len(found[-1][0]) if found else level
        cells.append(cell)
    nb["cells"] = cells
    nb["metadata"] = {"kernelspec": nb["metadata"].get("kernelspec", {"name": "python3", "display_name": "python3"})}


def module_of(notebook: Path) -> str:  # "" when the notebook exports nothing
    "The module that a notebook becomes."
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        found = re.search(r"^#\|\s*default_exp\s+(\S+)", "".join(cell["source"]), re.M)
        if found:
            return found[1]
    return ""


# --- the API page -----------------------------------------------------------------------------------------------------


def is_property(node) -> bool:
    "Is a method read without parentheses?"
    return any("property" in ast.unparse(d) for d in getattr(node, "decorator_list", []))


def arguments(node, annotated: bool = False) -> list:  # of str, one an argument
    "Arguments of a function or method with their defaults and, if asked for, annotations; without `self`."
    def text(arg, default=None):
        made = arg.arg + (f": {ast.unparse(arg.annotation)}" if annotated and arg.annotation else "")
        return made + (f"{' = ' if ':' in made else '='}{ast.unparse(default)}" if default is not None else "")

    args = node.args
    plain = args.posonlyargs + args.args
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    made = [text(arg, default) for arg, default in zip(plain, defaults) if arg.arg not in ("self", "cls")]
    made += [f"*{text(args.vararg)}"] if args.vararg else ["*"] if args.kwonlyargs else []
    made += [text(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
    return made + ([f"**{text(args.kwarg)}"] if args.kwarg else [])


def signature(node, annotated: bool = False) -> list:  # of str; None for what is not called
    "Arguments of a function, or of a class's `__init__`."
    if isinstance(node, ast.ClassDef):
        node = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    return None if node is None or is_property(node) else arguments(node, annotated)


def public_symbols(module: Path) -> list:  # of (name, signature, first line of the docstring)
    "Every public definition of an exported module, with the methods of its classes, in the order of the notebook."
    tree = ast.parse(module.read_text(encoding="utf-8"))
    public = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"), [])
    found = []
    for name, node in definitions(module).items():
        if name.partition(".")[0] in public:
            doc = (ast.get_docstring(node) or "").strip().partition("\n\n")[0].replace("\n", " ")
            given = signature(node)
            found.append((name, "" if given is None else f"({', '.join(given)})", doc))
    return found


def api_page(root: Path, lib: str, documented: dict, subtitles: dict) -> str:  # markdown
    "One section per module in reading order, one line per public name, linked to its place in the notebook."
    lines = ["# API reference", "", "{.subtitle}", "Every public name, by module, with a link to the place where it is explained, shown and tested.", ""]
    for page, (module, names) in documented.items():
        path = root / lib / f"{module.replace('.', '/')}.py"
        symbols = public_symbols(path)
        if not symbols:
            continue
        lines += [f"## {lib}.{module}", "", subtitles.get(page, ""), ""]
        for name, arguments, doc in symbols:
            place = next((n for n in (name, name.partition(".")[0]) if n in names), None)  # a method inside a class: at its class
            lines.append(f"- [`{name}`]({page}{'#' + slug(place) if place else ''})" + (f" `{arguments}`" if arguments else "") + (f"<br>{doc}" if doc else ""))
        lines.append("")
    return "\n".join(lines)


# --- the site ---------------------------------------------------------------------------------------------------------


def run(command: list, cwd: Path, env: dict) -> str:  # what it said
    "Run one step; its own words are the error message."
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SiteError(f"{done.stdout.strip()}\nthis step failed: {' '.join(map(str, command[1:4]))[:80]}")
    return done.stdout


def toctree(caption: str, pages: list) -> str:
    "A block of the navigation."
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


def figures_of(nb: dict) -> list:  # of bytes
    "The figures in the outputs of a notebook, in order."
    outputs = [o for c in nb["cells"] if c["cell_type"] == "code" for o in c.get("outputs", [])]
    pngs = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    return [base64.b64decode("".join(png)) for png in pngs]


def gallery_page(figures_in: dict, titles: dict, where: dict, folder: Path) -> str:  # markdown
    "One figure of each notebook that has some, tutorials and guides first: a click leads to where it is explained."
    folder.mkdir()
    order = sorted(figures_in, key=lambda name: (list(SHELVES).index(posixpath.dirname(name)), name))
    cards = []
    for name in order:
        figures = figures_in[name]
        title = titles[name]
        if figures and name != "index.ipynb":
            picture = where[name].replace("/", "-").replace(".ipynb", ".png")
            (folder / picture).write_bytes(max(figures, key=len))  # the richest one
            page = where[name].replace(".ipynb", ".html")
            cards.append(f'<a href="{page}"><img src="gallery/{picture}" alt="" loading="lazy"><span>{title}</span></a>')
    head = "# Gallery\n\n{.subtitle}\nOne figure of each notebook; a click leads to the cell that draws it, and to why.\n\n"
    return head + '<div class="gallery">\n' + "\n".join(cards) + "\n</div>\n"


def write_source(root: Path, proc: Path, source: Path, env: dict) -> dict:  # {path in the project: page}
    "Write into `source` everything that Sphinx reads."
    cfg = settings(root)
    books = sorted(p.relative_to(proc).as_posix() for p in proc.rglob("*.ipynb"))
    loaded = {name: json.loads((proc / name).read_text(encoding="utf-8")) for name in books}
    facts = {name: front_matter(nb["cells"][0]) for name, nb in loaded.items()}
    where = {}  # notebook -> page: 00_data.ipynb -> data.ipynb, as nbdev names it
    for name in books:
        stem = posixpath.splitext(facts[name].get("output-file", posixpath.basename(name)))[0]
        if stem == "index" and name != "index.ipynb":  # 05g_index would take the place of the front page
            stem = posixpath.splitext(posixpath.basename(name))[0]
        where[name] = posixpath.join(posixpath.dirname(name), stem + ".ipynb")
    pages = {f"nbs/{name}": page for name, page in where.items()} | PAGES | {"README.md": "index.ipynb"} | {f"docs/{page}": page for page in (*MADE, "gallery.md", "api.md")}
    modules = {name: module_of(root / "nbs" / name) for name in books}
    nodes = {name: definitions(root / cfg["lib_path"] / f"{modules[name]}.py") if modules[name] else {} for name in books}
    names = {where[name]: documented_names(nb, nodes[name]) for name, nb in loaded.items()}
    links = Links(root, cfg, pages, names)
    shutil.copytree(root / "nbs", source, ignore=shutil.ignore_patterns("*.ipynb", "_*", ".*"))
    figures = {name: figures_of(nb) for name, nb in loaded.items()}
    documented, subtitles = {}, {}
    for name, nb in loaded.items():
        page = where[name]
        module = modules[name]
        adapt(nb, links, posixpath.dirname(f"nbs/{name}"), page, nodes[name])
        if module:
            documented[page] = (module, names[page])
            subtitles[page] = links.rewrite(facts[name].get("description", ""), "nbs", "api.md")
        if page == "index.ipynb":
            shelves = {folder: [where[b] for b in books if posixpath.dirname(b) == folder and b != name] for folder in SHELVES}
            trees = [toctree("Begin", ["install.md", "gallery.md"])]
            trees += [toctree(SHELVES[folder], found) for folder, found in shelves.items() if found]
            trees += [toctree("Reference", ["api.md", *MADE, "conventions.md", "contributing.md", "changelog.md"])]
            nb["cells"].append({"cell_type": "markdown", "id": "navigation", "metadata": {}, "source": "\n\n".join(trees)})
        (source / page).parent.mkdir(parents=True, exist_ok=True)
        (source / page).write_text(json.dumps(nb), encoding="utf-8")
    for path, page in PAGES.items():
        text = (root / path).read_text(encoding="utf-8")
        (source / page).write_text(links.rewrite(text, posixpath.dirname(path), page), encoding="utf-8")
    titles = {name: fact.get("title", name) for name, fact in facts.items()}
    for page, script in MADE.items():
        made = run([sys.executable, str(root / "docs" / script)], root, env)
        (source / page).write_text(links.rewrite(made, "docs", page), encoding="utf-8")
    gallery = gallery_page(figures, titles, where, source / "gallery")
    (source / "gallery.md").write_text(gallery, encoding="utf-8")
    (source / "api.md").write_text(api_page(root, cfg["lib_path"], documented, subtitles), encoding="utf-8")
    return pages


def show_helpers(path: Path):
    "Let a reader of the page see what `exporti` exports, which nbdev leaves out: short definitions open, long ones folded."
    nb = json.loads(path.read_text(encoding="utf-8"))
    cells = []
    for cell in nb["cells"]:
        cells.append(cell)
        source = "".join(cell["source"])
        body = DIRECTIVE.sub("", source)
        if cell["cell_type"] != "code" or "exporti" not in DIRECTIVE.findall(source) or IMPORTING.search(body):
            continue
        fold = "" if len(body.strip().splitlines()) <= OPEN else "#| code-fold: true\n"
        shown = "#| eval: false\n" + fold + body.lstrip("\n")  # nbdev runs the first and shows the second
        cells.append(cell | {"id": f"{cell['id']}-shown", "source": shown, "outputs": []})
    path.write_text(json.dumps(nb | {"cells": cells}), encoding="utf-8")


def build(root: Path, out: Path, workers: int = 2):
    "Build the site of the project `root` into the folder `out`."
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        copy = tmp / "project"
        copy.mkdir()
        lib = settings(root)["lib_path"]
        for folder in ("nbs", lib):
            shutil.copytree(root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "_proc"))
        shutil.copy(root / "settings.ini", copy)
        for path in (copy / "nbs").rglob("*.ipynb"):
            show_helpers(path)
        env = dict(os.environ, PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="agg", IPYTHONDIR=str(tmp / "ipython"))
        env.setdefault("XRT_NB_SHARED", str(root.parent / "shared"))
        run([sys.executable, "-c", f"from nbdev.serve import proc_nbs; proc_nbs(n_workers={workers})"], copy, env)
        pages = write_source(root, copy / "_proc", tmp / "source", env)
        env |= {"XRT_NB_ROOT": str(root), "NO_COLOR": "1"}
        sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-j", str(workers), "-c", str(root / "docs"),
                  str(tmp / "source"), str(tmp / "site")]
        try:
            run(sphinx, tmp, env)
        except SiteError as error:  # name the files that people edit
            message = str(error)
            for path, page in pages.items():
                message = message.replace(str(tmp / "source" / page), path)
            raise SiteError(message) from None
        shutil.copytree(tmp / "source" / "gallery", tmp / "site" / "gallery")
        for leftover in (".doctrees", ".buildinfo", "jupyter_execute"):
            path = tmp / "site" / leftover
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tmp / "site", out)


def main():
    "Build, and say where."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_site")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    try:
        build(ROOT, args.out, args.workers)
    except SiteError as error:
        sys.exit(f"make_site: {error}")
    print(f"{len(list(args.out.rglob('*.html')))} pages: open {args.out}/index.html")


if __name__ == "__main__":
    main()
