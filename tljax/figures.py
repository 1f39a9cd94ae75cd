"""The report's figures: each function returns a matplotlib Figure; `to_svg` puts it into a page.

No function touches pyplot, so nothing here depends on or changes a global state or a display.
Figures are drawn in the light scheme; `to_svg` turns the named colours into CSS variables, with
which the page restyles them for a dark screen.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from tljax import wording
from tljax.wording import Row

# Okabe and Ito's palette, which stays apart under all common colour-blindnesses; orange and sky
# blue come last because thin lines of them are pale on white. Grey is the baseline's.
ARM_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#aa4499', '#e69f00', '#56b4e9')
BASELINE, INK, FAINT, LINE, PAPER, BAD = (
    *('#6b7280', '#1f2430', '#5b6472', '#d9dee6', '#ffffff', '#c0392b'),
)
_NAMES = {BASELINE: 'baseline', INK: 'ink', FAINT: 'faint', LINE: 'line', PAPER: 'paper', BAD: 'bad'}
VARIABLES = _NAMES | {colour: f'arm{i}' for i, colour in enumerate(ARM_COLOURS)}
_MARKERS = ('o', '^', 's', 'D', 'v', 'P')
_GLYPHS = ('●', '▲', '■', '◆', '▼', '✚')
_WIDTH = 4.2  # inches; at 96 dpi it fills a phone's screen with its text at about full size
_LONGEST = 28


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


def styles(arms: Sequence[str], baseline: str | None = None) -> dict[str, Style]:
    """Gives every arm its colour, marker and line; the baseline is grey and dashed."""
    looks = {baseline: Style(BASELINE, 'o', (0, (4, 2)), '○')} if baseline in arms else {}
    lines = ('-', (0, (5, 1, 1, 1)), (0, (1, 1)))
    for i, arm in enumerate(arm for arm in arms if arm != baseline):
        k, again = i % len(ARM_COLOURS), i // len(ARM_COLOURS)
        marker = (k + again) % len(_MARKERS)
        look = (ARM_COLOURS[k], _MARKERS[marker], lines[again % len(lines)], _GLYPHS[marker])
        looks[arm] = Style(*look)
    return {arm: looks[arm] for arm in arms}


def scores(
    rows: Sequence[Row], axis: str, looks: Mapping[str, Style], metric: str = 'accuracy',
    *, legend: bool = True,
) -> Figure:
    """Draws mean scores against a member axis with 95 % bands, one line per arm.

    An arm that does not have the axis (zero-shot among few-shot arms) is a level line.
    """
    figure, axes = _canvas(_WIDTH, 3.2)
    place = _x_axis(axes, rows, axis)
    scale = _y_axis(axes, metric)
    for arm, look in looks.items():
        own = [row for row in rows if row['arm'] == arm and row['mean'] is not None]
        points = [row for row in own if axis in row]
        for row in own:
            if axis not in row:
                axes.axhline(scale * row['mean'], color=look.colour, ls=look.line, lw=1.8)
                half = scale * (row['ci95'] or 0)
                low, high = scale * row['mean'] - half, scale * row['mean'] + half
                axes.axhspan(low, high, color=look.colour, alpha=0.15, lw=0)
        x = [place(row[axis]) for row in points]
        mean = scale * np.array([row['mean'] for row in points], float)
        half = scale * np.array([row['ci95'] or 0 for row in points], float)
        if np.any(half > 0):
            axes.fill_between(x, mean - half, mean + half, color=look.colour, alpha=0.17, lw=0)
        label = _plain(wording.arm_label(arm))
        axes.plot(
            x, mean, color=look.colour, ls=look.line, lw=1.8, marker=look.marker, ms=5, label=label,
            markerfacecolor=PAPER if look.colour == BASELINE else look.colour,
        )
    if in_unit := wording.in_per_cent(metric):
        low, high = axes.get_ylim()
        # Bands of few seeds reach beyond what an accuracy can be.
        axes.set_ylim(max(low, 0), min(high, 102) if in_unit else high)
    if legend:
        axes.legend(frameon=False, fontsize=8.5, loc='best')
    return figure


def gains(
    rows: Sequence[Row], axis: str | None, looks: Mapping[str, Style], metric: str = 'accuracy',
    *, lower_is_better: bool = False,
) -> Figure:
    """Draws the paired differences to the baseline with 95 % intervals.

    Filled markers are significant. The side of the zero line where transfer hurts is tinted.
    """
    rows = [row for row in rows if row.get('delta_mean') is not None]
    rows = [row for row in rows if axis is None or axis in row]
    if axis is None:
        return _intervals(rows, looks, metric, 'delta_mean', 'delta_ci95', lower_is_better)
    figure, axes = _canvas(_WIDTH, 3.2)
    place = _x_axis(axes, rows, axis)
    scale = _y_axis(axes, metric, 'difference')
    arms = [arm for arm in looks if any(row['arm'] == arm for row in rows)]
    for i, arm in enumerate(arms):
        for row in (row for row in rows if row['arm'] == arm):
            # Side by side, so that intervals at one setting do not hide each other.
            x = place(row[axis], (i - (len(arms) - 1) / 2) / max(len(arms), 3))
            y, half = scale * row['delta_mean'], scale * (row['delta_ci95'] or 0)
            _interval(axes, x, y, half, looks[arm], row)
    _tint(axes, 'y', lower_is_better)
    return figure


def dots(rows: Sequence[Row], looks: Mapping[str, Style], metric: str = 'accuracy') -> Figure:
    """Draws one dot and 95 % interval per row, for comparisons without a numeric axis."""
    return _intervals(rows, looks, metric, 'mean', 'ci95', None)


def curves(
    series: Mapping[str, tuple[Sequence[float], np.ndarray]], looks: Mapping[str, Style],
    metric: str = 'accuracy', *, title: str = '', limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Draws learning curves, the mean and the range over members.

    Args:
        series: arm -> (steps [T], values [T, M]); values that are not finite are left out.
        looks: from `styles`.
        metric: names the vertical axis.
        title: above the panel.
        limits: of the vertical axis, to share between panels.
        marks: phase -> its first step, drawn as thin lines.
    """
    figure, axes = _canvas(3.4, 2.4)
    scale = _y_axis(axes, metric)
    for arm, (steps, values) in series.items():
        values = np.where(np.isfinite(values), values, np.nan) * scale
        alive = np.isfinite(values).any(axis=1)
        steps, values, look = np.asarray(steps)[alive], values[alive], looks[arm]
        if not len(steps):
            continue
        if values.shape[1] > 1:
            low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
            axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, lw=0)
        dot = look.marker if len(steps) == 1 else ''
        mean = np.nanmean(values, axis=1)
        axes.plot(steps, mean, color=look.colour, ls=look.line, lw=1.6, marker=dot)
    for phase, step in (marks or {}).items():
        axes.axvline(step, color=FAINT, lw=0.8, ls=':')
        place = {'xycoords': ('data', 'axes fraction'), 'xytext': (3, -3)}
        axes.annotate(
            _plain(phase), (step, 1), **place, textcoords='offset points', va='top', fontsize=7.5,
            color=FAINT,
        )
    axes.set_xlabel('step')
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if limits:
        axes.set_ylim(*(scale * limit for limit in limits))
    axes.set_title(_plain(title), fontsize=9.5, color=INK, loc='left')
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str], colour: str = ARM_COLOURS[0]) -> Figure:
    """Draws a confusion matrix; every row is shown as shares of its true class.

    Args:
        counts: [C, C], rows are true classes, columns predicted ones.
        classes: C names.
        colour: one of `VARIABLES`; its opacity is the share, which works on any background.
    """
    counts = np.asarray(counts, float)
    size, totals = len(counts), counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    cell = 0.56 if size <= 6 else 0.42 if size <= 12 else 0.27
    figure, axes = _canvas(max(2.6, 1.3 + cell * size), max(2.2, 0.9 + cell * size))
    for i, j in np.ndindex(size, size):
        share = shares[i, j]
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=float(share), lw=0))
        if share >= 0.005 and size <= 20:
            ink = PAPER if share > 0.55 else INK
            text = f'{100 * share:.0f}'
            place = {'ha': 'center', 'va': 'center', 'fontsize': 8 if size <= 12 else 6.5}
            axes.text(j + 0.5, i + 0.5, text, color=ink, **place)
    names = [_plain(_short(str(name), 14)) for name in classes]
    upright = max(map(len, names), default=0) <= 3
    axes.set_xticks(np.arange(size) + 0.5, names, rotation=0 if upright else 60)
    if not upright:
        for label in axes.get_xticklabels():
            label.set(ha='right', rotation_mode='anchor')
    axes.set_yticks(np.arange(size) + 0.5, names)
    axes.set(xlim=(0, size), ylim=(size, 0), aspect='equal', xlabel='predicted', ylabel='true')
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set(visible=True, color=LINE)
    return figure


def to_svg(figure: Figure, alt: str, key: str) -> str:
    """Renders a figure as an inline SVG element that follows the page's fonts and colours.

    Args:
        figure: any Figure of this module.
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


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
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


def _x_axis(axes: Axes, rows: Sequence[Row], axis: str):
    """Sets the horizontal axis up and returns the function from (value, dodge) to position."""
    values = list({wording.freeze(row[axis]): row[axis] for row in rows if axis in row}.values())
    numeric = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    values = sorted(values) if numeric else values
    log = numeric and min(values, default=0) > 0 and max(values) > 10 * min(values)
    if not numeric:
        keys = [wording.freeze(value) for value in values]
        place = lambda value, dodge=0.0: keys.index(wording.freeze(value)) + 0.5 * dodge
    elif log:
        step = min(np.diff(np.log(values))) if len(values) > 1 else 1
        place = lambda value, dodge=0.0: value * math.exp(0.5 * dodge * step)
    else:
        step = min(np.diff(values)) if len(values) > 1 else 1
        place = lambda value, dodge=0.0: value + 0.5 * dodge * step
    axes.set_xscale('log' if log else 'linear')
    spots = [math.log(v) if log else place(v) for v in values]
    kept = _apart(spots, len(values) if not numeric else 12)
    names = [_plain(_short(f'{values[i]:g}' if numeric else str(values[i]), 12)) for i in kept]
    axes.set_xticks([place(values[i]) for i in kept], names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(_plain(wording.axis_label(axis)))
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


def _y_axis(axes: Axes, metric: str, kind: str = '') -> float:
    per_cent = wording.in_per_cent(metric)
    name = _plain(metric.replace('_', ' '))
    unit = (' (points)' if kind else ' (%)') if per_cent else ''
    axes.set_ylabel(f'{name} {kind}'.strip() + unit)
    return 100.0 if per_cent else 1.0


def _intervals(rows, looks, metric, mean, half, lower_is_better) -> Figure:
    rows = [row for row in rows if row.get(mean) is not None]
    figure, axes = _canvas(_WIDTH, max(1.5, 0.8 + 0.34 * len(rows)))
    several = len(wording.by_setting(rows)) > 1
    scale = _y_axis(axes, metric, 'difference' if lower_is_better is not None else '')
    names = []
    for y, row in enumerate(rows):
        width = scale * (row[half] or 0)
        _interval(axes, scale * row[mean], y, width, looks[row['arm']], row, flat=True)
        setting = wording.setting_label(wording.setting_of(row)) if several else ''
        names.append(_plain(_short(', '.join(filter(None, [row_name(row), setting])), 34)))
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xlabel=axes.get_ylabel(), ylabel='')
    if lower_is_better is not None:
        _tint(axes, 'x', lower_is_better)
    return figure


def row_name(row: Row) -> str:
    """The arm of a row, in words."""
    return wording.arm_label(row['arm'])


def _interval(axes: Axes, x, y, half, look: Style, row: Row, *, flat: bool = False) -> None:
    filled = row['verdict'] in ('helps', 'hurts', None)
    error = {'xerr' if flat else 'yerr': half or None}
    axes.errorbar(
        x, y, **error, fmt=look.marker, ms=6, color=look.colour, elinewidth=1.6, capsize=3,
        markerfacecolor=look.colour if filled else PAPER, markeredgewidth=1.4,
    )


def _tint(axes: Axes, direction: str, lower_is_better: bool) -> None:
    vertical = direction == 'y'
    low, high = axes.get_ylim() if vertical else axes.get_xlim()
    low, high = min(low, -0.06 * (high - low)), max(high, 0.06 * (high - low))
    span, line = (axes.axhspan, axes.axhline) if vertical else (axes.axvspan, axes.axvline)
    worse = (0, high) if lower_is_better else (low, 0)
    span(*worse, color=BAD, alpha=0.08, lw=0, zorder=0)
    line(0, color=FAINT, lw=1.1)
    (axes.set_ylim if vertical else axes.set_xlim)(low, high)
    # At the end of the tinted side where bars are rarest: few labels, or the last arm.
    below = not lower_is_better
    spot, frame = worse[0] if below else worse[1], ('axes fraction', 'data')
    shift, align = (5, 3 if below else -3), ('left', 'bottom' if below else 'top')
    if not vertical:
        shift, align = (4 if below else -4, 3), ('left' if below else 'right', 'bottom')
    axes.annotate(
        'hurts', (0, spot) if vertical else (spot, 0), xycoords=frame if vertical else frame[::-1],
        xytext=shift, textcoords='offset points', ha=align[0], va=align[1], color=BAD, fontsize=8,
    )


def _short(text: str, length: int = _LONGEST) -> str:
    return textwrap.shorten(text, length, placeholder='…') if len(text) <= length else (
        text[: length - 1].rstrip() + '…')


def _plain(text: str) -> str:
    # Names are not mathematics: '$' would start it.
    return ' '.join(str(text).split()).replace('$', r'\$')


def _thousands(value: float, _: int) -> str:
    return f'{value / 1000:g}k' if abs(value) >= 10_000 else f'{value:g}'
