"""Ranking of sources: scores of the right features, labels and classifiers; agreement by hand."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from launch import rank
from tests import runs
from tljax import config as configs
from tljax import experiment, initial, predict, ranking
from tljax.data import sources
from tljax.evaluation import transferability
from tljax.methods.networks import Classifier
from tljax.prepare import prepare


def test_scores_are_those_of_each_members_own_examples(tiny_study):
    """Against features and probabilities computed by the classifier of the source run itself."""
    candidates, reached = ranking.of_study(tiny_study)
    assert list(reached) == ['frozen', 'fine_tuned']
    results = runs.results(tiny_study / 'frozen')
    assert reached['frozen'] == pytest.approx(np.mean(results['scores']['test']['accuracy']))
    found = ranking.scores(candidates[0])
    assert set(found) == set(ranking.SCORES)
    source = initial.trained(tiny_study / 'pretrain')
    ready = prepare(configs.checked(candidates[0].config))
    stream, classifier = (
        ready.streams['source'],
        Classifier.build(ready.config, ready.spec._replace(since=None)),
    )
    for number, member in enumerate(results['members']):
        values = jax.tree.map(lambda x: x[member['seed']], source)
        rows = stream.order[number][: stream.count[number]]
        out, _ = classifier(*values, np.stack([stream.source.fetch(row) for row in rows]))
        labels = stream.source.labels[rows]
        logme = transferability.logme(out['features'], labels, classes=5)
        leep = transferability.leep(jax.nn.softmax(out['logits']), labels, classes=5)
        assert found['logme'][number] == pytest.approx(float(logme), rel=1e-3)
        assert found['leep'][number] == pytest.approx(float(leep), rel=1e-3)


def test_agreement_is_kendalls_tau():
    """Three candidates: one of three pairs in the other order gives (2 - 1) / 3."""
    table = {
        'a': {'logme': [1.0, 3.0], 'probe': [0.1], 'leep': [-1.0]},
        'b': {'logme': [3.0, 5.0], 'probe': [0.3]},
        'c': {'logme': [3.0, 3.0], 'probe': [0.2]},
    }
    tau = ranking.agreement(table, {'a': 0.5, 'b': 0.7, 'c': 0.9})
    assert tau == {'logme': pytest.approx(1 / 3), 'probe': pytest.approx(1 / 3)}


def test_command_ranks_runs_and_studies(tiny_study, tmp_path, capsys):
    out = tmp_path / 'rank.json'
    assert rank.main([f'--study={tiny_study}', f'--out={out}', '--by=probe']) == 0
    found = json.loads(out.read_text())
    assert set(found['kendall_tau']) == set(ranking.SCORES)
    assert "Kendall's tau" in capsys.readouterr().out
    run = tiny_study / 'pretrain'
    chosen = ['--data=sklearn:digits', '--labels_per_class=3', f'--weights={run}']
    assert rank.main([*chosen, f'--out={out}']) == 0
    found = json.loads(out.read_text())
    assert list(found['scores']) == [str(run)]
    assert not found['reached']
    assert rank.main([*chosen, f'--weights={tiny_study / "scratch"}']) == 2
    assert '2 of its members fit member' in capsys.readouterr().err


def test_a_source_of_several_tasks_has_no_single_classifier(tmp_path):
    c = runs.run(method='multitask', steps=2, evaluate_every=0)
    for stream in (c.data.streams.source, c.data.evaluate.test):
        stream.update(tasks=('label', 'ink'), classes=())
    experiment.run(configs.checked(c), tmp_path)
    found = ranking.scores(ranking.candidate(str(tmp_path), runs.DIGITS, labels_per_class=3))
    assert set(found) == set(transferability.OF_FEATURES)


def test_a_source_is_scored_at_its_own_endpoint_and_size(tmp_path):
    c = runs.run(endpoint='hidden1', steps=2, evaluate_every=0)
    c.data.size = 6
    experiment.run(configs.checked(c), tmp_path)
    one = ranking.candidate(str(tmp_path), runs.DIGITS, labels_per_class=3)
    assert (one.config.endpoint, one.config.data.size) == ('hidden1', 6)
    assert set(ranking.scores(one)) == set(ranking.SCORES)
    # What is to start from it may read another; then its classifier is not of these features.
    one.config.update(endpoint='features', pool='max')
    assert ranking.classifiers(one.config, [{'seed': 0}]) == [None]


def test_a_source_whose_head_has_a_norm_and_dropout(tmp_path):
    """Its probabilities are those it predicts with, by the statistics of its head."""
    head = {'name': 'mlp', 'widths': (5,), 'norm': True, 'dropout': 0.5}
    experiment.run(configs.checked(runs.run(head=head, steps=5, evaluate_every=0)), tmp_path)
    one = ranking.candidate(str(tmp_path), runs.DIGITS, labels_per_class=3)
    assert set(ranking.scores(one)) == set(ranking.SCORES)
    (classify,) = ranking.classifiers(one.config, [{'seed': 0}])
    model = predict.load(tmp_path)
    images = sources.arrays(sources.load(runs.DIGITS, 'test[:6]', size=8))
    found = classify(model.features(images))
    np.testing.assert_allclose(found, model.probabilities(images), rtol=1e-5)


def test_command_ranks_on_several_devices(tiny_study):
    """Nothing is drawn, so that no batch has to divide."""
    done = subprocess.run(
        [sys.executable, rank.__file__, f'--study={tiny_study}'],
        env=os.environ | {'JAX_NUM_CPU_DEVICES': '3', 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Kendall's tau" in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--data=sklearn:digits'], 'give --study DIR, or --data and two or more --weights'),
        (['--study={study}/scratch'], 'is a single run; expected a study of several sources'),
        (['--study={study}/nothing'], 'nothing is not finished: it has no results.json'),
        (['--data=sklearn:digits', *['--weights=runs/a'] * 2], '--weights runs/a is given twice'),
        (['--by=luck'], "unknown score 'luck': there are logme, h_score"),
        (['--out=nowhere/x.json'], '--out nowhere/x.json cannot be: there is no such folder'),
        (
            ['--data=sklearn:digits', '--weights=file:a.pth', '--net=file:a.pth=xx'],
            "--net: 'xx' is not JSON",
        ),
        (
            ['--data=sklearn:digits', '--weights=file:a.pth', '--net=file:b.pth={{}}'],
            '--net of file:b.pth, which is none of --weights',
        ),
        (
            ['--data=sklearn:digits', '--weights=file:a.pth'],
            'file:a.pth: the name does not tell the net; say which',
        ),
    ],
)
def test_bad_input(tiny_study, capsys, arguments, message):
    assert rank.main([one.format(study=tiny_study) for one in arguments]) == 2
    assert message in capsys.readouterr().err
