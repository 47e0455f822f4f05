"""Which classes of a checkpoint are those of a data set."""
import pytest
from mmengine.logging import MMLogger

from mmdet.apis.classes import check_trained_classes
from mmdet.engine.terminal import quieten
from mmdet.errors import CheckpointError

GIVEN = dict(classes=('cat', 'dog'), category_ids=(1, 7))


@pytest.mark.parametrize(
    'trained',
    [{}, dict(classes=['cat', 'dog'], category_ids=[1, 7]), dict(classes=('cat', 'dog')), dict(CLASSES=('cat', 'dog'))],
)
def test_same_classes(trained, capsys):
    quieten(MMLogger.get_current_instance())
    check_trained_classes(trained, GIVEN, 'a.pth', 'test_dataloader')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('trained', 'message'),
    [
        (dict(classes=['cat', 'dog'], category_ids=[1, 2]), 'a.pth: .*label 1 is category 2, and 7 in the data of'),
        (dict(classes=['cat'], category_ids=[1]), 'a.pth: .*other classes: 1, and there are 2'),
        (dict(classes=('cat', 'dog', 'cow')), 'a.pth: .*other classes: 3, and there are 2'),
        (dict(CLASSES=('cat', 'dog', 'cow')), 'a.pth: .*other classes: 3, and there are 2'),
    ],
)
def test_other_classes(trained, message):
    with pytest.raises(CheckpointError, match=message):
        check_trained_classes(trained, GIVEN, 'a.pth', 'test_dataloader')


@pytest.mark.parametrize('ids', [{}, dict(category_ids=[1, 7])])
def test_other_names_are_warned_of(ids, capsys):
    quieten(MMLogger.get_current_instance())
    check_trained_classes(dict(ids, classes=('cat', 'hound')), GIVEN, 'a.pth', 'test_dataloader')
    assert "a.pth: label 1 was 'hound' in training and is 'dog'" in capsys.readouterr().err
