"""Encoders of texts of Hugging Face, by name or from a folder, with the tokens of their own tokenizer."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ssl_lightning.backbones.base import Backbone
from ssl_lightning.backbones.text import pooled
from ssl_lightning.engine.ranges import one_of, text
from ssl_lightning.transforms.padded import Padded, inside
from ssl_lightning.transforms.text.tokens import digest_of, numbers_in, order_of, special_ids, tokenizer_json


class HuggingFace(Backbone):
    """An encoder of Hugging Face like BERT or RoBERTa, with its weights; needs the extra `huggingface`.

    The data must have its own tokenizer: `--data.tokenizer hf:NAME`, or the folder. Our special tokens are 0 to 4 (see
    `Tokenizer`), and are turned into the model's. Attention drops nothing, so that one dropout mask serves texts of any
    length.

    Args:
        name: Of a model on the hub, as `bert-base-uncased`, or a folder that `save_pretrained` wrote; with a
            `tokenizer.json`.
        pretrained: Take its weights, which are downloaded once; else draw new ones.
        pool: The embedding: the mean over all tokens, or the first token's (`cls`).
        vocabulary: Hash of the data's tokenizer, to be compared with the model's; linked from the data.
        config: The architecture as JSON, which checkpoints keep; null for that of `name`.

    Raises:
        ValueError: If transformers is not installed, there is no such model, it cannot be had, or the data's tokenizer
            is another.
    """

    takes: ClassVar[tuple[str, ...]] = ("text",)
    order: Tensor

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        pool: Literal["mean", "cls"] = "mean",
        vocabulary: str | None = None,
        config: str | None = None,
    ) -> None:
        text(name=name)
        one_of(("mean", "cls"), pool=pool)
        try:
            import transformers
        except ImportError as error:
            raise ValueError('`HuggingFace` needs transformers: `pip install "ssl-lightning[huggingface]"`.') from error
        described = _architecture(transformers, name, config)
        for attention in ("attention_probs_dropout_prob", "attention_dropout"):
            if hasattr(described, attention):
                setattr(described, attention, 0.0)
        order = torch.arange(described.vocab_size)
        if config is None:  # else the weights of a checkpoint follow, and with them the order
            own = tokenizer_json(name)
            order = order_of(special_ids(numbers_in(own)), described.vocab_size)
            if vocabulary not in (None, digest_of(own)):
                raise ValueError(
                    f"`name={name}` reads tokens of its own tokenizer, and the data have another; add "
                    f"`--data.tokenizer {name if Path(name).is_dir() else f'hf:{name}'}`."
                )
            vocabulary = digest_of(own)
        super().__init__(
            name=name,
            pretrained=False,
            pool=pool,
            vocabulary=vocabulary,
            config=described.to_json_string(use_diff=True),
        )
        self.net = _network(transformers, name, described, pretrained and config is None)
        if hasattr(self.net, "pooler"):
            self.net.pooler = None  # ours is `pool`
        self.register_buffer("order", order)
        self.feature_dim, self.pool = int(described.hidden_size), pool
        self.max_length = int(getattr(described, "max_position_embeddings", 0)) or None

    @property
    def table(self) -> Tensor:
        """Embeddings of all tokens `(vocab_size, dim)`, in the order of our numbers."""
        return self.net.get_input_embeddings().weight[self.order]  # type: ignore[no-any-return]

    def forward(self, inputs: Padded) -> Tensor:
        """Encode texts to embeddings `(N, feature_dim)`."""
        return self.pooled(self.tokens(inputs), inputs.length)

    def pooled(self, values: Tensor, length: Tensor) -> Tensor:
        """Return embeddings `(N, feature_dim)` of encoded tokens `(N, T, feature_dim)`."""
        return pooled(values, length, self.pool)

    def tokens(self, inputs: Padded) -> Tensor:
        """Encode each token, `(N, T, feature_dim)`; what is behind a text's end means nothing."""
        total = inputs.values.shape[1]
        if self.max_length is not None and total > self.max_length:
            raise ValueError(
                f"a text of {total} tokens is longer than the {self.max_length} that the encoder takes; give "
                f"`--data.max_length {self.max_length}`, which cuts it."
            )
        mask = inside(inputs.length.to(inputs.values.device), total)
        values = self.order[inputs.values.long()]
        return self.net(input_ids=values, attention_mask=mask.long()).last_hidden_state  # type: ignore[no-any-return]


def _architecture(transformers: Any, name: str, config: str | None) -> Any:
    try:
        if config is None:
            return transformers.AutoConfig.from_pretrained(name)
        told = json.loads(config)
        return transformers.AutoConfig.for_model(**{**told, "model_type": told["model_type"]})
    except Exception as error:  # whatever the hub, or a damaged description, raises
        raise ValueError(_absent(name, error)) from error


def _network(transformers: Any, name: str, described: Any, pretrained: bool) -> Any:
    try:
        if pretrained:
            return transformers.AutoModel.from_pretrained(name, config=described).float()
        return transformers.AutoModel.from_config(described).float()
    except Exception as error:  # as above
        raise ValueError(_absent(name, error)) from error


def _absent(name: str, error: Exception) -> str:
    cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return (
        f"`name={name}` is no folder of a model, is not in {cache} and cannot be downloaded ({type(error).__name__}); "
        "check the name, run once where there is a network, or give the folder of a model that was saved."
    )
