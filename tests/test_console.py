"""What a run says while it works."""

from types import SimpleNamespace

import pytest

from tljax import console


@pytest.mark.parametrize(
    ('seconds', 'rate'), [(0.02, '50 steps/s'), (0.003, '333 steps/s'), (16.5, '0.0606 steps/s')]
)
def test_a_rate_is_told_however_slow(seconds, rate, monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(console, 'time', SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(console, 'LINE_SECONDS', 0)
    with console.Show('run', 3) as show:
        for step in (1, 2, 3):
            clock.now += seconds
            show.step(step, {'phase': 'train'})
    assert capsys.readouterr().out.splitlines()[-1] == f'run: step 3 of 3  {rate}  train'
