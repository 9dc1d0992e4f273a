"""CAWR (arXiv 2506.15654) for DI-engine: importing this package registers its parts with DI-engine."""
from ding_cawr import engine  # noqa: F401  (registers)

# isort: split
from ding_cawr.advantage import advantage_weight
from ding_cawr.config import make_config
from ding_cawr.data.load import load_transitions
from ding_cawr.engine.replicas import train_replicas
from ding_cawr.evaluation.acting import load_policy
from ding_cawr.score import normalized_score

__version__ = '0.1.0'

__all__ = ['advantage_weight', 'load_policy', 'load_transitions', 'make_config', 'normalized_score', 'train_replicas']
