import gc

import pytest

from mmdet.utils.garbage import collector_paused


def test_the_collector_pauses_and_goes_on_even_after_an_error():
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_paused():
        raise KeyError
    assert gc.isenabled()
