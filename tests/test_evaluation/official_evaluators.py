"""The official LVIS and COCO evaluators, which the metrics must agree with."""
import contextlib
import io
import logging
import warnings

import numpy as np
import pytest

LVIS_FIGURES = 'AP AP50 AP75 APs APm APl APr APc APf AR@300 ARs@300 ARm@300 ARl@300'.split()
COCO_FIGURES = 'AP AP50 AP75 APs APm APl AR@1 AR@10 AR@100 ARs@100 ARm@100 ARl@100'.split()


def official_lvis(path, results, iou_type) -> tuple[dict[str, float], np.ndarray]:
    """The 13 figures, and the AP of each category in ascending order of ids (-1 without ground truth).

    `results` is a list of result dicts, to which the evaluator adds, or the path of a result file.
    """
    lvis = pytest.importorskip('lvis')
    np.float = float  # lvis 0.5.3 still says so
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            ground_truth = lvis.LVIS(str(path))
            evaluation = lvis.LVISEval(ground_truth, lvis.LVISResults(ground_truth, results), iou_type)
            evaluation.run()
    finally:
        del np.float
        logging.disable(logging.NOTSET)
    return dict(evaluation.get_results()), evaluation.eval['precision'][:, :, :, 0].mean((0, 1))


def official_proposals(path, results) -> dict[str, float]:
    """The recall of boxes as mmdetection has it reported: of all classes together, and of up to 1000 an image."""
    stats = _coco_evaluation(path, results, 'bbox', useCats=0, maxDets=[100, 300, 1000]).stats.tolist()
    return dict(zip('AR@100 AR@300 AR@1000 AR_s@1000 AR_m@1000 AR_l@1000'.split(), stats[6:], strict=True))


def official_coco(path, results, iou_type, **params) -> dict[str, float]:
    """The 12 figures; `results` as of `official_lvis`; `params` of the evaluator."""
    stats = _coco_evaluation(path, results, iou_type, **params).stats.tolist()
    return dict(zip(COCO_FIGURES, stats, strict=True))


def official_coco_by_class(path, results, iou_type) -> dict[int, float]:
    """The AP of each category, -1 without ground truth."""
    evaluation = _coco_evaluation(path, results, iou_type)
    precision = evaluation.eval['precision'][:, :, :, 0, -1].mean((0, 1))
    return dict(zip(evaluation.params.catIds, precision.tolist(), strict=True))


def _coco_evaluation(path, results, iou_type, **params):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(path))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), iou_type)
        vars(evaluation.params).update(params)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
