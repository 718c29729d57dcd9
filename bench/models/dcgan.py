"""The DCGAN generator of a 64x64 image, A. Radford et al., Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks, 2016, figure 1, with the kernels of 4x4 that its PyTorch versions have."""

import itertools

from torch import nn

INFERENCE, TRAINING = (4, 100, 1, 1), (16, 100, 1, 1)
HAS_CLASSES = False


def build():
    layers = []
    channels = (100, 1024, 512, 256, 128)
    for number, (inputs, filters) in enumerate(itertools.pairwise(channels)):
        stride, padding = (2, 1) if number else (1, 0)
        layers += [
            nn.ConvTranspose2d(inputs, filters, 4, stride, padding, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(128, 3, 4, stride=2, padding=1, bias=False), nn.Tanh())
