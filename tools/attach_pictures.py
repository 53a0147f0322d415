#!/usr/bin/env python3
"""Put the browser tests' pictures into a notebook: `python tools/attach_pictures.py nbs/08d_finder.ipynb`.

    python -m pytest -m slow tests/test_browser.py -k pictures      writes tests/artefacts/finder-NAME.png
    python tools/attach_pictures.py nbs/08d_finder.ipynb            attaches each as NAME.png to the cell that shows it

A cell of prose shows a picture as `![what is seen](attachment:NAME.png)`. It is stored in at most 256 colors, as wide as the text of a page.
"""

import argparse
import base64
import io
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST = 200_000  # bytes of a picture
WIDTH = 1200  # pixels
SHOWN = re.compile(r"!\[[^\]]*\]\(attachment:([\w-]+)\.png\)")


def small(picture: Path) -> bytes:  # PNG file
    "A picture in few colors, as many as fit into `MOST` bytes."
    from PIL import Image

    image = Image.open(picture).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    for colors in (256, 128, 64, 32):
        out = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(out, format="png", optimize=True)
        if out.tell() <= MOST:
            return out.getvalue()
    raise SystemExit(f"{picture}: {out.tell():,} bytes in 32 colors, {MOST:,} are allowed; make a smaller picture")


def attach(notebook: Path, pictures: Path) -> list:  # names attached
    "Attach the pictures that the cells of a notebook show; one that is missing stops before anything is written."
    content = json.loads(notebook.read_text(encoding="utf-8"))
    done = []
    for cell in content["cells"]:
        names = SHOWN.findall("".join(cell["source"])) if cell["cell_type"] == "markdown" else []
        for name in names:
            path = pictures / f"finder-{name}.png"
            if not path.is_file():
                raise SystemExit(f"{path} is missing: python -m pytest -m slow tests/test_browser.py -k pictures")
            encoded = base64.b64encode(small(path)).decode()
            cell.setdefault("attachments", {})[f"{name}.png"] = {"image/png": encoded}
            done.append(name)
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    return done


def main(argv: list) -> int:  # exit status
    "Attach pictures to the notebooks named."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path, nargs="+")
    parser.add_argument("--pictures", type=Path, default=ROOT / "tests" / "artefacts")
    given = parser.parse_args(argv)
    for notebook in given.notebook:
        print(f"{notebook}: {', '.join(attach(notebook, given.pictures)) or 'shows no attachment'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
