"""README.md from nbs/index.ipynb: markdown that GitHub renders, with links that work from the project's root.

Used by `tools/parity.py`, which writes the result (`make readme`) or compares it (`make parity`).
"""

import base64
import json
import posixpath
import re
from pathlib import Path

NOTE = "<!-- Made from nbs/index.ipynb by `make readme`: edit the notebook, not this file. -->"
HIDDEN = re.compile(r"^#\|\s*(hide|default_exp|exporti?|include:\s*false)\b", re.M)
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)")
FIGURES = "README_files"  # folder of the pictures that cells of the notebook have drawn


def relink(text: str) -> str:  # the same markdown, seen from the project's root
    "Turn links relative to `nbs/` into links relative to the project's root."
    def one(match):
        target = match[2]
        if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target):
            return match[0]
        return match[1] + posixpath.normpath(posixpath.join("nbs", target))
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.S)  # code stays as it is
    return "".join(part if i % 2 else LINK.sub(one, part) for i, part in enumerate(parts))


def output_text(output: dict) -> str:  # text, or "" for a picture or nothing
    "The plain text of one output."
    if output["output_type"] == "stream":
        return "".join(output["text"])
    data = output.get("data", {})
    return "" if "image/png" in data else "".join(data.get("text/plain", ""))


def render(
    notebook: Path,  # nbs/index.ipynb
) -> dict:  # {path relative to the project's root: bytes}: README.md and its pictures
    "Render `notebook` as the project's front page."
    blocks, files = [NOTE], {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if not source.strip() or HIDDEN.search(source):
            continue
        if cell["cell_type"] == "markdown":
            blocks.append(relink(source.strip()))
        if cell["cell_type"] != "code":
            continue
        if not re.search(r"^#\|\s*echo:\s*false", source, re.M):
            blocks.append(f"```python\n{DIRECTIVE.sub('', source).strip()}\n```")
        if re.search(r"^#\|\s*output:\s*false", source, re.M):
            continue
        text = "".join(map(output_text, cell["outputs"])).strip("\n")
        if text:
            blocks.append(f"```text\n{text}\n```")
        for data in (o.get("data", {}) for o in cell["outputs"]):
            if "image/png" in data:
                name = f"{FIGURES}/figure-{len(files) + 1}.png"
                files[name] = base64.b64decode("".join(data["image/png"]))
                blocks.append(f"![figure {len(files)}]({name})")
    return files | {"README.md": ("\n\n".join(blocks) + "\n").encode()}
