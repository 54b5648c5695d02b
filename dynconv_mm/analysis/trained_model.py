"""A trained network and its test pipeline, from its config and checkpoint."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope, init_default_scope
from torch import Tensor, nn

from ..conversion import check_fit, read_checkpoint, read_state_dict
from ..layers.temperature import TemperatureMixin
from .find_layers import find_layers

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


class TrainedModel(NamedTuple):
    """What a config and a checkpoint describe."""

    config: Config
    model: nn.Module  # in eval mode
    classes: tuple[str, ...]  # names, as far as the checkpoint has them

    @property
    def is_classifier(self) -> bool:
        """Whether it is an image classifier of mmpretrain."""
        return hasattr(self.model, 'head') and self.config.get('default_scope') == 'mmpretrain'

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where the checkpoint has no names."""
        return self.classes[label] if label < len(self.classes) else f'class {label}'


def load_trained_model(config: str | Path, checkpoint: str | Path, device: str | torch.device = 'cpu') -> TrainedModel:
    """Build the model of a config with the weights of a checkpoint, of which none may lack or be left over.

    Args:
        config (str | Path): a config of mmpretrain or mmdet.
        checkpoint (str | Path): its checkpoint. Layers whose temperature it lacks are at 1.
        device (str | torch.device): to put the model on. Default: 'cpu'.

    Raises:
        FileNotFoundError: a file does not exist.
        CheckpointError: the checkpoint holds anything but weights, or not those of the model.
    """
    if not Path(config).is_file():
        raise FileNotFoundError(f'there is no config {str(config)!r}')
    weights = read_state_dict(checkpoint)
    config = Config.fromfile(config)
    init_default_scope(config.get('default_scope', 'mmengine'))
    if 'data_preprocessor' in config:  # as a runner does
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    model = MODELS.build(config.model)
    for name, layer in find_layers(model, TemperatureMixin).items():
        weights.setdefault(f'{name}.temperature', torch.ones_like(layer.temperature))
    check_fit(weights, model.state_dict(), f'the {type(model).__name__} of {config.filename}')
    model.load_state_dict(weights)
    meta = read_checkpoint(checkpoint).get('meta')
    about = meta.get('dataset_meta') if isinstance(meta, dict) else None
    classes = about.get('classes') if isinstance(about, dict) else None
    return TrainedModel(config, model.eval().to(device), tuple(map(str, classes or ())))


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The images that ``paths`` name: files, and what is in folders and below them.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no images.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise FileNotFoundError(f'{path} has no images in it, files that end on {", ".join(IMAGE_SUFFIXES)}')
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f'there is no image or folder {str(path)!r}')
    return found


class ImageFiles(Sequence):
    """Image files as the test pipeline of a config puts them out.

    Args:
        config (Config): has a ``test_dataloader``.
        files (Sequence[Path]): the images.
    """

    def __init__(self, config: Config, files: Sequence[Path]) -> None:
        init_default_scope(config.get('default_scope', 'mmengine'))
        self.files = list(files)
        self.pipeline = Compose(config.test_dataloader.dataset.pipeline)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        """Raises a ValueError that names the file if the pipeline cannot take it."""
        try:
            data = self.pipeline(dict(img_path=str(self.files[index]), img_id=index))
        except Exception as error:  # transforms raise whatever their library does
            raise ValueError(f'{self.files[index]} cannot be read by the test pipeline '
                             f'({type(error).__name__}: {error})') from error
        if data is None:
            raise ValueError(f'{self.files[index]} is left out by the test pipeline')
        return data


def validation_set(config: Config) -> Sequence:
    """The validation set of a config.

    Raises:
        FileNotFoundError: its files are not there.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    return DATASETS.build(dict(config.val_dataloader.dataset, test_mode=True))


class Spread(Sequence):
    """``count`` of the images, evenly spaced, or all; loaded when they are asked for."""

    def __init__(self, images: Sequence[dict], count: int | None) -> None:
        self.images = images
        count = len(images) if count is None else min(count, len(images))
        self.indices = [index * len(images) // count for index in range(count)]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        return self.images[self.indices[index]]


def load_with_images(config: str | Path, checkpoint: str | Path, paths: Iterable[str | Path] | None, count: int | None,
                     device: str | torch.device = 'cpu') -> tuple[TrainedModel, Spread]:
    """A network, and images as its own pipeline puts them out.

    Args:
        config, checkpoint, device: as of :func:`load_trained_model`.
        paths (Iterable[str | Path], optional): as of :func:`find_images`; None takes the validation set.
        count (int, optional): how many of them; None takes all.

    Raises:
        FileNotFoundError, CheckpointError: as of these.
        ValueError: the validation set is empty.
    """
    trained = load_trained_model(config, checkpoint, device)
    images = validation_set(trained.config) if paths is None else ImageFiles(trained.config, find_images(paths))
    if not len(images):
        raise ValueError(f'the validation set of {config} is empty')
    return trained, Spread(images, count)


def batches(images: Sequence, batch_size: int) -> Iterator[dict]:
    """Batches as a data loader without workers makes them, in order."""
    for start in range(0, len(images), batch_size):
        yield pseudo_collate([images[index] for index in range(start, min(start + batch_size, len(images)))])


def preprocess(trained: TrainedModel, batch: dict) -> Tensor:
    """What the network itself gets of a batch, Tensor[batch, channels, height, width]."""
    return trained.model.data_preprocessor(batch, False)['inputs']


def predict(trained: TrainedModel, batch: dict) -> None:
    """Run the model as a test does."""
    with torch.no_grad(), DefaultScope.overwrite_default_scope(trained.config.get('default_scope')):
        trained.model.test_step(batch)


def pictures(batch: dict) -> list[Tensor]:
    """The images of a batch as they are loaded, each ``uint8[height, width, 3]``, RGB."""
    return [image.clamp(0, 255).byte()[[2, 1, 0]].permute(1, 2, 0) if len(image) == 3
            else image.clamp(0, 255).byte()[:1].expand(3, -1, -1).permute(1, 2, 0) for image in batch['inputs']]
