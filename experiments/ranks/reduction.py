"""Averaging of gradients over ranks.

DDP inspects the annotations of its hook, so this module must not postpone their evaluation (no `annotations` import).
"""

import torch
import torch.distributed as dist
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]


def mean_over_ranks(ranks: int, gradient: torch.Tensor) -> torch.Tensor:
    """Return the mean over all ranks as a new tensor; on CPUs, the sum is taken in the order of ranks.

    Args:
        ranks: Number of ranks; all must call this function.
        gradient: This rank's tensor.
    """
    gradient = gradient.contiguous()
    if gradient.is_cuda:
        total = gradient.clone()
        dist.all_reduce(total)
        return total.div_(ranks)
    parts = [torch.empty_like(gradient) for _ in range(ranks)]
    dist.all_gather(parts, gradient)
    return torch.stack(parts).sum(dim=0).div_(ranks)


def mean_in_rank_order(ranks: int, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average gradients over ranks, summed in the order of ranks, so that a resumed run on CPUs stays bit-equal.

    An all-reduce would sum in an order that depends on an entry's position in its bucket, and DDP rearranges its
    buckets after the first step of every process.

    Args:
        ranks: Number of ranks.
        bucket: The gradients that DDP has collected.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(ranks)]
    gathered = dist.all_gather(parts, own, async_op=True).get_future()
    return gathered.then(lambda _: torch.stack(parts).sum(dim=0).div_(ranks))
