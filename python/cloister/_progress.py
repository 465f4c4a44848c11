"""How far a long prediction is."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Progress = Callable[[int, int], object] | Literal[False] | None
"""Called with how many rows are answered, and of how many; None is a bar of tqdm if somebody sees it, False nothing."""

_PATIENCE = 1.0
"""Seconds without a bar."""


@contextmanager
def told(progress: Progress, total: int) -> Iterator[Callable[[int], object] | None]:
    """Gives what is to be told how many rows of `total` are answered."""
    if progress is False:
        yield None
    elif progress is not None:
        yield lambda done: progress(done, total)
        progress(total, total)
    elif (tqdm := _tqdm()) is not None:
        bar = _Bar(tqdm, total)
        try:
            yield bar.reach
        finally:
            bar.close()
    else:
        yield None


class _Bar:
    """A bar once it is worth one."""

    def __init__(self, tqdm: Any, total: int) -> None:
        self.tqdm, self.total = tqdm, total
        self.began = time.monotonic()
        self.bar: Any = None

    def reach(self, done: int) -> None:
        if self.bar is None and time.monotonic() - self.began > _PATIENCE:
            self.bar = self.tqdm(total=self.total, unit=" rows", initial=done)
        elif self.bar is not None:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _tqdm() -> Any:
    """tqdm, if it is installed and there is somebody to see it."""
    if not ((sys.stderr and sys.stderr.isatty()) or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
