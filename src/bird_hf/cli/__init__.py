"""The command line, `bird`. Heavy imports wait until a command needs them."""

from .commands import app, main

__all__ = ["app", "main"]
