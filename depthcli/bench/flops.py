"""Count the floating-point operations of a network, to judge measured times."""

from __future__ import annotations

from depthcli.zoo.rows import PATCH, AnyConfig, LiteConfig, NestedConfig, NetworkConfig


def network_flops(config: AnyConfig, width: int, height: int) -> int:
    """Return the floating-point operations of one pass over a network input of width x height pixels.

    A multiply-add counts as 2. Counted are linear layers, convolutions and attention, 2 * 2 * N * N * D for each block
    of N tokens of width D. Norms, activations and resizes add less than a hundredth. Backends may need more or fewer.
    """
    if isinstance(config, LiteConfig):
        return _lite(config, width, height)
    if isinstance(config, NestedConfig):
        return network_flops(config.views, width, height) + network_flops(config.metric, width, height)
    assert isinstance(config, NetworkConfig)
    return encoder_flops(config, width, height) + head_flops(config, width, height)


def encoder_flops(config: NetworkConfig, width: int, height: int) -> int:
    """Return those of the transformer."""
    dim = config.embed_dim
    patches = (width // PATCH) * (height // PATCH)
    tokens = patches + 1
    attention = 2 * 2 * tokens * tokens * dim
    projections = 2 * tokens * (3 * dim * dim + dim * dim)
    if config.swiglu:
        hidden = (int(4 * dim * 2 / 3) + 7) // 8 * 8
        feed_forward = 2 * tokens * (dim * 2 * hidden + hidden * dim)
    else:
        feed_forward = 2 * tokens * 2 * (dim * 4 * dim)
    embedding = 2 * patches * dim * 3 * PATCH * PATCH
    return embedding + config.depth * (attention + projections + feed_forward)


def head_flops(config: NetworkConfig, width: int, height: int) -> int:
    """Return those of the DPT head."""
    rows, cols = height // PATCH, width // PATCH
    features, (c0, c1, _, c3) = config.features, config.out_channels
    sizes = (16 * rows * cols, 4 * rows * cols, rows * cols, _half(rows) * _half(cols))  # of the maps, fine to coarse
    total = sum(_conv(rows * cols, config.map_channels, channels, 1) for channels in config.out_channels)
    # A transposed convolution without overlap computes all of its outputs from each pixel.
    total += _conv(rows * cols, c0, 16 * c0, 1) + _conv(rows * cols, c1, 4 * c1, 1) + _conv(sizes[3], c3, c3, 3)
    for pixels, channels in zip(sizes, config.out_channels):
        total += _conv(pixels, channels, features, 3)
    for number, pixels in enumerate(sizes):
        total += _fusion(pixels, features, features, adds=number < 3)
    total += _conv(64 * rows * cols, features, features // 2, 3)
    pixels = rows * cols * PATCH * PATCH
    return total + _conv(pixels, features // 2, 32, 3) + _conv(pixels, 32, 1, 1)


def _lite(config: LiteConfig, width: int, height: int) -> int:
    from depthcli.nets.efficientnet_lite import STAGES, STEM, TAP_CHANNELS

    rows, cols = _half(height), _half(width)
    total = _conv(rows * cols, 3, STEM, 3)
    channels, taps = STEM, []
    for stage in STAGES:
        for number in range(stage.blocks):
            inside = channels * stage.expand
            if stage.expand > 1:
                total += _conv(rows * cols, channels, inside, 1)
            if number == 0 and stage.stride == 2:
                rows, cols = _half(rows), _half(cols)
            total += _conv(rows * cols, 1, inside, stage.kernel)  # depthwise
            total += _conv(rows * cols, inside, stage.channels, 1)
            channels = stage.channels
        if stage.tap:
            taps.append(rows * cols)
    features, half = config.features, config.features // 2
    for number, (pixels, tap) in enumerate(zip(taps, TAP_CHANNELS)):
        total += _conv(pixels, tap, half if number == 0 else features, 3)
    for number, pixels in enumerate(taps[1:], start=1):
        total += _fusion(pixels, features, half if number == 1 else features, adds=number < 4)
    return total + _conv(taps[0], half, half // 2, 3) + _conv(taps[0], half // 2, 1, 1)


def _conv(pixels: int, inputs: int, outputs: int, kernel: int) -> int:
    """Return the operations of a convolution with so many output pixels."""
    return 2 * pixels * inputs * outputs * kernel * kernel


def _fusion(pixels: int, features: int, outputs: int, adds: bool) -> int:
    """Return those of a fusion stage: two or four 3x3 convolutions, and a 1x1 before the upsampling."""
    return (4 if adds else 2) * _conv(pixels, features, features, 3) + _conv(pixels, features, outputs, 1)


def _half(length: int) -> int:
    return (length + 1) // 2
