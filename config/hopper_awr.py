"""AWR on gymnasium's Hopper, online, with the released settings.

    ding -m serial -c config/hopper_awr.py -s 0 --env-step 1000000
"""
from easydict import EasyDict

main_config = EasyDict(dict(
    exp_name='hopper_awr',
    # Of two environments about 2,048 steps, and the rest of an episode or two, come at a time, as released.
    env=dict(env_id='Hopper-v4', collector_env_num=2, n_evaluator_episode=10, stop_value=1e10),
    policy=dict(
        cuda=False,
        model=dict(obs_shape=11, action_shape=3),
        learn=dict(learning_rate_policy=1e-4),
        collect=dict(n_sample=2048, collector=dict(collect_print_freq=12000)),
        eval=dict(evaluator=dict(eval_freq=12000)),
    ),
))

create_config = EasyDict(dict(
    env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']),
    env_manager=dict(type='base'),
    policy=dict(type='awr', import_names=['ding_cawr']),
))
