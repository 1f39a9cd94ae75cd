"""Data: named sources, subsets, the streaming reader and on-device augmentation."""
