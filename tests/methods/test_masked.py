"""Masked images and sounds, holes and colours: formulas by hand, and that nothing else enters the loss."""

from typing import Any

import lightning as L
import pytest
import torch
from lightly.models.modules import MAEDecoder, MaskedVisionTransformerTorchvision
from lightly.models.utils import patchify, set_at_index
from support import ColourDigits
from torch import Tensor

from ssl_lightning.backbones import ConvNet, ResNet, SpectrogramTransformer, Timm, Torchvision, ViT
from ssl_lightning.backbones.patches import Patches, draw_hidden
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.evaluation import OnlineLinearProbe
from ssl_lightning.methods import MAE, Colorization, Inpainting, SimMIM
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.image.colour import colour_bins, lab_to_rgb, rgb_to_lab, soft_bins
from ssl_lightning.transforms.image.masks import block_masks, centre_masks, patch_masks
from ssl_lightning.transforms.padded import Padded

BATCH = Batch(torch.zeros(0), torch.zeros(5), torch.zeros(5))


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (MAE, SimMIM, Inpainting, Colorization):
        monkeypatch.setattr(kind, "log", lambda *args, **kwargs: None)
        monkeypatch.setattr(kind, "log_dict", lambda *args, **kwargs: None)


def vit(**options: Any) -> ViT:
    return ViT(1, 8, patch_size=2, dim=16, depth=2, heads=2, **options)


def patches_of(image: Tensor, side: int) -> list[Tensor]:
    """Cut one image `(1, S, S)` into patches, row by row, flattened."""
    rows = range(0, image.shape[-1], side)
    return [image[0, top : top + side, left : left + side].flatten() for top in rows for left in rows]


def test_masks_are_drawn_for_each_sample_and_all_places_alike() -> None:
    masks = patch_masks(4000, 16, 0.75, torch.Generator().manual_seed(0))
    assert (masks.sum(dim=1) == 12).all()
    torch.testing.assert_close(masks.float().mean(dim=0), torch.full((16,), 0.75), atol=0.03, rtol=0)
    assert len(torch.unique(masks, dim=0)) > 1000  # of 1820
    holes = block_masks(500, 16, 0.3, torch.Generator().manual_seed(0))
    assert len(torch.unique(holes, dim=0)) > 490
    assert 0.15 < float(holes.float().mean()) <= 0.3
    assert holes.any(dim=0).all()
    centre = centre_masks(2, 8, 0.5)
    assert centre[0, 0, 2:6, 2:6].all()
    assert int(centre.sum()) == 32


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_mae_loss_patch_by_patch(norm_pixels: bool) -> None:
    model = MAE(vit(), norm_pixels=norm_pixels, decoder_dim=8, decoder_heads=2).eval()
    images = torch.randn(5, 1, 8, 8)
    masks = patch_masks(5, 16, 0.75, model.local_generator("masks"))
    predicted, _ = model.reconstruct(images, masks)
    total, count = 0.0, 0
    for image, mask, guess in zip(images, masks, predicted, strict=True):
        for place, patch in enumerate(patches_of(image, 2)):
            if mask[place]:
                if norm_pixels:
                    patch = (patch - patch.mean()) / (patch.var(unbiased=False) + 1e-6).sqrt()
                total, count = total + float((guess[place] - patch).pow(2).sum()), count + 4
    assert count == 5 * 12 * 4
    assert float(model.compute_loss([images], BATCH)["loss"]) == pytest.approx(total / count, rel=1e-5)


def test_mae_encoder_is_the_transformer_on_the_seen_patches() -> None:
    """In plain torch: project, add positions, leave the hidden ones out, run the blocks."""
    model = MAE(vit(), decoder_dim=8, decoder_heads=2).eval()
    images = torch.randn(3, 1, 8, 8)
    masks = patch_masks(3, 16, 0.5, torch.Generator().manual_seed(1))
    net = model.backbone.net
    tokens = net.conv_proj(images).flatten(2).transpose(1, 2)
    place = net.encoder.pos_embedding
    for row, mask in enumerate(masks):
        seen = torch.cat([(net.class_token + place[:, :1])[0], (tokens[row] + place[0, 1:])[~mask]])
        coded = net.encoder.ln(net.encoder.layers(seen[None]))
        _, encoded = model.reconstruct(images, masks)
        torch.testing.assert_close(encoded[row], coded[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_mae_of_images_is_lightlys_formula(norm_pixels: bool) -> None:
    """Masks, loss and gradients as by lightly's own modules, which know of images alone."""
    model = MAE(vit(), norm_pixels=norm_pixels, decoder_dim=8, decoder_heads=2)
    images = torch.randn(5, 1, 8, 8)
    masks = patch_masks(5, 16, 0.75, model.local_generator("masks"))
    net = model.backbone.net
    theirs = MAEDecoder(17, 2, 2, 16, 8, 32, 4)
    theirs.load_state_dict(model.decoder.state_dict(), strict=False)
    encoder = MaskedVisionTransformerTorchvision(net, None, "skip", pos_embed_initialization="skip")
    seen = torch.nn.functional.pad(~masks, (1, 0), value=True)
    keep = seen.nonzero()[:, 1].view(5, -1)
    tokens = model.mask_token.expand(5, 17, -1)
    tokens = set_at_index(tokens, keep, theirs.embed(encoder.encode(images, idx_keep=keep)))
    predicted = theirs.predict(theirs.decode(tokens))[:, 1:]
    wanted = patchify(images, 2)
    if norm_pixels:
        wanted = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    expected = (predicted - wanted)[masks].pow(2).mean()
    loss = model.compute_loss([images], BATCH)["loss"]
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    pairs = zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def spectrogram(**options: Any) -> SpectrogramTransformer:
    return SpectrogramTransformer(mels=8, patch_frames=4, patch_mels=4, dim=16, depth=2, heads=2, **options)


def sounds(filled: int = 0) -> Padded:
    """Of 40, 5, 1 and 21 frames: 20, 4, 2 and 12 patches."""
    values = torch.randn(4, 40, 8, generator=torch.Generator().manual_seed(0))
    return Padded(torch.cat([values, torch.full((4, filled, 8), 7.0)], dim=1), torch.tensor([40, 5, 1, 21]))


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_mae_of_spectrograms_patch_by_patch(norm_pixels: bool) -> None:
    """Each sound by itself, of what is seen alone, by plain loops; a share of its own patches is hidden."""
    model = MAE(spectrogram(), norm_pixels=norm_pixels, decoder_dim=8, decoder_heads=2).eval()
    net, view = model.backbone, sounds()
    hidden = draw_hidden(net.cut(view), 0.75, model.local_generator("masks"))
    assert hidden.sum(dim=1).tolist() == [15, 3, 1, 9]
    errors = []
    for frames, length, mask in zip(*view, hidden, strict=True):
        columns = -(-int(length) // 4)
        whole = torch.zeros(4 * columns, 8)
        whole[:length] = frames[:length]
        patches = torch.stack(
            [whole[4 * c : 4 * c + 4, 4 * r : 4 * r + 4].flatten() for c in range(columns) for r in range(2)]
        )
        mask = mask[: len(patches)]
        tokens = (net.project(patches) + net.positions(len(patches), 16))[~mask][None]
        for block in net.blocks:
            tokens = block(tokens)
        decoded = model.mask_token[0].repeat(len(patches), 1)
        decoded[~mask] = model.decoder.embed(net.norm(tokens)[0])
        decoded = (decoded + net.positions(len(patches), 8))[None]
        predicted = model.decoder.predict(model.decoder.ln(model.decoder.layers(decoded)))[0]
        if norm_pixels:
            patches = (patches - patches.mean(1, keepdim=True)) / (
                patches.var(1, keepdim=True, correction=0) + 1e-6
            ).sqrt()
        errors.append((predicted - patches)[mask].pow(2))
    loss = model.compute_loss([view], BATCH)["loss"]
    torch.testing.assert_close(loss, torch.cat(errors).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [MAE, SimMIM])
def test_padding_of_spectrograms_reaches_neither_loss_nor_gradients(kind: Any) -> None:
    model = kind(spectrogram())
    found = []
    for filled in (0, 50):
        model.zero_grad()
        loss = model.compute_loss([sounds(filled)], BATCH)["loss"]
        loss.backward()
        found.append((loss.detach(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    one_patch = MAE(SpectrogramTransformer(mels=4, patch_mels=4, dim=16, depth=1, heads=2))
    short = Padded(torch.randn(2, 3, 4), torch.tensor([3, 1]))
    assert float(one_patch.compute_loss([short], BATCH)["loss"]) == 0  # nothing can be hidden


def test_masks_of_images_are_those_of_before() -> None:
    for patches, ratio in ((16, 0.75), (64, 0.6), (49, 0.5)):
        mine = draw_hidden(Patches(torch.zeros(9, patches, 1), None), ratio, torch.Generator().manual_seed(3))
        assert torch.equal(mine, patch_masks(9, patches, ratio, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("kind", [MAE, SimMIM])
def test_hidden_pixels_do_not_reach_the_encoder_and_seen_ones_not_the_loss(kind: Any) -> None:
    model = kind(vit()).eval()
    images = torch.randn(4, 1, 8, 8)
    masks = patch_masks(4, 16, model.mask_ratio, model.local_generator("masks"))
    pixels = masks.view(4, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    changed = torch.where(pixels, torch.randn(4, 1, 8, 8), images)
    with torch.no_grad():
        for one, other in zip(model.reconstruct(images, masks), model.reconstruct(changed, masks), strict=True):
            torch.testing.assert_close(one, other)
    # with what is predicted held fixed, the loss moves with hidden pixels and not with seen ones
    fixed = torch.randn(4, 16, 4)
    model.reconstruct = lambda *_: (fixed, torch.zeros(4, 16, 16))
    pixel = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.compute_loss([pixel], BATCH)["loss"], pixel)
    assert (gradient[~pixels] == 0).all()
    assert (gradient[pixels] != 0).any()


@pytest.mark.parametrize("kind", [MAE, SimMIM])
def test_a_probe_learns_from_the_whole_image(kind: Any, trainer: Any) -> None:
    """From what it is judged on, not from the masked one."""
    views: list[Tensor] = []
    seen: list[Tensor] = []

    class Watch(kind):  # type: ignore[misc]
        def compute_loss(self, given: Any, batch: Batch) -> Any:
            views.append(given[0])
            return super().compute_loss(given, batch)

    class Probe(OnlineLinearProbe):
        def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            super().on_train_start(trainer, module)
            self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]

    model = Watch(vit(), optimizer=OptimizerSpec(lr=0.0))
    trainer(max_steps=1, callbacks=[Probe()], limit_val_batches=0).fit(model, datamodule=Digits(batch_size=64))
    assert model.training
    with torch.no_grad():
        torch.testing.assert_close(seen, [model.eval().embed(views[0])])


def test_simmim_loss_patch_by_patch() -> None:
    model = SimMIM(vit(pool="token")).eval()
    images = torch.randn(5, 1, 8, 8)
    masks = patch_masks(5, 16, 0.6, model.local_generator("masks"))
    predicted, _ = model.reconstruct(images, masks)
    errors = [
        (guess[place] - patch).abs()
        for image, mask, guess in zip(images, masks, predicted, strict=True)
        for place, patch in enumerate(patches_of(image, 2))
        if mask[place]
    ]
    torch.testing.assert_close(model.compute_loss([images], BATCH)["loss"], torch.cat(errors).mean())


@pytest.mark.parametrize("region", ["centre", "random"])
def test_inpainting_sees_nothing_of_the_hole_and_is_judged_there_alone(region: Any) -> None:
    model = Inpainting(ConvNet(width=4), image_size=8, region=region).eval()
    images = torch.randn(5, 1, 8, 8)
    masks = model.masks(images, model.local_generator("masks"))
    painted = model.decoder(model.bottleneck(model.backbone(images * ~masks)))
    expected = ((painted - images) ** 2)[masks].mean()
    torch.testing.assert_close(model.compute_loss([images], BATCH)["loss"], expected)
    pixel = images.clone().requires_grad_()
    seen = model.backbone(pixel.masked_fill(masks, 0.0)).sum()
    (gradient,) = torch.autograd.grad(seen, pixel)
    assert (gradient[masks] == 0).all()


def test_painter_and_discriminator_learn_from_their_own_losses() -> None:
    """Equal to two losses with two backward passes."""
    torch.manual_seed(0)
    model = Inpainting(ConvNet(width=4), image_size=8, adversarial=0.3, width=4).eval()
    images = torch.randn(5, 1, 8, 8)
    masks = model.masks(images, torch.Generator())
    painted = model.decoder(model.bottleneck(model.backbone(images * ~masks)))
    fake = torch.where(masks, painted, images)
    told: Any = model.discriminator
    log = torch.nn.functional.logsigmoid
    telling = -log(told(images)).mean() - log(-told(fake.detach())).mean()
    painting = 0.7 * ((painted - images) ** 2)[masks].mean() - 0.3 * log(told(fake)).mean()
    loss = model.compute_loss([images], BATCH)["loss"]
    torch.testing.assert_close(loss, telling + painting)
    for part, own in ((told, telling), (model.decoder, painting), (model.backbone, painting)):
        weights = list(part.parameters())
        got = torch.autograd.grad(loss, weights, retain_graph=True)
        for one, other in zip(got, torch.autograd.grad(own, weights, retain_graph=True), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_lab_of_the_primaries_and_back() -> None:
    """Published figures for sRGB under D65 (brucelindbloom.com, CIE colour calculator)."""
    red, green, blue = rgb_to_lab(torch.eye(3).view(3, 3, 1, 1)).view(3, 3)
    torch.testing.assert_close(red, torch.tensor([53.2408, 80.0925, 67.2032]), atol=1e-3, rtol=0)
    torch.testing.assert_close(green, torch.tensor([87.7347, -86.1827, 83.1793]), atol=1e-3, rtol=0)
    torch.testing.assert_close(blue, torch.tensor([32.2970, 79.1875, -107.8602]), atol=1e-3, rtol=0)
    pixels = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(pixels)), pixels, atol=1e-5, rtol=0)


def test_every_colour_is_near_a_bin_and_spread_over_five() -> None:
    bins = colour_bins()
    ab = rgb_to_lab(torch.rand(50, 3, 16, 16))[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2)
    nearest, share = soft_bins(ab, bins)
    assert float((ab - bins[nearest[:, 0]]).norm(dim=1).max()) < 10 / 2**0.5 + 0.5
    torch.testing.assert_close(share.sum(dim=1), torch.ones(len(ab)))
    assert (share.diff(dim=1) <= 1e-7).all()


def test_colorization_loss_place_by_place() -> None:
    torch.manual_seed(0)
    model = Colorization(ConvNet(3, width=4), image_size=8, bin_size=20, width=4).eval()
    model.counts += torch.rand(len(model.bins)).double() * 100
    images = torch.randn(3, 3, 8, 8)
    pixels = (images * torch.tensor(model.clean.std) + torch.tensor(model.clean.mean)).clamp(0, 1)  # type: ignore[union-attr]
    lab = rgb_to_lab(pixels)
    gray = lab_to_rgb(torch.cat([lab[:, :1], torch.zeros(3, 2, 8, 8)], dim=1))
    seen = (gray - torch.tensor(model.clean.mean)) / torch.tensor(model.clean.std)  # type: ignore[union-attr]
    log_p = model.decoder(model.backbone.blocks(seen)).log_softmax(dim=1)
    share = model.counts + 1
    near = torch.tensor([[float((-(a - b).pow(2).sum() / 50).exp()) for a in model.bins] for b in model.bins]).double()
    smooth = torch.zeros(len(model.bins)).double()
    for place, part in enumerate(share / share.sum()):
        smooth += part * near[place] / near[place].sum()
    weight = 1 / (0.5 * smooth + 0.5 / len(model.bins))
    weight = weight / (smooth * weight).sum()
    total = 0.0
    for image in range(3):
        for top in range(2):
            for left in range(2):
                ab = lab[image, 1:, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4].mean(dim=(1, 2))
                distance = (model.bins - ab).norm(dim=1)
                nearest = distance.argsort()[:5]
                z = (-distance[nearest].pow(2) / 50).exp()
                z = z / z.sum()
                entropy = -(z * log_p[image, nearest, top, left]).sum()
                total += float(weight[nearest[0]] * entropy)
    assert float(model.compute_loss([images], BATCH)["loss"]) == pytest.approx(total / 12, rel=1e-4)


@pytest.mark.long
def test_colours_are_learnt_where_they_can_be(trainer: Any) -> None:
    """The class decides the colour here: predicted colours, at their resolution, are far nearer than none."""
    data = ColourDigits(batch_size=64)
    for predict in ("bins", "regression"):
        torch.manual_seed(0)
        model = Colorization(
            ConvNet(3, width=16), image_size=8, predict=predict, width=16, optimizer=OptimizerSpec("adamw", lr=1e-2)
        )  # type: ignore[arg-type]
        trainer(max_epochs=12).fit(model, datamodule=data)
        images = model.clean(data.train_samples.__getitems__(data.val_indices.tolist()).input)  # type: ignore[union-attr]
        with torch.no_grad():
            gray, lab = model.eval().split(images)
            colours = model.colours(model.decoder(model.backbone.with_map(gray)[1]))
        ab = torch.nn.functional.adaptive_avg_pool2d(lab[:, 1:], model.side)
        assert float((colours - ab).pow(2).mean()) < 0.4 * float(ab.pow(2).mean()), predict


@pytest.mark.long
@pytest.mark.parametrize(("kind", "epochs"), [(MAE, 40), (Inpainting, 25)])
def test_hidden_parts_are_nearer_than_the_mean_image(kind: Any, epochs: int, trainer: Any) -> None:
    data = Digits(batch_size=64)
    backbone = ConvNet(width=16) if kind is Inpainting else ViT(1, 8, patch_size=2, dim=32, depth=1, heads=4)
    options = {"image_size": 8} if kind is Inpainting else {"mask_ratio": 0.25, "norm_pixels": False}
    as_is = SimCLRViews(count=1, crop_scale=(1.0, 1.0), flip=0.0, strength=0.0, grayscale=0.0)
    torch.manual_seed(0)
    model = kind(backbone, as_is, optimizer=OptimizerSpec("adamw", lr=5e-3, warmup=0.1), **options)
    trainer(max_epochs=epochs).fit(model, datamodule=data)
    images = model.clean(data.train_samples.__getitems__(data.val_indices.tolist()).input)  # type: ignore[union-attr]
    others = model.clean(data.train_samples.__getitems__(data.train_indices.tolist()).input)  # type: ignore[union-attr]
    with torch.no_grad():
        found = model.eval().pictures(images, torch.Generator().manual_seed(0))
    hidden = found["seen"] != images
    rebuilt = found["painted in" if kind is Inpainting else "rebuilt"]
    error = (rebuilt - images)[hidden].pow(2).mean()
    assert error < 0.7 * (others.mean(dim=0) - images)[hidden].pow(2).mean()


def test_feature_maps_of_all_backbones() -> None:
    images = torch.randn(2, 3, 32, 32)
    nets = [ConvNet(3, 4), ResNet(), Torchvision("mobilenet_v3_small", image_size=32)]
    for net in nets:
        embedding, found = net.eval().with_map(images)
        torch.testing.assert_close(embedding, net(images))
        assert found.ndim == 4
    pytest.importorskip("timm")
    embedding, found = Timm("resnet10t", image_size=32).eval().with_map(images)
    assert found.ndim == 4


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`MAE` hides patches and needs a vision transformer, not `ConvNet`"):
        MAE(ConvNet())
    with pytest.raises(ValueError, match="`norm_pixels=true` leaves nothing to predict of patches of one pixel"):
        MAE(ViT(1, 8, patch_size=1, dim=16, depth=1, heads=2))
    with pytest.raises(ValueError, match="`decoder_heads=0` must be at least 1"):
        MAE(vit(), decoder_heads=0)
    with pytest.raises(ValueError, match=r"`share=0\.95` hides all of an image of 8 px"):
        Inpainting(ConvNet(), image_size=8, share=0.95)
    with pytest.raises(ValueError, match=r"`mask_ratio=0.99` hides 16 of 16 patches"):
        SimMIM(vit(), mask_ratio=0.99)
    with pytest.raises(ValueError, match=r"`mask_ratio=1.0` must be above 0 and below 1"):
        SimMIM(vit(), mask_ratio=1.0)
    with pytest.raises(ValueError, match="needs colour images: `channels=1` must be 3"):
        Colorization(ConvNet(1))
    with pytest.raises(ValueError, match="has no feature map"):
        Colorization(ViT(3, 32))
    with pytest.raises(ValueError, match="`share=1` must be above 0 and below 1"):
        Inpainting(ConvNet(), share=1)
    with pytest.raises(ValueError, match="`patch_size=3` must divide `image_size=8`"):
        ViT(1, 8, patch_size=3)
    with pytest.raises(ValueError, match=r"the backbone takes images of \(1, 8, 8\), but views are \(1, 28, 28\)"):
        MAE(vit()).compute_loss([torch.zeros(2, 1, 28, 28)], BATCH)
