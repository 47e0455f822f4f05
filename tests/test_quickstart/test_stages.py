import pytest

import mmdet
from mmdet.apis.stages import Stage
from mmdet.errors import UserError


def write(folder, name='result', content='made'):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def test_finished_stage_is_kept(tmp_path):
    folder = tmp_path / 'train'
    first = Stage('train', folder, ['config'])
    first.run(lambda: write(folder))
    again = Stage('train', folder, ['config'])
    again.run(lambda: pytest.fail('done again'))
    assert again.is_finished and again.seconds == round(first.seconds, 1)


def test_interrupted_stage_goes_on_in_its_folder(tmp_path):
    folder = tmp_path / 'train'

    def interrupted():
        write(folder, 'iter_10.pth')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage('train', folder, ['config']).run(interrupted)
    again = Stage('train', folder, ['config'])
    assert again.is_known and not again.is_finished
    again.run(lambda: write(folder))
    assert (folder / 'iter_10.pth').exists() and again.is_finished


@pytest.mark.parametrize('change', ['config', 'stage before', 'version'])
def test_stage_starts_anew_when_something_it_depends_on_changes(tmp_path, monkeypatch, change):
    folder = tmp_path / 'calibrate'
    train = Stage('train', tmp_path / 'train', ['config'])
    Stage('calibrate', folder, ['config'], after=[train]).run(lambda: write(folder))
    texts = ['config']
    if change == 'config':
        texts = ['another config']
    elif change == 'stage before':
        train = Stage('train', tmp_path / 'train', ['another config'])
    else:
        monkeypatch.setattr(mmdet, '__version__', '999')
    again = Stage('calibrate', folder, texts, after=[train])
    assert not again.is_finished and again.starts_anew
    assert (folder / 'result').exists(), 'made room before the stage is run'
    again.run(lambda: write(folder, 'other_result'))
    assert not (folder / 'result').exists() and (folder / 'other_result').exists()


def test_finished_stage_whose_product_is_gone_is_run_again(tmp_path):
    folder = tmp_path / 'train'
    product = folder / 'result'
    Stage('train', folder, ['config'], has_product=product.exists).run(lambda: write(folder))
    assert Stage('train', folder, ['config'], has_product=product.exists).is_finished
    product.unlink()
    again = Stage('train', folder, ['config'], has_product=product.exists)
    assert not again.is_finished and not again.starts_anew
    again.run(lambda: write(folder))
    assert again.is_finished and product.exists()


def test_folder_of_someone_else_is_left_alone(tmp_path):
    write(tmp_path / 'base', 'thesis.tex')
    with pytest.raises(UserError, match='choose another --work-dir'):
        Stage('train', tmp_path / 'base', ['config'])
    assert (tmp_path / 'base/thesis.tex').exists()


def test_data_folder_is_never_emptied(tmp_path):
    write(tmp_path / 'data', 'photograph.jpg')
    Stage('generate', tmp_path / 'data', ['seed 0'], emptied=False).run(lambda: write(tmp_path / 'data'))
    Stage('generate', tmp_path / 'data', ['seed 1'], emptied=False).run(lambda: write(tmp_path / 'data'))
    assert (tmp_path / 'data/photograph.jpg').exists()
