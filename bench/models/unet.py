"""U-Net, O. Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, with padded
convolutions and batch norms, as it is mostly trained today, and with 32 to 256 channels. Each pixel has one of two
classes."""

import itertools

import torch
from torch import nn

INFERENCE, TRAINING = (1, 3, 256, 256), (4, 3, 256, 256)
HAS_CLASSES = True


def double(channels, filters):
    layers = []
    for inputs in (channels, filters):
        layers += [nn.Conv2d(inputs, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, channels=(32, 64, 128, 256)):
        super().__init__()
        down = list(itertools.pairwise(channels))
        self.first = double(3, channels[0])
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(double(few, many) for few, many in down)
        self.up = nn.ModuleList(nn.ConvTranspose2d(many, few, 2, stride=2) for few, many in reversed(down))
        self.merge = nn.ModuleList(double(many, few) for few, many in reversed(down))
        self.last = nn.Conv2d(channels[0], 2, 1)

    def forward(self, x):
        maps = [self.first(x)]
        for block in self.down:
            maps.append(block(self.pool(maps[-1])))
        y = maps.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            y = merge(torch.cat([maps.pop(), up(y)], 1))
        return self.last(y)


build = UNet
