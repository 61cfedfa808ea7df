"""Self-supervised methods, each a LightningModule in a file of its own."""

from ssl_lightning.methods.autoencoder import Autoencoder
from ssl_lightning.methods.barlow_twins import BarlowTwins
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.methods.byol import BYOL
from ssl_lightning.methods.causal_text import CausalText
from ssl_lightning.methods.clip import CLIP
from ssl_lightning.methods.colorization import Colorization
from ssl_lightning.methods.deepcluster import DeepCluster
from ssl_lightning.methods.dino import DINO
from ssl_lightning.methods.gan import GAN
from ssl_lightning.methods.inpainting import Inpainting
from ssl_lightning.methods.jigsaw import Jigsaw
from ssl_lightning.methods.mae import MAE
from ssl_lightning.methods.masked_text import MaskedText
from ssl_lightning.methods.moco import MoCo
from ssl_lightning.methods.nnclr import NNCLR
from ssl_lightning.methods.relative_position import RelativePosition
from ssl_lightning.methods.rotation import Rotation
from ssl_lightning.methods.siglip import SigLIP
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.methods.simmim import SimMIM
from ssl_lightning.methods.simsiam import SimSiam
from ssl_lightning.methods.ssgan import SSGAN
from ssl_lightning.methods.supcon import SupCon
from ssl_lightning.methods.swav import SwAV
from ssl_lightning.methods.triplet import Triplet
from ssl_lightning.methods.vae import VAE
from ssl_lightning.methods.vicreg import VICReg
from ssl_lightning.methods.vilbert import ViLBERT
from ssl_lightning.methods.vime import VIME

__all__ = [
    "BYOL",
    "CLIP",
    "DINO",
    "GAN",
    "MAE",
    "NNCLR",
    "SSGAN",
    "VAE",
    "VIME",
    "Autoencoder",
    "BarlowTwins",
    "CausalText",
    "Colorization",
    "DeepCluster",
    "Inpainting",
    "Jigsaw",
    "MaskedText",
    "MoCo",
    "RelativePosition",
    "Rotation",
    "SSLMethod",
    "SigLIP",
    "SimCLR",
    "SimMIM",
    "SimSiam",
    "Step",
    "SupCon",
    "SwAV",
    "Triplet",
    "VICReg",
    "ViLBERT",
]
