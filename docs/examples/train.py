"""Training by several processes, each of which computes its part of every batch. torchrun starts them."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import fastconv as fc
import fastconv.torch as ft


def main() -> None:
    """Train a small network to return its input."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(64, 3, 1, 1).expand(-1, -1, 32, 32))
    sampler: DistributedSampler = DistributedSampler(data)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1)
    )
    parallel = DistributedDataParallel(ft.convert(model))
    optimizer = torch.optim.Adam(parallel.parameters(), lr=1e-2)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for (images,) in DataLoader(data, batch_size=8, sampler=sampler):
            optimizer.zero_grad()
            loss = (parallel(images) - images).square().mean()
            loss.backward()
            optimizer.step()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        if dist.get_rank() == 0:
            print(f"epoch {epoch}: loss {mean:.4f}, {dist.get_world_size()} processes, threads {fc.get_num_threads()}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
