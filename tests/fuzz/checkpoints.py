"""Checkpoints that are damaged or made to do harm, read to act and to take critics over."""
from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import MakesFolder

from ding_cawr import load_policy
from ding_cawr.algorithms.cawr.model import CAWRModel
from ding_cawr.algorithms.cawr.settings import CAWRSettings
from ding_cawr.algorithms.cawr.update import CAWR
from ding_cawr.data.table import Table
from fuzz.files import ACT, ENV_ID, OBS, OTHER_FILES, Kind, Mutation, Values, repacked


def checkpoint_state(seed: int = 0) -> Values:
    """What a learner writes of its policy and critics, hidden layers of 16 and 8."""
    torch.manual_seed(seed)
    model = CAWRModel(OBS, ACT, hidden_sizes=(16, 8))
    return {
        'model': model.state_dict(),
        'target_critic': {name: each + 1 for name, each in model.critic.state_dict().items()},
        'obs_statistics': torch.stack([torch.zeros(OBS), torch.ones(OBS)]), 'iteration': 4, 'env_id': ENV_ID,
        'algorithm': 'cawr', 'optimizer': {'step': torch.tensor(3.0)},
    }


def policy_meaning(state: Values) -> Values:
    network = {name: each for name, each in state['model'].items() if name.startswith('policy.')}
    return {**network, **{name: state[name] for name in ('obs_statistics', 'iteration', 'env_id')}}


def checkpoint_meaning(state: Values) -> Values:
    critics = {name: each for name, each in state['model'].items() if name.startswith(('critic.', 'value.'))}
    return {**critics, **{f'target_critic.{name}': each for name, each in state['target_critic'].items()}}


def load_acting(path: Path) -> Values:
    policy = load_policy(path)
    *normalize, network, _ = policy.graph
    return {
        **{f'policy.{name}': each for name, each in network.state_dict().items()}, 'iteration': policy.iteration,
        'env_id': policy.env_id,
        'obs_statistics': torch.stack([normalize[0].mean, normalize[0].std]) if normalize else None,
    }


def load_learner(path: Path) -> Values:
    settings = CAWRSettings.read(dict(pretrained_critics=str(path), temperature=1.0))
    algorithm = CAWR(CAWRModel(OBS, ACT, hidden_sizes=(16, 8)), settings)
    algorithm.begin(Table(torch.ones(8, 2 * OBS + ACT + 2), OBS), checkpoint_state()['obs_statistics'])
    return checkpoint_meaning(algorithm.state_dict())


def _state(change: Callable[[Values, np.random.Generator], Any], **options) -> Mutation:
    """The state becomes ``change(state, generator)``; ``state`` is the clean one, to be changed at will."""
    def mutate(path: Path, generator: np.random.Generator) -> None:
        torch.save(change(checkpoint_state(), generator), path, **options)
    return mutate


POLICY = ('policy.net.0.weight', 'policy.net.0.bias', 'policy.net.2.weight', 'policy.net.4.weight', 'policy.net.4.bias')


CRITICS = ('critic.net.0.weight', 'critic.net.2.bias', 'critic.net.4.weight', 'value.net.0.weight', 'value.net.2.bias')


def _tensor(change: Callable[[torch.Tensor], Any]) -> Mutation:
    """A tensor of the policy and one of the critics become ``change(tensor)``."""
    def changed(state: Values, generator: np.random.Generator) -> Values:
        for names in (POLICY, CRITICS):
            name = str(generator.choice(names))
            state['model'][name] = change(state['model'][name])
        return state
    return _state(changed)


def _part(name: str, value: Any) -> Mutation:
    return _state(lambda state, generator: {**state, name: value})


def _without_part(*names: str) -> Mutation:
    return _state(lambda state, generator: {name: part for name, part in state.items() if name not in names})


def _model(change: Callable[[dict], dict]) -> Mutation:
    return _state(lambda state, generator: {**state, 'model': change(state['model'])})


def _spoiled(value: float) -> Mutation:
    def spoiled(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor
    return _tensor(spoiled)


def _with_object(path: Path, generator: np.random.Generator) -> None:
    state = checkpoint_state()
    place = state if generator.random() < 0.5 else state['model']
    place[str(generator.choice(['iteration', 'policy.net.0.weight', 'more']))] = MakesFolder(path.parent / 'made')
    torch.save(state, path)


def _object_in(options: dict) -> Mutation:
    def mutate(path: Path, generator: np.random.Generator) -> None:
        torch.save({**checkpoint_state(), 'more': MakesFolder(path.parent / 'made')}, path, **options)
    return mutate


def _wide(model: dict) -> dict:
    """A policy whose hidden layers are each 10**7 wide, by strides of 0."""
    wide, one = 10**7, torch.zeros(1)
    return {
        **model, 'policy.net.0.weight': one.expand(wide, OBS), 'policy.net.0.bias': one.expand(wide),
        'policy.net.2.weight': one.expand(wide, wide), 'policy.net.2.bias': one.expand(wide),
        'policy.net.4.weight': one.expand(ACT, wide),
    }


def _pickle_with(old: bytes, new: bytes) -> Mutation:
    return repacked(lambda members: {
        name: content.replace(old, new) if name.endswith('data.pkl') else content for name, content in members.items()})


def _big_member(path: Path, generator: np.random.Generator) -> None:
    """A tensor of 800 MiB packed into kilobytes."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            with archive.open(name, 'w') as member:
                member.write(content)
                for _ in range(50 if name.endswith('data/0') else 0):
                    member.write(bytes(1 << 24))


def _other_byte_order(path: Path, generator: np.random.Generator) -> Values:
    """A file that says its numbers are big endian is read so."""
    repacked(lambda members: {
        name: b'big' if name.endswith('byteorder') else content for name, content in members.items()})(path, generator)
    state = checkpoint_state()
    swapped = {
        part: {name: torch.from_numpy(each.numpy().byteswap()) for name, each in state[part].items()}
        for part in ('model', 'target_critic')
    }
    return {**state, **swapped, 'obs_statistics': torch.from_numpy(state['obs_statistics'].numpy().byteswap())}


CHECKPOINT: dict[str, Mutation] = {
    'pickled object': _with_object,
    'pickled object in the old format': _object_in(dict(_use_new_zipfile_serialization=False)),
    'old format': _state(lambda state, generator: state, _use_new_zipfile_serialization=False),
    'a network pickled whole': _state(lambda state, generator: torch.nn.Linear(3, 3)),
    'a list': _state(lambda state, generator: [state]),
    'a tensor': _state(lambda state, generator: torch.zeros(3)),
    'nothing': _state(lambda state, generator: None),
    'the model alone': _state(lambda state, generator: state['model']),
    'no model': _without_part('model'),
    'no target and no statistics': _without_part('target_critic', 'obs_statistics'),
    'no iteration and no critics': _without_part('iteration', 'target_critic'),
    'no parts': _state(lambda state, generator: {}),
    'model of numbers': _model(lambda model: dict.fromkeys(model, 1.0)),
    'model of lists': _model(lambda model: {name: each.tolist() for name, each in model.items()}),
    'model of texts': _model(lambda model: dict.fromkeys(model, 'text')),
    'model nested': _model(lambda model: {'policy': model}),
    'model empty': _model(lambda model: {}),
    'model with numbers for names': _model(lambda model: dict(enumerate(model.values()))),
    'model with a tensor less': _model(lambda model: {
        name: each for name, each in model.items() if name not in (POLICY[0], CRITICS[0])}),
    'model with a tensor more': _model(lambda model: {
        **model, 'policy.net.9.weight': torch.ones(3, 3), 'value.net.9.weight': torch.ones(3, 3)}),
    'model with thousands of layers': _model(
        lambda model: {**model, **{f'policy.net.{i}.weight': torch.ones(1, 1) for i in range(6, 6000, 2)}}),
    'model with other names': _model(lambda model: {f'actor.{name}': each for name, each in model.items()}),
    'model that is None': _part('model', None),
    'target that is empty': _state(lambda state, generator: {**state, 'target_critic': {}, 'obs_statistics': 3}),
    'other widths in one': _tensor(lambda tensor: torch.zeros(7, 5)),
    'transposed': _tensor(lambda tensor: tensor.T if tensor.dim() == 2 else tensor[:, None]),
    'further dimension': _tensor(lambda tensor: tensor[None]),
    'scalar': _tensor(lambda tensor: tensor.reshape(-1)[0]),
    'no rows': _tensor(lambda tensor: tensor[:0]),
    'NaN': _spoiled(torch.nan),
    'infinity': _spoiled(torch.inf),
    'negative infinity': _spoiled(-torch.inf),
    'float64 beyond float32': _tensor(lambda tensor: torch.full(tensor.shape, 1e300, dtype=torch.float64)),
    'float64': _tensor(lambda tensor: tensor.double()),
    'complex': _tensor(lambda tensor: tensor + 1j),
    'integers': _tensor(lambda tensor: (tensor * 9).long()),
    'bool': _tensor(lambda tensor: tensor > 0),
    'float8': _tensor(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    'quantized': _tensor(lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)),
    'sparse': _tensor(lambda tensor: tensor.to_sparse()),
    'sparse rows': _tensor(lambda tensor: tensor.to_sparse_csr() if tensor.dim() == 2 else tensor.to_sparse()),
    'meta': _tensor(lambda tensor: tensor.to('meta')),
    'a parameter': _tensor(torch.nn.Parameter),
    'strides of 0': _tensor(lambda tensor: tensor.new_ones(1).expand(tensor.shape)),
    'strides of 0 to 10**14': _tensor(lambda tensor: torch.zeros(1).expand(10**7, 10**7)),
    'strides of 0 to layers of 10**7': _model(_wide),
    'storage said to be larger': _pickle_with(b'K\xb0', b'M\xff\xff'),
    'storage said to be 2 GiB': _pickle_with(b'K\xb0', b'J\xff\xff\xff\x1f'),
    'shape said to be larger': _pickle_with(b'K\x10K\x0b\x86', b'M\xff\xffK\x0b\x86'),
    'another class called': _pickle_with(b'ctorch\nFloatStorage\n', b'cos\nsystem\n'),
    'another function called': _pickle_with(b'ctorch._utils\n_rebuild_tensor_v2\n', b'cbuiltins\nexec\n'),
    'function of torch called': _pickle_with(b'ctorch._utils\n_rebuild_tensor_v2\n', b'ctorch.hub\nload\n'),
    'member said to be code': repacked(lambda members: {**members, 'data/constants.pkl': b'\x80\x02.'}),
    'members packed': repacked(lambda members: members, compression=zipfile.ZIP_DEFLATED),
    'members that leave the folder': repacked(lambda members: {**members, '../made': b'text'}),
    'no members': repacked(lambda members: {}),
    'no pickle': repacked(lambda members: {
        name: content for name, content in members.items() if not name.endswith('data.pkl')}),
    'other byte order': _other_byte_order,
    'storages cut': repacked(lambda members: {
        name: content[:-4] if '/data/' in name else content for name, content in members.items()}),
    'tensor packed into kilobytes': _big_member,
    'statistics of NaN': _part('obs_statistics', torch.full((2, OBS), torch.nan)),
    'statistics of zeros': _part('obs_statistics', torch.zeros(2, OBS)),
    'statistics of another width': _part('obs_statistics', torch.ones(2, 17)),
    'statistics that are complex': _part('obs_statistics', torch.ones(2, OBS) + 1j),
    'statistics that are sparse': _part('obs_statistics', torch.ones(2, OBS).to_sparse()),
    'statistics without memory': _part('obs_statistics', torch.ones(2, OBS, device='meta')),
    'statistics that are a list': _part('obs_statistics', [0.0] * OBS),
    'iteration that is text': _part('iteration', 'four'),
    'iteration that is NaN': _part('iteration', float('nan')),
    'iteration that is a tensor': _part('iteration', torch.tensor(4)),
    'algorithm of others': _part('algorithm', 'xyz'),
    'algorithm that is a tensor': _part('algorithm', torch.ones(5, 5)),
    'algorithm that is a list': _part('algorithm', ['cawr']),
    'env_id that is a number': _part('env_id', 4),
    'env_id that is a tensor': _part('env_id', torch.zeros(3)),
    'env_id that is a list': _part('env_id', ['Hopper-v4']),
}


def _checkpoint_kind(load: Callable, meaning: Callable, mutations: dict[str, Mutation]) -> Kind:
    return Kind(
        'ckpt.pth.tar', lambda path: torch.save(checkpoint_state(), path), load, meaning, checkpoint_state, mutations
    )


_ANY = {**OTHER_FILES, **CHECKPOINT}
KINDS = {
    'checkpoint, to act': _checkpoint_kind(load_acting, policy_meaning, _ANY),
    'checkpoint, critics to be taken over': _checkpoint_kind(load_learner, checkpoint_meaning, _ANY),
}
