"""Notebooks to reports, headless: the only importer of papermill, and of what turns notebooks into pages.

::

    from fourdgs import report

    report.run_notebook("notebooks/02_train.ipynb", "out.ipynb", {"iterations": 2000})
    report.build_report(
        ["notebooks/01_dataset.ipynb", ("notebooks/02_train.ipynb", {"iterations": 2000})],
        out="reports/alpha", title="Was it the ceiling of 4DGS?", info={"capture": capture.digest()},
    )

`run_notebook` executes one notebook; `build_report` executes several and writes one folder: ``index.html`` (readable
offline), ``index.md`` (for a blog) with ``figures/``, ``metrics.csv`` and ``run.json``. `read_parameters` lists
what a notebook takes. Inside a notebook, `plots.show` gives a figure its name, text and caption, `show_wipe` lays two
pictures under a divider, `show_video` plays an MP4, `show_scene` gives a trained scene to turn, and
`record_metrics(table)` adds rows to the report's ``metrics.csv``; all of them work when the notebook is run by hand.

What a report shows of a notebook: Markdown cells (headings one level down, no TeX, no raw HTML), figures, tables
(`DataFrame`, `Styler`), ``display(Markdown(...))``, printed text, and the code folded away. Cell tags: ``parameters``
(a folded table), ``hide-input`` (outputs only), ``hide`` (nothing), ``interactive`` (not run, not shown). What goes to
stderr, progress bars included, is folded away with the code.

Importing this module imports none of papermill, nbformat, mistune or jinja2: that happens in the functions.
"""

from __future__ import annotations

from .build import build_report, record_metrics
from .execute import NotebookFailed, run_notebook
from .parameters import Parameter, read_parameters
from .scene import write_scene
from .show import show_scene, show_video, show_wipe

__all__ = [
    "NotebookFailed",
    "Parameter",
    "build_report",
    "read_parameters",
    "record_metrics",
    "run_notebook",
    "show_scene",
    "show_video",
    "show_wipe",
    "write_scene",
]
