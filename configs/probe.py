"""Off-the-shelf features and a shallow classifier: any published weights, any data set.

Paper: Razavian et al., 2014, "CNN features off-the-shelf", arXiv:1403.6382. All training images of
DATA, ridge regression on the net's features, its strength by 5-fold cross-validation on them;
tested on the full test split; five seeds, which draw the folds. The argument is
WEIGHTS,DATA[,ELSEWHERE...][,NET]: ELSEWHERE are data sets of the same classes that are tested on
whole, NET is the net as JSON, where the weights' name does not tell it.

    python launch/train.py --config configs/probe.py:places365:resnet18,folder:PATH \
        --workdir runs/probe

`--config.options.probe=logistic` (or svm, neighbours, nearest_mean, minibatch_logistic) is another
classifier, `--config.endpoint=stage3` another layer, `--config.members.labels_per_class=5,10` takes
few labels. Features are kept in `runs/features` for later runs on the same weights and images.

Expected: MobileNetV2's ImageNet weights, five seeds, mean and standard deviation: ants and bees
(hymenoptera) 98.0 ± 0.0; PACS photo 98.2 ± 0.0, and from there art 63.7 ± 0.5, cartoon 39.9 ± 0.8,
sketch 25.6 ± 1.2, where probes of the domain itself reach 82.9 ± 2.4, 84.6 ± 1.0 and 79.6 ± 1.0
(the net as JSON for these TensorFlow weights: {"name": "mobilenet_v2", "padding": "SAME",
"input": {"mean": [0.5], "std": [0.5]}}).
Time: 3 min for 400 images of 224 pixels on 2 busy CPU cores, seconds once features are kept.
"""

import json

from tljax import config
from tljax.data.sources import test_split
from tljax.nets import pretrained


def get_config(argument: str = 'torchvision:ResNet18_Weights.IMAGENET1K_V1,tfds:eurosat'):
    """`argument` is WEIGHTS,DATA[,ELSEWHERE...][,NET]."""
    weights, (target, *elsewhere), net = parsed(argument)
    c = config.default()
    c.name = f'{config.label(target)}_probe'
    c.title = c.description = f'{config.label(target)}, probe of {config.label(weights)}'
    c.method = 'probe'
    c.options.probe = 'ridge'
    c.net = net
    c.init['from'] = weights
    c.cache_prefix = True
    c.features.root = 'runs/features'
    c.data.streams.source = config.stream(target)
    c.data.evaluate.test = config.held_out(target, split=test_split(target))
    labels = config.labels(elsewhere, taken=('test', 'val', 'target'))
    for name, one in zip(labels, elsewhere, strict=True):
        c.data.evaluate[name] = config.held_out(one, split='all')
    c.data.wrap = True  # nothing is drawn in batches
    c.members.seed = (0, 1, 2, 3, 4)
    c.block = 64
    return c


def parsed(argument: str) -> tuple[str, list[str], dict]:
    """Weights, data sets and net of WEIGHTS,DATA[,DATA...][,NET]."""
    names, brace, net = argument.partition(',{')
    weights, *datasets = names.split(',')
    if not all((weights, *datasets)) or not datasets:
        raise ValueError(f'{argument!r} is not WEIGHTS,DATA[,ELSEWHERE...][,NET as JSON]')
    return weights, datasets, json.loads('{' + net) if brace else pretrained.described(weights)
