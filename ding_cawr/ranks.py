"""The processes that train one policy together (DI-engine's ``multi_gpu``), and what they tell each other.

Every rank holds the whole dataset, and the same priorities, networks and random generators as the others. An iteration
draws the same rows on all of them; each rank passes its part of the batch through the networks. Advantages are then
gathered and gradients averaged, so that what comes of an iteration is what one process with the whole batch has.
"""
from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among ``size`` ones; by default it is alone, and nothing is told to anybody."""
    rank: int = 0
    size: int = 1

    @classmethod
    def of_process_group(cls) -> Ranks:
        """Those of ``torch.distributed``'s process group; alone without one."""
        return cls(dist.get_rank(), dist.get_world_size()) if in_process_group() else cls()

    def share(self, count: int) -> slice:
        """This rank's part of so many samples, which ``size`` divides."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, part: Tensor) -> Tensor:
        """The parts (..., m) of all ranks one after the other, (..., size m)."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        with self._together():
            dist.all_gather(parts, part.contiguous())
        return torch.cat(parts, dim=-1)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows (m, ...) of all ranks one after the other, (size m, ...); all ranks have equally many."""
        return self.gather(rows.flatten()).view(-1, *rows.shape[1:])

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Means over the ranks, in place, by one exchange. The tensors are of one dtype."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._together():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view(tensor.shape))

    def of_first(self, number: int, device: torch.device | str) -> int:
        """A number as rank 0 has it."""
        if self.size == 1:
            return number
        told = torch.tensor(number, dtype=torch.int64, device=device)
        with self._together():
            dist.broadcast(told, 0)
        return int(told)

    def check_same(self, what: str, found: str, device: torch.device | str) -> None:
        """Whether all ranks hold the same, by what ``digest`` says of it.

        Raises:
            RuntimeError: they do not.
        """
        own = int(found[:15], 16)  # what an int64 holds
        of_ranks = self.gather(torch.tensor([own], device=device)).tolist()
        if len(set(of_ranks)) > 1:
            hashes = ', '.join(f'{each:x}' for each in of_ranks)
            raise RuntimeError(
                f'rank {self.rank} of {self.size}: the ranks differ in {what} (hashes {hashes}); give all ranks the '
                'same data, configuration and kind of processor'
            )

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """An exchange; it fails when another rank has ended, or says nothing for as long as the process group waits."""
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(
                f'rank {self.rank} of {self.size} waited for another rank, which has ended or does not answer; look at '
                f'what that one printed ({str(error).strip().splitlines()[0]})'
            ) from error


def digest(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of the values of tensors, in hexadecimal; waits for the device."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy())
    return found.hexdigest()


def in_process_group() -> bool:
    """Whether somebody has set up ``torch.distributed`` in this process."""
    return dist.is_available() and dist.is_initialized()


#: No other process.
ALONE = Ranks()
