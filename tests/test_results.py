"""Tables of kept results, and renewing a text with them."""

import json
import re
import shutil

import pytest

from launch import results, results_cells, results_tables
from tests import runs
from tljax.report import task_panels


def row(arm, mean, count=None, **other):
    change = {'delta_mean': mean - 0.5, 'delta_ci95': 0.02, 'verdict': 'helps'}
    return (
        {'arm': arm, 'labels_per_class': count, 'mean': mean, 'std': 0.01, 'n': 3} | change | other
    )


STUDY = {
    'title': 'Toys',
    'baseline': 'plain',
    'arms': ['plain', 'better', 'top'],
    'minutes': 2.4,
    'command': 'python launch/train.py',
}


def test_a_row_a_label_count():
    rows = [
        row(arm, mean, count)
        for count in (1, 5)
        for arm, mean in zip(STUDY['arms'], (0.5, 0.75, 1), strict=True)
    ]
    table = results_tables.studies({'toys': STUDY | {'comparison': rows}}).splitlines()
    assert table[:2] == ['**Toys**, 2 min:', '`python launch/train.py`']
    assert table[3] == '| labels per class | plain | better | top |'
    assert table[5].startswith('| 1 | 50.0 ± 1.0 | 75.0 ± 1.0<br>+25.0 ± 2.0: helps | 100.0')
    assert table[6].startswith('| 5 | ')


def test_arms_that_are_tests_of_their_own_are_shown_without_verdicts():
    rows = [row(arm, 0.5, delta_mean=None, verdict=None) for arm in STUDY['arms']]
    toys = STUDY | {'baseline': '', 'comparison': rows}
    table = results_tables.studies({'toys': toys}).splitlines()
    assert table[3:6] == ['|  | accuracy | seeds |', '|---|---|---|', '| plain | 50.0 ± 1.0 | 3 |']
    assert 'Toys' not in results_tables.glance({'toys': toys})


def test_affinities_of_tasks_are_kept_and_shown():
    told = {'tasks': {'a': {}, 'b': {}}}
    told['outcome'] = {
        'cosine': [[[1, 0.25], [0.25, 1]], [[1, 0.75], [0.75, 1]]],
        'lookahead': [[[0.03, 0.01], [-0.002, 0.04]]] * 2,
    }
    found = results._affinity(told)
    assert found['cosine'] == {'a': {'a': 1, 'b': 0.5}, 'b': {'a': 0.5, 'b': 1}}
    assert found['lookahead']['b'] == {'a': -0.002, 'b': 0.04}
    rows = [row(arm, 0.5) for arm in STUDY['arms']]
    study = STUDY | {'comparison': rows, 'affinity': {'plain': found}}
    lines = results_tables.studies({'toys': study}).splitlines()
    at = lines.index('| cosine of gradients, plain | a | b |')
    assert lines[at + 2 : at + 4] == ['| a | 1.00 | 0.50 |', '| b | 0.50 | 1.00 |']
    at = lines.index('| inter-task affinity, plain | a | b |')
    assert lines[at + 3] == '| b | -0.0020 | 0.0400 |'


def of_tasks():
    """A study of two tasks, the second a regression, with widths."""
    arms = {'single': (0.875, 0.5), 'plain': (0.75, 0.25), 'width_50': (0.5, 0.75)}
    found = {
        task: {
            'metric': f'{task}_{score}',
            'lower': score == 'rmse',
            'rows': [row(arm, means[i], ci95=0.01, reason=None) for arm, means in arms.items()],
        }
        for i, (task, score) in enumerate((('a', 'accuracy'), ('b', 'rmse')))
    }
    found['a']['rows'][1] |= {'delta_ci95': 0.0, 'reason': 'all differences are equal'}
    changes = {'plain': [0.25, None, 0.125], 'width_50': [-0.5, -0.25, None]}
    sizes = {'single': 4000, 'plain': 2000, 'width_50': 500}
    tasks = {'verdicts': found, 'relative_change': changes, 'parameters': sizes}
    comparison = [row(arm, 0.5) for arm in ('plain', 'width_50')]
    study = {'arms': ['plain', 'width_50'], 'comparison': comparison, 'tasks': tasks}
    return STUDY | study | {'command': 'launch/train.py --config configs/multitask.py:toys'}


def test_tasks_stand_beside_the_runs_that_learn_one(tmp_path, monkeypatch):
    published = {'single': '87.6 / 40.00 (Ada)', 'plain': '75.05 / 25.10 (Ada, a / b)'}
    (tmp_path / 'published.json').write_text(json.dumps({'toys': published}))
    monkeypatch.setattr(results_cells, 'PUBLISHED', tmp_path / 'published.json')
    lines = results_tables.studies({'toys': of_tasks()}).splitlines()
    at = lines.index('|  | a accuracy | b rmse | Δm, % | parameters | published |')
    assert lines[at + 2] == (
        '| single | 87.5 ± 1.0 | 0.500 ± 0.010 |  | 4,000 | 87.6 / 40.00 (Ada)<br>-0.1 / 0 |'
    )
    assert lines[at + 3] == (
        '| plain | 75.0 ± 1.0<br>+25.0 ± 0.0: helps (all differences are equal) | '
        '0.250 ± 0.010<br>-0.250 ± 0.020: helps | +18.75 | 2,000 | '
        '75.05 / 25.10 (Ada, a / b)<br>-0.05 / -0.10 |'
    )
    assert '![Accuracy of each task by setting](configs/results/toys.png)' in lines
    (line,) = results_tables.glance({'toys': of_tasks()}).splitlines()[2:]
    assert line == '| Toys | single | 87.5 / 0.500 | plain | 75.0 / 0.250 | Δm +18.75 % |'


def test_a_figure_of_settings_has_each_task_and_its_run_alone():
    (axes,) = task_panels.by_setting(of_tasks()).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines['a'] == [[50, 50], [100, 75]]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_label()[0] == '_'] == [87.5]
    assert not any('b' in label for label in lines)  # which is no accuracy
    few = of_tasks()
    few['arms'] = ['plain', 'a_1_in_10']
    few['tasks']['verdicts']['a']['rows'][2]['arm'] = 'a_1_in_10'
    (axes,) = task_panels.by_setting(few).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines['a'] == [[10, 50], [100, 75]]
    assert lines['a alone'] == [[10, 50 - 0], [100, 50]]
    assert axes.get_xlabel() == 'labels of a that are kept, %'
    assert task_panels.by_setting(STUDY) is None


def test_at_a_glance_a_study_is_its_best_arm_at_the_fewest_labels():
    rows = [
        row(arm, mean + count / 100, count)
        for count in (1, 5)
        for arm, mean in zip(STUDY['arms'], (0.5, 0.75, 1), strict=True)
    ]
    study = STUDY | {'ceiling': 'top', 'comparison': rows}
    study['command'] += ' --config configs/transfer.py:a,b'
    table = results_tables.glance({'toys': study, 'alone': study | {'arms': ['plain']}})
    cells = '| plain | 51.0 ± 1.0 | better | 76.0 ± 1.0 | +26.0 ± 2.0: helps |'
    assert table.splitlines()[2:] == [f'| Toys, 1 a class {cells}']


def test_a_row_an_arm_with_selections_and_what_was_published(tmp_path, monkeypatch):
    (tmp_path / 'published.json').write_text(json.dumps({'toys': {'better': '76.5 (Ada 1843)'}}))
    monkeypatch.setattr(results_cells, 'PUBLISHED', tmp_path / 'published.json')
    last = [row(arm, mean) for arm, mean in zip(STUDY['arms'], (0.5, 0.75, 0.875), strict=True)]
    oracle = [row(arm, mean) for arm, mean in zip(STUDY['arms'], (0.625, 0.75, 1), strict=True)]
    study = STUDY | {'ceiling': 'top', 'comparison': last, 'selection': 'last'}
    study['selections'] = {'last': last, 'entropy': last, 'oracle': oracle}
    table = results_tables.studies({'toys': study}).splitlines()
    assert (
        table[3] == '|  | last step | entropy | oracle step (target labels) | seeds | published |'
    )
    assert table[5] == '| plain | 50.0 ± 1.0 | 50.0 ± 1.0 | 62.5 ± 1.0 | 3 |  |'
    better = '75.0 ± 1.0<br>+25.0 ± 2.0: helps'
    assert table[6] == (
        f'| better | {better} | {better} | {better} | 3 | 76.5 (Ada 1843)<br>-1.5 |'
    )
    assert table[7] == '| top | 87.5 ± 1.0 | 87.5 ± 1.0 | 100.0 ± 1.0 | 3 |  |'


def test_what_was_published_is_of_the_pair_and_of_the_protocol(tmp_path, monkeypatch):
    (tmp_path / 'published.json').write_text(
        json.dumps(
            {
                'folder:a,folder:b': {'better': '80.0 (Ada)', 'top': '99.0 (Ada, sampled)'},
                'folder:a,folder:b,sampled': {'top': '99.0 (Ada)'},
            }
        )
    )
    monkeypatch.setattr(results_cells, 'PUBLISHED', tmp_path / 'published.json')
    rows = [row(arm, mean) for arm, mean in zip(STUDY['arms'], (0.5, 0.75, 0.875), strict=True)]

    def cells(behind, name='toys'):
        command = f"launch/train.py --config 'configs/adapt.py:x+y,folder:a,folder:b{behind}' -w c"
        study = STUDY | {'comparison': rows, 'command': command}
        lines = results_tables.studies({name: study}).splitlines()
        return [line.split(' | ')[-1].strip(' |') for line in lines if re.match(r'\| [pbt]', line)]

    assert cells('') == cells(',full', 'other') == ['', '80.0 (Ada)<br>-5.0', '99.0 (Ada, sampled)']
    assert cells(',sampled') == ['', '', '99.0 (Ada)<br>-11.5']
    assert cells(',only=1') == ['3', '3', '3']


def test_what_a_study_was_tested_on_and_where_it_ran():
    rows = [row(arm, 0.5) for arm in STUDY['arms']]
    study = STUDY | {'comparison': rows, 'protocol': 'Evaluated on test: toys, all 9 examples.'}
    study['environment'] = {'device': 'cpu', 'devices': 1, 'cores': 2}
    found = results_tables.studies({'toys': study}).splitlines()
    assert found[0] == '**Toys**, 2 min on 2 CPU cores:'
    assert found[3] == study['protocol']
    study['environment'] = {'device': 'H100', 'devices': 4}
    assert '2 min on 4 x H100:' in results_tables.studies({'toys': study})


def test_a_method_has_its_scores_of_all_studies():
    rows = [row('plain', 0.5), row('better', 0.75), row('top', 1.0)]
    one = STUDY | {'comparison': rows, 'ceiling': 'top', 'command': 'train configs/adapt.py:x'}
    few = [row(arm, mean, n) for n in (5, 1) for arm, mean in (('plain', 0.25), ('better', n / 10))]
    few[-1]['verdict'] = 'hurts'
    other = STUDY | {'title': 'Few', 'comparison': few, 'command': 'train configs/adapt.py:y'}
    found = results_tables.methods({'a': one, 'b': other}).splitlines()
    assert found[2:] == ['| better | Few, 1 a class 10.0 ▼<br>Toys 75.0 ▲ |']


def test_studies_stand_by_topic_the_shortest_first():
    study = STUDY | {'comparison': [row(arm, 0.5) for arm in STUDY['arms']]}
    of = lambda config, minutes: (
        study
        | {
            'title': f'{config} {minutes}',
            'minutes': minutes,
            'command': f'python launch/train.py --config configs/{config}.py:x',
        }
    )
    kept = {'a': of('one_shot', 9), 'b': of('adapt', 7), 'c': of('one_shot', 5), 'd': study}
    lines = results_tables.studies(kept).splitlines()
    heads = [line for line in lines if line.startswith(('#', '**'))]
    assert heads == [
        '### Unsupervised adaptation',
        '**adapt 7**, 7 min:',
        '### One-shot recognition',
        '**one_shot 5**, 5 min:',
        '**one_shot 9**, 9 min:',
        '**Toys**, 2 min:',
    ]


def test_every_kept_study_has_a_topic():
    for path in results.KEPT.glob('*.json'):
        kept = json.loads(path.read_text())
        if 'comparison' in kept:
            assert results_tables._topic(kept), (
                f'TOPICS of launch/results_tables.py lack {kept["command"]}'
            )


def test_other_scores_have_columns_of_their_own():
    rows = [row(arm, mean) for arm, mean in zip(STUDY['arms'], (0.5, 0.75, 0.875), strict=True)]
    also = {'pairs accuracy': [row(arm, 0.625) for arm in STUDY['arms']]}
    table = results_tables.studies(
        {'toys': STUDY | {'comparison': rows, 'also': also}}
    ).splitlines()
    assert table[3] == '|  | accuracy | pairs accuracy | seeds |'
    assert table[6] == '| better | 75.0 ± 1.0<br>+25.0 ± 2.0: helps | 62.5 ± 1.0 | 3 |'


def test_one_seed_has_no_spread():
    alone = STUDY | {'arms': ['plain'], 'comparison': [row('plain', 0.5, std=None, n=1)]}
    assert '| plain | 50.0 | 1 |' in results_tables.studies({'toys': alone}).splitlines()
    one = row('better', 0.75, std=None, delta_ci95=None, verdict='unclear')
    study = STUDY | {'arms': ['plain', 'better'], 'comparison': [row('plain', 0.5), one]}
    lines = results_tables.studies({'toys': study}).splitlines()
    assert '| better | 75.0<br>+25.0: unclear | 3 |' in lines


def test_published_numbers_are_text_with_digits():
    for reported in json.loads(results_cells.PUBLISHED.read_text()).values():
        assert all(re.match(r'\d\d\.\d', text) for text in reported.values())


def test_what_collapsed_is_told_under_the_table():
    rows = [row(arm, 0.5) for arm in STUDY['arms']]
    study = STUDY | {'comparison': rows, 'warnings': {'be_t': ['the critic was at chance']}}
    told = results_tables.studies({'toys': study})
    assert told.splitlines()[-2:] == ['', '- be-t: the critic was at chance.']
    run = {'title': 'Photos', 'command': 'do', 'summary': [row('run', 0.98)]}
    told = results_tables.runs([run, run | {'title': 'B', 'warnings': {'': ['it failed']}}])
    assert told.splitlines()[-2:] == ['', '- B: it failed.']


@pytest.mark.parametrize('kind', ['study', 'run'])
def test_warnings_are_kept(kind, tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(results, 'KEPT', tmp_path / 'kept')
    directory = tmp_path / 'copy'
    shutil.copytree(tiny_study, directory, ignore=lambda *_: ['checkpoints'])
    file = directory / 'frozen' / 'results.json'
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {'warnings': ['it collapsed']}))
    kept = results.keep(directory if kind == 'study' else file.parent)
    expected = {'frozen' if kind == 'study' else '': ['it collapsed']}
    assert json.loads(kept.read_text())['warnings'] == expected


def test_what_is_kept_of_a_study(tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(results, 'KEPT', tmp_path)
    kept = json.loads(results.keep(tiny_study).read_text())
    assert kept['comparison'] == runs.results(tiny_study)['comparison']
    files = [json.loads(path.read_text()) for path in tiny_study.glob('*/results.json')]
    seconds = sum(found['seconds']['total'] for found in files)
    assert kept['minutes'] == pytest.approx(seconds / 60, abs=0.051)
    assert (tmp_path / 'study.png').stat().st_size > 1000


def test_a_run_tells_each_stream():
    rows = [row('run', 0.98, stream='test'), row('run', 0.4, stream='sketch')]
    table = results_tables.runs([{'title': 'Photos', 'command': 'do', 'summary': rows}])
    assert table.splitlines()[2] == '| Photos | 98.0 ± 1.0<br>sketch 40.0 ± 1.0 | 3 | `do` |'


def test_only_what_stands_between_the_markers_is_renewed():
    text = 'a\n<!-- runs: python launch/results.py -->\nold\n<!-- end of runs -->\nb'
    found = results.renew(text, 'runs', 'new')
    assert found == text.replace('old', 'new')
    assert results.renew(text, 'speed', 'new') == text


def test_readme_shows_what_is_kept():
    text = (results.ROOT / 'README.md').read_text()
    assert results.renewed(text) == text, 'run python launch/results.py'


def test_memory_is_told_of_the_cases_that_measured_it():
    row = {'case': 'a', 'cores': 1, 'against': 'x', 'ours_ms': 1.0, 'theirs_ms': 2.0, 'ratio': 2.0}
    row |= {'spread': [1.0, 3.0]}
    found = {'machine': {'jax': '1'}, 'rows': [row]}
    assert 'MiB' not in results_tables.speed(found)
    found['rows'].append(row | {'case': 'b', 'memory_mib': {'ours': 97.2, 'theirs': 125.0}})
    assert 'imports, ours / theirs in MiB: b 97 / 125.' in results_tables.speed(found)


def test_ranking_has_the_best_source_first_and_tau_below():
    scores = {'a': {'logme': [1.0, 3.0]}, 'b': {'logme': [0.5]}}
    found = {'scores': scores, 'reached': {'b': 0.5, 'a': 0.75}, 'kendall_tau': {'logme': 1.0}}
    assert results_tables.ranking(found).splitlines() == [
        '| source | logme | fine-tuned |',
        '|---|---|---|',
        '| a | 2.000 | 75.0 |',
        '| b | 0.500 | 50.0 |',
        "| Kendall's tau | +1.00 |  |",
    ]
