"""Hyper-parameters told by another run."""

import json

import numpy as np
import pytest

from tests import runs
from tljax import config as configs
from tljax import experiment, study, tuning
from tljax.evaluation import zero_shot


def written(run, lines, members):
    run.mkdir()
    (run / 'results.json').write_text(json.dumps({'members': members}))
    (run / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return run


MEMBERS = [{'seed': s, 'rate': r} for s in (0, 1) for r in (0.1, 0.2)]


def line(step, *values, **more):
    return {'step': step, 'phase': 'train', 'test': {'accuracy': list(values)}} | more


def test_the_best_mean_over_seeds_wins_not_the_best_seed(tmp_path):
    lines = [
        line(5, 0.9, 0.5, 0.1, 0.6),
        line(10, 0.4, 0.6, 0.4, 0.7),
        line(15, 0.4, 0.6, 0.4, 0.7),
    ]
    run = written(tmp_path / 'run', lines, MEMBERS)
    assert tuning.best(run, 'test', 'accuracy') == (10, {'rate': 0.2}, pytest.approx(0.65))
    with pytest.raises(
        ValueError, match=r"unknown tuned\.metric 'acuracy': .*did you mean 'accuracy'"
    ):
        tuning.best(run, 'test', 'acuracy')
    with pytest.raises(ValueError, match=r"unknown tuned\.stream 'val': there are test"):
        tuning.best(run, 'val', 'accuracy')
    with pytest.raises(ValueError, match=r'results\.json does not exist; is .* a run directory'):
        tuning.best(tmp_path / 'gone', 'test', 'accuracy')


def test_the_calibration_of_the_best_is_told(tmp_path):
    calibration = {'best_calibration': [1.0, 0.3, 2.0, 0.5]}
    run = written(tmp_path / 'run', [line(5, 0.1, 0.5, 0.1, 0.6, unseen=calibration)], MEMBERS)
    found = tuning.best(run, 'test', 'accuracy')
    assert found.hparams == {'rate': 0.2, 'calibration': pytest.approx(0.4)}


def test_a_study_trains_with_what_its_tuning_run_tells(tmp_path):
    c = runs.run(evaluate_every=0)
    c.runs.tuned = {'tuned': {'by': 'tuning'}, 'members': {'seed': (0, 1)}}
    c.runs.tuning = {'members': {'rate': (1e-6, 0.05)}, 'steps': 30, 'evaluate_every': 10}
    c.compare.update(baseline='tuned', arms=('tuned',))
    study.run(c, tmp_path / 'study')
    told = tuning.best(tmp_path / 'study' / 'tuning', 'test', 'accuracy')
    assert told.hparams['rate'] == pytest.approx(0.05)
    found = runs.results(tmp_path / 'study' / 'tuned')
    assert found['step'] == [told.steps] * 2
    assert all(row['rate'] == pytest.approx(0.05) for row in found['parameters'])
    # The same study goes on; a tuning run of other values makes another run.
    study.run(c, tmp_path / 'study')
    c.runs.tuning.members.rate = (1e-6, 0.01)
    with pytest.raises(ValueError, match='belongs to a run of another config'):
        study.run(c, tmp_path / 'study')


def test_an_axis_of_members_cannot_be_told_too(tmp_path):
    run = written(tmp_path / 'run', [line(5, 0.1, 0.5, 0.1, 0.6)], MEMBERS)
    c = runs.run(**{'tuned.by': str(run), 'members.rate': (0.1, 0.2)})
    with pytest.raises(ValueError, match=r'members\.rate: tuned\.by=.* tells rate; leave it'):
        experiment.run(configs.checked(c), tmp_path / 'other')


def test_calibration_by_trying_all():
    random = np.random.RandomState(0)
    seen = np.array([True, True, True, False, False])
    labels = [np.array([0, 0, 1, 1, 2, 2, 2]), np.array([3, 3, 4, 4, 4, 4])]
    logits = [random.randn(len(one), 5) + 2 * np.eye(5)[one] + 1.5 * seen for one in labels]

    def harmonic(calibration):
        answers = [(one - calibration * seen).argmax(1) for one in logits]
        s, u = (
            np.mean([(answer[label == c] == c).mean() for c in np.unique(label)])
            for answer, label in zip(answers, labels, strict=True)
        )
        return 2 * s * u / max(s + u, 1e-9)

    found = zero_shot.best_calibration(logits, labels, seen)
    best = max(harmonic(c) for c in np.linspace(-10, 10, 4001))
    assert harmonic(found) == pytest.approx(best, abs=1e-9)
    assert best > harmonic(0.0)
