"""The batched views against torchvision, sample by sample, and the promises about randomness, channels and errors."""

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as TF

from ssl_lightning.transforms.image import CleanView, RandomView, SimCLRViews, ViewParameters, functional

# Both sides compute on float images and differ by float32 rounding alone. On uint8 torchvision also rounds to 1/255
# after each operation but solarize, which we do not.
TIGHT = 1e-5
PLACE = 1e-7  # and where to look in an image is rounded, too: by so many pixels for each one of its side
SHAPES = [(1, 8, 8), (3, 8, 8), (3, 32, 32), (1, 28, 28), (3, 20, 33), (3, 65, 40), (3, 160, 224), (1, 224, 224)]
View = Callable[..., Tensor | list[Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(channels: int, height: int, width: int, count: int = 6, seed: int = 0) -> Tensor:
    """Noise, with a black, a white and an evenly gray image and a few pure colours: the corners of the hue."""
    images = torch.rand(count, channels, height, width, generator=seeded(seed))
    images[0], images[1], images[2] = 0, 1, 0.5
    images[3, :, : height // 2] = images[3, :, : height // 2].round()
    return images


def each(operation: Callable[..., Tensor], images: Tensor, *parameters: Tensor) -> Tensor:
    """Apply an operation to each image with its row of the parameters."""
    rows = zip(images, *(values.tolist() for values in parameters), strict=True)
    return torch.stack([operation(*row) for row in rows])


@pytest.mark.parametrize(("channels", "height", "width"), SHAPES)
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (40, 24), (140, 140)])
def test_resized_crop_equals_torchvision(channels: int, height: int, width: int, size: tuple[int, int]) -> None:
    images = random_images(channels, height, width)
    boxes = functional.crop_boxes(torch.rand(6, 22, generator=seeded(1)), height, width, (0.1, 1.0))
    boxes[4] = torch.tensor([0, 0, height, width])
    boxes[5] = torch.tensor([height - 1, width - 2, 1, 2])  # in the corner, one pixel high
    flips = torch.tensor([True, False, True, True, False, True])

    def reference(image: Tensor, box: list[int], flip: bool) -> Tensor:
        resized: Tensor = TF.resized_crop(image, *box, list(size), antialias=True)
        return resized.flip(-1) if flip else resized

    torch.testing.assert_close(
        functional.resized_crop(images, boxes, flips, size),
        each(reference, images, boxes, flips),
        rtol=0.0,
        atol=TIGHT + PLACE * max(height, width),
    )


@pytest.mark.parametrize("limit", [1, 10**6], ids=["native", "matrices"])
@pytest.mark.parametrize("size", [(16, 16), (224, 224)])
def test_both_ways_to_resize_agree(monkeypatch: pytest.MonkeyPatch, limit: int, size: tuple[int, int]) -> None:
    monkeypatch.setattr(functional, "_NATIVE_RESIZE_FROM", limit)
    test_resized_crop_equals_torchvision(3, 65, 40, size)


@pytest.mark.parametrize(("channels", "height", "width"), SHAPES)
@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("brightness", [0.0, 0.3, 1.0, 1.7, 0.9, 2.5]),
        ("contrast", [0.0, 0.3, 1.0, 1.7, 0.9, 2.5]),
        ("saturation", [0.0, 0.3, 1.0, 1.7, 0.9, 2.5]),
        ("hue", [-0.5, 0.5, 0.0, 0.11, -0.07, 1 / 3]),
    ],
)
def test_colour_equals_torchvision(name: str, factors: list[float], channels: int, height: int, width: int) -> None:
    for shift in range(6):  # every factor meets every kind of image
        images = random_images(channels, height, width).roll(shift, 0)
        untouched = images.clone()
        result = getattr(functional, f"adjust_{name}")(images, torch.tensor(factors))
        expected = each(getattr(TF, f"adjust_{name}"), images, torch.tensor(factors))
        torch.testing.assert_close(result, expected, rtol=0.0, atol=TIGHT)
        assert torch.equal(images, untouched)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize(("channels", "height", "width"), SHAPES)
def test_blur_equals_torchvision(channels: int, height: int, width: int, kernel_size: int) -> None:
    images = random_images(channels, height, width)
    sigmas = torch.tensor([0.1, 2.0, 0.5, 1.0, 0.7, 1.6])
    expected = each(lambda image, sigma: TF.gaussian_blur(image, [kernel_size] * 2, [sigma] * 2), images, sigmas)
    torch.testing.assert_close(functional.gaussian_blur(images, sigmas, kernel_size), expected, rtol=0.0, atol=TIGHT)


def test_no_weight_of_the_blur_is_a_number_that_slows_a_cpu() -> None:
    point = torch.zeros(6, 1, 64, 64)
    point[:, :, 32, 32] = 1
    spread = functional.gaussian_blur(point, torch.tensor([0.1, 0.3, 0.7, 0.83, 0.9, 2.0]), 23)
    assert ((spread == 0) | (spread > torch.finfo().tiny)).all()
    torch.testing.assert_close(spread.sum((1, 2, 3)), torch.ones(6))


def test_grayscale_and_solarize_equal_torchvision() -> None:
    images = random_images(3, 32, 32)
    torch.testing.assert_close(functional.grayscale(images), TF.rgb_to_grayscale(images, 3), rtol=0.0, atol=TIGHT)
    torch.testing.assert_close(functional.solarize(images), TF.solarize(images, 0.5), rtol=0.0, atol=TIGHT)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)  # all of uint8, threshold 128
    torch.testing.assert_close(functional.solarize(levels / 255), TF.solarize(levels, 128) / 255, rtol=0.0, atol=TIGHT)


def test_jitter_in_all_24_orders_equals_torchvision() -> None:
    orders = torch.tensor(list(permutations(range(4))))
    images = torch.rand(24, 3, 16, 16, generator=seeded())
    factors = torch.tensor([0.6, 0.2, 0.6, -0.4]) + torch.tensor([0.8, 1.6, 0.8, 0.8]) * torch.rand(
        24, 4, generator=seeded(1)
    )
    expected = each(jitter_by_torchvision, images, factors, orders)
    torch.testing.assert_close(
        functional.color_jitter_(images.clone(), factors, orders), expected, rtol=0.0, atol=TIGHT
    )
    assert not torch.allclose(expected, each(jitter_by_torchvision, images, factors, orders.flip(1)), atol=0.01)


def jitter_by_torchvision(image: Tensor, factors: list[float], order: list[int]) -> Tensor:
    operations = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    for operation in order:
        image = operations[operation](image, factors[operation])
    return image


def view_by_torchvision(images: Tensor, drawn: ViewParameters, size: tuple[int, int], kernel_size: int) -> Tensor:
    """The whole view of uint8 images, one by one with torchvision's functions on float images, mean 0.5, std 0.25."""
    results = []
    for row, image in enumerate(TF.to_dtype(images, torch.float32, scale=True)):
        image = TF.resized_crop(image, *drawn.boxes[row].tolist(), list(size), antialias=True)
        if drawn.flips[row]:
            image = TF.horizontal_flip(image)
        if drawn.jitters[row]:
            image = jitter_by_torchvision(image, drawn.factors[row].tolist(), drawn.orders[row].tolist())
        if drawn.grayscales[row] and len(image) == 3:
            image = TF.rgb_to_grayscale(image, 3)
        if drawn.blurs[row]:
            image = TF.gaussian_blur(image, [kernel_size] * 2, [drawn.sigmas[row].item()] * 2)
        if drawn.solarizes[row]:
            image = TF.solarize(image, 0.5)
        results.append(TF.normalize(image, [0.5] * len(image), [0.25] * len(image)))
    return torch.stack(results)


@pytest.fixture(params=["compiled", "operations"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How views are made here: as on a CPU, or as on other devices."""
    if request.param == "operations":
        monkeypatch.setattr(RandomView, "_by_kernel", RandomView._by_operations)
    return str(request.param)


@pytest.mark.parametrize(
    ("channels", "height", "width", "size", "kernel_size", "count"),
    [
        (3, 32, 32, None, 3, 64),
        (1, 28, 28, None, 3, 32),
        (3, 8, 8, None, 3, 32),
        (3, 50, 70, None, 5, 16),
        (3, 50, 70, 96, 9, 16),
        (3, 200, 224, 224, 23, 12),
        (3, 130, 90, 7, 3, 16),
        (1, 2, 3, None, 3, 16),
    ],
)
def test_whole_view_equals_torchvision(
    way: str, channels: int, height: int, width: int, size: int | None, kernel_size: int, count: int
) -> None:
    images = torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(3))
    untouched = images.clone()
    view = RandomView(size, jitter=(0.4, 0.4, 0.4, 0.2), grayscale=0.3, blur=0.5, solarize=0.5)
    drawn = view.draw(count, height, width, seeded())
    for fires in (drawn.flips, drawn.jitters, drawn.grayscales, drawn.blurs, drawn.solarizes):
        assert fires.any()
        assert not fires.all()
    result = view(images, seeded())
    expected = view_by_torchvision(images, drawn, (height, width) if size is None else (size, size), kernel_size)
    # divided by std; the jitter stretches differences by 1.4 at each of three steps
    tolerance = 4 * (TIGHT + 1.4**3 * PLACE * max(height, width))
    torch.testing.assert_close(result, expected, rtol=0.0, atol=tolerance)
    assert torch.equal(images, untouched)
    torch.testing.assert_close(view(images / 255, seeded()), result, rtol=0.0, atol=4e-5)


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(32, 32, (0.2, 1.0)), (24, 60, (0.08, 1.0)), (16, 80, (0.5, 1.0))]
)
def test_crops_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    boxes = functional.crop_boxes(torch.rand(4000, 22, generator=seeded()), height, width, scale).float()
    crop = RandomResizedCrop(8, scale=scale)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [crop.make_params([torch.empty(3, height, width)]) for _ in range(4000)]
    expected = torch.tensor([[box["top"], box["left"], box["height"], box["width"]] for box in drawn]).float()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    # means of 4000 draws: four standard errors of their difference; the quartiles likewise, generously
    error = 4 * expected.std(0) * math.sqrt(2 / 4000)
    assert ((boxes.mean(0) - expected.mean(0)).abs() <= error + 1e-6).all()
    levels = torch.tensor([0.25, 0.5, 0.75])
    assert ((boxes.quantile(levels, 0) - expected.quantile(levels, 0)).abs() <= 2 * error + 1).all()


def test_fraction_of_samples_follows_the_probabilities() -> None:
    view = RandomView(flip=0.3, jitter_probability=0.7, grayscale=0.1, blur=0.6, solarize=0.25)
    drawn = view.draw(20_000, 8, 8, seeded())
    fired = [drawn.flips, drawn.jitters, drawn.grayscales, drawn.blurs, drawn.solarizes]
    fractions = torch.stack(fired).float().mean(1)
    torch.testing.assert_close(fractions, torch.tensor([0.3, 0.7, 0.1, 0.6, 0.25]), rtol=0.0, atol=0.015)  # 4 sigma
    correlations = torch.corrcoef(torch.stack(fired).float())
    assert (correlations - torch.eye(5)).abs().max() < 0.03  # independent of one another


def test_drawn_strengths_orders_and_sigmas_are_uniform() -> None:
    drawn = RandomView(jitter=(0.4, 1.5, 0.2, 0.1)).draw(24_000, 8, 8, seeded())
    bounds = torch.tensor([[0.6, 0.0, 0.8, -0.1], [1.4, 2.5, 1.2, 0.1]])
    span = bounds[1] - bounds[0]
    assert (drawn.factors >= bounds[0]).all()
    assert (drawn.factors <= bounds[1]).all()
    levels = torch.tensor([0.1, 0.5, 0.9])
    quantiles = ((drawn.factors - bounds[0]) / span).quantile(levels, 0)
    torch.testing.assert_close(quantiles, levels[:, None].expand(3, 4), rtol=0.0, atol=0.02)
    torch.testing.assert_close(((drawn.sigmas - 0.1) / 1.9).quantile(levels), levels, rtol=0.0, atol=0.02)
    counts = torch.unique(drawn.orders, dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert counts.min() > 850
    assert counts.max() < 1150


def test_samples_of_one_batch_differ() -> None:
    image = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8, generator=seeded(1))
    views = RandomView()(image.expand(16, -1, -1, -1), seeded()).flatten(1)
    distances = torch.cdist(views, views) + 1e9 * torch.eye(16)
    assert distances.min() > 1.0


def test_a_sample_does_not_depend_on_its_neighbours(way: str) -> None:
    images = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8, generator=seeded(1))
    view = RandomView(blur=0.5, solarize=0.2)
    drawn = view.draw(20, 32, 32, seeded())
    together = view.transform(images, drawn)
    alone = [view.transform(images[row : row + 1], drawn.rows(torch.tensor([row]))) for row in range(20)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0.0, atol={"compiled": 0.0, "operations": TIGHT}[way])


def test_an_image_of_no_numbers_spoils_its_own_views_alone() -> None:
    images = torch.rand(5, 3, 40, 30, generator=seeded(1))
    view = RandomView(size=24, blur=0.5)
    drawn = view.draw(10, 40, 30, seeded())
    expected = view.transform(images, drawn)
    images[2] = torch.nan
    found = view.transform(images, drawn)
    others = torch.tensor([0, 1, 3, 4, 5, 6, 8, 9])
    assert torch.equal(found[others], expected[others])


def test_views_are_the_same_for_any_number_of_threads_and_any_memory_format() -> None:
    images = torch.randint(256, (9, 3, 64, 48), dtype=torch.uint8, generator=seeded(1))
    view = RandomView(blur=0.5, solarize=0.2)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4, 40):
            torch.set_num_threads(threads)
            found.append(view(images, seeded()))
    finally:
        torch.set_num_threads(before)
    found.append(view(images.contiguous(memory_format=torch.channels_last), seeded()))
    found.append(view(images.repeat(2, 1, 2, 1)[:9, :, :64], seeded()))
    assert all(torch.equal(other, found[0]) for other in found)


@pytest.mark.parametrize("box", [[0, 0, 33, 8], [-1, 0, 8, 8], [30, 0, 3, 8], [0, 0, 0, 8], [0, 25, 8, 8]])
def test_a_box_that_leaves_the_image_is_refused(box: list[int]) -> None:
    view = RandomView()
    drawn = view.draw(2, 32, 32, seeded())
    drawn.boxes[1] = torch.tensor(box)
    with pytest.raises(ValueError, match=r"must be within the images of 32 x 32 px"):
        view.transform(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), drawn)


def test_parameters_that_lead_beyond_an_array_are_refused() -> None:
    images, view = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), RandomView()
    drawn = view.draw(2, 8, 8, seeded())
    with pytest.raises(ValueError, match="`orders` must be numbers from 0 to 3, got 0 to 4"):
        view.transform(images, drawn._replace(orders=drawn.orders + (drawn.orders == 3)))
    with pytest.raises(ValueError, match=r"one row for each view; they have \[1, 2\]"):
        view.transform(images, drawn._replace(sigmas=drawn.sigmas[:1]))
    small = RandomView(size=1)  # which draws no blur
    with pytest.raises(ValueError, match="needs views of at least 2 x 2 pixels"):
        small.transform(images, small.draw(2, 8, 8, seeded())._replace(blurs=torch.tensor([True, False])))


@pytest.mark.parametrize("view", [RandomView(blur=0.5, solarize=0.2), SimCLRViews(blur=0.5)], ids=["one", "simclr"])
def test_seed_decides_and_global_generator_is_untouched(view: View) -> None:
    images = torch.randint(256, (12, 3, 24, 24), dtype=torch.uint8, generator=seeded(1))

    def run(seed: int) -> Tensor:
        result = view(images, seeded(seed))
        return torch.cat(result) if isinstance(result, list) else result

    before = torch.get_rng_state()
    first = run(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # whatever the global state
    assert torch.equal(run(5), first)
    assert not torch.allclose(run(6), first)


def test_without_a_generator_the_global_one_decides() -> None:
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=seeded(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = RandomView()(images), RandomView()(images)
        torch.manual_seed(0)
        assert torch.equal(RandomView()(images), first)
    assert not torch.allclose(first, second)


def test_draws_do_not_depend_on_what_is_used() -> None:
    generators = seeded(), seeded()
    everything = RandomView(flip=1, jitter_probability=1, grayscale=1, blur=1, solarize=1).draw(
        9, 32, 32, generators[0]
    )
    nothing = RandomView(flip=0, jitter_probability=0, grayscale=0, blur=0, solarize=0).draw(9, 32, 32, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    for name in ("boxes", "factors", "orders", "sigmas"):
        assert torch.equal(getattr(everything, name), getattr(nothing, name))
    assert everything.flips.all()
    assert not nothing.flips.any()


def test_gray_images_stay_gray_and_keep_only_brightness_and_contrast() -> None:
    images = torch.randint(256, (16, 1, 28, 28), dtype=torch.uint8, generator=seeded(1))
    coloured = RandomView(crop_scale=(1, 1), flip=0, jitter=(0, 0, 0.9, 0.5), jitter_probability=1, grayscale=1)
    torch.testing.assert_close(coloured(images, seeded()), CleanView()(images), rtol=0.0, atol=4e-5)
    contrasted = RandomView(crop_scale=(1, 1), flip=0, jitter=(0, 0.9, 0, 0), jitter_probability=1)
    result = contrasted(images, seeded())
    assert result.shape == (16, 1, 28, 28)
    assert (result - CleanView()(images)).abs().mean() > 0.1


def test_grayscale_makes_equal_channels_and_nothing_random_is_the_clean_view() -> None:
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=seeded(1))
    still = RandomView(crop_scale=(1, 1), flip=0, jitter_probability=0, grayscale=0)
    torch.testing.assert_close(still(images, seeded()), CleanView()(images), rtol=0.0, atol=4e-5)
    gray = RandomView(grayscale=1)(images, seeded())
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert torch.equal(gray[:, 0], gray[:, 2])


def test_clean_view_normalises_by_channel_and_draws_nothing() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    result = CleanView(mean=(0.0, 0.2, 0.5), std=(1.0, 0.5, 0.25))(images, seeded())
    torch.testing.assert_close(result.flatten(), torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(CleanView(0.0, 1.0)(images / 255), images / 255)
    random = RandomView(
        crop_scale=(1, 1), flip=0, jitter_probability=0, grayscale=0, mean=(0.0, 0.2, 0.5), std=(1, 0.5, 0.25)
    )
    torch.testing.assert_close(random(images, seeded()), result)


def test_simclr_views_are_independent_draws_of_the_recipe() -> None:
    images = torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8, generator=seeded(1))
    module = SimCLRViews(count=3, size=24, strength=0.5, blur=0.5)
    views = module(images, seeded())
    assert [view.shape for view in views] == [(10, 3, 24, 24)] * 3
    assert module.view.jitter == pytest.approx((0.4, 0.4, 0.4, 0.1))
    drawn = module.view.draw(30, 32, 32, seeded())
    expected = view_by_torchvision(images.repeat(3, 1, 1, 1), drawn, (24, 24), 3)
    torch.testing.assert_close(torch.cat(views), expected, rtol=0.0, atol=4e-5)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (views[one] - views[other]).flatten(1).norm(dim=1).min() > 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=seeded(1))
    view = RandomView(blur=0.5)
    expected = view(images, seeded())
    with torch.autocast("cpu", dtype=dtype):
        assert torch.bmm(expected[:, 0], expected[:, 0]).dtype == dtype  # autocast is on
        result = view(images, seeded())
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_runs_in_inference_mode_and_in_bfloat16_modules() -> None:
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=seeded(1))
    expected = RandomView(mean=(0.4, 0.5, 0.6), blur=0.5)(images, seeded())
    with torch.inference_mode():
        assert torch.equal(RandomView(mean=(0.4, 0.5, 0.6), blur=0.5)(images, seeded()), expected)
    assert torch.equal(RandomView(mean=(0.4, 0.5, 0.6), blur=0.5).to(torch.bfloat16)(images, seeded()), expected)
    assert not RandomView()(images.float().div(255).requires_grad_(), seeded()).requires_grad


def test_empty_batch_and_single_sample() -> None:
    view = RandomView(size=16, blur=1.0, solarize=1.0)
    assert view(torch.empty(0, 3, 32, 32, dtype=torch.uint8), seeded()).shape == (0, 3, 16, 16)
    assert view(torch.zeros(1, 1, 32, 32, dtype=torch.uint8), seeded()).shape == (1, 1, 16, 16)
    assert CleanView()(torch.empty(0, 1, 8, 8, dtype=torch.uint8)).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("view", [RandomView(), SimCLRViews(), CleanView()], ids=["one", "simclr", "clean"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(2, 4, 8, 8),
            r"`images` of shape \(2, 4, 8, 8\) must be .* 1 \(gray\) or 3 \(RGB\).*drop an alpha",
        ),
        (torch.zeros(2, 8, 8), r"`images` of shape \(2, 8, 8\) must be \(N, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), r"`images` of type torch.int64 must be uint8, or float"),
    ],
)
def test_wrong_images_are_refused(view: View, images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view(images)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomView(size=0), "`size=0` must be at least 1; give null for the size of the images"),
        (lambda: RandomView(crop_scale=(0.5, 0.2)), r"`crop_scale=\(0.5, 0.2\)` must be two numbers, .*smaller first"),
        (lambda: RandomView(crop_scale=(0.0, 1.0)), r"`crop_scale=\(0.0, 1.0\)` must be two numbers, each above 0"),
        (lambda: RandomView(crop_scale=0.4), r"`crop_scale=0.4` must be two numbers, each above 0"),  # type: ignore[arg-type]
        (lambda: RandomView(flip=1.5), "`flip=1.5` must be from 0 to 1"),
        (lambda: RandomView(jitter=(0.4, 0.4, 0.4, 0.6)), "`hue=0.6` must be from 0 to 0.5; hue is the last"),
        (lambda: RandomView(jitter=(-0.4, 0.4, 0.4, 0.1)), r"`jitter=\(-0.4.*must be 4 numbers, each at least 0"),
        (lambda: RandomView(jitter_probability=-0.1), "`jitter_probability=-0.1` must be from 0 to 1"),
        (lambda: RandomView(grayscale=math.nan), "`grayscale=nan` must be a finite number from 0 to 1"),
        (lambda: RandomView(blur=2), "`blur=2` must be from 0 to 1"),
        (lambda: RandomView(solarize=-1), "`solarize=-1` must be from 0 to 1"),
        (lambda: SimCLRViews(count=0), "`count=0` must be at least 1"),
        (lambda: SimCLRViews(strength=3), "`strength=3` must be from 0 to 2.5"),
        (lambda: CleanView(std=0.0), "`std=0.0` must be one finite positive number"),
        (lambda: CleanView(mean=[0.1, 0.2]), r"`mean=\[0.1, 0.2\]` must be one finite number, or one for each"),
    ],
)
def test_wrong_arguments_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_other_mistakes_are_explained() -> None:
    gray = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"`mean=.*` has 3 numbers for images of 1 channels; give one number"):
        CleanView(mean=(0.4, 0.5, 0.6))(gray)
    with pytest.raises(ValueError, match=r"`blur=0\.5` needs views of at least 2 x 2 pixels, got 1 x 1"):
        RandomView(size=1, blur=0.5)(gray)
    with pytest.raises(ValueError, match="`generator` is on meta; a CPU one is required"):
        RandomView()(gray, _ElsewhereGenerator())


class _ElsewhereGenerator:
    """Stands in for a GPU's generator on a machine that has none."""

    device = torch.device("meta")
