"""Which step a selector keeps, what it may look at, and what a run says of every selector."""

import json
import re

import numpy as np
import pytest

from tests import runs
from tljax import config as configs
from tljax import experiment, selection, study
from tljax.prepare import prepare
from tljax.selection import SELECTORS

FREE = [name for name in SELECTORS if name != 'oracle']


def adapting(**changes):
    """A tiny run with all that selectors read: 'val', 'target' without labels, and 'test'."""
    c = runs.run(**{'steps': 12, 'evaluate_every': 3, **changes})
    c.data.streams.source.split = 'train[:50%]'
    hold = lambda **options: configs.held_out(runs.DIGITS, classes=runs.NEW, **options)
    c.data.evaluate.val = hold(split='train[50%:]', sample=90)
    c.data.evaluate.target = hold(split='test[:50%]', labelled=False)
    return c


def test_only_the_oracle_reads_labels_of_the_target():
    read = {name: set(selector.reads) for name, selector in SELECTORS.items()}
    assert read.pop('oracle') == {('test', 'accuracy')}
    for name, pairs in read.items():
        for stream, key in pairs:
            assert stream == 'val' or (stream, key) in {
                ('target', 'logits'),
                ('target', 'features'),
            }
        assert pairs, name


def test_labels_of_the_target_change_no_selector_but_the_oracle():
    """Not even where the config calls the target stream labelled."""
    prepared = prepare(configs.checked(adapting(**{'members.seed': (0, 1)})))
    params, mutable = prepared.values
    found = []
    for permute in (False, True):
        held = dict(prepared.held)
        for name in ('target', 'test') if permute else ():
            source = held[name].source
            labels = np.random.RandomState(0).permutation(source.labels)
            held[name] = held[name]._replace(source=source._replace(labels=labels), labelled=True)
        evaluate = experiment.evaluator(prepared._replace(held=held), tuple(SELECTORS))
        scores, judged = evaluate(params, mutable, prepared.method.phases[0])
        found.append(selection.scores(SELECTORS, judged, scores, 2))
    plain, permuted = found
    assert plain.pop('oracle') != permuted.pop('oracle')
    assert plain == permuted
    assert list(plain) == FREE
    assert all(np.isfinite(values).all() and len(values) == 2 for values in plain.values())


def test_no_score_is_made_of_an_unlabelled_stream(tmp_path):
    found = experiment.run(configs.checked(adapting(steps=1)), tmp_path)
    assert set(found['scores']) == {'val', 'test'}
    assert set(runs.lines(tmp_path)[0]) == {'step', 'phase', 'train', 'val', 'test', 'selection'}
    assert found['scores']['val']['count'] == 90
    assert re.search(r'\(test\[:50%\]\), all 1\d\d examples without labels', found['protocol'])
    assert '(train[50%:], 90 sampled), all 90 examples' in found['protocol']


def test_what_is_lacking():
    labelled = {'val': True, 'target': False, 'test': True}
    assert selection.possible(labelled) == tuple(SELECTORS)
    assert selection.possible({'test': True}) == ('oracle',)
    assert selection.possible({'test': False, 'val': False}) == ()
    assert selection.lacking('deep_embedded_validation', {'target': False}) == 'val'
    assert selection.lacking('deep_embedded_validation', {'target': False, 'val': False}) == 'val'
    assert selection.lacking('last', {}) == ''
    assert selection.outputs_read(SELECTORS, 'target') == ('logits', 'features')
    assert selection.outputs_read(('entropy', 'oracle'), 'target') == ('logits',)
    assert selection.outputs_read(SELECTORS, 'test') == ()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'selection': 'entropy'}, r'selection=entropy needs data\.evaluate\.target$'),
        (
            {'selection': 'oracle', 'data.evaluate.test.labelled': False},
            r'selection=oracle needs data\.evaluate\.test, labelled',
        ),
        ({'selection': 'validation'}, "unknown selection 'validation': there are last, .*"),
        (
            {'data.evaluate.test.sample': -1},
            r'data\.evaluate\.test\.sample is -1; expected 0 or more',
        ),
    ],
)
def test_selection_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(configs.checked(runs.run(**changes)))


def line(step, phase, test, **scores):
    return {
        **{'step': step, 'phase': phase, 'train': {}},
        **{'test': {'accuracy': test}, 'selection': scores},
    }


def test_chosen_steps_by_hand():
    """The earliest of equals, null after all, each member on its own, of the last phase only."""
    lines = [
        line(1, 'before', [0.9, 0.9], entropy=[9.0, 9.0], oracle=[0.9, 0.9]),
        line(2, 'after', [0.3, 0.1], entropy=[None, -2.0], oracle=[0.3, 0.1]),
        line(3, 'after', [0.5, 0.2], entropy=[-1.0, -1.5], oracle=[0.5, 0.2]),
        line(4, 'after', [0.5, 0.4], entropy=[-1.0, -1.7], oracle=[0.5, 0.4]),
    ]
    assert selection.chosen(lines, 2) == {
        'last': {'step': [4, 4], 'accuracy': [0.5, 0.4]},
        'entropy': {'score': [-1.0, -1.5], 'step': [3, 3], 'accuracy': [0.5, 0.2]},
        'oracle': {'score': [0.5, 0.4], 'step': [3, 4], 'accuracy': [0.5, 0.4]},
    }
    never = [line(step, 'p', [0.1], entropy=[None]) for step in (1, 2)]
    assert selection.chosen(never, 1)['entropy']['step'] == [1]


def test_scores_that_are_not_finite_come_last():
    judged = {'target': {'logits': np.full((1, 3, 2), np.inf), 'valid': np.ones((1, 3), bool)}}
    found = selection.scores(['entropy'], judged, {}, 1)
    assert np.isnan(found['entropy'][0])
    ranked = selection.ranked([np.nan, -1e30, None, -np.inf, np.inf])
    assert np.isfinite(ranked).all()
    assert ranked.argmax() == 1


@pytest.mark.parametrize('kept', ['last', *SELECTORS])
def test_a_run_tells_what_every_selector_chose(tmp_path, kept):
    """And keeps the parameters of the configured one."""
    c = adapting(**{'selection': kept, 'members.seed': (0, 1), 'hparams.rate': 0.4})
    found = experiment.run(configs.checked(c), tmp_path)
    lines = runs.lines(tmp_path)
    assert [one['step'] for one in lines] == [3, 6, 9, 12]
    assert set(found['selections']) == {'last', *SELECTORS}
    for name, table in found['selections'].items():
        if name == 'last':
            best = [3, 3]
        else:
            curve = np.array([one['selection'][name] for one in lines])  # [T, M]
            best = curve.argmax(axis=0)  # the first, where several are equal
            assert table['score'] == [curve[t, m] for m, t in enumerate(best)]
        assert table['step'] == [lines[t]['step'] for t in best]
        test = [lines[t]['test']['accuracy'][m] for m, t in enumerate(best)]
        assert table['accuracy'] == test
    assert found['step'] == found['selections'][kept]['step']
    assert found['scores']['test']['accuracy'] == found['selections'][kept]['accuracy']
    assert found['selection'] == kept
    assert ('oracle' in found['protocol']) == (kept == 'oracle')


def test_a_study_compares_its_arms_under_every_selection(tmp_path):
    c = adapting(**{'selection': 'entropy', 'members.seed': (0, 1), 'steps': 6})
    c.runs = {'plain': {}, 'slow': {'hparams': {'rate': 1e-4}}, 'best': {'steps': 9}}
    c.compare.update(baseline='plain', ceiling='best', arms=('plain', 'slow', 'best'))
    study.run(c, tmp_path)
    found = json.loads((tmp_path / 'results.json').read_text())
    others = [name for name in FREE if name != 'entropy']
    assert list(found['selections']) == ['last', 'entropy', *others, 'oracle']
    assert found['selections']['entropy'] == found['comparison']
    for name, rows in found['selections'].items():
        assert [row['arm'] for row in rows] == ['plain', 'slow', 'best']
        assert [row['verdict'] for row in rows][::2] == ['baseline', 'ceiling']
        for row in rows:
            accuracy = runs.results(tmp_path / row['arm'])['selections'][name]['accuracy']
            assert row['mean'] == pytest.approx(np.mean(accuracy))
    text = (tmp_path / 'report.html').read_text()
    assert 'information maximisation' in text


def test_the_member_to_predict_with():
    members = [{'seed': s, 'rate': r} for s in (0, 1) for r in (0.1, 0.2)]
    results = {'members': members, 'selection': 'last', 'selections': {'last': {'step': [1] * 4}}}
    assert selection.best_member(results) == 0
    table = {'entropy': {'score': [-3.0, None, -1.0, -1.0]}}
    assert selection.best_member(results | {'selection': 'entropy', 'selections': table}) == 2
    few = [member | {'labels_per_class': 1 + i % 2} for i, member in enumerate(members)]
    assert selection.best_member({'members': few}) == 1
