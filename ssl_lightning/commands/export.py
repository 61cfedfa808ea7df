"""The command `export`: a checkpoint's encoder for use without this package."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_lightning.backbones import AnyModule, Backbone, ResNet, Timm, Torchvision, describe
from ssl_lightning.backbones.base import first_vector
from ssl_lightning.checkpoint import Checkpoint, checkpoint_of, describe_briefly, run_folder
from ssl_lightning.commands.startup import add_trust
from ssl_lightning.engine.naming import class_path, meant
from ssl_lightning.transforms.base import describe_clean

FORMATS = ("safetensors", "pt2", "onnx")
TOLERANCE = 1e-4


class Network(nn.Module):
    """What is exported: the backbone, and a classifier's head where the checkpoint has one.

    Args:
        backbone: With the checkpoint's weights.
        head: Or null.
    """

    def __init__(self, backbone: Backbone, head: nn.Linear | None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Turn clean input, as images `(N, C, H, W)`, into embeddings `(N, dim)`, or into logits with a head."""
        rows: Tensor = self.backbone(images)
        return rows if self.head is None else self.head(rows)


def open_checkpoint(path: str, trust: bool = False) -> tuple[Network, dict[str, Any]]:
    """Open a method's or a classifier's checkpoint.

    Args:
        path: Of the file.
        trust: Build classes that it names and that are neither ours nor of a plug-in.

    Returns:
        The network in evaluation mode, and what who uses it must know: the method, the clean transform, the facts of
        the data it was trained on with the names of the classes.

    Raises:
        ValueError: If it is no checkpoint of ours.
    """
    opened = Checkpoint.open(path, trust=trust)
    about = {"method": opened.method, "clean": describe_clean(opened.clean), "facts": opened.facts}
    return Network(opened.backbone, opened.head).eval(), about


def head_name(backbone: Backbone) -> str:
    """Return what the library that the network comes from calls its classifier."""
    if isinstance(backbone, ResNet):
        return "fc"
    if isinstance(backbone, Torchvision):
        import torchvision

        net = torchvision.models.get_model(backbone.init_args["name"], weights=None)
        return str([name for name, layer in net.named_modules() if isinstance(layer, nn.Linear)][-1])
    if isinstance(backbone, Timm):
        return str(backbone.net.default_cfg.get("classifier") or "head")
    return "head" if not hasattr(_source(backbone), "head") else "classifier_head"  # a stranger may have one of its own


def _source(backbone: Backbone) -> nn.Module:
    """Return the network as those know it who have never heard of this package."""
    if isinstance(backbone, ResNet | Torchvision | Timm):
        net: nn.Module = backbone.net
        return net
    return backbone.module if isinstance(backbone, AnyModule) else backbone


def state_dict_of(network: Network) -> dict[str, Tensor]:
    """Return the weights by the names of the library that the network comes from.

    Args:
        network: As `open_checkpoint` returns it.

    Returns:
        A plain dictionary of contiguous tensors.
    """
    backbone = network.backbone
    weights = dict(_source(backbone).state_dict())
    if network.head is not None:
        weights |= {f"{head_name(backbone)}.{key}": value for key, value in network.head.state_dict().items()}
    return {key: value.contiguous().clone() for key, value in weights.items()}


def loading_lines(network: Network, file: str) -> str:
    """Return the Python that loads the weights, strictly, without this package where another library has the network.

    Args:
        network: As `open_checkpoint` returns it.
        file: Path of the safetensors file.
    """
    backbone, arguments = network.backbone, network.backbone.init_args
    classes = network.head.out_features if network.head is not None else None
    lines = ["from safetensors.torch import load_file"]
    if isinstance(backbone, Timm):
        size = f", img_size={arguments['image_size']}" if "img_size" in backbone.net.__init__.__code__.co_varnames and (
            arguments["image_size"]
        ) else ""  # fmt: skip
        lines += ["import timm", f"net = timm.create_model({arguments['name']!r}, in_chans={arguments['channels']}, "
                  f"num_classes={classes or 0}{size})"]  # fmt: skip
    elif isinstance(backbone, ResNet | Torchvision):
        name = head_name(backbone)
        options = f", image_size={arguments['image_size']}" if arguments["name"].startswith("vit_") else ""
        lines += ["import torch", "import torchvision"]
        lines += [f"net = torchvision.models.get_model({arguments['name']!r}, num_classes={classes or 1}{options})"]
        if classes is None:
            lines += [f"net.set_submodule({name!r}, torch.nn.Identity())"]
        lines += _changed_layers(backbone)
    else:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        module, _, name = class_path(type(_source(backbone))).rpartition(".")
        lines += [f"from {module} import {name}", f"net = {name}({given})"]
        if classes is not None:
            layer = f"torch.nn.Linear({backbone.feature_dim}, {classes})"
            lines += ["import torch", f"net.add_module({head_name(backbone)!r}, {layer})"]
    lines += [f"net.load_state_dict(load_file({file!r}), strict=True)", "net.eval()"]
    if classes is not None and _has_own_head(backbone):
        lines += [f"# net(x) gives the embedding, and net.{head_name(backbone)}(net(x)) the logits"]
    return "\n".join(lines)


def _has_own_head(backbone: Backbone) -> bool:
    """Tell whether a classifier's head stays beside the network, which knows no classes of its own."""
    return not isinstance(backbone, ResNet | Torchvision | Timm)


def _changed_layers(backbone: ResNet | Torchvision) -> list[str]:
    """Return the lines for layers that differ from the library's: another stem, another number of channels."""
    import torchvision

    plain = torchvision.models.get_model(backbone.init_args["name"], weights=None)
    path, first = next((path, layer) for path, layer in plain.named_modules() if isinstance(layer, nn.Conv2d))
    mine = backbone.net.get_submodule(path)
    lines = []
    if (mine.weight.shape, mine.stride) != (first.weight.shape, first.stride):
        lines.append(
            f"net.set_submodule({path!r}, torch.nn.Conv2d({mine.in_channels}, {mine.out_channels}, {mine.kernel_size}, "
            f"stride={mine.stride}, padding={mine.padding}, bias={mine.bias is not None}))"
        )
    if isinstance(backbone, ResNet) and isinstance(backbone.net.maxpool, nn.Identity):
        lines.append("net.maxpool = torch.nn.Identity()")
    return lines


def example(backbone: Backbone, facts: dict[str, Any], count: int) -> Tensor:
    """Return random input that a backbone takes: `(count, ...)`.

    Args:
        backbone: The encoder.
        facts: Of the data it was trained on.
        count: Number of samples.

    Raises:
        ValueError: If it takes no single tensor of floats.
    """
    known = {**facts, **backbone.init_args}
    generator = torch.Generator().manual_seed(0)
    if "channels" in known:
        size = known.get("image_size") or (224 if isinstance(backbone, Timm) else 32)
        return torch.randn(count, int(known["channels"]), int(size), int(size), generator=generator)
    if "feature_dim" in known and not known.get("cardinalities"):
        return torch.randn(count, int(known["feature_dim"]), generator=generator)
    sample = getattr(backbone, "example", None)
    if isinstance(sample, Tensor) and sample.is_floating_point():
        return torch.randn(count, *sample.shape[1:], generator=generator)
    raise ValueError(
        f"`checkpoint`: the input of `{type(_source(backbone)).__name__}` is not known to be one tensor of floats, as "
        "the formats of export want it; load the checkpoint in Python (`Checkpoint.open`), and export what you need."
    )


def export(network: Network, about: dict[str, Any], formats: list[str], folder: Path) -> dict[str, float]:
    """Write the files, and read them again.

    Args:
        network: As `open_checkpoint` returns it.
        about: Likewise; goes into the safetensors file's metadata.
        formats: Of `FORMATS`.
        folder: For the files; made.

    Returns:
        For each file, by how much the outputs of what was read again differ at most.

    Raises:
        ValueError: If a file's outputs differ by more than `TOLERANCE`, or ONNX is asked for and not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = example(network.backbone, about["facts"], 3)
    with torch.inference_mode():
        wanted = network(images)
    differences: dict[str, float] = {}
    for name in formats:
        path = folder / f"backbone.{name}"
        with torch.no_grad():
            got = _WRITERS[name](network, about, images, path)
        differences[str(path)] = float((got - wanted).abs().max())
        if not differences[str(path)] <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise ValueError(
                f"{path}: outputs differ by {differences[str(path)]:.2g} from the checkpoint's; do not use it."
            )
    return differences


def _write_safetensors(network: Network, about: dict[str, Any], images: Tensor, path: Path) -> Tensor:
    metadata = {"format": "pt", "backbone": json.dumps(describe(network.backbone)), "about": json.dumps(about)}
    scratch = path.with_suffix(".part")
    save_file(state_dict_of(network), scratch, metadata=metadata)  # which makes files that nobody else can read
    scratch.chmod(0o666 & ~_umask())
    scratch.replace(path)
    scope: dict[str, Any] = {}
    exec(loading_lines(network, str(path)), scope)  # the very lines that we tell the user
    net: nn.Module = scope["net"]
    rows: Tensor = first_vector(net(images))
    if network.head is None or not _has_own_head(network.backbone):
        return rows
    logits: Tensor = getattr(net, head_name(network.backbone))(rows)
    return logits


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_pt2(network: Network, about: dict[str, Any], images: Tensor, path: Path) -> Tensor:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    rows: Tensor = torch.export.load(path).module()(images)
    return rows


def _write_onnx(network: Network, about: dict[str, Any], images: Tensor, path: Path) -> Tensor:
    try:
        import onnx
        import onnx.reference
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError('`--to onnx` needs onnx: `pip install "ssl-lightning[export]"`.') from error
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        network, (images,), dynamo=True, dynamic_shapes=({0: batch},), input_names=["images"],
        output_names=["output"], verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(path)
    onnx.checker.check_model(path)
    small = images[:1]
    with torch.inference_mode():
        wanted = network(images)
        (got,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"images": small.numpy()})
    return torch.cat([torch.from_numpy(got), wanted[1:]])  # onnx's own evaluator is slow: one image is enough


_WRITERS = {"safetensors": _write_safetensors, "pt2": _write_pt2, "onnx": _write_onnx}


def main(arguments: list[str]) -> int:
    """Export, and say how to load.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, or a checkpoint that cannot be exported.
    """
    parser = argparse.ArgumentParser(
        "ssl-lightning export", allow_abbrev=False, description="Write a checkpoint's encoder for use elsewhere."
    )
    parser.add_argument("checkpoint", help="a file that `ssl-lightning fit` or `active` saved, or the run's folder")
    parser.add_argument(
        "--to", default="safetensors,pt2", help="formats: any of " + ", ".join(FORMATS) + ", with commas"
    )
    parser.add_argument("--folder", default=None, help="folder for the files; default: `export` in the run's")
    add_trust(parser)
    options = parser.parse_args(arguments)
    formats = [name.strip() for name in options.to.split(",") if name.strip()]
    for name in formats or [""]:
        if name not in FORMATS:
            raise ValueError(
                f"`to`: there is no format `{name}`{meant(name, FORMATS)}; there are {', '.join(FORMATS)}."
            )
    path = Path(checkpoint_of(options.checkpoint))
    network, about = open_checkpoint(str(path), options.trust)
    folder = Path(options.folder) if options.folder else run_folder(path) / "export"
    note = folder / "checkpoint.txt"
    if note.exists() and note.read_text() != str(path.resolve()):
        raise ValueError(
            f"`folder={folder}` holds the export of {note.read_text()}; give another folder, or delete it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(str(path.resolve()))
    print(f"{describe_briefly(describe(network.backbone))}, {'with' if network.head is not None else 'without'} a head")
    for file, difference in export(network, about, formats, folder).items():
        print(f"wrote {file}; read again, outputs differ by at most {difference:.1e}")
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {folder / 'about.json'}: clean transform, facts of the data, names of the classes")
    _tell_input(about)
    if "safetensors" in formats:
        print(f"\n{loading_lines(network, str(folder / 'backbone.safetensors'))}")
    return 0


def _tell_input(about: dict[str, Any]) -> None:
    """Say how input is made, and what comes out."""
    clean, facts = about["clean"], about["facts"]
    if clean is None:
        print("the checkpoint does not say how input was normalised: a stranger's transform keeps no arguments")
    elif clean["class_path"].endswith(".CleanView"):
        size = facts.get("image_size")
        pixels = f" of {size} x {size} px" if size else ""
        print(f"input: images{pixels}, RGB or gray, in [0, 1], then (x - mean) / std with {clean['init_args']}")
    else:
        print(f"input: as {clean['class_path'].rpartition('.')[2]}({clean['init_args'] or ''}) makes it")
    if names := facts.get("class_names"):
        print(f"classes, in the order of the outputs: {', '.join(names)}")
