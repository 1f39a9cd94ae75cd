"""Verdicts: intervals against hand-computed ones, pairing by axes, and errors that help."""

import json
import math
import random

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from tljax import tables, verdict, wording


def results(members, values, stream='test', metric='accuracy'):
    return {'members': members, 'scores': {stream: {metric: values}}}


def seeds(values, **axes):
    return results([{'seed': seed, **axes} for seed in range(len(values))], values)


def judged(arm, base, **options):
    rows = verdict.compare({'base': seeds(base), 'arm': seeds(arm)}, 'base', **options)
    return next(row for row in rows if row['arm'] == 'arm')


def text_of(table):
    console = Console(width=200, record=True, file=open('/dev/null', 'w'))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_interval_by_hand():
    # t(0.975; 2) = 4.302653, s = 1, n = 3.
    mean, std, half = verdict.interval([1.0, 2.0, 3.0])
    assert (mean, std) == (2.0, 1.0)
    assert half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)


@pytest.mark.parametrize('values, expected', [([], (None,) * 3), ([4.0], (4.0, None, None))])
def test_interval_of_too_few(values, expected):
    assert verdict.interval(values) == expected


def test_paired_difference_is_that_of_the_t_test():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.7, 7)
    arm = base + rng.normal(0.02, 0.01, 7)
    row = judged(list(arm), list(base))
    reference = stats.ttest_rel(arm, base).confidence_interval(0.95)
    assert row['delta_mean'] - row['delta_ci95'] == pytest.approx(reference.low)
    assert row['delta_mean'] + row['delta_ci95'] == pytest.approx(reference.high)
    assert row['delta_std'] == pytest.approx(np.std(arm - base, ddof=1))
    assert row['n'] == row['pairs'] == 7


@pytest.mark.parametrize(
    'arm, base, expected',
    [
        ([0.61, 0.72, 0.80], [0.5, 0.6, 0.7], 'helps'),
        ([0.39, 0.50, 0.58], [0.5, 0.6, 0.7], 'hurts'),
        ([0.49, 0.62, 0.70], [0.5, 0.6, 0.7], 'neutral'),
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], 'neutral'),
        # 0.1 + 0.2 is not 0.3 in floats; that is no effect.
        ([0.1 + 0.2, 0.1 + 0.2], [0.3, 0.3], 'neutral'),
        ([0.75, 0.75], [0.5, 0.5], 'helps'),
    ],
)
def test_verdicts(arm, base, expected):
    assert judged(arm, base)['verdict'] == expected


def test_pairing_finds_what_means_alone_hide():
    base = [0.2, 0.5, 0.8]
    row = judged([value + 0.02 + 0.001 * i for i, value in enumerate(base)], base)
    assert row['ci95'] > 0.5  # the seeds differ widely, the paired differences do not
    assert row['verdict'] == 'helps'


def test_lower_is_better_swaps_the_verdict_but_not_the_numbers():
    row = judged([0.61, 0.72, 0.80], [0.5, 0.6, 0.7], lower_is_better=True)
    assert row['verdict'] == 'hurts' and row['delta_mean'] > 0


def test_members_are_paired_by_axes_not_by_order():
    members = [{'seed': s, 'labels_per_class': k} for k in (1, 5, 20) for s in range(4)]
    value = {(m['seed'], m['labels_per_class']): 0.1 * m['seed'] + 0.01 * i
             for i, m in enumerate(members)}  # fmt: skip
    shuffled = random.Random(0).sample(members, len(members))
    gain = lambda m: 0.1 if m['labels_per_class'] == 1 else -0.1
    base = results(members, [value[m['seed'], m['labels_per_class']] for m in members])
    arm = results(shuffled, [value[m['seed'], m['labels_per_class']] + gain(m) for m in shuffled])
    rows = verdict.compare({'base': base, 'arm': arm}, 'base')
    assert [row['labels_per_class'] for row in rows] == [1, 1, 5, 5, 20, 20]
    own = {row['labels_per_class']: row for row in rows if row['arm'] == 'arm'}
    assert {k: row['verdict'] for k, row in own.items()} == {1: 'helps', 5: 'hurts', 20: 'hurts'}
    for k, row in own.items():
        assert row['delta_mean'] == pytest.approx(0.1 if k == 1 else -0.1)
        assert row['delta_ci95'] == pytest.approx(0, abs=1e-12)
    assert all(row['verdict'] == 'baseline' for row in rows if row['arm'] == 'base')


def test_an_axis_of_one_side_matches_every_value():
    base = results(
        [{'seed': s, 'labels_per_class': k} for k in (1, 5) for s in range(3)],
        [0.1, 0.2, 0.3, 0.7, 0.8, 0.9],
    )
    rows = verdict.compare({'base': base, 'zero_shot': seeds([0.5, 0.61, 0.7])}, 'base')
    own = {row['labels_per_class']: row for row in rows if row['arm'] == 'zero_shot'}
    assert own[1]['verdict'] == 'helps' and own[5]['verdict'] == 'hurts'
    assert own[1]['n'] == own[5]['n'] == 3
    rated = results(
        [{'seed': s, 'optimizer.rate': r} for r in (0.1, 0.01) for s in range(3)],
        [0.6, 0.7, 0.8, 0.1, 0.2, 0.3],
    )
    rows = verdict.compare({'base': seeds([0.3, 0.41, 0.5]), 'rated': rated}, 'base')
    assert [row.get('optimizer.rate') for row in rows] == [None, 0.01, 0.1]


def test_without_a_baseline_nothing_is_judged():
    arms = {'one': seeds([0.25, 0.75]), 'other': seeds([0.5, 1.0])}
    rows = verdict.compare(arms, '')
    assert rows == [row for name in arms for row in verdict.summarise(name, arms[name])]
    assert [row['mean'] for row in rows] == [0.5, 0.75]
    assert not any(row['verdict'] or row['pairs'] for row in rows)


@pytest.mark.parametrize('bad', [math.nan, math.inf, None])
def test_a_failed_member_is_counted_and_makes_the_verdict_unclear(bad):
    row = judged([0.9, bad, 0.92], [0.1, 0.1, 0.1])
    assert (row['n'], row['failed'], row['verdict']) == (2, 1, 'unclear')
    assert row['mean'] == pytest.approx(0.91)
    assert 'seed 1' in row['reason']
    row = judged([0.9, 0.91, 0.92], [0.1, bad, 0.1])
    assert (row['n'], row['failed'], row['pairs'], row['verdict']) == (3, 0, 2, 'unclear')


def test_one_member_cannot_be_judged():
    row = judged([0.9], [0.1])
    assert (row['verdict'], row['n'], row['ci95'], row['delta_ci95']) == ('unclear', 1, None, None)
    assert 'one member' in row['reason']
    rows = verdict.compare({'base': results([{}], [0.5]), 'arm': seeds([0.8, 0.9])}, 'base')
    assert 'baseline' in next(row['reason'] for row in rows if row['arm'] == 'arm')


def test_members_without_a_twin_are_told():
    row = judged([0.9, 0.91, 0.93, 0.95], [0.1, 0.12, 0.13])
    assert (row['n'], row['pairs'], row['verdict']) == (4, 3, 'helps')
    assert row['reason'] == '3 of 4 members have a twin'


def test_rows_are_json():
    rows = verdict.compare({'base': seeds([0.1, math.nan]), 'arm': seeds([0.9, 0.8])}, 'base')
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


@pytest.mark.parametrize(
    'options, message',
    [
        ({'baseline': 'scrach'}, "'scrach'.* Did you mean 'scratch'"),
        ({'stream': 'tset'}, "'tset'.* Did you mean 'test'"),
        ({'metric': 'acuracy'}, "'acuracy'.* Did you mean 'accuracy'"),
    ],
)
def test_errors_name_near_misses(options, message):
    arms = {'scratch': seeds([0.1, 0.2]), 'frozen': seeds([0.1, 0.2])}
    with pytest.raises(ValueError, match=message):
        verdict.compare(arms, **{'baseline': 'scratch', **options})


@pytest.mark.parametrize(
    'arm, message',
    [
        (results([{'seed': 7}, {'seed': 8}], [0.1, 0.2]), 'no members in common.*seed 7, 8'),
        (results([{'seed': 0}, {'seed': 0}], [0.1, 0.2]), 'two members'),
        (results([{'seed': 0}], [0.1, 0.2]), 'not a list of 1'),
        (results([{'seed': 0}], [[0.1, 0.2]]), 'several numbers per member'),
        (results([{'seed': 0, 'mean': 3}], [0.1]), "may not be named 'mean'"),
    ],
)
def test_unusable_arms_are_errors(arm, message):
    with pytest.raises(ValueError, match=message):
        verdict.compare({'base': seeds([0.1, 0.2]), 'arm': arm}, 'base')


def test_summarise_needs_no_baseline():
    rows = verdict.summarise('probe', seeds([0.1, 0.2, 0.3], labels_per_class=5))
    assert len(rows) == 1 and rows[0]['mean'] == pytest.approx(0.2)
    assert rows[0]['verdict'] is None and rows[0]['labels_per_class'] == 5


def test_table_shows_negative_transfer_and_the_best():
    arms = {'scratch': seeds([0.5, 0.6, 0.7]), 'frozen[x]': seeds([0.39, 0.5, 0.58])}
    text = text_of(tables.verdicts(verdict.compare(arms, 'scratch')))
    assert 'scratch ★' in text and 'frozen[x]' in text
    assert '▼ hurts' in text and 'negative transfer' in text
    assert '60.0 ± 24.8' in text and '−11.0 ± 2.5' in text


@pytest.mark.parametrize(
    'value, metric, signed, text',
    [
        (0.9312, 'accuracy', False, '93.1'),
        (-0.0321, 'accuracy', True, '−3.2'),
        (0.0321, 'accuracy', True, '+3.2'),
        (-0.0001, 'accuracy', True, '0.0'),
        (0.12345, 'loss', False, '0.123'),
        (math.nan, 'accuracy', False, 'NaN'),
        (None, 'accuracy', False, '–'),
    ],
)
def test_numbers_for_people(value, metric, signed, text):
    assert wording.amount(value, metric, signed=signed) == text


def test_the_gap_to_a_ceiling_is_paired():
    arms = {'base': seeds([0.5, 0.6]), 'arm': seeds([0.6, 0.9]), 'top': seeds([0.8, 0.95])}
    rows = {row['arm']: row for row in verdict.compare(arms, 'base', ceiling='top')}
    assert [row['verdict'] for row in rows.values()] == ['baseline', 'neutral', 'ceiling']
    assert rows['arm']['gap_mean'] == pytest.approx(0.125)  # of 0.2 and 0.05
    assert rows['arm']['gap_ci95'] == pytest.approx(12.7062 * 0.15 / 2, rel=1e-4)
    assert rows['base']['gap_mean'] == pytest.approx(0.325)
    assert 'gap_mean' not in rows['top']
    assert rows['top']['delta_mean'] == pytest.approx(0.325)
    assert wording.axes_of(rows.values()) == []
    assert wording.best(list(rows.values()))['arm'] == 'arm'
    text = text_of(tables.verdicts(list(rows.values())))
    assert 'arm ★' in text and 'ceiling' in text and '12.5 ± 95.3' in text


def test_a_ceiling_is_one_of_the_arms():
    with pytest.raises(ValueError, match=r"No arm is named 'tip'\. Did you mean 'top'\?"):
        verdict.compare({'base': seeds([0.5]), 'top': seeds([0.6])}, 'base', ceiling='tip')


def test_selections_in_the_terminal():
    arms = {'base': seeds([0.5, 0.6, 0.7]), 'arm': seeds([0.6, 0.71, 0.8])}
    rows = verdict.compare(arms, 'base')
    columns = dict.fromkeys(('last', 'entropy', 'source_validation', 'oracle'), rows)
    text = text_of(tables.selections(columns))
    assert 'entropy' in text and 'source validation' not in text
    assert text.count('▲') == 3
