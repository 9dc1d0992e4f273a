"""DI-engine's SAC on Hopper: trains the behaviour policies of the bundled dataset.

    ding -m serial -c config/hopper_sac.py -s 0 --train-iter 300000
"""
from easydict import EasyDict

main_config = EasyDict(dict(
    exp_name='hopper_sac',
    env=dict(env_id='Hopper-v4', collector_env_num=8, n_evaluator_episode=10, stop_value=1e10),
    policy=dict(
        cuda=False,
        random_collect_size=5000,
        model=dict(
            obs_shape=11,
            action_shape=3,
            twin_critic=True,
            action_space='reparameterization',
            actor_head_hidden_size=256,
            critic_head_hidden_size=256,
        ),
        learn=dict(
            update_per_collect=64,
            batch_size=256,
            learning_rate_q=1e-3,
            learning_rate_policy=3e-4,
            learning_rate_alpha=3e-4,
            auto_alpha=True,
            learner=dict(hook=dict(log_show_after_iter=1000, save_ckpt_after_iter=5000)),
        ),
        collect=dict(n_sample=64, collector=dict(collect_print_freq=5000)),
        eval=dict(evaluator=dict(eval_freq=5000)),
        other=dict(replay_buffer=dict(replay_buffer_size=1000000)),
    ),
))

create_config = EasyDict(dict(
    env=dict(type='d4rl_gymnasium', import_names=['ding_cawr']),
    env_manager=dict(type='base'),
    policy=dict(type='sac', import_names=['ding.policy.sac']),
    replay_buffer=dict(type='naive'),
))
