"""The report: what it shows, that it stands alone, and that odd directories do not break it."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tljax import report, selection, verdict
from tljax.report import canvas, figures, page, records
from tljax.report.headline import headline

VOID = {'meta', 'img', 'br', 'hr', 'input', 'link'}
LABELS = (1, 5, 50)
GAINS = {'scratch': (0, 0, 0), 'frozen': (0.2, 0, -0.1), 'fine_tuned': (0.25, 0.1, 0.03)}


class Page(HTMLParser):
    """Collects texts and links and checks that elements nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.links, self.tags = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f'left open: {self.open}'

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ('src', 'href', 'xlink:href')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ('src', 'href', 'xlink:href')]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f'</{tag}> closes {self.open[-1:]}'
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.texts.append(data)

    @property
    def text(self):
        return ' '.join(' '.join(self.texts).split())


def run(path, name='frozen', members=None, values=None, classes=('5', '6', '7'), **changes):
    """Writes a run directory as the trainer does and returns its results."""
    path.mkdir(parents=True, exist_ok=True)
    members = members or [{'seed': s, 'labels_per_class': k} for k in LABELS for s in range(3)]
    if values is None:
        gain = dict(zip(LABELS, GAINS.get(name, (0, 0, 0)), strict=True))
        values = [
            0.6 + 0.01 * math.sin(i) + 0.003 * math.cos(7 * i + len(name))
            + gain.get(m.get('labels_per_class'), 0)
            for i, m in enumerate(members)
        ]  # fmt: skip
    size = len(classes)
    table = (np.eye(size, dtype=int) * 20 + 1).tolist()
    results = {
        **{'name': name, 'description': f'about {name}', 'method': 'supervised'},
        **{'protocol': '450 held-out images', 'command': f'python launch/train.py --name={name}'},
        **{'members': members, 'classes': list(classes), 'selection': 'last'},
        'step': [300] * len(members),
        'scores': {
            'test': {
                **{'accuracy': values, 'per_class_accuracy': values},
                **{'confusion': [table] * len(members), 'count': 450},
            }
        },
        'parameters': [
            {'path': 'encoder/conv1/kernel', 'shape': [3, 3, 1, 16], 'trained_by': '', 'rate': 0.0},
            {'path': 'head/kernel', 'shape': [64, 3], 'trained_by': 'model', 'rate': 0.01},
        ],
        'seconds': {'setup': 1.2, 'train': 30.1, 'total': 40.0},
        'environment': {'jax': '0.10.2', 'device': 'cpu', 'devices': 1, 'python': '3.11'},
    } | changes
    (path / 'results.json').write_text(json.dumps(results))
    (path / 'config.json').write_text(json.dumps({'optimizer': {'rate': 0.01}}))
    lines = [
        {
            **{'step': step, 'phase': 'train', 'seconds': step / 100},
            'train': {'model/loss': [1 / (1 + step)] * len(members)},
            'test': {'accuracy': [None if v is None else v * step / 300 for v in values]},
        }
        for step in (0, 100, 200, 300)
    ]
    (path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return results


def study(path, **changes):
    arms = {name: run(path / name, name) for name in GAINS}
    run(path / 'pretrain', 'pretrain', members=[{'seed': 0}])
    rows = verdict.compare(arms, 'scratch')
    results = {
        **{'name': 'digits', 'title': 'Digits 0-4 to 5-9', 'description': 'A question.'},
        **{'command': 'python launch/quickstart.py', 'baseline': 'scratch', 'arms': list(arms)},
        **{'supporting': ['pretrain'], 'stream': 'test', 'metric': 'accuracy'},
        'comparison': rows,
    } | changes
    (path / 'results.json').write_text(json.dumps(results))
    return rows


def read(path):
    target = report.write(path)
    assert target == path / 'report.html'
    assert not [file for file in path.iterdir() if file.name.endswith('.tmp')]
    return target.read_text()


@pytest.fixture(scope='module')
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp('study')
    study(path)
    return read(path)


def test_a_study_shows_its_numbers(html, tmp_path):
    rows, text = study(tmp_path), Page(html).text
    from tljax.wording import plus_minus

    for row in rows:
        assert plus_minus(row['mean'], row['ci95']) in text
        if row['verdict'] != 'baseline':
            assert plus_minus(row['delta_mean'], row['delta_ci95'], signed=True) in text
    for part in ('Digits 0-4 to 5-9', 'python launch/quickstart.py', '450 held-out images'):
        assert part in text
    for part in ('encoder/conv1/kernel', '3×3×1×16', 'frozen', '192 of 336', 'jax 0.10.2'):
        assert part in text


def test_a_study_without_a_baseline_compares_nothing(tmp_path):
    study(tmp_path)
    arms = {name: json.loads((tmp_path / name / 'results.json').read_text()) for name in GAINS}
    study(tmp_path, baseline='', comparison=verdict.compare(arms, ''))
    text = Page(read(tmp_path)).text
    assert f'{len(GAINS)} arms, each a test of its own: ' in text
    assert 'compared with' not in text and 'erdict' not in text and 'helps' not in text


def test_negative_transfer_is_plain_to_see(html):
    text = Page(html).text
    assert 'Fine tuned helps at every label count' in text
    assert 'Negative transfer' in text and 'Frozen is worse than scratch' in text


def test_the_page_stands_alone(html):
    for link in Page(html).links:
        assert link.startswith(('#', 'data:')), link
    assert 'http' not in html and '@import' not in html
    assert not re.search(r'url\((?!#)', html)


def test_ids_are_unique_and_references_resolve(html):
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_every_figure_has_an_alternative_text_and_follows_the_scheme(html):
    assert len(re.findall(r'<svg', html)) == len(
        re.findall(r'<svg role="img" aria-label="\w', html)
    )
    for part in ('prefers-color-scheme: dark', 'name="viewport"', 'var(--arm0)', 'var(--baseline)'):
        assert part in html


def test_a_single_run(tmp_path):
    run(tmp_path)
    text = Page(read(tmp_path)).text
    assert 'Frozen: ' in text and 'test accuracy at 50 labels per class (3 seeds)' in text
    assert 'helps' not in text


@pytest.mark.parametrize('gone', ['metrics.jsonl', 'config.json'])
def test_optional_files_may_be_missing(tmp_path, gone):
    run(tmp_path)
    (tmp_path / gone).unlink()
    assert f'{gone} is missing' in Page(read(tmp_path)).text


def test_a_torn_line_of_metrics_is_left_out_and_told(tmp_path):
    run(tmp_path)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 400, "te')
    assert 'line 5 left out' in Page(read(tmp_path)).text


def test_hostile_names_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    names = (evil, '$x$', '日本 & "quotes"')
    run(tmp_path, evil, classes=names, description=evil, command=evil, protocol=evil)
    (tmp_path / 'figures').mkdir()
    Figure(figsize=(1, 1)).savefig(tmp_path / 'figures' / 'a.png')
    (tmp_path / 'figures' / 'a.txt').write_text(evil)
    html = read(tmp_path)
    assert 'script' not in Page(html).tags
    assert '<script' not in html and evil in Page(html).text


def test_failed_members_are_shown(tmp_path):
    members = [{'seed': s} for s in range(3)]
    run(tmp_path, members=members, values=[0.5, None, 0.7])
    html = read(tmp_path)
    text = Page(html).text
    assert 'NaN' in text and '1 of 3 members have no finite accuracy' in text
    run(tmp_path, members=members, values=[float('nan')] * 3)
    assert 'no setting has a finite test accuracy' in Page(read(tmp_path)).text


@pytest.mark.parametrize('count', [1, 30, 31, 1000])
def test_any_number_of_classes(tmp_path, count):
    run(tmp_path, members=[{'seed': 0}], values=[0.9], classes=[f'class {i}' for i in range(count)])
    html = read(tmp_path)
    assert ('Confusion matrix' in html) == (count <= 30)
    if count > 1:
        assert 'taken for' in Page(html).text


def test_a_run_that_was_not_evaluated(tmp_path):
    run(tmp_path, 'pretrain', scores={})
    assert 'Pretrain was trained; nothing was evaluated.' in Page(read(tmp_path)).text


def test_pictures_of_methods_are_included(tmp_path):
    study(tmp_path)
    (tmp_path / 'frozen' / 'figures').mkdir()
    Figure(figsize=(1, 1)).savefig(tmp_path / 'frozen' / 'figures' / 'tsne.png')
    (tmp_path / 'frozen' / 'figures' / 'tsne.txt').write_text('Features of 450 images.')
    html = read(tmp_path)
    assert 'data:image/png;base64,' in html
    assert 'frozen: Features of 450 images.' in Page(html).text


def test_missing_and_broken_results_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'results\.json does not exist'):
        report.write(tmp_path)
    (tmp_path / 'results.json').write_text('{"name": ')
    with pytest.raises(ValueError, match=r'results\.json is not valid JSON'):
        report.write(tmp_path)
    (tmp_path / 'results.json').write_text('{"name": "x"}')
    with pytest.raises(ValueError, match=r'results\.json.*no finished run'):
        report.write(tmp_path)
    study(tmp_path, baseline='scrach')
    with pytest.raises(ValueError, match=r"baseline 'scrach' is none of the arms"):
        report.write(tmp_path)
    (tmp_path / 'frozen' / 'results.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'frozen/results\.json'):
        report.write(tmp_path)


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    run(tmp_path)
    before = read(tmp_path)
    full = lambda *_: (_ for _ in ()).throw(OSError('full'))
    monkeypatch.setattr(Path, 'replace', full)
    with pytest.raises(OSError, match='full'):
        report.write(tmp_path)
    assert (tmp_path / 'report.html').read_text() == before
    assert not [file for file in tmp_path.iterdir() if file.name.endswith('.tmp')]


def test_comparison_is_made_if_the_study_has_none(tmp_path):
    rows = study(tmp_path, comparison=None)
    assert page.ask(records.load(tmp_path)).rows == rows


def test_a_longer_arm_axis_shows_the_baseline_in_each_line(tmp_path):
    grid = [{'seed': s, 'rate': r} for r in (0.1, 0.01) for s in range(3)]
    base = run(tmp_path / 'scratch', 'scratch', members=[{'seed': s} for s in range(3)])
    arm = run(tmp_path / 'tuned', 'tuned', members=grid)
    rows = verdict.compare({'scratch': base, 'tuned': arm}, 'scratch')
    results = {'name': 'x', 'baseline': 'scratch', 'arms': ['scratch', 'tuned'], 'comparison': rows}
    (tmp_path / 'results.json').write_text(json.dumps(results))
    lines = page.build(records.load(tmp_path))['table']['lines']
    assert [line['setting'] for line in lines] == [['0.01'], ['0.1']]
    assert all(None not in line['cells'] for line in lines)


def rows_of(gains, spread=0.001, seeds=3):
    """Rows of one arm against a baseline, one setting per gain."""
    members = [
        {'seed': s, 'labels_per_class': k + 1} for k in range(len(gains)) for s in range(seeds)
    ]
    base = [0.5 + 0.01 * m['seed'] for m in members]
    own = [
        b + gains[m['labels_per_class'] - 1] + spread * (m['seed'] - 1)
        for b, m in zip(base, members, strict=True)
    ]
    make = lambda values: {'members': members, 'scores': {'test': {'accuracy': values}}}
    return verdict.compare({'scratch': make(base), 'frozen': make(own)}, 'scratch')


@pytest.mark.parametrize(
    'gains, title',
    [
        (
            (0.2, 0.1),
            'Frozen helps at every label count: +20.0 points over scratch at 1 label per class, '
            '+10.0 points at 2.',
        ),
        (
            (0.2, 0.0, -0.1),
            'Frozen helps at 1 label per class (+20.0 points over scratch at 1), does not differ '
            'significantly at 2 and hurts at 3 (−10.0 points at 3).',
        ),
        ((0.0, 0.0), 'Frozen does not differ significantly from scratch at any label count.'),
        (
            (-0.2, -0.1),
            'Frozen hurts at every label count: −20.0 points against scratch at 1 label per class, '
            '−10.0 points at 2.',
        ),
        ((0.2,), 'Frozen helps at 1 label per class: +20.0 ± 0.2 points over scratch.'),
    ],
)
def test_headlines_say_what_the_verdicts_say(gains, title):
    found = headline(rows_of(gains))
    assert found.title == title and not found.others
    assert bool(found.warnings) == any(gain < 0 for gain in gains)


def test_headline_of_single_seeds_claims_nothing():
    found = headline(rows_of((0.3, 0.2), seeds=1))
    assert found.title.startswith('Nothing can be said yet about the difference to scratch')
    assert not found.warnings


def test_figures():
    rows = rows_of((0.2, 0.0, -0.1))
    looks = canvas.styles(['scratch', 'frozen'], 'scratch')
    assert looks['scratch'].colour == canvas.BASELINE != looks['frozen'].colour
    figure = figures.scores(rows, 'labels_per_class', looks)
    lines = figure.axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 3]] * 2
    means = [100 * row['mean'] for row in rows if row['arm'] == 'frozen']
    assert lines[1].get_ydata() == pytest.approx(means)
    gains = figures.gains(rows[1::2], 'labels_per_class', looks)
    assert len(gains.axes[0].containers) == 3
    assert gains.axes[0].get_ylim()[0] < -10 < 20 < gains.axes[0].get_ylim()[1]
    assert len(figures.dots(rows, looks).axes[0].get_yticks()) == 6
    assert all(isinstance(f, Figure) for f in (figure, gains))


@pytest.mark.parametrize(
    'values, scale', [((1, 10), 'linear'), ((1, 50), 'log'), ((0, 9), 'linear')]
)
def test_an_axis_of_more_than_a_decade_is_logarithmic(values, scale):
    rows = [{'arm': 'a', 'k': value, 'mean': 0.5, 'ci95': 0.1, 'verdict': None} for value in values]
    axes = figures.scores(rows, 'k', canvas.styles(['a'])).axes[0]
    assert axes.get_xscale() == scale


def test_curves_survive_failed_members():
    values = np.array([[0.1, 0.2], [0.3, np.nan], [np.nan, np.nan]])
    figure = figures.curves({'a': ([0, 10, 20], values)}, canvas.styles(['a']))
    line = figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [0, 10] and line.get_ydata() == pytest.approx([15, 30])


def test_confusion_shows_shares_of_the_true_class():
    figure = figures.confusion(np.array([[8, 2], [0, 0]]), ['a', 'b'])
    assert [text.get_text() for text in figure.axes[0].texts] == ['80', '20']
    svg = canvas.to_svg(figure, 'say "a < b"', 'key')
    assert 'aria-label="say &quot;a &lt; b&quot;"' in svg and 'http' not in svg


def test_more_arms_than_colours_stay_apart():
    looks = canvas.styles([f'arm{i}' for i in range(14)] + ['base'], 'base')
    assert len({(look.colour, look.marker, str(look.line)) for look in looks.values()}) == 15


def adapted(path, **changes):
    """A study with a ceiling, and what every selection of its arms chose."""
    members, arms = [{'seed': s} for s in range(3)], {}
    for name, gain in (('source_only', 0.0), ('dann', 0.1), ('oracle', 0.3)):
        values = {
            selected: [0.6 + 0.01 * s + gain * share + 0.001 * (s == 1) for s in range(3)]
            for selected, share in (('last', 0.9), ('entropy', 1.0), ('oracle', 1.1))
        }
        table = {
            selected: {'step': [100, 200, 200], 'accuracy': accuracy}
            for selected, accuracy in values.items()
        }
        warnings = ['the discriminator was at chance'] if name == 'dann' else []
        arms[name] = run(
            path / name, name, members, values['entropy'],
            selection='entropy', selections=table, warnings=warnings,
        )  # fmt: skip
    options = {'ceiling': 'oracle'}
    results = {
        **{'name': 'digits', 'title': 'one → other', 'baseline': 'source_only', **options},
        **{'arms': list(arms), 'selection': 'entropy', 'stream': 'test', 'metric': 'accuracy'},
        'comparison': verdict.compare(arms, 'source_only', **options),
        'selections': selection.compare(arms, 'source_only', 'entropy', **options),
    } | changes
    (path / 'results.json').write_text(json.dumps(results))
    return arms


def test_a_ceiling_is_shown_and_wins_nothing(tmp_path):
    adapted(tmp_path)
    found = page.build(records.load(tmp_path))
    assert found['headline'] == 'Dann helps: +10.0 ± 0.0 points over source only.'
    assert [item['text'] for item in found['sentences']] == [
        'Oracle is the ceiling: +20.0 ± 0.0 points over dann.'
    ]
    cells = found['table']['lines'][0]['cells']
    assert [cell['verdict'] for cell in cells] == ['', 'helps', '']
    assert [cell['star'] for cell in cells] == [False, True, False]
    assert [cell['gap'] for cell in cells] == ['30.0 ± 0.0', '20.0 ± 0.0', '']
    text = Page(read(tmp_path)).text
    assert 'oracle (ceiling)' in text
    assert 'gap to oracle: 20.0 ± 0.0' in text


def test_selections_stand_side_by_side(tmp_path):
    adapted(tmp_path)
    found = page.build(records.load(tmp_path))['selections']
    assert found['names'] == ['last step', 'entropy ✓', 'oracle (looks at test labels)']
    assert [line['label'] for line in found['lines']] == ['source only', 'dann', 'oracle']
    cells = found['lines'][1]['cells']
    assert [cell['score'].split()[0] for cell in cells] == ['70.0', '71.0', '72.0']
    assert [cell['verdict'] for cell in cells] == ['helps'] * 3
    assert {cell['steps'] for cell in cells} == {'steps 100 to 200'}
    html = read(tmp_path)
    assert 'Which step is kept' in Page(html).text
    assert 'Which step is kept' in Page(read(tmp_path / 'dann')).text


def test_no_selections_where_none_could_be_made_without_labels(tmp_path):
    table = {name: {'step': [1] * 9, 'accuracy': [0.5] * 9} for name in ('last', 'oracle')}
    run(tmp_path, selections=table)
    assert 'Which step is kept' not in read(tmp_path)


def test_collapse_is_told_on_the_page(tmp_path):
    adapted(tmp_path)
    assert 'Dann: the discriminator was at chance' in Page(read(tmp_path)).text
    text = Page(read(tmp_path / 'dann')).text
    assert 'Collapse The discriminator was at chance' in text
    assert 'Collapse' not in Page(read(tmp_path / 'oracle')).text
