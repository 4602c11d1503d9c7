"""The environment of a training: the facts that its bits may depend on, and others that people ask about later."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# The number of cores in use by others from which there is a warning.
BUSY = 0.7
# The facts that the bits of a training may depend on.
DECISIVE = ("torch", "zuko", "capability", "threads", "device")


def describe_environment() -> dict[str, Any]:
    """Describe the environment: versions, processor, threads, command line, and the git revision of the working directory."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in ("torch", "pyro-ppl", "pyrovae")},
        **({"zuko": _version("zuko")} if "zuko" in sys.modules else {}),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
        "git": _revision(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The facts that bits may depend on and that have changed, in words."""
    changed = [name for name in DECISIVE if name in before and name in now and before[name] != now[name]]
    return [f"{name} {str(before[name])[:100]}, now {now[name]}" for name in changed]


def busy_warning() -> str:
    """A warning where other work and the threads of this process need more cores than the machine has; else empty."""
    import torch

    if not hasattr(os, "getloadavg"):
        return ""
    cores, others, own = os.cpu_count() or 1, os.getloadavg()[0], torch.get_num_threads()
    if others < BUSY or others + own < cores + BUSY:
        return ""
    return (
        f"this machine has {cores} cores, {others:.1f} of them busy, and this training takes {own}: trainings beside each "
        "other slow each other down many times over; give each a share with --threads"
    )


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
