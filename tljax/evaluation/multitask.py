"""Scores of several tasks over a whole stream, of the examples that have the label."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import optax

from tljax import verdict
from tljax.types import Inputs, Mutable, Params, Task

# kind -> the name of its score; the accuracy of a multi-label task is that of single entries
SCORES = {'classification': 'accuracy', 'multilabel': 'accuracy', 'regression': 'rmse'}


def metric(name: str, task: Task) -> str:
    """The key of a task's score: 'left_accuracy', 'ink_rmse'."""
    return f'{name}_{SCORES[task.kind]}'


def has_accuracy(tasks: Mapping[str, Task]) -> bool:
    """Whether a stream of these tasks, or of its classes alone, is scored by 'accuracy'."""
    return not tasks or any(task.kind != 'regression' for task in tasks.values())


def lower_is_better(name: str) -> bool:
    """Whether less of a score is better: losses, equal and root mean squared errors."""
    return name in ('loss', 'eer') or name.endswith(('_loss', '_rmse'))


def judge(
    predict: Callable[[Params, Mutable, Inputs], dict],
    tasks: Mapping[str, Task],
    outputs: Sequence[str] = (),
) -> Callable:
    """`fn((params, mutable), batch)` for `streams.over_blocks`: what is kept of each example.

    That is 'valid', the sum of the losses as 'loss', and by task the entries that are 'known', how
    many of them there are, with the sums over these of the 'score' (hits, or squared errors) and of
    the 'loss'; and those `outputs` of `predict` that are named.
    """

    def fn(values, batch):
        out = predict(*values, batch['image'])
        kept = {name: out[name].astype(jnp.float32) for name in outputs}
        for name, task in tasks.items():
            known, score, loss = _each(task, out['tasks'][name], batch['label'][name])
            sums = {'known': known, 'score': known * score, 'loss': known * loss}
            for key, value in sums.items():
                value = jnp.where(known, value, 0.0).astype(jnp.float32)
                kept[f'{name}/{key}'] = value.reshape(len(value), -1).sum(axis=1)
        total = sum(kept[f'{name}/loss'] for name in tasks)
        return kept | {'loss': total, 'valid': batch['valid']}

    return fn


def _each(task: Task, output, label):
    """Which entries of a label are known, and their scores and losses."""
    if task.kind == 'classification':
        known, label = label >= 0, jnp.maximum(label, 0)
        loss = optax.softmax_cross_entropy_with_integer_labels(output, label)
        return known, jnp.argmax(output, axis=-1) == label, loss
    if task.kind == 'multilabel':
        return (
            label >= 0,
            (output > 0) == (label > 0),
            optax.sigmoid_binary_cross_entropy(output, label),
        )
    loss = jnp.square(task.standard(output) - task.standard(label))
    return jnp.isfinite(label), jnp.square(output - label), loss


def scores(judged: dict[str, np.ndarray], tasks: Mapping[str, Task]) -> dict[str, list]:
    """Scores of every member from `judge`'s arrays [M, N].

    Returns:
      lists over members: 'TASK_accuracy' or 'TASK_rmse' (in the label's unit) and 'TASK_loss' of
      every task; 'accuracy', the mean of the tasks' accuracies, if there is one; 'loss', the sum of
      the tasks' mean losses; and 'count'.
    """
    found: dict[str, list] = {}
    for name, task in tasks.items():
        sums = {
            key: np.where(judged['valid'], judged[f'{name}/{key}'], 0.0).astype(np.float64).sum(1)
            for key in ('known', 'score', 'loss')
        }
        known = np.where(sums['known'] > 0, sums['known'], np.nan)
        score = sums['score'] / known
        found[metric(name, task)] = (
            np.sqrt(score) if task.kind == 'regression' else score
        ).tolist()
        found[f'{name}_loss'] = (sums['loss'] / known).tolist()
    shares = [
        found[metric(name, task)] for name, task in tasks.items() if task.kind != 'regression'
    ]
    if shares:
        found['accuracy'] = np.mean(shares, axis=0).tolist()
    found['loss'] = np.sum([found[f'{name}_loss'] for name in tasks], axis=0).tolist()
    return found | {'count': int(judged['valid'][0].sum())}


def summary(scores: Mapping[str, list]) -> list[str]:
    """The scores that a line names: of each task, or the accuracy where there are none."""
    ends = tuple(f'_{score}' for score in set(SCORES.values()))
    own = [name for name in scores if name.endswith(ends) and name != 'per_class_accuracy']
    return own or [name for name in ('accuracy',) if name in scores]


def compare(
    arms: Mapping[str, Mapping],
    usual: Mapping[str, Mapping],
    twins: Mapping[str, Mapping[str, Mapping]],
    stream: str,
) -> dict:
    """Arms that learn several tasks against the runs that learn one each.

    Args:
      arms: name -> what the run wrote into results.json.
      usual: task -> the same of the run that learns it alone.
      twins: arm -> task -> the same of the run that this arm is judged by.
      stream: where they are compared; a task that a run has no score of there, on the first of its
        streams that has one, as where each task has data of its own.

    Returns:
      'verdicts': by task its 'metric', whether 'lower' is better and the 'rows' of
      `verdict.compare`, that of the usual twin, 'single', first; 'relative_change': by arm
      Delta_m of every member that has its twins, by the order of the arm's members; and
      'parameters': how many each arm has, and as 'single' those of the usual twins together.

    Raises:
      ValueError: a run has no score of a task.
    """
    verdicts: dict[str, dict] = {}
    for task, twin in usual.items():
        name, alone = of_task(twin, task, stream, f'the run that learns {task!r} alone')
        how = {'lower_is_better': lower_is_better(name)}
        rows = verdict.compare({'single': alone}, 'single', stream, name, **how)
        for arm, results in arms.items():
            both = {
                'single': of_task(twins[arm][task], task, stream, f'the twin of {arm!r}')[1],
                arm: of_task(results, task, stream, f'arm {arm!r}')[1],
            }
            found = verdict.compare(both, 'single', stream, name, **how)
            rows += [row for row in found if row['arm'] == arm]
        verdicts[task] = {'metric': name, 'lower': how['lower_is_better'], 'rows': rows}
    lower = {task: one['lower'] for task, one in verdicts.items()}
    changes = {arm: _changes(results, twins[arm], lower, stream) for arm, results in arms.items()}
    count = lambda run: sum(math.prod(one['shape']) for one in run.get('parameters', ()))
    sizes = {
        'single': sum(map(count, usual.values())),
        **{a: count(run) for a, run in arms.items()},
    }
    return {'verdicts': verdicts, 'relative_change': changes, 'parameters': sizes}


def of_task(results: Mapping, task: str, stream: str, who: str) -> tuple[str, dict]:
    """The name of a task's score, and a run's results with it on `stream` alone.

    Raises:
      ValueError: no stream has a score of the task.
    """
    scores = results['scores']
    for where in dict.fromkeys((stream, *scores)):
        for name in summary(scores.get(where, {})):
            if name.rpartition('_')[0] == task:
                own = {stream: {name: scores[where][name]}}
                return name, {'members': results['members'], 'scores': own}
    raise ValueError(
        f'{who} has no score of task {task!r} on any stream of data.evaluate '
        f'({", ".join(scores)}): name the task in the tasks= of one'
    )


def _changes(
    results: Mapping, twins: Mapping[str, Mapping], lower: Mapping[str, bool], stream: str
) -> list[float | None]:
    """Delta_m of each member that has a twin for every task; None where there is no such number."""

    def scored(run, task):
        name, one = of_task(run, task, stream, 'a run')
        return list(zip(one['members'], one['scores'][stream][name], strict=True))

    ours = {task: scored(results, task) for task in lower}
    theirs = {task: scored(twins[task], task) for task in lower}
    changes: list[float | None] = []
    for i, member in enumerate(results['members']):
        alone = {t: value for t in lower for other, value in theirs[t] if other == member}
        if len(alone) == len(lower):
            changes.append(relative_change({t: ours[t][i][1] for t in lower}, alone, lower))
    return changes


def relative_change(
    ours: Mapping[str, float | None], twins: Mapping[str, float | None], lower: Mapping[str, bool]
) -> float | None:
    """Delta_m = mean over tasks of (-1)^l_t (M_t - S_t) / S_t, with l_t = 1 where less is better.

    Maninis, Radosavovic and Kokkinos 2019, "Attentive single-tasking of multiple tasks",
    arXiv:1904.08918, section 5: M of the multi-task network, S of the single-task ones. None where
    a score is missing (None or not finite), or one of a single-task network is 0.
    """
    every = [*ours.values(), *twins.values()]
    if any(one is None or not np.isfinite(one) for one in every) or 0 in twins.values():
        return None
    signs = {name: -1 if lower[name] else 1 for name in ours}
    return float(np.mean([signs[t] * (ours[t] - twins[t]) / twins[t] for t in ours]))
