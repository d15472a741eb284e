"""CIFAR-style residual networks with a linear or a cosine classifier.

The family of He et al., "Deep residual learning for image recognition" (CVPR 2016), section 4.2:
three groups of basic blocks with 16, 32 and 64 channels, parameter-free (option A) shortcuts, global
average pooling and one classifier. Parameter names (``conv1 bn1 layer1 layer2 layer3 linear``) are
those of the published CIFAR checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hml_core.models import heads

FEATURES = 64


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - in_channels

    def shortcut(self, x: Tensor) -> Tensor:
        """Every ``stride``-th pixel, and zeros for the channels that are new."""
        if self.stride != 1:
            # The pixels that x[:, :, ::2, ::2] takes; its gradient would not be channels-last, which
            # costs a tenth of a training step on a CPU.
            x = F.avg_pool2d(x, 1, self.stride)
        if self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return x

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out.add_(self.shortcut(x)), inplace=True)


class CifarResNet(heads.Headed):
    """A residual network for small images; ``depth = 6·blocks + 2``.

    Parameters
    ----------
    blocks : int
        Basic blocks in each of the three groups (5 for ResNet-32).
    num_classes : int
    head : {"linear", "cosine"}
    in_channels : int
        3 for colour, 1 for grey images.
    head_scale : float
        The scale of a cosine head; a linear head has none.

    Examples
    --------
    >>> import torch
    >>> model = resnet32(num_classes=10)
    >>> images = torch.zeros(4, 3, 32, 32)
    >>> model(images).shape, model.features(images).shape
    (torch.Size([4, 10]), torch.Size([4, 64]))
    >>> sum(p.numel() for p in model.parameters())
    464154
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int,
        head: str = "linear",
        *,
        in_channels: int = 3,
        head_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._group(16, 16, blocks, stride=1)
        self.layer2 = self._group(16, 32, blocks, stride=2)
        self.layer3 = self._group(32, FEATURES, blocks, stride=2)
        self.linear = heads.build("linear", FEATURES, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        if head != "linear":  # drawn last: the convolutions are the same whatever the head
            self.linear = heads.build(head, FEATURES, num_classes, head_scale)

    @staticmethod
    def _group(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def features(self, x: Tensor) -> Tensor:
        """The representation before the classifier: (N, C, H, W) → (N, 64)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, 16, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, 64, H/4, W/4)
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)


def resnet8(num_classes: int, head: str = "linear", **options) -> CifarResNet:
    """ResNet-8, for images of a few pixels; see :class:`CifarResNet` for the options."""
    return CifarResNet(1, num_classes, head, **options)


def resnet14(num_classes: int, head: str = "linear", **options) -> CifarResNet:
    """ResNet-14; see :class:`CifarResNet` for the options."""
    return CifarResNet(2, num_classes, head, **options)


def resnet20(num_classes: int, head: str = "linear", **options) -> CifarResNet:
    """ResNet-20; see :class:`CifarResNet` for the options."""
    return CifarResNet(3, num_classes, head, **options)


def resnet32(num_classes: int, head: str = "linear", **options) -> CifarResNet:
    """ResNet-32, the network of the CIFAR-LT literature; see :class:`CifarResNet`."""
    return CifarResNet(5, num_classes, head, **options)
