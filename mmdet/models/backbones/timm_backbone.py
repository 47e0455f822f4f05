"""Any backbone of the timm library, by its name there."""
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.registry import MODELS


@MODELS.register_module()
class TIMMBackbone(BaseModule):
    """A model that timm builds, e.g. `model_name='convnext_tiny'`. Its parameters are those of `timm_model`.

    Args:
        model_name: timm's name.
        features_only: give a feature map for each stage of `out_indices`; else only the last one.
        pretrained: begin a training with timm's weights, downloaded unless they are in its cache.
        checkpoint_path: begin a training with the weights in this file instead (not with `features_only`).
        in_channels: of the image.
        init_cfg: how weights are made; default: as timm makes them.
        options: further ones of `timm.create_model`, e.g. `out_indices=(0, 1, 2, 3)`, `drop_path_rate=0.2`, or for
            Swin, which else takes images of one size alone, `strict_img_size=False`.

    Attributes:
        out_channels: of the feature maps; for the last one alone a list of one.

    Raises:
        ConfigError: timm is not installed, has no such model, or cannot build it with these options.
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = False,
        pretrained: bool = False,
        checkpoint_path: str = '',
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(init_cfg)
        if features_only and checkpoint_path:
            raise ConfigError('model.backbone: timm takes a checkpoint_path for whole models, not with features_only')
        self.settings = dict(options, model_name=model_name, features_only=features_only, in_chans=in_channels)
        self.weights = dict(pretrained=pretrained, checkpoint_path=checkpoint_path)
        self.timm_model = _create(**self.settings)
        self.channels_last = str(getattr(self.timm_model, 'output_fmt', 'NCHW')).endswith('NHWC')
        if features_only:
            self.out_channels = list(self.timm_model.feature_info.channels())
        else:
            self.out_channels = [self.timm_model.num_features]

    def init_weights(self) -> None:
        """timm's weights where they are asked for; else as `init_cfg` says."""
        if any(self.weights.values()):
            self.timm_model.load_state_dict(_create(**self.settings, **self.weights).state_dict())
        else:
            super().init_weights()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> feature maps (B, C_i, H_i, W_i)."""
        outs = self.timm_model(x)
        outs = outs if isinstance(outs, (list, tuple)) else [outs]
        if self.channels_last:
            outs = [out.permute(0, 3, 1, 2).contiguous() for out in outs]
        return tuple(outs)


def _create(**settings: Any) -> nn.Module:
    """The model without its classifier, weights at random or as `settings` say."""
    name = settings['model_name']
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"model.backbone: TIMMBackbone needs timm, which cannot be imported ({error}): pip install 'timm>=1.0'"
        ) from error
    if not timm.is_model(name):
        alike = timm.list_models(f'*{name.split("_")[0].rstrip("0123456789")}*')[:3]
        hint = f'; it has {", ".join(alike)}, ...' if alike else ''
        raise ConfigError(f'model.backbone.model_name: timm {timm.__version__} has no {name!r}{hint}')
    try:
        model = timm.create_model(**settings)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ConfigError(f'model.backbone: timm cannot build {name} ({str(error).splitlines()[0]})') from error
    if not settings['features_only']:
        model.reset_classifier(0, '')
    return model
