"""The learner's checkpoints, read without running anything that they contain."""
from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ding_cawr.algorithms.cawr.model import CAWRModel, MeanPolicy
from ding_cawr.runs.state import are_finite, check_finite, check_networks, check_shapes, shape_of, shapes_of


def read_state(
    path: str | Path, parts: Mapping[str, Any] | None = None, device: torch.device | str = 'cpu'
) -> dict[str, Any]:
    """What a checkpoint file holds, a dict that has these parts, of these types.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it may not be read.
        ValueError: it is damaged, holds other things than plain ones, or a part is missing.
    """
    _check_there(path)
    try:
        state = load_whole(path, device)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file makes torch's reader fail in many ways
        raise ValueError(
            f'{path} cannot be read as a checkpoint: it is damaged or cut short, or holds other things than tensors, '
            f'which are never loaded ({type(error).__name__})'
        ) from None
    found = state if isinstance(state, dict) else {}
    missing = [part for part, kind in (parts or {}).items() if not isinstance(found.get(part, ...), kind)]
    if missing or not isinstance(state, dict):
        lacks = ' and no '.join(missing) or 'parts'
        raise ValueError(f'{path} is no checkpoint of a cawr learner: it has no {lacks}')
    return state


def read_checkpoint(path: str | Path, model: CAWRModel, device: torch.device | str = 'cpu') -> dict[str, Any]:
    """A learner's state, for networks of ``model``'s shape.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of the cawr policy's learner, or its networks have other shapes or are not
            finite.
    """
    state = read_state(path, dict(model=dict, target_critic=dict), device)
    check_networks(state, model, path)
    return state


def read_policy(path: str | Path) -> dict[str, Any]:
    """What acting needs of a learner's state, on the CPU; the widths of the network are those of its tensors.

    Returns:
        'network', a ``MeanPolicy`` in float32; 'obs_statistics', (2, O) mean and standard deviation that it normalizes
        observations with, or None; 'env_id', None where the checkpoint does not say; 'iteration'.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of the cawr policy's learner, something is missing, or values are not finite.
    """
    state = read_state(path, {'model': dict, 'obs_statistics': (Tensor, type(None)), 'iteration': int})
    network, statistics = _network(path, state['model']), state['obs_statistics']
    if statistics is not None:
        wanted = {'obs_statistics': (2, network.net[0].in_features)}
        check_shapes('state', {'obs_statistics': statistics}, wanted, 'its policy needs', path)
        statistics = statistics.float()
        if not are_finite(statistics) or (statistics[1] <= 0).any():
            raise ValueError(f'{path}: its obs_statistics are no finite means and positive standard deviations')
    env_id = state.get('env_id')  # which older checkpoints do not have
    if not isinstance(env_id, (str, type(None))):
        raise ValueError(f'{path}: its env_id is a {type(env_id).__name__}; allowed are a text and None')
    return dict(network=network, obs_statistics=statistics, env_id=env_id, iteration=state['iteration'])


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
        return all(are_finite(tensor) for tensor in load_whole(path)['model'].values())
    except Exception:  # a damaged file is no good one
        return False


def load_whole(path: str | Path, device: torch.device | str = 'cpu') -> Any:
    """What a file of ``torch.save`` holds. torch compares no checksums: a flipped bit would be another number."""
    _check_sums(path)
    return torch.load(path, map_location=device, weights_only=True)


def check_whole(path: str | Path) -> None:
    """Whether a checkpoint that another will read, as DI-engine's learner does, is as it was written.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    _check_there(path)
    try:
        _check_sums(path)
    except Exception as error:  # as a damaged file makes a reader fail in many ways
        raise ValueError(f'{path} is damaged ({error}); take another checkpoint') from None


def _check_there(path: str | Path) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no checkpoint {str(path)!r}; runs keep theirs in EXP_NAME/ckpt')


def _check_sums(path: str | Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError('torch.save packs nothing; this could unpack to any size')
        if archive.testzip() is not None:
            raise ValueError('a checksum differs')


def _network(path: str | Path, model: dict[str, Tensor]) -> MeanPolicy:
    """The network whose tensors a model has under policy.net.0.weight, policy.net.0.bias, policy.net.2.weight, ..."""
    tensors = {name: tensor for name, tensor in model.items() if str(name).startswith('policy.')}
    layers = max(2, sum(name.endswith('.weight') for name in tensors))
    names = [f'policy.net.{2 * layer}.weight' for layer in range(layers)]  # there is a ReLU between two layers
    weights = {name: tensors.get(name) for name in names}
    for name, weight in weights.items():
        if len(shape_of(weight)) != 2:
            raise ValueError(
                f'{path} is no checkpoint of a cawr learner: {name} of its model is {shape_of(weight)}, not a matrix'
            )
    widths = [weights['policy.net.0.weight'].shape[1], *(weight.shape[0] for weight in weights.values())]
    with torch.device('meta'):  # memory and random numbers would be for nothing
        network = MeanPolicy(widths[0], widths[-1], widths[1:-1])
    wanted = {f'policy.{name}': shape for name, shape in shapes_of(network.state_dict()).items()}
    check_shapes('model', tensors, wanted, 'the rest of its policy needs', path)
    check_finite('policy', tensors, path)
    network.load_state_dict({name.removeprefix('policy.'): each.float() for name, each in tensors.items()}, assign=True)
    return network
