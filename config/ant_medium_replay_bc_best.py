"""Behaviour cloning of the better episodes of D4RL's ant-medium-replay-v2."""
from ding_cawr import make_config

main_config, create_config = make_config('ant-medium-replay-v2', algorithm='bc_best')
