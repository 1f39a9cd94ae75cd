"""Renders report.html from a run or study directory: one file, no external requests.

records   what a directory holds
page      the record -> everything that the template shows
  headline, facts, panels (figures, drawn on canvas)
../report.html.j2
"""

import importlib.resources
from pathlib import Path

import jinja2

from tljax import workdir
from tljax.report import page, records
from tljax.report.headline import headline
from tljax.report.records import Run, Study

__all__ = ['headline', 'render', 'write']


def write(directory: str | Path) -> Path:
    """Writes `report.html` into a run or study directory and returns its path.

    Raises:
        FileNotFoundError: `results.json` of the directory or of one of its arms is missing.
        ValueError: it is broken; the message names the file.
    """
    html = render(records.load(directory))
    target = Path(directory) / 'report.html'
    workdir.write_text(target, html)
    return target


def render(record: Run | Study) -> str:
    """Renders the page of a loaded run or study."""
    source = importlib.resources.files('tljax').joinpath('report.html.j2').read_text('utf-8')
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(page.build(record))
