"""TFDS builders for sets that TFDS lacks; importing this registers them. None needs TensorFlow."""

from tljax.data.builders import digits

__all__ = ['digits']
