"""What a learner's state holds, and whether training can go on from one that comes out of a file."""
from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ding_cawr.algorithms.cawr.model import CAWRModel

#: Of the learner's state; a change of what it holds is another one.
FORMAT = 1
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Of the state of a Mersenne Twister, beside the place in them.
_WORDS = 624


def check_state(state: Any, model: CAWRModel) -> None:
    """Whether a learner with networks of ``model``'s shape can go on from a state, before anything of it is taken.

    Raises:
        ValueError: it is of another format, a part is missing, or its networks have other shapes or are not finite.
    """
    check_format(state)
    parts = ('model', 'target_critic', 'optimizer', 'selection', 'buffer')
    missing = [part for part in parts if not isinstance(state.get(part), dict)]
    if not is_count(state.get('iteration')):
        missing.append('iteration')
    if missing:
        raise ValueError(f'the checkpoint has no {" and no ".join(missing)}')
    check_networks(state, model)


def check_format(state: Any) -> None:
    """Whether this version continues states of a state's format.

    Raises:
        ValueError: it does not.
    """
    found = state.get('format') if isinstance(state, dict) else None
    if type(found) is not int or found != FORMAT:
        shown = found if isinstance(found, (int, type(None))) else type(found).__name__
        raise ValueError(
            f'the checkpoint has the format {shown}, but this version of ding_cawr continues format {FORMAT}; continue '
            'it with the version that wrote it. Its policy can still be loaded (cawr eval, ding_cawr.load_policy)'
        )


def check_networks(state: Mapping[str, Any], model: CAWRModel, source: str | Path = 'the checkpoint') -> None:
    """Whether a learner's networks are of the shapes of ``model``, and finite.

    Raises:
        ValueError: they are not.
    """
    for part, module in {'model': model, 'target_critic': model.critic}.items():
        check_shapes(part, state[part], shapes_of(module.state_dict()), 'policy.model gives', source)
        check_finite(part, state[part], source)


def check_shapes(
    part: str, found: Any, wanted: Mapping[str, tuple], who_wants: str = 'this configuration needs',
    source: str | Path = 'the checkpoint',
) -> None:
    """Whether a part of a learner's state has tensors of the shapes that are wanted, no others, and all of them.

    Raises:
        ValueError: it does not, or a tensor is not of floats that the file holds.
    """
    found = found if isinstance(found, Mapping) else {}
    for name in {**wanted, **found}:
        shape, needed = shape_of(found.get(name)), wanted.get(name, 'missing')
        if shape != needed or name not in wanted:
            raise ValueError(f'{source}: {name} of its {part} has the shape {shape}, but {who_wants} {needed}')
        if not is_dense(found[name]):
            raise ValueError(
                f'{source}: {name} of its {part} is {found[name].dtype}, {found[name].layout}; allowed are dense '
                'tensors of floats, all of whose values are in the file'
            )


def check_finite(part: str, tensors: Mapping[str, Tensor], source: str | Path = 'the checkpoint') -> None:
    """Whether the tensors of a part of a learner's state are finite.

    Raises:
        ValueError: they are not.
    """
    if not all(are_finite(tensor) for tensor in tensors.values()):
        raise ValueError(f'{source}: its {part} is not finite, training had diverged; take an earlier one')


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple]:
    """Shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_run_state(run: Any) -> None:
    """Whether a run can go on from what it remembered in a checkpoint.

    Raises:
        ValueError: names what is not as it was written.
    """
    found = run if isinstance(run, dict) else {}
    wrong = [name for name, is_good in _OF_A_RUN.items() if not is_good(found.get(name, ...))]
    if not wrong and found['evaluated_here'] > len(found['evaluations']['values']):
        wrong = ['evaluated_here']
    if wrong:
        raise ValueError(f'the checkpoint: its {" and ".join(wrong)} cannot be used; take another checkpoint')


def random_state() -> dict[str, Any]:
    """The states of the process's random generators (Python's, NumPy's, torch's) in plain containers."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (the one that others draw from)
    return {
        'python': [version, list(words), gauss],
        'numpy': [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        'torch': torch.get_rng_state(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Inverse of ``random_state``."""
    _set_generators(state, random, np.random, torch.default_generator)


def _set_generators(state: Mapping[str, Any], python: Any, numpy: Any, generator: torch.Generator) -> None:
    """Python's, NumPy's and torch's to a state of ``random_state``."""
    version, words, gauss = state['python']
    name, keys, position, has_gauss, cached = state['numpy']
    python.setstate((version, tuple(words), gauss))
    numpy.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    generator.set_state(state['torch'].cpu())


def _are_random_states(found: Any) -> bool:
    """Looked at first, since NumPy would draw from beyond the end of a state; then tried on generators of their own."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), list) for name in ('python', 'numpy')):
        return False
    try:
        (_, words, gauss), (_, keys, position, has_gauss, cached) = found['python'], found['numpy']
        is_whole = (
            isinstance(words, list) and is_dense(keys, (torch.int64, )) and keys.shape == (_WORDS, )
            and _are_words([*words[:-1], *keys.tolist()])
            and all(is_count(place) and place <= _WORDS for place in (words[-1], position))
            and has_gauss in (0, 1) and all(map(_is_number, [cached] if gauss is None else [cached, gauss]))
        )
        if is_whole:
            _set_generators(found, random.Random(), np.random.RandomState(), torch.Generator())  # noqa: NPY002
    except Exception:  # they fail in many ways
        return False
    return is_whole


def _are_words(numbers: list) -> bool:
    return all(is_count(number) and number < 2**32 for number in numbers)


def _are_evaluations(found: Any) -> bool:
    if not isinstance(found, dict) or found.keys() != {'unit', 'iterations', 'values'}:
        return False
    unit, iterations, values = found['unit'], found['iterations'], found['values']
    return (
        isinstance(unit, str) and unit in ('return', 'normalized score') and isinstance(iterations, list)
        and isinstance(values, list) and len(iterations) == len(values) and all(map(is_count, iterations))
        and all(isinstance(value, float) for value in values)  # an environment may have none that is finite
    )


def is_count(found: Any) -> bool:
    """Whether something out of a file is a number of things."""
    return type(found) is int and 0 <= found < 2**53  # beyond which float64 skips some


def _is_number(found: Any) -> bool:
    return isinstance(found, float) and math.isfinite(found)


def shape_of(tensor: Any) -> tuple | str:
    """The shape of a tensor, 'missing' of anything else."""
    return tuple(tensor.shape) if isinstance(tensor, Tensor) and not tensor.is_nested else 'missing'


def is_dense(tensor: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> bool:
    """Whether a tensor is of numbers each of which was stored: by its strides, one can stand for any many."""
    return (
        tensor.dtype in dtypes and not tensor.is_nested and tensor.layout == torch.strided and not tensor.is_meta
        and tensor.nbytes <= tensor.untyped_storage().nbytes()
    )


def are_finite(tensor: Tensor) -> bool:
    """Whether all numbers are, in float32, in which networks run."""
    return bool(tensor.float().isfinite().all())


_OF_A_RUN: dict[str, Callable[[Any], bool]] = {
    'evaluations': _are_evaluations,
    'evaluated_here': is_count,
    'total': lambda found: found is None or is_count(found),
    'seconds': lambda found: _is_number(found) and found >= 0,
    'random': _are_random_states,
}
