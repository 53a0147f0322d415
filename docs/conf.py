"""Sphinx settings of the documentation site; `make_site.py` beside this file prepares what Sphinx reads."""

import os
import re
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402
from docutils.utils.math import MathError  # noqa: E402
from make_site import settings  # noqa: E402
from sphinx.util import logging  # noqa: E402

cfg = settings(Path(os.environ.get("XRT_NB_ROOT", here.parent)))
project, author, copyright, release = cfg["title"], cfg["author"], cfg["copyright"], cfg["version"]
language = "en"

extensions = ["myst_nb", "sphinx.ext.githubpages"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# notebooks are shown as they were committed
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # widgets do not live in a static page, and their scripts would come from a network
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_block", "attrs_inline", "deflist"]
myst_heading_anchors = 4
myst_heading_slug_func = "make_site.slug"

html_theme = "furo"
html_title = f"{project} {release}"
html_baseurl = cfg["doc_host"] + cfg["doc_baseurl"] + "/"
html_static_path = [str(here / "_static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"source_repository": cfg["git_url"], "source_branch": cfg["branch"], "top_of_page_buttons": []}
html_math_renderer = "mathml"


# Formulas become MathML, which browsers draw by themselves: no script, no network. What docutils cannot translate is an error.
SAME = {"dots": "ldots", "dotsc": "ldots", "dotsb": "cdots", "texttt": "mathtt", "textbf": "mathbf", "bm": "boldsymbol",
        "big": "bigl", "Big": "Bigl", "bigg": "biggl", "Bigg": "Biggl"}  # commands that docutils knows by another name only


def mathml(self, node, as_block: bool):
    "Write one formula as MathML."
    formula = re.sub(r"\\([A-Za-z]+)", lambda m: "\\" + SAME.get(m[1], m[1]), node.astext())
    try:
        self.body.append(tex2mathml(formula, as_block))
    except MathError as error:
        logging.getLogger(__name__).warning("formula %r: %s", node.astext(), error, location=node)


def depart(self, node):
    "Nothing is left open."


def inline_math(self, node):
    "A formula in a line."
    mathml(self, node, False)


def block_math(self, node):
    "A formula of its own."
    self.body.append(self.starttag(node, "div", CLASS="math"))
    mathml(self, node, True)
    self.body.append("</div>\n")


def setup(app):
    "Register the renderer of formulas."
    from docutils import nodes

    def skip(visit):
        def visited(self, node):
            visit(self, node)
            raise nodes.SkipNode
        return visited

    app.add_html_math_renderer("mathml", inline_renderers=(skip(inline_math), depart), block_renderers=(skip(block_math), depart))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
