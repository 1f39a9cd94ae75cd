"""Several tasks at once: one encoder that all share, and a head for each.

A task is a label column of any labelled stream; an image that lacks its label adds nothing to its
loss. What makes one step of several losses is a row of `losses.multitask.BALANCERS`, a number,
or of `losses.surgery.SOLVERS`, weights of the tasks' gradients.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tljax import nets
from tljax.losses.multitask import BALANCERS, Balancer, equal
from tljax.losses.surgery import SOLVERS, Solver, inner_products
from tljax.methods.networks import encoder
from tljax.methods.task_gradients import (
    AFFINITIES,
    affinities,
    carried_back,
    of_each,
    surgery,
)
from tljax.methods.task_network import SHARED, TaskNetwork, check_branch, joined
from tljax.nets.apply import apply
from tljax.types import Method, Phase, Player, Spec, check_keywords, keywords, unknown

BALANCE = 'balance'  # the role of what a balancer learns and remembers
AFFINITY = 'affinity'  # sums over steps of how tasks bear on each other


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    balancer: str = 'equal',
    branch: str = '',
    sharing: str = 'hard',
    sharing_options: Mapping[str, Any] | None = None,
    at: str = 'parameters',
    balance: Mapping[str, Any] | None = None,
    affinity: bool = False,
) -> Method:
    """The method of the player 'model', with the metrics 'TASK/loss'.

    Args:
      config: net, endpoint, pool, head, trains, steps.
      spec: with the tasks.
      optimizer: steps -> (hp -> optax transformation).
      balancer: a row of `BALANCERS` or `SOLVERS`.
      branch: the last endpoint that is shared; each task has the layers behind it, up to
        config.endpoint, for itself. '': config.endpoint.
      sharing: 'hard', one encoder whose output every head reads, or a row of `nets.SHARINGS`, in
        which every task has something of its own at every endpoint.
      sharing_options: keywords of the sharing's row.
      at: of a solver, the gradients it looks at: of the shared 'parameters', or 'features', of
        what the shared layers return, for which only the heads are pulled back (MGDA-UB: Sener
        and Koltun 2018, arXiv:1810.04650, equation 6).
      balance: keywords of the balancer's row.
      affinity: whether to tell as outcome how tasks bear on each other, which costs a backward and
        a forward pass a task each step: see `affinities`; they look ahead by hparams.rate,
        whatever the schedule makes of it.

    Raises:
      ValueError: the data have no tasks, there is no such balancer, branch or sharing, or a
        sharing cannot be combined with another option.
    """
    if sharing != 'hard':
        _check_soft(sharing, spec, branch, at)
    elif sharing_options:
        raise ValueError(f'options.sharing_options={sharing_options}: hard sharing has no options')
    network = TaskNetwork.build(config, spec, branch, sharing, sharing_options or {})
    solver, weighed = _rule(balancer, at, dict(balance or {}))
    own, memory = weighed.init(len(spec.tasks))

    def init(key, spec):
        params, mutable = network.init(key, spec)
        params |= {BALANCE: own} if own else {}
        mutable |= {BALANCE: memory} if memory else {}
        count = len(spec.tasks)
        none = {name: jnp.zeros((count, count)) for name in AFFINITIES} | {'steps': jnp.zeros(())}
        return params, mutable | ({AFFINITY: none} if affinity else {})

    learn = _loss(
        network, weighed, solver if at == 'features' else None, bool(solver) and at == 'parameters'
    )
    trains = config.trains + (f'|{BALANCE}' if own and not weighed.follow else '')
    options = {'gradient': surgery(SHARED, solver)} if solver and at == 'parameters' else {}
    rule = _apart(optimizer(config.steps), weighed.optimizer)
    players = [Player('model', trains, learn, rule, **options)]
    if weighed.follow:
        players.append(Player('balancer', BALANCE, _follow(network, weighed), rule))
    return Method(
        init=init,
        phases=(Phase('train', config.steps, tuple(players)),),
        predict=network.predict,
        outcome=_mean_affinities if affinity else None,
    )


def _rule(balancer: str, at: str, balance: dict) -> tuple[Solver | None, Balancer]:
    """The solver, if the balancer is one, and what makes one number of the losses.

    Raises:
      ValueError: for a balancer, a place or a keyword that there is not, or does not go with it.
    """
    rows = {**BALANCERS, **SOLVERS}
    if balancer not in rows:
        raise unknown('balancer', balancer, rows)
    if at not in ('parameters', 'features'):
        raise unknown('options.at', at, ('parameters', 'features'))
    solver = SOLVERS.get(balancer)
    if at == 'features' and not solver:
        raise ValueError(
            f"options.at='features' is for gradients, which balancer {balancer!r} does not look "
            f'at; use one of {", ".join(SOLVERS)}, or leave it out'
        )
    check_keywords(rows[balancer], balance, f'option of {balancer} in options.balance')
    if solver:
        return partial(solver, **balance), equal()
    return None, rows[balancer](**balance)


def check(config) -> None:
    """Raises ValueError, before any data is read, for options that cannot be; see `build`."""
    options = {**keywords(build), **config.options.to_dict()}
    streams = [*config.data.streams.values(), *config.data.evaluate.values()]
    names = [name for one in streams if one.labelled for name in one.tasks]
    _, weighed = _rule(options['balancer'], options['at'], dict(options['balance'] or {}))
    weighed.init(len({name.partition('=')[0] for name in names}))
    if options['sharing'] != 'hard' and options['sharing'] not in nets.SHARINGS:
        raise unknown('options.sharing', options['sharing'], ('hard', *nets.SHARINGS))
    check_branch(encoder(config), config, options['branch'])


def _apart(network: Callable, own: optax.GradientTransformation | None) -> Callable:
    """hp -> the network's optimizer, but for the balancer's role its own, if it has one."""
    if own is None:
        return network
    roles = lambda params: {role: role if role == BALANCE else SHARED for role in params}
    return lambda hp: optax.partition({SHARED: network(hp), BALANCE: own}, roles)


def _check_soft(sharing: str, spec: Spec, branch: str, at: str) -> None:
    """Raises ValueError for a sharing that cannot be with the other options."""
    for what, is_so, why in (
        ('a single task', len(spec.tasks) == 1, 'it has none to share with'),
        ('options.branch', branch, 'tasks already have something of their own at every endpoint'),
        ("options.at='features'", at == 'features', 'no two heads read the same features'),
        ('cache_prefix', spec.since, 'it caches endpoints of one net, and tasks have their own'),
    ):
        if is_so:
            raise ValueError(f'options.sharing={sharing!r} does not go with {what}: {why}')


def _loss(network: TaskNetwork, balancer: Balancer, at_features: Solver | None, several: bool):
    """The balanced loss of the batch; the losses themselves, [T], if `several`."""

    def learn(params, mutable, batch, hp, key):
        images, label = joined(batch, network.tasks)
        keys, before = jax.random.split(key, 3), mutable
        shared, mutable = network.shared(params, mutable, images, keys[0])

        def losses(shared):
            (outputs, _), new = apply(network.heads, 'head', params, mutable, shared, key=keys[1])
            return network.losses(outputs, label, hp['label_smoothing']), new

        if at_features or balancer.steer:
            found, each, new = of_each(losses, shared)
        else:
            (found, new), each = losses(shared), None
        if AFFINITY in new:
            seen = lambda role: network.shared({**params, SHARED: role}, before, images, keys[0])[0]
            now = affinities(lambda role: losses(seen(role))[0], params[SHARED], hp['rate'])
            new = {**new, AFFINITY: jax.tree.map(jnp.add, new[AFFINITY], now | {'steps': 1.0})}
        metrics = {f'{name}/loss': found[i] for i, name in enumerate(network.tasks)}
        if several:
            return found, (metrics, new)
        total, memory = _balanced(balancer, at_features, params, new, keys[2], found, each, shared)
        return total, (metrics, {**new, BALANCE: memory} if memory else new)

    return learn


def _balanced(
    balancer: Balancer, at_features: Solver | None, params, mutable, key, found, each, shared
):
    """The total of the losses and the balancer's new memory.

    With the gradients `each` of the losses by what is shared, `found` does not depend on it: its
    gradient is carried back with the weights of the solver, or those that the balancer gives.
    """
    own, memory = params.get(BALANCE, {}), mutable.get(BALANCE, {})
    weigh = lambda found: balancer.total(own, memory, found, key)
    total, memory = weigh(found)
    if each is None:
        return total, memory
    products = inner_products(each)
    if at_features:
        weights = at_features(products, found, key)
    else:
        weights = jax.grad(lambda x: weigh(x)[0])(found)
    total += carried_back(shared, each, jax.lax.stop_gradient(weights))
    if balancer.steer:
        fixed, norms = jax.lax.stop_gradient(found), jnp.sqrt(jnp.diag(products))
        push, memory = balancer.steer(own, memory, fixed, norms)
        total += push - jax.lax.stop_gradient(push)  # what is told stays the tasks' loss
    return total, memory


def _mean_affinities(params, mutable):
    del params
    sums = dict(mutable[AFFINITY])
    steps = sums.pop('steps')
    return {name: total / steps for name, total in sums.items()}


def _follow(network: TaskNetwork, balancer: Balancer):
    """What a balancer learns from the losses of the same batch after the step.

    As the step computed them: with the batch's own statistics and with dropout.
    """

    def follow(params, mutable, batch, hp, key):
        images, label = joined(batch, network.tasks)
        keys = jax.random.split(key)
        shared, _ = network.shared(params, mutable, images, keys[0])
        (outputs, _), _ = apply(network.heads, 'head', params, mutable, shared, key=keys[1])
        losses = network.losses(outputs, label, hp['label_smoothing'])
        return balancer.follow(params[BALANCE], mutable[BALANCE], losses), ({}, mutable)

    return follow
