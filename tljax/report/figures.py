"""The report's figures: each function returns a matplotlib Figure.

No function touches pyplot, so nothing here depends on or changes a global state or a display.
`looks` is what `canvas.styles` returns; `rows` are those of `verdict.compare` or `summarise`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tljax import wording
from tljax.report import canvas
from tljax.report.canvas import BAD, FAINT, INK, LINE, PAPER, Style
from tljax.wording import Row

# Inches; at 96 dpi this fills a phone's screen with the text at about its full size.
_SIZE = (4.2, 3.2)
_PANEL = (3.4, 2.4)
_SQUARE = (3.4, 3.2)
_SIGNIFICANT = ('helps', 'hurts')


def scores(
    rows: Sequence[Row],
    axis: str,
    looks: Mapping[str, Style],
    metric: str = 'accuracy',
    *,
    legend: bool = True,
) -> Figure:
    """Draws mean scores against a member axis with 95 % bands, one line per arm.

    An arm that does not have the axis (zero-shot among few-shot arms) is a level line.
    """
    figure, axes = canvas.blank(*_SIZE)
    place = canvas.x_axis(axes, rows, axis)
    scale = canvas.y_axis(axes, metric)
    for arm, look in looks.items():
        own = [row for row in rows if row['arm'] == arm and row['mean'] is not None]
        points = [row for row in own if axis in row]
        x = [place(row[axis]) for row in points]
        mean, half = _scaled(points, scale)
        if np.any(half > 0):
            axes.fill_between(x, mean - half, mean + half, color=look.colour, alpha=0.17, lw=0)
        line = {'color': look.colour, 'ls': look.line, 'lw': 1.8}
        hollow = {'markerfacecolor': PAPER} if look.colour == canvas.BASELINE else {}
        label = canvas.plain(wording.arm_label(arm))
        axes.plot(x, mean, **line, marker=look.marker, ms=5, label=label, **hollow)
        level = [row for row in own if axis not in row]
        for middle, reach in zip(*_scaled(level, scale), strict=True):
            axes.axhline(middle, **line)
            axes.axhspan(middle - reach, middle + reach, color=look.colour, alpha=0.17, lw=0)
    if wording.in_per_cent(metric):
        low, high = axes.get_ylim()  # bands of few seeds reach beyond what an accuracy can be
        axes.set_ylim(max(low, -2), min(high, 102))
    if legend:
        axes.legend(frameon=False, fontsize=8.5, loc='best')
    return figure


def gains(
    rows: Sequence[Row],
    axis: str | None,
    looks: Mapping[str, Style],
    metric: str = 'accuracy',
    *,
    lower_is_better: bool = False,
) -> Figure:
    """Draws the paired differences to the baseline with 95 % intervals.

    Filled markers are significant. The side of the zero line where transfer hurts is tinted.
    """
    rows = [row for row in rows if row.get('delta_mean') is not None]
    if not any(axis in row for row in rows):
        figure, axes = _intervals(rows, looks, metric, 'difference')
        _tint(axes, lower_is_better, flat=True)
        return figure
    figure, axes = canvas.blank(*_SIZE)
    place = canvas.x_axis(axes, rows, axis)
    scale = canvas.y_axis(axes, metric, 'difference')
    arms = [arm for arm in looks if any(row['arm'] == arm for row in rows)]
    for i, arm in enumerate(arms):
        for row in (row for row in rows if row['arm'] == arm and axis in row):
            # Side by side, so that intervals at one setting do not hide each other.
            x = place(row[axis], (i - (len(arms) - 1) / 2) / max(len(arms), 3))
            y, half = scale * row['delta_mean'], scale * (row['delta_ci95'] or 0)
            _interval(axes, (x, y), half, looks[arm], filled=row['verdict'] in _SIGNIFICANT)
    _tint(axes, lower_is_better)
    return figure


def dots(rows: Sequence[Row], looks: Mapping[str, Style], metric: str = 'accuracy') -> Figure:
    """Draws one dot and 95 % interval per row, for comparisons without a numeric axis."""
    figure, axes = _intervals(rows, looks, metric)
    if wording.in_per_cent(metric) and axes.get_xlim()[1] > 102:
        axes.set_xlim(right=102)
    return figure


def curves(
    series: Mapping[str, tuple[Sequence[float], np.ndarray]],
    looks: Mapping[str, Style],
    metric: str = 'accuracy',
    *,
    title: str = '',
    limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    over: str = 'step',
) -> Figure:
    """Draws curves over steps, or over strengths: the mean and the range over members.

    Args:
        series: arm -> (steps [T], values [T, M]); values that are not finite are left out.
        looks: arm -> style.
        metric: names the vertical axis.
        title: above the panel.
        limits: of the vertical axis, to share between panels.
        marks: phase -> its first step, drawn as thin lines.
        over: names the horizontal axis; any other than 'step' is logarithmic.
    """
    figure, axes = canvas.blank(*_PANEL)
    scale = canvas.y_axis(axes, metric)
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
        above = axes.get_xaxis_transform()
        text = {'va': 'top', 'fontsize': 7.5, 'color': FAINT}
        axes.text(step, 0.98, f' {canvas.plain(phase)}', transform=above, **text)
    axes.set_xlabel(over)
    if over == 'step':
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(canvas.thousands))
    else:
        axes.set_xscale('log')
    if limits:
        axes.set_ylim(*(scale * limit for limit in limits))
    axes.set_title(canvas.plain(title), fontsize=9.5, color=INK, loc='left')
    return figure


def confusion(
    counts: np.ndarray, classes: Sequence[str], colour: str = canvas.ARM_COLOURS[0]
) -> Figure:
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
    figure, axes = canvas.blank(max(2.6, 1.3 + cell * size), max(2.2, 0.9 + cell * size))
    for i, j in np.ndindex(size, size):
        share = shares[i, j]
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=float(share), lw=0))
        if share >= 0.005 and size <= 20:
            ink = PAPER if share > 0.55 else INK
            text = f'{100 * share:.0f}'
            place = {'ha': 'center', 'va': 'center', 'fontsize': 8 if size <= 12 else 6.5}
            axes.text(j + 0.5, i + 0.5, text, color=ink, **place)
    names = [canvas.plain(canvas.short(str(name), 14)) for name in classes]
    tilt = {'rotation': 60, 'ha': 'right', 'rotation_mode': 'anchor'}
    upright = max(map(len, names), default=0) <= 3
    axes.set_xticks(np.arange(size) + 0.5, names, **({} if upright else tilt))
    axes.set_yticks(np.arange(size) + 0.5, names)
    axes.set(xlim=(0, size), ylim=(size, 0), aspect='equal', xlabel='predicted', ylabel='true')
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set(visible=True, color=LINE)
    return figure


def affinity(matrix: np.ndarray, tasks: Sequence[str], title: str = '') -> Figure:
    """Draws how tasks bear on each other, with the sign in colour and the number in each cell.

    Args:
        matrix: [T, T], rows are the task that is stepped for, columns the one that it bears on.
        tasks: T names.
        title: above.
    """
    size, most = len(matrix), np.nanmax(np.abs(matrix)) or 1.0
    figure, axes = canvas.blank(max(2.6, 1.3 + 0.56 * size), max(2.2, 0.9 + 0.56 * size))
    for i, j in np.ndindex(size, size):
        value = float(matrix[i, j])
        colour = canvas.ARM_COLOURS[0 if value >= 0 else 1]
        alpha = 0.7 * abs(value) / most
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=alpha, lw=0))
        text = f'{value:.{2 if most >= 0.5 else 3}f}' if most >= 0.02 else f'{value:.0e}'
        axes.text(j + 0.5, i + 0.5, text, color=INK, ha='center', va='center', fontsize=8)
    names = [canvas.plain(canvas.short(str(name), 14)) for name in tasks]
    tilt = {'rotation': 60, 'ha': 'right', 'rotation_mode': 'anchor'}
    axes.set_xticks(np.arange(size) + 0.5, names, **tilt)
    axes.set_yticks(np.arange(size) + 0.5, names)
    axes.set(xlim=(0, size), ylim=(size, 0), aspect='equal')
    axes.set_title(canvas.plain(title), fontsize=9.5, color=INK, loc='left')
    axes.grid(False)
    axes.tick_params(length=0)
    return figure


def features(
    place: np.ndarray,
    label: np.ndarray,
    target: np.ndarray,
    classes: Sequence[str],
    title: str = '',
) -> Figure:
    """Draws where features lie in the plane: colours are classes, shapes are domains.

    Args:
        place: [P, 2].
        label: [P] int, -1 where it is not known, which is grey; the name of each class stands amid
            its source examples.
        target: [P] bool; target examples are open triangles, source ones dots.
        classes: names.
        title: above the panel.
    """
    figure, axes = canvas.blank(*_SQUARE)
    axes.grid(False)
    axes.set(xticks=(), yticks=())
    for i in np.unique(label):
        colour = canvas.CLASS_COLOURS[i % len(canvas.CLASS_COLOURS)] if i >= 0 else canvas.FAINT
        source, other = (place[(label == i) & (target == flag)] for flag in (False, True))
        axes.scatter(*source.T, s=10, color=colour, alpha=0.5, lw=0)
        axes.scatter(*other.T, s=14, marker='^', facecolors='none', edgecolors=colour, lw=0.8)
        if len(source):
            # The place with the least sum of distances to the others lies inside a cluster.
            middle = source[np.linalg.norm(source[:, None] - source, axis=-1).sum(1).argmin()]
            name = canvas.plain(canvas.short(str(classes[i]), 12))
            axes.annotate(name, middle, color=INK, fontsize=9, weight='bold', ha='center')
    axes.set_title(canvas.plain(title), fontsize=9.5, color=INK, loc='left')
    return figure


def _scaled(rows: Sequence[Row], scale: float) -> tuple[np.ndarray, np.ndarray]:
    mean = np.array([row['mean'] for row in rows], float)
    return scale * mean, scale * np.array([row['ci95'] or 0 for row in rows], float)


def _intervals(
    rows: Sequence[Row], looks: Mapping[str, Style], metric: str, kind: str = ''
) -> tuple[Figure, Axes]:
    """One row under the other: the means, or with `kind` the differences to the baseline."""
    mean, half = ('delta_mean', 'delta_ci95') if kind else ('mean', 'ci95')
    rows = [row for row in rows if row.get(mean) is not None]
    figure, axes = canvas.blank(_SIZE[0], max(1.5, 0.8 + 0.34 * len(rows)))
    scale = canvas.y_axis(axes, metric, kind)
    several = len(wording.by_setting(rows)) > 1
    names = []
    for y, row in enumerate(rows):
        look, reach = looks[row['arm']], scale * (row[half] or 0)
        filled = row['verdict'] in _SIGNIFICANT if kind else look.colour != canvas.BASELINE
        _interval(axes, (scale * row[mean], y), reach, look, filled=filled, flat=True)
        setting = wording.setting_label(wording.setting_of(row)) if several else ''
        name = ', '.join(filter(None, [wording.arm_label(row['arm']), setting]))
        names.append(canvas.plain(canvas.short(name, 30)))
    axes.set_yticks(range(len(rows)), names)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=axes.get_ylabel(), ylabel='')
    return figure, axes


def _interval(
    axes: Axes, at: tuple[float, float], half: float, look: Style, *, filled: bool, flat=False
) -> None:
    face = look.colour if filled else PAPER
    marker = {'fmt': look.marker, 'ms': 6, 'markerfacecolor': face, 'markeredgewidth': 1.4}
    error = {'xerr' if flat else 'yerr': half or None, 'elinewidth': 1.6, 'capsize': 3}
    axes.errorbar(*at, color=look.colour, **marker, **error)


def _tint(axes: Axes, lower_is_better: bool, *, flat: bool = False) -> None:
    """Tints the side of zero where transfer hurts; a part of it is always in sight."""
    low, high = axes.get_xlim() if flat else axes.get_ylim()
    room = 0.12 * (high - low)
    low, high = min(low, -room), max(high, room)
    worse = (0, high) if lower_is_better else (low, 0)
    (axes.axvspan if flat else axes.axhspan)(*worse, color=BAD, alpha=0.08, lw=0, zorder=0)
    (axes.axvline if flat else axes.axhline)(0, color=FAINT, lw=1.1)
    (axes.set_xlim if flat else axes.set_ylim)(low, high)
    # Outside, beside the tinted part: inside it would lie on some interval.
    middle = sum(worse) / 2
    spot, frame, shift = (1, middle), ('axes fraction', 'data'), (3, 0)
    align = {'ha': 'left', 'va': 'center', 'rotation': 90}
    if flat:
        spot, frame, shift = spot[::-1], frame[::-1], shift[::-1]
        align = {'ha': 'center', 'va': 'bottom'}
    text = {'textcoords': 'offset points', 'color': BAD, 'fontsize': 8.5}
    axes.annotate('hurts', spot, xycoords=frame, xytext=shift, **align, **text)
