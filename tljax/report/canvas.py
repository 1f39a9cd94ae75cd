"""The look of the report's figures: colours, axes, and the way from a Figure into a page.

Figures are drawn in the light scheme; `to_svg` turns the named colours into CSS variables, with
which the page restyles them for a dark screen. Nothing here touches pyplot.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tljax import wording
from tljax.wording import Row

# Okabe and Ito's palette, which stays apart under all common colour-blindnesses; orange and sky
# blue come last because thin lines of them are pale on white. Grey is the baseline's.
ARM_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#aa4499', '#e69f00', '#56b4e9')
BASELINE, INK, FAINT, LINE = '#6b7280', '#1f2430', '#5b6472', '#d9dee6'
PAPER, BAD = '#ffffff', '#c0392b'
CLASS_COLOURS = (*ARM_COLOURS, '#8c564b', '#7a8b00', '#12a5b5', '#e377c2')
# colour -> name of its CSS variable in the page
VARIABLES = {colour: f'arm{i}' for i, colour in enumerate(ARM_COLOURS)} | {
    **{BASELINE: 'baseline', INK: 'ink', FAINT: 'faint'},
    **{LINE: 'line', PAPER: 'paper', BAD: 'bad'},
}
_MARKERS = ('o', '^', 's', 'D', 'v', 'P')
_GLYPHS = ('●', '▲', '■', '◆', '▼', '✚')


class Style(NamedTuple):
    """How an arm looks in every figure."""

    colour: str
    marker: str
    line: Any
    glyph: str

    @property
    def variable(self) -> str:
        """The CSS variable of the colour."""
        return VARIABLES[self.colour]


def styles(arms: Sequence[str], baseline: str = '') -> dict[str, Style]:
    """Gives every arm its colour, marker and line; the baseline is grey and dashed."""
    looks = {baseline: Style(BASELINE, 'o', (0, (4, 2)), '○')} if baseline in arms else {}
    lines = ('-', (0, (5, 1, 1, 1)), (0, (1, 1)))
    for i, arm in enumerate(arm for arm in arms if arm != baseline):
        k, again = i % len(ARM_COLOURS), i // len(ARM_COLOURS)
        marker = (k + again) % len(_MARKERS)
        look = (ARM_COLOURS[k], _MARKERS[marker], lines[again % len(lines)], _GLYPHS[marker])
        looks[arm] = Style(*look)
    return {arm: looks[arm] for arm in arms}


def to_svg(figure: Figure, alt: str, key: str) -> str:
    """Renders a figure as an inline SVG element that follows the page's fonts and colours.

    Args:
        figure: any Figure of `figures`.
        alt: what a reader who does not see it should know.
        key: unique in the page; matplotlib's own ids would collide between figures.
    """
    file = io.StringIO()
    options = {'svg.fonttype': 'none', 'svg.hashsalt': key}
    with mpl.rc_context(options), warnings.catch_warnings():
        # The reader's browser has the glyphs that the layout font lacks.
        warnings.filterwarnings('ignore', message='Glyph .* missing')
        figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    svg = file.getvalue()
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg[svg.index('<svg') :], flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', '', svg).replace('xlink:href', 'href')
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{key}-', svg)
    for colour, name in VARIABLES.items():
        svg = re.sub(rf'{colour}\b', f'var(--{name})', svg)
    width = float(re.search(r'width="([\d.]+)pt"', svg).group(1)) * 96 / 72
    head = f'<svg role="img" aria-label="{escape(alt)}" style="--natural:{width:.0f}px" '
    return re.sub(r'<svg (?:width|height)="[\d.]+pt" ', head, svg, count=1).strip()


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """Makes a figure of a size in inches with one quiet pair of axes."""
    figure = Figure(figsize=(width, height), layout='constrained')
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(color=LINE, lw=0.7)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=3, color=LINE)
    axes.xaxis.label.set(color=FAINT, fontsize=9)
    axes.yaxis.label.set(color=FAINT, fontsize=9)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ('left', 'bottom'), color=LINE)
    return figure, axes


def x_axis(axes: Axes, rows: Sequence[Row], axis: str) -> Callable[..., float]:
    """Sets the horizontal axis up: logarithmic if its values span more than a decade.

    Returns:
        `place(value, dodge=0)`: the position of an axis value; a dodge of ±1 reaches half way to
        the nearest neighbour.
    """
    values = list({wording.freeze(row[axis]): row[axis] for row in rows if axis in row}.values())
    numeric = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    values = sorted(values) if numeric else values
    log = bool(values) and numeric and 0 < 10 * values[0] < values[-1]
    keys = [wording.freeze(value) for value in values]
    spot = (math.log if log else float) if numeric else (lambda v: keys.index(wording.freeze(v)))
    spots = [spot(value) for value in values]
    step = min(np.diff(spots), default=1.0)

    def place(value: Any, dodge: float = 0.0) -> float:
        moved = spot(value) + 0.5 * dodge * step
        return math.exp(moved) if log else moved

    axes.set_xscale('log' if log else 'linear')
    kept = _apart(spots, 12 if numeric else len(values))
    names = [plain(short(f'{values[i]:g}' if numeric else str(values[i]), 12)) for i in kept]
    axes.set_xticks([place(values[i]) for i in kept], names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(plain(wording.axis_label(axis)))
    if not numeric and max(map(len, names), default=0) > 6:
        axes.tick_params(axis='x', rotation=30)
    return place


def _apart(spots: Sequence[float], most: int) -> list[int]:
    # The ticks that fit beside each other; the first always does.
    span = (max(spots) - min(spots)) or 1 if spots else 1
    kept: list[int] = []
    for i, spot in enumerate(spots):
        if not kept or spot - spots[kept[-1]] >= span / most / 1.5:
            kept.append(i)
    return kept


def y_axis(axes: Axes, metric: str, kind: str = '') -> float:
    """Labels the vertical axis and returns what its values are to be multiplied with."""
    per_cent = wording.in_per_cent(metric)
    name = plain(metric.replace('_', ' '))
    unit = (' (points)' if kind else ' (%)') if per_cent else ''
    axes.set_ylabel(f'{name} {kind}'.strip() + unit)
    return 100.0 if per_cent else 1.0


def short(text: str, length: int) -> str:
    """Cuts a name that is too long for a figure."""
    return text if len(text) <= length else text[: length - 1].rstrip() + '…'


def plain(text: str) -> str:
    """Makes a name safe to draw: it is one line, and its '$' does not start a formula."""
    return ' '.join(str(text).split()).replace('$', r'\$')


def thousands(value: float, _: int) -> str:
    """Writes large step counts as '20k'."""
    return f'{value / 1000:g}k' if abs(value) >= 10_000 else f'{value:g}'
