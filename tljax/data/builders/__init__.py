"""TFDS builders of sets that TFDS lacks. Importing this registers them; none needs TensorFlow."""

from tljax.data.builders import digits, domains, omniglot, pairs

__all__ = ['digits', 'domains', 'omniglot', 'pairs']
