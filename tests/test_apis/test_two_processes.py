"""The tools under torchrun, on CPUs with gloo."""
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdet.engine import load_config, read_checkpoint
from mmdet.engine.dist import end_processes

EVERY_SCORE = dict(model__test_cfg__rcnn__score_thr=0.0, model__test_cfg__rcnn__max_per_img=300)
TOOLS = Path(__file__).resolve().parents[2] / 'tools'
# A published calibration each, and options of it.
CALIBRATIONS = {
    'plain': ('simcal', []),
    'bank': ('simcal', ['calibration.feature_bank.visits_per_view=2']),
    'bags': ('bags', []),
    'acsl': ('acsl', []),
    'logn': ('logn', []),
    'norcal': ('norcal', []),
}


def run_tool(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_path(str(TOOLS / name))['main']()


class Commands:
    """The tools' arguments, but for the launcher, in a folder of its own for each number of processes."""

    def __init__(self, glyphs, checkpoints, folder):
        from . import tiny

        options = tiny.tiny_options(glyphs, train_cfg__max_iters=1, **EVERY_SCORE).items()
        self.options = [f'{key}={value}' for key, value in options if not key.startswith('calibration.')]
        self.published = tiny.CONFIGS / '_base_/calibration'
        self.configs = tiny.CONFIGS / 'quickstart'
        self.untrained = str(checkpoints / 'base.pth')
        self.trained = str(folder / 'two/iter_1.pth')
        self.folder = folder

    def train(self, processes):
        return ['train.py', str(self.configs / 'base.py'), '--seed', '5', *self._common(processes)]

    def test(self, processes):
        kept = ['--out', str(self.folder / processes / 'kept.pkl')]
        return ['test.py', str(self.configs / 'base.py'), self.trained, *kept, *self._common(processes)]

    def calibrate(self, processes, kind):
        name, options = CALIBRATIONS[kind]
        config = self.folder / f'{name}.py'
        bases = [str(self.configs / 'base.py'), str(self.published / f'{name}.py')]
        config.write_text(f'_base_ = {bases}\n{self._few_steps(name)}')
        common = self._common(f'{processes}/{kind}')
        return ['calibrate.py', str(config), self.untrained, '--seed', '3', *common, *options]

    def compare(self, processes):
        recipe = self.folder / 'short_bags.py'
        recipe.write_text(f"_base_ = '{self.published}/bags.py'\n{self._few_steps('bags')}")
        names = ['--calibrators', f'{recipe},norcal']
        common = self._common(f'{processes}/compare')
        return ['compare.py', str(self.configs / 'base.py'), self.untrained, *names, *common]

    def _few_steps(self, name):
        config = load_config(self.published / f'{name}.py').calibration
        if 'sampler' not in config:
            return ''
        size = 'images_per_step' if config.sampler.type == 'ImageSampler' else 'classes_per_step'
        return f'calibration = dict(max_steps=3, num_workers=0, sampler=dict({size}=4))\n'

    def _common(self, folder):
        return ['--work-dir', str(self.folder / folder), '--cfg-options', *self.options]


@pytest.fixture(scope='module')
def commands(glyphs, checkpoints, tmp_path_factory):
    return Commands(glyphs, checkpoints, tmp_path_factory.mktemp('two_processes'))


@pytest.fixture(scope='module')
def two_processes(commands):
    """What torchrun prints of two processes that train, test and calibrate, one after another."""
    tools = [commands.train('two'), commands.test('two'), *(commands.calibrate('two', kind) for kind in CALIBRATIONS)]
    tools.append(commands.compare('two'))
    for tool in tools:
        tool[2:2] = ['--launcher', 'pytorch']
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    folder = commands.folder / 'cwd'
    folder.mkdir()
    done = subprocess.run(
        [*command, __file__, json.dumps(tools)], capture_output=True, text=True, timeout=600, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert not any(folder.iterdir())
    return done


@pytest.mark.slow
def test_training_and_testing(commands, two_processes, monkeypatch):
    folder = commands.folder
    printed = two_processes.stdout.splitlines()
    assert printed[0] == f'trained: {commands.trained}' and f'results: {folder / "two/test"}' in printed
    assert 'Warning' not in two_processes.stderr
    assert (folder / 'two/kept.pkl').is_file() and not (folder / 'two/kept.pkl.parts').exists()
    assert read_checkpoint(commands.trained)['meta']['seed'] == 5

    monkeypatch.setattr(sys, 'argv', sys.argv)
    run_tool(*commands.test('one'))
    assert (folder / 'one/test/base.json').read_text() == (folder / 'two/test/base.json').read_text()


@pytest.mark.slow
@pytest.mark.parametrize('kind', CALIBRATIONS)
def test_they_calibrate_as_one_does(commands, two_processes, monkeypatch, kind):
    monkeypatch.setattr(sys, 'argv', sys.argv)
    run_tool(*commands.calibrate('one', kind))
    paths = (commands.folder / processes / kind / 'calibrated.pth' for processes in ('one', 'two'))
    one, two = (read_checkpoint(path)['state_dict'] for path in paths)
    learnt = any(name.startswith('roi_head.calibrator.') for name in one)
    assert one.keys() == two.keys() and learnt == (kind != 'norcal')
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=1e-5, rtol=0, msg=name)
    segments = (commands.folder / 'two' / kind).glob('feature_bank/*.segment')
    assert len(list(segments)) == (2 if kind == 'bank' else 0)


def test_they_compare_as_one_does(commands, two_processes, monkeypatch):
    """All figures, those of a trained calibrator to the rounding of its gradients."""
    monkeypatch.setattr(sys, 'argv', sys.argv)
    run_tool(*commands.compare('one'))
    one, two = (
        json.loads((commands.folder / processes / 'compare/compare/comparison.json').read_text())
        for processes in ('one', 'two')
    )
    assert one['num_candidates'] == two['num_candidates']
    for of_one, of_two in zip(one['lines'], two['lines'], strict=True):
        assert of_one['chosen'] == of_two['chosen']
        for name, (figure,) in of_one['figures'].items():
            assert of_two['figures'][name] == [pytest.approx(figure, abs=1e-3) if figure is not None else None], name


if __name__ == '__main__':
    for name_and_arguments in json.loads(sys.argv[1]):
        run_tool(*name_and_arguments)
    end_processes()
