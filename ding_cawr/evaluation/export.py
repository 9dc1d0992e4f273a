"""A policy for programs without this package: ONNX and TorchScript, normalization and clipping included."""
from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ding_cawr.evaluation.acting import ActingPolicy
from ding_cawr.files import new_file, unfinished


def export_policy(policy: ActingPolicy, path: str | Path) -> Path:
    """Write a policy as ONNX (.onnx) or TorchScript (.pt), for any batch size.

    The input 'obs' takes raw observations (batch, O), the output 'action' gives (batch, A) within [-1, 1], float32; of
    a discrete policy (batch,), int64, the likeliest of A actions.
    ``torch.jit.load`` gives a function that takes a single observation (O,) too.

    Arguments:
        policy: what ``load_policy`` gives.
        path: a file that does not exist yet.

    Returns:
        The path.

    Raises:
        ValueError: another ending.
        FileExistsError, FileNotFoundError: the file exists, or its folder does not.
        OSError: ONNX without the packages that it needs, or the file cannot be written.
    """
    path = new_file(path, WRITERS)
    graph = copy.deepcopy(policy.graph).cpu()
    with unfinished(path) as temporary, _quiet():
        WRITERS[path.suffix](graph, torch.zeros(2, policy.obs_shape), temporary)
    return path


def write_torchscript(graph: nn.Module, example: Tensor, path: Path) -> None:
    """Write the operations that an example (2, O) goes through, of which none depends on the batch size."""
    memory = io.BytesIO()  # its own writer ends the process where the disk is full
    torch.jit.save(torch.jit.trace(graph, example), memory)
    path.write_bytes(memory.getvalue())


def write_onnx(graph: nn.Module, example: Tensor, path: Path) -> None:
    """Write the same as ONNX, with the weights in the file itself."""
    if importlib.util.find_spec('onnx') is None:
        raise OSError("ONNX needs onnx; pip install 'ding_cawr[onnx]', or write TorchScript (.pt)")
    # By tracing, like TorchScript: torch's newer exporter fails with torch 2.6 and each onnxscript that there is.
    torch.onnx.export(
        graph, (example, ), path, input_names=['obs'], output_names=['action'], dynamo=False,
        dynamic_axes={'obs': {0: 'batch'}, 'action': {0: 'batch'}}, verbose=False
    )


WRITERS = {'.onnx': write_onnx, '.pt': write_torchscript}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's remarks on its own deprecations and on packages that it does not find."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
