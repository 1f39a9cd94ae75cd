"""The cases of benchmark.py: what each times, and how two are compared."""

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
from benchmark_child import child
from benchmark_steps import CONV4, LOOPS, RESNET18, STEPS, images, jax_loop, torch_loop, work


def cores() -> int:
    """Those this process may run on."""
    return len(os.sched_getaffinity(0))


def compare(
    case: str, ours, theirs, rounds: int, per_call: int = 1, against: str = 'PyTorch', **notes
) -> dict:
    """Times two functions in turn. `ratio` is their time over ours: above 1 we are faster."""
    times = {'ours': [], 'theirs': []}
    for _ in range(rounds):
        for name, call in (('ours', ours), ('theirs', theirs)):
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) / per_call * 1e3)
    ratios = sorted(b / a for a, b in zip(times['ours'], times['theirs'], strict=True))
    quarter = len(ratios) // 4
    return {
        'case': case,
        'against': against,
        'cores': cores(),
        'ours_ms': statistics.median(times['ours']),
        'theirs_ms': statistics.median(times['theirs']),
        'ratio': statistics.median(ratios),
        'spread': [ratios[quarter], ratios[-1 - quarter]],  # the middle half
        **notes,
        'rounds': times,
    }


def measured(case: str, ours, theirs, eager, images: int, args, per_call: int = 1) -> list[dict]:
    """`compare`, with images a second and the operations a second as a share of matrix products'.

    Args:
      case: its name.
      ours: as in `compare`, after a first call.
      theirs: the same.
      eager: what PyTorch does in one of `per_call`, not compiled, for its operations to be counted.
      images: in one of `per_call`.
      args: of the command.
      per_call: as in `compare`.
    """
    from benchmark_jax import matrix_rate
    from benchmark_torch import flops

    row = compare(case, ours, theirs, args.rounds, per_call)
    count, rate = flops(eager), matrix_rate(args)
    seconds = {side: row[f'{side}_ms'] / 1e3 for side in ('ours', 'theirs')}
    row['images_per_second'] = {side: images / spent for side, spent in seconds.items()}
    row['share_of_peak'] = {side: count / spent / rate for side, spent in seconds.items()}
    return [row]


def plain(args):
    """The same command without PyTorch's compiler."""
    return argparse.Namespace(**(vars(args) | {'compile': False}))


def step_case(case: str):
    """A case that times the steps of that name, compiled beforehand on our side."""

    def run(args) -> list[dict]:
        job = STEPS[case]
        ours, theirs = (make(job, args) for make in LOOPS.values())
        ours(1), theirs(1)
        # Long steps need not so many of them for the clock.
        steps = min(args.steps, max(1, round(args.steps * 1e5 / work(job))))
        one = torch_loop(job, plain(args)) if args.compile else theirs
        calls = lambda: ours(steps), lambda: theirs(steps)
        return measured(case, *calls, lambda: one(1), images(job), args, steps)

    return run


def seeds(args) -> list[dict]:
    """All seeds as members of one program: beside PyTorch, and beside runs of our own."""
    job = STEPS['lenet_dann_5_seeds']
    ours, theirs = (make(job, args) for make in LOOPS.values())
    alone = jax_loop(job._replace(seeds=1), args)
    for one in (ours, theirs, alone):
        one(1)
    count = max(1, args.steps // job.seeds)
    member = lambda: ours(count)
    one_by_one = lambda: [alone(count) for _ in range(job.seeds)]
    name = 'lenet_dann_5_seeds'
    return [
        compare(name, member, lambda: theirs(count), args.rounds, count, 'PyTorch, 5 loops'),
        compare(f'{name}, alone', member, one_by_one, args.rounds, count, 'ours, 5 runs'),
    ]


def features_case(case: str, net: dict, batch: int = 16, image=(224, 224, 3)):
    """A case that times the features of a batch of images."""

    def run(args) -> list[dict]:
        import benchmark_jax
        import benchmark_torch

        noise = np.random.default_rng(0).integers(0, 256, (batch, *image), np.uint8)
        ours = benchmark_jax.features(net, noise, args)
        theirs = benchmark_torch.features(net, noise, args)
        one = benchmark_torch.features(net, noise, plain(args)) if args.compile else theirs
        ours(), theirs()
        return measured(case, ours, theirs, one, batch, args)

    return run


def probe_sweep(args) -> list[dict]:
    """25 strengths x 5 seeds of logistic regression, 100 classes on 10,000 x 1,280 features.

    The others would take hours: of theirs one seed is timed, of it every fifth strength, counted
    for the two on either side and for the other seeds too. Ours has its compilation in it.
    """
    import benchmark_probes as probes

    features, labels = probes.examples(10_000, 1280, 100)
    chosen, strengths = probes.halves(len(labels), seeds=5), np.logspace(-2, 4, 25)
    one, some = chosen[:1], slice(2, None, 5)
    curve, spent = probes.timed(probes.ours('logistic', features, labels, chosen, strengths))
    rows = []
    for name, make in (('scikit-learn', probes.scikit), ('PyTorch L-BFGS', probes.torch_loop)):
        fits = [
            probes.timed(make('logistic', features, labels, one, strengths[i : i + 1]))
            for i in range(*some.indices(len(strengths)))
        ]
        seconds = sum(spent for _, spent in fits) * curve.size / len(fits)
        rows.append(
            {
                'case': f'probe_sweep, {name}',
                'against': f'{name}, extrapolated from {len(fits)} of {curve.size} fits',
                'cores': cores(),
                'ours_ms': spent * 1e3,
                'theirs_ms': seconds * 1e3,
                'ratio': seconds / spent,
                'fits_ms': [1e3 * spent for _, spent in fits],
                'accuracy': {
                    'ours': curve[0, some].tolist(),
                    'theirs': [float(found[0, 0]) for found, _ in fits],
                },
            }
        )
    return rows


def features_then_probe(args) -> list[dict]:
    """The whole job: features of 240 images, and the sweep of a probe on them; of three nets."""
    import benchmark_jax
    import benchmark_probes as probes
    import benchmark_torch

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (15, 16, 224, 224, 3), np.uint8)
    labels = rng.integers(0, 2, 240).astype(np.int32)
    chosen, strengths = probes.halves(240, seeds=5), np.logspace(-2, 4, 17)

    def job(side, sweep, net, probe):
        made = [side.features(net, batch, args) for batch in images]

        def run():
            features = np.concatenate([one() for one in made])
            return sweep(probe, features, labels, chosen, strengths)()

        return run

    rows = []
    for name, net in FEATURES.items():
        ours = job(benchmark_jax, probes.ours, net, 'logistic')
        theirs = job(benchmark_torch, probes.scikit, net, 'logistic')
        ours(), theirs()
        against = 'PyTorch and scikit-learn'
        case = f'features_then_probe, {name}'
        rows.append(compare(case, ours, theirs, max(1, args.rounds // 3), against=against))
    return rows


def gallery_search(
    args, enrolled: int = 10_000, asked: int = 1_000, block: int = 500
) -> list[dict]:
    """The nearest of 10,000 classes, one image each, for each of 1,000 queries, of 64 features.

    Given their features; and from images of 28 pixels, which both sides embed by blocks of 500.
    """
    import benchmark_jax
    import benchmark_torch
    from sklearn.neighbors import NearestNeighbors

    from tljax.gallery import Gallery, search

    names = tuple(map(str, range(enrolled)))
    gallery = lambda known: Gallery(known, names, 'euclidean', '')
    brute = lambda known: NearestNeighbors(n_neighbors=1, algorithm='brute').fit(known)
    random = np.random.default_rng(0)
    known, queries = (random.standard_normal((n, 64), np.float32) for n in (enrolled, asked))
    held, fitted = gallery(known), brute(known)
    ours, theirs = lambda: search(held, queries), lambda: fitted.kneighbors(queries)
    same = [one[0][0] for one in ours()] == [names[i] for (i,) in theirs()[1]]
    against = 'scikit-learn, brute force'
    row = compare('gallery_search', ours, theirs, args.rounds, against=against, same_answers=same)
    images = random.integers(0, 256, (enrolled + asked, 28, 28, 1), np.uint8)

    def embedded(side, find):
        blocks = [images[i : i + block] for i in range(0, len(images), block)]
        made = [side.features(CONV4, one, args) for one in blocks]

        def run():
            found = np.concatenate([one() for one in made])
            find(found[:enrolled], found[enrolled:])

        return run

    ours = embedded(benchmark_jax, lambda known, queries: search(gallery(known), queries))
    theirs = embedded(benchmark_torch, lambda known, queries: brute(known).kneighbors(queries))
    ours(), theirs()
    rounds, against = max(1, args.rounds // 3), f'PyTorch and {against}'
    return [row, compare('gallery_search, from images', ours, theirs, rounds, against=against)]


def first_step(args) -> list[dict]:
    """From the start of a process to the end of its first step, without and with a cache."""
    begin = lambda side, cache: child('step', side, 'lenet_step', cache, args)

    def cold():
        with tempfile.TemporaryDirectory() as empty:
            begin('jax', empty)

    rounds = max(1, args.rounds // 3)
    with tempfile.TemporaryDirectory() as cache:
        begin('jax', cache)
        theirs = lambda: begin('torch', cache)
        return [
            compare('first_step, cold', cold, theirs, rounds),
            compare('first_step, cached', lambda: begin('jax', cache), theirs, rounds),
        ]


def tasks_case(name: str):
    """A case of several tasks, which also tells the memory of both sides."""

    def run(args) -> list[dict]:
        with tempfile.TemporaryDirectory() as cache:
            child('step', 'jax', name, cache, args)  # so that no compiler is in the memory
            sides = {'ours': 'jax', 'theirs': 'torch'}
            held = {
                who: float(child('memory', side, name, cache, args)) for who, side in sides.items()
            }
        (row,) = step_case(name)(args)
        return [row | {'memory_mib': held}]

    return run


FEATURES = {
    'mobilenet_v2': {'name': 'mobilenet_v2'},
    'resnet50': {'name': 'imagenet_resnet', 'depth': 50},
    'resnet18': RESNET18,
}
CASES = {
    **{name: (tasks_case if job.tasks else step_case)(name) for name, job in STEPS.items()},
    'lenet_dann_5_seeds': seeds,
    'resnet50_features': features_case('resnet50_features', FEATURES['resnet50']),
    'mobilenet_v2_features': features_case('mobilenet_v2_features', FEATURES['mobilenet_v2']),
    'conv4_features': features_case('conv4_features', CONV4, 500, (28, 28, 1)),
    'features_then_probe': features_then_probe,
    'gallery_search': gallery_search,
    'probe_sweep': probe_sweep,
    'first_step': first_step,
}
