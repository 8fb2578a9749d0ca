"""Where a model runs, and on how many threads."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigurationError

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of mallopt
_HUGE, _COLLAPSE = 14, 25  # of madvise
_LARGE_PAGE = 1 << 21  # bytes
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device asked for, or CUDA where there is one and the CPU elsewhere.

    Raises:
        ConfigurationError: no such device here.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        cuda = "available" if torch.cuda.is_available() else "not available"
        raise ConfigurationError(
            f"device '{name}' cannot be used here (CUDA is {cuda}); use cpu, cuda, or null to choose by itself."
        ) from error
    return device


def autocast(device: torch.device, precision: str = "auto") -> contextlib.AbstractContextManager[object]:
    """Products in the precision of :class:`.config.TrainingConfig`. Weights stay float32 throughout."""
    natively = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" or (precision == "auto" and natively):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def use_available_cores(processes: int = 1) -> None:
    """One thread per core this process may use, unless the environment already says how many.

    Args:
        processes: how many share the cores.
    """
    if not any(os.environ.get(name) for name in _THREAD_VARIABLES):
        torch.set_num_threads(max(1, available_cores() // processes))


def keep_freed_memory() -> None:
    """Lets this process keep the memory that a step frees for the next step, where the C library is GNU's.

    Its pieces would go back to the system and be asked for again, page by page, which takes as long as computing on
    them: with 300 domains, a quarter of a step. What was needed once is given back when the process ends.
    """
    with contextlib.suppress(OSError, AttributeError):
        option = ctypes.CDLL("libc.so.6").mallopt
        option(_MMAP_MAX, 0)  # no piece in a mapping of its own
        option(_TRIM_THRESHOLD, 2**31 - 1)


def prefer_large_pages(tensor: Tensor) -> None:
    """Asks for pages of 2 MiB under a large tensor, where the system is Linux and lends them; its values stay.

    Rows of a table are read and written all over it: with pages of 4 KiB, the processor looks up where each is.
    """
    start, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    first, end = -(-start // _LARGE_PAGE) * _LARGE_PAGE, (start + size) // _LARGE_PAGE * _LARGE_PAGE
    if tensor.device.type != "cpu" or not sys.platform.startswith("linux") or end <= first:
        return
    with contextlib.suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        for advice in (_HUGE, _COLLAPSE):  # from now on; what is there already
            madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), advice)


def available_cores() -> int:
    """Cores of the process's affinity mask, or fewer where its control group is limited to less time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)
