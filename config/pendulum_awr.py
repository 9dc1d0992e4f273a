"""AWR on DI-engine's Pendulum: continuous actions, online.

    ding -m serial -c config/pendulum_awr.py -s 0
"""
from easydict import EasyDict

main_config = EasyDict(dict(
    exp_name='pendulum_awr',
    env=dict(collector_env_num=8, evaluator_env_num=5, n_evaluator_episode=5, stop_value=-250, act_scale=True),
    policy=dict(
        cuda=False,
        model=dict(obs_shape=3, action_shape=1),
        learn=dict(
            discount_factor=0.95,
            optimizer='adam',
            learning_rate_value=1e-3,
            learning_rate_policy=1e-3,
        ),
        collect=dict(n_sample=1600),
        eval=dict(evaluator=dict(eval_freq=1200)),
    ),
))

create_config = EasyDict(dict(
    env=dict(type='pendulum', import_names=['dizoo.classic_control.pendulum.envs.pendulum_env']),
    env_manager=dict(type='base'),
    policy=dict(type='awr', import_names=['ding_cawr']),
))
