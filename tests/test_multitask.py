"""The method of several tasks, its scores and its balancers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs, toys
from tests.test_methods import NORMED, built, fit, prepared_for
from tljax import config as configs
from tljax.evaluation import multitask
from tljax.losses.multitask import gradnorm
from tljax.losses.surgery import mgda
from tljax.methods.multitask import check
from tljax.methods.networks import encoder
from tljax.methods.task_gradients import affinities, of_tasks
from tljax.methods.task_network import TaskNetwork, joined
from tljax.prepare import build_method, prepare
from tljax.types import Spec, Task

TASKS = ('label', 'parity', 'ink')
HP = {'label_smoothing': 0.0}
SPEC = {
    'label': Task('classification', ('a', 'b', 'c')),
    'tags': Task('multilabel', ('x', 'y')),
    'size': Task('regression', ('value',)),
}


def config(tasks=TASKS, **options):
    c = runs.run(method='multitask', options=options)
    for stream in (c.data.streams.source, c.data.evaluate.test):
        stream.update(tasks=tasks, classes=())
    return c


def test_scores_are_those_of_the_examples_that_have_the_label():
    random = np.random.RandomState(0)
    outputs = {name: random.randn(6, len(task.classes)) for name, task in SPEC.items()}
    label = {
        'label': np.array([0, 1, 2, -1, -1, 0]),
        'tags': random.randint(-1, 2, (6, 2)),
        'size': np.where(random.rand(6, 1) < 0.5, np.nan, random.randn(6, 1)),
    }
    valid = np.array([True] * 5 + [False])
    predict = lambda params, mutable, images: {'tasks': jax.tree.map(jnp.asarray, outputs)}
    judge = multitask.judge(predict, SPEC)
    judged = judge(({}, {}), {'image': None, 'label': label, 'valid': valid})
    found = multitask.scores({key: np.asarray(x)[None] for key, x in judged.items()}, SPEC)
    hits = outputs['label'].argmax(1)[:3] == label['label'][:3]
    np.testing.assert_allclose(found['label_accuracy'], [hits.mean()], 1e-6)
    known = label['tags'][:5] >= 0
    right = ((outputs['tags'][:5] > 0) == label['tags'][:5])[known].mean()
    np.testing.assert_allclose(found['tags_accuracy'], [right], 1e-6)
    error = np.sqrt(np.nanmean((outputs['size'] - label['size'])[:5] ** 2))
    np.testing.assert_allclose(found['size_rmse'], [error], 1e-5)
    np.testing.assert_allclose(found['accuracy'], [(hits.mean() + right) / 2], 1e-6)


def test_relative_change_is_signed_by_what_is_better():
    ours, twins = {'a': 0.9, 'b': 1.2}, {'a': 0.8, 'b': 1.0}
    found = multitask.relative_change(ours, twins, {'a': False, 'b': True})
    np.testing.assert_allclose(found, (0.1 / 0.8 - 0.2) / 2)


def test_there_is_no_relative_change_to_nothing():
    lower = {'a': False}
    for ours, twin in ((0.5, 0.0), (None, 0.5), (0.5, None), (float('nan'), 0.5)):
        assert multitask.relative_change({'a': ours}, {'a': twin}, lower) is None


def scored(task, value, stream='test'):
    scores = {f'{task}_accuracy': [value], 'loss': [1.0]}
    return {'members': [{'seed': 0}], 'scores': {stream: scores}}


def test_a_task_is_judged_on_the_stream_that_has_it():
    both = scored('a', 0.5)
    both['scores'] |= scored('b', 0.4, 'test_b')['scores']
    alone = {'a': scored('a', 0.25), 'b': scored('b', 0.8)}
    found = multitask.compare({'both': both}, alone, {'both': alone}, 'test')
    deltas = {t: one['rows'][1]['delta_mean'] for t, one in found['verdicts'].items()}
    assert deltas == pytest.approx({'a': 0.25, 'b': -0.4})
    assert found['relative_change']['both'] == pytest.approx([(1.0 - 0.5) / 2])


def test_a_study_goes_on_without_a_relative_change():
    alone = {'a': scored('a', 0.0)}
    found = multitask.compare({'one': scored('a', 0.5)}, alone, {'one': alone}, 'test')
    assert found['relative_change'] == {'one': [None]}


def test_a_task_that_no_stream_scores_is_named():
    alone = {'a': scored('a', 0.5)}
    with pytest.raises(ValueError, match=r"arm 'one' has no score of task 'a' .*\(test\)"):
        multitask.compare({'one': scored('b', 0.5)}, alone, {'one': alone}, 'test')


def test_streams_may_have_a_task_each():
    batch = {
        'one': {'image': jnp.zeros((2, 3)), 'label': {'label': jnp.array([1, 2])}},
        'two': {'image': jnp.ones((1, 3)), 'label': {'size': jnp.array([[0.5]])}},
        'rest': {'image': jnp.ones((4, 3))},
    }
    images, label = joined(batch, SPEC)
    assert images.shape == (3, 3)
    assert label['label'].tolist() == [1, 2, -1]
    assert label['tags'].tolist() == [[-1, -1]] * 3
    np.testing.assert_array_equal(label['size'], [[np.nan], [np.nan], [0.5]])


@pytest.mark.parametrize('branch', ['hidden1', ''])
def test_layers_behind_the_branch_are_each_tasks_own(branch, tmp_path):
    prepared = prepared_for('multitask', seeds=(0,), options={'branch': branch})
    params, _ = fit(prepared, tmp_path)
    assert set(params) == {'encoder', 'head'}
    own = {f'{task}_branch' for task in TASKS} if branch else set()
    assert set(params['head']) == own | set(TASKS)
    assert ('dense' in params['encoder']) == (not branch)


def problem(**options):
    """The method, its network, and values and a batch of two tasks, one label absent."""
    tasks = {'a': Task('classification', ('x', 'y')), 'b': Task('regression', ('v',))}
    spec = Spec((8, 8, 1), ('x', 'y'), tasks=tasks)
    method = built_for(tasks, **options)
    network = TaskNetwork.build(configs.checked(config()), spec)
    values = method.init(jax.random.key(0), spec)
    image = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))
    label = {'a': jnp.array([0, 1, 1, -1, 0]), 'b': jnp.linspace(-1, 1, 5)[:, None]}
    return method, network, values, {'source': {'image': image, 'label': label}}


def at_the_heads(network, mutable, batch):
    """`losses(head, what they read)` [T], and `shared(params)`, without the method."""
    image, label = batch['source']['image'], batch['source']['label']

    def losses(head, z):
        outputs, _ = network.heads.apply({'params': head}, z)
        return network.losses(outputs, label)

    return losses, lambda params: network.shared(params, mutable, image)[0]


def test_gradient_at_the_features_is_that_of_the_weighed_losses():
    options = {'balancer': 'mgda', 'at': 'features', 'balance': {'normalize': 'loss+'}}
    method, network, (params, mutable), batch = problem(**options)
    learn = method.phases[0].players[0].loss
    found = jax.grad(lambda p: learn(p, mutable, batch, HP, jax.random.key(2))[0])(params)
    losses, shared = at_the_heads(network, mutable, batch)
    z = shared(params)
    each = jax.jacobian(losses, argnums=1)(params['head'], z).reshape(2, -1)
    weights = mgda(each @ each.T, losses(params['head'], z), 'loss+')
    weighed = lambda p: weights @ losses(params['head'], shared(p))
    toys.close(found['encoder'], jax.grad(weighed)(params)['encoder'], 1e-4)
    plain = jax.grad(lambda head: losses(head, z).sum())(params['head'])
    toys.close(found['head'], plain, 1e-4)


def test_labels_are_smoothed():
    method, network, (params, mutable), batch = problem()
    value, _ = (
        method.phases[0]
        .players[0]
        .loss(params, mutable, batch, {'label_smoothing': 0.2}, jax.random.key(2))
    )
    image, label = batch['source']['image'], batch['source']['label']
    out, _ = network.heads.apply(
        {'params': params['head']}, network.shared(params, mutable, image)[0]
    )
    known, log = np.array([0, 1, 2, 4]), np.array(jax.nn.log_softmax(out['a']))
    right = log[known, np.array([0, 1, 1, 0])]
    smooth = -(0.8 * right + 0.2 * log[known].mean(axis=1)).mean()
    square = np.square(out['b'] - label['b']).mean()
    np.testing.assert_allclose(value, smooth + square, 1e-5)


@pytest.mark.parametrize(('platform', 'tasks', 'loops'), [('cpu', 3, 1), ('cuda', 3, 0)])
def test_an_accelerator_pulls_tasks_back_together(platform, tasks, loops):
    def each(x):
        _, pull = jax.vjp(lambda x: jnp.sin(x[:tasks]) * x.sum(), x)
        return of_tasks(lambda unit: pull(unit), tasks)

    x = jnp.arange(4.0)
    traced = jax.jit(each).trace(x)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('stablehlo.while') == loops
    wanted = jax.jacobian(lambda x: jnp.sin(x[:tasks]) * x.sum())(x)
    np.testing.assert_allclose(each(x), wanted, 1e-6)


def test_streams_of_bytes_and_of_floats_are_of_one_brightness():
    tasks = {'a': Task('classification', ('x', 'y')), 'b': Task('classification', ('x', 'y'))}
    label = jnp.zeros(2, jnp.int32)
    streams = {
        'first': {'image': jnp.full((2, 4, 4, 1), 128, jnp.uint8), 'label': {'a': label}},
        'second': {'image': jnp.full((2, 4, 4, 1), 0.5), 'label': {'b': label}},
    }
    images, labels = joined(streams, tasks)
    np.testing.assert_allclose(images[:, 0, 0, 0], [128 / 255] * 2 + [0.5] * 2, 1e-6)
    assert labels['a'].tolist() == [0, 0, -1, -1]


def test_options_reach_a_solver():
    method, _, (params, mutable), batch = problem(balancer='cagrad', balance={'c': 0.0})
    player = method.phases[0].players[0]
    loss = lambda own: player.loss(own, mutable, batch, HP, jax.random.key(2))
    _, found = player.gradient(loss, params, jax.random.key(3))
    mean = jax.grad(lambda own: loss(own)[0].mean())(params)
    toys.close(found['encoder'], mean['encoder'], 1e-5)


def test_the_balancer_sees_the_losses_as_the_step_did():
    """Where nothing has moved, no log loss has fallen, with norms in the encoder too."""
    tasks = {'a': Task('classification', ('x', 'y')), 'b': Task('regression', ('v',))}
    spec, c = Spec((8, 8, 1), ('x', 'y'), tasks=tasks), config(balancer='famo')
    c.net, c.options.balance = NORMED, {'decay': 0.0}
    method, batch = build_method(configs.checked(c), spec), problem()[3]
    params, mutable = method.init(jax.random.key(0), spec)
    learn, follow = method.phases[0].players
    _, (_, after) = learn.loss(params, mutable, batch, HP, jax.random.key(1))
    same = lambda own: follow.loss({**params, 'balance': own}, after, batch, HP, jax.random.key(2))
    slope = jax.grad(lambda own: same(own)[0])(params['balance'])['w']
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_affinities_are_means_over_the_steps_that_were_taken():
    method, *_ = problem(affinity=True)
    sums = {'cosine': 3 * jnp.eye(2), 'lookahead': jnp.ones((2, 2)), 'steps': jnp.array(3.0)}
    found = method.outcome({}, {'affinity': sums})
    assert set(found) == {'cosine', 'lookahead'}
    np.testing.assert_allclose(found['cosine'], np.eye(2))


def test_norms_of_gradients_move_nothing_but_the_weights():
    method, network, (params, mutable), batch = problem(balancer='gradnorm')
    params['balance'] = {'v': jnp.array([0.4, -0.3])}
    learn = method.phases[0].players[0].loss
    loss = lambda p: learn(p, mutable, batch, HP, jax.random.key(2))
    (value, (_, after)), found = jax.value_and_grad(loss, has_aux=True)(params)
    losses, shared = at_the_heads(network, mutable, batch)
    weights = 2 * jax.nn.softmax(params['balance']['v'])
    weighed = lambda p: weights @ losses(p['head'], shared(p))
    np.testing.assert_allclose(value, weighed(params), 1e-5)
    plain = jax.grad(weighed)(params)
    toys.close(found['encoder'], plain['encoder'], 1e-4)
    toys.close(found['head'], plain['head'], 1e-4)
    each = jax.jacobian(losses, argnums=1)(params['head'], shared(params)).reshape(2, -1)
    norms, now = jnp.linalg.norm(each, axis=1), losses(params['head'], shared(params))
    steer = lambda own: gradnorm().steer(own, mutable['balance'], now, norms)[0]
    toys.close(found['balance'], jax.grad(steer)(params['balance']), 1e-4)
    np.testing.assert_allclose(after['balance']['first'], now, 1e-5)


def test_affinities_are_those_by_hand():
    stretch, centres = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 1.0], [2.0, 0.0]])
    value = lambda x: (stretch * (x - centres) ** 2).sum(axis=1)
    x = np.array([1.0, 1.5])
    g = 2 * stretch * (x - centres)
    found = affinities(lambda p: value(p['w']), {'w': jnp.array(x)}, 0.1)
    cosine = g[0] @ g[1] / np.linalg.norm(g[0]) / np.linalg.norm(g[1])
    np.testing.assert_allclose(found['cosine'], [[1, cosine], [cosine, 1]], 1e-5)
    wanted = [1 - value(x - 0.1 * step) / value(x) for step in g]
    np.testing.assert_allclose(found['lookahead'], wanted, 1e-4)


def built_for(tasks, **options):
    return build_method(
        configs.checked(config(**options)), Spec((8, 8, 1), ('x', 'y'), tasks=tasks)
    )


@pytest.mark.parametrize('balancer', ['uncertainty', 'famo', 'gradnorm', 'pcgrad'])
def test_balancers_train_in_a_run(balancer, tmp_path):
    prepared = prepared_for('multitask', seeds=(0,), options={'balancer': balancer})
    before = jax.tree.map(np.array, prepared.values[0])
    params, _ = fit(prepared, tmp_path)
    assert ('balance' in params) == (balancer != 'pcgrad')
    for leaf, was in zip(
        jax.tree.leaves(params.get('balance', {})),
        jax.tree.leaves(before.get('balance', {})),
        strict=True,
    ):
        assert (leaf != was).any()


@pytest.mark.parametrize('balancer', ['famo', 'gradnorm'])
def test_weights_of_tasks_have_a_rate_of_their_own(balancer, tmp_path):
    """Adam's first step is its rate, whatever the network's is."""
    options = {'balancer': balancer, 'balance': {'rate': 0.125}}
    prepared = prepared_for(
        'multitask', seeds=(0,), options=options, steps=1, **{'hparams.rate': 1e-3}
    )
    (moved,) = jax.tree.leaves(fit(prepared, tmp_path)[0]['balance'])
    np.testing.assert_allclose(np.abs(moved), 0.125, 1e-3)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'balancer': 'mdga'}, "unknown balancer 'mdga'.*did you mean 'mgda'"),
        ({'at': 'heads'}, "unknown options.at 'heads'"),
        ({'branch': 'stage9'}, "unknown endpoint .*'stage9'"),
        ({'sharing': 'mtann'}, "unknown options.sharing 'mtann'.*did you mean 'mtan'"),
        (
            {'balancer': 'cagrad', 'balance': {'cc': 0.5}},
            "of cagrad in options.balance 'cc': there are c",
        ),
        ({'balancer': 'dwa', 'balance': {'c': 0.5}}, "of dwa .*'c': there are temperature, window"),
        ({'balancer': 'dwa', 'at': 'features'}, "which balancer 'dwa' does not look at"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(configs.checked(config(**changes)))


def test_a_method_of_several_tasks_needs_them():
    with pytest.raises(ValueError, match='needs several label columns'):
        built('multitask')


def test_tasks_of_one_name_have_to_be_alike():
    c = config(('label',))
    c.data.evaluate.test.update(classes=(0, 1, 2))
    with pytest.raises(ValueError, match="task 'label' is Task"):
        prepare(configs.checked(c))


def test_a_branched_net_is_its_layers_task_by_task():
    """At a stage of convolutions and norms, by its formula; MGDA-UB reads the maps there."""
    tasks = {'a': Task('classification', ('x', 'y')), 'b': Task('regression', ('v',))}
    c = config(balancer='mgda', at='features', branch='stage1')
    c.net = {'name': 'resnet', 'widths': (4, 8, 8), 'input': {'size': 8, 'channels': 1}}
    spec = Spec((8, 8, 1), ('x', 'y'), tasks=tasks)
    method = build_method(configs.checked(c), spec)
    params, mutable = method.init(jax.random.key(0), spec)
    assert set(params['encoder']) == {'stem', 'stage1'}
    image = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    found = method.predict(params, mutable, image)['tasks']
    net = encoder(configs.checked(c))
    for task in tasks:
        own = params['head'][f'{task}_branch']
        values = {'params': {**params['encoder'], **own}}
        for name, tree in mutable['encoder'].items():
            values[name] = {**tree, **mutable['head'][name][f'{task}_branch']}
        z = net.apply(values, net.input.normalise(image))
        head = params['head'][task]
        np.testing.assert_allclose(found[task], z @ head['kernel'] + head['bias'], 1e-4, 1e-5)
    label = {'a': jnp.array([0, 1, 1, 0]), 'b': jnp.ones((4, 1))}
    learn = method.phases[0].players[0].loss
    batch = {'source': {'image': image, 'label': label}}
    slope = jax.grad(lambda p: learn(p, mutable, batch, HP, jax.random.key(2))[0])(params)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope['encoder']))
