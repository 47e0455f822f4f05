"""Where a config says how test images are prepared."""
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from mmengine import Config

from mmdet.errors import ConfigError


def data_sets(dataset: MutableMapping[str, Any]) -> Iterator[MutableMapping[str, Any]]:
    """The configs of the data sets in wrappers, which have the pipelines; that of a data set without is its own."""
    inner = dataset.get('dataset', dataset.get('datasets'))
    if isinstance(inner, Mapping):
        yield from data_sets(inner)
    elif isinstance(inner, Sequence) and not isinstance(inner, str):
        for each in inner:
            yield from data_sets(each)
    else:
        yield dataset


def test_pipeline(cfg: Config) -> list[dict]:
    """The transforms of test images: of the test data, else of the validation data, else `test_pipeline`.

    Raises:
        ConfigError: the config says none of these.
    """
    for loader in ('test_dataloader', 'val_dataloader'):
        for dataset in data_sets((cfg.get(loader) or {}).get('dataset') or {}):
            if dataset.get('pipeline'):
                return dataset['pipeline']
    if cfg.get('test_pipeline'):
        return cfg['test_pipeline']
    raise ConfigError(
        f'{cfg.filename or "config"}: does not say how images are prepared: give test_dataloader.dataset.pipeline, or '
        f'test_pipeline alone'
    )
