"""Exchanges between the processes of a group, as operations that can be captured: each process gets the values of all.

A step of a network with batch norm has dozens of small exchanges, one after the other, for which messages through sockets take
longer than the arithmetic: processes of one machine write to memory that they share, and wait for each other without sleeping.
All others use the backend of ``torch.distributed``.
"""

from __future__ import annotations

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pyrovae.errors import LostProcessError

backend = torch.ops._c10d_functional
# The memory that a group shares.
MEMORY_FOLDER, MEMORY_BYTES = "/dev/shm", 48 * 2**20
# On other processors a write may become visible before those that came earlier.
ORDERED = ("x86_64", "AMD64")
# Whoever waits for longer than the first lets others have the processor, and after the second sleeps and looks who is alive.
YIELDING_SECONDS, SLEEPING_SECONDS, PAUSE_SECONDS = 0.0005, 0.02, 0.0005
# As long as gloo waits.
MOST_SECONDS = 30 * 60

_library = torch.library.Library("pyrovae", "FRAGMENT")
_library.define("gather(Tensor values, str group, int size) -> Tensor")
_library.define("sum(Tensor values, str group, int size) -> Tensor")


@dataclass(frozen=True)
class Collective:
    """The exchanges of a group.

    Args:
        group: the name of the group.
        size: the number of its processes.
    """

    group: str
    size: int

    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes ``(N, *)``."""
        found: Tensor = torch.ops.pyrovae.gather(values.reshape(-1), self.group, self.size)
        return found.view(self.size, *values.shape)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in the same order in each."""
        found: Tensor = torch.ops.pyrovae.sum(values.reshape(-1), self.group, self.size)
        return found.view(values.shape)


def place_bytes(size: int) -> int:
    """The bytes for the values of each of some processes in the memory that they share."""
    return MEMORY_BYTES // (2 * size) // mmap.PAGESIZE * mmap.PAGESIZE


class Board:
    """The memory that the processes of a group share, with a place for the values of each.

    An exchange writes to one half of the memory, the next one to the other half: whoever writes again to the first half has
    seen all processes in the exchange between, which they enter after they have read.

    Args:
        memory: the memory: a page of counters, then the places.
        rank: the number of this process.
        processes: the process identifiers of all.
    """

    def __init__(self, memory: mmap.mmap, rank: int, processes: Sequence[int]) -> None:
        self._memory, self._rank, self._processes = memory, rank, processes
        # The first page: the number of the last exchange that each has written to, and the bytes that it wrote to either half.
        self._counters, *self._lengths = np.frombuffer(memory, np.int64, 3 * len(processes)).reshape(3, -1)
        self._exchanges = 0

    def exchange(self, values: Tensor) -> Tensor:
        """The values of all processes ``(N, n)``, for values ``(n,)``; the exchange after the next one overwrites them."""
        self._exchanges += 1
        own, size = values.view(torch.uint8).numpy(), len(self._processes)
        half, lengths = self._exchanges % 2, self._lengths[self._exchanges % 2]
        start = mmap.PAGESIZE + half * size * place_bytes(size)
        places = np.frombuffer(self._memory, np.uint8, size * len(own), start).reshape(size, -1)
        places[self._rank], lengths[self._rank] = own, len(own)
        self._counters[self._rank] = self._exchanges
        self._wait()
        if int(lengths.min()) != int(lengths.max()):
            raise LostProcessError(f"expected processes that exchange alike; got {lengths.tolist()} bytes of each")
        return torch.from_numpy(places).view(values.dtype)

    def _wait(self) -> None:
        """Wait until all processes have written."""
        began = time.perf_counter()
        while int(self._counters.min()) < self._exchanges:
            waited = time.perf_counter() - began
            if waited > MOST_SECONDS:
                raise LostProcessError(f"timed out: another process of the group did nothing for {MOST_SECONDS} s")
            if waited > SLEEPING_SECONDS:
                self._refuse_dead()
                time.sleep(PAUSE_SECONDS)
            elif waited > YIELDING_SECONDS:
                os.sched_yield()

    def _refuse_dead(self) -> None:
        """Raise an error where another process of the group has ended."""
        for process in self._processes:
            try:
                # After the name, which is in brackets.
                state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                state = "X"
            if state in "XZ":
                raise LostProcessError("another process of the group has ended")


def prepare(group: dist.ProcessGroup) -> None:
    """Share memory among the processes of a group, where they are on one machine; all of them must call it."""
    known, _ = _BOARDS.get(group.group_name, (None, None))
    if known is group:
        return
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    paths = [_new_file() if rank == 0 else ""]
    dist.broadcast_object_list(paths, group=group, group_src=0)
    memory = _opened(paths[0])
    found: list[Any] = [None] * size
    dist.all_gather_object(found, (os.getpid(), _namespace(), memory is not None), group=group)
    if rank == 0 and paths[0]:
        # It lives as long as the processes that have it in memory.
        os.unlink(paths[0])
    processes, namespaces, have_memory = zip(*found, strict=True)
    is_shared = memory is not None and all(have_memory) and len(set(namespaces)) == 1
    _BOARDS[group.group_name] = group, Board(memory, rank, processes) if memory is not None and is_shared else None


def _namespace() -> str:
    """The name of the space of process numbers, which differs between containers."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _new_file() -> str:
    """The path of a new file of shared memory; empty where there is none."""
    if platform.machine() not in ORDERED or not hasattr(os, "posix_fallocate"):
        return ""
    try:
        descriptor, path = tempfile.mkstemp(prefix="pyrovae-", dir=MEMORY_FOLDER)
    except OSError:
        return ""
    try:
        # Memory that is promised and not there would end the process at a write.
        os.posix_fallocate(descriptor, 0, mmap.PAGESIZE + MEMORY_BYTES)
    except OSError:
        os.unlink(path)
        return ""
    finally:
        os.close(descriptor)
    return path


def _opened(path: str) -> mmap.mmap | None:
    """The memory of a file; None where this machine has no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return mmap.mmap(descriptor, mmap.PAGESIZE + MEMORY_BYTES)
    finally:
        os.close(descriptor)


# By the name of a group, which another group may have after it.
_BOARDS: dict[str, tuple[dist.ProcessGroup, Board | None]] = {}


def _board_for(values: Tensor, group: str) -> Board | None:
    """The shared memory for these values; None where they go through the backend."""
    return _BOARDS[group][1] if values.device.type == "cpu" and group in _BOARDS else None


@torch.library.impl(_library, "gather", "CompositeExplicitAutograd")
def _gather(values: Tensor, group: str, size: int) -> Tensor:
    board = _board_for(values, group)
    if board is not None and values.nbytes <= place_bytes(size):
        return board.exchange(values.contiguous()).clone()
    found = backend.all_gather_into_tensor(values.contiguous(), size, group)
    return backend.wait_tensor(found).view(size, -1)


@torch.library.impl(_library, "sum", "CompositeExplicitAutograd")
def _sum(values: Tensor, group: str, size: int) -> Tensor:
    if board := _board_for(values, group):
        pieces = values.contiguous().split(place_bytes(size) // values.element_size())
        sums = [board.exchange(each).sum(0) for each in pieces]
        return sums[0] if len(sums) == 1 else torch.cat(sums)
    return backend.wait_tensor(backend.all_reduce(values.contiguous(), "sum", group))


@torch.library.register_fake("pyrovae::gather")
def _(values: Tensor, group: str, size: int) -> Tensor:
    return values.new_empty(size, values.numel())


@torch.library.register_fake("pyrovae::sum")
def _(values: Tensor, group: str, size: int) -> Tensor:
    return torch.empty_like(values)
