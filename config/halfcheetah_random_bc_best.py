"""Behaviour cloning of the better episodes of D4RL's halfcheetah-random-v2."""
from ding_cawr import make_config

main_config, create_config = make_config('halfcheetah-random-v2', algorithm='bc_best')
