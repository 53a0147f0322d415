#!/usr/bin/env python3
"""The documentation site from the notebooks, without Quarto: `python docs/make_site.py --out _site` (`make docs`).

nbdev renders its directives (`proc_nbs`: hides, folds, documents every exported definition, links names in backticks); this
script turns the result into what Sphinx with myst-nb reads; Sphinx writes the pages, the search index and the navigation.
Notebooks are shown with their stored outputs and not run again. Warnings are errors. All work is done on a copy in a
temporary folder; the finished site is moved to its place in one step.
"""

import argparse
import ast
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "docs/conventions.md": "conventions.md"}
SHELVES = {"tutorials": "Tutorials", "guides": "Guides", "": "The library, in order", "below": "Below the library"}
TAGS = {"echo: false": "remove-input", "code-fold: true": "hide-input", "output: false": "remove-output"}
DIRECTIVE = re.compile(r"^[ \t]*#\|[ \t]*(.*?)[ \t]*$\n?", re.M)
LINK = re.compile(r"(?<!!)(\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
ATTRIBUTES = re.compile(r"(\]\([^)\s]*\))\{[^}\n]*\}")
HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)$", re.M)
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


def symbol_page(text: str, level: int) -> tuple:  # (markdown, name)
    "The documentation of one definition as prose: a heading with nbdev's anchor, the signature, the docstring."
    text = re.sub(r"\A---\s*", "", text)
    name = HEADING.search(text)[2].replace("\\", "").strip()
    escaped = name.replace("_", r"\_")
    heading = f'{"#" * level} {escaped}'
    if re.search(r"[._]", name):  # Sphinx writes another anchor than nbdev: give both
        heading = f'<a id="{slug(name)}"></a>\n\n{heading}'
    text = HEADING.sub(lambda _: heading, text, count=1)
    if name[0].isupper() and "." not in name:
        text = text.replace(f"def {name}(", f"class {name}(", 1)
    text = re.sub(r"^``` ?python\s*$", "```python", text, flags=re.M)
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)  # names in the comments of a signature are not links
    return "".join(re.sub(r"\[`([^`\]]+)`\]\([^)]*\)", r"\1", part) if i % 2 else part for i, part in enumerate(parts)), name


def documented_names(nb: dict) -> list:
    "The names that `proc_nbs` has documented in a notebook."
    shown = [c for c in nb["cells"] if c["cell_type"] == "code" and re.search(r"^show_doc\(", "".join(c["source"]), re.M)]
    return [symbol_page("".join(c["outputs"][0]["data"]["text/markdown"]), 3)[1] for c in shown]


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


def adapt(nb: dict, links: Links, here: str, page: str):
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
                text, _ = symbol_page(one_line_comments(text), min(3, level + 1))
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


def signature(node, method: bool) -> str:
    "Arguments of a function, or of a class's `__init__`, with their defaults and without annotations."
    if isinstance(node, ast.ClassDef):
        node = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if node is None:
            return ""
        method = True
    if "property" in ast.unparse(ast.Tuple([*node.decorator_list], ast.Load())) or "as_prop=True" in ast.unparse(node):
        return ""
    for arg in ast.walk(node.args):
        if isinstance(arg, ast.arg):
            arg.annotation = None
    text = ast.unparse(node.args)
    return "(" + (re.sub(r"^(self|cls)(, )?", "", text) if method else text) + ")"


def patched_class(node) -> str:  # "" when the function is not a method added by `patch_to`
    "The class that a decorator `patch_to(Class)` gives the function to."
    for decorator in getattr(node, "decorator_list", []):
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "patch_to":
            return ast.unparse(decorator.args[0])
    return ""


def public_symbols(module: Path) -> list:  # of (name, signature, first line of the docstring)
    "Every public definition of an exported module, with the methods of its classes, in the order of the notebook."
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if not isinstance(node, (*functions, ast.ClassDef)) or node.name.startswith("_"):
            continue
        owner = patched_class(node)
        group = [(f"{owner}.{node.name}" if owner else node.name, node, bool(owner))]
        if isinstance(node, ast.ClassDef):
            group += [(f"{node.name}.{n.name}", n, True) for n in node.body if isinstance(n, functions) and not n.name.startswith("_")]
        for name, definition, method in group:
            doc = (ast.get_docstring(definition) or "").strip().partition("\n")[0]
            found.append((name, signature(definition, method), doc))
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


def run(command: list, cwd: Path, env: dict):
    "Run one step; its own words are the error message."
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SiteError(f"{done.stdout.strip()}\nthis step failed: {' '.join(map(str, command[1:4]))[:80]}")


def toctree(caption: str, pages: list) -> str:
    "A block of the navigation."
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


def write_source(root: Path, proc: Path, source: Path) -> dict:  # {path in the project: page}
    "Write into `source` everything that Sphinx reads."
    cfg = settings(root)
    books = sorted(p.relative_to(proc).as_posix() for p in proc.rglob("*.ipynb"))
    loaded = {name: json.loads((proc / name).read_text(encoding="utf-8")) for name in books}
    facts = {name: front_matter(nb["cells"][0]) for name, nb in loaded.items()}
    where = {}  # notebook -> page: 00_data.ipynb -> data.ipynb, as nbdev names it
    for name in books:
        stem = posixpath.splitext(facts[name].get("output-file", posixpath.basename(name)))[0]
        where[name] = posixpath.join(posixpath.dirname(name), stem + ".ipynb")
    pages = {f"nbs/{name}": page for name, page in where.items()} | PAGES | {"README.md": "index.ipynb"}
    names = {where[name]: documented_names(nb) for name, nb in loaded.items()}
    links = Links(root, cfg, pages, names)
    shutil.copytree(root / "nbs", source, ignore=shutil.ignore_patterns("*.ipynb", "_*", ".*"))
    documented, subtitles = {}, {}
    for name, nb in loaded.items():
        page = where[name]
        module = module_of(root / "nbs" / name)
        adapt(nb, links, posixpath.dirname(f"nbs/{name}"), page)
        if module:
            documented[page] = (module, names[page])
            subtitles[page] = links.rewrite(facts[name].get("description", ""), "nbs", "api.md")
        if page == "index.ipynb":
            shelves = {folder: [where[b] for b in books if posixpath.dirname(b) == folder and b != name] for folder in SHELVES}
            trees = [toctree(SHELVES[folder], found) for folder, found in shelves.items() if found]
            trees += [toctree("Reference", ["api.md", "conventions.md", "contributing.md", "changelog.md"])]
            nb["cells"].append({"cell_type": "markdown", "id": "navigation", "metadata": {}, "source": "\n\n".join(trees)})
        (source / page).parent.mkdir(parents=True, exist_ok=True)
        (source / page).write_text(json.dumps(nb), encoding="utf-8")
    for path, page in PAGES.items():
        text = (root / path).read_text(encoding="utf-8")
        (source / page).write_text(links.rewrite(text, posixpath.dirname(path), page), encoding="utf-8")
    (source / "api.md").write_text(api_page(root, cfg["lib_path"], documented, subtitles), encoding="utf-8")
    return pages


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
        env = dict(os.environ, PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="agg", IPYTHONDIR=str(tmp / "ipython"))
        env.setdefault("XRT_NB_SHARED", str(root.parent / "shared"))
        run([sys.executable, "-c", f"from nbdev.serve import proc_nbs; proc_nbs(n_workers={workers})"], copy, env)
        pages = write_source(root, copy / "_proc", tmp / "source")
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
