"""Behaviour cloning of the better episodes of the bundled hopper set, which needs no download."""
from ding_cawr import make_config

main_config, create_config = make_config('Hopper-v4', algorithm='bc_best', data_path='bundled:hopper-medium-expert')
