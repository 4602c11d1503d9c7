"""Refusals in place of memory errors, which name the settings to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyrovae.errors import InputError

# Words in the errors of torch and the system when memory runs out.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")


@contextmanager
def memory_for(what: str, *settings: str) -> Iterator[None]:
    """Turn failures to allocate memory into refusals.

    Args:
        what: what is done in the context, in words.
        settings: flags that need less memory when they are lowered.

    Raises:
        InputError: for a failure to allocate memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in WORDS):
            raise
        raise InputError(f"expected enough memory for {what}; there is no more: lower {' or '.join(settings)}") from error
