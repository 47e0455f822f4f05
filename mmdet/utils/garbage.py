"""Python's collector of cyclic garbage."""
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Looks for cyclic garbage only afterwards: for code that makes very many objects and no cycles.

    Every hundred thousand new objects may set off a search through all objects of the process, of which torch alone
    makes several hundred thousand.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
