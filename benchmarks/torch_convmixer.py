"""ConvMixer in PyTorch as the paper's figure 3 has it, to train beside. Needs torch."""


def convmixer(dim, depth, kernel_size, patch_size, classes=10, activation="gelu"):
    """A `torch.nn.Module` of images `(N, 3, H, W)` that gives logits, channels last in memory."""
    import torch
    from torch import nn

    class Residual(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + x

    act = {"gelu": nn.GELU, "relu": nn.ReLU}[activation]

    def act_bn(convolution):
        return convolution, act(), nn.BatchNorm2d(dim)

    blocks = [
        nn.Sequential(
            Residual(*act_bn(nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"))),
            *act_bn(nn.Conv2d(dim, dim, 1)),
        )
        for _ in range(depth)
    ]
    return nn.Sequential(
        *act_bn(nn.Conv2d(3, dim, patch_size, patch_size)),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(dim, classes),
    ).to(memory_format=torch.channels_last)
