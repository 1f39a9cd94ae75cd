"""Zero-shot protocols: among which classes the answer is sought, and the generalised scores.

A held out stream that is answered `among` the unseen classes gives the conventional accuracy T1,
the 'per_class_accuracy' of `classification.scores`. The generalised protocol of Xian et al. 2018,
arXiv:1707.00600, section 3.3, answers two streams among all classes: other examples of the classes
seen, 'seen', and all of those never seen, 'unseen'; it reports both accuracies and their harmonic
mean, which is high only where both are.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tljax.shallow.zero_shot import harmonic_mean
from tljax.types import Spec, unknown

AMONG = ('', 'seen', 'unseen')
PAIR = ('seen', 'unseen')  # the held out streams of the generalised protocol


def candidates(spec: Spec, among: str) -> np.ndarray | None:
    """The classes that an answer may be: [C] bool, or None for all.

    Raises:
      ValueError: `among` is none of `AMONG`, or leaves no class.
    """
    if among not in AMONG:
        raise unknown('among', among, AMONG)
    if not among:
        return None
    seen = np.isin(np.arange(len(spec.classes)), spec.seen)
    allowed = seen if among == 'seen' else ~seen
    if not allowed.any():
        raise ValueError(
            f'among={among!r} leaves no class: training streams have examples of '
            f'{len(spec.seen)} of the {len(spec.classes)} classes'
        )
    return allowed


def generalised(
    scores: Mapping[str, Mapping], judged: Mapping[str, Mapping], seen_classes: Sequence[int]
) -> dict[str, list[float]]:
    """What joins two streams, a number a member.

    Args:
      scores: stream -> scores.
      judged: stream -> 'logits' [M, N, C], 'label' and 'valid' [M, N].
      seen_classes: their labels.

    Returns:
      'harmonic_mean', 2 s u / (s + u) of their per-class accuracies, and 'best_calibration', which
      a run on other classes may take off the scores of seen ones; nothing, unless both streams of
      `PAIR` are there.
    """
    if not set(PAIR) <= set(scores):
        return {}
    both = [judged[name] for name in PAIR]
    best = [
        best_calibration(
            [one['logits'][m][one['valid'][m]] for one in both],
            [one['label'][m][one['valid'][m]] for one in both],
            np.isin(np.arange(both[0]['logits'].shape[-1]), seen_classes),
        )
        for m in range(len(both[0]['label']))
    ]
    seen, unseen = (np.asarray(scores[name]['per_class_accuracy']) for name in PAIR)
    return {'harmonic_mean': harmonic_mean(seen, unseen).tolist(), 'best_calibration': best}


def best_calibration(
    logits: Sequence[np.ndarray], labels: Sequence[np.ndarray], seen: np.ndarray
) -> float:
    """What to take off the scores of seen classes for the best harmonic mean: exact.

    Chao et al. 2016, arXiv:1605.04253, equation 7. An example is answered by its best seen class as
    long as that is ahead of its best unseen one by more than the calibration.

    Args:
      logits: [N, C] of examples of seen classes, and of unseen ones.
      labels: [N] of each.
      seen: [C] bool; some are, some are not.

    Returns:
      the middle of the best interval, in which no example's answer changes.
    """
    ahead, worth = [], []
    for scores, label, own in zip(logits, labels, (seen, ~seen), strict=True):
        best = [np.where(group, scores, -np.inf) for group in (seen, ~seen)]
        ahead.append(best[0].max(axis=1) - best[1].max(axis=1))
        right = np.where(own, scores, -np.inf).argmax(axis=1) == label
        count = np.bincount(label, minlength=len(seen))
        worth.append(right / (count[label] * (count > 0).sum()))
    edges = np.unique(np.concatenate(ahead))
    middle = np.concatenate([edges[:1] - 1, (edges[1:] + edges[:-1]) / 2, edges[-1:] + 1])
    kept = [_total_up_to(a, w, middle) for a, w in zip(ahead, worth, strict=True)]
    return float(middle[harmonic_mean(worth[0].sum() - kept[0], kept[1]).argmax()])


def _total_up_to(values: np.ndarray, worth: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The sum of `worth` [N] over the values [N] under each limit [L]."""
    order = np.argsort(values)
    total = np.concatenate([[0.0], np.cumsum(worth[order])])
    return total[np.searchsorted(values[order], limits)]
