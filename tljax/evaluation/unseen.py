"""Recognition of classes that a run never trained on: which protocol a stream is scored by.

'episode:5x1x15:1000'   1,000 episodes, 5-way 1-shot with 15 queries a class, of all classes
'within:20x1x1:20'      the same inside one group (alphabet) each, supports and queries by different
                        drawers: 20 episodes of 20 trials
'runs:20'               the rows are episodes already: 20 supports, then 20 queries, and so on
'pairs:1000'            verification of so many pairs, half of them of one class; lambda is chosen
                        on pairs of half of the classes (alphabets) and tried on the others
"""

import re
from collections.abc import Mapping

import numpy as np

from tljax.data.episodes import groups_of
from tljax.data.sources import Source
from tljax.evaluation import few_shot, verification

_FORMS = {
    'episode': re.compile(r'episode:(\d+)x(\d+)x(\d+):(\d+)'),
    'within': re.compile(r'within:(\d+)x(\d+)x(\d+):(\d+)'),
    'runs': re.compile(r'runs:(\d+)'),
    'pairs': re.compile(r'pairs:(\d+)'),
}
SEED = 0  # of trials: the same for every run and member
MANHATTAN = ('siamese',)


def metric_of(method: str) -> str:
    """How features of a method are compared: 'manhattan' or 'euclidean'."""
    return 'manhattan' if method in MANHATTAN else 'euclidean'


def parse(protocol: str) -> tuple[str, tuple[int, ...]]:
    """Kind and numbers of a protocol.

    Raises:
      ValueError: there is no such protocol, or a number is 0.
    """
    kind = protocol.partition(':')[0]
    found = _FORMS[kind].fullmatch(protocol) if kind in _FORMS else None
    if not found or not all(map(int, found.groups())):
        raise ValueError(
            f"protocol={protocol!r}: expected 'episode:WAYxSHOTxQUERY:EPISODES', such as "
            "'episode:5x1x15:1000', 'within:...' of the same form, 'runs:WAY' or 'pairs:N'"
        )
    return kind, tuple(map(int, found.groups()))


def words(protocol: str) -> str:
    """'episode:5x1x15:1000' -> '1000 5-way 1-shot episodes'."""
    kind, (first, *rest) = parse(protocol)
    if kind == 'pairs':
        return f'{first} pairs'
    if kind == 'runs':
        return f'the listed {first}-way 1-shot runs'
    shot, _, count = rest
    return f'{count} {first}-way {shot}-shot episodes' + ' within a group' * (kind == 'within')


def check(protocol: str, source: Source) -> None:
    """Raises ValueError for a protocol that there is not, or that a source is too small for."""
    try:
        _trials(protocol, source)
    except ValueError as error:
        raise ValueError(f'{source.name}: {error}') from error


def _trials(protocol: str, source: Source):
    kind, numbers = parse(protocol)
    if kind == 'runs':
        return few_shot.listed(source.labels, *numbers)
    if kind == 'pairs':
        return verification.drawn(source.labels, groups_of(source.classes), *numbers, SEED)
    groups = groups_of(source.classes) if kind == 'within' else None
    return few_shot.drawn(source.labels, *numbers, SEED, groups)


def scores(
    judged: Mapping[str, np.ndarray], source: Source, protocol: str, metric: str
) -> dict[str, list]:
    """Scores of every member, lists: 'accuracy', 'interval' (half of 95 %), 'loss' and more.

    Args:
      judged: with 'features' [M, N, D], all rows of the source in order.
      source: of those rows.
      protocol: see above.
      metric: 'euclidean' or 'manhattan'.
    """
    trials = _trials(protocol, source)
    score = verification.scores if protocol.startswith('pairs') else few_shot.scores
    members = [score(features, trials, metric) for features in judged['features']]
    found: dict = {name: [one[name] for one in members] for name in members[0]}
    return found | {'per_class_accuracy': found['accuracy'], 'count': len(source.labels)}
