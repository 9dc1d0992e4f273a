"""Tensors in huge pages."""
from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

HUGE_PAGE = 1 << 21
#: Bytes from which on a page is taken that is not filled.
LEAST = HUGE_PAGE // 4
#: Tensors begin at multiples of this number of bytes, a cache line.
LINE = 64


def empty(shapes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor]:
    """Return tensors of these shapes, of the device and dtype of another; their values are arbitrary.

    On a CPU they lie side by side in pages of 2 MB, where the system has such, and so spread evenly over the sets
    of the caches. In scattered small pages the spread differs between processes: an iteration can take a third
    longer.
    """
    lengths = [math.ceil(math.prod(shape) * like.element_size() / LINE) * LINE for shape in shapes]
    size = max(sum(lengths), 1)
    if like.device.type != 'cpu' or not hasattr(mmap, 'MADV_HUGEPAGE') or size < LEAST:
        return [like.new_empty(shape) for shape in shapes]
    # One page more, since only whole pages at multiples of their size are huge.
    pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=like.dtype)
    start = -memory.data_ptr() % HUGE_PAGE // like.element_size()
    memory = memory[start:start + size // like.element_size()]
    pieces = memory.split([length // like.element_size() for length in lengths])
    return [piece[:math.prod(shape)].view(*shape) for piece, shape in zip(pieces, shapes)]
