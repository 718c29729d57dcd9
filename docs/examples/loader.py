"""A data set whose images are filtered by fastconv in the worker processes of a data loader."""

import torch
from torch.utils.data import DataLoader, Dataset

import fastconv.torch as ft


class Blurred(Dataset):
    """Images, each averaged over squares of 5 x 5 pixels."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.weight = images, torch.full((images.shape[1], 1, 5, 5), 1 / 25)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return ft.conv2d(self.images[index], self.weight, padding=2, groups=len(self.weight))


if __name__ == "__main__":
    data = Blurred(torch.rand(32, 3, 64, 64))
    for batch in DataLoader(data, batch_size=16, num_workers=2):
        print(tuple(batch.shape))
