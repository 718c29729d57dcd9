"""ConvNeXt-T, Z. Liu et al., A ConvNet for the 2020s, 2022, table 9, with layer scale. Norms and pointwise layers read
their maps channels last, by permute. Stochastic depth is left out, so that every training step computes all blocks."""

import torch
from torch import nn

INFERENCE, TRAINING = (1, 3, 224, 224), (4, 3, 224, 224)
HAS_CLASSES = True


class Norm(nn.LayerNorm):
    """Of the channels of a map whose channels are first."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(1e-6 * torch.ones(channels))

    def forward(self, x):
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 96, 4, stride=4), Norm(96, eps=1e-6)]
        for channels, repeats in ((96, 3), (192, 3), (384, 9), (768, 3)):
            if channels > 96:
                layers += [Norm(channels // 2, eps=1e-6), nn.Conv2d(channels // 2, channels, 2, stride=2)]
            layers += [Block(channels) for _ in range(repeats)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(768, eps=1e-6)
        self.head = nn.Linear(768, 1000)

    def forward(self, x):
        return self.head(self.norm(self.features(x).mean((2, 3))))


build = ConvNeXt
