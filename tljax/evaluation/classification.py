"""Scores of a classifier over a whole stream: exact counts on any block size and device count."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import optax

from tljax.types import Inputs, Mutable, Params

METRICS = ('accuracy', 'per_class_accuracy', 'loss')  # one number a member
LOWER_IS_BETTER = ('loss',)


def judge(
    predict: Callable[[Params, Mutable, Inputs], dict],
    outputs: Sequence[str] = (),
    among: np.ndarray | None = None,
) -> Callable:
    """`fn((params, mutable), batch)` for `streams.over_blocks`: what is kept of each example.

    That is 'predicted', and 'loss' and 'label' where the batch is labelled, and those `outputs` of
    `predict` that are named, such as 'logits' and 'features'. With `among` [C] bool, only those
    classes are an answer.
    """

    def fn(values, batch):
        out = predict(*values, batch['image'])
        logits = out['logits'].astype(jnp.float32)
        if among is not None:
            logits = jnp.where(among, logits, -jnp.inf)
        kept = {name: out[name].astype(jnp.float32) for name in outputs}
        kept |= {'predicted': jnp.argmax(logits, axis=-1).astype(jnp.int32)}
        if 'label' in batch:
            label = batch['label']
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            kept |= {'loss': loss, 'label': label}
        return kept | {'valid': batch['valid']}

    return fn


def scores(judged: dict[str, np.ndarray], classes: int) -> dict[str, list]:
    """Scores of every member from `judge`'s arrays [M, N].

    Returns:
      lists over members: 'accuracy', the share of examples predicted right; 'per_class_accuracy',
      the mean over the classes that occur of each one's accuracy; 'loss', the mean cross entropy
      in nats; 'confusion' [M][C][C], counts with rows true and columns predicted; and 'count'.
    """
    found: dict[str, list] = {name: [] for name in (*METRICS, 'confusion')}
    for predicted, loss, label, valid in zip(
        *(judged[name] for name in ('predicted', 'loss', 'label', 'valid')), strict=True
    ):
        flat = label[valid].astype(np.int64) * classes + predicted[valid]
        confusion = np.bincount(flat, minlength=classes**2).reshape(classes, classes)
        of_class, right = confusion.sum(axis=1), np.diag(confusion)
        found['accuracy'].append(float(right.sum() / confusion.sum()))
        occurs = of_class > 0
        found['per_class_accuracy'].append(float((right[occurs] / of_class[occurs]).mean()))
        found['loss'].append(float(loss[valid].astype(np.float64).mean()))
        found['confusion'].append(confusion.tolist())
    found['count'] = int(judged['valid'][0].sum())
    return found
