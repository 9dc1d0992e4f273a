"""JAX-CORL's IQL, timed block by block for speed.py; runs in an environment that has jax, and needs nothing of ours.

    python speed_jax_corl.py CHECKOUT FILE.hdf5 BATCH_SIZE BLOCK THREADS

CHECKOUT is a checkout of github.com/nissymori/JAX-CORL, FILE is in D4RL's layout. Writes a line of JSON with versions
when it is ready; then for each line that it reads, runs BLOCK iterations or a few more, since JAX-CORL compiles eight
into one call, and writes {"ms": milliseconds of one}. d4rl, gym and wandb, which its file imports, are not needed.
"""
import json
import math
import os
import subprocess
import sys
import time
import types
from pathlib import Path


def module_of(checkout: Path) -> types.ModuleType:
    """Return JAX-CORL's iql.py as a module, as it is but for a flag that only a GPU knows."""
    for name in ('d4rl', 'gym', 'wandb'):
        sys.modules[name] = types.ModuleType(name)
    sys.modules['gym'].Env = object
    source = (checkout / 'algos' / 'iql.py').read_text().replace('--xla_gpu_triton_gemm_any=True', '')
    module = sys.modules['iql'] = types.ModuleType('iql')
    exec(compile(source, 'iql.py', 'exec'), module.__dict__)
    return module


def main(checkout: Path, file: str, batch_size: int, block: int, threads: int) -> None:
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # stdout is for answers
    sys.argv = sys.argv[:1]  # JAX-CORL reads its settings from the command line
    if threads:  # XLA takes as many as there are processors that it may run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import h5py
    import jax
    import jax.numpy as jnp

    iql = module_of(checkout)
    with h5py.File(file) as data:
        obs, action, reward, done = (data[key][()] for key in ('observations', 'actions', 'rewards', 'terminals'))
    columns = obs[:-1], action[:-1], reward[:-1], obs[1:], done[:-1].astype('float32'), done[:-1].astype('float32')
    config = iql.IQLConfig(batch_size=batch_size)
    dataset, key = iql.Transition(*map(jnp.asarray, columns)), jax.random.PRNGKey(0)
    state = iql.create_iql_train_state(key, dataset.observations[:1], dataset.actions[:1], config)
    update = jax.jit(iql.IQL.update_n_times, static_argnums=(3, ))
    calls = math.ceil(block / config.n_jitted_updates)

    def run() -> None:
        nonlocal key, state
        for _ in range(calls):
            key, draw = jax.random.split(key)
            state, _ = update(state, dataset, draw, config)
        jax.block_until_ready(state)

    run()  # compiles
    commit = subprocess.run(['git', '-C', checkout, 'rev-parse', 'HEAD'], capture_output=True, text=True).stdout.strip()
    print(json.dumps({'JAX-CORL': commit[:7], 'jax': jax.__version__}), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        print(json.dumps({'ms': 1e3 * seconds / (calls * config.n_jitted_updates)}), file=answers, flush=True)


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
