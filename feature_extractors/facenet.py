"""FaceNet: facenet-pytorch's InceptionResnetV1 with a checkpoint that the user brings."""

from pathlib import Path

import torch

from feature_extractors.base import ModuleRecognizer, Precision, RecognizerConfig
from feature_extractors.checkpoints import recognizer_of
from feature_extractors.registry import register
from pifr.geometry.alignment import FACENET_160
from pifr.zoo import UserFile

FACENET = RecognizerConfig(
    name="facenet",
    input_size=160,
    alignment=FACENET_160,
    embedding_size=512,
    value_range=(0.0, 255.0),
    mean=(127.5,),
    std=(128.0,),
    parameters=23_482_624,
    licence="MIT (facenet-pytorch)",
    origin="Schroff et al.: FaceNet, CVPR 2015; facenet-pytorch 2.5.3 (fixed_image_standardization)",
    weights=UserFile(
        "facenet",
        (".pt", ".pth", ".safetensors"),
        "20180402-114759-vggface2.pt of github.com/timesler/facenet-pytorch, release v2.2.9",
        "MIT",
    ),
)


@register(FACENET)
def load_facenet(
    config: RecognizerConfig, file: Path, device: str | torch.device, precision: Precision
) -> ModuleRecognizer:
    from pifr.support.torchvision_operators import ensure_operators

    ensure_operators()
    from facenet_pytorch import InceptionResnetV1

    network = InceptionResnetV1(pretrained=None, classify=False)
    return recognizer_of(network, config, file, device, precision, ignored=("logits.",))
