"""Small networks in the shapes of the ones that run on microcontrollers."""

from __future__ import annotations

import torch
from torch import nn


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class DsCnn(nn.Module):
    """Depthwise separable CNN, after the keyword spotting networks of Zhang et al. 2017."""

    def __init__(self, width: int = 32, depth: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers = [_block(1, width, 3)]
        for _ in range(depth):
            layers += [_block(width, width, 3, groups=width), _block(width, width, 1)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class probabilities [n, 10] of images [n, 1, 8, 8]."""
        pooled = self.features(image).mean((2, 3))
        return self.classifier(pooled).softmax(1)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _block(inputs, outputs, 3, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.skip = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Conv2d(inputs, outputs, 1, stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.skip(x))


class ResidualCnn(nn.Module):
    """A residual network in the shape of MLPerf Tiny's ResNet-8."""

    def __init__(self, width: int = 12, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(1, width, 3),
            _Residual(width, width, 1),
            _Residual(width, 2 * width, 2),
            _Residual(2 * width, 4 * width, 2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class probabilities [n, 10] of images [n, 1, 8, 8]."""
        return self.classifier(self.pool(self.features(image)).flatten(1)).softmax(1)


NETWORKS: dict[str, type[nn.Module]] = {"digits_dscnn": DsCnn, "digits_resnet": ResidualCnn}
