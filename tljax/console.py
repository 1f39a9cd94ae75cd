"""What a run says while it works: a bar with rate and time left on a terminal, else lines."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONSOLE = Console(highlight=False)
LINE_SECONDS = 10.0


class Show:
    """Progress of one job, counted in `unit`s; a context manager."""

    def __init__(self, name: str, total: int, unit: str = 'step'):
        self.name, self.total, self.unit = name, total, unit
        self.started: tuple[float, int] | None = None
        self.spoken, self.note = time.perf_counter(), ''
        self.bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('{task.fields[rate]}'),
            TimeRemainingColumn(),
            TextColumn('{task.fields[note]}'),
            console=CONSOLE,
            disable=not CONSOLE.is_terminal,
        )

    def __enter__(self) -> 'Show':
        self.task = self.bar.add_task(self.name, total=self.total or 1, rate='', note='compiling')
        self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()

    def step(self, step: int, info: Mapping) -> None:
        """Called after every compiled call."""
        now = time.perf_counter()
        rate = ''
        if self.started is None:
            self.started = (now, step)
        elif now > self.started[0]:
            each = (step - self.started[1]) / (now - self.started[0])
            rate = f'{each:{".0f" if each >= 100 else ".3g"}} {self.unit}s/s'
        note = self.note or info.get('phase', '')
        self.bar.update(self.task, completed=step, rate=rate, note=note)
        if not CONSOLE.is_terminal and now - self.spoken > LINE_SECONDS:
            self._line(f'{self.unit} {step} of {self.total}  {rate}  {note}')

    def evaluated(self, record: Mapping) -> None:
        """Called with every line of metrics."""
        parts = []
        for stream, metrics in record.items():
            if isinstance(metrics, dict) and 'accuracy' in metrics:
                values = metrics['accuracy']
                parts.append(f'{stream} {100 * sum(values) / len(values):.1f} %')
            elif isinstance(metrics, dict) and 'loss' in metrics:  # of regressions alone
                values = metrics['loss']
                parts.append(f'{stream} loss {sum(values) / len(values):.3g}')
        self.note = '  '.join(parts)
        if not CONSOLE.is_terminal:
            self._line(f'step {record["step"]} of {self.total}  {self.note}')

    def _line(self, text: str) -> None:
        self.spoken = time.perf_counter()
        CONSOLE.print(f'{self.name}: {text}', soft_wrap=True)


def say(text: str) -> None:
    CONSOLE.print(text, soft_wrap=True)
