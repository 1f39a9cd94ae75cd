"""A probe is its shallow classifier on the net's features, and a run as any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from tests import runs
from tljax import config as configs
from tljax import experiment, initial, predict, report, workdir
from tljax.data import sources
from tljax.methods import probe
from tljax.methods.networks import encoder
from tljax.nets.pooling import pool
from tljax.prepare import prepare


def config(kind='ridge', **changes):
    c = runs.run(method='probe', cache_prefix=True, **changes)
    c.options.probe = kind
    c.data.wrap = True
    return configs.checked(c)


def features(c, directory, member=0, split='train'):
    """What the run's own encoder makes of the data, computed by hand; and the labels."""
    source = sources.load(runs.DIGITS, split, size=8, classes=runs.NEW)
    values = jax.tree.map(lambda x: x[member], initial.trained(directory))
    net = encoder(c)
    images = net.input.normalise(sources.arrays(source))
    own = {'params': values[0]['encoder'], **values[1].get('encoder', {})}
    return np.asarray(pool(net.apply(own, images, until=c.endpoint), c.pool)), source.labels


@pytest.fixture(scope='module')
def ridge(tmp_path_factory):
    """A run with few labels and another layer; its config and directory."""
    c = config(endpoint='hidden1', **{'members.seed': (0, 1), 'members.labels_per_class': (5, 20)})
    directory = tmp_path_factory.mktemp('runs') / 'ridge'
    experiment.run(c, directory)
    return c, directory


def test_scores_are_those_of_ridge_at_the_chosen_strength(ridge):
    c, directory = ridge
    results = runs.results(directory)
    prepared = prepare(c)
    for member, axes in enumerate(results['members']):
        x, y = features(c, directory, member)
        rows = order_of(c, member, axes['labels_per_class'])
        x, y = x[rows], y[rows]
        scale = np.sqrt(((x - x.mean(0)) ** 2).sum() / x.size)
        strength = results['outcome']['strength'][member]
        alpha = strength * len(x)
        model = RidgeClassifier(alpha=alpha).fit(x / scale, y)
        test, labels = features(c, directory, member, 'test')
        wanted = model.decision_function(test / scale)
        values = jax.tree.map(lambda v: v[member], initial.trained(directory))
        run = prepared.method._replace(init=None)
        logits = run.predict(*values, test)['logits']
        np.testing.assert_allclose(logits, wanted, atol=2e-3)
        accuracy = (wanted.argmax(1) == labels).mean()
        assert results['scores']['test']['accuracy'][member] == pytest.approx(accuracy, abs=0.004)


def order_of(c, member, labels_per_class):
    """Rows of the member's few-shot subset."""
    c = configs.checked(c)
    c.cache_prefix = False
    stream = prepare(c).streams['source']
    return stream.order[member][: 5 * labels_per_class]


def test_the_strength_is_the_most_accurate_on_held_out_training_examples(ridge):
    outcome = runs.results(ridge[1])['outcome']
    columns = (outcome[name] for name in ('strengths', 'curve', 'strength'))
    for strengths, curve, strength in zip(*columns, strict=True):
        best = [s for s, accuracy in zip(strengths, curve, strict=True) if accuracy == max(curve)]
        assert strength == max(best)
        assert len(set(curve)) > 3
    np.testing.assert_allclose(outcome['strengths'][0], probe.PENALTIES, rtol=1e-6)


def test_test_images_are_never_seen(ridge, tmp_path):
    """Other test data, the same head, strength and curve."""
    c, directory = ridge
    c = configs.checked(c)
    c.data.evaluate.test.split = 'train[:50]'
    experiment.run(c, tmp_path / 'other')
    ours, other = (initial.trained(d) for d in (directory, tmp_path / 'other'))
    jax.tree.map(np.testing.assert_array_equal, ours, other)
    assert runs.results(directory)['outcome'] == runs.results(tmp_path / 'other')['outcome']


def test_prediction_and_report(ridge):
    directory = ridge[1]
    model = predict.load(directory)
    images = sources.arrays(sources.load(runs.DIGITS, 'test', size=8, classes=runs.NEW))
    found = model.probabilities(images)
    results = runs.results(directory)
    member = results['members'].index({'seed': 0, 'labels_per_class': 20})
    labels = sources.load(runs.DIGITS, 'test', size=8, classes=runs.NEW).labels
    accuracy = (found.argmax(1) == labels).mean()
    assert accuracy == pytest.approx(results['scores']['test']['accuracy'][member], abs=0.004)
    page = report.write(directory).read_text()
    assert 'Choice of the strength' in page
    assert 'Learning curves' not in page
    assert 'validation accuracy against strength' in page


@pytest.mark.parametrize('kind', ['neighbours', 'nearest_mean'])
def test_cached_equals_uncached(kind, tmp_path):
    found = []
    for cache in (False, True):
        c = config(kind, **{'members.labels_per_class': (4,), 'members.seed': (0, 1)})
        c.cache_prefix = cache
        found.append(experiment.run(c, tmp_path / str(cache)))
    for key in ('accuracy', 'loss'):
        np.testing.assert_allclose(*(one['scores']['test'][key] for one in found), rtol=1e-4)
    np.testing.assert_allclose(*(one['outcome']['curve'] for one in found), atol=1e-6)
    trees = [initial.trained(tmp_path / str(cache)) for cache in (False, True)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *trees)


def test_neighbours_are_scikit_learns(tmp_path):
    c = config('neighbours', **{'data.streams.source.labels_per_class': 10})
    c.options.strengths = (3,)
    found = experiment.run(c, tmp_path)
    x, y = features(c, tmp_path)
    rows = order_of(c, 0, 10)
    model = KNeighborsClassifier(3).fit(x[rows], y[rows])
    test, labels = features(c, tmp_path, split='test')
    accuracy = (model.predict(test) == labels).mean()
    assert found['scores']['test']['accuracy'][0] == pytest.approx(accuracy, abs=0.01)
    assert found['outcome']['strength'] == [3]
    assert not any(row['path'].startswith('head') for row in found['parameters'])


def test_a_stream_that_is_fed(tmp_path):
    """The hook goes over the stream block by block on the host."""
    found = []
    for megabytes in (0, 1024):
        c = config(**{'data.streams.source.labels_per_class': 6, 'data.resident_mb': megabytes})
        c.cache_prefix = False
        found.append(experiment.run(c, tmp_path / str(megabytes)))
    np.testing.assert_allclose(*(one['outcome']['curve'] for one in found), atol=1e-6)
    assert found[0]['scores']['test']['accuracy'] == found[1]['scores']['test']['accuracy']


def test_spread_is_the_mean_standard_deviation():
    x = np.random.RandomState(0).normal(size=(50, 7)) * np.arange(1, 8)
    weights = (np.arange(50) < 30).astype(np.float32)
    wanted = np.sqrt(x[:30].var(0).mean())
    np.testing.assert_allclose(probe.spread(jnp.asarray(x, jnp.float32), weights), wanted, 1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'options.probe': 'rigde'}, "unknown probe 'rigde': there are .*did you mean 'ridge'"),
        ({'options.strength': (1,)}, "unknown option of method 'probe' 'strength': .*'strengths'"),
        (
            {'options.strengths': (0.1, 0)},
            r'strengths must be finite and over 0; got \[0\.1, ',
        ),
        (
            {'options.probe': 'neighbours', 'options.strengths': (50,)},
            r'k is \[50\.0\]; expected whole numbers from 1 to most, 32',
        ),
        ({'options.folds': 1}, 'options.folds is 1; expected 2 or more'),
        ({'head': {'name': 'cosine'}}, r"head=\{'name': 'cosine'\}: a probe is its own head"),
        ({'members.labels_per_class': (1, 5)}, 'labels_per_class=1 leaves no example to choose'),
        ({'endpoint': 'hidden3'}, "unknown endpoint of MLP 'hidden3': there are hidden1, "),
        ({'pool': 'men'}, "unknown pooling 'men': .*did you mean 'mean'"),
        ({'pool': 'none'}, "pool='none': a head reads vectors; choose 'flat'"),
        ({'features.also': ('hidden9',), 'features.root': 'runs'}, "unknown endpoint .*'hidden9'"),
    ],
    ids=str,
)
def test_probe_that_cannot_be(changes, message):
    c = config()
    for key, value in changes.items():
        c.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        prepare(configs.checked(c))


def test_one_label_and_one_strength(tmp_path):
    c = config(**{'members.labels_per_class': (1,)})
    c.options.strengths = (0.1,)
    found = experiment.run(c, tmp_path)
    assert workdir.read_json(tmp_path / 'results.json')['outcome']['curve'] == [[None]]
    assert found['scores']['test']['accuracy'][0] > 0.3
