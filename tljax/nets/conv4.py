"""Small nets of embeddings for one-shot recognition: four convolutions, and Koch's."""

import flax.linen as nn
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.lowering import ConvPool


class Conv4(nn.Module):
    """Four times 3x3 convolution, batch normalisation, ReLU and 2x2 maximum; then flattened.

    Vinyals et al. 2016, arXiv:1606.04080, section 4.1; Snell et al. 2017, arXiv:1703.05175, section
    3.1: images of 28 pixels become 64 features. The norm comes after the maximum, which is the same
    where its scale is positive, but for the statistics that it takes.

    Attributes:
      widths: channels of each convolution.
      input: the images it is made for: strokes white on black, not shifted.
    """

    widths: tuple[int, ...] = (64, 64, 64, 64)
    input: Input = Input(size=28, channels=1, mean=(0.0,), std=(1.0,))

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (*(f'conv{i + 1}' for i in range(len(self.widths))), 'features')

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, C] -> endpoint(s): conv1 ... [N, h, w, width]; features [N, D]."""
        stages = {
            f'conv{i + 1}': ConvPool(width, (3, 3), 'SAME', norm=True, name=f'conv{i + 1}')
            for i, width in enumerate(self.widths)
        }
        stages['features'] = lambda x: x.reshape(x.shape[0], -1)
        return run(stages, x, since, until)


class KochNet(nn.Module):
    """Koch et al. 2015, "Siamese neural networks for one-shot image recognition", figure 4.

    Convolutions 64 @ 10x10, 128 @ 7x7, 128 @ 4x4, each pooled by 2, 256 @ 4x4, and a dense layer
    with sigmoids. Images of 105 pixels, as published; smaller ones need smaller kernels.

    Attributes:
      widths: channels of the four convolutions.
      kernels: their sides.
      dense: width of the features.
      padding: of the convolutions.
      input: the images it is made for.
    """

    widths: tuple[int, int, int, int] = (64, 128, 128, 256)
    kernels: tuple[int, int, int, int] = (10, 7, 4, 4)
    dense: int = 4096
    padding: str = 'VALID'
    input: Input = Input(size=105, channels=1, mean=(0.0,), std=(1.0,))

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'conv1', 'conv2', 'conv3', 'conv4', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, C] -> endpoint(s): conv1 ... [N, h, w, width]; features [N, dense]."""
        dense = nn.Dense(self.dense, name='dense')
        # The last convolution has no pool behind it.
        stages = {
            f'conv{i + 1}': ConvPool(
                self.widths[i],
                (self.kernels[i],) * 2,
                self.padding,
                window=2 if i < 3 else 1,
                name=f'conv{i + 1}',
            )
            for i in range(4)
        }
        stages['features'] = lambda x: nn.sigmoid(dense(x.reshape(x.shape[0], -1)))
        return run(stages, x, since, until)
