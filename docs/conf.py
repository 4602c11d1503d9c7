"""How the documentation is built: ``sphinx-build -W -b html docs docs/_build/html``.

``PYROVAE_DOCS_EXECUTE=off`` leaves the notebooks as they are, without output, for a quick build.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generating import copy_notebooks, write_contents, write_families
from mathml import add_mathml

HOUSE = Path(__file__).parent.parent

project = "pyrovae"
author = "The pyrovae developers"
copyright = author
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "myst_nb"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
highlight_language = "sh"
# Two hyphens are a flag, and no dash.
smartquotes = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# A notebook is run again where its own cells have changed; remove docs/_build to run all of them.
nb_execution_mode = "off" if os.environ.get("PYROVAE_DOCS_EXECUTE") == "off" else "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "error"
nb_execution_cache_path = str(HOUSE / "docs" / "_build" / "notebooks")
# Pages load nothing from other hosts.
nb_ipywidgets_js = {}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "pyrovae"
html_static_path = ["_static"]
html_css_files = ["pyrovae.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"

copy_notebooks(HOUSE / "examples" / "notebooks", HOUSE / "docs" / "notebooks")
write_contents(HOUSE / "docs" / "notebooks", HOUSE / "docs" / "generated")
write_families(HOUSE / "docs" / "generated")


def setup(app):  # noqa: ANN001, ANN201, D103
    add_mathml(app)
