"""RoIAlign (Mask R-CNN, arXiv 1703.06870): torchvision's operator, and on the CPU faster ways to the same.

Pooling is linear in the features, `pooled = A @ feats` with a sparse matrix A of bilinear weights. So the gradient is
`A.T @ grad`: one sparse matrix product on all cores, where torchvision's kernel adds tap by tap on one. And where
features lie channels-last a cell is a weighted sum of rows of a matrix, an embedding bag: a quarter of the time of
torchvision's kernel, which wants each channel for itself and copies the features for that.
"""
import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align

from mmdet.errors import ConfigError
from mmdet.registry import MODELS

# RoIs pooled at a time: few enough that their taps' indices and weights are small beside the features.
ROIS_AT_A_TIME = 128

# PyTorch calls its sparse CSR tensors, ten releases old, beta: nothing a user could act on.
warnings.filterwarnings('ignore', message='Sparse CSR tensor support is in beta state')


@MODELS.register_module()
class RoIAlign(nn.Module):
    """RoIAlign of one feature map.

    Args:
        output_size: side S of the square output, in cells.
        spatial_scale: feature map pixels per input pixel.
        sampling_ratio: samples along a cell's side; 0 takes as many as the cell spans feature map pixels.
        aligned: whether pixel centres lie at half-integers.
    """

    def __init__(self, output_size: int, spatial_scale: float = 1.0, sampling_ratio: int = 0, aligned: bool = True):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, feats: Tensor, rois: Tensor) -> Tensor:
        """(B, D, H, W) features and (R, 5) RoIs `(image, x1, y1, x2, y2)` in input pixels -> (R, D, S, S).

        Raises:
            ConfigError: a gradient is wanted on a GPU from deterministic algorithms alone, and `sampling_ratio` is 0.
        """
        settings = (self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)
        wants_gradient = feats.requires_grad and torch.is_grad_enabled()
        if feats.device.type != 'cpu' and torch.are_deterministic_algorithms_enabled():
            if not wants_gradient:
                return kernel_roi_align(feats, rois, *settings)
            if self.sampling_ratio == 0:
                raise ConfigError(
                    f'randomness.deterministic=True: on {feats.device.type} torchvision computes each cell of '
                    f'RoIAlign(sampling_ratio=0) from the whole map, for a gradient that is the same in every run; set '
                    f'roi_layer.sampling_ratio=2 in the roi_extractors of model.roi_head, or deterministic=False'
                )
        if feats.device.type == 'cpu' and wants_gradient:
            return _SparseBackwardRoIAlign.apply(feats, rois, *settings)
        if feats.device.type == 'cpu' and feats.dtype == torch.float32 and torch.is_inference_mode_enabled():
            return pooled_by_gathering(feats, rois, *settings)
        return roi_align(feats, rois, *settings)


class _SparseBackwardRoIAlign(torch.autograd.Function):
    """torchvision's RoIAlign with a sparse matrix product for its gradient with respect to the features."""

    @staticmethod
    def forward(ctx, feats, rois, output_size, spatial_scale, sampling_ratio, aligned):
        ctx.save_for_backward(rois)
        ctx.feats_shape = feats.shape
        ctx.settings = (output_size, spatial_scale, sampling_ratio, aligned)
        return roi_align(feats, rois, output_size, spatial_scale, sampling_ratio, aligned)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (rois,) = ctx.saved_tensors
        batch, channels, height, width = ctx.feats_shape
        weights_of_cells = transposed_pooling_matrix(rois, (batch, height, width), *ctx.settings)
        grad_of_cells = grad.float().permute(0, 2, 3, 1).reshape(-1, channels)
        grad_feats = (weights_of_cells @ grad_of_cells).view(batch, height, width, channels)
        return grad_feats.permute(0, 3, 1, 2).to(grad.dtype), None, None, None, None, None


def kernel_roi_align(
    feats: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """torchvision's compiled operator itself, whose results, unlike its gradients, are the same in every run.

    Where deterministic algorithms are asked for, torchvision takes a slow way round even if no gradient is wanted.
    Arguments as of `pooled_by_gathering`.
    """
    return torch.ops.torchvision.roi_align(
        feats, rois, spatial_scale, output_size, output_size, sampling_ratio, aligned
    )


def pooled_by_gathering(
    feats: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Every cell as the weighted sum of the pixels it is interpolated from; no gradient.

    Args:
        feats: (B, D, H, W) float32, best channels-last.
        rois: (R, 5) `(image, x1, y1, x2, y2)` in input pixels.
        output_size, spatial_scale, sampling_ratio, aligned: see `RoIAlign`.

    Returns:
        (R, D, S, S), channels-last.
    """
    channels, height, width = feats.shape[1:]
    pixels = feats.permute(0, 2, 3, 1).reshape(-1, channels)
    pooled = feats.new_empty(len(rois), output_size, output_size, channels)
    # All RoIs of a turn have as many taps as the largest of them needs.
    by_size = (rois[:, 3:] - rois[:, 1:3]).amax(dim=1).argsort()
    for members in by_size.split(ROIS_AT_A_TIME):
        taps = _taps_of_cells(rois[members], height, width, output_size, spatial_scale, sampling_ratio, aligned)
        pixel, weight = (of_cells.flatten(3).flatten(0, 2) for of_cells in taps)
        cells = F.embedding_bag(pixel, pixels, mode='sum', per_sample_weights=weight)
        pooled[members] = cells.view(-1, output_size, output_size, channels)
    return pooled.permute(0, 3, 1, 2)


def transposed_pooling_matrix(
    rois: Tensor,
    feats_shape: tuple[int, int, int],
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """How much each feature map pixel counts in each pooled cell.

    Args:
        rois: (R, 5) `(image, x1, y1, x2, y2)` in input pixels.
        feats_shape: (B, H, W).
        output_size, spatial_scale, sampling_ratio, aligned: see `RoIAlign`.

    Returns:
        (B * H * W, R * S * S) sparse CSR float32.
    """
    batch, height, width = feats_shape
    pixel, weight = _taps_of_cells(rois, height, width, output_size, spatial_scale, sampling_ratio, aligned)
    num_taps = pixel.shape[3] * pixel.shape[4]
    present = weight.flatten().nonzero().squeeze(1)
    pixel, weight = pixel.flatten()[present], weight.flatten()[present]

    order = pixel.argsort()
    row_starts = torch.zeros(batch * height * width + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(pixel, minlength=batch * height * width), 0, out=row_starts[1:])
    return torch.sparse_csr_tensor(
        row_starts,
        torch.div(present[order], num_taps, rounding_mode='floor'),
        weight[order],
        (batch * height * width, len(rois) * output_size**2),
        check_invariants=False,
    )


def _taps_of_cells(
    rois: Tensor,
    height: int,
    width: int,
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """The pixels each cell is interpolated from, counted through all images of (height, width), and their weights.

    Returns:
        (R, S, S, T_y, T_x) int64 and float32.
    """
    corners = rois[:, 1:].float() * spatial_scale - (0.5 if aligned else 0.0)
    y, y_weight = _taps(corners[:, 1], corners[:, 3], height, output_size, sampling_ratio, aligned)
    x, x_weight = _taps(corners[:, 0], corners[:, 2], width, output_size, sampling_ratio, aligned)
    image = rois[:, 0].long().view(-1, 1, 1, 1, 1)
    pixel = (image * height + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
    return pixel, y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]


def _taps(
    start: Tensor, end: Tensor, size: int, output_size: int, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Along one axis, the pixels each cell is interpolated from, and their weights.

    Args:
        start, end: (R,) of the RoIs, in feature map pixels.
        size: of the feature map.

    Returns:
        (R, S, T) int64 pixels and float32 weights; weights of taps beyond a RoI's own number of samples are 0.
    """
    length = end - start
    if not aligned:
        length = length.clamp(min=1)
    cell = length / output_size
    if sampling_ratio > 0:
        samples = torch.full_like(cell, sampling_ratio)
    else:
        samples = cell.ceil()
    most = max(math.ceil(float(samples.max())), 1) if len(samples) else 1
    samples = samples[:, None, None]
    nth = torch.arange(most, dtype=torch.float32)
    first = start[:, None] + cell[:, None] * torch.arange(output_size)
    position = first[..., None] + cell[:, None, None] * (nth + 0.5) / samples
    counts = (nth < samples) & (position >= -1) & (position <= size)

    position = position.clamp(min=0)
    low = position.floor().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    to_high = torch.where(low == size - 1, 0.0, position - low)
    share = torch.where(counts, 1 / samples, 0.0)
    taps = torch.cat([low, high], dim=-1).nan_to_num().long()
    return taps, torch.cat([(1 - to_high) * share, to_high * share], dim=-1).nan_to_num()
