"""The tools under torchrun, on CPUs with gloo."""
import json
import runpy
import subprocess
import sys
from pathlib import Path

from mmdet.engine import read_checkpoint
from mmdet.engine.dist import end_processes

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def run_tool(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_path(str(TOOLS / name))['main']()


def test_training_and_testing(glyphs, tmp_path, free_port, monkeypatch):
    from . import tiny

    options = [f'{key}={value}' for key, value in tiny.tiny_options(glyphs, train_cfg__max_iters=1).items()]
    config = str(tiny.CONFIGS / 'quickstart/base.py')
    common = ['--seed', '5', '--launcher', 'pytorch', '--cfg-options', *options]
    train = ['train.py', config, '--work-dir', str(tmp_path), *common]
    kept = ['--out', str(tmp_path / 'kept.pkl')]
    test = ['test.py', config, str(tmp_path / 'iter_1.pth'), '--work-dir', str(tmp_path / 'two'), *kept, *common[2:]]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port}']
    folder = tmp_path / 'cwd'
    folder.mkdir()
    command += [__file__, json.dumps([train, test])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f'trained: {tmp_path / "iter_1.pth"}'
    assert done.stdout.splitlines()[-1] == f'results: {tmp_path / "two/test"}'
    assert 'Warning' not in done.stderr
    assert (tmp_path / 'kept.pkl').is_file() and not (tmp_path / 'kept.pkl.parts').exists()
    assert not any(folder.iterdir())
    assert read_checkpoint(tmp_path / 'iter_1.pth')['meta']['seed'] == 5

    monkeypatch.setattr(sys, 'argv', sys.argv)
    run_tool(
        'test.py', config, str(tmp_path / 'iter_1.pth'), '--work-dir', str(tmp_path / 'one'), '--cfg-options', *options
    )
    assert (tmp_path / 'one/test/base.json').read_text() == (tmp_path / 'two/test/base.json').read_text()


if __name__ == '__main__':
    for name_and_arguments in json.loads(sys.argv[1]):
        run_tool(*name_and_arguments)
    end_processes()
