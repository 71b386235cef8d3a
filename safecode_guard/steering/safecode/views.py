"""The second view of an image: the same picture under noise, or a plain grey one.

Noise on a large photo is averaged away when the model's preprocessing shrinks it: sigma 0.1 on a
1024 pixel picture leaves about 0.02 at 224 pixels. So by default the picture is brought to the
model's working size first and the noise added there (``after_resize``); ``before_resize`` is the
paper's order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from safecode_guard.steering.protocol import SteeringContext
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.steering.seeds import derive_seed
from safecode_guard.turns.turn import Turn

Size = tuple[int, int]
"""(width, height), as in Pillow."""
GREY = (128, 128, 128)


def noised(
    image: Image.Image,
    *,
    sigma: float,
    seed: int,
    size: Size | None = None,
    keep_size: bool = False,
) -> Image.Image:
    """Return v~ = clip01(v + sigma N(0, 1)), drawn per pixel and channel (SafeCoDe, stage 1).

    Args:
        image: Any Pillow image; read as RGB.
        sigma: Standard deviation on values in [0, 1]; 0 returns the picture itself.
        seed: Of the draw.
        size: Working size at which the noise is to have its sigma; None: the picture's own.
        keep_size: Return a picture of the original size; the noise is then drawn at the working
            size, brought up to the picture's, and scaled so that resizing the result back to
            the working size leaves sigma. Otherwise the result has the working size.

    Returns:
        An RGB picture.
    """
    image = image.convert("RGB")
    size = size or image.size
    if sigma == 0:
        return image
    if not keep_size and size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    noise = _draw(size, seed)
    if size != image.size:
        noise = _carried(noise, image.size)
    values = torch.from_numpy(np.array(image)).float().div_(255)  # [height, width, 3]
    values.add_(noise, alpha=sigma).clamp_(0, 1).mul_(255).round_()
    return Image.fromarray(values.byte().numpy())


def grey(image: Image.Image) -> Image.Image:
    """Return a mid-grey picture of the image's size: nothing of the scene is left."""
    return Image.new("RGB", image.size, GREY)


def second_views_in(context: SteeringContext, parameters: SteeringParameters) -> Turn:
    """Return the turn of a steering with second views of its pictures; see `second_views`."""
    return second_views(
        context.turn,
        parameters=parameters,
        seed=context.seed,
        working_size=context.working_size,
        keeps_image_size=context.family.keeps_image_size,
    )


def second_views(
    turn: Turn,
    *,
    parameters: SteeringParameters,
    seed: int,
    working_size: Callable[[Image.Image], Size],
    keeps_image_size: bool,
) -> Turn:
    """Return the turn with each image replaced by its second view.

    One draw per image and turn: the seed of image i is derived from ``seed`` and i.

    Args:
        turn: The conversation with the real images.
        parameters: ``sigma``, ``noise_order`` and ``reference_view`` are read.
        seed: Of the turn; goes into the trace.
        working_size: (width, height) to which the model's preprocessing resizes an image.
        keeps_image_size: The model's token counts depend on the picture's exact size.
    """

    def view(image: Image.Image, index: int) -> Image.Image:
        if parameters.reference_view == "grey":
            return grey(image)
        own_seed = derive_seed(seed, "image", index)
        if parameters.noise_order == "before_resize":
            return noised(image, sigma=parameters.sigma, seed=own_seed)
        return noised(
            image,
            sigma=parameters.sigma,
            seed=own_seed,
            size=working_size(image),
            keep_size=keeps_image_size,
        )

    pixels = [view(image, i) for i, image in enumerate(turn.pixels)]
    return turn.with_pixels(pixels, views=_named(parameters, seed, len(pixels)))


def _named(parameters: SteeringParameters, seed: int, count: int) -> list[str]:
    """Return what tells second views apart, beside picture and model: noise and seed."""
    if parameters.reference_view == "grey":
        return ["grey"] * count
    noise = f"noise {parameters.sigma!r} {parameters.noise_order} {seed}"
    return [f"{noise} {i}" for i in range(count)]


def _draw(size: Size, seed: int) -> Tensor:
    """Draw standard normal noise [height, width, 3]."""
    width, height = size
    return torch.randn((height, width, 3), generator=torch.Generator().manual_seed(seed))


def _carried(noise: Tensor, size: Size) -> Tensor:
    """Bring noise [h, w, 3] to another size so that resizing it back leaves unit deviation."""
    working = (noise.shape[1], noise.shape[0])
    carried = _resized(noise, size, Image.Resampling.NEAREST)
    back = _resized(carried, working, Image.Resampling.BICUBIC)
    return carried / back.std()


def _resized(noise: Tensor, size: Size, resample: Image.Resampling) -> Tensor:
    channels = [Image.fromarray(channel.numpy(), mode="F") for channel in noise.permute(2, 0, 1)]
    resized = [np.asarray(channel.resize(size, resample)) for channel in channels]
    return torch.from_numpy(np.stack(resized, -1))
