"""Scores against scikit-learn: exact whatever the block size, per member, padding left out."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from tests import toys
from tljax import train
from tljax.data import streams as data
from tljax.evaluation import classification

CLASSES = 3


def predict(params, mutable, images):
    """Logits of a linear map: one matrix for each member."""
    x = data.unit(images).reshape(len(images), -1)
    return {'logits': x @ params['kernel'] + mutable['bias'], 'features': x}


def values(members, seed=0):
    random = np.random.RandomState(seed)
    kernel = jnp.asarray(random.randn(members, 4, CLASSES), jnp.float32)
    return {'kernel': kernel}, {'bias': jnp.asarray(random.randn(members, CLASSES), jnp.float32)}


def judged(stream, members, size, how='vmap'):
    lift = partial(train.lift, members=members, how=how)
    judge = classification.judge(predict)
    return data.over_blocks(judge, stream, lift, size)(values(members))


def expected(stream, m, members, rows):
    params, mutable = values(members)
    x = stream.image[rows].reshape(len(rows), -1) / 255
    logits = x @ np.asarray(params['kernel'][m], np.float64) + np.asarray(mutable['bias'][m])
    label, predicted = stream.source.labels[rows], logits.argmax(1)
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {
        'accuracy': metrics.accuracy_score(label, predicted),
        'per_class_accuracy': metrics.balanced_accuracy_score(label, predicted),
        'loss': metrics.log_loss(label, soft, labels=range(CLASSES)),
        'confusion': metrics.confusion_matrix(label, predicted, labels=range(CLASSES)).tolist(),
    }


@pytest.mark.parametrize('fed', [False, True])
@pytest.mark.parametrize(('members', 'how'), [(1, 'vmap'), (3, 'vmap'), (3, 'map')])
def test_scores_of_every_member(members, how, fed):
    resident = toys.stream('test', toys.source(53), members=members)
    stream = toys.stream('test', toys.source(53), members=members, fed=fed)
    found = classification.scores(judged(stream, members, 16, how), CLASSES)
    assert found['count'] == 53
    for m in range(members):
        wanted = expected(resident, m, members, np.arange(53))
        assert found['confusion'][m] == wanted['confusion']
        for name in ('accuracy', 'per_class_accuracy', 'loss'):
            assert found[name][m] == pytest.approx(wanted[name], rel=1e-5), name


@pytest.mark.parametrize('size', [1, 7, 52, 53, 54, 500])
def test_the_block_size_changes_nothing(size):
    stream = toys.stream('test', toys.source(53))
    found, whole = (judged(stream, 1, block) for block in (size, 53))
    for name in ('predicted', 'label', 'valid'):
        np.testing.assert_array_equal(found[name], whole[name])
        assert found[name].shape == (1, 53)
    assert found['valid'].all()
    np.testing.assert_allclose(found['loss'], whole['loss'], rtol=1e-5)


def test_members_with_subsets_are_judged_on_their_own():
    of = toys.source(60)
    order, count = data.select(of, [0, 1], [2, 5])
    stream = data.resident(data.Stream('test', of, order, count, 8), 1024)
    kept = judged(stream, 2, 4)
    found = classification.scores(kept, CLASSES)
    for m, few in enumerate((6, 15)):
        wanted = expected(stream, m, 2, order[m, :few])
        assert kept['valid'][m].sum() == few
        assert found['confusion'][m] == wanted['confusion']
        assert found['loss'][m] == pytest.approx(wanted['loss'], rel=1e-5)


def test_scores_by_hand():
    kept = {
        'label': np.array([[0, 0, 0, 2, 1]]),
        'predicted': np.array([[0, 0, 1, 2, 1]]),
        'loss': np.array([[1.0, 2.0, 3.0, 6.0, 100.0]]),
        'valid': np.array([[True, True, True, True, False]]),
    }
    found = classification.scores(kept, 4)
    assert found['accuracy'] == [0.75]
    assert found['per_class_accuracy'] == [pytest.approx((2 / 3 + 1) / 2)]  # of 0 and 2
    assert found['loss'] == [3.0]
    assert found['confusion'] == [[[2, 1, 0, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]]
    assert found['count'] == 4
