"""Packages that are installed with an extra alone."""

import importlib
from typing import Any

from pyrovae.errors import InputError


def import_extra(package: str, extra: str, purpose: str) -> Any:
    """Import a package of an extra.

    Args:
        package: the package.
        extra: the extra of pyrovae that brings it.
        purpose: what it is needed for, in words after the package.

    Raises:
        InputError: where it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f'expected the package {package} {purpose}; it is not installed: pip install "pyrovae[{extra}]"'
        ) from error
