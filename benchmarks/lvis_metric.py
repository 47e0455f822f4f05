"""LVISMetric against the official LVIS evaluator: boxes and masks, from model outputs to the figures.

    python benchmarks/lvis_metric.py --images 1000

Real annotations are repeated to so many images; the detections are disturbed annotations, wrong classes and empty masks
among them. Each side runs in a process of its own: it reads the annotation file, takes over the detections image by
image as a detector gives them, and computes all figures. The garbage of the imports is collected before the clock
starts. Printed are seconds and CPU seconds (ours: the run of the median clock), peak memory (`ru_maxrss`, of which the
imports are a part) and the largest difference of any figure; then our own run over five times as many images.
"""
import argparse
import gc
import gzip
import json
import pickle
import sys
import tempfile
from operator import itemgetter
from pathlib import Path
from typing import Any

from fresh_process import in_fresh_process, machine, measured

ROOT = Path(__file__).resolve().parents[1]
ANNOTATIONS = ROOT.parent / 'shared/data/lvis_v0.5_val_100.json.gz'
IOU_TYPES = ('bbox', 'segm')
OUR_RUNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--annotations', type=Path, default=ANNOTATIONS, help='LVIS annotations to repeat, .json.gz')
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--detections', type=int, default=300, help='detections on an image')
    parser.add_argument('--part', choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return

    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        run_part('prepare', args)
        first = run_part('ours', args)
        official = run_part('official', args)
        ours = median_run([first, *(run_part('ours', args) for _ in range(OUR_RUNS - 1))])
        args.images *= 5
        run_part('prepare', args)
        ours_on_more = median_run([run_part('ours', args) for _ in range(OUR_RUNS)])
    args.images //= 5

    difference = max(abs(ours['figures'][name] - figure) for name, figure in official['figures'].items())
    print(f'{args.images} images x {args.detections} detections, box and mask, the median of {OUR_RUNS} runs of ours')
    print(f'{"":16}{"seconds":>9}{"CPU s":>9}{"peak MB":>9}{"of it imports":>15}')
    for name, run in (('official', official), ('LVISMetric', ours), ('... 5 x images', ours_on_more)):
        print(
            f'{name:16}{run["seconds"]:9.2f}{run["cpu_seconds"]:9.2f}{run["peak_mb"]:9.0f}{run["imports_mb"]:15.0f}'
        )
    less_time, less_cpu, less_memory = (official[key] / ours[key] for key in ('seconds', 'cpu_seconds', 'peak_mb'))
    less_working_memory = above_imports(official) / above_imports(ours)
    print(f'{less_time:.0f} x the speed, {less_cpu:.0f} x less CPU')
    print(f'{less_memory:.1f} x less memory, {less_working_memory:.1f} x without imports')
    print(f'5 x the images: {ours_on_more["peak_mb"] / ours["peak_mb"]:.2f} x the memory')
    equal = difference < 1e-9
    print(f'{len(ours["figures"])} figures {"equal" if equal else "NOT EQUAL"}: largest difference {difference:.1e}')
    sys.exit(not equal)


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The one of the median clock."""
    return sorted(runs, key=itemgetter('seconds'))[len(runs) // 2]


def run_part(part: str, args: argparse.Namespace) -> dict[str, Any]:
    """Runs in a fresh process, whose peak memory is its own."""
    options = {'folder': args.folder, 'annotations': args.annotations, 'images': args.images}
    options['detections'] = args.detections
    return in_fresh_process(__file__, part, [f'--{name}={value}' for name, value in options.items()])


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the repeated annotations, and detections on the images before repetition."""
    from tests.test_evaluation.disturbed_detections import disturbed_detections

    with gzip.open(args.annotations, 'rt') as file:
        content = json.load(file)
    samples = disturbed_detections(content, least=args.detections, most=args.detections)
    (args.folder / 'samples.pkl').write_bytes(pickle.dumps(samples))
    once, image_ids = content['annotations'], [image['id'] for image in content['images']]
    images, annotations = [], []
    for number in range(args.images):
        source = content['images'][number % len(image_ids)]
        images.append(source | {'id': number})
        own = [annotation for annotation in once if annotation['image_id'] == source['id']]
        first = len(annotations) + 1
        annotations += [annotation | {'id': id, 'image_id': number} for id, annotation in enumerate(own, first)]
    path = args.folder / 'val.json'
    path.write_text(json.dumps(content | {'images': images, 'annotations': annotations}))
    return {}


def model_outputs(args: argparse.Namespace):
    """Data samples of all images, one at a time."""
    samples = pickle.loads((args.folder / 'samples.pkl').read_bytes())
    for image_id in range(args.images):
        yield samples[image_id % len(samples)] | {'img_id': image_id}


def ours(args: argparse.Namespace) -> dict[str, Any]:
    from mmdet.evaluation import LVISMetric

    return run(lambda: our_figures(LVISMetric(args.folder / 'val.json', metric=['bbox', 'segm']), args))


def our_figures(metric, args: argparse.Namespace) -> dict[str, float]:
    for sample in model_outputs(args):
        metric.process(None, [sample])
    figures = metric.evaluate(args.images)
    return {name.removeprefix('lvis/'): figure for name, figure in figures.items()}


def official(args: argparse.Namespace) -> dict[str, Any]:
    import logging

    import lvis
    import numpy
    import torch  # noqa: F401 the detections are tensors here as well

    logging.disable(logging.WARNING)
    numpy.float = float  # lvis 0.5.3 still says so
    return run(lambda: official_figures(lvis, args))


def official_figures(lvis, args: argparse.Namespace) -> dict[str, float]:
    from tests.test_evaluation.disturbed_detections import official_results

    ground_truth = lvis.LVIS(str(args.folder / 'val.json'))
    figures = {}
    for iou_type in IOU_TYPES:
        results = official_results(model_outputs(args), sorted(ground_truth.cats), iou_type)
        evaluation = lvis.LVISEval(ground_truth, lvis.LVISResults(ground_truth, results), iou_type)
        evaluation.run()
        figures |= {f'{iou_type}_{name}': float(figure) for name, figure in evaluation.get_results().items()}
    return figures


def run(compute) -> dict[str, Any]:
    gc.collect()
    figures, cost = measured(compute)
    return cost | {'figures': figures}


def above_imports(run: dict[str, Any]) -> float:
    return run['peak_mb'] - run['imports_mb']


PARTS = {'prepare': prepare, 'ours': ours, 'official': official}

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
