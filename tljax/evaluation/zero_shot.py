"""Zero-shot protocols: among which classes the answer is sought, and the generalised scores.

A held out stream that is answered `among` the unseen classes gives the conventional accuracy T1,
the 'per_class_accuracy' of `classification.scores`. The generalised protocol of Xian et al. 2018,
arXiv:1707.00600, section 3.3, answers two streams among all classes: other examples of the classes
seen, 'seen', and all of those never seen, 'unseen'; it reports both accuracies and their harmonic
mean, which is high only where both are.
"""

from collections.abc import Mapping

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


def generalised(scores: Mapping[str, Mapping]) -> dict[str, list[float]]:
    """What joins two streams: 'harmonic_mean', 2 s u / (s + u) of their per-class accuracies.

    Args:
      scores: stream -> scores, a number a member.

    Returns:
      nothing, unless both streams of `PAIR` are there.
    """
    if not set(PAIR) <= set(scores):
        return {}
    seen, unseen = (np.asarray(scores[name]['per_class_accuracy']) for name in PAIR)
    return {'harmonic_mean': harmonic_mean(seen, unseen).tolist()}
