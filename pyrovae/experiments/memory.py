"""Memory that is not enough, in words that say what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyrovae.errors import InputError

# What torch and the system say where there is no more.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")


@contextmanager
def memory_for(what: str, *settings: str) -> Iterator[None]:
    """Turn failures to allocate into words.

    Args:
        what: is done within.
        settings: flags that take less memory when they are lowered.

    Raises:
        InputError: for them.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in WORDS):
            raise
        raise InputError(f"expected enough memory for {what}; there is no more: lower {' or '.join(settings)}") from error
