"""FSRCNN(56, 12, 4), C. Dong et al., Accelerating the Super-Resolution Convolutional Neural Network, 2016: the
luminance of an image, enlarged by `scale`."""

from torch import nn

INFERENCE, TRAINING = (1, 1, 160, 160), (8, 1, 160, 160)
HAS_CLASSES = False


def build(scale=2):
    layers, channels = [], 1
    for filters, size in ((56, 5), (12, 1), (12, 3), (12, 3), (12, 3), (12, 3), (56, 1)):
        layers += [nn.Conv2d(channels, filters, size, padding=size // 2), nn.PReLU(filters)]
        channels = filters
    return nn.Sequential(*layers, nn.ConvTranspose2d(56, 1, 9, scale, padding=4, output_padding=scale - 1))
