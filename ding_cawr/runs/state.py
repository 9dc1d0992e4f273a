"""Check the state in a checkpoint before training goes on from it."""
from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ding_cawr.checks import Bound

#: Number of the format of the learner's state; it goes up when the contents change.
FORMAT = 2
UNITS = ('return', 'normalized score')
COUNT = Bound(0, 2**53, whole=True, open_high=True)  # from 2^53 on float64 skips some
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Words in the state of NumPy's and Python's generator, which is called Mersenne Twister.
WORDS = 624


def check_format(state: Any) -> None:
    """Raise a ValueError for a state of another format than this version continues."""
    found = state.get('format') if isinstance(state, dict) else None
    if found is None:
        raise ValueError(
            'the checkpoint has the format None, so it is not one of a run of this package; take one that is'
        )
    if type(found) is not int or found != FORMAT:
        shown = found if isinstance(found, int) else type(found).__name__
        raise ValueError(
            f'the checkpoint has the format {shown}, but this version of ding_cawr continues format {FORMAT}; continue '
            'it with the version that wrote it. Its policy can still be loaded (cawr eval, ding_cawr.load_policy)'
        )


def check_tree(
    found: Any, wanted: Any, place: str, bounds: Mapping[str, Bound | None] | None = None, any_float: bool = False
) -> None:
    """Compare a part of a state with that of a fresh learner.

    Arguments:
        found: the part, out of a file.
        wanted: nested dicts of tensors, counts (int), texts and None, which it must have the names, types, shapes and
            dtypes of.
        place: its name, for messages.
        bounds: what the numbers of a tensor must be by the last part of its name, where finite is not enough; None:
            any.
        any_float: whether a tensor may be of another of FLOATS than the one that is wanted.

    Raises:
        ValueError: something is missing or unknown, of another type, shape or dtype, not finite, or beyond its bound.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(found, dict):
            raise ValueError(f'{place} is {brief(found)}; it must be a dict with {", ".join(wanted)}')
        for name in {**wanted, **found}:
            if name not in wanted or name not in found:
                whose = 'is not part of this configuration' if name in found else 'is missing'
                raise ValueError(f'{place} {name} {whose}; take a checkpoint of the same configuration')
            check_tree(found[name], wanted[name], f'{place} {name}', bounds, any_float)
    elif isinstance(wanted, Tensor):
        _check_tensor(found, wanted, place, (bounds or {}).get(place.rpartition(' ')[2], Bound()), any_float)
    elif isinstance(wanted, int) and found not in COUNT or type(found) is not type(wanted):
        raise ValueError(f'{place} is {brief(found)}; it must be like {brief(wanted)}')


def _check_tensor(found: Any, wanted: Tensor, place: str, bound: Bound | None, any_float: bool) -> None:
    if shape_of(found) != tuple(wanted.shape):
        raise ValueError(
            f'{place} has the shape {shape_of(found)}, but this configuration and these data need '
            f'{tuple(wanted.shape)}; take a checkpoint of the same ones'
        )
    fits = found.dtype in FLOATS if any_float else found.dtype == wanted.dtype
    # By its strides, a tensor can show one stored number as many.
    is_stored = found.layout == torch.strided and not found.is_meta and found.nbytes <= found.untyped_storage().nbytes()
    if not fits or not is_stored:
        raise ValueError(f'{place} is {found.dtype}, {found.layout}; it must be a dense tensor of {wanted.dtype}')
    if bound is None or not found.numel():
        return
    # In the precision in which it will be used.
    low, high = (end.item() for end in found.to(wanted.dtype).aminmax())
    if low not in bound or high not in bound:
        raise ValueError(
            f'{place} has numbers from {low:g} to {high:g}; each must be {bound}. Take an earlier checkpoint, training '
            'may have diverged'
        )


def shape_of(tensor: Any) -> tuple | str:
    """Return the shape of a tensor, 'missing' for anything else."""
    return tuple(tensor.shape) if isinstance(tensor, Tensor) and not tensor.is_nested else 'missing'


def brief(found: Any) -> str:
    """Return a number, a text or None as a message shows it, at most 80 characters; of any other value its type."""
    return repr(found)[:80] if isinstance(found, (int, float, str, type(None))) else f'a {type(found).__name__}'


def random_state() -> dict[str, Any]:
    """Return the states of the process's random generators (Python's, NumPy's, torch's) in plain containers."""
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002  (the one that others draw from)
    return {
        'python': [version, list(words), gauss],
        # torch has few operations on unsigned words.
        'numpy': {**numpy, 'state': {**numpy['state'], 'key': torch.from_numpy(numpy['state']['key'].view(np.int32))}},
        'torch': torch.get_rng_state(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to what ``random_state`` gave."""
    _set_generators(state, random, np.random, torch.default_generator)


def _set_generators(state: Mapping[str, Any], python: Any, numpy: Any, generator: torch.Generator) -> None:
    """Set generators of the three kinds to a state."""
    version, words, gauss = state['python']
    inner = state['numpy']['state']
    python.setstate((version, tuple(words), gauss))
    numpy.set_state({**state['numpy'], 'state': {**inner, 'key': inner['key'].numpy().view(np.uint32)}})
    generator.set_state(state['torch'].cpu())


def check_random_state(found: Any) -> None:
    """Raise a ValueError for what is not a state of ``random_state``; it is tried on generators made for that."""
    try:
        check_tree(found['numpy']['state'], {'key': torch.empty(WORDS, dtype=torch.int32), 'pos': 0}, 'numpy',
                   dict(key=None))
        if found['numpy']['state']['pos'] > WORDS:  # from beyond its end NumPy would draw what lies there
            raise ValueError
        check_tree(found['torch'], torch.get_rng_state(), 'torch', dict(torch=None))
        has_gauss, gauss = found['numpy']['has_gauss'], found['numpy']['gauss']
        if has_gauss not in Bound(0, 1, whole=True) or not _is_finite(gauss) or gauss and not has_gauss:
            raise ValueError
        if not isinstance(found['python'], list):
            raise ValueError
        _, words, kept = found['python']
        if not isinstance(words, list) or not (kept is None or _is_finite(kept)):
            raise ValueError
        _set_generators(found, random.Random(), np.random.RandomState(), torch.Generator())  # noqa: NPY002
    except Exception as error:  # generators refuse states in many ways
        raise ValueError(
            f'the checkpoint: its random state cannot be used ({type(error).__name__}); take another checkpoint'
        ) from None


def _is_finite(number: Any) -> bool:
    return isinstance(number, float) and number in Bound()


def check_run_state(run: Any) -> None:
    """Check what a run remembered in a checkpoint before it goes on from there.

    Raises:
        ValueError: names what is not as it was written.
    """
    is_good = {
        'evaluations': _are_evaluations,
        'evaluated_here': lambda found: found in COUNT and found <= len(run['evaluations']['values']),
        'total': lambda found: found is None or found in COUNT,
        'seconds': lambda found: isinstance(found, float) and found in Bound(0),
    }
    found = run if isinstance(run, dict) else {}
    wrong = next((name for name, check in is_good.items() if not check(found.get(name, ...))), None)
    if wrong:
        raise ValueError(f'the checkpoint: its {wrong} cannot be used; take another checkpoint')
    check_random_state(run.get('random'))


def _are_evaluations(found: Any) -> bool:
    """Return whether these are evaluations as a run records them; a value need not be finite."""
    if not isinstance(found, dict) or found.keys() != {'unit', 'iterations', 'values'}:
        return False
    unit, iterations, values = found['unit'], found['iterations'], found['values']
    return (
        isinstance(unit, str) and unit in UNITS and isinstance(iterations, list) and isinstance(values, list)
        and len(iterations) == len(values) and all(each in COUNT for each in iterations)
        and all(isinstance(each, float) for each in values)
    )
