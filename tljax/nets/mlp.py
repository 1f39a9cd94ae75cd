"""A multi-layer perceptron with named endpoints."""

import flax.linen as nn
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.norm import Dropout


class MLP(nn.Module):
    """Dense layers with ReLU on the flattened image: hidden1, hidden2, ..., features.

    Attributes:
      widths: of the hidden layers.
      dense: width of the features.
      dropout: rate after each hidden layer.
      input: the images it is made for.
    """

    widths: tuple[int, ...] = (256,)
    dense: int = 128
    dropout: float = 0.0
    input: Input = Input(size=28, channels=1)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (*(f'hidden{i}' for i in range(1, len(self.widths) + 1)), 'features')

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, ...] -> endpoint(s): hidden1 and on [N, width]; features [N, dense]."""
        stages = {
            name: self.hidden(name, w) for name, w in zip(self.endpoints, self.widths, strict=False)
        }
        dense = nn.Dense(self.dense, name='dense')
        stages['features'] = lambda x: nn.relu(dense(x.reshape(x.shape[0], -1)))
        return run(stages, x, since, until)

    def hidden(self, name: str, width: int):
        layer = nn.Dense(width, name=name)
        drop = Dropout(self.dropout, name=f'{name}_dropout')
        return lambda x: drop(nn.relu(layer(x.reshape(x.shape[0], -1))))
