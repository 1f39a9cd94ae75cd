"""Zero-shot from images: a published net's features, a projection to word vectors, a class unseen.

Paper: Frome et al., 2013, "DeViSE: a deep visual-semantic embedding model", with the net kept as it
is. Every two of the CLASSES in turn are never seen: trained on all others, their images are told
apart by what the two are like (stream test), and among all classes (streams seen and unseen). The
argument is WEIGHTS,DATA,CLASSES,EMBEDDINGS[,NET], CLASSES joined by '+', EMBEDDINGS as in
configs/zero_shot.py and NET as in configs/probe.py.

    python launch/train.py --config configs/zero_shot_images.py:torchvision:ResNet18_Weights.IMAGENET1K_V1,folder:PATH,dog+horse+house+person,words:FILE \
        --workdir runs/zero_shot_images
    python launch/train.py --config 'configs/zero_shot_images.py:file:../shared/data/weights/mobilenet_v2_imagenet.safetensors,folder:../shared/data/pacs/photo,dog+horse+house+person,words:../shared/data/wordvec/wordvecs1000.json.js,{"name": "mobilenet_v2", "padding": "SAME", "input": {"size": 96, "mean": [0.5], "std": [0.5]}}' \
        --workdir runs/zero_shot_photos

Expected: photos of PACS by the second command, whose file has 1,000 words' vectors, which are of 4
of PACS's 7 classes (of CIFAR-10's 10 they are of 3: cat, dog, horse). Accuracy per class of the
unseen two, chance 50: dog and house 79.6, dog and person 67.1, horse and house 60.0, horse and
person 47.9, dog and horse 46.7, house and person 43.8, in all 57.5 ± 14.0 (pairs): two seen classes
teach too little to be told from chance. Among all four, images of unseen classes are recognised in
0 to 5 per cent of cases. With so few classes none are left to tune on, so that nothing is tuned.
Time: 12 min on one CPU core.
"""  # noqa: E501

import itertools

from configs import probe
from tljax import config

DEFAULT = (
    'torchvision:ResNet18_Weights.IMAGENET1K_V1,sklearn:digits,0+2+7,csv:configs/seven_segment.csv'
)


def get_config(argument: str = DEFAULT):
    """`argument` is WEIGHTS,DATA,CLASSES,EMBEDDINGS[,NET]."""
    weights, fields, net = probe.parsed(argument)
    if len(fields) != 3:
        raise ValueError(f'{argument!r} is not WEIGHTS,DATA,CLASSES,EMBEDDINGS[,NET as JSON]')
    data, classes, embeddings = fields[0], tuple(fields[1].split('+')), fields[2]
    if len(classes) < 3:
        raise ValueError(f'classes {fields[1]!r}: expected 3 or more, of which 2 are never seen')
    c = config.default()
    c.name = 'zero_shot_images'
    c.title = c.description = f'Zero-shot from images, {config.label(data)}'
    c.net, c.init['from'] = net, weights
    c.method, c.trains, c.cache_prefix = 'devise', 'head', True
    c.optimizer.name, c.hparams.rate, c.steps = 'adam', 1e-3, 300
    c.data.embeddings, c.data.wrap = tuple(embeddings.split('+')), True
    c.block = 64
    c.data.streams.source = config.stream(data, classes=classes)
    c.data.evaluate.test = config.held_out(data, split='all', classes=classes, among='unseen')
    c.data.evaluate.seen = config.held_out(data, classes=classes)
    c.data.evaluate.unseen = config.held_out(data, split='all', classes=classes)
    c.members.seed = (0, 1, 2)
    for unseen in itertools.combinations(classes, 2):
        seen = tuple(name for name in classes if name not in unseen)
        evaluate = {'test': {'only': unseen}, 'seen': {'only': seen}, 'unseen': {'only': unseen}}
        streams = {'source': {'only': seen}}
        c.runs['_'.join(unseen)] = {'data': {'streams': streams, 'evaluate': evaluate}}
    arms = tuple(c.runs)
    # Each two are a test of their own, which no other two are judged by.
    c.compare.update(arms=arms, metric='per_class_accuracy')
    c.compare.also = ('seen', 'unseen', 'unseen:harmonic_mean')  # among all classes
    return c
