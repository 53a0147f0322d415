"""Pictures of the browser tests come into a notebook small, under their names, or not at all."""
import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import attach_pictures  # noqa: E402


@pytest.fixture
def book(tmp_path):
    "A notebook that shows a picture, and a noisy picture of it."
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["![A window](attachment:start.png)"]}
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    noise = np.random.default_rng(0).integers(0, 255, (60, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "finder-start.png")
    return path


def test_a_picture_is_attached_small(book, tmp_path):
    assert attach_pictures.attach(book, tmp_path) == ["start"]
    data = base64.b64decode(json.loads(book.read_text())["cells"][0]["attachments"]["start.png"]["image/png"])
    assert len(data) <= attach_pictures.MOST and Image.open(io.BytesIO(data)).size == (1200, 45)
    before = book.read_bytes()
    attach_pictures.attach(book, tmp_path)
    assert book.read_bytes() == before, "the same picture gives the same notebook"


def test_a_missing_picture_changes_nothing(book, tmp_path):
    before = book.read_bytes()
    (tmp_path / "finder-start.png").unlink()
    with pytest.raises(SystemExit, match="finder-start.png is missing: python -m pytest"):
        attach_pictures.attach(book, tmp_path)
    assert book.read_bytes() == before


def test_a_picture_that_cannot_be_small_is_refused(book, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "finder-start.png")
    with pytest.raises(SystemExit, match="make a smaller picture"):
        attach_pictures.attach(book, tmp_path)


def test_every_picture_that_a_notebook_shows_is_in_it():
    shown = 0
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for name in attach_pictures.SHOWN.findall("".join(cell["source"])):
                data = base64.b64decode(cell.get("attachments", {})[f"{name}.png"]["image/png"])
                assert len(data) <= 200_000 and data.startswith(b"\x89PNG"), (path.name, name)
                shown += 1
    assert shown >= 4
