#!/usr/bin/env python3
"""The glossary as a page: `python docs/glossary_page.py` prints Markdown made of the tables in `xrt_nb._glossary`."""

import re
from itertools import groupby

from xrt_nb._glossary import FAMILIES, TERMS, VOCABULARY, find

HEAD = """# Glossary

> The words of these pages and the columns of a run: meaning, unit and range.

Units are written as in a VOTable; `dex(s)` is a decimal logarithm of seconds. The finder shows the same sentences when the mouse
rests on a name, and saved FITS tables and VOTables carry them with their columns.
"""
FIRST = {r"(?:tsne|umap|pca|phate|map)([12])": "tsne1", r"var_(?:intra_)?prob_([busmhw])": "var_prob_b", r"dither_(\d+)": "dither_707",
         r"var_(?:intra_)?index_([busmhw])": "var_index_b", r"window_(\d+)s": "window_30s", r"top(\d+)_(\d+)": "top12_00",
         r"(peak|dip)_(before|after)_(\d+)s": "peak_before_50s", r"e_q(\d+)": "e_q05", r"pca(\d\d+)": "pca00"}


def first_of(pattern: str) -> str:  # a name
    "The first member of a family of columns."
    if pattern in FIRST:
        return FIRST[pattern]
    name = re.sub(r"\(\[([a-z0-9])[^)]*\)", r"\1", pattern)  # ([busmhw]) -> b
    name = re.sub(r"\(([a-z]+)(\|[a-z]+)+\)", r"\1", name)  # (up|down) -> up
    return name.replace(r"(\d\d+)", "00").replace(r"(\d+)", "1").replace(r"(\d)", "0").replace(r"(\w+)", "NAME")


def cells(*values: str) -> str:  # a row
    "A row of a Markdown table; bars in the text are escaped."
    return "| " + " | ".join(v.replace("|", r"\|") for v in values) + " |"


def table(rows: list) -> list:  # lines
    "Terms as a table; columns without any value are left out."
    keep = [k for k in ("unit", "range") if any(getattr(t, k) for _, t in rows)]
    lines = [cells("name", "meaning", *keep), "|" + "---|" * (2 + len(keep))]
    return lines + [cells(shown, t.meaning, *(getattr(t, k) for k in keep)) for shown, t in rows]


def page() -> str:  # Markdown
    "The whole glossary page."
    lines = [HEAD, "## Words", ""]
    for group, terms in groupby(VOCABULARY.values(), key=lambda t: t.group):
        lines += [f"### {group}", "", *table([(f"**{t.name}**", t) for t in terms]), ""]
    lines += ["## Columns", ""]
    rows = [(f"`{t.name}`", t) for t in TERMS.values()]
    rows += [(f"`{n}`, …", find(n)._replace(group=t.group)) for t, n in ((t, first_of(p)) for p, t in FAMILIES.items())]
    for group in dict.fromkeys(t.group for _, t in rows):
        lines += [f"### {group}", "", *table([row for row in rows if row[1].group == group]), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
