"""Where a training runs: what its bits may depend on, and what people ask about later."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Of these the bits of a training may depend.
DECISIVE = ("torch", "capability", "threads", "device")


def described() -> dict[str, Any]:
    """Versions, processor, threads, command line, and the revision of the working directory where it has one."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in ("torch", "pyro-ppl", "pyrovae")},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
        "git": _revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What bits may depend on and is another now, in words."""
    changed = [name for name in DECISIVE if name in before and name in now and before[name] != now[name]]
    return [f"{name} {str(before[name])[:100]}, now {now[name]}" for name in changed]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _revision() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
