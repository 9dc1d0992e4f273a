"""Read the widths of a model as a configuration gives them, and the actor of a checkpoint."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ding_cawr.checks import POSITIVE_INT
from ding_cawr.runs.state import check_tree, shape_of


def model_width(name: str, value: Any) -> int:
    """Return one width; DI-engine's configurations write it as 11 or [11]."""
    widths = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(widths) != 1:
        raise ValueError(f'model.{name} is {value}; only vectors are supported (one width), not images')
    return POSITIVE_INT.check(f'model.{name}', widths[0])


def read_actor(
    state: Mapping[str, Any], source: str, part: str, build: Callable[[int, int, Sequence[int]], nn.Module]
) -> nn.Module:
    """Return the network that acts from a checkpoint's state, on the CPU in float32.

    Arguments:
        part: its name in the model. Its module ``net`` has a linear layer at every second place.
        build: makes it from the widths of observations, actions and hidden layers; those of the tensors are taken.

    Raises:
        ValueError: a tensor is missing, of another shape, or not finite.
    """
    model = state.get('model')
    tensors = {
        name.removeprefix(f'{part}.'): tensor for name, tensor in (model if isinstance(model, dict) else {}).items()
        if isinstance(name, str) and name.startswith(f'{part}.')
    }
    layers = max(2, sum(name.endswith('.weight') for name in tensors))
    weights = {name: tensors.get(name) for name in (f'net.{2 * layer}.weight' for layer in range(layers))}
    for name, weight in weights.items():
        if len(shape_of(weight)) != 2:
            raise ValueError(
                f'{source} is not a checkpoint of a learner of this package: {part}.{name} is {shape_of(weight)}, and '
                'it must be a matrix'
            )
    widths = [weights['net.0.weight'].shape[1], *(weight.shape[0] for weight in weights.values())]
    with torch.device('meta'):  # memory and random numbers would be for nothing
        network = build(widths[0], widths[-1], widths[1:-1])
    check_tree(tensors, network.state_dict(), f'{source}: {part}', any_float=True)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return network
