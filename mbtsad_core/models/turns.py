"""Threads that share a model, as visitors of the page do: forward passes run side by side, and one that sets the
model's attention for itself runs alone. Else those under way would go on with an attention that their mask is not made
for.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any

from fasteners import ReaderWriterLock

_locks: weakref.WeakKeyDictionary[Any, ReaderWriterLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def _begin_anew() -> None:
    """In a process that was forked, as a GPU is lent: the threads that held a lock are not there to give it back."""
    global _making
    _making = threading.Lock()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def side_by_side(model: Any) -> AbstractContextManager[object]:
    """Within it nobody sets the model's attention, but this thread, if it runs alone."""
    return _lock_of(model).read_lock()  # type: ignore[no-any-return]


def alone(model: Any) -> AbstractContextManager[object]:
    """Within it no other thread has a forward pass of the model. It goes before forward passes that come later. Raises
    RuntimeError within `side_by_side`."""
    return _lock_of(model).write_lock()  # type: ignore[no-any-return]


def _lock_of(model: Any) -> ReaderWriterLock:
    with _making:
        if (lock := _locks.get(model)) is None:
            lock = _locks[model] = ReaderWriterLock()
        return lock
