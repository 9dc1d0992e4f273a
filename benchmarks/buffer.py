"""Time of 512 prioritized draws and 1,024 new priorities of 1,000,000 transitions of hopper's width, on one thread.

    python benchmarks/buffer.py
"""
import time

import torch

from ding_cawr.buffer import AdvantagePriorityBuffer

SIZE, DRAWS, UPDATES, REPEATS = 1_000_000, 512, 1024, 300


def main() -> None:
    torch.set_num_threads(1)
    buffer = AdvantagePriorityBuffer({})
    buffer.attach({
        'obs': torch.randn(SIZE, 11), 'action': torch.rand(SIZE, 3), 'reward': torch.randn(SIZE),
        'next_obs': torch.randn(SIZE, 11), 'done': torch.zeros(SIZE, dtype=torch.bool)
    })
    priority, seconds = torch.rand(UPDATES) + 0.1, []
    for _ in range(REPEATS):
        rows = torch.randint(SIZE, (UPDATES, ))
        start = time.perf_counter()
        buffer.sample_prioritized(DRAWS)
        buffer.update_priority(rows, priority)
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    print(
        f'{1e3 * seconds[0]:.2f} ms at best, median {1e3 * seconds[REPEATS // 2]:.2f} ms; '
        f'{buffer.nbytes / SIZE:.1f} bytes a transition'
    )


if __name__ == '__main__':
    main()
