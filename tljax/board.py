"""Scalars for TensorBoard: every member is a TensorBoard run, every metric a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class Board:
    """Event files below a directory, one folder a member, such as 'seed=0,labels_per_class=5'."""

    def __init__(self, directory: Path, members: Sequence[Mapping], start: int):
        """`start` is the first step to be written: what an earlier, longer try left is hidden."""
        writer = writer_class()
        self.writers = [
            writer(str(directory / name), purge_step=start) for name in map(_name, members)
        ]

    def append(self, line: Mapping) -> None:
        """Writes a line of metrics: '<stream>/<metric>' of every member."""
        for stream, metrics in line.items():
            if not isinstance(metrics, Mapping):
                continue
            for metric, values in metrics.items():
                for writer, value in zip(self.writers, values, strict=True):
                    writer.add_scalar(f'{stream}/{metric}', value, line['step'])
        for writer in self.writers:
            writer.flush()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def writer_class() -> type:
    """tensorboardX's SummaryWriter.

    Raises:
      ValueError: it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard=True needs tensorboardX: pip install -e '.[tensorboard]'"
        ) from None
    return SummaryWriter


def _name(member: Mapping) -> str:
    return ','.join(f'{axis}={value:g}' for axis, value in member.items())
