"""Calibrators beside what their authors' code makes of the same inputs: the files of a folder of reference outputs.

Each file `NAME.npz` holds inputs and outputs of one method; the folder's own README says what each array is. Background
is the last column, row and label. A tolerance is that of single precision.
"""
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmdet.calibration import ACSL, BAGS, FRACAL, LWS, Calibrator, DisAlign, LogN, NorCal, StepRoIs, TauNorm
from mmdet.calibration.calibrators.fracal import fractal_dimensions
from mmdet.calibration.calibrators.tau_norm import normalised_classifier
from mmdet.models.losses import EQLV2Loss
from mmdet.models.roi_heads import BBoxHead
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.structures import ClassFrequency

Arrays = Mapping[str, np.ndarray]


class Compared(NamedTuple):
    """One array: its name, the worst difference found, and the largest that is allowed."""

    what: str
    worst: float
    allowed: float


class FirstInRowOrder(StepRoIs):
    """RoIs of which the first are chosen wherever some are chosen at random, as the reference outputs do."""

    def chances(self, stream: int = 0) -> Tensor:
        """(R,) falling numbers."""
        return torch.linspace(1, 0.5, len(self.labels))


def compare_file(path: Path) -> list[Compared]:
    """Every output in a file beside ours.

    Raises:
        FileNotFoundError: a file of a method that is not known here.
    """
    if path.stem not in METHODS:
        raise FileNotFoundError(f'{path}: of no method known here; there are {", ".join(METHODS)}')
    with np.load(path, allow_pickle=False) as arrays:
        return list(METHODS[path.stem](dict(arrays)))


def norcal(arrays: Arrays) -> Iterator[Compared]:
    logits = torch.from_numpy(arrays['logits'])
    scores = logits.softmax(dim=1)
    for name, settings in {
        'scores_exps_gamma_0p6': dict(gamma=0.6),
        'scores_exps_gamma_1p0': dict(gamma=1.0),
        'scores_exps_cb_0p99': dict(gamma=0.99, factor='effective_number'),
    }.items():
        calibrator = bound(NorCal(**settings), arrays['image_count'])
        yield absolute(name, calibrator.scores(scores, ()), arrays, 1e-6)
        if f'{name}_norenorm' in arrays:
            yield relative(f'{name}_norenorm', logits.exp() * calibrator.factors, arrays, 1e-6)


def fracal(arrays: Arrays) -> Iterator[Compared]:
    centres = np.stack([arrays['cx'], arrays['cy']], axis=1)
    single = np.stack([arrays['cx_single'], arrays['cy_single']], axis=1)
    of_classes = fractal_dimensions(centres, arrays['box_labels'], len(arrays['phi']))
    yield absolute('phi', of_classes, arrays, 1e-6)
    yield absolute('phi_single', fractal_dimensions(single, np.zeros(len(single), np.int64), 1)[0], arrays, 1e-6)
    logits = torch.from_numpy(arrays['logits'])
    calibrator = bound(FRACAL(float(arrays['lambda_'])), arrays['image_count'])
    calibrator.num_images.fill_(float(arrays['num_images']))
    calibrator.dimensions.copy_(torch.from_numpy(arrays['phi']))
    yield absolute('log_prior_shift', torch.nn.functional.pad(calibrator.prior_shift(), (0, 1)), arrays, 1e-6)
    yield absolute('scores_softmax', calibrator.scores(logits.softmax(dim=1), ()), arrays, 1e-6)
    calibrator.is_sigmoid = True
    classes = logits.shape[1] - 1
    scores = calibrator.scores(logits.sigmoid(), (logits[:, :classes],))[:, :classes]
    yield Compared('scores_sigmoid', distance(scores, arrays['scores_sigmoid'][:, :classes]), 1e-6)


def logn(arrays: Arrays) -> Iterator[Compared]:
    batches, test = torch.from_numpy(arrays['batches']), torch.from_numpy(arrays['test_logits'])
    for suffix in ('', '_m0p1'):
        calibrator = LogN(float(arrays[f'momentum{suffix}']))
        head = bound_head(calibrator, np.ones(batches.shape[2] - 1, np.int64))
        for logits in batches:
            calibrator.observe(known_logits(head, logits), StepRoIs(torch.zeros(len(logits), dtype=torch.long), 1))
        for name in ('running_mean', 'running_var'):
            yield absolute(f'{name}{suffix}', getattr(calibrator, name)[0], arrays, 1e-5)
        normalised = calibrator.logits(known_logits(head, test))
        yield absolute(f'logits_normalised{suffix}', normalised, arrays, 2e-5)


def disalign(arrays: Arrays) -> Iterator[Compared]:
    calibrator = DisAlign(float(arrays['grw_scale']))
    head = bound_head(calibrator, arrays['instance_count'], arrays['fc_weight'], arrays['fc_bias'])
    outputs = RoIOutputs(head, class_feats=torch.from_numpy(arrays['features']))
    with torch.no_grad():
        calibrator.slope[0] = torch.from_numpy(arrays['logit_scale'])
        calibrator.offset[0] = torch.from_numpy(arrays['logit_bias'])
        calibrator.confidence[0].weight[0] = torch.from_numpy(arrays['confidence_weight'])
        calibrator.confidence[0].bias[:] = torch.from_numpy(arrays['confidence_bias'])
        aligned = calibrator.logits(outputs)
        yield absolute('logits', outputs.logits, arrays, 1e-5)
        confidence = calibrator.confidence[0](outputs.class_feats).sigmoid()[:, 0]
        yield absolute('confidence', confidence, arrays, 1e-6)
        yield absolute('logits_aligned', aligned, arrays, 1e-5)
        yield absolute('scores', calibrator.scores(aligned.softmax(dim=1), aligned), arrays, 1e-6)
        yield relative('grw_weight', calibrator.class_weight, arrays, 1e-6)
        step = StepRoIs(torch.from_numpy(arrays['labels']), len(aligned))
        yield relative('grw_loss', calibrator.loss(aligned, step)['s0.loss_cls'], arrays, 1e-6)


def lws(arrays: Arrays) -> Iterator[Compared]:
    calibrator = LWS()
    counts = np.ones(len(arrays['fc_bias']) - 1, np.int64)
    head = bound_head(calibrator, counts, arrays['fc_weight'], arrays['fc_bias'])
    outputs = RoIOutputs(head, class_feats=torch.from_numpy(arrays['features']))
    with torch.no_grad():
        yield absolute('scaler_initial', calibrator.factors[0], arrays, 1e-6)
        yield absolute('logits_initial', calibrator.logits(outputs), arrays, 1e-5)
        calibrator.factors[0] = torch.from_numpy(arrays['weight_scaler'])
        logits = calibrator.logits(outputs)
        yield absolute('logits', logits, arrays, 1e-5)
        yield absolute('scores', calibrator.scores(logits.softmax(dim=1), logits), arrays, 1e-6)


def acsl(arrays: Arrays) -> Iterator[Compared]:
    calibrator = bound(ACSL(float(arrays['score_thr'])), arrays['image_count'])
    logits = torch.from_numpy(arrays['logits']).requires_grad_()
    step = FirstInRowOrder(torch.from_numpy(arrays['labels']), len(logits))
    loss = calibrator.loss(logits, step)['s0.loss_cls']
    loss.backward()
    yield absolute('frequency_group', calibrator.group[:-1], arrays, 0.0)
    yield absolute('weight_mask', calibrator.taking_part(logits.detach(), step), arrays, 0.0)
    yield relative('loss', loss.detach(), arrays, 1e-6)
    yield absolute('grad', logits.grad, arrays, 1e-6)


def bags(arrays: Arrays) -> Iterator[Compared]:
    groups = [torch.from_numpy(arrays[f'group_logits_{g}']) for g in range(4)]
    logits = torch.cat([torch.from_numpy(arrays['bgfg_logits']), *groups], dim=1)
    ratio = float(arrays['others_sample_ratio'])
    calibrator = bound(BAGS(others_ratio=ratio), arrays['instance_count'])
    every = bound(BAGS(others_ratio=float(len(logits))), arrays['instance_count'])
    for g, classes in enumerate(calibrator.groups):
        yield Compared(f'group_classes_{g}', distance(classes, arrays[f'group_classes_{g}']), 0.0)
    yield absolute('scores', calibrator.scores(logits.softmax(dim=1), logits), arrays, 1e-6)
    for suffix in ('', '_b'):
        step = FirstInRowOrder(torch.from_numpy(arrays[f'labels{suffix}']), len(logits))
        own = [torch.isin(step.labels, classes) for classes in calibrator.groups]
        num_fg = np.array([int(of_group.sum()) for of_group in own])
        kept = [int(calibrator.chosen_others(of_group, step, 0).sum()) for of_group in own]
        yield absolute(f'num_fg{suffix}', num_fg, arrays, 0.0)
        yield absolute(f'num_others{suffix}', len(logits) - num_fg, arrays, 0.0)
        yield absolute(f'num_others_kept_ratio8{suffix}', np.array(kept), arrays, 0.0)
        losses = torch.stack(list(calibrator.loss(logits, step).values()))
        yield relative(f'loss_ratio8_first_k{suffix}', losses, arrays, 1e-6)
        # The variant without choice: all the others of a group that has a RoI of its own, which is the mean over all.
        present = [True, *(num_fg > 0)]
        all_others = torch.stack(list(every.loss(logits, step).values()))[present]
        expected = arrays[f'loss_all_others{suffix}'][present]
        yield Compared(f'loss_all_others{suffix}', relative_distance(all_others, expected), 1e-6)


def tau_norm(arrays: Arrays) -> Iterator[Compared]:
    for suffix, tau in (('1p0', 1.0), ('0p5', 0.5)):
        for background in (False, True):
            calibrator = TauNorm(tau, background)
            head = bound_head(calibrator, arrays['instance_count'], arrays['fc_weight'], arrays['fc_bias'])
            outputs = RoIOutputs(head, class_feats=torch.from_numpy(arrays['features']))
            with torch.no_grad():
                weight, bias = normalised_classifier(head.fc_cls, tau, background)
                logits, plain = calibrator.logits(outputs), outputs.logits.softmax(dim=1)
            scores = calibrator.scores(plain, logits, 'calibrated')
            if background:
                yield absolute(f'weight_allrows_tau_{suffix}', weight, arrays, 1e-6)
                yield absolute(f'scores_allrows_tau_{suffix}', scores, arrays, 1e-6)
                continue
            yield absolute('scores_plain', plain, arrays, 1e-6)
            yield absolute('class_mask_select', calibrator.is_rare, arrays, 0.0)
            yield absolute(f'weight_tau_{suffix}', weight, arrays, 1e-6)
            yield absolute(f'bias_tau_{suffix}', bias, arrays, 1e-6)
            yield absolute(f'logits_tau_{suffix}', logits, arrays, 1e-5)
            yield absolute(f'scores_tau_{suffix}', scores, arrays, 1e-6)
            selected = calibrator.scores(plain, logits, 'select')
            yield absolute(f'scores_select_tau_{suffix}', selected, arrays, 1e-6)


def eqlv2(arrays: Arrays) -> Iterator[Compared]:
    classes = arrays['logits'].shape[2] - 1
    loss = EQLV2Loss(classes, *(float(arrays[name]) for name in ('gamma', 'mu', 'alpha')))
    found: dict[str, list[np.ndarray]] = {}
    for logits, labels in zip(*(torch.from_numpy(arrays[name]) for name in ('logits', 'labels')), strict=True):
        weights = dict(zip(('pos_weight', 'neg_weight'), loss.weights(), strict=True))
        of_step = dict(weights, loss=loss(logits, labels))
        of_step |= {name: getattr(loss, name) for name in ('pos_grad', 'neg_grad', 'pos_neg')}
        for name, value in of_step.items():
            found.setdefault(name, []).append(value.numpy().copy())
    for name, values in found.items():
        yield relative(name, torch.from_numpy(np.stack(values)), arrays, 1e-6 if name == 'loss' else 1e-5)
    yield absolute('scores', loss.get_activation(torch.from_numpy(arrays['logits'][-1])), arrays, 1e-6)


METHODS: dict[str, Callable[[Arrays], Iterator[Compared]]] = {
    'acsl': acsl,
    'bags': bags,
    'disalign': disalign,
    'eqlv2': eqlv2,
    'fracal': fracal,
    'logn': logn,
    'lws': lws,
    'norcal': norcal,
    'tau_norm': tau_norm,
}


def bound(calibrator: Calibrator, counts: np.ndarray) -> Calibrator:
    """A calibrator bound to a head that does not matter, for classes with these training counts."""
    bound_head(calibrator, counts)
    return calibrator


def bound_head(
    calibrator: Calibrator, counts: np.ndarray, weight: np.ndarray | None = None, bias: np.ndarray | None = None
) -> BBoxHead:
    """The box head that a calibrator is bound to, whose last layer has given weights."""
    features = 8 if weight is None else weight.shape[1]
    head = BBoxHead(roi_feat_size=1, in_channels=features, num_classes=len(counts)).requires_grad_(False)
    if weight is not None:
        head.fc_cls.weight.copy_(torch.from_numpy(weight))
        head.fc_cls.bias.copy_(torch.from_numpy(bias))
    calibrator.bind([head], ClassFrequency(tuple(f'class {c}' for c in range(len(counts))), counts, counts))
    return head


def known_logits(head: BBoxHead, logits: Tensor) -> RoIOutputs:
    """RoIs of which only the base's logits are known."""
    outputs = RoIOutputs(head)
    outputs.logits = logits
    return outputs


def absolute(name: str, ours: Tensor | np.ndarray | float, arrays: Arrays, allowed: float) -> Compared:
    """An array by its largest absolute difference."""
    return Compared(name, distance(ours, arrays[name]), allowed)


def relative(name: str, ours: Tensor, arrays: Arrays, allowed: float) -> Compared:
    """An array by its largest difference as a share of what is expected."""
    return Compared(name, relative_distance(ours, arrays[name]), allowed)


def distance(ours: Tensor | np.ndarray | float, expected: np.ndarray) -> float:
    """Infinite for another shape, or where anything is not a number."""
    ours, expected = np.asarray(ours, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if ours.shape != expected.shape:
        return float('inf')
    return float(np.nan_to_num(np.abs(ours - expected), nan=np.inf).max(initial=0.0))


def relative_distance(ours: Tensor, expected: np.ndarray) -> float:
    """As `distance`; where 0 is expected the difference itself."""
    scale = np.where(expected == 0, 1, np.abs(expected))
    return distance(np.asarray(ours, dtype=np.float64) / scale, expected / scale)
