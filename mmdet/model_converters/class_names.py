"""The names of a detector's classes: COCO's, and those in a file."""
from pathlib import Path

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from mmdet.errors import ConfigError

_COCO_BY_NUMBER = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta['categories']  # 0 is the background
COCO_NUMBERS = len(_COCO_BY_NUMBER)  # 91, of which 80 are categories
COCO_IDS = [number for number, name in enumerate(_COCO_BY_NUMBER) if number > 0 and name != 'N/A']
COCO_CLASSES = [_COCO_BY_NUMBER[number] for number in COCO_IDS]


def read_class_names(path: str | Path) -> list[str]:
    """The names in a text file, one a line, in the order of the labels.

    Raises:
        ConfigError: the file cannot be read, has an empty line between names, or a name twice.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding='utf-8').strip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'{path}: cannot be read as class names, one a line ({error})') from error
    for number, name in enumerate(names, start=1):
        if not name or name in names[: number - 1]:
            raise ConfigError(f'{path}: line {number} is {"empty" if not name else f"{name!r} again"}; one name a line')
    return names
