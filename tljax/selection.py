"""Which step to keep, and which member: selectors with and without target labels.

A selector scores what the model of one member predicts on the streams that are held out; higher is
better for all of them, and the first of equal steps is kept. A selector is handed what its row says
that it `reads` and nothing else: only `oracle` reads the labelled test stream of the target.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax import verdict
from tljax.evaluation import validators
from tljax.types import Array
from tljax.wording import Row

LAST = 'last'  # the selection that looks at nothing
ORACLE = 'oracle'


class Selector(NamedTuple):
    """A row of `SELECTORS`.

    What is read of a stream is its 'logits' [N, C] and 'features' [N, D], as the method predicts
    them, and where it is labelled the 'loss' [N] of each example and the 'accuracy' of all.
    """

    reads: tuple[tuple[str, str], ...]  # (stream, what of it): the arguments of `score`
    score: Callable[..., float]
    words: str  # ends the sentence 'Reported: ...'


SELECTORS: Mapping[str, Selector] = {
    'source_validation': Selector(
        (('val', 'accuracy'),), float, "step of the best accuracy on stream 'val'"
    ),
    'entropy': Selector(
        (('target', 'logits'),),
        validators.negative_entropy,
        'step of the lowest mean entropy on the unlabelled target',
    ),
    'information_maximisation': Selector(
        (('target', 'logits'),),
        validators.information_maximisation,
        'step of the highest mutual information on the unlabelled target',
    ),
    'soft_neighbourhood_density': Selector(
        (('target', 'logits'),),
        validators.soft_neighbourhood_density,
        'step of the highest soft neighbourhood density on the unlabelled target',
    ),
    'deep_embedded_validation': Selector(
        (('val', 'loss'), ('val', 'features'), ('target', 'features')),
        validators.deep_embedded_validation,
        "step of the lowest risk by deep embedded validation on stream 'val'",
    ),
    ORACLE: Selector((('test', 'accuracy'),), float, 'oracle: best step on the test stream itself'),
}
CHOICES = (LAST, *SELECTORS)
_OUTPUTS = ('logits', 'features')  # what an unlabelled stream has too


def lacking(name: str, labelled: Mapping[str, bool]) -> str:
    """What a selection needs and cannot read: a held out stream, or '' where nothing is lacking.

    Args:
      name: one of `CHOICES`.
      labelled: held out stream -> whether evaluation knows its labels.
    """
    for stream, key in () if name == LAST else SELECTORS[name].reads:
        if stream not in labelled or not (labelled[stream] or key in _OUTPUTS):
            return stream
    return ''


def possible(labelled: Mapping[str, bool]) -> tuple[str, ...]:
    """The selectors that can read all they need of these held out streams."""
    return tuple(name for name in SELECTORS if not lacking(name, labelled))


def outputs_read(names: Iterable[str], stream: str) -> tuple[str, ...]:
    """What these selectors read of a stream that `predict` returns."""
    wanted = {pair for name in names for pair in SELECTORS[name].reads}
    return tuple(key for key in _OUTPUTS if (stream, key) in wanted)


def scores(
    names: Iterable[str],
    judged: Mapping[str, Mapping[str, Array]],
    found: Mapping[str, Mapping[str, Any]],
    members: int,
) -> dict[str, list[float]]:
    """The score of every member by every selector; NaN where what it reads is not finite.

    Rounded to float32, in which the scores of steps are compared while training.

    Args:
      names: selectors.
      judged: stream -> arrays [M, N, ...] of each example, with 'valid' [M, N].
      found: stream -> scores of the whole stream, one number a member.
      members: M.
    """

    def read(stream: str, key: str, member: int):
        if key in judged[stream]:
            return judged[stream][key][member][judged[stream]['valid'][member]]
        return found[stream][key][member]

    def score(selector: Selector, member: int) -> float:
        arguments = [read(*pair, member) for pair in selector.reads]
        sound = all(np.isfinite(argument).all() for argument in arguments)
        return float(np.float32(selector.score(*arguments))) if sound else np.nan

    return {name: [score(SELECTORS[name], m) for m in range(members)] for name in names}


def ranked(values: Sequence[float | None]) -> np.ndarray:
    """Scores to compare: what is not finite, or null in JSON, comes after all that is."""
    values = np.array([np.nan if value is None else value for value in values], np.float32)
    return np.where(np.isfinite(values), values, np.finfo(np.float32).min)


def chosen(
    lines: Sequence[Mapping], members: int, stream: str = 'test', metric: str = 'accuracy'
) -> dict[str, dict]:
    """What every selection would have kept of a run.

    The steps to choose from are the evaluations of the last phase: what earlier phases leave is not
    yet what the method predicts with. The first of equal steps is chosen.

    Args:
      lines: of metrics.jsonl, with the selectors' scores under 'selection'.
      members: M.
      stream: where the chosen steps are scored, if it is evaluated.
      metric: the score there.

    Returns:
      'last' and every recorded selector -> 'step' [M] and the `metric` there [M]; a selector also
      has its own 'score' there [M].
    """
    lines = [line for line in lines if line['phase'] == lines[-1]['phase']]
    table = {}
    for name in (LAST, *lines[-1]['selection']):
        entry: dict = {}
        if name == LAST:
            best = [lines[-1]] * members
        else:
            values = np.stack([ranked(line['selection'][name]) for line in lines])  # [T, M]
            best = [lines[row] for row in values.argmax(axis=0)]
            entry['score'] = [line['selection'][name][m] for m, line in enumerate(best)]
        entry['step'] = [line['step'] for line in best]
        if metric in lines[-1].get(stream, {}):
            entry[metric] = [line[stream][metric][m] for m, line in enumerate(best)]
        table[name] = entry
    return table


def best_member(results: Mapping) -> int:
    """The member of a run to predict with, by its number.

    One with the most labels per class; of several, the one that the run's selection scores highest,
    and the first if that looks at nothing.

    Args:
      results: results.json of the run.
    """
    members = results['members']
    labels = [member.get('labels_per_class', 0) for member in members]
    table = results.get('selections', {}).get(results.get('selection'), {})
    scores = ranked(table.get('score', [0.0] * len(members)))
    best = [i for i, count in enumerate(labels) if count == max(labels)]
    return max(best, key=lambda i: scores[i])


def in_order(names: Iterable[str], configured: str) -> tuple[str, ...]:
    """Selections as tables show them: the last step, those without target labels, the oracle.

    Of those without target labels, the configured one comes first. Nothing, if there are none.
    """
    names = set(names)
    free = [name for name in SELECTORS if name in names and name != ORACLE]
    free.sort(key=lambda name: name != configured)
    return tuple(name for name in (LAST, *free, ORACLE) if name in names) if free else ()


def compare(
    arms: Mapping[str, Mapping],
    baseline: str,
    configured: str,
    metric: str = 'accuracy',
    **options,
) -> dict[str, list[Row]]:
    """Selection -> `verdict.compare` of the arms at the steps that it chooses in each.

    Args:
      arms: name -> results.json of the run.
      baseline: the arm to compare with; '' for none, as of a single run.
      configured: the selection of the runs, which comes first of those without target labels.
      metric: one that `chosen` has recorded; selections that have not are left out.
      options: of `verdict.compare`.
    """
    shared = set.intersection(*(set(one.get('selections', {})) for one in arms.values()))
    rows = {}
    for name in in_order(shared, configured):
        tables = {arm: one['selections'][name] for arm, one in arms.items()}
        if not all(metric in table for table in tables.values()):
            continue
        trial = {
            arm: {'members': arms[arm]['members'], 'scores': {'test': {metric: table[metric]}}}
            for arm, table in tables.items()
        }
        rows[name] = verdict.compare(trial, baseline, 'test', metric, **options)
    return rows
