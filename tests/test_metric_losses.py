"""Losses of embeddings against loops over the formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.losses import metric

R = np.random.RandomState(0)
X, Y = R.randn(12, 5).astype(np.float32), R.randn(12, 5).astype(np.float32)
LABEL = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4])
SAME = R.rand(12) < 0.5


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, 2e-5, 1e-6)


def apart(a, b):
    return np.linalg.norm(a.astype(float) - b)


def cosine(a, b):
    return a.astype(float) @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_contrastive():
    terms = [
        0.5 * apart(x, y) ** 2 if s else 0.5 * max(0, 3 - apart(x, y)) ** 2
        for x, y, s in zip(X, Y, SAME, strict=True)
    ]
    close(metric.contrastive(X, Y, SAME, margin=3.0), np.mean(terms))


def test_contrastive_gradient_is_finite_at_zero():
    gradient = jax.grad(lambda x: metric.contrastive(x, jnp.asarray(X), jnp.asarray(SAME)))(X)
    assert np.isfinite(gradient).all()


def test_weighted_l1_and_its_cross_entropy():
    weights, bias = R.randn(5), 0.3
    logits = metric.weighted_l1(X, Y, weights, bias)
    by_hand = [
        sum(w * abs(a - b) for w, a, b in zip(weights, x, y, strict=True)) + bias
        for x, y in zip(X, Y, strict=True)
    ]
    close(logits, by_hand)
    p = 1 / (1 + np.exp(-np.array(by_hand)))
    kinds = np.mean(np.log(p[SAME])), np.mean(np.log(1 - p[~SAME]))
    close(metric.pair_cross_entropy(logits, SAME), -sum(kinds) / 2)


def test_triplet_hard():
    terms = []
    for i in range(12):
        positive = [apart(X[i], X[j]) for j in range(12) if j != i and LABEL[j] == LABEL[i]]
        negative = [apart(X[i], X[j]) for j in range(12) if LABEL[j] != LABEL[i]]
        terms.append(max(0, 0.5 + max(positive) - min(negative)))
    close(metric.triplet(X, LABEL, 0.5, 'hard'), np.mean(terms))


def test_triplet_semi_hard():
    terms = []
    for i in range(12):
        negative = [apart(X[i], X[j]) for j in range(12) if LABEL[j] != LABEL[i]]
        for j in range(12):
            if j != i and LABEL[j] == LABEL[i]:
                near = apart(X[i], X[j])
                beyond = [n for n in negative if n > near]
                terms.append(max(0, 0.5 + near - (min(beyond) if beyond else max(negative))))
    close(metric.triplet(X, LABEL, 0.5, 'semi'), np.mean(terms))


def test_triplet_of_one_class_is_zero_and_finite():
    for mining in ('hard', 'semi'):
        loss, gradient = jax.value_and_grad(metric.triplet)(X, np.zeros(12, int), 0.5, mining)
        assert loss == 0
        assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="mining='soft'"):
        metric.triplet(X, LABEL, 0.5, 'soft')


def test_supervised_contrastive():
    terms = []
    for i in range(12):
        total = sum(np.exp(cosine(X[i], X[a]) / 0.2) for a in range(12) if a != i)
        inner = [
            np.log(np.exp(cosine(X[i], X[p]) / 0.2) / total)
            for p in range(12)
            if p != i and LABEL[p] == LABEL[i]
        ]
        terms.append(-np.mean(inner))
    close(metric.supervised_contrastive(X, LABEL, 0.2), np.mean(terms))


def test_info_nce():
    similar = np.exp([[cosine(x, y) / 0.2 for y in Y] for x in X])
    close(metric.info_nce(X, Y, 0.2), -np.mean(np.log(np.diag(similar) / similar.sum(1))))


def test_n_pairs():
    """Sohn's form: log(1 + sum_{j != i} exp(x_i . y_j - x_i . y_i))."""
    near = X.astype(float) @ Y.T.astype(float)
    terms = [
        np.log1p(sum(np.exp(row[j] - row[i]) for j in range(len(row)) if j != i))
        for i, row in enumerate(near)
    ]
    close(metric.info_nce(X, Y, 1.0, 'dot'), np.mean(terms))
    with pytest.raises(ValueError, match="similarity='l2': there are 'cosine' and 'dot'"):
        metric.info_nce(X, Y, 1.0, 'l2')


def test_prototypical():
    support, query = X.reshape(3, 4, 5), Y
    centres = [support[k].astype(float).mean(0) for k in range(3)]
    close(
        metric.prototypical_logits(support, query),
        [[-(apart(q, c) ** 2) for c in centres] for q in query],
    )


def test_matching():
    support = X.reshape(3, 4, 5)
    found = metric.matching_logits(support, Y, 5.0)
    for q, ours in zip(Y, found, strict=True):
        weight = np.exp([[5 * cosine(q, x) for x in of_class] for of_class in support])
        close(np.exp(ours), weight.sum(1) / weight.sum())
