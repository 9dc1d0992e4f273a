"""A2PR's mask on the bundled hopper set, which needs no download. Its scores rise after 20,000 iterations."""
from ding_cawr import make_config

main_config, create_config = make_config(
    'Hopper-v4', algorithm='a2pr_mask', data_path='bundled:hopper-medium-expert', iterations=50_000
)
