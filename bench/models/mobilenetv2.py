"""MobileNetV2 of width 1.0, M. Sandler et al., Inverted Residuals and Linear Bottlenecks, 2018, table 2."""

from torch import nn

INFERENCE, TRAINING = (1, 3, 224, 224), (8, 3, 224, 224)
HAS_CLASSES = True
#: Expansion, channels, repeats and stride of the first one.
BLOCKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def convolution(channels, filters, size=1, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(channels, filters, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    def __init__(self, channels, filters, stride, expansion):
        super().__init__()
        hidden = expansion * channels
        self.conv = nn.Sequential(
            *([convolution(channels, hidden)] if expansion > 1 else []),
            convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.has_residual = stride == 1 and channels == filters

    def forward(self, x):
        return x + self.conv(x) if self.has_residual else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [convolution(3, 32, 3, 2)], 32
        for expansion, filters, repeats, stride in BLOCKS:
            for number in range(repeats):
                layers.append(InvertedResidual(channels, filters, 1 if number else stride, expansion))
                channels = filters
        layers.append(convolution(channels, 1280))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


build = MobileNetV2
