"""How ranks average gradients. DDP looks at the annotations themselves, so they are not put off here."""

import torch
import torch.distributed as dist
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]


def mean_over_ranks(ranks: int, gradient: torch.Tensor) -> torch.Tensor:
    """Mean of what the ranks hold, a new tensor; on CPUs summed in the order of ranks.

    Args:
        ranks: Number of ranks.
        gradient: This rank's part; all ranks must call this.
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
    """Mean of the ranks' gradients, summed in the order of ranks, so that a resumed run on CPUs stays bit-equal.

    An all-reduce sums in an order that depends on an entry's place in its bucket, and DDP sorts its buckets anew after
    the first step of every process.

    Args:
        ranks: Number of ranks.
        bucket: What DDP has collected.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(ranks)]
    gathered = dist.all_gather(parts, own, async_op=True).get_future()
    return gathered.then(lambda _: torch.stack(parts).sum(dim=0).div_(ranks))
