"""Sound: the clean input of evaluation, and random views."""

from ssl_lightning.transforms.audio.log_mel import LogMel
from ssl_lightning.transforms.audio.random_view import AudioViews, audio_views

__all__ = ["AudioViews", "LogMel", "audio_views"]
