"""Compile captured graphs with inductor, and keep the compiled code for later processes."""

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor, fx

from pyrovae.engine.cache import SharedFolder, limit_in_bytes
from pyrovae.engine.capture import Graph
from pyrovae.engine.cuda_graphs import CudaGraphFunction
from pyrovae.engine.matmul_kernels import machine, machine_key, with_fastest_products

# The costs of compiling and loading, measured on two cores.
COMPILE_SECONDS, COMPILE_SECONDS_PER_NODE, LOAD_SECONDS = 3.0, 0.009, 2.0
# Shorter compilations say little of the pace of a machine.
LEAST_SECONDS = 5.0

# The pauses between tries to load a library that is not whole.
PAUSES_SECONDS = (0.5, 2.0, 4.0)

Compiled = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]
logger = logging.getLogger(__name__)


def has_compiler() -> bool:
    """True where there is a C++ compiler, without which inductor cannot work on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def compile_graph(graph: Graph, inputs: Sequence[Tensor]) -> Compiled:
    """Compile a graph, or load it where an earlier process compiled the same one.

    On a CUDA device the kernels are recorded as a CUDA graph at the first call.

    Compiled code is kept under a key of the operations, the layout of every input, the versions, torch's settings of precision,
    the processor and the number of threads. It takes at most a gibibyte, or ``PYROVAE_CACHE_BYTES``; the least recently used is
    removed first. Nothing is loaded that another user could have written, since loading code runs it; damaged code is compiled
    anew, and code that cannot be kept is not kept.
    """
    from torch._inductor import config, standalone_compile

    everything: list[Any] = [*graph.constants, *inputs]
    module = with_fastest_products(graph.module)
    assert module is not None
    cache, key = _cache(), _fingerprint(module, everything)
    with torch.no_grad(), _without_advice():
        artifact = _with_whole_libraries(lambda: _loaded(cache, key))
        if artifact is None:
            # On a CPU random numbers are torch's own, the same as in plain Pyro for the same seed.
            start = time.perf_counter()
            with config.patch(fallback_random=all(tensor.device.type == "cpu" for tensor in everything)):
                artifact = _with_whole_libraries(
                    lambda: standalone_compile(module, everything, dynamic_shapes="from_example_inputs")
                )
            _keep_pace(everything, time.perf_counter() - start, time_to_compile_anew(graph))
            _save(artifact, cache, key)

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        with torch.no_grad():
            return artifact(*graph.constants, *inputs)

    device = cuda_device(everything)
    return run if device is None else CudaGraphFunction(run, graph.constants, device)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide torch's advice on TF32: the precision of products is the caller's, and torch 2.9 warns where it is read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores|Please use the new API settings to control TF32")
        yield


def _with_whole_libraries(make: Callable[[], Any]) -> Any:
    """Return the result of ``make``, once the libraries that it loads are whole.

    torch links a library under the name by which other processes load it: a library that another process compiles at the same
    moment is waited for, and one that a dead process left torn is removed.
    """
    torn = None
    for pause in PAUSES_SECONDS:
        try:
            return make()
        except Exception as error:  # whatever torch wraps it in
            torn = _torn_library(error)
            if torn is None:
                raise
            time.sleep(pause)
    if torn is not None:
        torn.unlink(missing_ok=True)
    return make()


def _torn_library(error: Exception) -> Path | None:
    found = re.search(r"(/\S+\.so): (?:file too short|invalid ELF header)", str(error))
    return Path(found[1]) if found else None


def cuda_device(tensors: Sequence[Tensor]) -> torch.device | None:
    """The one CUDA device that holds all tensors, whose kernels can then be recorded; None where there is no such device."""
    devices = {tensor.device for tensor in tensors}
    if len(devices) == 1 and (device := devices.pop()).type == "cuda":
        return device
    if any(device.type == "cuda" for device in devices):
        logger.warning("no CUDA graph is recorded: tensors are on %s", ", ".join(sorted(map(str, devices))))
    return None


def time_to_compile(graph: Graph, inputs: Sequence[Tensor]) -> tuple[float, str]:
    """The seconds that it will take to compile or load the graph, and which of both in words."""
    module, everything = with_fastest_products(graph.module, timed=False), [*graph.constants, *inputs]
    if module is not None and _cache().holds(_fingerprint(module, everything)):
        return LOAD_SECONDS, "load what an earlier process compiled"
    return _pace(everything) * time_to_compile_anew(graph), "compile"


def time_to_compile_anew(graph: Graph) -> float:
    """The seconds that it takes to compile a graph, whatever earlier processes compiled, and on whatever machine."""
    return COMPILE_SECONDS + COMPILE_SECONDS_PER_NODE * len(graph.module.graph.nodes)


def _pace(tensors: Sequence[Tensor]) -> float:
    """The time of the last compilation on this machine by the expected one; one before the first."""
    try:
        return float(_paces().read(_name_of_pace(tensors)) or 1.0)
    except ValueError:
        return 1.0


def _keep_pace(tensors: Sequence[Tensor], seconds: float, expected: float) -> None:
    if expected > LEAST_SECONDS:
        _paces().write(_name_of_pace(tensors), repr(seconds / expected).encode())


def _name_of_pace(tensors: Sequence[Tensor]) -> str:
    return "-".join([machine_key(), *sorted({each.device.type for each in tensors})])


def _paces() -> SharedFolder:
    return SharedFolder(user_cache_path("pyrovae") / "paces", limit_in_bytes())


def _cache() -> SharedFolder:
    return SharedFolder(user_cache_path("pyrovae") / "compiled", limit_in_bytes())


def _fingerprint(module: fx.GraphModule, tensors: Sequence[Tensor]) -> str:
    layout = [(tuple(t.shape), t.stride(), str(t.dtype), str(t.device)) for t in tensors]
    gpu = torch.cuda.get_device_properties(device).name if (device := cuda_device(tensors)) else None
    with _without_advice():
        precision = (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled())
    everything = (module.code, layout, machine(), torch.version.cuda, gpu, precision)
    return hashlib.sha256(repr(everything).encode()).hexdigest()[:32]


def _loaded(cache: SharedFolder, key: str) -> Any:
    """Load the code that an earlier process compiled; None where there is none that can be loaded."""
    from torch._inductor.standalone_compile import CompiledArtifact

    if (content := cache.read(key)) is None:
        return None
    try:
        # torch reads a path: here of a copy, in a folder of our own, of the bytes that were checked.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / key
            path.write_bytes(content)
            return CompiledArtifact.load(path=str(path), format="binary")
    except Exception as error:  # whatever the way in which it is damaged, or its disk is full
        if _torn_library(error) is not None:
            raise
        logger.info("compiling anew: %s cannot be loaded (%s)", key, error)
        return None


def _save(artifact: Any, cache: SharedFolder, key: str) -> None:
    """Keep compiled code for later processes; this process goes on whether that works or not."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / key
            artifact.save(path=str(path), format="binary")
            cache.write(key, path.read_bytes())
    except Exception as error:  # a full disk, or operations that torch compiles and cannot write down
        logger.warning("the compiled graph is not kept for the next process: %s", str(error).strip().split("\n")[0])
