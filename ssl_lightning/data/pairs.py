"""Images with captions: a table of paths and texts, cut into tokens by a tokenizer of their own."""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_lightning.data.decoding import decode, fingerprint, thumbnail
from ssl_lightning.data.images import LazyImages
from ssl_lightning.data.listing import printable
from ssl_lightning.data.pair_table import PairRow, read_pairs, without_caption
from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.data.samples import Batch, Part, Samples, Shown, Split, content_of, number_copies
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.data.tokenized import TokenizedData
from ssl_lightning.data.tokenizing import Tokenizer
from ssl_lightning.engine.processes import first_process
from ssl_lightning.engine.ranges import between, one_of, whole
from ssl_lightning.transforms.pairs import CleanPair, Pair, pair_views

LONGEST = 128  # tokens of a caption; what is behind is cut
MEMORY = 2 * 2**30  # bytes of decoded pictures that are kept; beyond, they are decoded when asked for


class PairSamples(RaggedSamples):
    """Pictures with texts; a picture that has several texts is kept once.

    Args:
        images: `(M, C, S, S)`, uint8, or a data set that decodes them when asked for.
        places: Which of them belongs to each text, `(N,)`.
        tokens: Of each text.
        targets: Classes `(N,)`; -1 where unknown.
        keys: Of the pairs, unique.
    """

    def __init__(
        self, images: Any, places: Tensor, tokens: Sequence[list[int]], targets: Tensor, keys: Sequence[str]
    ) -> None:
        values = torch.tensor([number for row in tokens for number in row], dtype=torch.int32)
        super().__init__(values, torch.tensor([len(row) for row in tokens], dtype=torch.int64), targets, keys)
        self.images, self.places = images, places

    def __getitem__(self, index: int) -> Batch:
        found, place = super().__getitem__(index), int(self.places[index])
        image = self.images[place] if isinstance(self.images, Tensor) else self.images[place].input
        return found._replace(input=Pair(image, found.input))

    def __getitems__(self, indices: list[int]) -> Batch:
        found = super().__getitems__(indices)
        places = self.places[found.index]
        images = (
            self.images[places.to(self.images.device)]
            if isinstance(self.images, Tensor)
            else self.images.__getitems__(places.tolist()).input
        )
        return found._replace(input=Pair(images, found.input))

    def move(self, device: Any) -> None:
        """Keep pictures and texts on a device.

        Raises:
            ValueError: If the pictures are too many to be kept.
        """
        if not isinstance(self.images, Tensor):
            raise ValueError("`resident=true` needs pictures in memory, and these are too many; leave it out.")
        super().move(device)
        self.images = self.images.to(device)


class Pairs(TokenizedData):
    """Your own images with captions: a CSV table with the columns `image` and `caption`, a line for each pair.

    A picture may have several captions, and all of them are on one side of a split. A column `class` (or `label`,
    `group`, ...) labels pairs, all or in part; a column `key` names them, else the picture's path does, with a hash of
    the caption where the picture has several. Captions are cut into tokens by byte pairs trained on those of the
    training part, or by a tokenizer of your own, and at 128 tokens.

    Args:
        path: CSV file in UTF-8.
        root: Folder that the pictures' paths start from; null for that of the table, or its sub-folder `images`.
        image_size: Side of the images in pixels after scaling and centre crop.
        channels: 3 for colour, 1 for gray.
        caption: Column of the caption; several are joined by a semicolon.
        vocab_size: Tokens at most of a tokenizer that is trained, 256 for the bytes and 5 special ones included.
        tokenizer: Path of a `tokenizer.json`, or of a run's folder, or `hf:NAME` for that of a model of Hugging Face;
            null to train one.
        test_path: CSV file of the test part; null to set pairs of `path` apart.
        test_size: Fraction of the pictures for test where there is no `test_path`, each drawn by its own path.
        skip_corrupt: Leave out what is no pair (caption or picture missing, file unreadable), and count it.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If the table is missing or of another kind, or a line is no pair; names file and line.
    """

    channels: int
    image_size: int
    max_length: int = LONGEST
    fact_names: ClassVar[tuple[str, ...]] = (*TokenizedData.fact_names, "channels", "image_size", "caption")

    def __init__(
        self,
        path: str,
        root: str | None = None,
        image_size: int = 64,
        channels: Literal[1, 3] = 3,
        caption: str | list[str] = "caption",
        vocab_size: int = 2000,
        tokenizer: str | None = None,
        test_path: str | None = None,
        test_size: float = 0.2,
        skip_corrupt: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, tokenizer, vocab_size, **kwargs)
        whole(8, 1024, image_size=image_size)
        one_of((1, 3), channels=channels)
        between(0, 1, "[)", test_size=test_size)
        self.image_size, self.channels = image_size, channels
        self.test_size, self.skip_corrupt = test_size, skip_corrupt
        self.caption = [caption] if isinstance(caption, str) else list(caption)
        folder = None if root is None else Path(root)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"`root={root}` is no folder ({folder.resolve()}); give that of the images.")
        rows = read_pairs("path", path, folder, self.caption, skip_corrupt)
        tests: list[PairRow] = []
        if test_path is not None:
            tests = read_pairs("test_path", test_path, folder, self.caption, skip_corrupt)
        elif test_size > 0:
            chosen = chosen_by_share([row.image for row in rows], test_size, self.split_seed, "test").tolist()
            tests = [row for row, test in zip(rows, chosen, strict=True) if test]
            rows = [row for row, test in zip(rows, chosen, strict=True) if not test]
        self.rows: dict[Split, list[PairRow]] = {"train": rows, "test": tests}
        self._require_captions()
        self._by_key = {row.key: row for row in (*tests, *rows)}
        self.class_names = tuple(sorted({row.label for row in (*rows, *tests)} - {""}))
        self.num_classes = max(1, len(self.class_names))
        self._told = False

    def training_texts(self) -> list[str]:
        """Return the captions of the training part."""
        return [row.caption for row in self.rows["train"]]

    def _require_captions(self) -> None:
        """Refuse pictures in the folder that no line names, or count them."""
        loose = without_caption([row.path for part in self.rows.values() for row in part])
        if not loose:
            return
        if not self.skip_corrupt:
            more = f", as have {len(loose) - 1} more" if len(loose) > 1 else ""
            raise ValueError(
                f"`path={self.path}`: the picture `{printable(str(loose[0]))}` has no caption in any line{more}; "
                "add a line for each, remove them, or skip such ones by `skip_corrupt=true`."
            )
        rank_zero_warn(f"passed over {len(loose)} pictures without a caption, such as `{printable(str(loose[0]))}`.")

    def load(self, split: Split) -> Samples:
        """Decode the pictures of one part, and cut its captions into tokens."""
        rows = sorted(self.rows[split], key=lambda row: row.key)
        rows, images, places = self._decoded(rows)
        numbers = {name: number for number, name in enumerate(self.class_names)} | {"": -1}
        targets = torch.tensor([numbers[row.label] for row in rows], dtype=torch.int64)
        self._tell(split, rows, targets)
        tokens = self.tokens.encode([row.caption for row in rows], self.max_length)
        return PairSamples(images, places, tokens, targets, [row.key for row in rows])

    def _decoded(self, rows: list[PairRow]) -> tuple[list[PairRow], Any, Tensor]:
        """Return the rows whose picture can be read, the pictures, each once, and which belongs to each row."""
        first = {row.path: row for row in reversed(rows)}
        paths = list(dict.fromkeys(row.path for row in rows))
        kept = len(paths) * self.channels * self.image_size**2 <= MEMORY

        def read(path: Path) -> Tensor | ValueError | None:
            try:
                found = decode(path, self.channels, self.image_size)
            except ValueError as error:
                return error
            return found if kept else None

        with ThreadPoolExecutor() as pool:
            found = list(pool.map(read, paths)) if kept or self.skip_corrupt else [None] * len(paths)
        bad = {path: error for path, error in zip(paths, found, strict=True) if isinstance(error, ValueError)}
        if bad and not self.skip_corrupt:
            path, error = next(iter(bad.items()))
            raise ValueError(f"{first[path].where}: {error}") from error
        if bad:
            where = first[next(iter(bad))].where
            rank_zero_warn(f"skipped {len(bad)} unreadable of {len(paths)} images; the first is that of {where}.")
        paths = [path for path in paths if path not in bad]
        images = [image for image in found if isinstance(image, Tensor)]
        blank, names = torch.full((len(paths),), -1), [str(path) for path in paths]
        pictures: Any = LazyImages(paths, blank, names, self.channels, self.image_size)
        number = {path: place for place, path in enumerate(paths)}
        rows = [row for row in rows if row.path in number]
        return (
            rows,
            torch.stack(images) if images else pictures,
            torch.tensor([number[row.path] for row in rows]).long(),
        )

    def _tell(self, split: Split, rows: list[PairRow], targets: Tensor) -> None:
        """Say what was found, once, and which classes a part lacks."""
        if not self._told and first_process():
            everything = [row for part in self.rows.values() for row in part]
            several = len(everything) - len({row.path for row in everything})
            labelled = sum(bool(row.label) for row in everything)
            print(
                f"{self.path}: {len(everything)} pairs ({several} further captions of one picture), {labelled} "
                f"labelled, {self.vocab_size} tokens",
                flush=True,
            )
        self._told = True
        if split == "train" and len(rows) < 2:
            raise ValueError(
                f"`path={self.path}` holds {len(rows)} pairs to train on; required are at least 2. Add some, or lower "
                "`test_size`."
            )
        if (targets >= 0).any():
            remedy = "give such classes more pairs, or another `split_seed`"
            tell_missing(targets, self.class_names, "test" if split == "test" else "training", remedy)

    def split(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Draw the validation part by pictures, so that all captions of one are on one side."""
        sides = copy.copy(samples)
        sides.keys = number_copies(self._by_key[key].image for key in samples.keys)
        return super().split(sides)

    def clean(self) -> nn.Module:
        """Return pixels to float, normalised, and texts as they are."""
        return CleanPair()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return crops and colours of the image, and tokens left out of the text."""
        return pair_views(count, mild, local_count)

    def show(self, key: str) -> Shown:
        """Return the picture as the file has it, at most 256 px wide and high, with its caption."""
        row = self._row(key)
        return Shown("image", thumbnail(row.path), row.caption)

    def path_of(self, key: str) -> str | None:
        """Return the file of a pair's picture."""
        return str(self._row(key).path)

    def fingerprint(self, key: str) -> str | None:
        """Return what tells a pair's picture and caption from others under the same key."""
        row = self._row(key)
        text = content_of(torch.tensor(list(row.caption.encode()), dtype=torch.uint8))
        return f"{fingerprint(row.path)}-{text}"

    def _row(self, key: str) -> PairRow:
        if key not in self._by_key:
            raise ValueError(f"`key={key}` is no pair of `path={self.path}`; give one of its keys.")
        return self._by_key[key]


def pairs_to_predict(source: str, facts: dict[str, Any]) -> Part:
    """Open a table of pictures with captions, as those that a checkpoint was trained on.

    Args:
        source: CSV file; its pictures lie in its folder, or in `images` beside it.
        facts: Of the data that the checkpoint was trained on.

    Raises:
        ValueError: If it is none, or a line is no pair.
    """
    rows = read_pairs("source", source, None, facts.get("caption", ["caption"]), skip=False)
    if not rows:
        raise ValueError(f"`source={source}` holds no pair; give a table with a line for each.")
    tokens = Tokenizer.from_json(facts["tokenizer"]).encode([row.caption for row in rows], facts.get("max_length"))
    paths, keys = [row.path for row in rows], [row.key for row in rows]
    unknown = torch.full((len(rows),), -1)
    images = LazyImages(paths, unknown, keys, facts["channels"], facts["image_size"])
    pairs = PairSamples(images, torch.arange(len(rows)), tokens, unknown, keys)
    return Part("", pairs, [str(path) for path in paths], [row.label for row in rows], CleanPair())
