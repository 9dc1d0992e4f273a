"""Behaviour cloning of the better episodes of D4RL's ant-medium-v2."""
from ding_cawr import make_config

main_config, create_config = make_config('ant-medium-v2', algorithm='bc_best')
