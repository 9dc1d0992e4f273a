"""AWR on DI-engine's CartPole (v0, 200 steps): discrete actions, online.

    ding -m serial -c config/cartpole_awr.py -s 0
"""
from easydict import EasyDict

main_config = EasyDict(dict(
    exp_name='cartpole_awr',
    env=dict(collector_env_num=8, evaluator_env_num=5, n_evaluator_episode=5, stop_value=195),
    policy=dict(
        cuda=False,
        model=dict(obs_shape=4, action_shape=2, action_space='discrete'),
        learn=dict(
            # At 1, the default, one seed of five stayed near 100.
            temperature=0.5,
            optimizer='adam',
            learning_rate_value=1e-3,
            learning_rate_policy=1e-3,
        ),
        collect=dict(n_sample=2048),
        eval=dict(evaluator=dict(eval_freq=1200)),
    ),
))

create_config = EasyDict(dict(
    env=dict(type='cartpole', import_names=['dizoo.classic_control.cartpole.envs.cartpole_env']),
    env_manager=dict(type='base'),
    policy=dict(type='awr', import_names=['ding_cawr']),
))
