"""The processes of a run end together: what ends one of them is said once, and ends the others within seconds.

They share a store of torch's, the one they meet by. The first that fails leaves a mark in it, and a thread of every
other one looks for the mark once a second, since the main thread may be waiting for the failed one in a barrier.
"""
import multiprocessing
import os
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed

from .dist import TIMEOUT, take_environment

_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 5.0  # for a process to end by itself where another has failed
_FAILING_SECONDS = 30.0  # between the first end and the last, after a failure
_LEAVING_SECONDS = 60.0  # the same after a success
_FAILED, _GONE = 'failed', 'gone'


class SharedEnd:
    """One process's part in the end of a run: alone, or as one of those that a launcher has started.

    Args:
        launcher: `'none'`, or another one of `LAUNCHERS`, whose other processes are waited for.

    Attributes:
        is_alone: whether there are no other processes.

    Raises:
        ConfigError: where the launcher's environment variables are not there, or make no sense.
    """

    def __init__(self, launcher: str = 'none'):
        self.is_alone = True
        if launcher == 'none':
            return
        take_environment(launcher)
        if os.environ['WORLD_SIZE'] == '1':
            return
        store, self._rank, self._size = next(torch.distributed.rendezvous('env://', timeout=TIMEOUT))
        store.set_timeout(timedelta(seconds=_FAILING_SECONDS))
        self._store = torch.distributed.PrefixStore('shared_end', store)
        self.is_alone = False
        self._has_failed, self._has_succeeded = threading.Event(), threading.Event()
        self._to_be_counted = threading.Lock()
        threading.Thread(target=self._watch, name='shared end', daemon=True).start()

    def fail(self) -> bool:
        """Tell the others that this process has failed; returns whether it is the first, which says why."""
        if self.is_alone:
            return True
        self._has_failed.set()
        try:
            return self._store.add(_FAILED, 1) == 1
        except RuntimeError:  # the process that kept the store has failed before
            return False

    def leave(self, has_failed: bool) -> None:
        """The last that a process does. The first one, which may keep the store, waits for the others."""
        if self.is_alone:
            return
        if not has_failed:
            self._has_succeeded.set()
        with suppress(RuntimeError):  # the process that kept the store may be gone
            self._wait_for_all(_FAILING_SECONDS if has_failed else _LEAVING_SECONDS)

    def _wait_for_all(self, seconds: float) -> None:
        if self._to_be_counted.acquire(blocking=False):
            self._store.add(_GONE, 1)
        deadline = time.monotonic() + seconds
        while self._rank == 0 and self._store.add(_GONE, 0) < self._size and time.monotonic() < deadline:
            time.sleep(0.05)

    def _watch(self) -> None:
        """End this process where another one has failed and this one does not end by itself."""
        try:
            while not self._store.check([_FAILED]):
                if self._has_succeeded.wait(_LOOK_SECONDS):
                    return
            time.sleep(_GRACE_SECONDS)
            self._wait_for_all(_FAILING_SECONDS)
        except RuntimeError:  # the process that kept the store is gone, and has said why if it could
            if self._has_succeeded.wait(_GRACE_SECONDS):
                return
        if self._has_failed.is_set():  # which is more than to be told of a failure: it ends by itself
            time.sleep(_GRACE_SECONDS)
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(1)
