"""How Sphinx makes the site: `python -m sphinx -W --keep-going docs build/site`."""

from __future__ import annotations

from fractal_mesospim_shading import __version__

project = "fractal-mesospim-shading"
author = "The fractal-mesospim-shading developers"
project_copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["images"]

# Headings can be linked to by the names that GitHub gives them.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

# Docstrings put names between single backticks.
default_role = "py:obj"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
# A prompt is not copied with a line.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
