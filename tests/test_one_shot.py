"""Protocols of unseen classes: cases computed by hand, and scikit-learn's ROC."""

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from configs import one_shot
from tljax import config as configs
from tljax import inputs
from tljax.data.sources import Source
from tljax.data.streams import Stream
from tljax.evaluation import few_shot, unseen, verification
from tljax.methods import embedding
from tljax.prepare import prepare

R = np.random.RandomState(0)


def source(labels, classes):
    return Source('toy', classes, np.asarray(labels), lambda row: None, (1, 1, 1))


def test_ties_are_wrong():
    episodes = few_shot.Episodes(np.array([[[0], [1]]]), np.array([[[2], [3]]]))
    features = np.array([[0.0], [2.0], [0.5], [1.0]])
    found = few_shot.scores(features, episodes, 'euclidean')
    assert found['accuracy'] == 0.5, 'the second query lies amid both'
    assert few_shot.scores(np.zeros((4, 1)), episodes, 'manhattan')['accuracy'] == 0


def test_interval_and_loss_by_hand():
    episodes = few_shot.Episodes(
        np.array([[[0], [1]]] * 3), np.array([[[2], [3]], [[2], [2]], [[3], [3]]])
    )
    features = np.array([[0.0], [4.0], [1.0], [3.0]])
    found = few_shot.scores(features, episodes, 'euclidean')
    right = [1.0, 0.5, 0.5]
    assert found['accuracy'] == pytest.approx(2 / 3)
    assert found['interval'] == pytest.approx(1.96 * np.std(right, ddof=1) / np.sqrt(3))
    own, other = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert found['loss'] == pytest.approx((4 * own + 2 * other) / 6)


def test_drawn_episodes():
    labels = np.repeat(np.arange(8), 6)
    episodes = few_shot.drawn(labels, 4, 2, 3, 20, seed=0)
    for support, query in zip(*episodes, strict=True):
        assert len({*support.ravel(), *query.ravel()}) == 4 * 5
        assert (labels[support] == labels[support][:, :1]).all()
        assert (labels[query] == labels[support][:, :1]).all()
        assert len(set(labels[support][:, 0])) == 4


def test_within_groups_by_different_drawers():
    labels, groups = np.repeat(np.arange(8), 6), np.array([0, 0, 0, 1, 1, 1, 1, 2])
    episodes = few_shot.drawn(labels, 3, 1, 1, 10, 0, groups)
    for number, (support, query) in enumerate(zip(*episodes, strict=True)):
        assert set(groups[labels[support]].ravel()) == {number % 2}
        assert len(set(support.ravel() % 6)) == len(set(query.ravel() % 6)) == 1
        assert support[0, 0] % 6 != query[0, 0] % 6
    with pytest.raises(ValueError, match='5 classes in one group with 2 examples each'):
        few_shot.drawn(labels, 5, 1, 1, 1, 0, groups)


def test_listed_runs():
    labels = np.array([3, 5, 5, 3, 1, 2, 1, 2])
    episodes = few_shot.listed(labels, 2)
    np.testing.assert_array_equal(episodes.support[..., 0], [[0, 1], [4, 5]])
    np.testing.assert_array_equal(episodes.query[..., 0], [[3, 2], [6, 7]])
    with pytest.raises(ValueError, match='runs of 2 supports and 2 queries'):
        few_shot.listed(np.array([0, 1, 2, 1]), 2)


@pytest.mark.parametrize('digits', [1, 6])  # with one, there are many ties
def test_roc_is_scikit_learns(digits):
    same = R.rand(300) < 0.5
    distance = np.round(R.rand(300) + 0.4 * ~same, digits)
    far, tar, _ = verification.roc(distance, same)
    theirs = metrics.roc_curve(same, -distance, drop_intermediate=False)
    np.testing.assert_allclose(far, theirs[0])
    np.testing.assert_allclose(tar, theirs[1])
    assert verification.area(far, tar) == pytest.approx(metrics.roc_auc_score(same, -distance))


def test_rates_by_hand():
    distance = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    same = np.array([True, True, False, True, False, False])
    far, tar, _ = verification.roc(distance, same)
    assert verification.equal_error_rate(far, tar) == pytest.approx(1 / 3)
    assert verification.accept_rate(far, tar, 0.0) == pytest.approx(2 / 3)
    assert verification.accept_rate(far, tar, 0.4) == 1
    assert verification.threshold(distance, same) == 2.5
    with pytest.raises(ValueError, match='pairs of one class and pairs of two'):
        verification.roc(distance, np.ones(6, bool))


def test_lambda_comes_from_the_other_half():
    features = np.array([[0.0], [0.1], [5.0], [9.0]])
    pairs = verification.Pairs(
        np.array([0, 0, 0, 0]), np.array([1, 2, 1, 3]), np.array([True, False] * 2)
    )
    found = verification.scores(features, verification.Trials(pairs), 'euclidean')
    assert 'validated_accuracy' not in found
    assert found['accuracy'] == 1
    assert found['auc'] == 1
    assert found['threshold'] == pytest.approx((0.1 + 5) / 2)


def test_pairs_are_balanced():
    labels = np.array([0, 0, 1, 1, 1, 2])
    pairs = verification.pairs(labels, 50, 0)
    np.testing.assert_array_equal(labels[pairs.one] == labels[pairs.other], pairs.same)
    assert pairs.same.sum() == 25
    assert (pairs.one != pairs.other).all()


@pytest.mark.parametrize('groups', [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 1, 1, 1, 1, 1], [0] * 8])
def test_lambda_is_chosen_on_classes_that_are_not_tested(groups):
    """Whole groups are held out, or classes where that would leave too few."""
    labels, groups = np.repeat(np.arange(8), 3), np.array(groups)
    trials = verification.drawn(labels, groups, 40, 0)
    own, other = (
        {*labels[one.one], *labels[one.other]} for one in (trials.validation, trials.test)
    )
    assert (own & other, own | other) == (set(), set(range(8)))
    if groups.max() == 3:
        assert not {*groups[[*own]]} & {*groups[[*other]]}
    for pairs in trials:
        np.testing.assert_array_equal(labels[pairs.one] == labels[pairs.other], pairs.same)
    np.testing.assert_array_equal(trials.every.one, verification.pairs(labels, 40, 0).one)
    assert verification.drawn(labels[:9], groups, 40, 0).test is None, 'three classes'


@pytest.mark.parametrize('metric', ['euclidean', 'manhattan'])
def test_accuracy_by_lambda_of_other_classes(metric):
    """Validation classes are 10 apart and others 1, all with examples 0.1 apart."""
    validation = verification.Pairs(np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    test = verification.Pairs(np.array([4, 4, 4]), np.array([5, 6, 7]), np.array([1, 0, 0]) > 0)
    both = verification.Pairs(*(np.concatenate(one) for one in zip(validation, test, strict=True)))
    features = np.array([[0.0], [0.1], [10.0], [0], [20.0], [20.1], [21.0], [26.0]])
    found = verification.scores(features, verification.Trials(both, validation, test), metric)
    assert found['validated_threshold'] == pytest.approx((0.1 + 10) / 2)
    assert found['validated_accuracy'] == pytest.approx(2 / 3), 'those 1 apart pass for one class'


def test_scores_of_members():
    own = source(np.repeat([0, 1], 4), ('a/1', 'a/2'))
    features = np.stack([own.labels[:, None] * 1.0, np.zeros((8, 1))])
    found = unseen.scores({'features': features}, own, 'episode:2x1x2:5', 'euclidean')
    assert found['accuracy'] == [1.0, 0.0]


def test_protocols_in_words():
    words = {
        'episode:5x1x15:1000': '1000 5-way 1-shot episodes',
        'within:20x1x1:20': '20 20-way 1-shot episodes within a group',
        'runs:20': 'the listed 20-way 1-shot runs',
        'pairs:9': '9 pairs',
    }
    assert {protocol: unseen.words(protocol) for protocol in words} == words


@pytest.mark.parametrize('protocol', ['episode:5x1:3', 'pears:3', 'pairs:0', 'runs'])
def test_what_is_no_protocol_is_refused(protocol):
    with pytest.raises(ValueError, match=f"toy: protocol='{protocol}': expected 'episode:WAY"):
        unseen.check(protocol, source([0, 1], ('a', 'b')))


def test_classes_trained_on_are_not_unseen():
    c = one_shot.get_config('sklearn:digits,frozen')
    c.data.streams.source.update(classes=(), only=(0, 1, 5, 7))
    message = (
        r"streams 'source' \(sklearn:digits \(train\)\) and 'five' \(sklearn:digits \(test\)\) "
        r"share 2 of 5 classes: '5', '7'; protocol='episode:5x5x15:1000' is for classes never tr"
    )
    with pytest.raises(ValueError, match=message):
        prepare(configs.merged(c, {}))


def test_splits_and_sets_that_share_no_class_are_unseen():
    def stream(name, classes, labels=(0, 1), **options):
        one = source(labels, classes)._replace(name=name)
        return Stream('s', one, np.zeros((1, 2)), np.ones(1), 2, **options)

    a = stream('tfds:omniglot/28 (background)', ('A/c1', 'A/c2'))
    b = stream('tfds:omniglot/28 (evaluation)', ('B/c1', 'B/c2'), protocol='pairs:9')
    for one, other in (
        (a, b),
        (
            stream('folder:x (all)', ('a', 'b'), (0, 0)),
            stream('folder:x (all)', ('b',), (0,), protocol='pairs:9'),
        ),
        (a, a._replace(source=a.source._replace(name='tfds:other (test)'), protocol='pairs:9')),
        (a._replace(labelled=False), a._replace(protocol='pairs:9')),
        (a, a),
    ):
        inputs.check_unseen(one, other)
    part = stream('tfds:omniglot/28 (evaluation[:50%], 9 sampled)', ('B/c1', 'B/c2'), (1, 1))
    with pytest.raises(ValueError, match="share 1 of 2 classes: 'B/c2'"):
        inputs.check_unseen(part, b)


@pytest.fixture
def people(tmp_path):
    """Six identities with three photos each."""
    for person in 'abcdef':
        (tmp_path / person).mkdir()
        for k in range(3):
            photo = R.randint(0, 256, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(photo).save(tmp_path / person / f'{k}.png')
    return tmp_path


def test_a_folder_of_identities_is_split_by_identity(people):
    c = one_shot.get_config(f'folder:{people},siamese')
    old, new = c.data.streams.source.classes, c.data.evaluate.test.classes
    assert sorted((*old, *new)) == list('abcdef')
    assert len(new) == 2
    assert c.data.evaluate.pairs.classes == new
    assert c.runs.siamese.data.streams.source.draw == 'episode:4x1x2'
    same = one_shot.get_config(f'folder:{people},frozen')
    assert same.data.streams.source.classes == old


def test_a_folder_of_identities_is_ready_to_train(people):
    c = one_shot.get_config(f'folder:{people},infonce')
    ready = prepare(configs.merged(c, c.runs.infonce))
    np.testing.assert_array_equal(np.bincount(ready.streams['source'].source.labels), [3] * 4)
    assert ready.held['test'].source.classes == tuple(c.data.evaluate.test.classes)


@pytest.mark.parametrize('method', one_shot.DRAWS)
def test_ten_people_with_four_photos_each_are_enough(method, tmp_path):
    for person in 'abcdefghij':
        (tmp_path / person).mkdir()
        for k in range(4):
            Image.new('L', (4, 4)).save(tmp_path / person / f'{k}.png')
    c = one_shot.get_config(f'folder:{tmp_path},{method}')
    ready = prepare(configs.merged(c, c.runs[method]))
    draw = ready.streams['source'].draw
    assert getattr(draw, 'way', 8) == 8
    assert draw.per_class == {'infonce': 2, 'siamese_contrastive': 2}.get(method, 4)


def test_classes_with_few_images_lower_the_queries_or_the_way():
    counts = np.array([9, 9, 4, 3, 1, 1])
    assert one_shot.fitting('episode:20x1x5', counts) == 'episode:4x1x2'
    assert one_shot.fitting('episode:2x1x5', counts) == 'episode:2x1x5'
    assert one_shot.fitting('episode:20x2x2', counts) == 'episode:4x2x1'
    with pytest.raises(ValueError, match='1 of 3 classes to train on have 3 images, as draw='):
        one_shot.fitting('episode:20x2x2', np.array([9, 2, 1]))


def test_people_of_whom_there_is_one_photo_are_refused(tmp_path):
    for person in 'abcdef':
        (tmp_path / person).mkdir()
        Image.new('L', (4, 4)).save(tmp_path / person / '1.png')
    with pytest.raises(ValueError, match='too few classes have two images: 0 of 2 to test on'):
        one_shot.get_config(f'folder:{tmp_path},siamese')


def test_too_few_identities_are_refused(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        Image.new('L', (4, 4)).save(tmp_path / name / '1.png')
    with pytest.raises(ValueError, match='has 2 classes; expected 4 or more'):
        one_shot.get_config(f'folder:{tmp_path},siamese')


def test_the_full_schedule_is_never_the_shorter_one():
    steps = lambda *fields: one_shot.get_config(','.join(fields)).runs[fields[1]].get('steps', 0)
    for data in ('omniglot', 'omniglot_between', 'omniglot_koch'):
        for method in ('siamese', 'prototypical'):
            full = steps(data, method, 'full')
            assert full >= 20_000
            assert full >= steps(data, method)
    assert steps('omniglot_koch', 'siamese', 'full') == 90_000


@pytest.mark.parametrize('data', one_shot.SETS)
def test_every_set_has_pairs_to_choose_lambda_on(data):
    c = one_shot.get_config(f'{data},siamese')
    pairs, test = c.data.evaluate.pairs, c.data.evaluate.test
    assert pairs.protocol.startswith('pairs:')
    assert [pairs[key] for key in ('dataset', 'split', 'classes')] == [
        test[key] for key in ('dataset', 'split', 'classes')
    ]


@pytest.mark.parametrize(('similarity', 'unit'), [('cosine', True), ('dot', False)])
def test_features_of_n_pairs_keep_their_length(similarity, unit):
    c = one_shot.get_config('sklearn:digits,infonce')
    changes = {'options': {'similarity': similarity}, 'members': {'seed': (0,)}}
    ready = prepare(configs.merged(configs.merged(c, c.runs.infonce), changes))
    values = jax.tree.map(lambda x: x[0], ready.values)
    images = R.randint(0, 256, (3, *ready.spec.image)).astype(np.uint8)
    length = np.linalg.norm(ready.method.predict(*values, images)['features'], axis=1)
    assert np.allclose(length, 1, atol=1e-3) == unit
    with pytest.raises(ValueError, match=r"options\.similarity='l2': there are 'cosine' and 'dot'"):
        embedding.infonce(None, None, None, similarity='l2')
