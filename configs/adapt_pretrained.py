"""Domain adaptation of the last layers of published weights, as for photos, paintings and sketches.

Paper: of each method in `configs/adapt.py`; the protocol is that of Office-31 and PACS (Ganin et
al., 2016, section 5.2.4; Li et al., 2017, arXiv:1710.03077), transductive: 80 per cent of SOURCE,
with labels, are the source, and the rest selects the step; all images of TARGET, without labels,
are the target and also the test. A new head is trained, and the last stage at a tenth of its rate;
the stages below are frozen with all norms, and computed once an image. The argument is
WEIGHTS,METHOD,SOURCE,TARGET[,NET]: weights and net as in configs/probe.py, METHOD and the twin
`source_only` as in configs/adapt.py. An oracle would be tested on what it was trained on, so there
is none: configs/probe.py tells what TARGET's own labels give.

    python launch/train.py --config configs/adapt_pretrained.py:places365:resnet18,dan,folder:A,folder:B \
        --workdir runs/adapt --config.members.seed=0,1,2

Methods that augment, translate or reconstruct images, or that estimate statistics anew, are not for
cached layers: adabn, adamatch, cycada, drcn and translation.

Expected: from ImageNet's MobileNetV2, PACS photo (40 images for each of 7 classes a domain) to art
painting, cartoon and sketch, last step, mean ± standard deviation of three seeds: source_only 57.4
± 0.7, 32.5 ± 0.4, 24.8 ± 1.1; dan 65.2 ± 1.5, 48.9 ± 7.8, 38.7 ± 8.9; coral 63.9 ± 0.4, 46.3 ± 5.0,
33.0 ± 0.5; mcc 63.9 ± 3.8, 40.5 ± 3.9, 27.5 ± 6.7; dann, on so few images, does not help.
Time: 15 min for each target on a busy CPU core.
"""  # noqa: E501

from configs import adapt, probe
from tljax.data.sources import test_split
from tljax.types import unknown

# The stages behind which there is a head, and which move.
LAST = {'imagenet_resnet': ('stage4',), 'mobilenet_v2': ('top',), 'vgg': ('fc6', 'fc7')}
IMAGES = ('adabn', 'adamatch', 'cycada', 'drcn', 'translation')


def get_config(argument: str = 'places365:resnet18,dann,tfds:office31/amazon,tfds:office31/dslr'):
    """`argument` is WEIGHTS,METHOD,SOURCE,TARGET[,NET]."""
    weights, fields, net = probe.parsed(argument)
    if len(fields) != 3:
        raise ValueError(f'{argument!r} is not WEIGHTS,METHOD,SOURCE,TARGET[,NET as JSON]')
    if net['name'] not in LAST:
        raise unknown('net whose last stage is known', net['name'], LAST)
    methods, source, *_ = adapt.parsed(','.join(fields))
    if banned := set(methods) & set(IMAGES):
        raise ValueError(f'{sorted(banned)[0]} needs images, and these layers are cached')
    c = adapt.get_config(','.join(fields))
    c.net, c.init['from'] = net, weights
    c.cache_prefix, c.features.root = True, 'runs/features'
    c.trains = '|'.join(f'encoder/{one}' for one in LAST[net['name']])
    c.trains += '|!encoder/**/norm*|head'
    c.optimizer.rates = {'encoder': 0.1}
    c.block = 64
    c.steps, c.evaluate_every = 200, 40
    del c.runs['oracle']
    c.compare.update(ceiling='', arms=('source_only', *methods))
    cached = {'batch': 32, 'augment': ''}
    c.data.streams.source.update(cached)
    for name in methods:
        if 'net' in c.runs[name]:  # which is for digits
            del c.runs[name]['net']
        c.runs[name].data.streams.target.update(cached, split='all')
    c.data.evaluate.test.split = c.data.evaluate.target.split = 'all'
    c.data.evaluate.val.split = test_split(source)
    return c
