"""CAWR (arXiv 2506.15654) for DI-engine: importing this package registers its parts with DI-engine."""
from ding_cawr import host  # noqa: F401  (refuses a DI-engine in which what follows would fail)

# isort: split
from ding_cawr import buffer, env, model, monitor, policy  # noqa: F401  (each registers itself)
from ding_cawr.acting import load_policy
from ding_cawr.advantage import advantage_weight
from ding_cawr.config import make_config
from ding_cawr.data import dataset  # noqa: F401
from ding_cawr.data.load import load_transitions
from ding_cawr.replicas import train_replicas
from ding_cawr.score import normalized_score

__version__ = '0.1.0'

__all__ = ['advantage_weight', 'load_policy', 'load_transitions', 'make_config', 'normalized_score', 'train_replicas']
