"""Which layer transfers best? A probe on every endpoint of a net with published weights.

Paper: Yosinski et al., 2014, "How transferable are features in deep neural networks?",
arXiv:1411.1792, for the question. 10 labels per class of DATA, ridge regression on the mean over
positions of every endpoint, strengths by 5-fold cross-validation on those labels; tested on the
full test split; five seeds, which draw labels and folds. The argument is WEIGHTS,DATA[,NET] as in
configs/probe.py, and all endpoints come from one forward pass.

    python launch/train.py --workdir runs/fashion_mnist_layers --config.data.data_dir=DIR --config \
        'configs/layers.py:file:resnet56.th,tfds:fashion_mnist,{"name":"cifar_resnet","depth":56}'

Expected: TODO ± TODO.
Time: TODO min on 2 CPU cores.
"""

from configs import probe
from tljax.methods.networks import encoder


def get_config(argument: str = 'torchvision:ResNet18_Weights.IMAGENET1K_V1,tfds:eurosat'):
    """`argument` is WEIGHTS,DATA[,NET]."""
    c = probe.get_config(argument)
    c.name = c.name.replace('probe', 'layers')
    c.title = c.description = c.title.replace('probe of', 'probes of all layers of')
    c.members.labels_per_class = (10,)
    c.features.also = encoder(c).endpoints
    for endpoint in c.features.also:
        c.runs[endpoint] = {'endpoint': endpoint}
    c.compare.update(baseline='features', arms=c.features.also)
    return c
