"""Makes the golden files that the tests compare with, from the reference implementations.

    python -m tests.nets.make_golden [NAME ...]

Needs PyTorch, torchvision and timm; the tests that read the files do not.
"""

import json
import sys

import numpy as np

from tests.nets import published, reference


def make(name: str) -> None:
    case = published.SMALL[name]
    model, stages, aux = reference.build(name, case.size)
    shapes = reference.state_shapes(model)
    reference.fill(model, published.weights(shapes))
    images = published.images(case.size)
    arrays = {'shapes': np.array(json.dumps(shapes))}
    for endpoint, value in reference.outputs(stages, aux, images).items():
        arrays[f'{endpoint}/shape'] = np.array(value.shape)
        arrays[f'{endpoint}/sample'] = published.sample(value)
        arrays[f'{endpoint}/rms'] = np.sqrt(np.mean(value.astype(np.float64) ** 2))
    if case.gradient:
        arrays |= published.summary(reference.gradients(model, stages, images))
    path = published.GOLDEN / f'{name}.npz'
    np.savez_compressed(path, **arrays)
    print(f'{path.name}: {path.stat().st_size / 1024:.1f} KB')


if __name__ == '__main__':
    published.GOLDEN.mkdir(exist_ok=True)
    for one in sys.argv[1:] or published.SMALL:
        make(one)
