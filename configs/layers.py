"""Which layer transfers best? A probe on every endpoint of a net with published weights.

Paper: Yosinski et al., 2014, "How transferable are features in deep neural networks?",
arXiv:1411.1792, for the question. 10 labels per class of DATA, ridge regression on the mean over
positions of every endpoint, strengths by 5-fold cross-validation on those labels; tested on the
full test split; five seeds, which draw labels and folds. The argument is WEIGHTS,DATA[,NET] as in
configs/probe.py, and all endpoints come from one forward pass.

    python launch/train.py --config configs/layers.py:places365:resnet18,tfds:fashion_mnist \
        --workdir runs/layers

Expected: CIFAR-10's ResNet-56 on Fashion-MNIST, mean and standard deviation: stem 46.0 ± 2.3,
stage1 50.4 ± 2.0, stage2 60.9 ± 2.6, stage3 and features 54.7 ± 1.9: the middle transfers best.
Time: 6 min on 2 busy CPU cores.
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
