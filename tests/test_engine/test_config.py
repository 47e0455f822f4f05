"""Configs: what a user can get wrong in one, and the line that says so."""
import importlib.metadata
import logging
from argparse import ArgumentParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmdet.engine import (
    Runner,
    add_common_options,
    config_errors,
    config_from_arguments,
    load_config,
    require_keys,
    run_tool,
)
from mmdet.engine.cfg_options import option_value
from mmdet.engine.config import check_installation
from mmdet.errors import AnnotationError, ConfigError
from mmdet.registry import MODELS

from . import toy


def write(path, text):
    path.write_text(text)
    return path


def message_of(*args):
    """The one line of a config that cannot be read."""
    with pytest.raises(ConfigError) as error:
        load_config(*args)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_bases_options_and_scope(tmp_path):
    write(
        tmp_path / 'base.py', 'model = dict(type="MaskRCNN", backbone=dict(depth=50))\npipeline = [dict(type="Flip")]'
    )
    path = write(tmp_path / 'child.py', '_base_ = "base.py"\nmodel = dict(backbone=dict(depth=101))\nimage_size = 128')
    options = {'model.backbone.style': 'caffe', 'pipeline.0.prob': 0.5}
    config = load_config(path, options)
    assert config.model == dict(type='MaskRCNN', backbone=dict(depth=101, style='caffe'))
    assert config.pipeline[0].prob == 0.5
    assert config.default_scope == DefaultScope.get_current_instance().scope_name == 'mmdet'


def test_missing_file(tmp_path):
    assert message_of(tmp_path / 'none.py') == f'{tmp_path / "none.py"}: no such config file'


def test_missing_base(tmp_path):
    path = write(tmp_path / 'child.py', '_base_ = ["middle.py"]')
    write(tmp_path / 'middle.py', '_base_ = ["gone.py"]')
    assert message_of(path) == f'{path}: its base config {tmp_path / "gone.py"} does not exist'


@pytest.mark.parametrize('broken', ['child.py', 'base.py'])
def test_syntax_error_names_file_and_line(tmp_path, broken):
    write(tmp_path / 'base.py', 'a = 1')
    write(tmp_path / 'child.py', '_base_ = ["base.py"]')
    with open(tmp_path / broken, 'a') as file:
        file.write('\nb = dict(a=1\n')
    message = message_of(tmp_path / 'child.py')
    assert message.startswith(f'{tmp_path / broken}: line 2: syntax error')


def test_error_in_the_config_names_file_and_line(tmp_path):
    write(tmp_path / 'base.py', 'a = 1\n\nb = c')
    path = write(tmp_path / 'child.py', '_base_ = "base.py"')
    assert message_of(path) == f"{tmp_path / 'base.py'}: line 3: NameError: name 'c' is not defined"


def test_same_key_in_two_bases(tmp_path):
    for name in 'ab':
        write(tmp_path / f'{name}.py', 'model = dict(type="MaskRCNN")')
    path = write(tmp_path / 'child.py', '_base_ = ["a.py", "b.py"]')
    assert 'child.py' in message_of(path) and 'Duplicate' in message_of(path)


@pytest.mark.parametrize(
    ('misspelt', 'meant'),
    [('optim_wraper', 'optim_wrapper'), ('train_dataloaders', 'train_dataloader'), ('calibraton', 'calibration')],
)
def test_misspelt_top_level_key(tmp_path, misspelt, meant):
    path = write(tmp_path / 'config.py', f'{misspelt} = dict()')
    assert message_of(path) == f'{path}: top-level key `{misspelt}` is not known; did you mean `{meant}`?'


def test_misspelt_default_hook(tmp_path):
    path = write(tmp_path / 'config.py', 'default_hooks = dict(chekpoint=dict(type="CheckpointHook"))')
    assert message_of(path) == f'{path}: default_hooks. `chekpoint` is not known; did you mean `checkpoint`?'


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ('test_cfg=dict(rcnn=dict(score_thresh=0.1))', 'model.test_cfg.rcnn: the key `score_thresh` is not known; '
         'did you mean `score_thr`?'),
        ('train_cfg=dict(rcnn=dict(mask_sise=28))', 'model.train_cfg.rcnn: the key `mask_sise` is not known; '
         'did you mean `mask_size`?'),
        ('train_cfg=dict(rcnn=[dict(mask_size=28), dict(mask_sise=28)])', 'model.train_cfg.rcnn.1: the key '
         '`mask_sise` is not known; did you mean `mask_size`?'),
        ('train_cfg=dict(rpn_proposal=dict(nms_per=9))', 'model.train_cfg.rpn_proposal: the key `nms_per` is not '
         'known; did you mean `nms_pre`?'),
        ('roi_head=dict(), train_cfg=dict(rccn=dict())', 'model.train_cfg: the key `rccn` is not known; '
         'did you mean `rcnn`?'),
    ],
)  # fmt: skip
def test_misspelt_settings_of_a_model(tmp_path, settings, message):
    path = write(tmp_path / 'config.py', f'model = dict({settings})')
    assert message_of(path) == f'{path}: {message}'


def test_settings_mmdetection_knows(tmp_path):
    path = write(
        tmp_path / 'config.py',
        """model = dict(roi_head=dict(), train_cfg=dict(
            rpn=dict(assigner=dict(), sampler=dict(), allowed_border=-1, pos_weight=-1, debug=False),
            rpn_proposal=dict(nms_pre=2, nms_post=2, max_num=2, max_per_img=2, nms=dict(), min_bbox_size=0,
                              nms_across_levels=False),
            rcnn=[dict(assigner=dict(), sampler=dict(), mask_size=28, pos_weight=-1, debug=False)]),
        test_cfg=dict(rpn=dict(nms_pre=2), rcnn=dict(score_thr=0, nms=dict(), max_per_img=9, mask_thr_binary=-1)))""",
    )
    load_config(path)
    load_config(write(tmp_path / 'other.py', 'model = dict(train_cfg=dict(assigner=dict()), test_cfg=None)'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('randomness = dict(sed=1)', 'randomness: the key `sed` is not known; did you mean `seed`?'),
        ('env_cfg = dict(cudnn_bench=True)', 'env_cfg: the key `cudnn_bench` is not known; '
         'did you mean `cudnn_benchmark`?'),
        ('env_cfg = dict(mp_cfg=dict(start_method="fork"))', 'env_cfg.mp_cfg: the key `start_method` is not known; '
         'did you mean `mp_start_method`?'),
    ],
)  # fmt: skip
def test_misspelt_settings_of_a_run(tmp_path, text, message):
    path = write(tmp_path / 'config.py', text)
    assert message_of(path) == f'{path}: {message}'


def test_variables_of_the_users_own_are_no_mistakes(tmp_path):
    own = ['train_pipeline', 'test_pipeline', 'val_pipeline', 'tta_pipeline',
           'dataset_type', 'data_root', 'train_dataloader_small', 'base_lr', 'num_classes', 'warmup',
           'img_scales', 'max_epochs', 'norm_cfg', 'backend_args', 'my_model', 'albu_train_transforms', 'max_iters',
           'train_dataset', 'interval', 'model_cfg', 'mode', 'num_last_epochs', 'stage2_num_epochs']  # fmt: skip
    load_config(write(tmp_path / 'config.py', '\n'.join(f'{name} = 1' for name in own)))


def test_missing_key_with_what_might_be_it():
    with pytest.raises(ConfigError, match='`model` is missing; is `modle` meant to be it?'):
        require_keys(Config(dict(modle=dict())), 'model')


def test_option_into_a_list_that_is_too_short(tmp_path):
    path = write(tmp_path / 'config.py', 'pipeline = [dict(type="Flip")]')
    message = '--cfg-options pipeline.3.type: `pipeline` is a list of 1, which has no `3`'
    assert message_of(path, {'pipeline.3.type': 'Pad'}) == message


def test_option_below_a_value(tmp_path):
    path = write(tmp_path / 'config.py', 'model = dict(backbone=dict(depth=50), neck=None)')
    assert message_of(path, {'model.neck.type': 'FPN'}).endswith('`model.neck` is None in the config and has no keys')
    config = load_config(path, {'model.roi_head.bbox_head.num_classes': 3, 'model.backbone.depth': 18})
    assert (config.model.roi_head.bbox_head.num_classes, config.model.backbone.depth) == (3, 18)


def built(tmp_path, **changes):
    """The one line of a config that cannot be built."""
    config = toy.toy_config(tmp_path, 1)
    config.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    with pytest.raises(ConfigError) as error, config_errors(config):
        Runner.from_cfg(config).train()
    assert '\n' not in str(error.value)
    return str(error.value).removeprefix('config: ')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(model__type='ToyModle'), 'model: there is no model of type `ToyModle`; did you mean `ToyModel`?'),
        (dict(model__widht=3), 'model: ToyModel has no key `widht`; did you mean `width`?'),
        (
            dict(optim_wrapper__optimizer__learning_rate=1),
            'optim_wrapper.optimizer: SGD has no key `learning_rate`',
        ),
        (
            dict(optim_wrapper__clip_grads=1),
            'optim_wrapper: OptimWrapper has no key `clip_grads`; did you mean `clip_grad`?',
        ),
        (
            dict(train_dataloader__batch_sizes=1),
            'train_dataloader: DataLoader has no key `batch_sizes`; did you mean `batch_size`?',
        ),
        (
            dict(train_dataloader__dataset__sise=1),
            'train_dataloader.dataset: ToyDataset has no key `sise`; did you mean `size`?',
        ),
        (
            dict(train_dataloader__sampler__type='InfinitSampler'),
            'train_dataloader.sampler: there is no data sampler of type `InfinitSampler`; '
            'did you mean `InfiniteSampler`?',
        ),
        (
            dict(train_cfg__max_iter=3),
            'train_cfg: IterBasedTrainLoop has no key `max_iter`; did you mean `max_iters`?',
        ),
        (
            dict(train_cfg=dict(_delete_=True, type='IterBasedTrainLoop')),
            'train_cfg: IterBasedTrainLoop needs the key `max_iters`',
        ),
        (
            dict(param_scheduler=[dict(type='MultiStepLR', milestone=[1])]),
            'param_scheduler.0: MultiStepLR has no key `milestone`; did you mean `milestones`?',
        ),
        (
            dict(custom_hooks=[dict(type='EMAHok')]),
            'custom_hooks.0: there is no hook of type `EMAHok`; did you mean `EMAHook`?',
        ),
        (
            dict(default_hooks__checkpoint__intervall=1),
            'default_hooks.checkpoint: CheckpointHook has no key `intervall`; did you mean `interval`?',
        ),
        (
            dict(optim_wrapper__optimizer__lr=-1),
            'optim_wrapper.optimizer: SGD cannot be built: ValueError: Invalid learning rate: -1',
        ),
        (dict(train_dataloader__batch_size=0), 'a dataloader has batch_size=0: must be an integer from 1'),
        (dict(model=dict(_delete_=True, width=3)), 'a model is configured without a `type` (its keys: width)'),
    ],
)
def test_misspelt_component(tmp_path, changes, message):
    assert built(tmp_path, **changes) == message


def test_value_of_another_kind(tmp_path):
    message = built(tmp_path, optim_wrapper__optimizer__lr='abc')
    assert message.startswith('optim_wrapper.optimizer: SGD cannot be built: TypeError')


def test_loop_by_epoch_takes_its_keys_from_train_cfg(tmp_path):
    config = toy.toy_config(tmp_path, train_cfg=dict(by_epoch=False, max_itres=3))
    with pytest.raises(ConfigError, match='train_cfg: IterBasedTrainLoop .*`max_it'), config_errors(config):
        Runner.from_cfg(config).train()


def test_bugs_are_not_taken_for_mistakes_of_the_config():
    @MODELS.register_module(force=True)
    class Buggy:
        def __init__(self):
            dict().update(**self.helper(size=3))

        def helper(self):
            return {}

    with pytest.raises(TypeError, match='size'), config_errors(Config(dict(model=dict(type='Buggy')))):
        MODELS.build(dict(type='Buggy'))
    with pytest.raises(KeyError), config_errors(Config()):
        {}['key']
    with pytest.raises(AnnotationError), config_errors(Config()):
        raise AnnotationError('a.json: broken')


def test_openmmlab_beside_us(monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: '3.3.0' if name == 'mmdet' else version(name))
    with pytest.raises(ConfigError, match=r'mmdet 3\.3\.0.*pip uninstall mmdet'):
        check_installation()


def test_tools_end_with_one_line_and_status_2(capsys):
    def main():
        raise ConfigError('a.py: wrong')

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: a.py: wrong\n'


def test_tools_warn_in_one_line(capsys):
    run_tool(lambda: print_log('a.json: 3 boxes left out', logger='current', level=logging.WARNING))
    run_tool(lambda: print_log('a.json: read', logger='current'))
    assert capsys.readouterr() == ('', 'WARNING: a.json: 3 boxes left out\n')


def test_tools_can_be_interrupted(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_command_line_options(capsys):
    parser = ArgumentParser()
    add_common_options(parser)
    args = parser.parse_args(['--cfg-options', 'a.b=1', 'c=[x,y]', '--launcher', 'pytorch'])
    assert (args.cfg_options, args.launcher) == ({'a.b': 1, 'c': ['x', 'y']}, 'pytorch')
    with pytest.raises(SystemExit) as end:
        parser.parse_args(['--cfg-options', 'a.b'])
    assert end.value.code == 2
    assert 'expected KEY=VALUE items, got a.b' in capsys.readouterr().err
    for text in ('c=[x', 'c=(x]', 'c=["x]', 'c={a: 1}'):
        with pytest.raises(SystemExit):
            parser.parse_args(['--cfg-options', text])
        assert f'got {text}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('a=1', 1),
        ('a=1e-3', 1e-3),
        ('a=true', True),
        ('a=None', None),
        ('a=none', 'none'),
        ('a=', ''),
        ('a= two words ', 'two words'),
        ('a=b=c', 'b=c'),
        ('a=1,2', [1, 2]),
        ('a=bbox,segm', ['bbox', 'segm']),
        ('a=traffic light, stop sign', ['traffic light', 'stop sign']),
        ('a=[traffic light,stop sign]', ['traffic light', 'stop sign']),
        ("a=('traffic light', \"driver's seat\")", ('traffic light', "driver's seat")),
        ("a=driver's seat,man (old, tall)", ["driver's seat", 'man (old, tall)']),
        ("a=['1', 2, 'a, b', '[c', [d e, (None, -1.5)], ()]", ['1', 2, 'a, b', '[c', ['d e', (None, -1.5)], ()]),
        ('a="[(1,2), x]"', [(1, 2), 'x']),
        ('a="1, 2"', '1, 2'),
        ("a='None'", 'None'),
        ('a=(1),(2)', [(1,), (2,)]),
        ('a=1,', [1]),
        ("a={'type': 'nms', 'levels': [1, 2]}", {'type': 'nms', 'levels': [1, 2]}),
        ('data_root=my data/', 'my data/'),
        ('train_dataloader.dataset.data_root=/data/a, b/c', '/data/a, b/c'),
        ('test_evaluator.ann_file=2017,val.json', '2017,val.json'),
        ('work_dir=2017', '2017'),
        ('load_from=None', None),
        ('load_from=https://host/a,b.pth?x=(1', 'https://host/a,b.pth?x=(1'),
        ('pipeline.0.file=images\\a,b.jpg', 'images\\a,b.jpg'),
        ('calibration.feature_bank.dir="bank (1), new"', 'bank (1), new'),
        ('ann_file=[a/b.json, c.json]', ['a/b.json', 'c.json']),
        ("data_prefix.img='it is, 1'", 'it is, 1'),
    ],
)
def test_values_on_the_command_line(text, value):
    parser = ArgumentParser()
    add_common_options(parser)
    (found,) = parser.parse_args(['--cfg-options', text]).cfg_options.values()
    assert found == value and type(found) is type(value)


@given(st.recursive(st.integers() | st.booleans() | st.none() | st.text(st.sampled_from('ab c,1[')), st.lists))
def test_values_of_python_are_read_as_they_are_written(value):
    text = repr(value)
    assert option_value('model.key', text) == value


def test_options_with_spaces_and_commas_reach_the_config(tmp_path):
    folder = tmp_path / 'my, config'
    folder.mkdir()
    (folder / 'a.py').write_text("data_root = 'x'\ntrain_dataloader = dict(dataset=dict(metainfo=dict(classes='a')))")
    parser = ArgumentParser()
    parser.add_argument('config')
    add_common_options(parser)
    options = ['data_root=my data/a,b/', 'train_dataloader.dataset.metainfo.classes=traffic light,stop sign']
    config = config_from_arguments(parser.parse_args([str(folder / 'a.py'), '--cfg-options', *options]))
    assert config.data_root == 'my data/a,b/'
    assert config.train_dataloader.dataset.metainfo.classes == ['traffic light', 'stop sign']
