"""Files are there whole or not at all, whatever goes wrong on the way."""
import pytest

from mmdet.errors import AnnotationError
from mmdet.utils.files import renamed_when_whole, written_whole


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / 'new folder/a.txt'
    with written_whole(path) as file:
        file.write(b'one ')
        assert not path.exists()
        file.write(b'two')
    assert path.read_bytes() == b'one two'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, TypeError])
def test_whatever_stops_the_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    with pytest.raises(error), written_whole(path) as file:
        file.write(b'new')
        raise error
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_meet(tmp_path):
    # Both have this process's id, as processes of two containers may have.
    path = tmp_path / 'a.txt'
    with written_whole(path) as first:
        first.write(b'first ')
        first.flush()
        with written_whole(path) as second:
            second.write(b'second')
        assert path.read_bytes() == b'second'
        first.write(b'first')
    assert path.read_bytes() == b'first first'
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_disk_is_the_error_asked_for(tmp_path):
    path = tmp_path / 'a.txt'
    path.mkdir()
    with pytest.raises(AnnotationError, match=r'^[^\n]*a\.txt: could not be written \(Is a directory\)[^\n]*$'):
        with written_whole(path, AnnotationError):
            pass
    with pytest.raises(IsADirectoryError), renamed_when_whole(path):
        pass
