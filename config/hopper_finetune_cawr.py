"""CAWR online, from an offline run on: the networks of config/hopper_bundled_cawr.py, and its dataset in the buffer.

    ding -m serial_offline -c config/hopper_bundled_cawr.py -s 0
    ding -m serial -c config/hopper_finetune_cawr.py -s 0 --env-step 100000
"""
from ding_cawr import make_config

main_config, create_config = make_config(
    'Hopper-v4', algorithm='cawr', data_path='bundled:hopper-medium-expert', exp_name='hopper_finetune_cawr',
    env=dict(collector_env_num=2),
    policy=dict(
        learn=dict(load_path='hopper_bundled_cawr/ckpt/ckpt_best.pth.tar', update_per_collect=64),
        collect=dict(n_sample=64, collector=dict(collect_print_freq=5000)),
        eval=dict(evaluator=dict(eval_freq=6000)),
        other=dict(replay_buffer=dict(replay_buffer_size=200_000)),
    ),
)
