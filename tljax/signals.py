"""SIGTERM while a command has nothing to save; in training `loop.terminated` takes it."""

import os
import signal
import sys

STOPPED = 75  # EX_TEMPFAIL: try again


def exit_on_sigterm() -> None:
    """From now on SIGTERM ends this process with STOPPED, and says that the command may go on."""
    signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = _unraisable


def stop(*_) -> None:
    """The handler."""
    print('stopped; the same command goes on', file=sys.stderr, flush=True)
    sys.exit(STOPPED)


def _unraisable(ignored) -> None:
    # A signal that comes inside a destructor or a callback of the garbage collector, of which JAX
    # has one, raises where Python drops exceptions: the program would go on.
    if ignored.exc_type is SystemExit:
        os._exit(STOPPED)
    sys.__unraisablehook__(ignored)
