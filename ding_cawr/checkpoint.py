"""The learner's checkpoints, read without running anything that they contain."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ding_cawr.model import CAWRModel


def read_checkpoint(path: str | Path, model: CAWRModel, device: torch.device | str = 'cpu') -> dict[str, Any]:
    """A learner's state, for networks of ``model``'s shape.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of the cawr policy's learner, or its networks have other shapes.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no checkpoint {str(path)!r}; runs keep theirs in EXP_NAME/ckpt')
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file makes torch's reader fail in many ways
        raise ValueError(
            f'{path} cannot be read as a checkpoint: it is damaged or cut short, or holds other things than tensors, '
            f'which are never loaded ({type(error).__name__})'
        ) from None
    expected = {'model': model.state_dict(), 'target_critic': model.critic.state_dict()}
    missing = [part for part in expected if not isinstance(state, dict) or not isinstance(state.get(part), dict)]
    if missing:
        raise ValueError(f'{path} is no checkpoint of a cawr learner: it has no {" and no ".join(missing)}')
    for part, tensors in expected.items():
        for name in {**tensors, **state[part]}:
            found, wanted = (_shape(networks.get(name)) for networks in (state[part], tensors))
            if found != wanted:
                raise ValueError(f'{path}: {name} of its {part} has the shape {found}, but policy.model gives {wanted}')
    return state


def check_same_observations(path: str, trained_on: Tensor | None, statistics: Tensor | None) -> None:
    """Critics judge observations normalized as in their training, by these (2, O) means and standard deviations.

    Raises:
        ValueError: the statistics differ, or one of the two is None, which stands for raw observations.
    """
    if (trained_on is None) != (statistics is None) or (
        statistics is not None and not torch.allclose(trained_on.cpu(), statistics, rtol=1e-3)
    ):
        kinds = ['raw' if each is None else 'normalized' for each in (trained_on, statistics)]
        raise ValueError(
            f'{path} was trained on {kinds[0]} observations and this run has {kinds[1]} ones, or their statistics '
            'differ; take the same data and the same env.norm_obs'
        )


def last_checkpoint(exp_name: str | None) -> str:
    """A sentence that names the newest checkpoint of a run whose networks are finite; '' where the run is not known."""
    if exp_name is None:
        return ''
    files = sorted(Path(exp_name).glob('ckpt/*.pth.tar'), key=lambda file: file.stat().st_mtime)
    good = next((file for file in reversed(files) if _is_finite(file)), None)
    return f'The last good checkpoint is {good}.' if good else 'No good checkpoint was written yet.'


def _is_finite(path: Path) -> bool:
    try:
        model = torch.load(path, map_location='cpu', weights_only=True)['model']
        return all(tensor.isfinite().all() for tensor in model.values())
    except Exception:  # a damaged file is no good one
        return False


def _shape(tensor: Any) -> tuple | str:
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else 'missing'
