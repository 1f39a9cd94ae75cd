"""LeNet with named endpoints."""

import flax.linen as nn
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.lowering import ConvPool, FlatDense
from tljax.nets.norm import Dropout


class LeNet(nn.Module):
    """Two convolutions, each pooled, and one dense layer: the digit net of domain adaptation.

    `dense/kernel` depends on the image size, all else does not. For images of 8 to 16 pixels take
    `kernel=3, padding='SAME'`.

    Reference: LeCun et al., 1998, Proc. IEEE 86(11); widths and ReLU as in Ganin et al., 2016,
    arXiv:1505.07818 and Tzeng et al., 2017, arXiv:1702.05464 (Caffe's version of the net).

    Attributes:
      widths: channels of the two convolutions.
      kernel: side of their kernels.
      dense: width of the features; 0 leaves the dense layer out, and they are conv2, flattened.
      padding: of the convolutions.
      norm: batch normalisation of the convolutions, after their pools, and of the dense layer.
      dropout: rate on what the dense layer sees.
      input: the images it is made for.
    """

    widths: tuple[int, int] = (20, 50)
    kernel: int = 5
    dense: int = 500
    padding: str = 'VALID'
    norm: bool = False
    dropout: float = 0.0
    input: Input = Input(size=28, channels=1)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'conv1', 'conv2', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, C] -> endpoint(s): conv1, conv2 [N, h, w, width]; features [N, dense]."""
        sides = (self.kernel, self.kernel)
        conv1 = ConvPool(self.widths[0], sides, self.padding, norm=self.norm, name='conv1')
        conv2 = ConvPool(self.widths[1], sides, self.padding, norm=self.norm, name='conv2')
        drop = Dropout(self.dropout, name='dropout')
        dense = FlatDense(self.dense, self.norm, name='dense') if self.dense else _flat
        stages = {'conv1': conv1, 'conv2': conv2, 'features': lambda x: dense(drop(x))}
        return run(stages, x, since, until)


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], -1)
