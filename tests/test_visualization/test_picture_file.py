import numpy as np
import pytest
from PIL import Image

from mmdet.errors import UserError
from mmdet.visualization import write_picture

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ('name', 'written', 'kind'),
    [('a.png', 'a.png', 'PNG'), ('a.b', 'a.b.png', 'PNG'), ('a', 'a.png', 'PNG'), ('a.JPG', 'a.JPG', 'JPEG')],
)
def test_a_picture_has_the_format_of_its_name(tmp_path, name, written, kind):
    write_picture(PICTURE, tmp_path / 'new' / name)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == [written]
    picture = Image.open(tmp_path / 'new' / written)
    assert picture.format == kind and picture.size == (30, 20)
    assert kind != 'PNG' or np.array_equal(picture, PICTURE)


def test_a_folder_that_takes_none(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'a\.png: could not be written'):
        write_picture(PICTURE, tmp_path / 'file/a.png')
