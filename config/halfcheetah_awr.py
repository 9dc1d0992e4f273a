"""AWR on gymnasium's HalfCheetah, online, with the released settings.

    ding -m serial -c config/halfcheetah_awr.py -s 0 --env-step 20000000
"""
from easydict import EasyDict

main_config = EasyDict(dict(
    exp_name='halfcheetah_awr',
    # An episode has 1,000 steps. Three come at a time, as released, and a round has 293 and 1,465 steps for them.
    env=dict(env_id='HalfCheetah-v4', collector_env_num=3, n_evaluator_episode=10, stop_value=1e10),
    policy=dict(
        cuda=False,
        model=dict(obs_shape=17, action_shape=6),
        learn=dict(learning_rate_policy=5e-5),
        collect=dict(n_sample=2048, collector=dict(collect_print_freq=12000)),
        eval=dict(evaluator=dict(eval_freq=12000)),
    ),
))

create_config = EasyDict(dict(
    env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']),
    env_manager=dict(type='base'),
    policy=dict(type='awr', import_names=['ding_cawr']),
))
