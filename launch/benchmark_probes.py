"""The probe sweep of `benchmark.py`: ours beside scikit-learn's and a PyTorch loop.

Features are drawn with the spectrum of a net's: variances that fall as a power of their rank.
"""

import time

import jax
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from tljax import shallow
from tljax.shallow import select


def examples(count: int, width: int, classes: int, seed: int = 0):
    """`(features, labels)`: [N, D] float32 and [N]."""
    rng = np.random.default_rng(seed)
    spread = (1 + np.arange(width)) ** -0.5
    basis, _ = np.linalg.qr(rng.normal(size=(width, width)))
    labels = np.arange(count) % classes
    means = 0.15 * rng.normal(size=(classes, width))
    latent = (means[labels] + rng.normal(size=(count, width))) * spread * 5
    return (latent @ basis).astype(np.float32), labels.astype(np.int32)


def halves(count: int, seeds: int, share: float = 0.8) -> np.ndarray:
    """[S, N] bool: what each seed trains on."""
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(count) < share * count for _ in range(seeds)])


def ours(probe: str, features, labels, chosen, strengths):
    """A function that sweeps all strengths for all seeds: accuracies on the rest [S, R]."""
    weights = chosen.astype(np.float32)
    train = select.Examples(features, labels, weights)
    held = select.Examples(features, labels, 1 - weights)
    solver, classes = shallow.probe(probe), int(labels.max()) + 1
    grid = np.asarray(strengths, np.float32)
    return lambda: np.asarray(
        jax.block_until_ready(select.choose(solver, grid, train, held, classes=classes)).curve
    )


def scikit(probe: str, features, labels, chosen, strengths):
    """The same, fit by fit. Of weak penalties its default tolerance stops well before the minimum:
    after 14 iterations at a held-out accuracy of 54 %, where the minimum has 78 %.
    """

    def run():
        curves = []
        for one in chosen:
            x, y, x_held, y_held = features[one], labels[one], features[~one], labels[~one]
            models = [
                RidgeClassifier(alpha=strength)
                if probe == 'ridge'
                else LogisticRegression(C=1 / strength, max_iter=3000, tol=1e-6)
                for strength in strengths
            ]
            curves.append([model.fit(x, y).score(x_held, y_held) for model in models])
        return np.asarray(curves)

    return run


def torch_loop(probe: str, features, labels, chosen, strengths):
    """Logistic regression fit by fit with PyTorch's L-BFGS, to the tolerance of `scikit`."""
    assert probe == 'logistic'
    x_all, y_all = torch.from_numpy(features), torch.from_numpy(labels).long()
    classes = int(labels.max()) + 1

    def fit(x, y, strength):
        weight = torch.zeros(classes, x.shape[1], requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=3000, tolerance_grad=1e-6, line_search_fn='strong_wolfe'
        )

        def objective():
            solver.zero_grad()
            loss = F.cross_entropy(F.linear(x, weight, bias), y)
            loss = loss + 0.5 * strength / len(x) * (weight**2).sum()
            loss.backward()
            return loss

        solver.step(objective)
        return weight.detach(), bias.detach()

    def run():
        curves = []
        for one in torch.from_numpy(chosen):
            x, y, held, y_held = x_all[one], y_all[one], x_all[~one], y_all[~one]
            models = [fit(x, y, strength) for strength in strengths]
            right = [(F.linear(held, *model).argmax(1) == y_held) for model in models]
            curves.append([float(one.float().mean()) for one in right])
        return np.asarray(curves)

    return run


def timed(call):
    start = time.perf_counter()
    return call(), time.perf_counter() - start
